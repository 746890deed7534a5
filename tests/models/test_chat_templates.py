"""Chat templates of other kinds: what they do to images, to the answer's turn, and to a prompt without a system part."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from vlm_reference import ANSWERS

from ffr.dialogue import FilePrompt
from ffr.models.loading import load_vlm
from ffr.prompt import IMAGE_MARK
from ffr.shipped.tiny import TINY_FOLDER

Ask = Callable[..., tuple[FilePrompt, list[Path]]]

IMAGES_FIRST = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + ' ' }}"
    "{% for part in m['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in m['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As LLaVA-OneVision's: all images first, a line break before each text, another opening for a written answer."""

BLANK_BEFORE_TEXT = (
    "{% for m in messages %}{{ m['role'] | capitalize }}{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""As SmolVLM's: a blank between role and text, and an end of turn that is not the tokenizer's end token."""


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def test_images_stay_where_they_are_said(
    model_folder: Callable[[str], Path], ask: Ask, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder("llava-onevision"), tmp_path / "model"))
    vlm = load_vlm(with_template(folder, IMAGES_FIRST))
    prompt, images = ask(0, 1)
    ids = vlm.encode(prompt, images).input_ids
    text = vlm.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    while "<image><image>" in text:
        text = text.replace("<image><image>", "<image>")
    assert f"\n{prompt.user}<|im_end|>" in text
    assert prompt.user.count(IMAGE_MARK) == 2


@pytest.mark.parametrize(
    ("name", "template", "end"),
    [
        ("llava-onevision", IMAGES_FIRST, "<|im_end|>"),
        ("smolvlm", BLANK_BEFORE_TEXT, "<end_of_utterance>"),
    ],
)
def test_end_of_turn_is_the_templates(
    model_folder: Callable[[str], Path],
    ask: Ask,
    tmp_path: Path,
    name: str,
    template: str,
    end: str,
) -> None:
    vlm = load_vlm(
        with_template(Path(shutil.copytree(model_folder(name), tmp_path / "model")), template)
    )
    assert vlm.tokenizer.convert_ids_to_tokens(vlm.end_of_turn_id) == end
    assert vlm.end_of_turn_id in vlm.stop_ids
    row = vlm.encode(*ask(1), answer=ANSWERS[0])
    answer = row.input_ids[-row.num_answer_tokens :]
    assert vlm.tokenizer.decode(answer, clean_up_tokenization_spaces=False) == ANSWERS[0] + end


def test_prompt_without_a_system_part(folder: Path, ask: Ask) -> None:
    vlm = load_vlm(folder)
    prompt, images = ask(0)
    with_system = vlm.tokenizer.decode(vlm.encode(prompt, images).input_ids)
    without = vlm.tokenizer.decode(
        vlm.encode(FilePrompt(user=prompt.user, system=None), images).input_ids
    )
    assert with_system == f"<|im_start|>system\n{prompt.system}<|im_end|>\n{without}"


@pytest.mark.skipif(
    not (TINY_FOLDER / "config.json").is_file(), reason="the embedded model is not built yet"
)
def test_tiny_loads_with_tied_embeddings(ask: Ask) -> None:
    vlm = load_vlm("tiny")
    assert vlm.base.get_output_embeddings().weight is vlm.base.get_input_embeddings().weight
    row = vlm.encode(*ask(0), answer=ANSWERS[0])
    assert row.num_answer_tokens == vlm.count_answer_tokens(ANSWERS[0])
