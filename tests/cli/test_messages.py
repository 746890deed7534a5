"""Messages that once misled: each says what is meant and what to do."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import click
import PIL.Image
import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.errors import DataError
from ffr.images import find_image
from ffr.settings.words import nearest


def say(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "sft", "--lr", "1"], "no option --lr; did you mean --learning-rate?"),
        (["train", "sft", "--learning_rate", "1"], "did you mean --learning-rate?"),
        (["train", "grpo", "--num_train_epochs", "1"], "did you mean --epochs?"),
        (["train", "sft", "--per_device_train_batch_size", "1"], "did you mean --batch-size?"),
        (["train", "sft", "--gradient-accumulation-steps", "1"], "did you mean --accumulate?"),
        (["train", "grpo", "--beta", "1"], "did you mean --kl-coefficient?"),
        (["train", "sft", "--output_dir", "x"], "did you mean --out?"),
        (["train", "sft", "--model_name_or_path", "x"], "did you mean --model?"),
        (["train", "grpo", "--model", "x"], "no option --model; did you mean --from?"),
        (["train", "sft", "-o", "lr=1"], "no setting lr; did you mean learning_rate?"),
        (["train", "sft", "--learning-rate", "x"], "setting learning_rate: 'x' is not a number"),
        (["train", "sft", "--batch-size", "0"], "it must be at least 1"),
        (["train", "sft", "--wat"], "No such option"),
        (["train", "sft", "-o", "accelerator=cuda", "--dry-run"], "did you mean gpu?"),
        (
            ["eval", "--model", "http://host/v1"],
            "http://host/v1 is an address; a server is written api:http://host/v1#MODEL",
        ),
        (
            ["export", "onnx", "--model", "tiny", "--part", "text", "--out", "x"],
            "tiny has no part text: tiny, a vision-",
        ),
        (
            ["export", "onnx", "--model", "tiny-clip", "--part", "vision", "--out", "x"],
            "tiny-clip has no part vision",
        ),
    ],
)
def test_a_wrong_call_names_the_right_one(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = say(*words)
    assert (code, sentence in text) == (2, True), text


def test_the_key_that_is_misspelt_is_the_one_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"dialogue_id": "a", "message": []}) + "\n")
    assert 'did you mean "message"? rename it to "messages"' in say("data", "check", path)[1]


def test_an_archive_is_called_one(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_bytes(b"PK\x03\x04" + bytes(range(128, 250)) * 9)
    code, text = say("data", "check", path)
    assert code == 1
    assert "chat.jsonl: is a zip archive; unpack it" in text
    assert text.count("chat.jsonl: ") <= 2


def test_a_run_names_its_evaluations(tmp_path):
    folder = tmp_path / "run" / "eval" / "dev"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    code, text = say("gate", tmp_path / "run", "--baseline", folder)
    assert code == 1
    assert f"this run's evaluations are {folder}; name one" in text


def test_a_run_stands_for_its_only_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dev = Path("run/eval/dev")
    words = ["eval", "--model", "baseline:nothing", "--limit", 3, "--out", dev]
    assert say(*words)[0] == 0
    said = f"run has one evaluation, which is taken: {dev}"
    for command in (["show", "run", "--id", 0], ["report", "run"], ["compare", dev, "run"]):
        code, text = say(*command)
        assert (code, text.count(said)) == (0, 1), text
    assert (dev / "report.html").exists()
    # what is no run is not looked for beside it
    for path in (Path("eval/sample"), Path("run/eval/other")):
        path.mkdir(parents=True)
        (path / "results.json").write_text("{}")
    assert "nowhere: not found; `ffr eval` writes it" in say("compare", "nowhere", dev)[1]
    code, text = say("show", "run", "--id", 0)
    assert code == 1
    assert f"this run's evaluations are {dev}, run/eval/other; name one" in text


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("pics/a.png", "pics\\a.png"),
        ("a b.png", "a%20b.png"),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
    ],
)
def test_a_picture_under_another_spelling_is_named(tmp_path: Path, on_disk: str, written: str):
    path = tmp_path / on_disk
    path.parent.mkdir(exist_ok=True)
    PIL.Image.new("RGB", (2, 2)).save(path)
    with pytest.raises(DataError, match=r"not found; there is .*, spelt otherwise; write that"):
        find_image(tmp_path / written)
    with pytest.raises(DataError, match="correct its path or pass --image-root"):
        find_image(tmp_path / "nowhere.png")


def test_a_synonym_is_meant_only_where_it_may_stand():
    assert nearest("cuda", ["auto", "cpu", "gpu", "mps"]) == "; did you mean gpu?"
    assert nearest("cuda", ["mps", "zero"]) == ""


def test_slurm_is_explained(tmp_path, monkeypatch):
    from ffr.errors import UsageError
    from ffr.settings import SftConfig
    from ffr.training.common.trainer import make_trainer

    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "x")
    with pytest.raises(UsageError, match="SLURM_NTASKS=2 is set"):
        make_trainer(SftConfig(), tmp_path, [], last_step=0, progress=False, is_manual=False)


@pytest.mark.parametrize(
    ("shares", "is_so"), [([1.0, 1.0], True), ([1.0, 0.5], False), ([], False)]
)
def test_a_run_without_a_signal_is_known(tmp_path, shares, is_so):
    from ffr.cli.train import _never_a_signal

    rows = "".join(f"{step},{share}\n" for step, share in enumerate(shares, 1))
    (tmp_path / "metrics.csv").write_text("step,no_signal_share\n" + rows)
    assert _never_a_signal(tmp_path) is is_so


def test_a_set_without_the_part_to_fit_on_says_what_to_name(tmp_path, monkeypatch):
    from ffr.data.catalog import NAMED_SETS
    from ffr.errors import UsageError
    from ffr.retrieval.fitting import AskedData
    from ffr.retrieval.opening import choose_model, open_model
    from ffr.settings import AnswerConfig

    assert "train" not in NAMED_SETS["wechat"].splits
    opened = open_model(choose_model("embedding:tiny-clip"), AnswerConfig(), name="x")
    with pytest.raises(
        UsageError, match="the set wechat has no part train; name data with --fit-dataset, or give"
    ):
        opened.retriever(
            AskedData([], "wechat", "val", None, False), AnswerConfig(), say=print, progress=None
        )


def test_convert_says_which_prompts_stay(tmp_path):
    from ffr.data.forms.formats import write_examples
    from ffr.dialogue import Dialogue, Example, Fragment, Utterance

    chat = Dialogue("d", (Utterance("a", ("hi",)),))
    write_examples(tmp_path / "in.jsonl", [Example(chat, "greeting", Fragment((0,)))])
    words = ["data", "convert", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--to", "ms-swift"]
    code, text = say(*words, "--template", "en", "--query-position", "last")
    assert code == 0
    assert (
        "1 of 1 examples have prompts of their own, which --template and --query-position leave as they are"
        in text
    )
    assert "prompts of their own" not in say(*words, "--force")[1]


def test_faults_alike_are_counted_and_all_are_listed_where_asked(tmp_path):
    raw = {"dialogue": [{"speaker": "a", "utterance": [{"image_url": "x"}]}], "query_text": "q"}
    lines = []
    for number in range(9):
        raw["dialogue"][0]["utterance"][0]["image_url"] = f"img/{number}.png"
        lines.append(json.dumps({**raw, "dialogue_id": f"d{number}", "gt_turns": [0]}))
    lines[4] = "{"
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines) + "\n")
    code, text = say("data", "check", path)
    assert code == 1
    assert text.count("not found; correct its path") == 5
    assert "… and 3 more like x.jsonl:6, the last at x.jsonl:9; --all lists them" in text
    assert "x.jsonl:5: not JSON" in text
    code, text = say("data", "check", path, "--all")
    assert (code, text.count("not found; correct its path"), "more like" in text) == (1, 8, False)
    # one more is shown rather than counted
    path.write_text("\n".join(lines[:7]) + "\n")
    assert say("data", "check", path)[1].count("not found; correct its path") == 6


def test_answers_that_are_all_malformed_are_shown(tmp_path, monkeypatch):
    from ffr.data.forms.formats import write_examples
    from ffr.dialogue import Dialogue, Example, Fragment, Utterance

    monkeypatch.chdir(tmp_path)
    chat = Dialogue("d", (Utterance("a", ("hi",)), Utterance("b", ("bye",))))
    data = [Example(chat, "greeting", Fragment((0,))), Example(chat, "end", Fragment((1,)))]
    write_examples(tmp_path / "d.jsonl", data)
    right = "<|utt_ids_start|>[1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    for second, is_said in (("line\n1", True), (right, False)):
        lines = [
            {"dialogue_id": "d", "query": "greeting", "response": "The first\nline."},
            {"dialogue_id": "d", "query": "end", "response": second},
        ]
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        out = tmp_path / str(is_said)
        code, text = say("eval", "--predictions", "p.jsonl", "--dataset", "d.jsonl", "--out", out)
        assert code == 0, text
        assert ("Not one answer is in the answer format; the first: 'The first" in text) is is_said
        assert ("--constrained" in text) is is_said


def test_only_the_first_process_says_how_a_training_ended(tmp_path, monkeypatch):
    from ffr.cli import train as command
    from ffr.settings import SftConfig
    from ffr.training.common import stage
    from ffr.training.common.run import TrainResult

    said = []
    monkeypatch.setattr(command, "say", said.append)
    for status, code in (("finished", None), ("interrupted", 130)):
        monkeypatch.setattr(stage, "train", lambda *_, s=status: TrainResult(tmp_path, s, {}))
        for rank, is_said in (("0", True), ("1", False)):
            said.clear()
            monkeypatch.setenv("LOCAL_RANK", rank)
            try:
                found = command._start(SftConfig(), dry_run=False)
            except click.exceptions.Exit as ending:
                found = ending.exit_code
            assert (found, bool(said)) == (code, is_said)


def test_a_device_of_another_name_is_told():
    from ffr.errors import UsageError
    from ffr.retrieval.opening import usable_device

    with pytest.raises(UsageError, match="--device gpu cannot be used here; did you mean cuda"):
        usable_device("gpu")


def test_what_loads_a_model_draws_no_bars_into_a_log():
    from transformers.utils import logging

    from ffr.model_files import loading_explained

    logging.enable_progress_bar()
    with loading_explained("x", kind="a model"):
        assert not logging.is_progress_bar_enabled()


def test_a_long_path_keeps_the_name_of_its_file(tmp_path):
    with pytest.raises(DataError, match=r'^image "/.*….*/the-cat\.png" not found'):
        find_image("/" + "a-long-way/" * 20 + "the-cat.png")
