"""One answered query in the terminal: its dialogue with hit, missed and wrong lines marked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffr.answer import id_text
from ffr.dialogue import Fragment, Image
from ffr.errors import UsageError
from ffr.report.answered import AnsweredQuery
from ffr.text import counted, gap, one_line, visible

_STYLES = {
    "hit": "bold green",
    "missed": "bold yellow",
    "wrong": "bold red",
    "answered": "bold blue",
}
_SIGNS = {"hit": "+ hit", "missed": "- missed", "wrong": "x wrong", "answered": "* answered"}
_LIST_LENGTH = 200
_NUM_ANSWERS = 5
_LINE_LENGTH = 2000
_SPEAKER_WIDTH = 24


def find_answers(
    answers: Iterable[AnsweredQuery], wanted: str
) -> tuple[AnsweredQuery, list[AnsweredQuery]]:
    """The query that an id or index means, and all queries on its dialogue (itself among them).

    Args:
        answers: The evaluation.
        wanted: A dialogue's id (its first query is taken), or the index of a query.

    Raises:
        UsageError: where there is no such dialogue or query; with the ids that look like it.
    """
    everything = list(answers)
    by_id = next((answer for answer in everything if answer.dialogue_id == wanted), None)
    chosen = by_id or next((answer for answer in everything if str(answer.index) == wanted), None)
    if chosen is None:
        ids = list(dict.fromkeys(answer.dialogue_id for answer in everything))
        near = difflib.get_close_matches(wanted, ids, 3, 0.5) or ids[:3]
        raise UsageError(
            f"no dialogue {one_line(wanted)!r}; ids are like {', '.join(map(one_line, near))}, and "
            "indices go from 0 to "
            f"{max((answer.index for answer in everything), default=0)}"
        )
    if chosen.dialogue is None:
        return chosen, [chosen]
    fingerprint = chosen.dialogue.fingerprint
    return chosen, [
        answer
        for answer in everything
        if answer.dialogue is not None and answer.dialogue.fingerprint == fingerprint
    ]


def print_answer(answer: AnsweredQuery, others: Sequence[AnsweredQuery], console: Console) -> None:
    """Prints a query, its figures, its dialogue with marks, and the other queries on it."""
    console.print(
        Text(
            f"Query {answer.index} on {one_line(answer.dialogue_id)}: "
            f"{one_line(answer.query, _LINE_LENGTH)}",
            style="bold",
        )
    )
    for line in _figure_lines(answer):
        console.print(line)
    console.print()
    if answer.dialogue is None:
        console.print(
            Text("The prompt cannot be read as a dialogue; here it stands as it is:", style="dim")
        )
        console.print(Text(visible(answer.prompt)))
    else:
        _print_dialogue(answer, console)
    beyond = _beyond(answer)
    if beyond:
        console.print(
            Text(f"x wrong: ids that the dialogue does not have: {beyond}", style=_STYLES["wrong"])
        )
    if len(others) > 1:
        console.print()
        console.print(
            Text(f"{counted(len(others), 'query')} on this dialogue (--id INDEX):", style="bold")
        )
        for other in others[:_LIST_LENGTH]:
            f1 = "    -" if other.joint_f1 is None else f"{100 * other.joint_f1:5.1f}"
            here = ">" if other.index == answer.index else " "
            console.print(
                Text(f"{here} {other.index:>6}  F1 {f1}  {one_line(other.query, _LINE_LENGTH)}")
            )
        if len(others) > _LIST_LENGTH:
            console.print(Text(f"  … and {len(others) - _LIST_LENGTH} more"))


def print_answers(answers: Iterable[AnsweredQuery], console: Console) -> None:
    """Prints the first answers with the lines they name, where there is no truth to score by."""
    num_left = 0
    for number, answer in enumerate(answers):
        if number >= _NUM_ANSWERS:
            num_left += 1
            continue
        name, query = one_line(answer.dialogue_id), one_line(answer.query, _LINE_LENGTH)
        console.print(Text(f"\nQuery {answer.index} on {name}: {query}", style="bold"))
        for line in _figure_lines(answer)[1:]:
            console.print(line)
        if answer.prediction.is_empty:
            console.print(Text("(nothing)", style="dim"))
        elif answer.dialogue is None:
            ids = answer.prediction
            console.print(
                f"utterances {list(ids.utterance_ids)}, images {list(ids.image_ids)}", markup=False
            )
        else:
            _print_dialogue(answer, console, only_marked=True)
    if num_left:
        console.print(
            Text(f"\n… and {num_left} more; `ffr show RESULTS --id INDEX` prints each", style="dim")
        )


def _figure_lines(answer: AnsweredQuery) -> list[Text]:
    lines: list[Text] = []
    if answer.figures is None:
        lines.append(Text("The true answer is unknown."))
    else:
        assert answer.truth is not None
        for name, (precision, recall, f1), truth, found in (
            (
                "utterances",
                answer.figures[0],
                answer.truth.utterance_ids,
                answer.prediction.utterance_ids,
            ),
            ("images", answer.figures[1], answer.truth.image_ids, answer.prediction.image_ids),
        ):
            hit, missed, wrong = (len(part) for part in _split(truth, found))
            line = Text(
                f"{name:<11}P {100 * precision:5.1f}  R {100 * recall:5.1f}  F1 {100 * f1:5.1f}   "
            )
            for kind, num in (("hit", hit), ("missed", missed), ("wrong", wrong)):
                line.append(f"{num} {kind}  ", style=_STYLES[kind] if num else "dim")
            lines.append(line)
        if answer.truth.is_empty:
            lines.append(Text("The true answer is empty: nothing in the dialogue fits the query."))
    problems = [*answer.problems, *(["cut off at the longest length"] if answer.is_cut_off else [])]
    if problems:
        lines.append(Text(f"The answer: {', '.join(problems)}", style="yellow"))
        lines.append(Text(f"As it came: {visible(answer.response) or '(nothing)'}", style="dim"))
    return lines


def _split(truth: Sequence[int], found: Sequence[int]) -> tuple[set[int], set[int], set[int]]:
    return set(truth) & set(found), set(truth) - set(found), set(found) - set(truth)


def _marks(truth: Fragment | None, found: Fragment, part: str) -> dict[int, str]:
    answered: Sequence[int] = getattr(found, part)
    if truth is None:
        return dict.fromkeys(answered, "answered")
    kinds = zip(("hit", "missed", "wrong"), _split(getattr(truth, part), answered), strict=True)
    return {number: kind for kind, numbers in kinds for number in numbers}


def _beyond(answer: AnsweredQuery) -> str:
    if answer.dialogue is None:
        return ""
    parts = []
    for name, ids, size in (
        ("utterance", answer.prediction.utterance_ids, answer.sizes[0]),
        ("image", answer.prediction.image_ids, answer.sizes[1]),
    ):
        outside = [number for number in ids if number >= size]
        if outside:
            more = ", …" if len(outside) > _LIST_LENGTH else ""
            parts.append(f"{name} {', '.join(map(id_text, outside[:_LIST_LENGTH]))}{more}")
    return "; ".join(parts)


def _print_dialogue(answer: AnsweredQuery, console: Console, *, only_marked: bool = False) -> None:
    assert answer.dialogue is not None
    of_utterances = _marks(answer.truth, answer.prediction, "utterance_ids")
    of_images = _marks(answer.truth, answer.prediction, "image_ids")
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(max_width=_SPEAKER_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    image_id = 0
    for index, utterance in enumerate(answer.dialogue.utterances):
        kind = of_utterances.get(index)
        style = _STYLES.get(kind or "", "")
        line = Text()
        is_marked = kind is not None
        for part in utterance.segments:
            if not isinstance(part, Image):
                line.append(gap(line.plain, part))
                line.append(visible(part), style=style)
                continue
            its_kind = of_images.get(image_id)
            is_marked = is_marked or its_kind is not None
            mark = f" {_SIGNS[its_kind]}" if its_kind else ""
            caption = f" ({visible(part.caption)})" if part.caption else ""
            line.append(gap(line.plain, "["))
            line.append(
                f"[image {image_id}{mark}: {visible(part.source)}{caption}]",
                style=_STYLES.get(its_kind or "", "dim"),
            )
            image_id += 1
        if only_marked and not is_marked:
            continue
        sign = Text(_SIGNS[kind] if kind else "", style=style)
        table.add_row(
            sign,
            Text(str(index), style="dim"),
            Text(f"{one_line(utterance.speaker)}:", style="bold"),
            line,
        )
    console.print(table)
