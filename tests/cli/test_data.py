"""`ffr data` as a newcomer types it: what is printed, what is written, and the exit codes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.data.dataset import open_dataset
from ffr.data.forms.formats import write_examples
from ffr.data.forms.ms_swift import example_to_record
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(ffr, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def _record(number: int, topic: str = "cats") -> dict[str, Any]:
    lines = (
        Utterance("user1", (f"about {topic} {number}",)),
        Utterance("user2", (Image("images/a.png"),)),
    )
    example = Example(
        Dialogue(f"d{number}", lines),
        f"all on {topic}",
        Fragment((0, 1), (0,)),
        meta={"topic": topic},
    )
    return example_to_record(example)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with good.jsonl and its picture."""
    (tmp_path / "images").mkdir()
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    records = [
        _record(number, topic)
        for number, topic in enumerate(("cats", "cars", "rain", "tea", "sea"))
    ]
    (tmp_path / "good.jsonl").write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def test_check(folder: Path) -> None:
    output = run("check", "good.jsonl").output
    assert (
        "good.jsonl: 5 of 5 records good, 0 bad; 0 faults, 0 warnings; 5 dialogues, 5 queries, 1 picture looked at"
        in output
    )
    bad = {**_record(9), "images": ["none.png"], "odd": 1}
    with Path("good.jsonl").open("a") as file:
        file.write(json.dumps(bad) + "\n")
    result = run("check", "good.jsonl", code=1)
    assert "good.jsonl:6: image " in result.output
    assert "pass --image-root" in result.output
    assert 'warning: good.jsonl:6: unknown key "odd"' in result.output
    assert "5 of 6 records good, 1 bad" in result.output
    run("check", "good.jsonl", "--no-images")
    report = json.loads(run("check", "good.jsonl", "--json", code=1).output)
    assert (report["num_good"], report["num_bad"]) == (5, 1)
    assert {fault["severity"]: fault["line"] for fault in report["faults"]} == {
        "error": 6,
        "warning": 6,
    }


def test_check_with_image_root(folder: Path) -> None:
    Path("below").mkdir()
    Path("good.jsonl").rename("below/good.jsonl")
    run("check", "below/good.jsonl", code=1)
    run("check", "below/good.jsonl", "--image-root", folder)


def test_check_of_a_file_that_is_none(folder: Path) -> None:
    assert (
        run("check", "none.jsonl", code=1).output
        == "Error: none.jsonl: not found; correct the path\n"
    )
    Path("a.json").write_bytes("[]".encode("utf-16"))
    assert "is in UTF-16, not UTF-8; convert it: iconv" in run("check", "a.json", code=1).output


def test_stats(folder: Path) -> None:
    figures = json.loads(run("stats", "good.jsonl", "--json").output)
    assert (figures["num_examples"], figures["num_dialogues"], figures["turns"]["mean"]) == (
        5,
        5,
        2.0,
    )
    assert figures["fingerprint"] == open_dataset("good.jsonl").fingerprint
    output = run("stats", "good.jsonl").output
    for text in ("turns a dialogue", "density", "empty answers", "dialogues by language", "en: 5"):
        assert text in output
    assert "the set mldr is not here" in run("stats", "mldr", code=2).output
    assert "did you mean sample?" in run("stats", "sampel", code=2).output


def test_stats_of_what_is_good(folder: Path) -> None:
    with Path("good.jsonl").open("a") as file:
        file.write("{}\n")
    assert "good.jsonl:6: " in run("stats", "good.jsonl", code=1).output
    result = CliRunner().invoke(ffr, ["data", "stats", "good.jsonl", "--skip-bad", "--json"])
    assert json.loads(result.stdout)["num_left_out"] == 1
    assert "1 bad record or query left out:" in result.stderr


def test_convert_there_and_back(folder: Path) -> None:
    run("convert", "good.jsonl", "raw.json", "--to", "raw")
    assert set(json.loads(Path("raw.json").read_text())[0]) == {
        "dialogue_id",
        "dialogue",
        "query_text",
        "gt_turns",
        "meta",
    }
    assert (
        "5 records, 5 examples"
        in run("convert", "raw.json", "back.jsonl", "--to", "ms-swift").output
    )
    assert Path("back.jsonl").read_bytes() == Path("good.jsonl").read_bytes()
    assert (
        "is there already; pass --force"
        in run("convert", "raw.json", "back.jsonl", "--to", "raw", code=2).output
    )
    run("convert", "raw.json", "back.jsonl", "--to", "ms-swift", "--template", "en", "--force")
    assert "Requirements" in Path("back.jsonl").read_text()
    assert "the name ends in" in run("convert", "raw.json", "x.txt", "--to", "raw", code=2).output


def test_what_the_other_form_writes_otherwise_is_said(folder: Path) -> None:
    lines = (Utterance("a", (Image("a.png"), Image("b.png"))),)
    for name, ids in (("in", (0, 1)), ("out", (1, 0))):
        one = Example(Dialogue(name, lines), "q", Fragment((0,), ids))
        write_examples(f"{name}.jsonl", [one])
    said = "Note: 1 answer with images in another order than the dialogue's, which the raw form"
    assert said in run("convert", "out.jsonl", "out.json", "--to", "raw").output
    assert "Note: 1 answer" not in run("convert", "in.jsonl", "in.json", "--to", "raw").output
    assert open_dataset("out.json", require_images=False)[0].fragment == Fragment((0,), (0, 1))
    both = "Note: answers are written as `solution` and as what the assistant says, both."
    assert both in run("convert", "in.json", "back.jsonl", "--to", "ms-swift").output
    record = json.loads(Path("back.jsonl").read_text())
    assert record["messages"][-1] == {"role": "assistant", "content": record["solution"]}


def test_a_new_file_in_another_folder_names_its_pictures_from_there(folder: Path) -> None:
    data = open_dataset("good.jsonl")
    note = run("convert", "good.jsonl", "below/x.jsonl.gz", "--to", "raw").output
    assert (
        "Note: its pictures stay in ., outside the folder of x.jsonl.gz; pages and servers are given "
        "such pictures with --outside-pictures alone\n"
    ) in note
    checked = run("check", "below/x.jsonl.gz").output
    assert "x.jsonl.gz: 5 of 5 records good, 0 bad;" in checked
    moved = open_dataset("below/x.jsonl.gz")
    assert moved.fingerprint == data.fingerprint
    [name] = {image.source for example in data for image in example.dialogue.images}
    assert {image.source for one in moved for image in one.dialogue.images} == {f"../{name}"}
    # and back: to the byte, without a word
    back = run("convert", "below/x.jsonl.gz", "back.jsonl", "--to", "ms-swift").output
    assert "Note: its pictures" not in back
    assert Path("back.jsonl").read_bytes() == Path("good.jsonl").read_bytes()
    # what is read with another folder than its own is seen from there
    words = ("convert", "good.jsonl", "c/d/y.json", "--to", "raw", "--image-root")
    run(*words, folder)
    assert open_dataset("c/d/y.json").fingerprint == data.fingerprint
    run(*words, "nowhere", "--force")
    assert f"../../nowhere/{name}" in Path("c/d/y.json").read_text()


def test_built_files_in_another_folder_are_read_without_options(tmp_path: Path) -> None:
    run("sample", "--out", tmp_path / "sample")
    source = tmp_path / "sample" / "val.jsonl"
    run("build", source, "--out", tmp_path / "far" / "long.jsonl", "--num-dialogues", "2")
    checked = run("check", tmp_path / "far" / "long.jsonl").output
    assert " 0 bad; 0 faults" in checked
    sources = [
        image.source
        for one in open_dataset(tmp_path / "far" / "long.jsonl")
        for image in one.dialogue.images
    ]
    assert sources
    assert all(name.startswith("../sample/images/") for name in sources)


def test_stats_of_pictures_elsewhere(folder: Path) -> None:
    Path("below").mkdir()
    Path("good.jsonl").rename("below/good.jsonl")
    words = ["stats", "below/good.jsonl", "--json"]
    found = json.loads(run(*words, "--image-root", folder).output)["fingerprint"]
    assert found == open_dataset("below/good.jsonl", image_root=folder).fingerprint
    assert found != json.loads(run(*words).output)["fingerprint"]


def test_convert_loses_nothing_in_silence(folder: Path) -> None:
    own = _record(0)
    own["messages"][0]["content"] = "my own words"
    Path("own.jsonl").write_text(json.dumps(own) + "\n")
    assert (
        "pass --drop-prompts"
        in run("convert", "own.jsonl", "raw.json", "--to", "raw", code=1).output
    )
    assert not Path("raw.json").exists()
    run("convert", "own.jsonl", "raw.json", "--to", "raw", "--drop-prompts")
    Path("capital.json").write_text(
        json.dumps(
            [
                {
                    "dialogue_id": "d",
                    "dialogue": [{"speaker": "Ann", "utterance": "hi"}],
                    "query_text": "q",
                }
            ]
        )
    )
    assert (
        "capitals are not kept"
        in run("convert", "capital.json", "x.jsonl", "--to", "ms-swift").output
    )


def test_build(folder: Path) -> None:
    output = run(
        "build", "good.jsonl", "--out", "long.jsonl", "--num-dialogues", 10, "--seed", 3
    ).output
    assert "from 5 short dialogues (seed 3)" in output
    run("check", "long.jsonl")
    first = Path("long.jsonl").read_bytes()
    run("build", "good.jsonl", "--out", "long.jsonl", "--num-dialogues", 10, "--seed", 3, "--force")
    assert Path("long.jsonl").read_bytes() == first
    figures = json.loads(run("stats", "long.jsonl", "--json").output)
    assert figures["topics"]["mean"] == 3
    assert figures["num_dialogues"] == 10
    assert (
        "5 topics" in run("build", "good.jsonl", "--out", "x.jsonl", "--topics", 7, code=1).output
    )
    run("build", "good.jsonl", "--out", "x.jsonl", "--absent", 1, code=2)


def test_sample(folder: Path) -> None:
    output = run("sample", "--name", "wechat-sample", "--out", "ws", "--seed", 5).output
    assert "examples" in output
    run("check", "ws/val.jsonl")
    assert "is there already; name another folder" in run("sample", "--out", "ws", code=2).output


def test_download_needs_an_address(folder: Path) -> None:
    output = run("download", "mldr", code=2).output
    assert "no address of mldr is built in" in output
    assert "--url URL" in output
    assert "--archive FILE" in output
    run("download", "sample", code=2)


def test_download_from_a_copy(folder: Path) -> None:
    with tarfile.open("set.tar", "w") as tar:
        tar.add("good.jsonl", "MLDR/val.jsonl")
        tar.add("images/a.png", "MLDR/images/a.png")
    digest = hashlib.sha256(Path("set.tar").read_bytes()).hexdigest()
    assert (
        "not 000"
        in run("download", "mldr", "--archive", "set.tar", "--sha256", "0" * 64, code=1).output
    )
    output = run("download", "mldr", "--archive", "set.tar", "--sha256", digest).output
    assert f"SHA-256 {digest} (as required)" in output
    assert "val: " in output
    assert "train: which file under" in output  # said, not hidden: this copy has no training part
    assert json.loads(run("stats", "mldr", "--json").output)["num_examples"] == 5
    assert "--force" in run("download", "mldr", "--archive", "set.tar", code=2).output
    with tarfile.open("evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    assert (
        "leads out of its folder"
        in run("download", "wechat", "--archive", "evil.tar", code=1).output
    )
