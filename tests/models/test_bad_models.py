"""Folders that are no whole model: each gives one sentence, never a traceback, never random weights."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from vlm_reference import answer_loss, with_lora

from ffr.dialogue import FilePrompt
from ffr.errors import DataError, FfrError, ModelError, UsageError
from ffr.models.loading import load_vlm
from ffr.models.saving import save_adapter

Change = Callable[[Path], Any]
WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("qwen2-vl"), tmp_path / "model"))


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def cut(name: str, keep: Callable[[int], int]) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: keep(len(content))])

    return change


def edited(name: str, edit: Callable[[dict[str, Any]], Any]) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        edit(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


def reweighed(edit: Callable[[dict[str, torch.Tensor]], Any], name: str = WEIGHTS) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / name)
        edit(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return change


def only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def half_the_shards(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    names = sorted(tensors)
    placed = {name: parts[number % 2] for number, name in enumerate(names)}
    save_file(
        {name: tensors[name] for name in names[::2]}, folder / parts[0], metadata={"format": "pt"}
    )
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf-8")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def own_code(content: dict[str, Any]) -> None:
    content |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForImageTextToText": "code.M"},
    }


BAD_FOLDERS: dict[str, tuple[Change, str]] = {
    "no config": (
        without("config.json"),
        r"holds no config\.json; name the folder of a Hugging Face model",
    ),
    "config is not JSON": (holding("config.json", "{"), "not a valid JSON file"),
    "config is not text": (holding("config.json", b"\xff\xfe\x00"), "not a valid JSON file"),
    "config is a list": (holding("config.json", "[1]"), "Unrecognized model"),
    "unknown kind": (
        edited("config.json", lambda c: c.update(model_type="nosuch")),
        "does not recognize this arch",
    ),
    "text model": (
        holding("config.json", '{"model_type": "llama"}'),
        "is a llama model, which takes no images; name an image-text-to-text model",
    ),
    "no language half": (
        holding("config.json", '{"model_type": "clip"}'),
        "cannot be loaded as an image-text-to-text",
    ),
    "setting of another type": (
        edited("config.json", lambda c: c["text_config"].update(hidden_size="x")),
        "'hidden_size' expected int, got str",
    ),
    "no heads": (
        edited("config.json", lambda c: c["text_config"].update(num_attention_heads=0)),
        "by zero",
    ),
    "other sizes": (
        edited("config.json", lambda c: c["text_config"].update(intermediate_size=64)),
        r"its weights have other shapes than its config\.json says; fetch both again",
    ),
    "no weights": (without(WEIGHTS), "holds no weights"),
    "pickle only": (
        only_pickle,
        r"holds only pytorch_model\.bin, which can run code when it is opened",
    ),
    "weights cut": (
        cut(WEIGHTS, lambda size: size - 1000),
        "its weights are damaged .*; fetch them again",
    ),
    "weights' header cut": (cut(WEIGHTS, lambda size: 30), "its weights are damaged"),
    "weights empty": (cut(WEIGHTS, lambda size: 0), "its weights are damaged"),
    "a weight is missing": (
        reweighed(lambda t: t.pop("lm_head.weight")),
        r"lacks 1 weight, such as lm_head\.weight; fetch its files again",
    ),
    "a weight is NaN": (
        reweighed(lambda t: t["lm_head.weight"][3, 1].fill_(torch.nan)),
        r"its weight lm_head\.weight holds NaN or infinite numbers; train or fetch it again",
    ),
    "a weight is infinite": (
        reweighed(lambda t: t["lm_head.weight"][3, 1].fill_(-torch.inf)),
        "NaN or infinite",
    ),
    "weights that were changed": (
        lambda folder: (folder / "SHA256SUMS").write_text(f"{64 * '0'}  {WEIGHTS}\n"),
        rf"its {WEIGHTS} is not what was written \(its SHA256SUMS says so\): restore it, or delete SHA256SUMS",
    ),
    "a weight of another shape": (
        reweighed(lambda t: t.update({"lm_head.weight": torch.ones(3)})),
        "its weights have other shapes",
    ),
    "a shard is missing": (half_the_shards, r"model-00002-of-00002\.safetensors"),
    "no tokenizer": (
        without_tokenizer,
        "its tokenizer cannot write the answer format; restore its tokenizer files",
    ),
    "tokenizer cut": (cut("tokenizer.json", lambda size: size // 2), "cannot be loaded"),
    "tokenizer config is not JSON": (holding("tokenizer_config.json", "nope"), "cannot be loaded"),
    "no image processor": (without("preprocessor_config.json"), "Can't load image processor"),
    "image processor is not JSON": (
        holding("preprocessor_config.json", "{"),
        "not a valid JSON file",
    ),
    "unknown image processor": (
        holding("preprocessor_config.json", '{"image_processor_type": "Nosuch"}'),
        "Unrecognized image processor",
    ),
    "no chat template": (without("chat_template.jinja"), "its chat template cannot be used"),
    "chat template cut": (
        holding("chat_template.jinja", "{% for x in"),
        "its chat template cannot be used",
    ),
    "chat template refuses": (
        holding("chat_template.jinja", "{{ raise_exception('no such role') }}"),
        r"its chat template cannot be used \(TemplateError: no such role\)",
    ),
    "chat template without text": (
        holding("chat_template.jinja", "hello"),
        "leaves out what the user says",
    ),
    "settings are not JSON": (
        holding("ffr.json", "{"),
        r"ffr\.json: cannot be read .*; restore or delete it",
    ),
    "settings are a list": (holding("ffr.json", "[]"), r"ffr\.json: cannot be read"),
    "settings are deep": (
        holding("ffr.json", "[" * 100_000),
        r"ffr\.json: cannot be read .*; restore or delete it",
    ),
    "an end that is no id": (
        edited("generation_config.json", lambda c: c.update(eos_token_id="x")),
        r"its generation_config\.json names 'x' as eos_token_id, which is no id; restore it",
    ),
    "unknown template": (
        holding("ffr.json", '{"prompt": {"template": "fr"}}'),
        "template 'fr' is not one of zh, en",
    ),
    "code of its own": (
        edited("config.json", own_code),
        "comes with code of its own; set trust_remote_code if you",
    ),
}


def assert_sentence(error: BaseException, place: object) -> None:
    text = str(error)
    assert text.startswith(f"{place}")
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("name", sorted(BAD_FOLDERS))
def test_bad_folder_gives_one_sentence(copy: Path, name: str) -> None:
    change, sentence = BAD_FOLDERS[name]
    change(copy)
    with pytest.raises(ModelError, match=sentence) as caught:
        load_vlm(copy)
    assert_sentence(caught.value, copy)


def test_a_real_text_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a llama model, which takes no images"):
        load_vlm(tmp_path)


@pytest.mark.parametrize("name", ["./nosuch", "/no/such/folder", "a b/c", "a/b/c", "../x", "~/x"])
def test_a_path_without_a_folder_is_named(name: str) -> None:
    with pytest.raises(
        ModelError, match=rf"^{re.escape(name)}: is no folder and no hub id; name a model's folder"
    ):
        load_vlm(name)


def test_a_file_is_no_folder(copy: Path) -> None:
    with pytest.raises(ModelError, match="is no folder and no hub id"):
        load_vlm(copy / WEIGHTS)


@pytest.mark.parametrize("name", ["Qwen/Qwen2-VL-2B-Instruct", "nosuch"])
def test_hub_id_while_offline(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError,
        match=f"^{name}: is not on this machine and the hub cannot be reached; name a folder",
    ):
        load_vlm(name)


def test_four_bits_without_bitsandbytes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError,
        match=r"^4-bit loading needs bitsandbytes; pip install 'ffr-vlm\[quantization\]'",
    ):
        load_vlm(copy, load_in_4bit=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_here(copy: Path) -> None:
    with pytest.raises(
        UsageError, match="device 'cuda:0' was asked for, but torch finds no GPU; use cpu"
    ):
        load_vlm(copy, device="cuda:0")


ADAPTER = "adapter_model.safetensors"
BAD_ADAPTERS: dict[str, tuple[Change, str]] = {
    "no settings": (without("adapter_config.json"), r"holds no adapter_config\.json; name the folder of a peft adapter"),
    "no weights": (without(ADAPTER), rf"holds no {ADAPTER}; name the folder of a peft adapter in safetensors"),
    "weights cut": (cut(ADAPTER, lambda size: size // 2), "its weights are damaged"),
    "settings are not JSON": (holding("adapter_config.json", "{"), "cannot be loaded"),
    "settings are a list": (holding("adapter_config.json", "[]"), "cannot be loaded"),
    "another rank": (edited("adapter_config.json", lambda c: c.update(r=3)), "size mismatch"),
    "another target": (edited("adapter_config.json", lambda c: c.update(target_modules="nosuch")), "nosuch not found"),
    "a target that is no pattern": (edited("adapter_config.json", lambda c: c.update(target_modules="(")), "unterminated"),
    "a weight is missing": (reweighed(lambda t: t.pop(sorted(t)[0]), ADAPTER), "does not fit the model"),
}  # fmt: skip


@pytest.fixture(scope="module")
def adapter(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "good"
    save_adapter(with_lora(model_folder("qwen2-vl")), folder)
    return folder


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("name", sorted(BAD_ADAPTERS))
def test_bad_adapter_gives_one_sentence(
    model_folder: Callable[[str], Path], adapter: Path, tmp_path: Path, name: str
) -> None:
    change, sentence = BAD_ADAPTERS[name]
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    change(folder)
    with pytest.raises(ModelError, match=sentence) as caught:
        load_vlm(model_folder("qwen2-vl"), adapter=folder)
    assert_sentence(caught.value, folder)


def test_adapter_names_its_base(model_folder: Callable[[str], Path], adapter: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(model_folder("qwen2-vl"))
    assert not list(adapter.glob("*.bin"))


def test_prompt_and_images_must_agree(
    model_folder: Callable[[str], Path], ask: Callable[..., Any]
) -> None:
    vlm = load_vlm(model_folder("qwen2-vl"))
    prompt, images = ask(0, 1)
    with pytest.raises(
        DataError, match=r"^dev\.jsonl:3: the prompt has places for 2 images but the record has 1"
    ):
        vlm.encode(prompt, images[:1], where="dev.jsonl:3")
    with pytest.raises(
        DataError, match=r"^dev\.jsonl:3: the prompt has places for 3 images but the record has 2"
    ):
        vlm.encode(
            FilePrompt(user=prompt.user + vlm.image_token, system=None), images, where="dev.jsonl:3"
        )
    with pytest.raises(DataError, match=r'^dev\.jsonl:3: image ".*nosuch\.png" not found'):
        vlm.encode(prompt, [images[0], Path("nosuch.png")], where="dev.jsonl:3")


def test_a_text_that_spells_special_tokens_does_no_harm(
    folder: Path, ask: Callable[..., tuple[FilePrompt, list[Path]]]
) -> None:
    """Chat and video tokens typed into a message must not break positions or features."""
    vlm = with_lora(folder)
    words = " ".join(token for token in vlm.tokenizer.get_added_vocab() if token != vlm.image_token)
    row = vlm.encode(*ask(0, 1, words=words), answer="x")
    assert torch.isfinite(answer_loss(vlm, [row]))


# not config.json: with a key misspelt it asks for a model of default size, tens of gigabytes
FUZZED = [
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    WEIGHTS,
]


def flipped(content: bytes, rng: random.Random, most: int) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(min(most, len(changed)))] = rng.choice(
            (rng.randrange(256), rng.randrange(32, 127), rng.randrange(48, 58))
        )
    if rng.random() < 0.2:
        changed = changed[: rng.randrange(len(changed))]
    return bytes(changed)


def fuzz(copy: Path, num_rounds: int) -> None:
    good = {name: (copy / name).read_bytes() for name in FUZZED}
    rng = random.Random(num_rounds)
    sentences: list[str] = []
    for _ in range(num_rounds):
        name = rng.choice(FUZZED)
        # of the weights only the header: a changed number is another number
        (copy / name).write_bytes(flipped(good[name], rng, 3000 if name == WEIGHTS else 10**6))
        try:
            load_vlm(copy)
        except FfrError as error:
            sentences.append(str(error))
        (copy / name).write_bytes(good[name])
    assert len(sentences) > num_rounds // 4
    assert not any("\n" in sentence for sentence in sentences)


def test_changed_bytes_give_a_sentence_or_a_model(copy: Path) -> None:
    fuzz(copy, 40)


@pytest.mark.slow
def test_many_changed_bytes_give_a_sentence_or_a_model(copy: Path) -> None:
    fuzz(copy, 600)
