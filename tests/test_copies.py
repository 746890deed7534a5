"""No two places of the product share nine or more equal lines."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_EQUAL_LINES = 8


def code_lines(source: str) -> list[tuple[int, str]]:
    """Number and text of each line that is neither empty, comment, docstring, import nor punctuation alone."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_words = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_words or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return [
        (number, line.strip())
        for number, line in enumerate(source.split("\n"), start=1)
        if number not in left_out
        and any(map(str.isalnum, line))
        and not line.lstrip().startswith("#")
    ]


def copies(sources: dict[str, str], most: int = MAX_EQUAL_LINES) -> list[str]:
    """Pairs of places that share more equal lines in a row than `most`, each told where it begins."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, source in sources.items():
        lines = code_lines(source)
        for start in range(len(lines) - most):
            window = lines[start : start + most + 1]
            places[tuple(text for _, text in window)].append(f"{name}:{window[0][0]}")
    return sorted(" ~ ".join(found) for found in places.values() if len(found) > 1)


def test_the_guard_sees_a_copy() -> None:
    body = "".join(f"    a{number} = {number}\n" for number in range(8))
    one, two = (
        f"def f():\n{body}    return 1\n",
        f"import os\n\ndef g():\n{body}\n    # why\n    return 1\n",
    )
    assert copies({"a.py": one, "b.py": two}) == ["a.py:2 ~ b.py:4"]
    assert copies({"a.py": one, "b.py": two.replace("return 1", "return 2")}) == []


def test_no_two_places_say_the_same() -> None:
    sources = {
        path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
        for folder in ("ffr", "cli", "metrics", "exports")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
    }
    assert copies(sources) == []
