"""Files, answers and texts changed by chance: named errors alone, bounded in memory and time.

Each door takes inputs that were sound before a change or two. A forked process uses them one after
the other; what it may take is bounded by the system (`RLIMIT_DATA`, `RLIMIT_CPU`), so that an input
that hangs, or asks for too much memory, is found by its number. `mutants(door, number)` gives its
bytes again.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import lzma
import os
import random
import re
import sys
import tarfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
import torch
from mutators import corrupted, grown, mutated, spliced
from rich.console import Console

from ffr.answer import format_answer, parse_strict, read_answer, read_response
from ffr.data.check import check_file
from ffr.data.dataset import open_dataset
from ffr.data.download import extract
from ffr.data.forms.ms_swift import example_to_record
from ffr.data.forms.predictions import read_predictions
from ffr.data.importing import import_files
from ffr.data.pictures import PictureMemory
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.embedding.cache import CachedEncoder
from ffr.errors import DataError, FfrError
from ffr.evaluation.gate import parse_rule
from ffr.evaluation.predictions import score_predictions
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.exports.runtime import INFO_FILE, read_info
from ffr.files import differing_files, remove, write_checksums
from ffr.images import image_verdict, open_image, open_thumbnail
from ffr.models.features import ImageFeatureCache, ImageFeatures
from ffr.models.loading import _read_settings
from ffr.models.rendering import RenderingError, render
from ffr.report.tables import print_report
from ffr.retrieval.answer_log import AnswerLog
from ffr.retrieval.api import split_name
from ffr.retrieval.api_client import ChatClient, Limits, PassingError, RefusedError
from ffr.retrieval.chat_protocol import Prices, read_completion
from ffr.retrieval.lexical import BaselineRetriever
from ffr.retrieval.submitted import SubmittedRetriever
from ffr.run_log import read_metrics
from ffr.runs import RECORD_FILE, RunRecord
from ffr.settings import GrpoConfig, SftConfig, load_config, load_resumed, to_yaml
from ffr.shipped.tiny import TINY_FOLDER
from ffr.suites import packaged_suites, suite_text
from ffr.suites.suite import load_suite
from ffr.training.curriculum.difficulty import (
    DIFFICULTY_FILE,
    Difficulty,
    load_difficulties,
    write_difficulties,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds are those of Linux")

MAX_SECONDS = 10
MAX_BYTES, MAX_TIMES = 300 << 20, 10


@dataclass
class Door:
    """A way by which something from outside comes in.

    Args:
        name: Of the file that holds it.
        seeds: Sound inputs.
        use: All that is done with the file.
        share: Of 100,000 inputs, how many go by this door.
        refusals: What it may raise.
    """

    name: str
    seeds: list[bytes]
    use: Callable[[Path], object]
    share: int
    refusals: tuple[type[Exception], ...] = (FfrError,)
    records: bool = field(init=False)

    def __post_init__(self) -> None:
        self.records = bool(re.search(r"\.jsonl?$", self.name))


def mutants(door: Door, number: int) -> bytes:
    """The input of a number."""
    chance = random.Random(f"{door.name} {number}")
    seed = chance.choice(door.seeds)
    way = chance.random()
    if door.records and way < 0.5:
        is_lines = door.name.endswith(".jsonl")
        parts = [json.loads(part) for part in (seed.splitlines() if is_lines else [seed])]
        found = mutated({"all": parts}, chance).get("all", [])
        found = found if isinstance(found, list) else [found]
        return b"\n".join(json.dumps(part).encode() for part in found)
    if way < 0.75:
        return corrupted(seed, chance)
    return grown(seed, chance) if way < 0.9 else spliced(seed, chance.choice(door.seeds), chance)


# -- the doors -------------------------------------------------------------------------------------


def _picture(kind: str, mode: str, **options: Any) -> bytes:
    draw = random.Random(kind)
    image = PIL.Image.new(mode, (17, 12))
    image.putdata([draw.randrange(256) for _ in range(17 * 12)]) if mode in ("L", "P") else None
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _archive(pack: Callable[[bytes], bytes] = bytes, kind: int = tarfile.PAX_FORMAT) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=kind) as tar:
        for name, size in (("images/a.png", 700), ("d" * 120 + "/b.jsonl", 40), ("é.txt", 0)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(b"x" * size))
    return pack(held.getvalue())


def _extracted(path: Path) -> None:
    folder = path.parent / "out"
    folder.mkdir()
    try:
        extract(path, folder, max_bytes=1 << 20)
    finally:
        remove(folder)


def _read_data(path: Path) -> None:
    check_file(path)
    for example in open_dataset(path, skip_bad=True, require_images=False):
        read_response(format_answer(example.fragment or Fragment()))


def _answer_of_a_server(path: Path) -> None:
    content = path.read_bytes()
    client = ChatClient("http://localhost/v1", "NO_SUCH_KEY", Limits())
    for status in (200, 400, 429, 500):
        response = SimpleNamespace(status=status, reason="?", headers=Message())
        response.headers["Content-Type"] = "application/json"
        response.headers["Retry-After"] = content[:20].decode("latin-1").replace("\n", " ")
        with suppress(PassingError, RefusedError):
            read_completion(client._wire._checked(response, content), Prices(1, 1))  # type: ignore[arg-type]


def _shown(path: Path) -> None:
    print_report(Results.load(path), Console(file=io.StringIO(), width=80))


def _looked_at(path: Path) -> None:
    if not isinstance(image_verdict(path), str):
        assert open_image(path).mode == "RGB"
        open_thumbnail(path, 8)


def _texts(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    read_answer(text)
    read_response(text)
    with suppress(ValueError):
        parse_strict(text)
    for read in (
        split_name,
        lambda said: parse_rule("min", said),
        lambda said: load_config(SftConfig, overrides=[said]),
    ):
        with suppress(FfrError):
            read(text)


class _Ones:
    """An encoder whose vectors say how long a text is."""

    name, fingerprint, takes_images = "ones", "f" * 64, False

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[len(text), 0.5, 1.0] for text in texts])


def doors(folder: Path) -> dict[str, Door]:
    """All doors; what they need beside their file lies in a folder."""
    chat = Dialogue(
        "d1",
        (
            Utterance("user1", ("look 猫", Image("a.png"))),
            Utterance("user2", ("nice",)),
            Utterance("user1", ("bye",)),
        ),
    )
    chats = [Example(chat, query, Fragment((1,), (0,)), image_root=folder) for query in "pq"]
    (folder / "a.png").write_bytes(_picture("PNG", "L"))
    swift = b"".join(json.dumps(example_to_record(chat)).encode() + b"\n" for chat in chats)
    raw = {
        "dialogue_id": "d",
        "dialogue": [
            {"speaker": "a", "utterance": "hi", "utterance_idx": 0},
            {"speaker": "b", "utterance": ["x", {"image_url": "a.png", "caption": "c"}]},
        ],
        "query_text": ["p", "q"],
        "gt_turns": [[0], [1]],
    }
    raws = json.dumps(raw).encode() + b"\n"
    answer = format_answer(Fragment((1, 2), (0,)))
    predictions = b"".join(
        json.dumps(
            {**json.loads(line), "response": answer, "labels": answer, "logprobs": None}
        ).encode()
        + b"\n"
        for line in swift.splitlines()
    )
    evaluate(chats, BaselineRetriever("overlap"), folder / "ev", dataset="made")
    results = json.loads((folder / "ev" / "results.json").read_bytes())
    del results["provenance"]["sha256"]  # or every change would be refused by it alone
    log = (folder / "ev" / "predictions.jsonl").read_bytes()
    write_difficulties(folder / DIFFICULTY_FILE, chats, [Difficulty(0.5, 0.25, is_empty=False)] * 2)
    completion = {
        "id": "x",
        "choices": [
            {
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                "logprobs": {"content": [{"token": "a", "logprob": -0.5}]},
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }
    refusal = {"error": {"message": "no", "type": "t", "code": 7}}
    record = RunRecord(
        "sft", "finished", "2026", 0, "tiny", "sample", versions={"torch": "2"}, results={"a": 1.0}
    )
    record.save(folder)
    with PictureMemory(folder / "memory.sqlite3") as memory:
        os.utime(folder / "a.png", (1, 1))
        memory.look_at(folder / "a.png")
    info = {
        "format": "ffr-onnx/3", "part": "vision", "kind": "qwen2_vl", "opset": 17,
        "dtype": "float32", "inputs": {"pixel_values": ["n", 3]}, "outputs": ["out"],
        "warm_up": {"a": [1]}, "settings": {"b": 2}, "files": {"model.onnx": "0" * 64},
        "reference": {},
    }  # fmt: skip
    cached, ones = folder / "vectors", _Ones()
    right = CachedEncoder(ones, cached, max_bytes=1 << 20).embed_texts(["a"])  # type: ignore[arg-type]
    (vector,) = cached.rglob("*.vector")

    def read_vector(path: Path) -> None:
        vector.write_bytes(path.read_bytes())
        again = CachedEncoder(ones, cached, max_bytes=1 << 20)  # type: ignore[arg-type]
        assert torch.equal(again.embed_texts(["a"]), right)

    kept = ImageFeatures(torch.arange(6.0).reshape(2, 3), (), torch.tensor([[1, 2, 2]]), True)
    ImageFeatureCache(memory_bytes=0, disk_folder=folder / "features", disk_bytes=1 << 20).put(
        "key", kept
    )
    (features,) = (folder / "features").rglob("*.safetensors")

    def read_features(path: Path) -> None:
        features.write_bytes(path.read_bytes())
        found = ImageFeatureCache(
            memory_bytes=1000, disk_folder=folder / "features", disk_bytes=1 << 20
        ).get("key", "cpu")
        assert found is None or torch.equal(found.pooled, kept.pooled)

    def read_log(path: Path) -> None:
        log_of_two = AnswerLog(path, 2)
        try:
            if log_of_two.has_all([0, 1]):
                list(log_of_two.in_order(chats))
        finally:
            log_of_two.close()

    def read_memory(path: Path) -> None:
        with PictureMemory(path) as memory:
            found = memory.look_at(folder / "a.png")
        # a damaged memory may be one that remembers something else; never one that does not answer
        assert len(found.digest) == 64 or isinstance(found.digest, str)

    (folder / "sums").mkdir()
    (folder / "sums" / "a b").write_bytes(b"a")
    write_checksums(folder / "sums", ["a b"])
    said = [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image"}]}]
    tables = [
        b'dialogue_id,utterance_id,speaker,text,images\nd,0,a,hi,\nd,1,b,"x, y",a.png\n',
        b"dialogue_id\tutterance_id\tspeaker\ttext\nd\t0\ta\thi\n",
    ]
    (folder / "queries.csv").write_text("dialogue_id,query,utterance_ids,image_ids\nd,q,0;1,\n")
    all_doors = [
        Door("swift.jsonl", [swift, swift[: swift.index(b"\n") + 1]], _read_data, 8_000),
        Door("raw.jsonl", [raws, raws * 2], _read_data, 8_000),
        Door("list.json", [b"[" + raws + b"]"], _read_data, 4_000),
        Door("packed.jsonl.gz", [gzip.compress(swift, 1)], _read_data, 3_000),
        Door("predictions.jsonl", [predictions], read_predictions, 7_000),
        Door("scored.jsonl", [predictions], score_predictions, 400),
        Door("submitted.jsonl", [predictions], SubmittedRetriever, 5_000),
        Door("lines.csv", tables, lambda path: import_files([path, folder / "queries.csv"]), 4_000),
        Door("recipe.yaml", [_recipe("sft"), _recipe("grpo")], _read_recipe, 5_000),
        Door("suite.yaml", [suite_text(name).encode() for name in packaged_suites()],
             lambda path: load_suite(str(path)), 1_500),
        Door("config.yaml", [to_yaml(SftConfig()).encode()],
             lambda path: load_resumed(SftConfig, path), 1_500),
        Door("run.json", [(folder / RECORD_FILE).read_bytes()],
             lambda path: RunRecord.load(path.parent), 4_000),
        Door("results.json", [json.dumps(results).encode()], _shown, 1_500),
        Door("metrics.csv", [b"step,loss,lr\n1,0.5,1e-4\n2,0.25,\n3,nan,1\n"], read_metrics, 7_000),
        Door("difficulty.csv", [(folder / DIFFICULTY_FILE).read_bytes()],
             lambda path: load_difficulties(path, chats), 6_000),
        Door("log.jsonl", [log], read_log, 3_000),
        Door("server.json", [json.dumps(completion).encode(), json.dumps(refusal).encode()],
             _answer_of_a_server, 9_000),
        Door("archive.tar", [
            _archive(), _archive(kind=tarfile.GNU_FORMAT), _archive(gzip.compress),
            _archive(lzma.compress),
        ], _extracted, 2_500),
        Door("picture", [
            _picture("PNG", "L"), _picture("PNG", "P"), _picture("PNG", "RGBA"),
            _picture("JPEG", "RGB", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"),
            _picture("GIF", "P"), _picture("WEBP", "RGB"), _picture("BMP", "RGB"),
            _picture("TIFF", "RGB"), _picture("PNG", "I;16"), _picture("JPEG", "CMYK"),
        ], _looked_at, 7_000, refusals=(DataError,)),
        Door("texts", [
            answer.encode(), b"<think>x</think>" + answer.encode() * 2, b"learning_rate=1e-4",
            b"api:http://localhost:8000/v1#m", b"joint_f1=0.5",
        ], _texts, 5_500),
        Door("vector", [vector.read_bytes()], read_vector, 900),
        Door("features", [features.read_bytes()], read_features, 1_200),
        Door("memory", [(folder / "memory.sqlite3").read_bytes()], read_memory, 700),
        Door("SHA256SUMS", [(folder / "sums" / "SHA256SUMS").read_bytes()],
             lambda path: differing_files(path.parent), 2_000),
        Door("ffr.json", [b'{"prompt": {"template": "zh", "query_position": "last"}}'],
             lambda path: _read_settings(path.parent), 2_000),
        Door(INFO_FILE, [json.dumps(info).encode()], lambda path: read_info(path.parent), 2_000),
        Door("chat_template", [(TINY_FOLDER / "chat_template.jinja").read_bytes()],
             lambda path: render(path.read_bytes().decode("utf-8", "replace"), said, {}, ask=True),
             300, refusals=(RenderingError,)),
    ]  # fmt: skip
    return {door.name: door for door in all_doors}


def _recipe(stage: str) -> bytes:
    config = {"sft": SftConfig, "grpo": GrpoConfig}[stage]()
    return b"# what it is for\n" + to_yaml(config).encode()[:600].rpartition(b"\n")[0] + b"\n"


def _read_recipe(path: Path) -> None:
    kind = SftConfig if path.read_bytes().count(b"e") % 2 else GrpoConfig
    load_config(kind, source=str(path))


# -- the process that uses them --------------------------------------------------------------------


def _bound_memory(num_bytes: int) -> None:
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    taken = int(status.split("VmData:")[1].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (taken + num_bytes, taken + num_bytes))


def _bound_seconds() -> None:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + MAX_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _fault(door: Door, path: Path, data: bytes) -> str:
    """What is wrong with how an input was taken; empty for nothing."""
    path.write_bytes(data)
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of odd tags
            door.use(path)
    except door.refusals as error:
        said = str(error)
        return "" if said and "\n" not in said else f"no single sentence: {said!r}"
    except BaseException:
        return traceback.format_exc(limit=-6)
    return ""


def _work(door: Door, numbers: range, folder: Path, out: int) -> None:
    folder.mkdir()
    logging.disable()
    longest = max(len(seed) for seed in door.seeds)
    _bound_memory(MAX_BYTES + MAX_TIMES * longest)
    for number in numbers:
        os.write(out, f"{number}\n".encode())
        _bound_seconds()
        fault = _fault(door, folder / door.name, mutants(door, number))
        if fault:
            os.write(out, json.dumps([number, fault]).encode() + b"\n")


def faults_of(door: Door, count: int, folder: Path) -> list[str]:
    """Uses so many inputs in forked processes, and tells what went wrong."""
    found: list[str] = []
    start = attempt = 0
    while start < count:
        attempt += 1
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.close(reading)
                _work(door, range(start, count), folder / f"{door.name}-{attempt}", writing)
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        last = start
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("["):
                    number, fault = json.loads(line)
                    found.append(f"{door.name} {number}: {fault}")
                else:
                    last = int(line)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            break
        found.append(f"{door.name} {last}: its process ended with {code}")
        if len(found) > 20:
            break
        start = last + 1
    return found


@pytest.fixture(scope="module")
def all_doors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    return doors(tmp_path_factory.mktemp("doors"))


def test_some_inputs(all_doors: dict[str, Door], tmp_path: Path) -> None:
    """About 2,500 of them, by all doors."""
    counts = {name: max(8, door.share // 40) for name, door in all_doors.items()}
    assert sum(counts.values()) > 2_500
    faults = [
        fault
        for name, count in counts.items()
        for fault in faults_of(all_doors[name], count, tmp_path)
    ]
    assert faults == []


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_hundred_thousand_inputs(all_doors: dict[str, Door], tmp_path: Path) -> None:
    assert sum(door.share for door in all_doors.values()) >= 100_000
    faults = [
        fault for door in all_doors.values() for fault in faults_of(door, door.share, tmp_path)
    ]
    assert faults == []


# -- the net itself --------------------------------------------------------------------------------


def _hang(path: Path) -> None:
    while path.exists():
        pass


def _swell(path: Path) -> None:
    bytearray(1 << 33)  # more than a process that ran many tests gives back meanwhile


def _break(path: Path) -> None:
    raise KeyError("a")


def _ramble(path: Path) -> None:
    raise DataError("two\nlines")


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (_swell, "MemoryError"),
        (_break, "KeyError"),
        (_ramble, "no single sentence"),
        (_hang, "ended with -24"),
    ],
)
def test_the_net_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], None], words: str
) -> None:
    monkeypatch.setitem(globals(), "MAX_SECONDS", 0)
    faults = faults_of(Door("a", [b"x"], use, 1), 2, tmp_path)
    assert [fault.split(":")[0].split()[1] for fault in faults] == ["0", "1"]
    assert all(words in fault for fault in faults), faults
