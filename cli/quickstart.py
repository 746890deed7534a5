"""`ffr quickstart`: the reader on two chats, then all of training on the embedded default.

Questions on chats; sample → base → SFT → GRPO → evaluation beside the baselines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.output import say

if TYPE_CHECKING:
    from ffr.settings import StageConfig
    from ffr.training.common.stage import Stage


_BEGUN_FILE = "quickstart.json"


class _Begun:
    """The runs of a quickstart that is not done yet, kept in a file beside them.

    Args:
        root: Folder of the runs.
        call: What the command was asked for; a file of another call is written anew.
    """

    def __init__(self, root: Path, call: dict[str, Any]) -> None:
        self._root, self._path = root, root / _BEGUN_FILE
        self._content: dict[str, Any] = {"call": call, "runs": {}}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["call"] == call and isinstance(found["runs"], dict):
                self._content = found
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # none was begun, or it is not known which: a new one begins

    def run(self, stage: str) -> Path:
        """The folder of a stage's run; a new one where none was begun."""
        from ffr.files import replace_json
        from ffr.runs import new_run_folder

        name = self._content["runs"].get(stage)
        if isinstance(name, str) and (self._root / Path(name).name).is_dir():
            return self._root / Path(name).name
        run = new_run_folder(self._root, stage, "tiny")
        self._content["runs"][stage] = run.name
        replace_json(self._path, self._content)
        return run

    def forget(self) -> None:
        """Lets the next call begin anew."""
        from ffr.files import remove

        remove(self._path)


def read_chats() -> None:
    """The reader that comes with ffr answers the queries on the chats that come with it."""
    from ffr.data.catalog import load_dataset
    from ffr.errors import FfrError
    from ffr.retrieval.asking import load_model
    from ffr.shipped.chats import CHATS_FILE

    say("── 1/6  questions on two chats, answered by the reader that comes with ffr")
    say(
        "on this machine's CPU; nothing leaves it. The first time its encoder is laid out, which takes"
    )
    say("up to a minute.")
    try:
        model = load_model("reader")
        for example in load_dataset(CHATS_FILE):
            found = model.retrieve(example, example.query)
            sure = "" if found.score is None else f"   (sure by {100 * found.score:.0f} %)"
            say(f"\n“{example.query}”{sure}")
            for line in found.text.splitlines() or ["nothing in this chat fits"]:
                say(f"    {line}")
    except FfrError as error:
        # where its encoder is not to be had, training can be shown all the same
        say(f"not shown: {error}")


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
    """Ask the reader three questions on two chats; then train the tiny model and measure it.

    The reader knows English and Chinese and is what comes with ffr for real chats. The tiny model is
    for trying the tool: it shows the machinery of training, and what it learns here says nothing
    about a real backbone. Where it was stopped, the same command goes on. It takes some minutes on two
    CPU cores.
    """
    import time
    from dataclasses import replace

    from ffr.cli.eval import eval_command
    from ffr.data.catalog import locate
    from ffr.runs import RunRecord, is_unbegun
    from ffr.settings import NEWEST, GrpoConfig, SftConfig, load_config
    from ffr.training.common.run import load_run_config
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

    sft = load_config(SftConfig, source="tiny", overrides=overrides, settings={"seed": seed})
    grpo = load_config(GrpoConfig, source="tiny", overrides=grpo_overrides, settings={"seed": seed})
    begun = _Begun(root, {"sft": list(overrides), "grpo": list(grpo_overrides), "seed": seed})

    def trained(stage: Stage[Any], config: StageConfig) -> Path:
        """The finished run of a stage: the one that an earlier call began, or a new one."""
        run = begun.run(config.stage)
        if not is_unbegun(run):
            if RunRecord.load(run).status == "finished":
                say(f"{run} is finished already")
                return run
            begun_with = load_run_config(type(config), run)
            result = train(stage, begun_with, replace(job, run=run, resume=True))
        else:
            result = train(stage, config, replace(job, run=run))
        if result.status != "finished":
            say("stopped; the same command goes on from here")
            ctx.exit(130)
        return result.run

    read_chats()
    say("\n── 2/6  training, shown on a toy: the sample sets, generated here")
    for name, split in (
        ("sample", "train"),
        ("sample", "grpo"),
        ("sample", "val"),
        ("wechat-sample", "val"),
    ):
        path, _ = locate(name, split=split, echo=say)
        say(f"{name} {split}: {path}")
    say("\n── 3/6  cold start (SFT) of the toy model tiny")
    first = trained(SftStage(), sft)
    size = sft.max_new_tokens
    folders = [
        measure(
            "4/6  tiny before training", "tiny", "sample", first / "eval" / "base-sample", size
        ),
        measure("4/6  after SFT", str(first), "sample", first / "eval" / "sample", size),
    ]
    say("\n── 5/6  GRPO: the model trains on the rewards of its own answers")
    if grpo.model == NEWEST:
        grpo = replace(grpo, model=str(first))
    second = trained(GrpoStage(), grpo)
    wechat = "6/6  after SFT and GRPO, on other wordings and longer chats"
    folders += [
        measure("6/6  after SFT and GRPO", str(second), "sample", second / "eval" / "sample", size),
        measure(wechat, str(second), "wechat-sample", second / "eval" / "wechat-sample", size),
    ]
    begun.forget()
    say(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes")
    say("shown: the reader on real language (1), and each stage of training on a toy (2 to 6)")
    say(f"the runs, with settings, figures, curve.png, adapter and merged model: {first}, {second}")
    for folder in folders:
        say(f"results and answers: {folder}")
    say("\nnext:")
    say('  ffr retrieve "…" CHAT                       ask what your own app exported')
    say("  ffr eval --model reader --dataset YOUR_FILE.jsonl        the reader on your own chats")
    say("  ffr train reader --from reader --dataset YOUR_FILE.jsonl  and trained further on them")
    say(f"  ffr eval --model {second} --constrained   well-formed answers only")
    say("  ffr data check YOUR_FILE.jsonl              is your data sound?")
    say("  ffr train sft --dataset YOUR_FILE.jsonl     train on it")
    say("  ffr train grpo --curriculum --dataset YOUR_FILE.jsonl")
    say(f"  ffr eval --model {second} --dataset YOUR_FILE.jsonl")
    say("  ffr train sft --config qwen2-vl-2b …        a real backbone, on a machine with GPUs")
