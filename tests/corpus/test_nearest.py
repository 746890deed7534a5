"""Rows close to a query: all compared, or by an inverted file that may be missing, short or torn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ffr.corpus import nearest
from ffr.corpus.nearest import Matrix, lacks_lists, largest, lists_file, make_lists

NUM, WIDTH = 4000, 32


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    monkeypatch.setattr(nearest, "EXACT_ROWS", 1000)
    # vectors around centres, as those of texts are
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, WIDTH))
    found = centres[random.integers(0, 40, NUM)] + 0.4 * random.normal(size=(NUM, WIDTH))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


def _exact(rows: NDArray[np.float32], query: NDArray[np.float32], allowed: range) -> list[int]:
    return sorted(allowed, key=lambda row: -float(rows[row] @ query))[:20]


def test_all_are_compared_where_there_is_no_library_or_file(rows: NDArray[np.float32]) -> None:
    allowed = range(0, NUM, 3)
    found, scores = Matrix(rows).closest(rows[7], np.array(allowed), 20)
    assert list(found) == _exact(rows, rows[7], allowed)
    assert scores == pytest.approx(rows[found] @ rows[7])
    assert np.array_equal(Matrix(rows).vectors_of(np.array([5, 2])), rows[[5, 2]])
    empty, none = Matrix(rows).closest(rows[7], np.zeros(0, np.int64), 20)
    assert (len(empty), len(none)) == (0, 0)


def test_lists_find_nearly_what_comparing_all_finds(
    rows: NDArray[np.float32], tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "vectors-a-0.f32"
    assert lacks_lists(path, NUM)
    assert not lacks_lists(path, 1000)
    # the last 200 came later, and are all compared
    path.write_bytes(rows.tobytes())
    make_lists(path, NUM - 200, WIDTH, lambda done, total: None)
    assert not lacks_lists(path, NUM)
    assert lacks_lists(path, NUM + 400)
    matrix = Matrix(rows, path)
    allowed = range(0, NUM, 2)
    num_found = 0
    for number in range(0, NUM, 100):
        found, scores = matrix.closest(rows[number], np.array(allowed), 20)
        assert set(found) <= set(allowed)
        assert list(scores) == sorted(scores, reverse=True)
        num_found += len(set(found) & set(_exact(rows, rows[number], allowed)))
    assert num_found / (20 * NUM / 100) > 0.9
    newest = matrix.closest(rows[-1], np.arange(NUM), 1)[0]
    assert list(newest) == [NUM - 1]


@pytest.mark.parametrize("content", [b"", b"no lists at all", None])
def test_lists_that_cannot_be_used_are_passed_over(
    rows: NDArray[np.float32],
    tmp_path: Path,
    content: bytes | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "vectors-a-0.f32"
    if content is None:
        path.write_bytes(2 * rows.tobytes())
        make_lists(path, 2 * NUM, WIDTH, lambda done, total: None)
    else:
        lists_file(path).write_bytes(content)
    found, _ = Matrix(rows, path).closest(rows[7], np.arange(NUM), 20)
    assert list(found) == _exact(rows, rows[7], range(NUM))
    assert "so every vector is compared; `ffr index add` makes it again" in caplog.text
    assert lacks_lists(path, NUM)


@pytest.mark.parametrize("number", [1, 3, 7, 50])
def test_the_largest_are_those_of_a_whole_sort(number: int) -> None:
    scores = np.random.default_rng(number).integers(0, 9, 40).astype(np.float32)
    whole = sorted(range(40), key=lambda place: -scores[place])
    found = list(largest(scores, number))
    # equal scores stand in their order, and none of those that are equal to the last is lost
    assert found == whole[: len(found)]
    assert len(found) >= min(number, 40)


def test_only_what_may_be_found_is_found_whoever_asked_before(
    rows: NDArray[np.float32], tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "vectors-a-0.f32"
    path.write_bytes(rows.tobytes())
    make_lists(path, NUM, WIDTH, lambda done, total: None)
    matrix = Matrix(rows, path)
    # more of them than are kept, asked by turns
    asked = [np.arange(start, NUM, 3) for start in range(3)]
    asked += [np.arange(start, NUM) for start in range(0, 1000, 100)]
    for allowed in [*asked, *asked[::-1]]:
        found, _ = matrix.closest(rows[7], allowed, 20)
        assert set(found.tolist()) <= set(allowed.tolist())
        fresh, _ = Matrix(rows, path).closest(rows[7], allowed, 20)
        assert found.tolist() == fresh.tolist()
