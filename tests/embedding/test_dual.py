"""Dual encoders against plain calls of transformers, and folders that are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_builds import CONTEXT
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from ffr.embedding import DualEncoder, load_encoder
from ffr.embedding.dual import BATCH_SIZE
from ffr.errors import DataError, ModelError, UsageError

TEXTS = ["a cat", "", "一只猫在垫子上", "x"]


@pytest.mark.parametrize("kind", CONTEXT)
def test_vectors_are_those_of_plain_transformers(
    kind: str, encoder_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    folder = encoder_folder(kind)
    encoder = load_encoder(folder)
    model, tokens = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    texts, images = (
        encoder.embed_texts(TEXTS),
        encoder.embed_images([str(path) for path in pictures]),
    )
    for row, text in enumerate(TEXTS):
        # as the models' own pages call them: SigLIP on full rows of padding
        full = (
            {"padding": "max_length", "max_length": CONTEXT[kind]}
            if kind.startswith("siglip")
            else {}
        )
        inputs = tokens([text], truncation=True, return_tensors="pt", **full)
        if full:
            inputs = {"input_ids": inputs["input_ids"]}
        with torch.no_grad():
            expected = model.get_text_features(**inputs).pooler_output[0]
        torch.testing.assert_close(texts[row], expected / expected.norm(), atol=1e-5, rtol=0)
    for row, path in enumerate(pictures):
        with torch.no_grad():
            expected = model.get_image_features(
                **processor(images=Image.open(path), return_tensors="pt")
            ).pooler_output[0]
        torch.testing.assert_close(images[row], expected / expected.norm(), atol=1e-5, rtol=0)
    assert texts.dtype == images.dtype == torch.float32
    torch.testing.assert_close(
        torch.cat((texts, images)).norm(dim=-1), torch.ones(len(TEXTS) + len(pictures))
    )
    # and different things have different vectors
    assert (torch.cat((texts, images)) @ torch.cat((texts, images)).T).fill_diagonal_(
        -1
    ).max() < 0.9999


@pytest.mark.parametrize("kind", CONTEXT)
def test_long_texts_are_cut_to_the_context(
    kind: str, encoder_folder: Callable[[str], Path]
) -> None:
    encoder = load_encoder(encoder_folder(kind))
    assert encoder.max_text_tokens == CONTEXT[kind]
    room = CONTEXT[kind] - 2  # start and end
    long, other_tail, at_the_edge = (
        ("ab" * 5000)[: room + 5000],
        "ab" * (room // 2) + "zz",
        "ab" * (room // 2 - 1) + "zz",
    )
    one, two, three = encoder.embed_texts([long, other_tail, at_the_edge])
    torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    assert float(one @ three) < 0.9999


def test_batches_do_not_matter(encoder_folder: Callable[[str], Path], pictures: list[Path]) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    texts = [f"text {number}" * (number % 3 + 1) for number in range(2 * BATCH_SIZE + 3)]
    together = encoder.embed_texts(texts)
    alone = torch.cat([encoder.embed_texts([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    many = encoder.embed_images([pictures[number % 3] for number in range(BATCH_SIZE + 1)])
    torch.testing.assert_close(
        many[BATCH_SIZE], encoder.embed_images([pictures[BATCH_SIZE % 3]])[0], atol=1e-6, rtol=0
    )
    assert encoder.embed_texts([]).shape == encoder.embed_images([]).shape == (0, 16)


def test_text_that_is_no_unicode_is_taken(encoder_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    torch.testing.assert_close(encoder.embed_texts(["a\ud800"]), encoder.embed_texts(["a?"]))


def test_pictures_that_cannot_be_taken(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    Image.new("RGB", (5000, 1)).save(tmp_path / "strip.png")
    for name, message in (
        ("torn.png", "torn.png"),
        ("none.png", "not found"),
        ("strip.png", "5000×1 pixels"),
    ):
        with pytest.raises(DataError, match=message):
            encoder.embed_images([tmp_path / name])


def test_the_fingerprint_names_what_decides_vectors(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = encoder_folder("clip")
    first = load_encoder(folder).fingerprint
    used = load_encoder(folder)
    used.embed_texts(["a", "bcd"])  # a fast tokenizer notes how it was called last
    assert used.fingerprint == first
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert load_encoder(copied).fingerprint == first
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(
        json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]})
    )
    changed = load_encoder(copied).fingerprint
    assert changed != first
    weights = load_file(copied / "model.safetensors")
    weights["logit_scale"] = weights["logit_scale"] + 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(copied).fingerprint not in (first, changed)


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _with_another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("config.json"), "holds no config.json"),
        (_drop("model.safetensors"), "holds no weights"),
        (_drop("preprocessor_config.json"), "cannot be loaded as a text–image encoder"),
        (_drop("tokenizer.json", "tokenizer_config.json"), "tokenizer|cannot be loaded"),
        (_only_a_pickle, "pytorch_model.bin, which can run code"),
        (_without_a_weight, "lacks 1 weight, such as text_projection.weight"),
        (_with_another_shape, "other shapes than its config.json says"),
        (_write("model.safetensors", b"\xff" * 64), "weights are damaged"),
        (_write("config.json", b"[1"), "cannot be loaded"),
        (
            _write("config.json", b'{"model_type": "gpt2"}'),
            "is a gpt2 model; name one of the kinds clip, siglip",
        ),
        (_edit("config.json", model_type="no-such-kind"), "cannot be loaded"),
        (_edit("config.json", text_config=7), "cannot be loaded"),
        (_write("tokenizer.json", b"{}"), "cannot be loaded"),
        (
            _write("preprocessor_config.json", b'{"image_processor_type": "os.system"}'),
            "cannot be loaded",
        ),
        (
            _edit("config.json", auto_map={"AutoConfig": "evil.Config"}, model_type="evil"),
            "comes with code of its own",
        ),
    ],
)
def test_folders_that_are_no_encoder(
    change: Callable[[Path], None],
    message: str,
    encoder_folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(encoder_folder("clip"), tmp_path / "encoder"))
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_names_that_are_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for name in (tmp_path / "file", tmp_path / "nothing", "a/b/c", "../x"):
        with pytest.raises(ModelError, match="no folder and no hub id"):
            load_encoder(name)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="finds no GPU"):
            load_encoder(tmp_path, device="cuda")


def test_a_tokenizer_of_another_model_is_refused(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder_folder("clip"), tmp_path / "encoder"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="ids that the model does not know"):
        load_encoder(folder).embed_texts(["a"])


def test_broken_weights_give_no_vectors(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder_folder("clip"), tmp_path / "encoder"))
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"its weight text_projection\.weight holds NaN or infinite numbers"
    ):
        load_encoder(folder)


def test_loaded_encoders_stand_still(encoder_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(encoder_folder("clip"))
    assert isinstance(encoder, DualEncoder)
    assert not encoder.embed_texts(["a"]).requires_grad
