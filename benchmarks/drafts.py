"""What guessing tokens ahead saves: passes, kernels, waits of the host and time, with answers that a trained model really writes.

`tiny` answers prompts of `sample`'s part `grpo` as GRPO has it answer (eight answers to each, temperature 1, top_p 0.85), one prompt and four at once;
a second visit of each prompt, with other random numbers, guesses from the answers of the first. The same answers are demanded, token for token. Passes
and kernels are counted, kernels and waits with the host looking every other pass, as on a GPU; the forms take turns on one thread, round after
round, and times are medians. Then `tiny` within the grammar: the queries of a dialogue at once, as `ffr eval --constrained` has them answered. Last,
how many passes true answers need by each tokenizer, where a script has the model choose them: what is guessed depends on tokens, not on weights.

    python benchmarks/drafts.py      # writes benchmarks/results/drafts.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from rollout_ops import Kernels, Reads

from ffr.answer import AnswerGrammar, format_answer
from ffr.data.catalog import load_dataset
from ffr.models.decoding import greedy
from ffr.models.decoding.decoders import SharedDecoder
from ffr.models.decoding.drafted import decode_drafted
from ffr.models.decoding.drafts import NONE, Drafts, forms_of_answers
from ffr.models.decoding.grammar import GrammarGuide
from ffr.models.decoding.loop import Generated, answering, decode
from ffr.models.decoding.neighbours import NeighbourDecoder
from ffr.models.decoding.sampling import sample_answers
from ffr.models.decoding.tail import Tail
from ffr.models.decoding.watch import PASSES_A_LOOK, TOKENS_A_LOOK, Watch
from ffr.models.loading import load_vlm
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.provenance import now, versions
from ffr.shipped.tiny import TINY_FOLDER

ANSWERS, MAX_NEW_TOKENS, TOP_P = 8, 200, 0.85
GUESSES = (0, 2, 4, 8, 16)
RESULT = Path(__file__).parent / "results" / "drafts.json"

Ids = tuple[int, ...]


@contextmanager
def counted(*decoders: type) -> Iterator[list[int]]:
    """Tokens of each answer in each pass while this is open."""
    widths: list[int] = []

    def watched(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def step(self: object, tokens: torch.Tensor, *given: Any) -> torch.Tensor:
            widths.append(1 if tokens.ndim == 1 else tokens.shape[1])
            return plain(self, tokens, *given)

        return step

    patches = [
        mock.patch.object(decoder, name, watched(getattr(decoder, name)))
        for decoder in decoders
        for name in ("step", "step_at")
    ]
    for patch in patches:
        patch.start()
    try:
        yield widths
    finally:
        for patch in patches:
            patch.stop()


class Rollouts:
    """What GRPO has a model write: the prompts in batches.

    Args:
        vlm: The model.
        batches: Prompts, as many at once.
    """

    def __init__(self, vlm: Vlm, batches: list[list[Encoded]]) -> None:
        self._vlm = vlm
        self._batches = batches
        self._forms = forms_of_answers(vlm)
        # of each visit, of each batch, of each prompt its answers
        self._known: list[list[list[list[Ids]]]] = []
        for visit in range(2):
            self._known.append([self._write(batch, number, visit, 0) for number, batch in enumerate(batches)])  # fmt: skip

    def _write(
        self, batch: list[Encoded], number: int, visit: int, guesses: int, look: int | None = None
    ) -> list[list[Ids]]:
        earlier = [set(answers) for answers in self._known[0][number]] if visit else [set() for _ in batch]  # fmt: skip
        drafts = Drafts(guesses, [[*self._forms, *sorted(some)] for some in earlier])
        groups = sample_answers(
            self._vlm, batch, num_samples=ANSWERS, max_new_tokens=MAX_NEW_TOKENS, top_p=TOP_P,
            generator=torch.Generator().manual_seed(1000 * visit + number), drafts=drafts if guesses else None, tokens_a_look=look,
        )  # fmt: skip
        return [[answer.token_ids for answer in group] for group in groups]

    def seconds(self, visit: int, guesses: int) -> float:
        """Of all batches."""
        start = time.perf_counter()
        for number, batch in enumerate(self._batches):
            self._write(batch, number, visit, guesses)
        return time.perf_counter() - start

    def counts(self, visit: int, guesses: int) -> dict[str, float]:
        """What is counted, by written token; answers of one prompt are written at once, so eight are one token."""
        tokens = sum(max(len(ids) for group in groups for ids in group) for groups in self._known[visit])  # fmt: skip
        with counted(SharedDecoder) as widths:
            for number, batch in enumerate(self._batches):
                if self._write(batch, number, visit, guesses) != self._known[visit][number]:
                    raise SystemExit(f"with {guesses} guesses the answers are others")
        passes, width = len(widths), sum(widths)
        looks = mock.Mock(side_effect=Watch.read)
        look = PASSES_A_LOOK if guesses else TOKENS_A_LOOK
        with mock.patch.object(Watch, "read", looks), counted(SharedDecoder) as widths:
            # of one batch: all are alike, and counting takes long
            with Reads() as reads, Kernels() as kernels:
                self._write(self._batches[0], 0, visit, guesses, look)
            with Reads() as first_reads, Kernels() as first:
                self._read_alone(self._batches[0], visit, guesses, look)
        own = max(len(ids) for group in self._known[visit][0] for ids in group)
        waits = reads.waits.total() + kernels.waits.total() - first_reads.waits.total() - first.waits.total()  # fmt: skip
        return {
            "passes_a_token": passes / tokens,
            "tokens_of_an_answer_in_a_pass": width / passes,
            "kernels_a_token": (kernels.started.total() - first.started.total()) / own,
            "waits_a_token": (waits - looks.call_count) / own,
        }

    def _read_alone(self, batch: list[Encoded], visit: int, guesses: int, look: int) -> None:
        """The prompts are read and one token is chosen, which is no part of what a token costs."""
        with mock.patch(f"{__name__}.MAX_NEW_TOKENS", 1):
            self._write(batch, 0, visit, guesses, look)


def rollouts(vlm: Vlm, prompts: list[Encoded], at_once: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each number of guesses and each visit."""
    batches = [prompts[start : start + at_once] for start in range(0, len(prompts), at_once)]
    written = Rollouts(vlm, batches)
    forms = [(visit, guesses) for visit in range(2) for guesses in GUESSES]
    seconds: dict[tuple[int, int], list[float]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form in forms:
            seconds[form].append(written.seconds(*form))
    medians = {form: statistics.median(times) for form, times in seconds.items()}
    return [
        {
            "prompts_at_once": at_once, "visit": visit + 1, "guesses": guesses, **written.counts(visit, guesses),
            "seconds": medians[visit, guesses], "times_without": medians[visit, guesses] / medians[visit, 0],
            "seconds_of_each_round": seconds[visit, guesses],
        }
        for visit, guesses in forms
    ]  # fmt: skip


def constrained(vlm: Vlm, examples: Sequence[Any], rounds: int) -> dict[str, Any]:
    """The queries of each dialogue within the grammar: a token a pass as before, and guessed ahead."""
    builder = PromptBuilder(vlm, closes_thought=True)
    units = [list(group) for _, group in itertools.groupby(examples, lambda item: item.dialogue.utterances)]  # fmt: skip
    units = [unit for unit in units if len(unit) > 1]
    parts = [[builder(example, where="") for example in unit] for unit in units]
    grammars = [
        [AnswerGrammar(len(item.dialogue.utterances), len(item.dialogue.images)) for item in unit]
        for unit in units
    ]

    def plain(part: list[Encoded], its_grammars: list[AnswerGrammar]) -> list[Generated]:
        with answering(vlm):
            decoder = NeighbourDecoder(vlm, [part], 1, Tail)
            choose = greedy.Greedy(vlm, GrammarGuide(vlm, its_grammars))
            return decode(vlm, decoder, choose, max_new_tokens=MAX_NEW_TOKENS)

    def guessed(part: list[Encoded], its_grammars: list[AnswerGrammar]) -> list[Generated]:
        return greedy.answer_neighbours(vlm, [part], max_new_tokens=MAX_NEW_TOKENS, grammars=[its_grammars])[0]  # fmt: skip

    found: dict[str, Any] = {"dialogues": len(parts), "queries": sum(map(len, parts))}
    ids: dict[str, list[Ids]] = {}
    seconds: dict[str, list[float]] = {"plain": [], "guessed": []}
    for number in range(rounds + 1):
        for name, write in (("plain", plain), ("guessed", guessed)):
            start = time.perf_counter()
            with counted(NeighbourDecoder) as widths:
                answers = [answer for part in zip(parts, grammars, strict=True) for answer in write(*part)]  # fmt: skip
            if number:
                seconds[name].append(time.perf_counter() - start)
            ids[name] = [answer.token_ids for answer in answers]
            found[f"passes_{name}"] = len(widths)
    if ids["plain"] != ids["guessed"]:
        raise SystemExit("within the grammar the guessed answers are others")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {**found, "seconds": medians, "times_plain": medians["guessed"] / medians["plain"], "seconds_of_each_round": seconds}  # fmt: skip


class Script:
    """A decoder by which one answer is chosen.

    Args:
        ids: Its tokens.
        size: Of the vocabulary.
    """

    def __init__(self, ids: list[int], size: int) -> None:
        self._logits = torch.nn.functional.one_hot(torch.tensor(ids), size).float()
        self.num_passes = 0

    def first_logits(self) -> torch.Tensor:
        return self._logits[:1]

    def step_at(self, tokens: torch.Tensor, places: torch.Tensor, num_places: int) -> torch.Tensor:
        self.num_passes += 1
        # behind the end nothing is looked at
        return self._logits[(places + 1).clamp(max=len(self._logits) - 1)]

    def drop_finished(self, is_open: Sequence[bool]) -> None:
        return None


def _nothing(tokens: torch.Tensor, count: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """No guesses."""
    return torch.full((len(count), 8), NONE)


def scripted(tokenizer: Any, examples: Sequence[Any]) -> dict[str, float]:
    """Passes by answer within the grammar: a token a pass, what is forced alone, and all guesses."""
    stop = tokenizer.eos_token_id
    vlm: Any = SimpleNamespace(
        tokenizer=tokenizer, end_of_turn_id=stop, stop_ids=[stop], padding_id=0, placeholder_ids=frozenset(), name="script",
        device=torch.device("cpu"),
    )  # fmt: skip
    number = {"tokens": 0, "forced_alone": 0, "all_guesses": 0}
    for example in examples:
        ids = [*tokenizer(format_answer(example.fragment), add_special_tokens=False).input_ids, stop]  # fmt: skip
        number["tokens"] += len(ids)
        for name, texts in (("forced_alone", []), ("all_guesses", forms_of_answers(vlm))):
            script = Script(ids, len(tokenizer))
            size = (len(example.dialogue.utterances), len(example.dialogue.images))
            guide = GrammarGuide(vlm, [AnswerGrammar(*size)])
            met = Drafts(8, [texts]).guesses(1, vlm.device) if texts else _nothing
            [answer] = decode_drafted(
                vlm, script, greedy.Greedy(vlm, guide), greedy.Guesses(guide, met), max_new_tokens=len(ids), num_drafts=8,
            )  # fmt: skip
            if list(answer.token_ids) != ids:
                raise SystemExit(f"the script's answer was not written: {answer.text}")
            number[name] += 1 + script.num_passes
    return {f"{name}_an_answer": value / len(examples) for name, value in number.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from answer_tokenizers import TOKENIZERS

    vlm = load_vlm(str(TINY_FOLDER))
    assert PrefixSharing(vlm).is_active
    data = load_dataset("sample", split="grpo")
    builder = PromptBuilder(vlm)
    every = len(data) // options.prompts
    prompts = [builder(data[index * every], where="") for index in range(options.prompts)]
    val = load_dataset("sample", split="val")
    examples = [val[index] for index in range(min(len(val), 90))]
    report = {
        "what": "tokens of answers guessed ahead: passes, kernels and waits counted, seconds in turns on one thread",
        "settings": {
            "answers": ANSWERS, "top_p": TOP_P, "prompts": options.prompts, "rounds": options.rounds, "passes_a_look": PASSES_A_LOOK,
            "tokens_a_look": TOKENS_A_LOOK,
        },
        "rollouts": [row for at_once in (1, 4) for row in rollouts(vlm, prompts, at_once, options.rounds)],
        "constrained": constrained(vlm, examples, options.rounds),
        "scripted": {
            name: scripted(make(), examples)
            for name, make in {"tiny": lambda: vlm.tokenizer, **{name: TOKENIZERS[name] for name in ("qwen2-vl", "metaspace")}}.items()
        },
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for row in report["rollouts"]:  # type: ignore[attr-defined]
        print({name: round(value, 2) for name, value in row.items() if not isinstance(value, list)})
    print(json.dumps([report["constrained"], report["scripted"]], indent=2))


if __name__ == "__main__":
    main()
