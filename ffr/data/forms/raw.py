"""Records of the raw form, one dialogue with one or more queries each: read and made.

What a record says beyond its form's keys is kept in `Example.meta` (unknown keys of the record
under `EXTRA_KEYS`, those of its lines under `EXTRA_LINE_KEYS`), so that making a record of examples
gives back what was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ffr.data.findings import FaultyError, Findings, all_texts, shown
from ffr.data.forms.fields import (
    EXTRA_KEYS,
    RAW_KEYS,
    check_ids,
    read_id,
    read_image,
    read_meta,
    split_meta,
    with_extra,
)
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError
from ffr.prompt import TEMPLATES, check_markers, prompt_of
from ffr.text import counted

EXTRA_LINE_KEYS = "_extra_lines"
"""In `Example.meta`: for each line of a raw dialogue, the keys that the form does not know; absent
where there are none."""
_SAID = "write a text or a list of {image_url, caption}"
RAW_LINE_KEYS = ("speaker", "utterance_idx", "utterance")


def read_raw(
    record: Mapping[str, Any], findings: Findings, fallback_id: str, root: Path | None
) -> list[Example]:
    """The examples of a record, one a query.

    Raises FaultyError where a part cannot be read any further.
    """
    given_meta = record.get("meta")
    one_each = given_meta if isinstance(given_meta, list) else None
    meta = read_meta(
        {**record, "meta": None} if one_each is not None else record, RAW_KEYS, findings
    )
    dialogue_id = read_id(record, findings, fallback_id)
    lines = findings.require(
        record["dialogue"],
        list,
        '"dialogue"',
        "write a list of {speaker, utterance_idx, utterance}",
    )
    if not lines:
        findings.error("no-utterance", '"dialogue" is empty; a dialogue has utterances')
        raise FaultyError
    utterances: list[Utterance] = []
    extra_lines: list[dict[str, Any]] = []
    for index, line in enumerate(lines):
        utterance, extra = _read_raw_line(line, index, findings)
        utterances.append(utterance)
        extra_lines.append(extra)
    unknown = sorted({key for extra in extra_lines for key in extra})
    # lines that name it may still not name a key that others lack
    free = [key for key in RAW_LINE_KEYS if not all(key in line for line in lines)]
    for key in unknown:
        findings.unknown(key, free, "in lines of the dialogue: ")
    if unknown:
        meta[EXTRA_LINE_KEYS] = extra_lines
    dialogue = Dialogue(dialogue_id, tuple(utterances))
    queries, answers = _read_raw_queries(record, findings)
    if one_each is not None and (
        len(one_each) != len(queries)
        or not all(isinstance(item, dict) and EXTRA_KEYS not in item for item in one_each)
    ):
        findings.error(
            "wrong-type",
            f'"meta" is a list but not of {len(queries)} objects, one a query; correct it',
        )
        raise FaultyError
    try:
        check_markers(dialogue, *queries)
    except DataError as error:
        findings.error("marker", error.message)
        raise FaultyError from error
    images_of: dict[int, list[int]] = {}
    for image_id, turn in enumerate(dialogue.image_utterance_ids):
        images_of.setdefault(turn, []).append(image_id)
    examples: list[Example] = []
    for number, (query, turns) in enumerate(zip(queries, answers, strict=True)):
        fragment = None
        if turns is not None:
            image_ids = (
                image_id for turn in sorted(set(turns)) for image_id in images_of.get(turn, ())
            )
            fragment = Fragment(tuple(turns), tuple(image_ids))
            name = '"gt_turns"' if len(queries) == 1 else f'"gt_turns" of query {number}'
            check_ids(fragment, name, len(utterances), len(dialogue.images), findings)
        own_meta = {**one_each[number], **meta} if one_each is not None else meta
        examples.append(Example(dialogue, query, fragment, None, root, MappingProxyType(own_meta)))
    return examples


def _read_raw_line(line: Any, index: int, findings: Findings) -> tuple[Utterance, dict[str, Any]]:
    name = f"line {index} of the dialogue"
    findings.require(line, dict, name, "write {speaker, utterance_idx, utterance}")
    position = line.get("utterance_idx")
    if position is not None and (isinstance(position, bool) or position != index):
        findings.error(
            "utterance-idx",
            f"{name} has utterance_idx {shown(position)}; ids count from 0 in dialogue order",
        )
        raise FaultyError
    speaker = findings.require_key(line, "speaker", str, "write a text", name)
    if "utterance" not in line:
        findings.missing(line, "utterance", _SAID, name)
    said = line["utterance"]
    if isinstance(said, str):
        said = [said]
    findings.require(said, list, f"the utterance of {name}", _SAID)
    segments: list[str | Image] = []
    for part in said:
        if isinstance(part, str):
            if part:
                segments.append(part)
            continue
        source = read_image(part, f"an image of {name}", findings)
        caption = part.get("caption") if isinstance(part, dict) else None
        if caption is not None:
            findings.require(caption, str, f"a caption of {name}", "write a text")
        segments.append(Image(source, caption or ""))
    extra = {key: value for key, value in line.items() if key not in RAW_LINE_KEYS}
    return Utterance(speaker, tuple(segments)), extra


def _read_raw_queries(
    record: Mapping[str, Any], findings: Findings
) -> tuple[list[str], Sequence[list[int] | None]]:
    remedy = "write a text or a list of texts"
    if "query_text" not in record:
        findings.missing(record, "query_text", remedy)
    queries = record["query_text"]
    if isinstance(queries, str):
        queries = [queries]
    findings.require(queries, list, '"query_text"', remedy)
    if not queries or not all_texts(queries):
        findings.error(
            "wrong-type",
            '"query_text" is a list without texts only; write a text or a list of texts',
        )
        raise FaultyError
    turns = record.get("gt_turns")
    if turns is None:
        return queries, [None] * len(queries)
    findings.require(
        turns, list, '"gt_turns"', "write a list of utterance ids, or one list a query"
    )
    if len(queries) == 1 and not (turns and all(isinstance(item, list) for item in turns)):
        turns = [turns]
    if len(turns) != len(queries):
        findings.error(
            "gt-turns",
            f'"gt_turns" has {counted(len(turns), "list")} but "query_text" '
            f"{counted(len(queries), 'query')}; write one list a query",
        )
        raise FaultyError
    for ids in turns:
        if not isinstance(ids, list) or not all(type(item) is int and item >= 0 for item in ids):
            findings.error(
                "gt-turns",
                f'"gt_turns" holds {shown(ids)}; write lists of utterance ids, whole numbers '
                "from 0",
            )
            raise FaultyError
    return queries, turns


def examples_to_raw_record(
    examples: Sequence[Example], *, drop_prompts: bool = False
) -> dict[str, Any]:
    """Examples on one dialogue as one record of the raw form.

    The raw form has no prompt and no list of image ids (a turn's images belong to it): where that
    would lose something, it fails.

    Args:
        examples: One or more, with one and the same dialogue.
        drop_prompts: Let go of prompts in other words than the built-in templates.

    Raises:
        DataError: where an answer or a prompt cannot be said in this form.
    """
    first = examples[0]
    dialogue, where = first.dialogue, f"dialogue {first.dialogue.id!r}"
    answers: list[list[int]] = []
    for example in examples:
        if not drop_prompts and example.prompt is not None and not _is_ours(example):
            raise DataError(
                "its prompt is in words of its own, which the raw form cannot hold; pass "
                "--drop-prompts to let go of them",
                where=where,
            )
        if example.fragment is None:
            continue
        turns = set(example.fragment.utterance_ids)
        on_turns = [
            index for index, turn in enumerate(dialogue.image_utterance_ids) if turn in turns
        ]
        if sorted(set(example.fragment.image_ids)) != on_turns:
            raise DataError(
                f"the answer to {shown(example.query)} has images "
                f"{list(example.fragment.image_ids)} but its turns carry "
                f"{on_turns}; the raw form cannot say that, write the ms-swift form (--to "
                "ms-swift)",
                where=where,
            )
        answers.append(list(example.fragment.utterance_ids))
    if answers and len(answers) < len(examples):
        raise DataError(
            "some of its queries have an answer and some have none; write them to two files",
            where=where,
        )
    metas, extra = [], split_meta(first)[1]
    for example in examples:
        meta, own_extra = split_meta(example)
        assert own_extra == extra, "examples are grouped by what they share"
        metas.append(meta)
    extra_lines = metas[0].get(EXTRA_LINE_KEYS)
    for meta in metas:
        meta.pop(EXTRA_LINE_KEYS, None)
    lines: list[dict[str, Any]] = []
    for index, utterance in enumerate(dialogue.utterances):
        parts: list[Any] = [
            part if isinstance(part, str) else {"image_url": part.source, "caption": part.caption}
            for part in utterance.segments
        ]
        said: Any = parts
        if all(isinstance(part, str) for part in parts) and len(parts) <= 1:
            said = "".join(parts)
        own = (
            extra_lines[index] if isinstance(extra_lines, list) and index < len(extra_lines) else {}
        )
        lines.append(
            {"speaker": utterance.speaker, "utterance_idx": index, "utterance": said, **own}
        )
    single = len(examples) == 1
    record: dict[str, Any] = {
        "dialogue_id": dialogue.id,
        "dialogue": lines,
        "query_text": first.query if single else [example.query for example in examples],
    }
    if answers:
        record["gt_turns"] = answers[0] if single else answers
    if single and metas[0]:
        record["meta"] = metas[0]
    elif any(metas):
        record["meta"] = metas[0] if all(meta == metas[0] for meta in metas) else metas
    return with_extra(record, extra, first)


def _is_ours(example: Example) -> bool:
    assert example.prompt is not None
    for name, template in TEMPLATES.items():
        if example.prompt.system == template.system:
            for position in ("first", "last"):
                if example.prompt == prompt_of(example, template=name, query_position=position):
                    return True
    return False
