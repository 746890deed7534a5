"""The pictures are drawn of the right numbers."""

from __future__ import annotations

import PIL.Image
import pytest
from matplotlib.figure import Figure

from ffr.errors import DataError
from ffr.run_log import MetricsFile
from ffr.training.curriculum.order import LEVEL_COLUMNS, Difficulty
from ffr.training.curriculum.plot import draw_level_mix, draw_scatter


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved, save = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def test_scatter_shows_every_item_once(tmp_path, figures):
    items = [Difficulty(f1, 1 - f1, False) for f1 in (1.0, 0.6, 0.4, 0.0)] + [
        Difficulty(1.0, 0.0, True)
    ]
    draw_scatter(items, tmp_path / "scatter.png", title="some items")
    with PIL.Image.open(tmp_path / "scatter.png") as picture:
        assert picture.format == "PNG"
    (axes,) = figures[0].axes
    points = {
        (part.get_label(), tuple(point))
        for part in axes.collections
        for point in part.get_offsets().tolist()
    }
    # one of the two easiest has an empty truth
    assert points == {
        ("easy, kept: 1", (0.0, 1.0)),
        ("easy, left out: 1", (0.0, 1.0)),
        ("medium, kept: 1", (0.4, 0.6)),
        ("confusing, kept: 1", (0.6, 0.4)),
        ("hard, kept: 1", (1.0, 0.0)),
    }
    filled = {part.get_label(): len(part.get_facecolors()) > 0 for part in axes.collections}
    assert all(is_filled == ("kept" in label) for label, is_filled in filled.items())


def test_level_mix_reads_the_metrics_of_a_run(tmp_path, figures):
    metrics = MetricsFile(tmp_path / "metrics.csv", ("loss", *LEVEL_COLUMNS))
    metrics.append(1, {"loss": 1.0, **dict(zip(LEVEL_COLUMNS, (1.0, 0.0, 0.0, 0.0), strict=True))})
    metrics.append(2, {"loss": 1.0})
    metrics.append(
        3, {"loss": 1.0, **dict(zip(LEVEL_COLUMNS, (0.25, 0.25, 0.0, 0.5), strict=True))}
    )
    draw_level_mix(tmp_path / "metrics.csv", tmp_path / "mix.png", title="a run")
    with PIL.Image.open(tmp_path / "mix.png") as picture:
        assert picture.format == "PNG"
    (axes,) = figures[0].axes
    tops = [
        max(y for x, y in area.get_paths()[0].vertices.tolist() if x == 3)
        for area in axes.collections
    ]
    assert tops == [0.25, 0.5, 0.5, 1.0]


def test_a_run_without_levels_is_named(tmp_path):
    MetricsFile(tmp_path / "metrics.csv", ("loss",)).append(1, {"loss": 1.0})
    with pytest.raises(DataError, match=r"metrics\.csv: has no step with level_easy"):
        draw_level_mix(tmp_path / "metrics.csv", tmp_path / "mix.png", title="a run")
