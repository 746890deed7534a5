"""Settings: where they come from, which wins, and that each wrong one is named with its remedy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.errors import UsageError
from ffr.settings import SftConfig, config_fingerprint, describe, load_config, recipes, to_yaml


@pytest.mark.parametrize("name", recipes("sft"))
def test_every_recipe_loads(name: str) -> None:
    assert load_config(SftConfig, source=name).learning_rate > 0


@pytest.mark.parametrize("name", ["qwen2-vl-2b", "qwen2-vl-7b", "qwen2.5-vl-3b", "qwen2.5-vl-7b"])
def test_the_papers_recipes_are_the_papers(name: str) -> None:
    config = load_config(SftConfig, source=name)
    assert (config.lora_rank, config.lora_alpha, config.epochs, config.learning_rate) == (
        8,
        32.0,
        1.0,
        1e-4,
    )
    assert (config.warmup_share, config.batch_size, config.accumulate, config.devices) == (
        0.05,
        1,
        4,
        8,
    )
    assert (config.max_image_pixels, config.max_tokens, config.precision) == (
        602_112,
        15_536,
        "bf16",
    )


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: 3.0e-4\nseed: 1\nbatch_size: 2\n", encoding="utf-8")
    config = load_config(
        SftConfig,
        source=str(file),
        settings={"seed": 2, "model": None},
        overrides=["batch_size=3", "max_steps=none"],
    )
    assert (
        config.learning_rate,
        config.seed,
        config.batch_size,
        config.max_steps,
        config.model,
    ) == (
        3e-4,
        2,
        3,
        None,
        "tiny",
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("learning_rat=1", "there is no setting learning_rat; did you mean learning_rate?"),
        ("zzz=1", "there is no setting zzz"),
        ("seed", "write key=value"),
        ("seed=x", "setting seed: 'x' is not a whole number"),
        ("seed=1.5", "is not a whole number"),
        ("seed=-1", "it must be at least 0"),
        ("seed=inf", "is not a whole number"),
        ("epochs=0", "it must be more than 0"),
        ("epochs=nan", "'nan' is not a finite number"),
        ("epochs=inf", "is not a finite number"),
        ("lora_dropout=2", "it must be at most 0.9"),
        ("precision=fp16", "is not one of auto, fp32, bf16"),
        ("template=enn", "did you mean en?"),
        ("skip_bad=perhaps", "is neither true nor false"),
    ],
)
def test_a_wrong_override_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(SftConfig, overrides=[override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"- 1\n", "holds no settings"),
        (b"a: [", "not YAML"),
        (b"\xff\xfe", "cannot be read"),
        (b"sed: 1\n", "did you mean seed?"),
        (b"seed: [1]\n", "is not a whole number"),
        (b"model: 3\n", "is not a text"),
        (b"1: 2\n", "there is no setting 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_config(SftConfig, source=str(file))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean qwen2-vl-2b"):
        load_config(SftConfig, source="qwen2-vl-2")


@given(st.text(max_size=30))
def test_no_override_gives_a_traceback(text: str) -> None:
    for override in (
        text,
        f"seed={text}",
        f"epochs={text}",
        f"precision={text}",
        f"skip_bad={text}",
    ):
        try:
            load_config(SftConfig, overrides=[override])
        except UsageError:
            continue


def test_a_written_file_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(SftConfig, source="qwen2-vl-7b", overrides=["val_dataset=对话.json"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    again = load_config(SftConfig, source=str(file))
    assert again == config
    assert (
        config_fingerprint(again) == config_fingerprint(config) != config_fingerprint(SftConfig())
    )


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, _, text in describe(SftConfig) if len(text) > 5] == [
        item.name for item in fields(SftConfig)
    ]
