"""The model cards of a run: their snippets run as they stand, and say what ffr itself would."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import yaml
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.models.loading import load_vlm
from ffr.retrieval.vlm import VlmRetriever
from ffr.runs import ModelSource
from ffr.settings import SftConfig
from ffr.shipped.tiny import TINY_FOLDER
from ffr.training.common.card import CardFacts, adapter_card, merged_card
from ffr.training.common.stage import Job, train
from ffr.training.sft.stage import SftStage

FACTS = CardFacts(
    name="sft-x_y-001",
    config=SftConfig(max_new_tokens=12),
    source=ModelSource("Owner/Model", "Owner/Model"),
    recipe="/somewhere/own.yaml",
    num_examples=7,
    data_fingerprint="f" * 64,
    architecture="smolvlm",
    prompt_settings={},
    figures={},
    versions={"ffr-vlm": "0.1"},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sample_home: Path) -> Path:
    """A run of one step."""
    config = SftConfig(
        max_steps=1, batch_size=1, accumulate=1, num_threads=1, val_examples=2, max_new_tokens=40
    )
    folder = tmp_path_factory.mktemp("runs") / "mine"
    return train(SftStage(), config, Job(run=folder, say=str, progress=False)).run


def snippet(card: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(found)


def printed(code: str, folder: Path) -> str:
    """What the code prints, run in a fresh process within the folder."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_snippet_of_a_merged_model_answers_as_ffr_does(run: Path, tmp_path: Path) -> None:
    card = (run / "merged" / "README.md").read_text(encoding="utf-8")
    answer = printed(snippet(card), run / "merged")
    PIL.Image.new("RGB", (112, 112), "orange").save(tmp_path / "cat.png")
    lines = ("今天去哪里吃饭?", "去河边的面馆吧.")
    chat = Dialogue(
        "d",
        (
            Utterance("user1", (lines[0],)),
            Utterance("user2", (lines[1],)),
            Utterance("user1", ("你看, 我的猫.", Image("cat.png"))),
        ),
    )
    retriever = VlmRetriever(load_vlm(run / "merged"), name="x", max_new_tokens=40)
    (expected,) = retriever.answer([Example(chat, "吃饭", None, image_root=tmp_path)])
    assert answer.removesuffix("\n").removesuffix("<|im_end|>") == expected.response
    assert expected.response.startswith("<|utt_ids_start|>[")


@pytest.mark.slow
def test_the_snippet_of_an_adapter_gives_the_merged_weights(run: Path) -> None:
    import torch
    from safetensors.torch import load_file

    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    code = snippet(card).replace('"BASE"', repr(str(TINY_FOLDER)))
    assert "# for BASE the folder of tiny" in code
    printed(code + '\nmodel.save_pretrained("../again")\n', run / "adapter")
    again, merged = (load_file(run / part / "model.safetensors") for part in ("again", "merged"))
    assert again.keys() == merged.keys()
    assert all(torch.equal(again[name], merged[name]) for name in merged)


def test_a_card_says_what_the_run_was_and_no_place_of_this_machine(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for part in ("merged", "adapter"):
        card = (run / part / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(card.split("---")[1])
        assert front["pipeline_tag"] == "image-text-to-text"
        assert "base_model" not in front
        assert str(run.parent) not in card
        assert str(TINY_FOLDER) not in card
        assert "Model Card for Model ID" not in card
        assert f"fingerprint {record['data_fingerprint'][:16]}" in card
        assert re.search(
            r"\| validation \| F1 \d\.\d{3} \(utterances\), \d\.\d{3} \(pictures\)", card
        )
        assert "template zh, query\\_position last" in card
        assert "ffr-vlm" in card.split("made with")[1]


@pytest.mark.slow
@pytest.mark.parametrize("template", ["en", "zh"])
def test_a_model_without_grids_has_a_snippet_of_texts(
    template: str, model_folder: Callable[[str], Path]
) -> None:
    facts = dataclasses.replace(FACTS, prompt_settings={"template": template})
    card = merged_card(facts)
    code = snippet(card)
    assert "<image>" not in code
    assert "at the marks `<image>`" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "Owner/Model"
    assert "own.yaml" in card
    assert "/somewhere" not in card
    assert "| validation | none |" in card
    if template == "en":
        printed(code, model_folder("smolvlm"))


def test_an_adapter_for_the_hub_names_its_base() -> None:
    code = snippet(adapter_card(FACTS))
    assert 'from_pretrained("Owner/Model")\n' in code
    run = ModelSource("runs/sft-a-001/merged", "sft-a-001", Path("runs/sft-a-001"))
    code = snippet(adapter_card(dataclasses.replace(FACTS, source=run)))
    assert "# for BASE the merged/ of sft-a-001" in code


def test_tensorboard_knows_the_settings(run: Path) -> None:
    found = yaml.safe_load((run / "tensorboard" / "hparams.yaml").read_text(encoding="utf-8"))
    assert found == yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert found["max_steps"] == 1


def test_a_finished_run_is_not_prolonged_but_trained_further(run: Path) -> None:
    words = ["train", "sft", "--resume", str(run), "--max-steps", "8"]
    done = CliRunner().invoke(ffr, words)
    assert done.exit_code == 2
    assert f"is trained further by a run that starts from it: --model {run}" in done.output
