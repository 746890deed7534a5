"""Every architecture against plain transformers fed with pixels: ids, loss, gradients, padding, cache, saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoTokenizer
from vlm_reference import ANSWERS, answer_loss, reference_inputs, with_lora

from ffr.dialogue import FilePrompt
from ffr.models.features import ImageFeatureCache
from ffr.models.loading import load_vlm
from ffr.models.lora import add_lora, language_model_linears
from ffr.models.saving import save_adapter, save_merged
from ffr.models.vlm import Vlm
from ffr.prompt import IMAGE_MARK

Ask = Callable[..., tuple[FilePrompt, list[Path]]]


def gradients(vlm: Vlm) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in vlm.named_parameters() if p.grad is not None}
    vlm.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(
    mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float
) -> None:
    assert mine.keys() == theirs.keys()
    assert mine
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0, name
        assert (mine[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("chosen", [(), (0,), (1, 2), (3, 0, 1)])
def test_ids_are_those_of_the_models_own_processor(
    folder: Path, ask: Ask, chosen: tuple[int, ...]
) -> None:
    vlm = load_vlm(folder)
    prompt, images = ask(*chosen)
    assert (
        vlm.encode(prompt, images).input_ids
        == reference_inputs(vlm, prompt, images)["input_ids"][0].tolist()
    )


def test_prompt_reaches_the_model_to_the_byte(folder: Path, ask: Ask) -> None:
    vlm = load_vlm(folder)
    prompt, images = ask(1, 0, words="<|utt_ids_start|> \n\n 　全角 'n\u200bt' é e\u0301")
    encoded = vlm.encode(prompt, images, answer=ANSWERS[0])
    end = encoded.num_tokens - encoded.num_answer_tokens
    text = vlm.tokenizer.decode(encoded.input_ids[:end], clean_up_tokenization_spaces=False)
    position = text.index(str(prompt.system)) + len(str(prompt.system))
    for part in prompt.user.split(
        IMAGE_MARK
    ):  # parts in order, nothing but image tokens between them
        found = text.index(part, position)
        assert position == 0 or "<|" in text[position:found] or "<" in text[position:found]
        position = found + len(part)
    answer = vlm.tokenizer.decode(encoded.input_ids[end:], clean_up_tokenization_spaces=False)
    assert answer == ANSWERS[0] + "<|im_end|>"


@pytest.mark.parametrize("chosen", [(), (0,), (1, 2, 0)])
def test_loss_and_lora_gradients_are_those_of_transformers(
    folder: Path, ask: Ask, chosen: tuple[int, ...]
) -> None:
    """float32: loss to 2e-6 relative, each gradient's norm of difference to 1e-4 of its norm."""
    vlm = with_lora(folder)
    prompt, images = ask(*chosen)
    theirs = vlm.model(**reference_inputs(vlm, prompt, images, ANSWERS[0])).loss
    theirs.backward()
    reference = gradients(vlm)
    mine = answer_loss(vlm, [vlm.encode(prompt, images, answer=ANSWERS[0])])
    mine.backward()
    torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=0)
    assert_same_gradients(gradients(vlm), reference, 1e-4)


def test_padded_batch_is_its_rows(folder: Path, ask: Ask) -> None:
    """float32: log-probabilities to 1e-5, gradients to 1e-4."""
    vlm = with_lora(folder)
    rows = [
        vlm.encode(*ask(0, 2, words="long " * 20), answer=ANSWERS[0]),
        vlm.encode(*ask(), answer=ANSWERS[1]),
        vlm.encode(*ask(3), answer=ANSWERS[2]),
    ]
    assert len({row.num_tokens for row in rows}) == 3
    logits, targets, owner = vlm.answer_logits(vlm.collate(rows, padding_side="right"))
    nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    together = gradients(vlm)
    for number, row in enumerate(rows):
        alone, wanted, _ = vlm.answer_logits(vlm.collate([row], padding_side="right"))
        nn.functional.cross_entropy(alone, wanted, reduction="sum").backward()
        assert (
            wanted.tolist()
            == row.input_ids[-row.num_answer_tokens :]
            == targets[owner == number].tolist()
        )
        torch.testing.assert_close(
            logits[owner == number].log_softmax(-1), alone.log_softmax(-1), rtol=0, atol=1e-5
        )
    assert_same_gradients(gradients(vlm), together, 1e-4)


def test_cached_features_give_the_bits_of_pixels(folder: Path, ask: Ask, tmp_path: Path) -> None:
    vlm = with_lora(folder)
    questions = [ask(0, 1), ask(2, 0), ask()]
    pixels = answer_loss(vlm, [vlm.encode(*question, answer=ANSWERS[0]) for question in questions])
    pixels.backward()
    reference = gradients(vlm)
    for _ in range(
        3
    ):  # first fills the cache; the second reads memory; the third, in a fresh cache, the folder
        vlm.tower.cache = ImageFeatureCache(
            memory_bytes=10**8, disk_folder=tmp_path, disk_bytes=10**8
        )
        for _ in range(2):
            rows = [vlm.encode(*question, answer=ANSWERS[0]) for question in questions]
            loss = answer_loss(vlm, rows)
            loss.backward()
            assert torch.equal(loss, pixels)
            assert all(
                torch.equal(gradient, reference[name]) for name, gradient in gradients(vlm).items()
            )
        assert all(
            image.inputs is None for row in rows for image in row.images
        )  # nothing was decoded again


def test_gradient_checkpointing_changes_nothing(folder: Path, ask: Ask) -> None:
    vlm = with_lora(folder)
    row = vlm.encode(*ask(1, 0), answer=ANSWERS[0])
    vlm.train()
    plain = answer_loss(vlm, [row])
    plain.backward()
    reference = gradients(vlm)
    vlm.enable_gradient_checkpointing()
    loss = answer_loss(vlm, [row])
    loss.backward()
    assert torch.equal(loss, plain)
    assert_same_gradients(gradients(vlm), reference, 1e-6)


def test_bfloat16_autocast_is_near_float32(folder: Path, ask: Ask) -> None:
    vlm = with_lora(folder)
    row = vlm.encode(*ask(1, 0), answer=ANSWERS[0])
    exact = answer_loss(vlm, [row])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = answer_loss(vlm, [row])
    loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(vlm).values())
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)


def test_loads_in_bfloat16(folder: Path, ask: Ask) -> None:
    vlm = load_vlm(folder, dtype="bfloat16")
    add_lora(vlm)
    loss = answer_loss(vlm, [vlm.encode(*ask(1, 0), answer=ANSWERS[0])])
    loss.backward()
    exact = answer_loss(load_vlm(folder), [vlm.encode(*ask(1, 0), answer=ANSWERS[0])])
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)


def test_lora_is_on_every_linear_of_the_language_model_and_nowhere_else(folder: Path) -> None:
    vlm = load_vlm(folder)
    names = language_model_linears(vlm)
    kinds = {name.rpartition(".")[2] for name in names}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(names) == 2 * len(kinds)
    add_lora(vlm)
    trained = [name for name, p in vlm.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * len(names)
    assert all(
        "lora_" in name and "vis" not in name and "project" not in name and "merger" not in name
        for name in trained
    )


def test_merged_folder_loads_in_plain_transformers(folder: Path, ask: Ask, tmp_path: Path) -> None:
    """float32: logits of the merged model to 2e-5 of those with the adapter beside the weights."""
    vlm = with_lora(folder)
    prompt, images = ask(0, 2)
    row = vlm.encode(prompt, images, answer=ANSWERS[0])
    with torch.no_grad():
        expected = vlm.answer_logits(vlm.collate([row], padding_side="right"))[0]
        save_merged(
            vlm, tmp_path / "merged", prompt_settings={"template": "zh", "query_position": "last"}
        )
    assert not list(tmp_path.glob("merged/*.bin"))
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "merged").get_vocab() == vlm.tokenizer.get_vocab()
    )
    inputs = reference_inputs(vlm, prompt, images, ANSWERS[0])
    labels = inputs.pop("labels")
    with torch.no_grad():
        found = plain(**inputs).logits[:, :-1][labels[:, 1:] != -100]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    again = load_vlm(tmp_path / "merged")
    assert again.prompt_settings == {"template": "zh", "query_position": "last"}
    assert again.encode(prompt, images, answer=ANSWERS[0]).input_ids == row.input_ids
    with torch.no_grad():
        mine = again.answer_logits(again.collate([row], padding_side="right"))[0]
    torch.testing.assert_close(mine, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_saving_leaves_training_as_it_was(folder: Path, ask: Ask, tmp_path: Path) -> None:
    vlm = with_lora(folder)
    before = {name: value.clone() for name, value in vlm.state_dict().items()}
    save_merged(vlm, tmp_path / "merged")
    save_adapter(vlm, tmp_path / "adapter")
    after = vlm.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    row = vlm.encode(*ask(1), answer=ANSWERS[1])
    vlm.eval()
    loaded = load_vlm(folder, adapter=tmp_path / "adapter")
    assert torch.equal(answer_loss(loaded, [row]), answer_loss(vlm, [row]))
