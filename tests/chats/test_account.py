"""What became of every line is counted and said."""

from __future__ import annotations

from ffr.chats.account import MAX_FAULTS, Account


def test_every_line_is_one_of_six() -> None:
    account = Account(1, 2, 3, 0, 5, 6)
    account.not_understood("a.txt", 7, "first\x1b[2J")
    account.not_understood("a.txt", 8, "second")
    assert account.num_lines == 19
    assert account.lines() == ["2 lines are not understood, the first is a.txt:7: first␛[2J"]


def test_damage_is_counted_with_the_first_of_it() -> None:
    account = Account()
    for line in (3, 4):
        account.damaged("a.json", line, "date", {"x": 1})
    account.num_undecodable = 1
    assert account.lines() == [
        "2 messages have a part that is not what it should be, the first is a.json:3: date is "
        "{'x': 1}",
        "1 line has bytes that are no text; they show as \N{REPLACEMENT CHARACTER}",
    ]


def test_a_fault_is_said_once_and_very_many_are_counted() -> None:
    account = Account()
    for number in range(MAX_FAULTS + 7):
        account.fault(f"fault {number}")
        account.fault("fault 0")
    assert account.lines()[:2] == ["fault 0", "fault 1"]
    assert account.lines()[MAX_FAULTS:] == ["and 7 more faults like these"]
