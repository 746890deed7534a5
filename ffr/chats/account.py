"""What became of every line of an export: nothing is left out in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

from ffr.text import counted, described, one_line

MAX_FAULTS = 50
"""How many faults of an export are shown."""

MAX_EXAMPLES = 3
"""How many lines that were not understood are shown."""


@dataclass
class Account:
    """Counts of lines or entries, kept while a chat is read.

    Every line of a file, or entry of a list, is one of the first six, or `num_repeated`.

    Args:
        num_messages: That begin a message of a person.
        num_continuations: That go on with the message before.
        num_system: By which the app itself speaks.
        num_not_understood: That fit nothing known; they are not in the chat.
        num_blank: Without a character, outside messages.
        num_heading: That tell of the chat itself: its title, its members, a day, a comment.
        examples: The first of those not understood: file and line, and what stands there.
        num_damaged: Messages with a part that is not what it should be, and counts as not there.
        damaged_examples: The first of those: file and line, the part and what stands there.
        num_undecodable: Lines with bytes that are no text in the file's encoding.
        decisions: What had to be decided to read it, such as the order of day and month.
        faults: What is wrong with the export beyond single lines.
        num_more_faults: How many of those are counted alone.
        num_repeated: Entries that bring a message again that another file brought.

    >>> account = Account()
    >>> account.not_understood("chat.txt", 4, "???")
    >>> account.num_lines, account.lines()
    (1, ['1 line is not understood, the first is chat.txt:4: ???'])
    """

    num_messages: int = 0
    num_continuations: int = 0
    num_system: int = 0
    num_not_understood: int = 0
    num_blank: int = 0
    num_heading: int = 0
    examples: list[str] = field(default_factory=list)
    num_damaged: int = 0
    damaged_examples: list[str] = field(default_factory=list)
    num_undecodable: int = 0
    decisions: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    num_more_faults: int = 0
    num_repeated: int = 0

    @property
    def num_lines(self) -> int:
        """All lines or entries."""
        return (
            self.num_messages
            + self.num_continuations
            + self.num_system
            + self.num_not_understood
            + self.num_blank
            + self.num_repeated
            + self.num_heading
        )

    def not_understood(self, file: str, line: int, said: object) -> None:
        """Counts a line that fits nothing, and keeps it where it is one of the first."""
        self.num_not_understood += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{file}:{line}: {one_line(said, 120)}")

    def repeated(self, is_system: bool) -> None:
        """Counts the message that was counted last as one that is there already."""
        self.num_repeated += 1
        self.num_system -= is_system
        self.num_messages -= not is_system

    def damaged(self, file: str, line: int, part: str, said: object) -> None:
        """Counts a message with a part that is not what it should be, and keeps the first."""
        self.num_damaged += 1
        if len(self.damaged_examples) < MAX_EXAMPLES:
            self.damaged_examples.append(f"{file}:{line}: {part} is {described(said)}")

    def fault(self, sentence: str) -> None:
        """Notes a fault of the export, once; of very many the first, and how many more."""
        if len(self.faults) >= MAX_FAULTS:
            self.num_more_faults += sentence not in self.faults
        elif sentence not in self.faults:
            self.faults.append(sentence)

    def lines(self) -> list[str]:
        """What a reader of the chat must know, a line each; nothing where all was understood."""
        said = list(self.faults)
        if self.num_more_faults:
            said.append(
                f"and {counted(self.num_more_faults, 'more fault', 'more faults')} like these"
            )
        if self.num_repeated:
            verb = counted(self.num_repeated, "message stands", "messages stand")
            said.append(f"{verb} in several files, and count once, as the first file has them")
        if self.num_not_understood:
            verb = counted(self.num_not_understood, "line is", "lines are")
            said.append(f"{verb} not understood, the first is {self.examples[0]}")
        if self.num_damaged:
            verb = counted(self.num_damaged, "message has", "messages have")
            said.append(
                f"{verb} a part that is not what it should be, the first is "
                f"{self.damaged_examples[0]}"
            )
        if self.num_undecodable:
            verb = counted(self.num_undecodable, "line has", "lines have")
            said.append(f"{verb} bytes that are no text; they show as \N{REPLACEMENT CHARACTER}")
        return said
