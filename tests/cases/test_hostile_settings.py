"""Recipes and suites from someone else: each is refused at once, in a sentence with the line."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.errors import UsageError
from ffr.settings import GrpoConfig, SftConfig, load_config, load_resumed, to_yaml
from ffr.suites.suite import read_suite

_BOMB = "a: &a [x, x, x]\n" + "".join(f"k{n}: &k{n} [{', '.join(['*a'] * 9)}]\n" for n in range(40))

HOSTILE = {
    "bomb": (_BOMB, "r.yaml:1: an anchor (&a) is not taken; take it out"),
    "alias": ("seed: *a\n", "r.yaml:1: an alias (*a) is not taken; write it out"),
    "int tag": ("\nseed: !!int foo\n", "r.yaml:2: a tag (tag:yaml.org,2002:int) is not taken"),
    "bool tag": ("skip_bad: !!bool 7\n", "r.yaml:1: a tag (tag:yaml.org,2002:bool) is not taken"),
    "float tag": ("epochs: !!float x\n", "r.yaml:1: a tag (tag:yaml.org,2002:float) is not taken"),
    "timestamp tag": (
        "model: !!timestamp 99\n",
        "r.yaml:1: a tag (tag:yaml.org,2002:timestamp) is not taken",
    ),
    "python tag": (
        "model: !!python/object/apply:os.system [id]\n",
        "r.yaml:1: a tag (tag:yaml.org,2002:python/object/apply:os.system) is not taken",
    ),
    "tag of a mapping": ("!!map {seed: 1}\n", "r.yaml:1: a tag (tag:yaml.org,2002:map)"),
    "tag of a key": ("!!str seed: 1\n", "r.yaml:1: a key has an anchor or a tag; take it out"),
    "huge whole number": ("seed: " + "9" * 5000, "r.yaml:1: a number of more than 40 digits"),
    "huge number": ("epochs: " + "9" * 5000 + ".5", "r.yaml:1: 9999"),
    "huge exponent": ("epochs: 1e999", "r.yaml:1: 1e999 is not a finite number"),
    "infinity": ("epochs: .inf", "r.yaml:1: .inf is not a finite number"),
    "base 60": (
        "learning_rate: 1" + ":59" * 400 + ".5",
        "r.yaml:1: setting learning_rate: '1:59:59",
    ),
    "date": ("seed: 2020-13-40", "r.yaml:1: setting seed: '2020-13-40' is not a whole number"),
    "twice": ("seed: 1\nsplit: a\nseed: 2\n", "r.yaml:3: `seed` is given twice; give it once"),
    "merge": ("<<: {seed: 1}\n", "r.yaml:1: there is no setting <<"),
    "deep": ("seed: " + "[" * 100_000, "r.yaml:1: is nested more than 20 deep; write it flatter"),
    "wide": ("seed: [" + "1," * 200_000 + "]", "r.yaml:1: here begins value 100,001; split the"),
    "large": ("#" * (1 << 20) + "\nseed: 1", "r.yaml: is larger than 1 MiB; name another file"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "r.yaml:2: a second document begins here"),
    "control character": ("seed: 1\nmodel: \x00", "r.yaml:2: not YAML (special characters"),
    "no code point": ('model: "\\UFFFFFFFF"', "r.yaml: not YAML ("),
    "half open": ("seed: [1,\nsplit", "r.yaml:2: not YAML ("),
    "escape code": ("\x1b[31m: 1", "r.yaml:1: not YAML (special characters are not allowed"),
    "named escape code": ('"\\e[31m": 1', "r.yaml:1: there is no setting ␛[31m"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, sentence = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text, encoding="utf-8")
    started = time.process_time()
    result = CliRunner().invoke(ffr, ["train", "sft", "--config", "r.yaml", "--dry-run"])
    assert time.process_time() - started < 10
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {sentence}"), result.output
    assert result.output.count("\n") == 1
    assert len(result.output) < 400
    assert "\x1b" not in result.output


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_suite_is_one_sentence(name: str) -> None:
    with pytest.raises(UsageError, match=r"^r\.yaml:") as caught:
        read_suite(HOSTILE[name][0], name="r", where="r.yaml")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


REWARD = "open('PROOF', 'w').close()\ndef f(**columns): return [0.0]\n"
GRANTS = {
    "trust_remote_code": ("true", "-o trust_remote_code=true"),
    "rewards": ("stranger_reward:f", "-o rewards='stranger_reward:f'"),
}


@pytest.mark.parametrize("name", GRANTS)
def test_a_recipe_lets_no_code_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, remedy = GRANTS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("stranger_reward.py").write_text(REWARD, encoding="utf-8")
    Path("r.yaml").write_text(f"seed: 1\n{name}: {value}\n", encoding="utf-8")
    result = CliRunner().invoke(ffr, ["train", "grpo", "--config", "r.yaml", "--dry-run"])
    assert result.exit_code == 2
    assert f"r.yaml:2: {name} lets code run, which no file decides on" in result.output
    assert remedy in result.output
    assert not Path("PROOF").exists()
    assert "stranger_reward" not in sys.modules
    # who types it means it
    typed = load_config(GrpoConfig, source="r.yaml", overrides=[f"{name}={value}"])
    assert str(getattr(typed, name)).lower() == value
    # and what grants nothing may stand in a file, as it does in every run's
    Path("r.yaml").write_text("trust_remote_code: false\nrewards: null\n", encoding="utf-8")
    assert load_config(GrpoConfig, source="r.yaml").trust_remote_code is False


def test_a_run_that_was_trusted_is_trusted_anew_by_whoever_resumes_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(SftConfig(trust_remote_code=True)), encoding="utf-8")
    with pytest.raises(UsageError, match="trust_remote_code lets code run"):
        load_resumed(SftConfig, file)
    assert load_resumed(SftConfig, file, ["trust_remote_code=true"]).trust_remote_code
    with pytest.raises(UsageError, match="takes its settings from the run, where trust_remote"):
        load_resumed(SftConfig, file, ["trust_remote_code=false"])
