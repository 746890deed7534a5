"""The recipe that follows from a model, the name of its run, and what a command line would set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.errors import ModelError, UsageError
from ffr.runs import ModelSource, resolve_model
from ffr.settings import GrpoConfig, SftConfig, declared, load_config, recipes
from ffr.training.common.recipe import model_name, recipe_of, refuse_rates_of_tiny

QWEN_2B = {"model_type": "qwen2_vl", "hidden_size": 1536, "num_hidden_layers": 28}
QWEN_3B = {
    "model_type": "qwen2_5_vl",
    "text_config": {"hidden_size": 2048, "num_hidden_layers": 36},
}
OTHER = {"model_type": "internvl", "text_config": {"hidden_size": 896, "num_hidden_layers": 24}}


def folder(path: Path, config: object) -> ModelSource:
    """A folder that has nothing of a model but its config.json."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ModelSource(str(path), str(path))


def run_of(root: Path, name: str, config: object, recipe: str = "") -> Path:
    """A finished run with a merged model."""
    folder(root / name / "merged", config)
    record = dict.fromkeys(("started_at", "finished_at", "model", "dataset"), "")
    record |= {"stage": "sft", "status": "finished", "seed": 0, "recipe": recipe}
    (root / name / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return root / name


def typed(*words: object) -> Result:
    return CliRunner().invoke(ffr, ["train", *map(str, words)])


@pytest.mark.parametrize(
    ("config", "recipe"), [(QWEN_2B, "qwen2-vl-2b"), (QWEN_3B, "qwen2.5-vl-3b")]
)
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_recipe_follows_from_the_shape_of_the_model(tmp_path, config, recipe, stage):
    source = folder(tmp_path / "Anything", config)
    assert recipe_of(stage, source) == recipe
    assert model_name(source) == recipe
    run = run_of(tmp_path / "runs", "mine", config, recipe="tiny")
    assert recipe_of(stage, resolve_model(str(run))) == recipe
    assert model_name(resolve_model(str(run))) == recipe


def test_every_recipe_has_the_shape_of_its_model():
    for stage in ("sft", "grpo"):
        for name in recipes(stage):
            if name not in ("tiny", "reader"):
                model = load_config(SftConfig, source=name).model
                assert recipe_of(stage, ModelSource(model, model)) == name
                assert model_name(ModelSource(model, model)) == name


def test_a_model_without_a_recipe_is_told_which_there_are(tmp_path):
    source = folder(tmp_path / "InternVL3-1B", OTHER)
    with pytest.raises(UsageError) as caught:
        recipe_of("sft", source)
    assert str(caught.value) == (
        f"{tmp_path}/InternVL3-1B: no recipe is made for this model (internvl, 24 layers of width "
        "896); name one that suits it with --config (qwen2-vl-2b, qwen2-vl-7b, qwen2.5-vl-3b, "
        "qwen2.5-vl-7b), or a YAML file of your own"
    )
    assert model_name(source) == "internvl3-1b"


def test_a_run_of_another_model_hands_its_recipe_on(tmp_path):
    run = run_of(tmp_path, "sft-internvl3-1b-001", OTHER, recipe="qwen2-vl-2b")
    source = resolve_model(str(run))
    assert recipe_of("grpo", source) == "qwen2-vl-2b"
    assert model_name(source) == "internvl3-1b"
    for recipe in ("tiny", "own.yaml", ""):
        other = run_of(tmp_path, f"of-{recipe or 'none'}", OTHER, recipe=recipe)
        with pytest.raises(UsageError, match="no recipe is made for this model"):
            recipe_of("grpo", resolve_model(str(other)))


@pytest.mark.parametrize("kind", [SftConfig, GrpoConfig])
def test_no_other_model_has_the_rates_of_tiny(tmp_path, kind):
    source = folder(tmp_path / "model", QWEN_2B)
    config = load_config(kind, source="tiny")
    with pytest.raises(UsageError, match=r"its learning rate of 0\.00\d for no other"):
        refuse_rates_of_tiny(config, source, "tiny")
    refuse_rates_of_tiny(config, resolve_model("tiny"), "tiny")
    refuse_rates_of_tiny(config, source, "own.yaml")
    own = load_config(kind, source="tiny", overrides=["learning_rate=1e-5"])
    refuse_rates_of_tiny(own, source, "tiny")
    words = ["--model" if kind is SftConfig else "--from", source.location, "--config", "tiny"]
    done = typed(kind.stage, *words, "--dry-run")
    assert (done.exit_code, "for no other; name another recipe" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("content", "sentence"), [("[]", "is no JSON object"), ("{", "cannot be read")]
)
def test_a_broken_config_is_one_sentence(tmp_path, content, sentence):
    source = folder(tmp_path / "model", {})
    (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(ModelError, match=sentence):
        recipe_of("sft", source)
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        recipe_of("sft", source)


def listed(*words: object) -> dict[str, list[str]]:
    """Value and origin of each setting that `--list-settings` prints."""
    done = typed(*words, "--list-settings")
    assert done.exit_code == 0, done.output
    rows = [line.split("  ") for line in done.output.split("\n\n")[0].splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[0]: row[1:3] for row in cells}


def test_the_list_has_the_values_of_this_very_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bare = listed("sft")
    assert bare["learning_rate"] == ["0.003", "recipe tiny"]
    assert bare["seed"] == ["0", "default"]
    assert list(bare) == list(declared(SftConfig))
    model = folder(tmp_path / "m", QWEN_2B).location
    rows = listed("sft", "--model", model, "-o", "seed=7", "--epochs", "2.5", "--compile")
    assert rows["learning_rate"] == ["0.0001", "recipe qwen2-vl-2b"]
    assert rows["model"] == [model, "command line"]
    assert [rows[name][0] for name in ("seed", "epochs", "compile")] == ["7", "2.5", "true"]
    rows = listed("sft", "--lora-alpha", 32, "--learning-rate", "1.23456789e-4")
    assert [rows[name][0] for name in ("lora_alpha", "learning_rate")] == ["32", "0.000123456789"]
    (tmp_path / "own.yaml").write_text("max_new_tokens: 99\n")
    rows = listed("grpo", "--config", "own.yaml")
    assert rows["max_new_tokens"] == ["99", "own.yaml"]
    assert rows["learning_rate"] == ["2e-06", "default"]
    nothing = typed("grpo", "--list-settings")
    assert "! no recipe was taken: no finished SFT run under runs" in nothing.output
    run_of(tmp_path / "runs", "sft-x-001", QWEN_3B)
    assert listed("grpo")["learning_rate"] == ["2e-06", "recipe qwen2.5-vl-3b"]


def test_every_setting_is_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage, kind in (("sft", SftConfig), ("grpo", GrpoConfig)):
        for name, item in declared(kind).items():
            value = item.default if item.default not in (None, False) else 1
            flag = item.about.flag or "--" + name.replace("_", "-")
            words = (
                [flag] if item.type is bool else [flag, item.choices[-1] if item.choices else value]
            )
            done = typed(stage, *words, "--list-settings", "--config", "tiny")
            assert "o such option" not in done.output, (name, done.output)
            assert "there is no option" not in done.output, (name, done.output)
