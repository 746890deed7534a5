"""Pre-trains the tiny base from nothing: `python scripts/pretrain_tiny/main.py --out DIR --seed 0`.

Words first, then lists of ids, sentences, pictures, whole dialogues. Matching a query to lines and copying their ids does not
emerge from whole dialogues at once; it opens up when vocabulary and answers grow. The stages are in `stages.py`. A stage is
passed by the share of exactly right answers, never by the clock, and one that does not get there fails the run, so that a seed
gives the same base again on the same kind of machine with one thread. About an hour of one thread. DIR/log.jsonl says what happened;
DIR/base is the model's folder; `--resume` goes on after the last stage that was passed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from build import IMAGE_PAD, make_config, make_model, make_tokenizer, save_folder
from dialogues import Rows, World
from stages import STAGES, Stage
from vision import train_vision
from word_vectors import start_embeddings

LEARNING_RATE, RATE_WITH_PICTURES, TOKENS_PER_STEP, REPLAY, REPLAYED_STAGES = (
    2e-3,
    1.2e-3,
    3_500,
    0.2,
    3,
)
WINDOW = 20  # steps over which a stage is judged


def step_loss(
    model: Any, world: World, rows: Rows, drawings: torch.Tensor | None
) -> tuple[torch.Tensor, float]:
    """Loss per answer token, and the share of queries whose answer is right to the last token.

    Args:
        model: The model.
        world: For the picture token's id.
        rows: B rows.
        drawings: Features of the drawings (topics, drawings, 4, hidden); None before the tower is trained.
    """
    embeddings = model.model.language_model.embed_tokens(rows.ids)
    if rows.pictures:
        assert drawings is not None
        shown = torch.cat([drawings[topic, number] for topic, number in rows.pictures])
        places = (rows.ids == world.token[IMAGE_PAD])[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(places, shown)
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=rows.positions,
        attention_mask=rows.mask,
        use_cache=False,
    ).last_hidden_state
    predicts = rows.is_answer[:, 1:]
    targets = rows.ids[:, 1:][predicts]
    logits = model.lm_head(hidden[:, :-1][predicts])
    wrong = (logits.argmax(-1) != targets).float()
    query = (torch.arange(len(rows.ids))[:, None] * 1_000 + rows.block)[:, 1:][predicts]
    names, number = query.unique(return_inverse=True)
    wrong_tokens = torch.zeros(len(names)).index_add_(0, number, wrong)
    return F.cross_entropy(logits, targets), (wrong_tokens == 0).float().mean().item()


def train_stage(
    stage: Stage,
    done: list[Stage],
    model: Any,
    world: World,
    optimizer: Any,
    drawings: torch.Tensor | None,
    log: Any,
    total: int,
) -> int:
    """Trains until the stage is passed; returns its number of steps.

    Raises:
        SystemExit: where it is not passed in `max_steps`.
    """
    chance = random.Random(f"{stage.name} {total}")
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    right: list[float] = []
    for step in range(stage.max_steps):
        current = (
            chance.choice(done[-REPLAYED_STAGES:]) if done and chance.random() < REPLAY else stage
        )
        rows, size = [], 0
        while size < TOKENS_PER_STEP:
            rows.append(world.encode(current, world.draw(current)))
            size += len(rows[-1].ids)
        rate = (LEARNING_RATE if drawings is None else RATE_WITH_PICTURES) * min(
            1, (total + step + 1) / 100
        )
        if stage.is_last:
            rate *= max(0.03, 0.5 * (1 + math.cos(math.pi * step / stage.max_steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, share = step_loss(model, world, world.collate(rows), drawings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if current is stage:
            right.append(share)
        recent = sum(right[-WINDOW:]) / max(1, len(right[-WINDOW:]))
        if (step + 1) % 50 == 0:
            log(
                {
                    "stage": stage.name,
                    "step": step + 1,
                    "right": round(recent, 3),
                    "loss": round(loss.item(), 4),
                }
            )
        if len(right) >= WINDOW + 5 and recent > stage.threshold and not stage.is_last:
            return step + 1
    if stage.is_last:
        return stage.max_steps
    raise SystemExit(
        f"stage {stage.name}: {recent:.3f} right after {stage.max_steps} steps, {stage.threshold} needed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for log, checkpoints and the base"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", action="store_true", help="go on after the last stage that was passed"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    log_file = (options.out / "log.jsonl").open("a", encoding="utf-8")

    def log(entry: dict[str, Any]) -> None:
        line = json.dumps({**entry, "cpu_seconds": round(time.process_time() - started)})
        log_file.write(line + "\n")
        log_file.flush()
        print(line, flush=True)

    tokenizer = make_tokenizer()
    world = World(tokenizer, options.seed)
    model = make_model(make_config(tokenizer), seed=options.seed)
    language = [weight for name, weight in model.named_parameters() if "visual" not in name]
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for weight in language if weight.ndim >= 2], "weight_decay": 0.01},
            {"params": [weight for weight in language if weight.ndim < 2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    checkpoint = options.out / "passed.pt"
    state: dict[str, Any] = {"done": [], "total": 0, "drawings": None}
    if options.resume and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    else:
        start_embeddings(
            model.model.language_model.embed_tokens.weight, World(tokenizer, options.seed + 7)
        )
    drawings, total = state["drawings"], state["total"]
    done = [stage for stage in STAGES if stage.name in state["done"]]
    log(
        {
            "weights": sum(weight.numel() for weight in model.parameters()),
            "vocabulary": len(tokenizer),
            "seed": options.seed,
        }
    )
    model.train()
    for stage in STAGES[len(done) :]:
        world.chance.seed(f"{options.seed} {stage.name}")
        if stage.pictures and drawings is None:
            drawings, _ = train_vision(model, world, log, seed=options.seed)
        steps = train_stage(stage, done, model, world, optimizer, drawings, log, total)
        total += steps
        done.append(stage)
        log({"passed": stage.name, "steps": steps, "total": total})
        torch.save(
            {
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "drawings": drawings, "total": total,
                "done": [item.name for item in done],
            },
            checkpoint,
        )  # fmt: skip
    provenance = {"seed": options.seed, "steps": total, "script": "scripts/pretrain_tiny/main.py"}
    save_folder(model.eval(), tokenizer, options.out / "base", {"provenance": provenance})
    log({"base": str(options.out / "base")})


if __name__ == "__main__":
    main()
