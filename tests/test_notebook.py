"""Tables for notebooks: no word of them is markup, and long cells are cut."""

from __future__ import annotations

from html.parser import HTMLParser

from ffr.dialogue import Dialogue, Fragment
from ffr.notebook import MAX_CHARACTERS, table

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \x1b[31m\u202e&amp; \"'"


class Tags(HTMLParser):
    """The tags of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_word_is_markup() -> None:
    page = Tags(table([HOSTILE], [[HOSTILE]], caption=HOSTILE, marked=[0], foot=HOSTILE))
    known = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
    assert set(page.tags) == known
    assert page.attributes == [("colspan", "1")]
    # what steers a terminal or turns a line round stands there as a sign
    assert page.text.count("␛[31m⟨U+202E⟩&amp; \"'") == 4


def test_marked_rows_are_told_apart_by_their_tag() -> None:
    page = table([], [["a"], ["b"]], marked=[1])
    assert page == "<table><tbody><tr><td>a</td></tr><tr><th>b</th></tr></tbody></table>"


def test_line_breaks_stay_and_long_cells_are_cut() -> None:
    assert "a<br>b" in table([], [["a\nb"]])
    assert len(Tags(table([], [["x" * 10_000]])).text) == MAX_CHARACTERS


def test_a_dialogue_shows_itself_with_a_fragment_set_off() -> None:
    chat = Dialogue.of([("Ann", "hi"), ("Bob", "tea?"), (HOSTILE, HOSTILE)], HOSTILE)
    page = Tags(chat._repr_html_())
    assert "script" not in page.tags
    assert page.text.startswith("<script>alert(1)</script>")
    assert "3 utterances, 0 images" in page.text
    marked = chat.html(Fragment((1,), ()))
    assert "<th>1</th><th>Bob</th><th>tea?</th>" in marked
    assert "<td>0</td><td>Ann</td><td>hi</td>" in marked
