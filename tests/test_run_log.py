"""The figures of a run on disk: every bit of a number, no row twice, nothing lost unsaid."""

from __future__ import annotations

import math
from pathlib import Path

import PIL.Image
import pytest

from ffr.run_log import MetricsFile, draw_curve, last_figures, read_metrics, reward_figures


def test_a_row_keeps_every_bit(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path / "m.csv", ("loss", "lr"))
    log.append(1, {"loss": 0.1 + 0.2, "lr": 1e-300})
    log.append(2, {"lr": math.nextafter(1.0, 2.0)})
    assert (tmp_path / "m.csv").read_text() == (
        "step,loss,lr\n1,0.30000000000000004,1e-300\n2,,1.0000000000000002\n"
    )
    assert read_metrics(tmp_path / "m.csv") == [
        {"step": 1, "loss": 0.1 + 0.2, "lr": 1e-300},
        {"step": 2, "lr": math.nextafter(1.0, 2.0)},
    ]


def test_not_a_number_is_kept_as_what_it_is(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "m.csv", ("loss",)).append(1, {"loss": math.inf})
    [row] = read_metrics(tmp_path / "m.csv")
    assert row["loss"] == math.inf


def test_a_resumed_run_may_have_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    first = MetricsFile(path, ("loss", "old"))
    for step in (1, 2, 3):
        first.append(step, {"loss": float(step), "old": 5.0})
    MetricsFile(path, ("new", "loss"), last_step=2).append(3, {"new": 7.0})
    assert path.read_text() == "step,new,loss\n1,,1.0\n2,,2.0\n3,7.0,\n"
    MetricsFile(path, ("loss",))
    assert path.read_text() == "step,loss\n", "a run from the beginning begins a new file"


def test_rows_that_are_none_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"step,loss\n1,0.5\n2,x\n,0.25\n3,0.\xff\n4,0.75\nnan,1\n-inf,1\n5,0.1")
    # the last may be the beginning of 0.125
    assert read_metrics(path) == [{"step": 1, "loss": 0.5}, {"step": 4, "loss": 0.75}]
    path.write_bytes(b"step,lo")
    assert read_metrics(path) == []


def test_rewards_are_the_sum_and_its_terms() -> None:
    rows = [
        {"step": 1, "loss": 0.5, "reward_std": 0.1, "reward_f1": 1.0, "reward": 1.3},
        {"step": 2, "reward_my_own": 0.5},
    ]
    assert reward_figures(rows) == ["reward", "reward_f1", "reward_my_own"]
    assert reward_figures([{"step": 1, "loss": 0.5}]) == []


def test_a_curve_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    log = MetricsFile(tmp_path / "m.csv", ("loss", "val_utterance_f1", "val_image_f1"))
    log.append(1, {"loss": 2.0})
    log.append(2, {"loss": 1.0, "val_utterance_f1": 0.25})
    log.append(3, {"loss": 0.5, "val_utterance_f1": 0.75})
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: object, **options: object) -> None:
        drawn.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    draw_curve(
        tmp_path / "m.csv",
        tmp_path / "c.png",
        title="t",
        curves={"loss": "-", "reward": "--"},
        label="nats",
    )
    with PIL.Image.open(tmp_path / "c.png") as image:
        assert image.size == (960, 648)
    left, right = drawn[0].axes
    assert (left.get_title(), left.get_ylabel(), right.get_ylim()) == ("t", "nats", (0, 1))
    # no colour means two things, and each scale has a panel of its own
    colours = [line.get_color() for panel in (left, right) for line in panel.lines]
    assert len(set(colours)) == len(colours)
    assert not left.bbox.overlaps(right.bbox)
    assert [(line.get_label(), line.get_xydata().tolist()) for line in left.lines] == [
        ("loss", [[1, 2], [2, 1], [3, 0.5]])
    ]
    assert [(line.get_label(), line.get_xydata().tolist()) for line in right.lines] == [
        ("val_utterance_f1", [[2, 0.25], [3, 0.75]])
    ]
    for panel, name in ((left, "loss"), (right, "val_utterance_f1")):
        legend = panel.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == [name]


def test_a_curve_of_nothing_has_no_legend(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "m.csv", ("loss",))
    draw_curve(tmp_path / "m.csv", tmp_path / "c.png", title="t", curves={"loss": "-"}, label="l")
    assert (tmp_path / "c.png").stat().st_size > 0


def test_last_figures(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,val_loss\n1,3.0,2.0\n2,1.5,\n")
    figures = last_figures(read_metrics(tmp_path / "metrics.csv"))
    assert figures == {"step": 2, "loss": 1.5, "val_loss": 2.0}
