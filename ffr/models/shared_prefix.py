"""Log-probabilities of many continuations of one prompt, with the prompt in the pass once.

A row is packed as [prompt | branch 1 | … | branch G]: a branch's tokens see the prompt and the
branch itself, and their positions go on from the prompt's end, each branch anew. Every value and
gradient is that of the prompt repeated before each branch. The prompt's tokens run in plain causal
attention; only the branches' rows carry a mask. Where the branches are many beside the prompt,
whole branches stand in blocks of one size, and a block attends to the prompt and itself: branches
then cost what they see, not what stands in the row.

Shapes: B prompts, P tokens of the longest, R branches over all prompts, C tokens of the longest
branch (of its scored end), N branch tokens of the prompt that has most, S tokens of a block (N
where all stand in one), H hidden size, V vocabulary.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ffr.models.packing import PackedRows, block_size
from ffr.models.positions import next_positions, token_positions
from ffr.models.prefix_attention import ATTENTION_NAME
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.text import one_line

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BranchLogprobs:
    """What a pass gives for each scored token of each branch; rows are filled up at their end.

    Args:
        logprobs: (R, C) float32; 0 where `mask` is False.
        mask: (R, C) bool, True on scored tokens.
        entropy: (R, C) float32 without gradient, of the distribution each token was drawn from, in
            nats; None where it was not asked for.
    """

    logprobs: torch.Tensor
    mask: torch.Tensor
    entropy: torch.Tensor | None


class PrefixSharing:
    """Scores branches behind prompts, the prompts shared where the model can take it.

    On making, the model's attention is set to one that can, and a small pass is compared with the
    repeated form: where they differ, or the architecture has layers that this does not fit, the
    repeated form is used for good, and a warning says so once.

    Args:
        vlm: The model; its decoder's attention implementation is set and stays so, since a backward
            pass with gradient checkpointing runs the attention again.
        is_wanted: False uses the repeated form.
        pad_to_multiple_of: Prompts and blocks of branches are filled up to a multiple of these
            tokens, so that passes have fewer different shapes.
    """

    def __init__(self, vlm: Vlm, *, is_wanted: bool = True, pad_to_multiple_of: int = 1) -> None:
        self._vlm = vlm
        self._multiple = pad_to_multiple_of
        self.reason: str | None = None if is_wanted else "it is turned off"
        """Why prompts are repeated; None where they are shared."""
        if is_wanted:
            self.reason = self._obstacle()
            if self.reason is not None:
                _log.warning(
                    "prompts pass through the model once for each answer, which is slow: %s",
                    self.reason,
                )

    @property
    def is_active(self) -> bool:
        return self.reason is None

    def score(
        self,
        prompts: Sequence[Encoded],
        branches: Sequence[Sequence[Sequence[int]]],
        *,
        num_scored: Sequence[Sequence[int]] | None = None,
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> BranchLogprobs:
        """Log-probabilities of the branches' tokens.

        Args:
            prompts: B prompts, without answers.
            branches: For each prompt, the ids of each branch.
            num_scored: For each branch, how many of its last tokens are scored; None for all.
            temperature: Divides the logits.
            with_entropy: Whether to compute the entropies as well.

        Returns:
            R rows, prompt by prompt.

        Raises:
            ValueError: where a branch holds the token that stands for an image.
        """
        counts = (
            num_scored
            if num_scored is not None
            else [[len(branch) for branch in group] for group in branches]
        )
        placeholders = self._vlm.placeholder_ids
        if any(item in placeholders for group in branches for branch in group for item in branch):
            raise ValueError("a branch holds the token that stands for an image")
        if self.is_active:
            return self._score_shared(prompts, branches, counts, temperature, with_entropy)
        return self._score_repeated(prompts, branches, counts, temperature, with_entropy)

    # -- the packed form ---------------------------------------------------------------------------

    def _score_shared(
        self,
        prompts: Sequence[Encoded],
        branches: Sequence[Sequence[Sequence[int]]],
        counts: Sequence[Sequence[int]],
        temperature: float = 1.0,
        with_entropy: bool = False,
        *,
        block: int | None = None,
    ) -> BranchLogprobs:
        vlm = self._vlm
        inputs = vlm.collate(
            prompts, padding_side="right", pad_to_multiple_of=self._multiple
        ).inputs
        device = inputs["input_ids"].device
        prompt_mask = inputs.pop("attention_mask").bool()
        positions = token_positions(vlm, {**inputs, "attention_mask": prompt_mask})
        # of the longest prompt: the branches of all rows begin behind this column
        width = prompt_mask.shape[1]
        if block is None:
            hidden_size = vlm.base.config.get_text_config().hidden_size
            block = block_size(branches, width, hidden_size, self._multiple)
        packed = PackedRows.of(branches, filling_id=vlm.padding_id, device=device, block=block)

        inputs["input_ids"] = torch.cat([inputs["input_ids"], packed.ids], dim=1)
        if "mm_token_type_ids" in inputs:
            # no branch has a picture
            types = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = nn.functional.pad(types, (0, packed.num_tokens))
        # each branch goes on from its prompt's end, wherever it stands in the row
        behind = next_positions(positions, prompt_mask)[:, None] + packed.place
        if positions.ndim == 3:
            behind = behind.expand(3, -1, -1)  # text has one position in time, height and width
        hidden = vlm.core(
            **inputs,
            position_ids=torch.cat([positions, behind], dim=-1),
            attention_mask=packed.mask(prompt_mask),
            use_cache=False,
        ).last_hidden_state
        predictors = _predictors(branches, counts, packed.starts, prompt_mask.sum(1), width)
        # one pair of row and column for each scored token, in the order of the targets
        at_row = [row for row, places in predictors for _ in places]
        at_place = [place for _, places in predictors for place in places]
        # the output embedding sees these alone: logits of all tokens would not fit in memory
        chosen = hidden[torch.tensor(at_row).to(device), torch.tensor(at_place).to(device)]
        targets = _scored_tokens(branches, counts, device)
        lengths = [len(places) for _, places in predictors]
        logits = vlm.base.get_output_embeddings()(chosen).float() / temperature
        return _rows_of(logits, targets, lengths, with_entropy=with_entropy)

    # -- the repeated form -------------------------------------------------------------------------

    def _score_repeated(
        self,
        prompts: Sequence[Encoded],
        branches: Sequence[Sequence[Sequence[int]]],
        counts: Sequence[Sequence[int]],
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> BranchLogprobs:
        rows = [
            Encoded([*prompt.input_ids, *branch], count, prompt.images)
            for prompt, group, numbers in zip(prompts, branches, counts, strict=True)
            for branch, count in zip(group, numbers, strict=True)
        ]
        batch = self._vlm.collate(rows, padding_side="right")
        hidden = self._vlm.core(**batch.inputs, use_cache=False).last_hidden_state
        # the token before each one that is scored predicts it
        chosen = hidden[:, :-1][batch.answer_mask[:, 1:]]
        targets = _scored_tokens(branches, counts, chosen.device)
        lengths = list(itertools.chain.from_iterable(counts))
        logits = self._vlm.base.get_output_embeddings()(chosen).float() / temperature
        return _rows_of(logits, targets, lengths, with_entropy=with_entropy)

    # -- whether the model can take it -------------------------------------------------------------

    def _obstacle(self) -> str | None:
        """Why prompts cannot be shared with this model.

        None where they can. Leaves the attention set if so.
        """
        vlm = self._vlm
        config = vlm.base.config.get_text_config()
        others = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
        if others:
            return f"the model has layers of {', '.join(others)}"
        before = getattr(vlm.language_model.config, "_attn_implementation", None)  # type: ignore[union-attr]
        try:
            vlm.language_model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
            difference = self._difference_on_a_small_pass()
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            vlm.language_model.set_attn_implementation(before)  # type: ignore[operator]
            return f"its attention cannot be replaced ({one_line(error)})"
        # rounding differs by the order of sums; a wrong mask or position is off by whole units
        limit = 1e-2 if vlm.base.dtype == torch.float32 else 0.5
        if not difference < limit:
            vlm.language_model.set_attn_implementation(before)  # type: ignore[operator]
            return f"a trial pass was off by {difference:.2g}"
        return None

    @torch.no_grad()
    def _difference_on_a_small_pass(self) -> float:
        vlm = self._vlm
        was_training = vlm.training
        vlm.eval()
        draw = torch.Generator().manual_seed(0)
        special = set(vlm.tokenizer.all_special_ids) | set(vlm.placeholder_ids)
        size = min(len(vlm.tokenizer), vlm.base.get_input_embeddings().weight.shape[0])
        # no id may mean a picture or an end; some tables have more rows than the tokenizer has ids
        usable = [item for item in range(size) if item not in special]
        ids = [usable[item] for item in torch.randint(len(usable), (28,), generator=draw).tolist()]
        # two prompts of different lengths, so that one is padded, and branches of different ones
        prompts = [Encoded(ids[:9]), Encoded(ids[9:14])]
        branches = [[ids[14:17], ids[17:19], ids[19:23]], [ids[23:24], ids[24:28]]]
        counts = [[len(branch) for branch in group] for group in branches]
        repeated = self._score_repeated(prompts, branches, counts).logprobs
        in_one, in_blocks = (
            self._score_shared(prompts, branches, counts, block=block).logprobs
            for block in (None, 4)
        )
        vlm.train(was_training)
        return float(torch.stack([in_one - repeated, in_blocks - repeated]).abs().max())


def _rows_of(
    logits: torch.Tensor, targets: torch.Tensor, lengths: Sequence[int], *, with_entropy: bool
) -> BranchLogprobs:
    """Rows of branches from what predicts their scored tokens, one after another.

    Args:
        logits: (T, V) of the T scored tokens of all branches, divided by the temperature.
        targets: (T,) their ids.
        lengths: Scored tokens of each of the R branches, T in all.
        with_entropy: Whether to compute the entropies as well.
    """
    # trl's selective_log_softmax and entropy_from_logits give the same bits, but their import
    # takes 4.9 s of CPU
    flat = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
    # from one long list of tokens to rows, by filling True places in order
    mask = torch.arange(max(lengths, default=0))[None] < torch.tensor(lengths)[:, None]
    mask = mask.to(logits.device)
    empty = torch.zeros(mask.shape, dtype=flat.dtype, device=logits.device)
    entropy = None
    if with_entropy:
        with torch.no_grad():
            normalised = logits.log_softmax(1)
            entropy = empty.masked_scatter(mask, -(normalised.exp() * normalised).sum(1))
    return BranchLogprobs(empty.masked_scatter(mask, flat), mask, entropy)


def _predictors(
    branches: Sequence[Sequence[Sequence[int]]],
    counts: Sequence[Sequence[int]],
    starts: Sequence[Sequence[int]],
    prompt_lengths: torch.Tensor,
    width: int,
) -> list[tuple[int, list[int]]]:
    """Of each branch its row, and the places in it of the tokens that predict its scored ones.

    A branch's first token is predicted by its prompt's last, each other one by the one before it.

    Args:
        branches: For each prompt, the ids of each branch.
        counts: For each branch, how many of its last tokens are scored.
        starts: For each branch, where behind the padded prompt it starts.
        prompt_lengths: (B,) tokens of each prompt, which the padding follows.
        width: P, tokens of the padded prompt.

    >>> _predictors([[[5, 6, 7], [8]]], [[2, 1]], [[0, 3]], torch.tensor([4]), 6)
    [(0, [6, 7]), (0, [3])]
    """
    found: list[tuple[int, list[int]]] = []
    for row, length in enumerate(prompt_lengths.tolist()):
        for branch, count, start in zip(branches[row], counts[row], starts[row], strict=True):
            end = start + len(branch)
            before = [length - 1, *range(width + start, width + end - 1)]
            found.append((row, before[len(branch) - count : len(branch)]))
    return found


def _scored_tokens(
    branches: Sequence[Sequence[Sequence[int]]],
    counts: Sequence[Sequence[int]],
    device: torch.device,
) -> torch.Tensor:
    """The scored ids of all branches, one after another."""
    ids = [
        item
        for group, numbers in zip(branches, counts, strict=True)
        for branch, count in zip(group, numbers, strict=True)
        for item in branch[len(branch) - count :]
    ]
    return torch.tensor(ids, dtype=torch.long, device=device)
