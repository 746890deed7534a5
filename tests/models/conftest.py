"""Tiny models of every architecture on disk, pictures, and dialogues to ask them about."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ffr.dialogue import Dialogue, FilePrompt, Image, Utterance
from ffr.prompt import render

TESTS = str(Path(__file__).resolve().parent.parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)  # for model_builds

from model_builds import BUILDS, build_model, random_picture  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an architecture's tiny model; built when first asked for."""
    root = tmp_path_factory.mktemp("architectures")

    def folder(name: str) -> Path:
        path = root / name
        return path if path.is_dir() else build_model(name, path)

    return folder


@pytest.fixture(params=sorted(BUILDS))
def folder(request: pytest.FixtureRequest, model_folder: Callable[[str], Path]) -> Path:
    """The folder of each architecture's tiny model in turn."""
    return model_folder(request.param)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four pictures of other shapes, so that they make other numbers of tokens."""
    root = tmp_path_factory.mktemp("pictures")
    sizes = [(60, 90), (112, 56), (57, 57), (130, 100)]
    return [random_picture(root / f"{number}.png", *size, seed=number) for number, size in enumerate(sizes)]


@pytest.fixture(scope="session")
def ask(pictures: list[Path]) -> Callable[..., tuple[FilePrompt, list[Path]]]:
    """Makes a prompt with the named pictures: `ask(0, 2)` has pictures 0 and 2; `words` sets its length."""

    def make(*chosen: int, words: str = "看 this", query: str = "a picture") -> tuple[FilePrompt, list[Path]]:
        turns = [Utterance("user1", (f"{words} & <b>ok</b>  two  blanks",))]
        turns += [Utterance("user2", (f"no. {number} ", Image(str(pictures[number])), " tail")) for number in chosen]
        turns.append(Utterance("user1", ("bye 🙂\t.",)))
        return render(Dialogue("d", tuple(turns)), query), [pictures[number] for number in chosen]

    return make
