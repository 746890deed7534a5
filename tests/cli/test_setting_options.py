"""Options made of declarations: what they take and refuse, what a help page says, and what is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner, Result
from pydantic.dataclasses import dataclass

from ffr.cli.model_options import with_options
from ffr.cli.setting_options import flag_of, further_options, setting_options
from ffr.settings import CONFIG, Settings, declared, setting


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Made(Settings):
    """One setting of each sort."""

    careful: bool = setting(False, "look twice")
    cached: bool = setting(True, "keep what was read")
    packed: bool | None = setting(None, "put together", unset="as the model likes")
    size: int = setting(8, "how many at a time", low=1, high=64, unit="N")
    share: float = setting(0.5, "how much of it", above=0, high=1)
    free: int | None = setting(None, "any number")
    way: Literal["near", "far"] = setting("near", "which way", of="api")
    folder: str | None = setting(None, "where it lies", unit="DIR")
    place: Path | None = setting(None, "a file", flag="--at")
    level: str | None = setting(None, "how loud", alone="loud")


def parsed(*words: str, of_recipe: bool = False, names: list[str] | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {}

    @click.command()
    @with_options(*setting_options(Made, names, of_recipe=of_recipe))
    def command(**values: Any) -> None:
        given.update(values)

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    return given


def refused(*words: str) -> Result:
    @click.command()
    @with_options(*setting_options(Made))
    def command(**_: Any) -> None:
        raise AssertionError("it is to be refused")

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    return result


def help_of(of_recipe: bool = False) -> dict[str, str]:
    """Each option's words on the help page, on one line."""

    @click.command(context_settings={"max_content_width": 300, "terminal_width": 300})
    @with_options(*setting_options(Made, of_recipe=of_recipe))
    def command(**_: Any) -> None:
        pass

    lines = CliRunner().invoke(command, ["--help"]).output.splitlines()
    options = [line.strip() for line in lines if line.strip().startswith("--")]
    return {
        line.split()[0].partition("/")[0].rstrip(","): " ".join(line.split()) for line in options
    }


def test_what_is_not_given_is_the_default_or_left_to_the_recipe() -> None:
    assert parsed() == {name: item.default for name, item in declared(Made).items()}
    assert parsed(of_recipe=True) == dict.fromkeys(declared(Made))


def test_each_option_gives_its_type(tmp_path: Path) -> None:
    given = parsed(
        "--careful", "--no-cached", "--packed", "--size", "64", "--share", "1", "--free", "-3",
        "--way", "far", "--folder", str(tmp_path), "--at", "a/b", "--level", "quiet",
    )  # fmt: skip
    assert given == {
        "careful": True, "cached": False, "packed": True, "size": 64, "share": 1.0, "free": -3, "way": "far",
        "folder": str(tmp_path), "place": Path("a/b"), "level": "quiet",
    }  # fmt: skip
    assert isinstance(given["share"], float)
    assert parsed("--no-packed", "--level") == {**parsed(), "packed": False, "level": "loud"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--size", "0"), "0 is not in the range 1<=x<=64"),
        (("--size", "65"), "65 is not in the range 1<=x<=64"),
        (("--size", "1.5"), "'1.5' is not a valid integer range"),
        (("--share", "0"), "0.0 is not in the range 0<x<=1"),
        (("--share", "1.1"), "1.1 is not in the range 0<x<=1"),
        (("--way", "up"), "'up' is not one of 'near', 'far'"),
        (("--no-careful",), "No such option"),
        (("--place", "x"), "No such option"),
    ],
)
def test_what_is_out_of_bounds_is_refused(words: tuple[str, ...], reason: str) -> None:
    assert reason in refused(*words).output


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "is a file" in refused("--folder", str(tmp_path / "file")).output
    assert parsed("--at", str(tmp_path / "file"))["place"] == tmp_path / "file"


def test_only_those_that_are_named_in_their_order() -> None:
    assert list(parsed(names=["way", "size"])) == ["way", "size"]
    with pytest.raises(KeyError):
        setting_options(Made, ["weight"])


def test_help_pages_say_default_bounds_and_what_unset_means() -> None:
    page = help_of()
    assert page["--careful"] == "--careful Look twice."
    assert page["--cached"].startswith("--cached / --no-cached Keep what was read.")
    assert page["--packed"].endswith("Put together. [default: as the model likes]")
    assert page["--size"] == "--size N How many at a time. [default: 8; 1<=x<=64]"
    assert page["--share"].endswith("How much of it. [default: 0.5; 0<x<=1]")
    assert page["--free"].endswith("Any number.")
    assert "For api: which way. [default: near]" in page["--way"]
    assert page["--at"].endswith("A file.")
    assert page["--level"].endswith("How loud; alone it means loud.")
    recipe = help_of(of_recipe=True)
    assert recipe["--packed"].endswith("Put together.")
    assert "default" not in recipe["--size"]


def test_all_others_are_hidden_texts() -> None:
    given: dict[str, Any] = {}

    @click.command()
    @with_options(*further_options(Made, ["size", "way"]))
    def command(**values: Any) -> None:
        given.update(values)

    runner = CliRunner()
    assert "--" not in runner.invoke(command, ["--help"]).output.replace("--help", "")
    words = ["--careful", "--packed", "no", "--share", "1e-1", "--at", "x", "--free", "none"]
    assert runner.invoke(command, words).exit_code == 0
    assert {name: value for name, value in given.items() if value is not None} == {
        "careful": "true", "packed": "no", "share": "1e-1", "place": "x", "free": "none",
    }  # fmt: skip
    assert "size" not in given
    assert "way" not in given
    assert runner.invoke(command, ["--size", "3"]).exit_code == 2


def test_flags_follow_the_names() -> None:
    known = declared(Made)
    assert flag_of(known["size"]) == "--size"
    assert flag_of(known["place"]) == "--at"
