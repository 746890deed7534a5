"""Examples → batches for a plain PyTorch loop, Lightning, transformers or TRL: `ffr.Collator`.

Prompts, answers and pictures go in as `ffr train sft` puts them in; the pictures' pixels go along,
so that a model of plain transformers takes a batch as it is.

Shapes: B examples, L tokens of the longest, n images of the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ffr.answer import AnswerStyle
from ffr.data.exchange import example_of_row
from ffr.dialogue import Example
from ffr.models.loading import load_skeleton
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded, padded
from ffr.models.vlm import Vlm, token_types
from ffr.prompt import QueryPosition
from ffr.runs import resolve_model
from ffr.text import described

IGNORED = -100
"""Stands among labels where no loss is taken, as in PyTorch's and transformers' losses."""

PaddingSide = Literal["left", "right"]


class Collator:
    """Makes a batch of examples, for `DataLoader(data, batch_size=4, collate_fn=Collator(MODEL))`.

    Takes `Example`s and rows of `.to_hf()`. The model's weights are not loaded. Worker processes
    that are spawned read the model's files anew, so name it then.

    Args:
        model: `tiny`, a run's folder, a model's folder or a hub id; or a `Vlm` that is loaded.
        with_answer: Whether the true answer follows the prompt, with `labels` for it; False for
            prompts to be answered.
        padding_side: `right` for training; `left` for generation. None = by `with_answer`.
        template: `zh` or `en`; None = the model's own setting, else the file's prompt.
        query_position: Query before or after the dialogue; None likewise.
        answer_style: `bare` or `think`; None = the model's own setting.
        max_tokens: A longer input is an error; None = the model's own context.

    Raises:
        UsageError: where there is no such model.
        ModelError: where its files cannot be used.
        ValueError: where an argument is none of these.

    >>> from ffr.dialogue import Dialogue, Fragment
    >>> example = Example(Dialogue.of([("Ann", "the bus is late")]), "bus", Fragment((0,)))
    >>> batch = Collator("tiny")([example])
    >>> sorted(batch)
    ['attention_mask', 'input_ids', 'labels', 'mm_token_type_ids']
    >>> (batch["labels"] != IGNORED).sum().item() > 10
    True
    """

    def __init__(
        self,
        model: Vlm | str | Path,
        *,
        with_answer: bool = True,
        padding_side: PaddingSide | None = None,
        template: str | None = None,
        query_position: QueryPosition | None = None,
        answer_style: AnswerStyle | None = None,
        max_tokens: int | None = None,
    ) -> None:
        if not isinstance(model, Vlm | str | Path):
            raise ValueError(f"{described(model)} is no model; give its name, folder or hub id")
        for name, value, choices in (
            ("padding_side", padding_side, get_args(PaddingSide)),
            ("template", template, ("zh", "en")),
            ("query_position", query_position, get_args(QueryPosition)),
            ("answer_style", answer_style, get_args(AnswerStyle)),
        ):
            if value is not None and value not in choices:
                known = ", ".join(choices)
                raise ValueError(f"{name} {value!r} is unknown; choose one of {known}")
        self._made_of: dict[str, Any] = {
            "model": model,
            "with_answer": with_answer,
            "padding_side": padding_side,
            "template": template,
            "query_position": query_position,
            "answer_style": answer_style,
            "max_tokens": max_tokens,
        }
        vlm = model if isinstance(model, Vlm) else load_skeleton(resolve_model(str(model)).location)
        self.padding_side: PaddingSide = padding_side or ("right" if with_answer else "left")
        self._with_answer = with_answer
        self._encode = PromptBuilder(
            vlm,
            template=template,
            query_position=query_position,
            answer_style=answer_style,
            max_tokens=max_tokens,
        )

    def __getstate__(self) -> dict[str, Any]:
        # a processor cannot be pickled; a worker process reads the model's files itself
        return self._made_of

    def __setstate__(self, made_of: dict[str, Any]) -> None:
        self.__init__(**made_of)  # type: ignore[misc]

    def __call__(self, examples: Sequence[Example | Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch.

        Args:
            examples: B examples, or rows of `.to_hf()`.

        Returns:
            `input_ids` and `attention_mask` (B, L); `labels` (B, L), `IGNORED` where no loss is
            taken; `mm_token_type_ids` (B, L) where the architecture has them; and where there are
            images, `pixel_values` with what else the model's image processor gives (such as
            `image_grid_thw` (n, 3)).

        Raises:
            DataError: where a picture cannot be opened, an answer is missing, or an input is too
                long.
            ValueError: where something is no example.
        """
        if isinstance(examples, str | Mapping | Example) or not isinstance(examples, Sequence):
            raise ValueError(f"{described(examples)} are no examples; give a list of them")
        if not examples:
            raise ValueError("a batch of no examples; give at least one")
        rows = [
            self._encode(_example_of(item, number), with_answer=self._with_answer)
            for number, item in enumerate(examples)
        ]
        vlm = self._encode.vlm
        ids, attention, answer = padded(rows, vlm.padding_id, padding_side=self.padding_side)
        batch = {"input_ids": ids, "attention_mask": attention}
        if self._with_answer:
            batch["labels"] = ids.where(answer, IGNORED)
        return batch | token_types(vlm, ids, attention) | _pictures(rows, vlm)


def _example_of(item: Any, number: int) -> Example:
    if isinstance(item, Example):
        return item
    if isinstance(item, Mapping):
        return example_of_row(item)
    raise ValueError(f"example {number} is {described(item)}; give an Example or a row of to_hf")


def _pictures(rows: Sequence[Encoded], vlm: Vlm) -> dict[str, Tensor]:
    """The pixels of all pictures of a batch, in the shape that the model's own processor makes."""
    given = [[image.inputs or {} for image in row.images] for row in rows]
    everything = [inputs for row in given for inputs in row]
    if not everything:
        return {}
    # what only the whole model takes (tiles' sizes, numbers of pictures) counts too
    taken = set(inspect.signature(vlm.base.forward).parameters) | vlm.forward_arguments
    names = [
        name for name, value in everything[0].items() if isinstance(value, Tensor) and name in taken
    ]
    if "pixel_attention_mask" in names:
        # SmolVLM and Idefics: the tiles of all pictures of a row, rows filled up with empty tiles
        tiles = {
            name: [torch.cat([inputs[name] for inputs in row], dim=1)[0] for row in given if row]
            for name in names
        }
        return {name: _filled(tiles[name], given) for name in names}
    found = {name: _joined([inputs[name] for inputs in everything]) for name in names}
    if "batch_num_images" in taken:
        found["batch_num_images"] = torch.tensor([len(row) for row in given])
    return found


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts of n pictures as one: (1, T, …) with other numbers of tiles T are filled up with 0."""
    if parts[0].ndim < 5:
        return torch.cat(list(parts))
    most = max(part.shape[1] for part in parts)
    return torch.cat([_padded_to(part[0], most)[None] for part in parts])


def _filled(tiles: Sequence[Tensor], given: Sequence[Sequence[Any]]) -> Tensor:
    """The tiles of each row, (B, T, …), where T is the most of a row."""
    most = max(len(part) for part in tiles)
    of_rows = iter(tiles)
    empty = tiles[0][:0]
    return torch.stack([_padded_to(next(of_rows) if row else empty, most) for row in given])


def _padded_to(tiles: Tensor, num: int) -> Tensor:
    return torch.cat((tiles, tiles.new_zeros((num - len(tiles), *tiles.shape[1:]))))
