"""Exported folders: what is in them, that they equal torch, and that a wrong one never appears."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from model_builds import BUILDS, random_picture

from ffr.cli.export import export
from ffr.dialogue import FilePrompt
from ffr.embedding import load_dual_encoder
from ffr.errors import DataError, ModelError, UsageError
from ffr.exports import onnx as exporting
from ffr.exports.encoder import load_onnx_encoder
from ffr.exports.graph_file import read_graph_file
from ffr.exports.onnx import DEFAULT_OPSET, OPSETS, export_onnx, export_plan
from ffr.exports.plans import plan_encoder, plan_vision
from ffr.exports.runtime import load_onnx
from ffr.models.loading import load_vlm


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "qwen2.5-vl" else pytest.mark.slow)
        for name in sorted(BUILDS)
    ],
)
def test_towers(name: str, built: Callable[[str], Path], tmp_path: Path) -> None:
    content = export_onnx(built(name), "vision", tmp_path / "out")
    assert max(item["max_difference"] for item in content["parity"]) < 1e-4
    assert content["providers_tried"] == ["CPUExecutionProvider"]
    model = load_onnx(tmp_path / "out", device="cpu", num_threads=1)
    vlm = load_vlm(built(name))
    path = random_picture(tmp_path / "a.png", 171, 60)
    image = vlm.encode(FilePrompt("<image>"), [path]).images[0]
    (found,) = model.image_features(image.inputs or {})
    features = vlm.tower.features(image)
    assert np.allclose(
        found["pooled"], features.pooled, atol=1e-4 * float(features.pooled.abs().max())
    )
    assert [name for name in found if name != "pooled"] == [
        f"deepstack.{n}" for n in range(len(features.deepstack))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [opset for opset in OPSETS if opset != DEFAULT_OPSET])
@pytest.mark.parametrize(
    ("name", "part"), [("clip", "text"), ("clip", "fragment"), ("qwen2-vl", "vision")]
)
def test_every_opset_that_is_offered(
    name: str, part: Any, opset: int, built: Callable[[str], Path], tmp_path: Path
) -> None:
    content = export_onnx(built(name), part, tmp_path / "out", opset=opset)
    assert max(item["max_difference"] for item in content["parity"]) < 1e-4
    assert read_graph_file(tmp_path / "out" / "model.onnx").opsets[""] == opset
    assert load_onnx(tmp_path / "out", device="cpu").info.opset == opset


def test_several_images_of_a_processor_call_are_taken_one_by_one(
    built: Callable[[str], Path], tmp_path: Path
) -> None:
    vlm = load_vlm(built("qwen2-vl"))
    export_plan(plan_vision(vlm), tmp_path / "out")
    model = load_onnx(tmp_path / "out", device="cpu")
    paths = [random_picture(tmp_path / f"{n}.png", 60 + 40 * n, 90, n) for n in range(3)]
    images = vlm.encode(FilePrompt("<image>" * 3), paths).images
    joined = {
        key: torch.cat([(image.inputs or {})[key] for image in images])
        for key in ("pixel_values", "image_grid_thw")
    }
    found = model.image_features(joined)
    assert len({item["pooled"].shape for item in found}) == 3
    with pytest.raises(ModelError, match="patches for grids of"):
        model.image_features({**joined, "pixel_values": joined["pixel_values"][:-4]})
    for image, item in zip(images, found, strict=True):
        assert np.allclose(item["pooled"], vlm.tower.features(image).pooled, atol=1e-4)


def test_what_lies_in_the_folder(text_export: Path) -> None:
    content = json.loads((text_export / "export.json").read_text(encoding="utf-8"))
    assert content["opset"] == 20
    assert content["inputs"] == {"input_ids": {"dtype": "int64", "shape": ["texts", "length"]}}
    assert {"model.onnx", "config.json", "tokenizer.json", "preprocessor_config.json"} <= set(
        content["files"]
    )
    assert content["versions"]["onnxscript"]
    assert len(content["parity"]) == 6
    assert "embed(texts=" in (text_export / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in text_export.parent.iterdir()] == ["text"]


def test_the_encoder_of_an_export_equals_torch(
    text_export: Path, built: Callable[[str], Path], tmp_path: Path
) -> None:
    encoder = load_onnx_encoder(text_export.parent, device="cpu")
    texts = [f"{'a dog ' * (number % 5)}{number}" for number in range(40)]
    assert torch.allclose(
        encoder.embed_texts(texts), load_dual_encoder(built("clip")).embed_texts(texts), atol=1e-5
    )
    assert len(encoder.fingerprint) == 64
    assert not encoder.takes_images
    with pytest.raises(UsageError, match="the image part was not exported"):
        encoder.embed_images([random_picture(tmp_path / "a.png", 40, 40)])


def test_fragments_equal_torch_whatever_kinds_they_have(
    fragment_export: Path, built: Callable[[str], Path], tmp_path: Path
) -> None:
    content = json.loads((fragment_export / "export.json").read_text(encoding="utf-8"))
    assert max(item["max_difference"] for item in content["parity"]) < 1e-5
    assert content["inputs"]["input_ids"]["shape"] == ["texts", "length"]
    assert content["inputs"]["pixel_values"]["shape"] == ["images", 3, 32, 32]
    assert sum(item["num_calls"] for item in content["parity"]) == 9
    torch_encoder = load_dual_encoder(built("clip"))
    encoder = load_onnx_encoder(fragment_export, device="cpu")
    pictures = [random_picture(tmp_path / f"{n}.png", 40 + 20 * n, 60, n) for n in range(3)]
    fragments = [
        ["a dog", pictures[0], "and more about it", pictures[1]],
        ["red"],
        [pictures[2]],
        ["twice", "twice", *pictures],
    ]
    found = encoder.embed_fragments(fragments)
    assert torch.allclose(found, torch_encoder.embed_fragments(fragments), atol=1e-5)
    assert not torch.allclose(found[0], found[3], atol=0.01)
    assert encoder.embed_fragments([]).shape == (0, 16)
    with pytest.raises(UsageError, match="fragment 1 has neither text nor picture"):
        encoder.embed_fragments([["a"], []])
    with pytest.raises(UsageError, match="the text part was not exported"):
        encoder.embed_texts(["a"])


def test_the_graph_skips_a_tower_without_rows(fragment_export: Path) -> None:
    """Fused attention and each tower's weights lie inside the condition, so that a kind that is not there costs nothing."""
    import onnx

    graph = onnx.load(str(fragment_export / "model.onnx")).graph
    branches = [
        {attribute.name: attribute.g for attribute in node.attribute}
        for node in graph.node
        if node.op_type == "If"
    ]
    assert len(branches) == 2
    assert len(graph.initializer) == 0
    for branch in branches:
        assert [node.op_type for node in branch["else_branch"].node] == ["Constant"]
        assert sum(node.op_type == "MultiHeadAttention" for node in branch["then_branch"].node) == 2


def test_fragments_of_parts_that_were_exported_apart(
    text_export: Path, image_export: Path, built: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(text_export, tmp_path / "text")
    shutil.copytree(image_export, tmp_path / "image")
    picture = random_picture(tmp_path / "a.png", 40, 60)
    fragments = [["a dog", picture], ["red"]]
    found = load_onnx_encoder(tmp_path, device="cpu").embed_fragments(fragments)
    assert torch.allclose(
        found, load_dual_encoder(built("clip")).embed_fragments(fragments), atol=1e-5
    )


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MAX_INLINE_BYTES", 1_000)
    content = export_onnx(built("clip"), "fragment", tmp_path / "out")
    assert "model.onnx.data" in content["files"]
    assert read_graph_file(tmp_path / "out" / "model.onnx").weight_files == {"model.onnx.data"}
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size > 100_000
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "chinese_clip"])
def test_fragments_of_every_kind(
    kind: str, dtype: Any, built: Callable[[str], Path], tmp_path: Path
) -> None:
    content = export_onnx(built(kind), "fragment", tmp_path / "out", dtype=dtype)
    worst = max(item["max_difference"] for item in content["parity"])
    assert worst < 1e-4 if dtype == "fp32" else worst > 1e-5


def test_bytes_keep_their_tolerance(int8_export: Path) -> None:
    content = json.loads((int8_export / "export.json").read_text(encoding="utf-8"))
    assert content["tolerance"]["min_cosine"] == 0.99
    # not the float32 graph under another name
    assert max(item["max_difference"] for item in content["parity"]) > 1e-5


@pytest.mark.slow
def test_halves_keep_their_tolerance(built: Callable[[str], Path], tmp_path: Path) -> None:
    content = export_onnx(built("clip"), "text", tmp_path / "out", dtype="fp16")
    assert content["tolerance"]["min_cosine"] == 0.999
    assert max(item["max_difference"] for item in content["parity"]) > 1e-5


def test_what_goes_wrong_on_the_way_leaves_nothing(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(plan: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half a graph")
        raise OSError(28, "No space left on device")

    def stopped(plan: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half a graph")
        raise KeyboardInterrupt

    plan = plan_encoder(load_dual_encoder(built("clip")), "text")
    monkeypatch.setattr(exporting, "_trace", full)
    with pytest.raises(
        UsageError,
        match=r"out: cannot be written \(No space left on device\); free space or name another",
    ):
        export_plan(plan, tmp_path / "out")
    monkeypatch.setattr(exporting, "_trace", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_plan(plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_graph_is_not_written_and_what_it_would_replace_stays(
    built: Callable[[str], Path], text_export: Path, tmp_path: Path
) -> None:
    shutil.copytree(text_export, tmp_path / "out")
    before = (tmp_path / "out" / "export.json").read_bytes()
    plan = plan_encoder(load_dual_encoder(built("clip")), "text")
    plan.module.after = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(
        ModelError, match=r"clip: its graph differs from torch by .* nothing was written"
    ):
        export_plan(plan, tmp_path / "out", replace=True)
    assert (tmp_path / "out" / "export.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_whose_tower_is_not_known(built: Callable[[str], Path]) -> None:
    vlm = load_vlm(built("qwen2-vl"))
    vlm.base.config.model_type = "glm4v"
    with pytest.raises(
        ModelError,
        match=r"is a glm4v model, whose vision tower is not exported; those of qwen2_vl, ",
    ):
        plan_vision(vlm)


def test_images_beyond_limits(
    image_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from ffr import images

    encoder = load_onnx_encoder(image_export.parent, device="cpu")
    Image.new("RGB", (3, 303)).save(tmp_path / "strip.png")
    with pytest.raises(
        DataError, match=r"strip.png is a strip of 3×303 pixels, which onnx:.* cannot take; cut it"
    ):
        encoder.embed_images([tmp_path / "strip.png"])
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 1_000)
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"large\.png") as caught:
        encoder.embed_images([tmp_path / "large.png"])
    assert "\n" not in str(caught.value)
    (tmp_path / "torn.png").write_bytes((tmp_path / "large.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"torn\.png"):
        encoder.embed_images([tmp_path / "torn.png"])


@pytest.mark.slow
def test_adapters_are_merged_first(built: Callable[[str], Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    vlm = load_vlm(built("qwen2-vl"))
    adapted = get_peft_model(vlm.model, LoraConfig(r=2, target_modules=r".*visual.*(fc1|fc2)"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    export_onnx(built("qwen2-vl"), "vision", tmp_path / "out", adapter=tmp_path / "adapter")
    path = random_picture(tmp_path / "a.png", 80, 60)
    with_adapter = load_vlm(built("qwen2-vl"), adapter=tmp_path / "adapter")
    image = with_adapter.encode(FilePrompt("<image>"), [path]).images[0]
    (found,) = load_onnx(tmp_path / "out", device="cpu").image_features(image.inputs or {})
    assert np.allclose(found["pooled"], with_adapter.tower.features(image).pooled, atol=1e-4)
    plain = load_vlm(built("qwen2-vl")).tower.features(image).pooled
    assert not np.allclose(found["pooled"], plain, atol=1e-2)


def test_calls_that_cannot_be_done(
    built: Callable[[str], Path], tmp_path: Path, text_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="opset 7 is not written; use 18 to 23"):
        export_onnx(built("clip"), "text", tmp_path / "x", opset=7)
    with pytest.raises(UsageError, match="is there already"):
        export_onnx(built("clip"), "text", text_export)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="is no export, so it is not replaced"):
        export_onnx(built("clip"), "text", tmp_path / "mine", replace=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        export_plan(
            plan_encoder(load_dual_encoder(built("clip")), "text"), tmp_path / "file" / "out"
        )
    with pytest.raises(ModelError, match=r"clip model, which takes no images|cannot be loaded"):
        export_onnx(built("clip"), "vision", tmp_path / "x")
    with pytest.raises(ModelError, match="is a qwen2_vl model; name one of the kinds"):
        export_onnx(built("qwen2-vl"), "image", tmp_path / "x")
    with pytest.raises(UsageError, match="--adapter goes with --part vision"):
        export_onnx(built("clip"), "text", tmp_path / "x", adapter=tmp_path)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ffr-vlm\[onnx\]'"):
        export_onnx(built("clip"), "text", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_command(built: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = [
        "onnx",
        "--model",
        str(built("siglip")),
        "--part",
        "image",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "siglip image, fp32, opset 20; equals torch on" in result.output


@pytest.mark.slow
def test_the_command_on_whole_fragments(tmp_path: Path) -> None:
    arguments = [
        "onnx",
        "--model",
        "tiny-clip",
        "--part",
        "fragment",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "clip fragment, fp32, opset 20; equals torch on 9 calls of 6 kinds" in result.output
    assert (
        json.loads((tmp_path / "out" / "export.json").read_text())["source"]["model"] == "tiny-clip"
    )
    figures = tmp_path / "bench.json"
    arguments = [
        "bench",
        str(tmp_path / "out"),
        "--rounds",
        "2",
        "--batch-size",
        "2",
        "--out",
        str(figures),
    ]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "| 2 | onnx |" in result.output
    rows = json.loads(figures.read_text())["results"][0]["contenders"]
    assert set(rows) == {"onnx", "torch"}
    assert all(row["median_seconds"] > 0 and row["peak_bytes"] > 0 for row in rows.values())
