"""The pages of docs/: links lead somewhere, commands parse, records and prompts are what ffr takes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import PIL.Image
import pytest
import yaml
from click.testing import CliRunner

import ffr as ffr_package
from ffr.cli.main import ffr
from ffr.data.check import check_file
from ffr.data.example import PICTURE, example_examples
from ffr.prompt import render

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
LINKED = [
    *PAGES,
    *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
]
_FENCE = re.compile(r"^```(\w*)[^\S\n]*(?:title=\"([^\"\n]*)\")?[^\S\n]*\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OPERATOR = {"|", "&", "&&", ">", ";", "||"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    title: str
    text: str


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(path.name, language, title or "", inner)
        for language, title, inner in _FENCE.findall(text)
    ]


SHOWING = [*PAGES, REPOSITORY / "README.md"]
BLOCKS = [block for page in SHOWING for block in blocks(page)]


def typed_commands(text: str) -> list[list[str]]:
    """The commands in a page's shell blocks and in its indented ones."""
    fenced = [inner for language, _, inner in _FENCE.findall(text) if language in ("bash", "")]
    indented = "\n".join(re.findall(r"^    (.*)$", re.sub(_FENCE, "", text), re.M))
    return [words for part in (*fenced, indented) for words in commands(part)]


def mentioned_commands(text: str) -> list[list[str]]:
    """The commands that a page names in backticks, whole or not."""
    inline = re.findall(r"`((?:[A-Z_]+=\S+ )?ffr [^`]*)`", re.sub(_FENCE, "", text))
    return [words for part in inline for words in commands(part)]


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub and the site make it."""
    titles = re.findall(r"^#+ +(.*)$", re.sub(_FENCE, "", text), re.M)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in plain}


def broken_links(path: Path, text: str) -> list[str]:
    """Links of a page to files and headings that are not there; web addresses are left out."""
    found: list[str] = []
    for link in _LINK.findall(re.sub(_FENCE, "", text)):
        target, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        place = path.parent / target if target else path
        if not place.exists() or (
            heading
            and heading not in anchors(text if place == path else place.read_text(encoding="utf-8"))
        ):
            found.append(link)
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each `ffr …` in a shell block, without comments and what comes behind `|`, `&`."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not re.search(r"(?:^|[\s/])ffr\s", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
        lexer.whitespace_split = True
        words = list(lexer)
        while words:
            end = next((at for at, word in enumerate(words) if word in _OPERATOR), len(words))
            part, words = words[:end], words[end + 1 :]
            while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
                part = part[1:]
            if part and part[0] in ("ffr", ".venv/bin/ffr"):
                found.append(part[1:])
    return found


def named(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that some words name, and the words behind its name.

    Raises:
        click.UsageError: where there is none.
    """
    command: click.Command = ffr
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = "sft" if words[0] in ("…", "STAGE") else words[0]
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, words = found, words[1:]
    return command, words


def parse(words: list[str]) -> None:
    """Parses a command line without doing anything.

    Raises:
        click.UsageError: where it is none of ours.
    """
    command, rest = named(words)
    try:
        command.make_context(str(command.name), rest)
    except click.exceptions.Exit:
        assert "--help" in words


def unknown_options(words: list[str]) -> list[str]:
    """The options of a command that is named in passing which it does not have."""
    command, rest = named(words)
    known = {flag for item in command.params for flag in (*item.opts, *item.secondary_opts)}
    given = [word.partition("=")[0] for word in rest if re.match("--?[a-z]", word)]
    return [flag for flag in given if flag not in {*known, "--help"}]


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_the_guard_sees_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# A *title*: here\n```\n# no title\n```\n")
    text = "# Own\n[1](b.md) [2](c.md) [3](b.md#a-title-here) [4](b.md#no-title) [5](#own) [6](#my)"
    text += " [7](https://e.org/x.md)\n```\n[8](d.md)\n```\n"
    (tmp_path / "a.md").write_text(text)
    assert broken_links(tmp_path / "a.md", text) == ["c.md", "b.md#no-title", "#my"]


def _entries(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav
    return [entry for item in inner for entry in _entries(item)]


def test_the_site_names_every_page_and_no_other() -> None:
    site = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    names = _entries(site["nav"])
    source = (REPOSITORY / "docs" / "site_pages.py").read_text(encoding="utf-8")
    added = dict(re.findall(r'^    "([\w./]+)": "([\w.]+)",$', source, re.M))
    assert all((REPOSITORY / path).is_file() for path in added)
    assert sorted(names) == sorted([*(page.name for page in PAGES), *added.values()])


def test_the_reference_has_every_public_name() -> None:
    text = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    homes = [getattr(ffr_package, name) for name in ffr_package.__all__ if name != "__version__"]
    missing = [
        name
        for name in (f"{found.__module__}.{found.__name__}" for found in homes)
        if f"::: {name}\n" not in text
    ]
    assert missing == []


TEXTS = {page.name: page.read_text(encoding="utf-8") for page in SHOWING}
TYPED = [(name, words) for name, text in TEXTS.items() for words in typed_commands(text)]
MENTIONED = [(name, words) for name, text in TEXTS.items() for words in mentioned_commands(text)]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(value)[:60]


@pytest.mark.parametrize(("page", "words"), TYPED, ids=_label)
def test_every_command_parses(page: str, words: list[str]) -> None:
    parse(words)


def test_every_command_that_is_mentioned_exists() -> None:
    unknown = [
        (page, words, flags) for page, words in MENTIONED if (flags := unknown_options(words))
    ]
    assert unknown == []
    assert len(MENTIONED) > 50


def test_the_guard_sees_commands(tmp_path: Path) -> None:
    text = "A=1 ffr data check x.jsonl  # why\nls | ffr gate R \\\n --baseline B > out\npip install ffr\n"
    assert commands(text) == [["data", "check", "x.jsonl"], ["gate", "R", "--baseline", "B"]]
    page = "```bash\nffr doctor\n```\n```json\nffr no\n```\n\n    ffr report R\n\nso `ffr train … -o x`, `ffr gate R`\n"
    assert typed_commands(page) == [["doctor"], ["report", "R"]]
    assert mentioned_commands(page) == [["train", "…", "-o", "x"], ["gate", "R"]]
    assert unknown_options(["train", "STAGE", "-o", "x=y", "--epoch"]) == ["--epoch"]
    with pytest.raises(click.UsageError):
        unknown_options(["train", "stf"])
    for wrong in (["data", "chek"], ["data", "check"], ["data", "check", "x", "--imageroot", "y"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


RECORDS = [block for block in BLOCKS if block.title.endswith((".json", ".jsonl"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the picture that the examples name."""
    (tmp_path / PICTURE).parent.mkdir()
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / PICTURE)
    return tmp_path


@pytest.mark.parametrize("block", RECORDS, ids=lambda block: f"{block.page} {block.title}")
def test_every_record_passes_the_check(folder: Path, block: Block) -> None:
    path = folder / block.title
    path.write_text(block.text, encoding="utf-8")
    report = check_file(path)
    assert report.faults == []
    assert report.num_examples >= 1


def test_records_of_every_form_are_shown() -> None:
    shown = {(block.page, block.title) for block in RECORDS}
    assert shown >= {
        ("data.md", "raw.json"),
        ("data.md", "ms-swift.json"),
        ("predictions.md", "predictions.jsonl"),
        ("README.md", "mine.jsonl"),
    }


def test_the_tables_that_are_shown_are_brought_in(folder: Path) -> None:
    tables = [block for block in BLOCKS if block.language == "csv"]
    assert [block.title for block in tables] == ["lines.csv", "queries.csv"]
    for block in tables:
        (folder / block.title).write_text(block.text, encoding="utf-8")
    words = ["data", "import", *(str(folder / block.title) for block in tables)]
    done = CliRunner().invoke(ffr, [*words, "--out", str(folder / "mine.jsonl")])
    assert (done.exit_code, "0 faults, 0 warnings" in done.output) == (0, True), done.output


@pytest.mark.parametrize("template", ["zh", "en"])
def test_the_prompts_that_are_shown_are_ours_to_the_byte(template: str) -> None:
    (block,) = [block for block in BLOCKS if block.title == f"--template {template}"]
    example = example_examples()[0]
    prompt = render(example.dialogue, example.query, template=template)
    assert block.text.replace("¶\n", "\n") == prompt.user
    page = (REPOSITORY / "docs" / block.page).read_text(encoding="utf-8")
    assert f"`{prompt.system}`" in page
