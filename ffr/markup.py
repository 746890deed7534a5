"""Words from outside made safe for where they go: terminal, build log, CSV, XML, Markdown, LaTeX.

One function a target; nothing of a name is taken for a mark, a command or a formula. Web pages are
jinja2 templates that escape by themselves.
"""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "†": r"\dag{}",
}  # fmt: skip


# what turns the direction of a line round, or hides in it
_UNSEEN = {*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF}
_UNSEEN |= {*range(0x2028, 0x202A)}
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def terminal_text(text: str) -> str:
    r"""A text that can steer neither a terminal nor a build log; line breaks and tabs stay.

    Control characters stand there as signs, direction marks by their numbers. `::` and `##[`, with
    which GitHub's runner begins a command wherever a line is broken, become `∷` and `# #[`.

    >>> terminal_text("a\x1b[31mb\u202ec\n::error::d")
    'a␛[31mb⟨U+202E⟩c\n∷error∷d'
    """
    return "".join(map(_visible, text.replace("::", "∷").replace("##[", "# #[")))


def terminal_line(text: str) -> str:
    r"""The same on one line.

    >>> terminal_line("a\nb\x07")
    'a b␇'
    """
    return terminal_text(" ".join(text.split()))


def _visible(char: str) -> str:
    code = ord(char)
    if char in "\n\t" or (32 <= code < 127):
        return char
    if code < 32:
        return chr(0x2400 + code)
    if 127 <= code < 160 or code in _UNSEEN or 0xD800 <= code < 0xE000:
        return f"⟨U+{code:04X}⟩"
    return char


def csv_cell(text: str) -> str:
    """Text as a cell that no spreadsheet runs: what begins like a formula gets an apostrophe.

    >>> csv_cell("=1+1"), csv_cell("F1 = 1")
    ("'=1+1", 'F1 = 1')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def xml_text(text: str) -> str:
    r"""The text without characters that XML cannot hold; whoever writes the XML escapes its marks.

    >>> xml_text("a\x00b")
    'a�b'
    """
    return _NO_XML.sub("\ufffd", text)


def markdown_text(text: str) -> str:
    r"""Text as one line of Markdown.

    >>> print(markdown_text("a_b | <35"), markdown_text("# 1. of [x]"))
    a\_b \| \<35 \# 1. of \[x\]
    """
    line = re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", terminal_line(text))
    # what means a heading, a list or a rule at the beginning of a line only
    return re.sub(r"^(\d*)([#+\-=.)])", r"\1\\\2", line)


def latex_text(text: str) -> str:
    r"""Text as one line of LaTeX.

    >>> print(latex_text("50% of {x}_1 & <35"))
    50\% of \{x\}\_1 \& \textless{}35
    """
    line = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    # ligatures that a name does not mean
    return re.sub(r"([?!])`", r"\1{}`", line)
