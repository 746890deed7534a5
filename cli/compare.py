"""`ffr compare`: results on the same data side by side, and what chance could make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffr.cli.output import print_json, say, say_aside
from ffr.errors import UsageError
from ffr.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from ffr.dialogue import Fragment
    from ffr.evaluation.compare import Comparison, Difference


@click.command()
@click.argument(
    "results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="A B [C]..."
)
@click.option(
    "--changed",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Show the N queries that changed most.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the resamples.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON with all figures instead of tables."
)
def compare(results: tuple[Path, ...], changed: int, seed: int, as_json: bool) -> None:
    """Compare results on the same data: B, C … each against A.

    A, B, C are output folders of `ffr eval`, results.json in one, or runs with one evaluation each.
    Differences come with a 95 % interval and a p-value from a paired bootstrap of 10,000 resamples
    of whole dialogues.
    """
    if len(results) < 2:
        raise UsageError("one result cannot be compared; name two or more")

    from ffr.evaluation.compare import compare as compare_runs
    from ffr.evaluation.compare import comparison_to_json, load_run
    from ffr.evaluation.results import results_meant

    runs = [load_run(results_meant(path, say_aside)) for path in results]
    comparisons = compare_runs(runs, num_changed=changed, seed=seed)
    if as_json:
        content = comparison_to_json(runs, comparisons, seed=seed)
        print_json(content)
        return
    from ffr.terminal import PlainConsole

    console = PlainConsole()
    for letter, run in zip(_letters(len(runs)), runs, strict=True):
        say(f"{letter}: {run.label} ({run.path})")
    for letter, comparison in zip(_letters(len(runs))[1:], comparisons, strict=True):
        _print_comparison(comparison, letter, console)
    say(
        "95 % intervals and p-values: 10,000 resamples of whole dialogues, the same for both "
        "sides, "
        f"seed {seed}; p is twice the smaller share of resamples at or beyond 0"
        + ("; each p stands for its own comparison alone" if len(runs) > 2 else "")
    )


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + number) if number < 26 else f"#{number + 1}" for number in range(count)]


def _print_comparison(comparison: Comparison, letter: str, console: Console) -> None:
    from rich.text import Text

    from ffr.evaluation.figures import headline_names
    from ffr.report.tables import slice_label
    from ffr.terminal import plain_table

    table = plain_table(f"{letter} against A, in percent")
    table.add_column("", no_wrap=True)
    for header in ("A", letter, "change", "95 % interval", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    for name in headline_names():
        table.add_row(
            name, *_cells(comparison.figures[name]), style=_style(comparison.figures[name])
        )
    console.print(table)
    table = plain_table(
        f"Joint F1 by slice, {letter} against A, in percent (truth empty: exactly right)"
    )
    table.add_column("", no_wrap=True)
    for header in ("queries", "A", letter, "change", "95 % interval", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, slices in comparison.slices.items():
        for its_slice, part in slices.items():
            if part is None:
                continue
            num_answers, differences = part
            # where nothing is to be found F1 is 0 whatever the answer
            found = differences[
                "exact_match" if (name, its_slice) == ("by_truth", "empty") else "joint_f1"
            ]
            table.add_row(
                slice_label(name, its_slice), str(num_answers), *_cells(found), style=_style(found)
            )
    console.print(table)
    say(
        f"Joint F1 by query: {letter} better on {comparison.num_better}, worse on "
        f"{comparison.num_worse}, "
        f"the same on {comparison.num_same}"
    )
    for sample in comparison.changed:
        console.print(
            Text(
                f"\n· {one_line(sample.dialogue_id)} · {one_line(sample.query, 500)}", style="bold"
            ),
            Text(f"  truth  {_ids(sample.truth)}"),
            Text(f"  A      {_ids(sample.first)}  (F1 {100 * sample.first_f1:.0f})"),
            Text(
                f"  {letter:<5}  {_ids(sample.second)}  (F1 {100 * sample.second_f1:.0f})",
                style="green" if sample.second_f1 > sample.first_f1 else "red",
            ),
            sep="\n",
        )
    say()


def _cells(found: Difference) -> Sequence[str]:
    values = [
        f"{100 * found.first:.2f}",
        f"{100 * found.second:.2f}",
        f"{100 * found.difference:+.2f}",
    ]
    if found.interval is None or found.p_value is None:
        return [*values, "one dialogue", "-"]
    low, high = found.interval
    return [*values, f"{100 * low:+.2f} to {100 * high:+.2f}", f"{found.p_value:.4f}"]


def _style(found: Difference) -> str:
    """Coloured where the interval leaves 0 out."""
    if found.interval is None or found.interval[0] <= 0 <= found.interval[1]:
        return ""
    return "green" if found.difference > 0 else "red"


def _ids(fragment: Fragment) -> str:
    from ffr.answer import id_text

    if fragment.is_empty:
        return "nothing"
    parts = [("utterances", fragment.utterance_ids), ("images", fragment.image_ids)]
    return " · ".join(f"{word} {' '.join(map(id_text, ids))}" for word, ids in parts if ids)
