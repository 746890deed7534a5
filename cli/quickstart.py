"""`ffr quickstart`: the main job end to end on the embedded default.

Sample → base → SFT → GRPO → evaluation beside the baselines.
"""

from __future__ import annotations

from pathlib import Path

import click

from ffr.cli.output import say


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    help="Folder of the runs.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training.")
@click.option(
    "-o", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting of `ffr train sft`."
)
@click.option(
    "-g",
    "grpo_overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any setting of `ffr train grpo`.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Evaluate on the first N examples of each set."
)
@click.pass_context
def quickstart(
    ctx: click.Context,
    root: Path,
    seed: int,
    overrides: tuple[str, ...],
    grpo_overrides: tuple[str, ...],
    limit: int | None,
) -> None:
    """Make the sample, train the tiny model on it, and measure it beside the baselines.

    It takes some minutes on two CPU cores. The tiny model is for trying the tool; what it learns
    here says nothing about a real backbone.
    """
    import time
    from dataclasses import replace

    from ffr.cli.eval import eval_command
    from ffr.data.catalog import locate
    from ffr.settings import GrpoConfig, SftConfig, load_config
    from ffr.training.common.run import TrainResult
    from ffr.training.common.stage import Job, train
    from ffr.training.grpo.stage import GrpoStage
    from ffr.training.sft.stage import SftStage

    started = time.monotonic()
    job = Job(root=root, recipe="tiny", say=say, progress=False)

    def measure(title: str, model: str, dataset: str, out: Path, max_new_tokens: int) -> Path:
        say(f"\n── {title}")
        ctx.invoke(
            eval_command,
            model=model,
            dataset=dataset,
            out=out,
            limit=limit,
            max_new_tokens=max_new_tokens,
        )
        return out

    def finished(stage: str, result: TrainResult) -> Path:
        if result.status != "finished":
            say(
                f"stopped; finish this run with `ffr train {stage} --resume {result.run}`; "
                "quickstart begins anew"
            )
            ctx.exit(130)
        return result.run

    sft = load_config(SftConfig, source="tiny", overrides=overrides, settings={"seed": seed})
    grpo = load_config(GrpoConfig, source="tiny", overrides=grpo_overrides, settings={"seed": seed})
    say("── 1/5  the sample sets, generated here")
    for name, split in (
        ("sample", "train"),
        ("sample", "grpo"),
        ("sample", "val"),
        ("wechat-sample", "val"),
    ):
        path, _ = locate(name, split=split, echo=say)
        say(f"{name} {split}: {path}")
    say("\n── 2/5  cold start (SFT) of the embedded base")
    first = finished("sft", train(SftStage(), sft, job))
    size = sft.max_new_tokens
    folders = [
        measure(
            "3/5  the base before training", "tiny", "sample", first / "eval" / "base-sample", size
        ),
        measure("3/5  after SFT", str(first), "sample", first / "eval" / "sample", size),
    ]
    say("\n── 4/5  GRPO: the model trains on the rewards of its own answers")
    if grpo.model == "newest":
        grpo = replace(grpo, model=str(first))
    second = finished("grpo", train(GrpoStage(), grpo, job))
    wechat = "5/5  after SFT and GRPO, on other wordings and longer chats"
    folders += [
        measure("5/5  after SFT and GRPO", str(second), "sample", second / "eval" / "sample", size),
        measure(wechat, str(second), "wechat-sample", second / "eval" / "wechat-sample", size),
    ]
    say(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes")
    say(f"the runs, with settings, figures, curve.png, adapter and merged model: {first}, {second}")
    for folder in folders:
        say(f"results and answers: {folder}")
    say("\nnext:")
    say(f"  ffr eval --model {second} --constrained   well-formed answers only")
    say("  ffr data check YOUR_FILE.jsonl              is your data sound?")
    say("  ffr train sft --dataset YOUR_FILE.jsonl     train on it")
    say("  ffr train grpo --curriculum --dataset YOUR_FILE.jsonl")
    say(f"  ffr eval --model {second} --dataset YOUR_FILE.jsonl")
    say("  ffr train sft --config qwen2-vl-2b …        a real backbone, on a machine with GPUs")
