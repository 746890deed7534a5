"""An option is one line: a declared field is found in a command, a list, a suite and YAML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic.dataclasses import dataclass

from ffr.cli.eval_options import EvalCall, eval_options
from ffr.cli.model_options import with_options
from ffr.cli.setting_options import setting_options
from ffr.errors import UsageError
from ffr.settings import (
    CONFIG,
    AnswerConfig,
    GrpoConfig,
    SftConfig,
    config_fingerprint,
    declared,
    describe,
    load_config,
    load_resumed,
    resumed_fingerprint,
    setting,
    settings_of_data,
    to_yaml,
    without_effect,
)
from ffr.suites.suite import read_suite

KINDS = (SftConfig, GrpoConfig, AnswerConfig, EvalCall)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class MoreCall(EvalCall):
    """`ffr eval` with one option more."""

    patience: int = setting(3, "how often it is asked anew", low=1, high=9, unit="N", of="api")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class MoreAnswers(AnswerConfig):
    """Asking with one setting more."""

    patience: int = setting(3, "how often it is asked anew", low=1, high=9, unit="N", of="api")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class MoreSft(SftConfig):
    """A training with one setting more."""

    patience: int = setting(3, "how often it is asked anew", low=1, high=9, unit="N")


def called(options: Any, *words: str) -> tuple[dict[str, Any], str]:
    """The values that a command with the options is called with, and what it prints."""
    found: dict[str, Any] = {}

    @click.command()
    @with_options(*options)
    def command(**values: Any) -> None:
        found.update(values)

    return found, CliRunner().invoke(command, list(words)).output


def test_a_field_is_an_option_of_eval() -> None:
    _, text = called(eval_options(MoreCall), "--help")
    assert " ".join(text.split("--patience N")[1].split()).startswith(
        "For api: how often it is asked anew. [default: 3; 1<=x<=9]"
    )
    found, _ = called(eval_options(MoreCall), "--patience", "5")
    assert MoreCall(**found).patience == 5
    _, text = called(eval_options(MoreCall), "--patience", "10")
    assert "10 is not in the range 1<=x<=9" in text


def test_a_field_is_listed_and_read_from_yaml_and_key_value(tmp_path: Path) -> None:
    assert describe(MoreSft)[-1] == ("patience", "3", "how often it is asked anew")
    file = tmp_path / "r.yaml"
    file.write_text("seed: 1\npatience: 4\n", encoding="utf-8")
    assert load_config(MoreSft, source=str(file)).patience == 4
    assert load_config(MoreSft, source=str(file), overrides=["patience=5"]).patience == 5
    assert load_config(MoreSft, source=str(file), settings={"patience": 6}).patience == 6
    file.write_text(to_yaml(MoreSft(patience=7)), encoding="utf-8")
    assert load_config(MoreSft, source=str(file)).patience == 7
    file.write_text("seed: 1\npatience: 40\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_config(MoreSft, source=str(file))
    sentence = "setting patience: 40 is too large; it must be at most 9"
    assert str(caught.value) == f"{file}:2: {sentence}"
    with pytest.raises(UsageError, match="there is no setting patence; did you mean patience"):
        load_config(MoreSft, overrides=["patence=1"])
    found, _ = called(setting_options(MoreSft, ["patience"], of_recipe=True))
    assert found == {"patience": None}  # what is not given is the recipe's


SUITE = """\
figures: [joint_f1]
datasets: [{label: d, dataset: a.jsonl}]
settings: [{label: brief}, {label: patient, patience: 5}]
models:
  - {label: server, model: "api:http://localhost/v1#m"}
  - {label: base, model: "baseline:nothing"}
"""


def test_a_field_is_a_setting_of_suites_of_the_models_that_have_it() -> None:
    suite = read_suite(SUITE, name="s", where="s.yaml", answers=MoreAnswers)
    assert [row.label for row in suite.rows] == ["server, brief", "server, patient", "base"]
    asked = [suite.settings_of(row, suite.datasets[0]) for row in suite.rows]
    assert asked == [MoreAnswers(), MoreAnswers(patience=5), MoreAnswers()]
    assert suite.notes == ("No row “patient” for base: nothing changes with patience.",)
    with pytest.raises(UsageError, match=r"s\.yaml:3: setting patience: 0 is too small"):
        read_suite(SUITE.replace("5", "0"), name="s", where="s.yaml", answers=MoreAnswers)
    with pytest.raises(UsageError, match=r"s\.yaml:3: there is no setting patience"):
        read_suite(SUITE, name="s", where="s.yaml")


def test_which_model_has_which_setting() -> None:
    """Set by hand beside what the tables of before the declarations said."""
    of_vlms = {"constrained", "batch_tokens", "dtype"}
    of_prompts = {"max_new_tokens", "template", "query_position", "logprobs"}
    of_windows = {"window", "overlap", "best_windows"}
    of_apis = {
        "api_key_env", "concurrency", "requests_per_minute", "timeout", "max_retries", "price_in",
        "price_out",
    }  # fmt: skip
    of_fitting = {"select", "fit_dataset", "fit_split", "fit_limit", "fit_image_root"}
    of_rules = of_fitting | {"threshold", "image_threshold"}
    of_readers = {"nothing_from"}
    of_embeddings = of_rules | {"neighbours", "encoder_cache"}
    assert without_effect("vlm") == of_apis | of_embeddings | of_readers
    assert without_effect("api") == of_vlms | of_embeddings | of_readers | {"device"}
    assert without_effect("embedding") == (of_vlms | of_prompts | of_windows | of_apis | of_readers)
    assert without_effect("baseline") == (
        of_vlms | of_prompts | of_apis | of_embeddings | of_readers | {"device"}
    )
    assert without_effect("fusion") == (
        of_vlms | of_prompts | of_windows | of_apis | of_rules | of_readers | {"neighbours"}
    )
    assert without_effect("reader") == without_effect("fusion") - of_windows - of_readers
    assert without_effect("lines") - without_effect("encoded-lines") == {"device", "encoder_cache"}
    assert settings_of_data() == of_rules | of_windows
    # a setting of no kind in particular would slip through all of them
    assert all(item.about.of for item in declared(AnswerConfig).values())


def test_a_setting_may_need_another() -> None:
    assert AnswerConfig(threshold=0.0, image_threshold=0.5).image_threshold == 0.5
    with pytest.raises(
        UsageError, match="image_threshold has no meaning without setting threshold"
    ):
        AnswerConfig(image_threshold=0.5)
    assert EvalCall(coherence=True, encoder="x").encoder == "x"
    with pytest.raises(UsageError) as caught:
        EvalCall(encoder="x")
    assert str(caught.value) == "--encoder has no meaning without --coherence; give both"


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_keep_their_own_bounds(kind: type[Any]) -> None:
    names = [item.name for item in dataclasses.fields(kind)]
    assert list(declared(kind)) == names
    values = {name: item.default for name, item in declared(kind).items()}
    assert kind(**values) == kind()
    for item in declared(kind).values():
        for other in (item.about.needs, item.about.unless):
            assert other is None or other in names


def test_replacing_checks_anew() -> None:
    config = dataclasses.replace(SftConfig(), seed="7")
    assert (config.seed, type(config.seed)) == (7, int)
    with pytest.raises(UsageError, match="setting seed: -1 is too small; it must be at least 0"):
        dataclasses.replace(config, seed=-1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": True}, "setting batch_size: True is not a whole number"),
        ({"epochs": True}, "setting epochs: True is not a number"),
        ({"epochs": 10**400}, "setting epochs: 1000"),
        ({"skip_bad": 2}, "setting skip_bad: 2 is neither true nor false"),
        ({"model": 3}, "setting model: 3 is not a text"),
        ({"seed": None}, "setting seed: None is not a whole number"),
        ({"seed": [1] * 10_000}, "setting seed: [1, 1"),
        ({"sed": 1}, "there is no setting sed; did you mean seed?"),
        ({"model\n": 1}, "there is no setting model; did you mean model?"),
        ({"x" * 10_000: 1}, "there is no setting xxx"),
    ],
)
def test_pydantics_words_reach_nobody(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        SftConfig(**values)
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert caught.value.__suppress_context__


def test_whole_numbers_are_read_as_people_write_them() -> None:
    assert load_config(SftConfig, overrides=["max_steps=1e3"]).max_steps == 1000
    assert load_config(SftConfig, overrides=["max_steps= None "]).max_steps is None
    assert SftConfig(max_steps=12.0).max_steps == 12
    assert load_config(SftConfig, overrides=["seed=4294967295"]).seed == 2**32 - 1


# -- what a run is ----------------------------------------------------------------------------------

DECIDES_NOTHING = {
    "feature_cache_mb": 1, "feature_cache_dir": "elsewhere", "feature_cache_dir_mb": 9,
    "checkpoint_every_steps": 7, "keep_checkpoints": 9, "num_threads": 3, "num_workers": 0,
    "report_to": "trackio", "report_project": "p", "encoder_cache_dir": "there", "encoder_cache_mb": 5,
}  # fmt: skip


OF_A_SERVER = {
    "rollout_server": "http://b/v1#n", "rollout_key_env": "KEY", "rollout_adapter_dir": "seen", "rollout_timeout": 9,
    "rollout_retries": 0,
}  # fmt: skip


def test_what_decides_nothing_is_no_part_of_a_run() -> None:
    plain = config_fingerprint(GrpoConfig())
    assert config_fingerprint(GrpoConfig(**DECIDES_NOTHING)) == plain
    found = {name for name, item in declared(GrpoConfig).items() if not item.about.decides_result}
    assert found == set(DECIDES_NOTHING) | set(OF_A_SERVER)
    served = GrpoConfig(rollout_engine="server", rollout_server="http://a/v1#m")
    elsewhere = GrpoConfig(rollout_engine="server", **OF_A_SERVER)
    assert config_fingerprint(served) == config_fingerprint(elsewhere) != plain
    places = {"model", "dataset", "split", "val_dataset", "val_split", "image_root", "skip_bad"}
    assert {name for name, item in declared(GrpoConfig).items() if item.about.by_content} == places
    moved = GrpoConfig(
        model="m",
        dataset="a.jsonl",
        split="x",
        val_dataset="b.jsonl",
        val_split="y",
        image_root="i",
    )
    assert config_fingerprint(moved) == config_fingerprint(GrpoConfig(skip_bad=True)) == plain
    for name, value in {"seed": 1, "val_batch_tokens": 99, "devices": 2, "rewards": "a:b"}.items():
        assert config_fingerprint(GrpoConfig(**{name: value})) != plain


def test_a_run_goes_on_with_other_caches_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    begun = SftConfig(seed=3, feature_cache_dir="here")
    file.write_text(to_yaml(begun), encoding="utf-8")
    config = load_resumed(SftConfig, file, ["feature_cache_dir=there", "num_workers=0", "seed=3"])
    assert (config.feature_cache_dir, config.num_workers, config.seed) == ("there", 0, 3)
    assert resumed_fingerprint(config, file, config_fingerprint(begun)) == config_fingerprint(begun)
    with pytest.raises(UsageError) as caught:
        load_resumed(SftConfig, file, ["seed=4"])
    assert str(caught.value) == (
        "--resume takes its settings from the run, where seed is 3; leave -o seed out, or start a new run"
    )
    file.write_text(to_yaml(SftConfig(seed=5)), encoding="utf-8")
    with pytest.raises(UsageError, match="not the settings that the run began with; restore"):
        resumed_fingerprint(load_resumed(SftConfig, file), file, config_fingerprint(begun))


def test_a_run_of_an_earlier_version_keeps_its_name(tmp_path: Path) -> None:
    """Runs were named by all settings that there were, and their files list these."""
    file = tmp_path / "config.yaml"
    all_but_new = {
        name: value
        for name, value in dataclasses.asdict(SftConfig(feature_cache_dir="here")).items()
        if name != "pack_queries"  # as if it had come later
    }
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in all_but_new.items())
    file.write_text("".join(lines), encoding="utf-8")
    former = hashlib.sha256(json.dumps(all_but_new, sort_keys=True).encode()).hexdigest()
    config = load_resumed(SftConfig, file, ["feature_cache_dir=there"])
    assert resumed_fingerprint(config, file, former) == former
    with pytest.raises(UsageError, match="not the settings that the run began with"):
        resumed_fingerprint(dataclasses.replace(config, seed=1), file, former)
