"""Fixtures that every test folder shares."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

# before torch is imported, here or in a worker: with models this small a second thread costs more than it gives, and
# sums come out the same on every machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

import PIL.Image
import pytest
from hypothesis import HealthCheck, settings

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance
from ffr.prompt import prompt_of, render
from ffr.retrieval.interface import Answer

REPOSITORY = Path(__file__).resolve().parent.parent

# a loaded machine must not fail a property, and CI must judge the same examples twice
settings.register_profile(
    "ffr",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("ffr")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a worker for each core that may be used, eight at most; each holds about 1.5 GB."""
    cores = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return min(len(cores), 8)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real dialogues and chat exports: FFR_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("FFR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("the folder of real dialogues is not here; set FFR_SHARED to it")
    return folder


@pytest.fixture(scope="session")
def real_dialogues(shared_dir: Path) -> Path:
    """Folder with dev.json and train.jsonl.gz: real dialogues with real photographs."""
    folder = shared_dir / "real-dialogues"
    if not folder.is_dir():
        pytest.skip(
            "the real dialogues are not here; set FFR_SHARED to the folder that holds real-dialogues/"
        )
    return folder


@pytest.fixture(scope="session")
def generated_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated sets; drawn once for all workers, and read only."""
    from filelock import FileLock

    from ffr.data.sample import SAMPLE_NAMES, write_sample

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    home = root / "data-home"
    with FileLock(root / "data-home.lock"):
        if not home.is_dir():
            for name in SAMPLE_NAMES:
                write_sample(root / "data-home.part" / name, name)
            (root / "data-home.part").rename(home)
    return home


@pytest.fixture(scope="module")
def sample_home(generated_sets: Path) -> Iterator[Path]:
    """FFR_DATA_HOME of a module, with the generated sets in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFR_DATA_HOME", str(generated_sets))
        yield generated_sets


@pytest.fixture(scope="module")
def small_sample_home(
    generated_sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """FFR_DATA_HOME of a module, in which `sample` has ten dialogues a language and part: what takes a
    few steps or asks a few queries need not read 2,000 records."""
    whole, home = generated_sets / "sample", tmp_path_factory.mktemp("small-data-home")
    for source in whole.glob("*.jsonl"):
        lines = []
        for line in source.read_text(encoding="utf-8").splitlines(keepends=True):
            record = json.loads(line)
            number = int(record["dialogue_id"].split("_")[3])  # sample_train_zh_00000_q0
            if number < 10:
                lines.append(line)
                for image in record["images"]:
                    target = home / "sample" / image
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(whole / image, target)
        (home / "sample" / source.name).write_text("".join(lines), encoding="utf-8")
    shutil.copyfile(whole / "generator.json", home / "sample" / "generator.json")
    shutil.copytree(generated_sets / "wechat-sample", home / "wechat-sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFR_DATA_HOME", str(home))
        yield home


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Five dialogues of 4 to 40 lines, two queries each; each dialogue has pictures of its own."""
    found = []
    for number in range(5):
        lines, root = [], tmp_path / "pictures"
        root.mkdir(exist_ok=True)
        for index in range(4 + 9 * number):
            if index % 4 == 3:
                name = f"{number}-{index}.png"
                PIL.Image.new("RGB", (8, 8), (40 * number, 5 * index, 90)).save(root / name)
                lines.append(Utterance("b", (Image(name),)))
            else:
                lines.append(Utterance("a", (f"line {index} of talk {number}",)))
        chat = Dialogue(f"d{number}", tuple(lines))
        found.append(Example(chat, "talk about lines", Fragment((0, 1), (0,)), image_root=root))
        found.append(Example(chat, "nothing of the kind", Fragment(), image_root=root))
    return found


class FakeRetriever:
    """Answers the truth for even lengths and talks past the point otherwise; can stop after some batches."""

    def __init__(
        self, stop_after: int | None = None, batch: int = 3, flavour: str = "plain"
    ) -> None:
        self.stop_after, self.batch, self.flavour = stop_after, batch, flavour
        self.num_asked = 0

    @property
    def name(self) -> str:
        return "fake"

    @property
    def identity(self) -> dict[str, object]:
        return {"kind": "fake", "flavour": self.flavour}

    def plan(self, examples):
        order = sorted(
            range(len(examples)),
            key=lambda index: (-len(examples[index].dialogue.utterances), index),
        )
        return [order[start : start + self.batch] for start in range(0, len(order), self.batch)]

    def prompt(self, example):
        return prompt_of(example)

    def answer(self, examples):
        if self.stop_after is not None:
            if self.stop_after == 0:
                raise KeyboardInterrupt
            self.stop_after -= 1
        self.num_asked += len(examples)
        return [
            Answer(
                format_answer(example.fragment) if len(example.query) % 2 == 0 else "well…",
                (-0.5, -0.25),
                False,
            )
            for example in examples
        ]


@pytest.fixture
def fake_retriever() -> type[FakeRetriever]:
    return FakeRetriever


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an architecture's tiny model; built when first asked for."""
    from model_builds import build_model

    root = tmp_path_factory.mktemp("architectures")

    def folder(name: str) -> Path:
        path = root / name
        return path if path.is_dir() else build_model(name, path)

    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four pictures of other shapes, so that they make other numbers of tokens."""
    from model_builds import random_picture

    root = tmp_path_factory.mktemp("pictures")
    sizes = [(60, 90), (112, 56), (57, 57), (130, 100)]
    return [
        random_picture(root / f"{number}.png", *size, seed=number)
        for number, size in enumerate(sizes)
    ]


@pytest.fixture(scope="session")
def ask(pictures: list[Path]) -> Callable[..., tuple[FilePrompt, list[Path]]]:
    """Makes a prompt with the named pictures: `ask(0, 2)` has pictures 0 and 2; `words` sets its length."""

    def make(
        *chosen: int, words: str = "看 this", query: str = "a picture"
    ) -> tuple[FilePrompt, list[Path]]:
        turns = [Utterance("user1", (f"{words} & <b>ok</b>  two  blanks",))]
        turns += [
            Utterance("user2", (f"no. {number} ", Image(str(pictures[number])), " tail"))
            for number in chosen
        ]
        turns.append(Utterance("user1", ("bye 🙂\t.",)))
        return render(Dialogue("d", tuple(turns)), query), [pictures[number] for number in chosen]

    return make
