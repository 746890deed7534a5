"""The console: every character as it is, and none that steers the terminal."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from rich.text import Text

from ffr.terminal import PlainConsole, plain_table

REPOSITORY = Path(__file__).resolve().parent.parent
HOSTILE = "\x1b]0;OWNED\x07[b]bold[/b] [/x] :smile: \x9b2J\u202e 12"
SHOWN = "␛]0;OWNED␇[b]bold[/b] [/x] :smile: ⟨U+009B⟩2J⟨U+202E⟩ 12"


@pytest.mark.parametrize("is_coloured", [True, False])
def test_nothing_foreign_steers_the_terminal(
    is_coloured: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = PlainConsole(is_coloured=is_coloured)
    table = plain_table(HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE, style="bold"))
    console.print(HOSTILE, table)
    text = capsys.readouterr().out
    own = re.findall(r"\x1b\[[0-9;]*m", text)
    assert bool(own) is is_coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert plain.count(SHOWN) == 4
    # one that comes as a Text was measured before; rich itself drops its bell
    assert plain.count("␛]0;OWNED[b]bold[/b]") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain)


def test_the_commands_print_through_one_hand() -> None:
    found = []
    for path in sorted((REPOSITORY / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "click.echo",
                "click.secho",
                "print",
                "Console",
                "Table",
            ):
                found.append(f"{path.name}: {ast.unparse(node.func)}")
    assert sorted(found) == [
        "completion.py: click.echo",  # a script for a shell, nothing foreign in it
        "data.py: Table",
        "data.py: Table",
        "doctor.py: Table",
        *["output.py: click.echo"] * 2,
    ]
