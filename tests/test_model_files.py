"""Model folders from others: what is missing or damaged is one sentence, and what may be none of theirs is not hidden."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from ffr.errors import DataError, ModelError
from ffr.files import CHECKSUMS_FILE
from ffr.model_files import (
    check_model_folder,
    check_weights_finite,
    loading_explained,
    read_config,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "model"
    found.mkdir()
    (found / "config.json").write_text('{"model_type": "x"}', encoding="utf-8")
    (found / "model.safetensors").write_bytes(b"weights")
    return found


# -- what must lie in one -----------------------------------------------------------------------------------------------------


def test_a_whole_folder_and_a_hub_id_pass(folder: Path) -> None:
    check_model_folder(str(folder))
    for name in ("owner/name", "gpt2", "a-b.c/d_e.1"):
        check_model_folder(name)


@pytest.mark.parametrize(
    "name", ["./nowhere", "a/b/c", "/abs/olute", "own er/name", "x" * 97, "../x"]
)
def test_what_is_neither_folder_nor_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match="is no folder and no hub id"):
        check_model_folder(name)


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="is no folder and no hub id"):
        check_model_folder(str(folder / "config.json"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights; convert the weights to safetensors"):
        check_model_folder(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        ModelError, match=r"holds only pytorch_model\.bin, which can run code when it is opened"
    ):
        check_model_folder(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        check_model_folder(str(folder))


def test_weights_that_are_not_those_that_were_written(folder: Path) -> None:
    import hashlib

    digest = hashlib.sha256(b"weights").hexdigest()
    (folder / CHECKSUMS_FILE).write_text(f"{digest}  model.safetensors\n", encoding="utf-8")
    check_model_folder(str(folder))
    (folder / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(ModelError, match=r"its model\.safetensors is not what was written"):
        check_model_folder(str(folder))


def test_a_configuration_is_an_object(folder: Path) -> None:
    path = folder / "config.json"
    assert read_config(str(folder)) == {"model_type": "x"}
    for text in ("[]", "5", '"x"', "null"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=r"config\.json: is no JSON object; restore it"):
            read_config(str(folder))
    for content in (b"", b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"config\.json: cannot be read \(.+\); restore it"):
            read_config(str(folder))
    path.unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        read_config(str(folder))


# -- weights ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named(value: float) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    check_weights_finite(model, "m")
    with torch.no_grad():
        model[1].weight[1, 0] = value
    with pytest.raises(
        ModelError, match=re.escape("m: its weight 1.weight holds NaN or infinite numbers")
    ):
        check_weights_finite(model, "m")


def test_large_weights_whose_sum_overflows_are_sound() -> None:
    model = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(torch.finfo(torch.float32).max)
    assert not model.weight.sum().isfinite()
    check_weights_finite(model, "m")


# -- what the libraries say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("a\nb"), "m: cannot be loaded as a model (a b); name the folder of a whole model"),
        (Exception("odd"), "m: cannot be loaded as a model (odd)"),
        (KeyError("x"), "m: cannot be loaded as a model ('x')"),
        (
            RuntimeError("… set ignore_mismatched_sizes=True"),
            "m: its weights have other shapes than its config.json says; fetch both again",
        ),
        (
            ValueError("The repository x contains custom code which must be …"),
            "m: comes with code of its own; set trust_remote_code if you trust it",
        ),
        (
            OSError("We couldn't connect to the hub"),
            "m: is not on this machine and the hub cannot be reached",
        ),
    ],
)  # fmt: skip
def test_what_bad_files_make_the_libraries_say(error: Exception, sentence: str) -> None:
    with pytest.raises(ModelError) as caught, loading_explained("m", kind="a model"):
        raise error
    assert str(caught.value).startswith(sentence)


def test_damaged_weights_are_told_from_other_faults() -> None:
    from safetensors import SafetensorError

    with (
        pytest.raises(ModelError, match=r"m: its weights are damaged \(torn\); fetch them again"),
        loading_explained("m", kind="a model"),
    ):
        raise SafetensorError("torn")


@pytest.mark.parametrize(
    "error", [DataError("ours"), MemoryError(), KeyboardInterrupt(), StopIteration()]
)
def test_what_is_no_fault_of_a_file_goes_on_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, loading_explained("m", kind="a model"):
        raise error
    assert caught.value is error


def test_a_configuration_with_surrogates_is_read(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"a": "\ud83d"}), encoding="utf-8")
    assert read_config(str(folder)) == {"a": "\ud83d"}
