"""`ffr eval --corpus`: queries asked of a whole archive, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr as command
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment

BUS = Dialogue.of([("a", "the bus was late"), ("b", "again"), ("a", "it always is")], id="bus")
CAT = Dialogue.of([("a", "the cat sleeps"), ("b", "good cat")], id="cat")
OTHER_BUS = Dialogue.of([("a", "shall we take a bus"), ("b", "no")], id="other")


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, ["eval", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home" / "data"))
    asked, archive = tmp_path / "asked.jsonl", tmp_path / "archive.jsonl"
    one = {"query_kind": "own"}
    concept = {"query_kind": "concept", "concept": "bus"}
    write_examples(
        asked,
        [
            Example(BUS, "late", Fragment((0,)), meta=one),
            Example(BUS, "a bus", Fragment((0, 1, 2)), meta=concept),
            Example(BUS, "zebra", Fragment(), meta={"query_kind": "absent"}),
        ],
    )
    write_examples(
        archive,
        [
            Example(CAT, "cats", Fragment((0, 1))),
            Example(OTHER_BUS, "a bus", Fragment((0,)), meta=concept),
        ],
    )
    return asked, archive


def test_queries_of_one_file_in_the_archive_of_another(files: tuple[Path, Path]) -> None:
    asked, archive = files
    words = ["--model", "baseline:overlap", "--dataset", asked, "--corpus", archive]
    words += ["--specific", "own", "--out", "one", "--index", "kept"]
    code, text = run(*words)
    assert code == 0, text
    results = json.loads(Path("one/results.json").read_text(encoding="utf-8"))
    assert results["model"]["num_dialogues"] == 3
    # a baseline needs no vectors, so that dialogues are recalled by words alone
    assert results["model"]["ways"] == ["words"]
    groups = results["summary"]["archive"]["groups"]
    own = groups["one dialogue"]["figures"]
    assert (own["recall_at_1"], own["utterance_f1"], own["known_utterance_f1"]) == (1, 1, 1)
    # the best hit is the other dialogue about a bus, which is right too
    several = groups["several dialogues"]["figures"]
    assert (several["recall_at_1"], several["wrong"]) == (1, 0)
    absent = groups["absent"]["figures"]
    assert (absent["empty"], absent["wrong"], absent["recall_at_1"]) == (1, 0, None)
    assert "one dialogue: the right dialogue is among the first 20 of 100.0 %" in text
    # the same command takes up what is there
    code, _ = run(*words)
    assert code == 0
    again = json.loads(Path("one/results.json").read_text(encoding="utf-8"))
    assert again["provenance"]["num_answers_resumed"] == 3
    assert again["summary"] == results["summary"]


def test_data_as_its_own_archive(files: tuple[Path, Path]) -> None:
    asked, _ = files
    code, text = run("--model", "baseline:overlap", "--corpus", asked, "--ways", "words")
    assert code == 0, text
    (folder,) = Path("eval").iterdir()
    assert folder.name == "baseline-overlap-asked-archive-by-words"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["model"]["ways"] == ["words"]
    assert results["model"]["num_dialogues"] == 1
    assert (folder / "archive" / "messages.sqlite3").is_file()


def test_nobody_is_asked(files: tuple[Path, Path]) -> None:
    asked, archive = files
    code, text = run("--model", "none", "--dataset", asked, "--corpus", archive, "--limit", 1)
    assert code == 0, text
    (folder,) = Path("eval").iterdir()
    assert folder.name == "none-asked-archive-first-1"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["model"]["inside"] is None
    assert results["model"]["label"] == "recall of an archive"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--wrong-pictures"], "--wrong-pictures has no meaning beside --corpus"),
        (["--ways", "smell"], "name some of words, lines, segments, pictures"),
        (["--ways", ","], "--ways ',' names nothing"),
        (["--ways", "words,lines"], "no vectors, so none are made and the way lines finds nothing"),
    ],
)
def test_what_means_nothing_is_refused(
    files: tuple[Path, Path], more: list[str], said: str
) -> None:
    code, text = run("--model", "baseline:overlap", "--corpus", files[0], *more)
    assert code == 2, text
    assert said in text
    code, text = run("--corpus", files[0], "--predictions", files[1])
    assert (code, "--corpus has no meaning beside --predictions" in text) == (2, True)
    code, text = run("--model", "baseline:overlap", "--dataset", files[0], "--index", "kept")
    assert (code, "--index has no meaning without --corpus" in text) == (2, True)
