"""What a person at a terminal sees: lines and bars that do not stand in each other's way."""

from __future__ import annotations

import io
import re
import sys

import pytest

from ffr.cli.output import progress_bar, say, say_aside


class _Terminal(io.StringIO):
    """Takes what is written as a terminal does."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """What is seen, without blanks at the ends of rows."""
        rows, y, x = [""], 0, 0
        for sign in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if sign == "\n":
                y, x = y + 1, 0
                rows += [""] * (y == len(rows))
            elif sign == "\r":
                x = 0
            elif sign.startswith("\x1b"):
                y -= int(sign[2:-1] or 1) if sign[-1] == "A" else 0
                rows[y] = "" if sign[-1] == "K" else rows[y]
            else:
                rows[y] = rows[y][:x].ljust(x) + sign + rows[y][x + len(sign) :]
                x += len(sign)
        return [row.rstrip() for row in rows if row.strip()]


def _terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """In the place of the streams; no fixture, since pytest puts in its own once a test begins."""
    made = _Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return made


def test_a_line_stands_above_the_bar_and_the_bar_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _terminal(monkeypatch)
    with progress_bar(None, "reading a chat", 4) as advance:
        advance(1, 4)
        say_aside("Trip: 5 messages")
        say("  1 line is not understood")
        advance(2, 4)
        lines, bar = terminal.rows()[:2], terminal.rows()[2:]
    assert lines == ["Trip: 5 messages", "  1 line is not understood"]
    assert len(bar) == 1
    assert bar[0].startswith("reading a chat ")
    assert terminal.rows() == lines
    # and the next one is as if there had been none
    with progress_bar(None, "pictures", 1):
        pass
    say("done")
    assert terminal.rows() == [*lines, "done"]


def test_an_error_takes_the_bar_along(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _terminal(monkeypatch)
    with pytest.raises(KeyError), progress_bar(None, "reading", 4):
        raise KeyError
    say("after it")
    assert terminal.rows() == ["after it"]
