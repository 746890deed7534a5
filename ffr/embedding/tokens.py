"""The states of single tokens of texts, as the last layer of a sentence encoder has them.

Shapes: n texts, t tokens of a text, H width of the states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ffr.embedding.interface import TokenStates
from ffr.parts import Texts, as_texts

BATCH_SIZE = 32
_IN_EVERY_TEXT = ("bos", "eos", "cls", "sep", "pad")


class _Model(Protocol):
    """What is needed of such an encoder."""

    model: Any
    tokenizer: Any

    @property
    def device(self) -> torch.device: ...

    def text_inputs(self, texts: Sequence[str]) -> Mapping[str, Tensor]: ...


class StatesOfTokens:
    """What a sentence encoder has besides: the states of single tokens."""

    @torch.no_grad()
    def token_states(self: _Model, texts: Texts) -> list[TokenStates]:
        """The last layer's state of each token of n texts, less the tokens that every text has.

        A text longer than the encoder takes is cut at its end.

        Raises:
            ModelError: where the tokenizer does not fit the model.
        """
        read = as_texts(texts)
        ids = [getattr(self.tokenizer, f"{name}_token_id", None) for name in _IN_EVERY_TEXT]
        special = torch.tensor([token for token in ids if token is not None], dtype=torch.long)
        order = sorted(range(len(read)), key=lambda index: len(read[index]))  # little is padded
        found: dict[int, TokenStates] = {}
        for start in range(0, len(order), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            inputs = self.text_inputs([read[index] for index in chosen])
            given = {name: value.to(self.device) for name, value in inputs.items()}
            hidden = self.model(**given).last_hidden_state.half().cpu()
            kept = inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], special)
            for row, index in enumerate(chosen):
                tokens = tuple(inputs["input_ids"][row][kept[row]].tolist())
                found[index] = TokenStates(tokens, hidden[row][kept[row]])
        return [found[index] for index in range(len(read))]
