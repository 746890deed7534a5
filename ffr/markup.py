"""Words from outside made safe for where they go: CSV, XML, Markdown, LaTeX.

One function a target; nothing of a name is taken for a mark or a formula. Terminals and build logs
have `ffr.text.visible`; web pages are jinja2 templates that escape by themselves.
"""

from __future__ import annotations

import re

from ffr.text import visible

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&",
    "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "†": r"\dag{}",
}  # fmt: skip


_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
    line = re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", visible(" ".join(text.split())))
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
