"""Answers with their rewards, written out while a policy trains, for later and for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L

from ffr.files import append, dump_record, replaced_file
from ffr.progress import Say
from ffr.training.common.reporting import report_table
from ffr.training.grpo.completions import completion_rows, drop_completions, write_completions
from ffr.training.grpo.module import GrpoModule
from ffr.training.grpo.rollout import Rollout

SAMPLES_FILE = "samples.jsonl"


class SampleLog(L.Callback):
    """Writes answers of the first and every `show_samples_every_steps`th step, as JSON and Parquet.

    On a resumed run the lines of steps that are done again are dropped, so that each is there once.

    Args:
        say: Takes the lines for a person: one prompt's best and worst answer.
    """

    def __init__(self, say: Say) -> None:
        self._say = say

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GrpoModule)
        path, last_step = _samples_file(trainer), pl_module.steps_done
        if not trainer.is_global_zero:
            return
        drop_completions(path.parent, last_step)
        if not path.exists():
            return
        with path.open("rb") as old, replaced_file(path) as write:
            for line in old:
                # a torn last line has no newline
                if line.endswith(b"\n") and json.loads(line)["step"] <= last_step:
                    write(line)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, GrpoModule)
        step, rollout = pl_module.steps_done, pl_module.last_rollout
        every = pl_module.config.show_samples_every_steps
        if not trainer.is_global_zero or not every or rollout is None:
            return
        if step != 1 and step % every:
            return
        lines = [
            _sample(pl_module, rollout, number, step) for number in range(len(rollout.indices))
        ]
        if lines:
            self._show(lines[0])
            prompts = [pl_module.sampler.columns(index)["prompt"] for index in rollout.indices]
            write_completions(Path(trainer.default_root_dir), step, lines, prompts)
            rows = completion_rows(step, lines, prompts)
            report_table(trainer.loggers, "completions", rows, step)
        append(
            _samples_file(trainer),
            b"".join(
                dump_record(line, where=f"{SAMPLES_FILE}, step {step}") + b"\n" for line in lines
            ),
        )

    def _show(self, line: dict[str, Any]) -> None:
        answers = sorted(line["answers"], key=lambda answer: -answer["reward"])
        self._say(f"step {line['step']}, dialogue {line['dialogue_id']!r}, query {line['query']!r}")
        self._say(f"  truth          {line['truth']}")
        for name, answer in (("best", answers[0]), ("worst", answers[-1])):
            terms = ", ".join(f"{term} {value:.2f}" for term, value in answer["terms"].items())
            text = " ".join(answer["text"].split())
            self._say(
                f"  {name:<5} {answer['reward']:>6.2f}   "
                f"{text if len(text) <= 200 else text[:199] + '…'}  ({terms})"
            )


def _samples_file(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / SAMPLES_FILE


def _sample(module: GrpoModule, rollout: Rollout, number: int, step: int) -> dict[str, Any]:
    size = module.config.num_generations
    assert module.last_advantages is not None
    facts = module.sampler.columns(rollout.indices[number])
    answers = [
        {
            "text": rollout.answers[place].text,
            "reward": round(float(rollout.rewards[place]), 6),
            "advantage": round(float(module.last_advantages[place]), 6),
            "terms": {
                term.name: round(float(value), 6)
                for term, value in zip(module.sampler.terms, rollout.values[place], strict=True)
            },
        }
        for place in range(number * size, (number + 1) * size)
    ]
    return {
        "step": step,
        "index": rollout.indices[number],
        "dialogue_id": facts["dialogue_id"],
        "query": facts["query"],
        "truth": facts["solution"],
        "answers": answers,
    }
