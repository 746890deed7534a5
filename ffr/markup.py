"""Names from outside as text of Markdown and LaTeX, nothing of them taken for a mark."""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "†": r"\dag{}",
}  # fmt: skip


def markdown_text(text: str) -> str:
    r"""Text as one line of Markdown.

    >>> print(markdown_text("a_b | <35"), markdown_text("# 1. of [x]"))
    a\_b \| \<35 \# 1. of \[x\]
    """
    line = re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", " ".join(text.split()))
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
