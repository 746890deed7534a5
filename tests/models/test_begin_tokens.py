"""Models whose tokenizer puts a begin token before every text: prompts have the ids of the model's own processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BEGUN_BUILDS
from vlm_reference import ANSWERS

from ffr.dialogue import FilePrompt
from ffr.images import open_image
from ffr.models.decoding.greedy import generate_answers
from ffr.models.loading import load_vlm
from ffr.models.vlm import Vlm
from ffr.prompt import IMAGE_MARK

Ask = Callable[..., tuple[FilePrompt, list[Path]]]


def own_inputs(vlm: Vlm, prompt: FilePrompt, images: list[Path]) -> dict[str, torch.Tensor]:
    """What the processor makes of the prompt by itself, `apply_chat_template` with its pictures."""
    content: list[dict[str, object]] = []
    for number, text in enumerate(prompt.user.split(IMAGE_MARK)):
        if number:
            content.append({"type": "image", "image": open_image(images[number - 1])})
        content.append({"type": "text", "text": text})
    messages = [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": content},
    ]
    inputs = vlm.processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return dict(inputs)


@pytest.mark.parametrize("name", BEGUN_BUILDS)
@pytest.mark.parametrize("chosen", [(), (0,), (1, 2, 0)])
def test_ids_are_those_of_the_models_own_processor(
    model_folder: Callable[[str], Path], ask: Ask, name: str, chosen: tuple[int, ...]
) -> None:
    vlm = load_vlm(model_folder(name))
    prompt, images = ask(*chosen)
    found = vlm.encode(prompt, images).input_ids
    assert found == own_inputs(vlm, prompt, images)["input_ids"][0].tolist()
    begin = vlm.tokenizer.bos_token_id
    assert found[0] == begin
    assert found.count(begin) == 1
    # the answer is tokenised by itself, without one
    row = vlm.encode(prompt, images, answer=ANSWERS[0])
    assert row.input_ids[: len(found)] == found
    assert begin not in row.input_ids[len(found) :]


@pytest.mark.parametrize("name", BEGUN_BUILDS)
@pytest.mark.parametrize("chosen", [(), (2, 0)])
def test_states_are_those_of_plain_transformers(
    model_folder: Callable[[str], Path], ask: Ask, name: str, chosen: tuple[int, ...]
) -> None:
    """float32, of every token (Gemma 3's of a picture see one another): to 2e-5 of the largest."""
    vlm = load_vlm(model_folder(name))
    prompt, images = ask(*chosen)
    inputs = own_inputs(vlm, prompt, images)
    for unused in ("rows", "cols", "num_crops"):
        inputs.pop(unused, None)
    rows = [vlm.encode(prompt, images), vlm.encode(prompt, images, answer=ANSWERS[0])]
    batch = vlm.collate(rows, padding_side="right")
    with torch.no_grad():
        expected = vlm.core(**inputs).last_hidden_state[0]
        found = vlm.core(**batch.inputs).last_hidden_state[:, : rows[0].num_tokens]
    for states in found:
        torch.testing.assert_close(
            states, expected, rtol=0, atol=2e-5 * float(expected.abs().max())
        )


@pytest.mark.parametrize("name", BEGUN_BUILDS)
def test_answers_are_those_of_generate(
    model_folder: Callable[[str], Path], ask: Ask, name: str
) -> None:
    vlm = load_vlm(model_folder(name))
    prompt, images = ask(2, 0)
    inputs = own_inputs(vlm, prompt, images)
    for unused in ("rows", "cols", "num_crops"):
        inputs.pop(unused, None)
    vlm.base.generation_config.eos_token_id = vlm.stop_ids
    expected = vlm.base.generate(**inputs, max_new_tokens=8, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ]
    [answer] = generate_answers(vlm, [vlm.encode(prompt, images)], max_new_tokens=8)
    assert list(answer.token_ids) == expected.tolist()
