"""The layout of packed rows and the rule of what can be shared, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from ffr.models.packing import PackedRows, neighbours_of, pack, shared_beginning
from ffr.models.rows import Encoded, EncodedImage

CPU = torch.device("cpu")
IMAGE = 99


def with_image(ids: list[int], digest: str, num_answer_tokens: int = 0) -> Encoded:
    return Encoded(ids, num_answer_tokens, [EncodedImage("a.png", digest, None)])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # a repeated prompt leaves a token to each, an answer is left whole
        ([Encoded([5, 6, 7]), Encoded([5, 6, 7])], 2),
        ([Encoded([5, 6, 7, 8], 2), Encoded([5, 6, 7, 8], 2)], 2),
        ([Encoded([5, 6, 7]), Encoded([5, 6])], 1),
        ([Encoded([5, 6])], 1),
        # nothing in common, and nothing left
        ([Encoded([5, 6]), Encoded([4, 6])], None),
        ([Encoded([5])], None),
        # pictures: in the beginning, behind it, and another in the same place
        ([with_image([IMAGE, 1, 2], "x"), with_image([IMAGE, 1, 3], "x")], 2),
        ([with_image([1, 2, IMAGE, 4], "x"), with_image([1, 3, IMAGE, 4], "x")], None),
        ([with_image([IMAGE, 1, 2], "x"), with_image([IMAGE, 1, 3], "y")], None),
        ([with_image([1, 2, IMAGE], "x")], None),
    ],
)
def test_what_rows_share(rows: list[Encoded], expected: int | None) -> None:
    assert shared_beginning(rows, {IMAGE}) == expected


def test_what_is_not_shared_is_packed_one_by_one() -> None:
    rows = [with_image([1, 2, IMAGE, 8], "x", 1), with_image([1, 3, IMAGE, 9], "x", 1)]
    packed = pack(rows, {IMAGE})
    assert [prompt.input_ids for prompt in packed.prompts] == [[1, 2, IMAGE], [1, 3, IMAGE]]
    assert (packed.branches, packed.num_scored) == ([[[8]], [[9]]], [[1], [1]])
    assert (packed.num_tokens, packed.num_answer_tokens) == (8, 2)


def test_only_neighbours_on_one_dialogue_are_together() -> None:
    prompts = [
        Encoded([dialogue, 7, query]) for dialogue, query in ((1, 1), (1, 2), (2, 1), (1, 3))
    ]
    parts = neighbours_of(prompts, [4, 4, 5, 4], {IMAGE})
    assert [[prompt.input_ids for prompt in part] for part in parts] == [
        [[1, 7, 1], [1, 7, 2]], [[2, 7, 1]], [[1, 7, 3]],
    ]  # fmt: skip
    # a number that says what the prompts do not
    assert list(map(len, neighbours_of(prompts[1:3], [4, 4], {IMAGE}))) == [1, 1]


def test_sequences_stand_in_blocks() -> None:
    """Three sequences in blocks of 4: the second starts a block, since it does not fit behind the first."""
    rows = PackedRows.of([[[1, 2, 3], [4, 5], [6]], [[7]]], filling_id=0, device=CPU, block=4)
    assert rows.ids.tolist() == [[1, 2, 3, 0, 4, 5, 6, 0], [7, 0, 0, 0, 0, 0, 0, 0]]
    assert rows.owner.tolist() == [[0, 0, 0, -1, 1, 1, 2, -1], [0, *[-1] * 7]]
    assert rows.place.tolist() == [[0, 1, 2, 0, 0, 1, 0, 0], [0] * 8]
    assert (rows.starts, rows.num_tokens) == ([[0, 4, 6], [0]], 8)
    mask = rows.mask(torch.tensor([[True, True], [True, False]]))
    assert mask.shape == (2, 1, 8, 6)
    assert mask[0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0],  # 1 sees the prompt and itself
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0, 1],  # filling sees itself
        [1, 1, 1, 0, 0, 0],  # 4 opens the second block
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],  # 6 does not see 4 and 5, which are another's
        [1, 1, 0, 0, 0, 1],
    ]
    # the shorter prompt's padding is seen by nobody
    assert not mask[1, 0, :, 1].any()
    assert mask[1, 0, 0].tolist() == [True, False, True, False, False, False]


def test_without_a_block_all_stand_in_one() -> None:
    rows = PackedRows.of([[[1, 2], [3]], [[], [4]]], filling_id=9, device=CPU)
    assert (rows.ids.tolist(), rows.block) == ([[1, 2, 3], [4, 9, 9]], 3)
    assert rows.starts == [[0, 2], [0, 0]]
