"""`ffr eval --model embedding:ENCODER` and `--encoder`, by exit code and text."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.data.forms.predictions import read_predictions
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, ["eval", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def write_part(path: Path, *, first: int) -> None:
    found = []
    for number in range(first, first + 4):
        PIL.Image.new("RGB", (28, 28), (20 * number, 10, 10)).save(path.parent / f"{number}.png")
        lines = [
            Utterance("a", (f"line {index} of talk {number}",)) for index in range(3 + number % 3)
        ]
        chat = Dialogue(f"d{number}", (*lines, Utterance("b", (Image(f"{number}.png"),))))
        found += [
            Example(chat, f"talk {number}", Fragment((0, 1), (0,))),
            Example(chat, "no such thing", Fragment()),
        ]
    write_examples(path, found)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the parts val and train; the working folder is a fresh one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home" / "data"))
    (tmp_path / "set").mkdir()
    for number, part in enumerate(("val", "train")):
        write_part(tmp_path / "set" / f"{part}.jsonl", first=4 * number)
    return tmp_path / "set"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from encoder_builds import build_encoder

    return build_encoder("clip", tmp_path_factory.mktemp("encoders") / "clip")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from encoder_builds import build_sentence_encoder

    return build_sentence_encoder("bert", tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    from model_builds import build_model

    return build_model("qwen2-vl", tmp_path_factory.mktemp("model") / "qwen2-vl")


def results_of(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def test_a_dual_encoder_from_start_to_finish(folder, clip):
    words = [
        "--dataset",
        folder,
        "--model",
        f"embedding:{clip}",
        "--no-baselines",
        "--encoder-cache",
        "cache",
    ]
    code, text = run(*words, "--out", "one", "--coherence")
    assert code == 0, text
    assert text.startswith(f"Evaluating embedding:{clip} on {folder} (val)\n")
    assert f"Fitting threshold on {folder} (train), 8 queries" in text
    said = " ".join(text.split())
    assert "Chosen: lines of cosine ≥ " in said
    assert "8 queries, fingerprint" in said
    results = results_of("one")
    selection = results["model"]["selection"]
    assert selection["rule"] == "threshold"
    assert selection["image"] is not None
    assert selection["fit"]["num_queries"] == 8
    assert selection["fit"]["fingerprint"] != results["data"]["fingerprint"]
    assert results["summary"]["coherence"]["num_answers"] == 8
    assert results["summary"]["answers"]["num_malformed"] == 0
    assert list(Path("cache").glob("??/*.vector"))
    assert len(list(Path("home/embedding-fits").iterdir())) == 1
    # again, and taken up where it is done: the same answers
    before = Path("one/predictions.jsonl").read_bytes()
    assert run(*words, "--out", "two")[0] == 0
    assert Path("two/predictions.jsonl").read_bytes() == before
    assert run(*words, "--out", "one")[0] == 0
    assert results_of("one")["provenance"]["num_answers_resumed"] == 8
    code, text = run(*words, "--out", "one", "--threshold", 0.3, "--image-threshold", 0.2)
    assert code == 2
    assert "differs in model selection" in text
    code, text = run(*words, "--out", "given", "--threshold", 0.3, "--image-threshold", 0.2)
    assert code == 0, text
    assert "pictures of cosine ≥ 0.2000; as given" in " ".join(text.split())


def test_a_sentence_encoder_lets_pictures_follow(folder, bert):
    words = [
        "--dataset",
        folder,
        "--model",
        f"embedding:{bert}",
        "--no-baselines",
        "--select",
        "top-share",
    ]
    (folder / "0.png").unlink()  # no picture is looked at
    code, text = run(*words, "--limit", 4, "--neighbours", 1)
    assert code == 0, text
    out = next(Path("eval").iterdir())
    assert (
        out.name.endswith("bert-set-first-4-neighbours-1-top-share".removeprefix("bert-"))
        or "top-share" in out.name
    )
    model = results_of(out)["model"]
    assert (model["num_neighbours"], model["selection"]["image"], model["takes_images"]) == (
        1,
        None,
        False,
    )
    for line in read_predictions(out / "predictions.jsonl"):
        chosen = json.loads(line.response.split("<|utt_ids_start|>")[1].split("<|utt_ids_end|>")[0])
        images = json.loads(line.response.split("<|img_ids_start|>")[1].split("<|img_ids_end|>")[0])
        num_lines = len(
            read_examples(folder / "val.jsonl")[line.extra["index"]].dialogue.utterances
        )
        assert images == ([0] if num_lines - 1 in chosen else [])


def read_examples(path: Path) -> list[Example]:
    from ffr.data.dataset import open_dataset

    return list(open_dataset(path, require_images=False))


def test_pooled_states_retrieve(folder, vlm):
    code, text = run(
        "--dataset", folder, "--model", f"embedding:vlm:{vlm}", "--no-baselines", "--out", "out"
    )
    assert code == 0, text
    assert results_of("out")["model"]["takes_images"]


def test_wrong_pictures_touch_pictures_alone(folder, clip):
    words = ["--dataset", folder, "--model", f"embedding:{clip}", "--no-baselines"]
    assert run(*words, "--out", "right")[0] == 0
    code, text = run(*words, "--out", "wrong", "--wrong-pictures")
    assert code == 0, text
    assert "CONTROL WITH WRONG PICTURES" in text
    utterances = [
        [line.response.partition(";")[0] for line in read_predictions(f"{name}/predictions.jsonl")]
        for name in ("right", "wrong")
    ]
    assert utterances[0] == utterances[1]


def test_coherence_of_any_model_by_an_encoder(folder, clip, vlm):
    words = ["--dataset", folder, "--no-baselines", "--coherence", "--encoder"]
    code, text = run(*words, clip, "--model", "baseline:everything", "--out", "one")
    assert code == 0, text
    coherence = results_of("one")["summary"]["coherence"]
    assert (coherence["encoder"], coherence["num_answers"]) == (str(clip), 8)
    code, text = run(*words, clip, "--model", vlm, "--max-new-tokens", 4, "--out", "two")
    assert code == 0, text
    assert results_of("two")["summary"]["coherence"]["encoder"] == str(clip)
    code, text = run(*words, "policy", "--model", vlm, "--max-new-tokens", 4, "--out", "three")
    assert code == 0, text
    assert results_of("three")["summary"]["coherence"]["encoder"] == str(vlm)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--model", "embedding:"], 2, "names no encoder; write embedding:ENCODER"),
        (["--model", "embedding:{clip}/nowhere"], 1, "is no folder and no hub id"),
        (["--model", "embedding:policy"], 2, "encoder `policy` is the vision-language model"),
        (
            ["--model", "embedding:{clip}", "--fit-split", "val"],
            2,
            "8 of the 8 queries to fit on are evaluated too",
        ),
        (["--model", "embedding:{clip}", "--fit-split", "test"], 2, "has no file test.jsonl"),
        (
            ["--model", "embedding:{clip}", "--dataset", "set/val.jsonl"],
            2,
            "name some with --fit-dataset, or give",
        ),
        (
            ["--model", "embedding:{clip}", "--fit-dataset", "nowhere"],
            2,
            "no data file or set 'nowhere'",
        ),
        (
            ["--model", "embedding:{clip}", "--window", "3"],
            2,
            "--window has no meaning beside embedding:",
        ),
        (
            ["--model", "embedding:{clip}", "--constrained"],
            2,
            "--constrained has no meaning beside embedding:",
        ),
        (["--model", "embedding:{clip}", "--threshold", "2"], 2, "2.0 is not in the range"),
        (
            ["--model", "embedding:{clip}", "--threshold", "0", "--select", "top-share"],
            2,
            "--select has no meaning",
        ),
        (
            ["--model", "embedding:{clip}", "--image-threshold", "0"],
            2,
            "--image-threshold has no meaning without --threshold; give both",
        ),
        (
            ["--model", "embedding:{bert}", "--threshold", "0", "--image-threshold", "0"],
            2,
            "pictures follow their",
        ),
        (["--model", "embedding:{bert}", "--wrong-pictures"], 2, "which looks at no picture"),
        (
            ["--model", "embedding:{bert}", "--coherence"],
            2,
            "encodes texts only, and the data has pictures",
        ),
        (["--model", "baseline:nothing", "--coherence"], 2, "name an --encoder"),
        (
            ["--model", "baseline:nothing", "--encoder", "{clip}"],
            2,
            "--encoder has no meaning without --coherence; give both",
        ),
        (
            ["--model", "baseline:nothing", "--encoder-cache", "x"],
            2,
            "--encoder-cache has no meaning beside",
        ),
        (
            ["--model", "baseline:nothing", "--threshold", "0"],
            2,
            "--threshold has no meaning beside a model that",
        ),
        (
            ["--model", "baseline:nothing", "--coherence", "--encoder", "policy"],
            2,
            "and here is none",
        ),
        (
            ["--model", "embedding:{clip}", "--device", "warp"],
            2,
            "--device warp cannot be used here",
        ),
    ],
)
def test_wrong_calls(folder, clip, bert, words, code, sentence):
    arguments = [word.format(clip=clip, bert=bert) for word in words]
    found, text = run(*(arguments if "--dataset" in words else [*arguments, "--dataset", folder]))
    assert (found, sentence in " ".join(text.split())) == (code, True), text


def test_data_that_is_not_here_is_said_before_an_encoder_is_opened(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "ffr.retrieval.opening.open_encoder", lambda *words, **_: opened.append(words)
    )
    model = ["--model", "embedding:e5"]
    for words, sentence in (
        (["--dataset", "none.jsonl"], "no data file or set 'none.jsonl'"),
        (["--dataset", folder, "--fit-dataset", "none.jsonl"], "no data file or set 'none.jsonl'"),
        (
            ["--dataset", folder / "val.jsonl"],
            "and val.jsonl is all there is; name some with --fit",
        ),
        (["--dataset", folder, "--fit-split", "nowhere"], "nowhere"),
    ):
        code, text = run(*model, *words)
        said = " ".join(text.replace(f"{folder}/", "").split())
        assert (code, sentence in said, opened) == (2, True, []), text


def test_a_picture_that_is_none_is_named(folder, clip):
    (folder / "5.png").write_bytes(b"no picture")
    code, text = run("--dataset", folder, "--model", f"embedding:{clip}")
    assert code == 1
    assert "5.png" in text


def test_a_suite_fits_each_encoder_as_eval_does(folder, clip, bert):
    Path("my.yaml").write_text(
        "figures: [joint_f1]\n"
        "defaults: {window: 4, fit_limit: 6}\n"  # a window says nothing to an encoder
        f"datasets: [{{label: val, dataset: {folder}}}, {{label: train, dataset: {folder}, split: train, settings: {{fit_split: val}}}}]\n"
        f"models: [{{label: clip, model: 'embedding:{clip}'}}, {{label: bert, model: 'embedding:{bert}', settings: {{neighbours: 1}}}}]\n"
    )
    done = CliRunner().invoke(ffr, ["bench", "run", "my.yaml", "--out", "bench"])
    assert done.exit_code == 0, done.output
    assert done.output.count("Fitting threshold on ") == 4
    rows = json.loads(Path("bench/results.json").read_text())["rows"]
    assert [cell["model"]["num_neighbours"] for row in rows for cell in row["cells"]] == [
        0,
        0,
        1,
        1,
    ]
    fits = [cell["model"]["selection"]["fit"] for row in rows for cell in row["cells"]]
    assert [(fit["split"], fit["num_queries"]) for fit in fits] == [("train", 6), ("val", 6)] * 2
    for name, words in (("clip", []), ("bert", ["--neighbours", 1])):
        model = f"embedding:{clip if name == 'clip' else bert}"
        code, text = run(
            "--dataset",
            folder,
            "--model",
            model,
            "--fit-limit",
            6,
            "--out",
            name,
            "--no-baselines",
            *words,
        )
        assert code == 0, text
        row = next(row for row in rows if row["label"] == name)
        assert (
            row["cells"][0]["figures"][0]["share"]
            == results_of(name)["summary"]["scores"]["joint_f1"]
        )


def test_a_suite_refuses_what_an_encoder_has_not(folder):
    Path("my.yaml").write_text(
        "figures: [joint_f1]\ndatasets: [{dataset: set}]\nmodels: [{model: 'embedding:x', settings: {window: 3}}]\n"
    )
    done = CliRunner().invoke(ffr, ["bench", "run", "my.yaml"])
    assert done.exit_code == 2
    assert "my.yaml:3: window has no effect on embedding:x; take it out" in done.output
