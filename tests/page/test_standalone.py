"""The file of what was found: whole in itself, without a script, and harmless."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest
from browser import Page, find_chromium
from page_builds import HOSTILE, add, asked, fill, no_bar, picture, said

from ffr.chats.chat import Media
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.page import standalone
from ffr.page.standalone import fragment_page


class Parts(HTMLParser):
    """The elements of a page, with their attributes, and all its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Store(fill(tmp_path)) as opened:
        yield opened


def test_the_file_needs_nothing_beside_itself(store: Store) -> None:
    found = asked(store, "everything").ask("flat", top=9)
    page = fragment_page(found, store, title="the flat")
    parts = Parts(page)
    addresses = [
        value for _, its in parts.tags for name, value in its.items() if name in ("src", "href")
    ]
    assert len(addresses) == 3  # the icon and two pictures; one picture of three is missing
    assert all(str(address).startswith("data:") for address in addresses)
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in parts.tags}
    assert not [name for _, its in parts.tags for name in its if name.startswith("on")]
    assert "shall we fly to Lisbon" in parts.text
    assert "is missing" in parts.text
    assert "12 May 2023, 18:00" in parts.text
    assert str(store.folder.parent) not in page
    (picture,) = (
        its["src"] for tag, its in parts.tags if tag == "img" and "flat" in str(its["alt"])
    )
    data = base64.b64decode(str(picture).removeprefix("data:image/jpeg;base64,"))
    assert PIL.Image.open(io.BytesIO(data)).size == (1024, 768)
    style = re.search(r"<style>(.*)</style>", page, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    (policy,) = (its["content"] for tag, its in parts.tags if "http-equiv" in its)
    assert f"style-src 'sha256-{digest}'" in str(policy)
    assert "script-src" not in str(policy)  # then default-src holds
    assert str(policy).startswith("default-src 'none'")


def test_what_stands_around_is_shown_as_such(store: Store) -> None:
    hit = asked(store, "nothing").ask("dentist").hits[0]
    assert [line.place for line in hit.lines] == [6]
    page = fragment_page(asked(store, "nothing").ask("dentist"), store, title="dentist")
    kinds = [its["class"] for tag, its in Parts(page).tags if tag == "li" and "class" in its]
    assert kinds == ["line around me", "line around app", "line found me", "line around",
                     "line around on", "fold", "line around me"]  # fmt: skip
    assert page.count('class="badge"') == 1


@pytest.fixture
def boats(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Store(fill(tmp_path)) as opened:
        words = {5: "a boat at last", 11: "the boat again"}
        lines = [said("Bob", words.get(n, f"line {n}"), 9000 + n) for n in range(1, 15)]
        lines.insert(0, said("Bob", "", 9000, **picture("flat.png")))
        add(opened, lines, "Boats", tmp_path / "export.txt")
        index_store(opened, [3], None, None, say=print, bar=no_bar)
        yield opened


def _folds(page: str) -> list[tuple[str, int]]:
    """What stands on each fold, and how many messages are in it."""
    return [
        (summary, inside.count('<div class="bubble">'))
        for summary, inside in re.findall(
            r"<details><summary>(.*?)</summary>(.*?)</details>", page, re.S
        )
    ]


def test_the_rest_of_the_dialogue_is_folded(boats: Store) -> None:
    found = asked(boats, "nothing").ask("boat")
    assert [line.place for line in found.hits[0].lines] == [5, 11]
    page = fragment_page(found, boats, title="boat")
    assert _folds(page) == [
        ("3 messages before", 3),
        ("1 message between", 1),
        ("1 message behind", 1),
    ]
    # each message once, in order, and a picture that is folded is small
    assert re.findall(r">(line \d+|[^<>]* boat [^<>]*)</p>", page) == [
        "a boat at last" if n == 5 else "the boat again" if n == 11 else f"line {n}"
        for n in range(1, 15)
    ]
    (picture_code,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert PIL.Image.open(io.BytesIO(base64.b64decode(picture_code))).size == (320, 240)


def test_a_dialogue_is_folded_with_its_first_hit_alone(boats: Store) -> None:
    found = asked(boats, "nothing").ask("boat")
    page = fragment_page([found, found], boats, title="boats")
    assert len(_folds(page)) == 3
    assert page.count("messages between") == 0
    assert page.count("1 message between") == 2  # a fold, and what is left out of the second


def test_of_a_very_long_dialogue_what_is_far_is_counted(
    boats: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "_MOST_FOLDED", 1)
    page = fragment_page(asked(boats, "nothing").ask("last"), boats, title="last")
    assert _folds(page) == [
        ("1 message before, and 2 that this file does not hold", 1),
        ("1 message behind, and 6 that this file does not hold", 1),
    ]


def test_each_file_of_a_message_is_what_it_is(tmp_path: Path) -> None:
    with Store(fill(tmp_path)) as store:
        media = (
            Media("file", "plan.pdf"),
            Media("picture", "flat.png", "flat.png"),
            Media("picture", "odd.png", "odd'\"><b>.png"),
        )
        add(store, [said("Bob", "the plan", media=media)], "Plan", tmp_path / "export.txt")
        index_store(store, [3], None, None, say=print, bar=no_bar)
        page = fragment_page(asked(store).ask("plan", top=1), store, title="plan")
    parts = Parts(page)
    sources = [str(its["src"]) for tag, its in parts.tags if tag == "img"]
    sizes = [
        PIL.Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size
        for source in sources
    ]
    assert sizes == [(1024, 768), (30, 20)]
    assert "file plan.pdf" in parts.text


def test_hostile_words_stay_words(store: Store) -> None:
    found = asked(store, "everything").ask("turned round", top=9)
    page = fragment_page(found, store, title=HOSTILE)
    parts = Parts(page)
    assert HOSTILE in parts.text
    assert "<b>Eve</b>" in parts.text
    assert not {"i", "script"} & {tag for tag, _ in parts.tags}
    assert not [its for tag, its in parts.tags if tag == "img" and "onerror" in its]
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_nothing_found_is_said(store: Store) -> None:
    found = asked(store, "nothing").ask("zebra")
    assert "Nothing in these chats fits." in fragment_page(found, store, title="zebra")


def test_a_browser_finds_no_fault(store: Store, tmp_path: Path) -> None:
    find_chromium()
    found = asked(store, "everything").ask("flat", top=9)
    (tmp_path / "page.html").write_text(fragment_page(found, store, title=HOSTILE))
    with Page(tmp_path / "profile", width=400) as page:
        page.open(tmp_path / "page.html")
        assert page("window.pwned") is None
        assert page("document.querySelectorAll('.line').length") == 17
        assert page("document.documentElement.scrollWidth <= innerWidth")
        right = "document.querySelector('.line.me .bubble').getBoundingClientRect().right"
        left = "document.querySelector('.line:not(.me) .bubble').getBoundingClientRect().left"
        assert page(right) > 350
        assert page(left) < 50
        rtl = "[...document.querySelectorAll('.text')].filter((it) => getComputedStyle(it).direction === 'rtl').length"
        assert page(rtl) == 1
        assert page.faults == []
        assert page.requests == []
