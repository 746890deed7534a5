"""`ffr quickstart`: the main job end to end on the embedded default: sample → base → SFT → evaluation beside the baselines."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), help="Folder of the runs."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training.")
@click.option("-o", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting of `ffr train sft`.")
@click.option("--limit", type=click.IntRange(min=1), help="Evaluate on the first N examples of each set.")
@click.pass_context
def quickstart(ctx: click.Context, root: Path, seed: int, overrides: tuple[str, ...], limit: int | None) -> None:
    """Make the sample, train the tiny model on it, and measure it beside the baselines: a few minutes on two CPU cores.

    The tiny model is for trying the tool; what it learns here says nothing about a real backbone.
    """
    import time

    from ffr.cli.eval import eval_command

    from ffr.config import SftConfig, load_config
    from ffr.data.catalog import locate
    from ffr.training.sft import train_sft

    started = time.monotonic()

    def measure(model: str, dataset: str, out: Path) -> None:
        ctx.invoke(
            eval_command, model=model, dataset=dataset, out=out, limit=limit, max_new_tokens=config.max_new_tokens
        )

    config = load_config(SftConfig, source="tiny", overrides=overrides, settings={"seed": seed})
    click.echo("── 1/4  the sample sets, generated here")
    for name, split in (("sample", "train"), ("sample", "val"), ("wechat-sample", "val")):
        path, _ = locate(name, split=split, echo=click.echo)
        click.echo(f"{name} {split}: {path}")
    click.echo("\n── 2/4  cold start (SFT) of the embedded base")
    result = train_sft(config, recipe="tiny", root=root, echo=click.echo, progress=False)
    if result.status != "finished":
        click.echo(f"stopped; go on with `ffr train sft --resume {result.run}`")
        ctx.exit(130)
    folders = []
    for number, (model, dataset) in enumerate(
        (("tiny", "sample"), (str(result.run), "sample"), (str(result.run), "wechat-sample"))
    ):
        titles = (
            "3/4  the base before training",
            "4/4  the trained model",
            "4/4  the trained model on other wordings, longer chats",
        )
        click.echo(f"\n── {titles[number]}")
        folders.append(result.run / "eval" / (f"base-{dataset}" if model == "tiny" else dataset))
        measure(model, dataset, folders[-1])
    click.echo(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes")
    click.echo(f"the run, with settings, figures, curve.png, adapter and merged model: {result.run}")
    for folder in folders:
        click.echo(f"results and answers: {folder}")
    click.echo("\nnext:")
    click.echo(f"  ffr eval --model {result.run} --constrained   well-formed answers only")
    click.echo("  ffr data check YOUR_FILE.jsonl              is your data sound?")
    click.echo("  ffr train sft --dataset YOUR_FILE.jsonl     train on it")
    click.echo(f"  ffr eval --model {result.run} --dataset YOUR_FILE.jsonl")
    click.echo("  ffr train sft --config qwen2-vl-2b …        a real backbone, on a machine with GPUs")
