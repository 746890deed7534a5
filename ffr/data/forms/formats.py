"""Records of either form ⇄ examples: which form one has, and files of examples written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ffr.data.findings import FaultyError, Finding, Findings, shown
from ffr.data.forms.fields import EXTRA_KEYS
from ffr.data.forms.ms_swift import example_to_record, read_ms_swift
from ffr.data.forms.raw import EXTRA_LINE_KEYS, examples_to_raw_record, read_raw
from ffr.data.keys import other_name
from ffr.dialogue import Example
from ffr.errors import UsageError
from ffr.files import write_records
from ffr.prompt import QueryPosition

DataFormat = Literal["ms-swift", "raw"]


def read_record(
    record: Mapping[str, Any], *, fallback_id: str = "", image_root: Path | None = None
) -> tuple[list[Example], list[Finding]]:
    """Reads one record of either form and lists all that is wrong with it.

    Args:
        record: The JSON object.
        fallback_id: The dialogue's id where the record has none.
        image_root: Goes into the examples.

    Returns:
        The examples (none where a finding is an error) and the findings.

    >>> lines = [{"speaker": "a", "utterance": "hi"}]
    >>> examples, findings = read_record({"dialogue": lines, "query_text": "greeting"})
    >>> examples[0].query, [finding.kind for finding in findings]
    ('greeting', ['missing-id'])
    """
    findings = Findings()
    examples: list[Example] = []
    try:
        if "messages" in record:
            examples = [read_ms_swift(record, findings, fallback_id, image_root)]
        elif "dialogue" in record:
            examples = read_raw(record, findings, fallback_id, image_root)
        else:
            others = {key: other_name(key, record) for key in ("messages", "dialogue")}
            hint = next(
                (
                    f'; did you mean {shown(other)}? rename it to "{key}"'
                    for key, other in others.items()
                    if other is not None
                ),
                "; write one of the two",
            )
            findings.error(
                "no-form",
                'the record has neither "messages" (ms-swift form) nor "dialogue" (raw form)'
                + hint,
            )
    except FaultyError:
        pass
    if any(finding.is_error for finding in findings):
        return [], findings
    return examples, findings


def write_examples(
    path: str | Path,
    examples: Iterable[Example],
    *,
    format: DataFormat = "ms-swift",  # noqa: A002 - the word that callers know
    template: str = "zh",
    query_position: QueryPosition = "first",
    drop_prompts: bool = False,
) -> int:
    """Writes examples to a .json list or a .jsonl file, packed if the name ends in .gz.

    The file appears whole or not at all.

    Args:
        path: The file; its folder is made.
        examples: What to write. Neighbours on one dialogue become one record of the raw form.
        format: `ms-swift` or `raw`.
        template: Template of the prompt where an example has none of its own.
        query_position: Likewise.
        drop_prompts: For `raw`: let go of prompts in other words than the built-in templates.

    Returns:
        The number of records written.

    Raises:
        DataError: where an example cannot be written in this form without loss, or the file cannot
            be written.
    """
    if format == "ms-swift":
        records: Iterable[dict[str, Any]] = (
            example_to_record(example, template=template, query_position=query_position)
            for example in examples
        )
    elif format == "raw":
        records = (
            examples_to_raw_record(group, drop_prompts=drop_prompts)
            for group in _grouped_by_dialogue(examples)
        )
    else:
        raise UsageError(f"no format {format!r}; there are ms-swift and raw")
    return write_records(path, records)


def _grouped_by_dialogue(examples: Iterable[Example]) -> Iterator[list[Example]]:
    def shared(example: Example) -> tuple[Any, ...]:
        return (
            example.dialogue,
            example.fragment is None,
            example.meta.get(EXTRA_KEYS),
            example.meta.get(EXTRA_LINE_KEYS),
        )

    group: list[Example] = []
    for example in examples:
        if group and shared(group[0]) != shared(example):
            yield group
            group = []
        group.append(example)
    if group:
        yield group
