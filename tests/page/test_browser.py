"""The page in a browser: what a person sees and does there, by mouse, by keys and by ear."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, find_chromium
from page_builds import add, fill, long_chat, no_bar, said, served

import ffr.page.app as page_app
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.page.access import Keys
from ffr.page.assets import asset

# the places of the messages that reach into the window
SEEN = """(() => {
  const window_ = document.getElementById("scroll").getBoundingClientRect();
  return [...document.querySelectorAll("#lines .line")].filter((line) => {
    const its = line.getBoundingClientRect();
    return its.bottom > window_.top + 1 && its.top < window_.bottom - 1;
  }).map((line) => Number(line.dataset.place));
})()"""
FOCUSED = "document.activeElement.dataset.place"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    find_chromium()
    with Page(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    with served(fill(tmp_path_factory.mktemp("page"))) as found:
        yield found


def opened(page: Page, keys: Keys, fragment: str = "") -> None:
    """Opens the page, and waits until the chats are there."""
    page.open_address(keys.address, fragment)
    page.wait_for("document.querySelectorAll('#chats button').length > 1")


def open_chat(page: Page, number: int) -> None:
    page(f"document.querySelectorAll('#chats button')[{number}].click()")
    page.wait_for(f"{SEEN}.length > 0 && !document.querySelector('.waiting')")


def search(page: Page, query: str) -> None:
    page(
        f"document.getElementById('query').value = {json.dumps(query)};"
        "document.getElementById('ask').requestSubmit()"
    )
    page.wait_for("document.getElementById('said').textContent.includes('searched')")


def test_a_search_and_its_chat(page: Page, keys: Keys) -> None:
    opened(page, keys)
    # the key has left the address
    assert page("location.href") == f"http://127.0.0.1:{keys.port}/"
    assert page("document.cookie") == ""
    search(page, "flat in Alfama")
    said = page("document.getElementById('said').textContent")
    assert said.endswith("searched 13 of 13 messages.")
    assert page("document.querySelector('#hits h2').textContent") == "Trip"
    page("document.querySelector('#hits .main').click()")
    page.wait_for("document.querySelectorAll('#lines .found').length > 1")
    found = page(
        "[...document.querySelectorAll('#lines .found .text')].map((it) => it.textContent)"
    )
    assert "I found a flat in Alfama" in found
    assert page("location.hash") == "#line-1"
    middle = page("document.getElementById('scroll').getBoundingClientRect().left") + 435
    mine = "document.querySelector('#lines .line.me .bubble').getBoundingClientRect().left"
    theirs = "document.querySelector('#lines .line:not(.me) .bubble').getBoundingClientRect()"
    assert page(mine) > middle > page(f"{theirs}.left")
    first = page(FOCUSED)
    page.press("n")
    page.wait_for(f"{FOCUSED} !== '{first}'")
    assert page("document.activeElement.classList.contains('found')")
    for form in ("txt", "json", "zip"):
        link = f"document.querySelector('#hits a[download$={form}]').href"
        assert page(f"fetch({link}).then((answer) => answer.status)") == 200
    assert page.faults == []
    assert {item.split("/")[2] for item in page.requests} == {f"127.0.0.1:{keys.port}"}


def test_filters_narrow_the_search(page: Page, keys: Keys) -> None:
    opened(page, keys)
    page.choose("#by", "Bob")
    page.choose("#since", "2023-05-13")
    search(page, "dentist")
    assert "searched 2 of 13" in page("document.getElementById('said').textContent")
    page.choose("#since", "")
    page("document.getElementById('said').textContent = ''")
    page.choose("#until", "2023-05-12")
    page.choose("#has", "photo")
    search(page, "dentist")
    said = page("document.getElementById('said').textContent")
    assert said.startswith("Nothing in these chats fits; searched ")
    assert page.faults == []


def test_a_link_leads_to_its_line(page: Page, keys: Keys) -> None:
    opened(page, keys, "#line-8")
    page.wait_for(f"{FOCUSED} === '7'")
    assert page("document.activeElement.querySelector('.text').textContent").endswith("אני לא יודע")
    direction = "getComputedStyle(document.activeElement.querySelector('.text')).direction"
    assert page(direction) == "rtl"
    page("document.activeElement.closest('#lines').querySelector('.quote').click()")
    page.wait_for(f"{FOCUSED} === '0'")
    assert page("location.hash") == "#line-1"
    page("location.hash = '#line-999'")
    page.wait_for("document.querySelector('#note.fault') !== null")
    assert page("document.getElementById('note').textContent") == "there is no message 999"


def test_a_day_and_a_person(page: Page, keys: Keys) -> None:
    opened(page, keys)
    open_chat(page, 0)
    page.press("d")
    page.wait_for("document.getElementById('calendar').open")
    days = "[...document.querySelectorAll('#month button:not(:disabled)')]"
    assert page(f"{days}.map((it) => it.textContent)") == ["12", "13"]
    assert page("document.activeElement.dataset.day") == "2023-05-13"
    page.press("ArrowLeft")
    assert page("document.activeElement.getAttribute('aria-label')") == "12 May, 6 messages"
    page.press("Enter")
    page.wait_for(f"!document.getElementById('calendar').open && {FOCUSED} === '0'")
    page.choose("#person", "Bob")
    for expected in ("1", "2", "3", "7"):
        page("document.getElementById('person-next').click()")
        page.wait_for(f"{FOCUSED} === '{expected}'")
    page("document.getElementById('person-back').click()")
    page.wait_for(f"{FOCUSED} === '3'")
    assert page.faults == []


def test_a_picture_at_its_full_size(page: Page, keys: Keys) -> None:
    opened(page, keys, "#line-4")
    page.wait_for(f"{FOCUSED} === '3'")
    page.wait_for("document.activeElement.querySelector('img').naturalWidth === 480")
    page.press("Enter")
    page.wait_for("document.getElementById('large-picture').naturalWidth === 1200")
    page.press("Escape")
    page.wait_for("!document.getElementById('large').open")
    assert page(FOCUSED) == "3"
    assert page.faults == []


def test_keys_go_through_the_chat(page: Page, keys: Keys) -> None:
    opened(page, keys)
    open_chat(page, 0)
    page.press("Home")
    page.wait_for(f"{FOCUSED} === '0'")
    for key, place in (("j", 1), ("ArrowDown", 2), ("j", 3), ("k", 2), ("ArrowUp", 1), ("End", 9)):
        page.press(key)
        page.wait_for(f"{FOCUSED} === '{place}'")
    # one message is a stop of the tab key, with what is inside it, whatever number there is
    stops = "[...document.querySelectorAll('#lines *')].filter((it) => it.tabIndex === 0)"
    assert page(f"{stops}.map((it) => it.tagName)") == ["ARTICLE", "A"]
    positions = "[...document.querySelectorAll('#lines .line')].map((it) => [it.getAttribute('aria-posinset'), it.getAttribute('aria-setsize')].join(' of '))"
    assert page(positions) == [f"{number} of 10" for number in range(1, 11)]
    page.press("/")
    assert page("document.activeElement.id") == "query"
    page.press("j")  # a letter there
    assert page("document.getElementById('query').value").endswith("j")
    assert page.faults == []


def test_a_chat_that_was_read_later_opens(
    page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("later")
    stored = fill(folder)
    with served(stored) as keys:
        opened(page, keys)
        with Store(stored) as other:
            add(other, [said("Ann", "a zebra!")], "Zoo", folder / "zoo.txt")
        search(page, "zebra")
        page("document.querySelector('#hits .main').click()")
        page.wait_for("document.querySelector('#title').textContent === 'Zoo'")
        page.wait_for("document.querySelectorAll('#lines .found').length === 1")
        assert page("document.querySelectorAll('#of-chat option').length") == 4
        assert page.faults == []


def test_hostile_words_do_nothing(page: Page, keys: Keys) -> None:
    opened(page, keys)
    open_chat(page, 1)
    page.wait_for("document.querySelectorAll('#lines .line').length === 4")
    assert page("window.pwned") is None
    assert page("document.querySelectorAll('#lines script, #lines i, #lines bdi b').length") == 0
    assert page("document.querySelector('#title').textContent") == "<i>Strange</i>"
    # the policy holds off what a fault of ours might let through
    page(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned = 1'}))"
    )
    page(
        "document.getElementById('print').innerHTML = '<img src=/static/none.png onerror=\"window.pwned = 2\">'"
    )
    time.sleep(0.3)
    assert page("window.pwned") is None
    assert any("Content Security Policy" in fault for fault in page.faults)


def test_a_telephone_shows_one_thing_at_a_time(page: Page, keys: Keys) -> None:
    page.resize(390, 800)
    try:
        opened(page, keys)
        seen = (
            "['side', 'reader'].filter((id) => document.getElementById(id).offsetParent !== null)"
        )
        assert page(seen) == ["side"]
        open_chat(page, 0)
        assert page(seen) == ["reader"]
        assert page("document.documentElement.scrollWidth") <= 390
        page("document.getElementById('back').click()")
        assert page(seen) == ["side"]
        assert page("document.documentElement.scrollWidth") <= 390
    finally:
        page.resize(1280, 900)


def test_light_and_dark(page: Page, keys: Keys) -> None:
    opened(page, keys)
    colours = {}
    for _ in range(3):
        page("document.getElementById('theme').click()")
        name = page("document.getElementById('theme').textContent")
        colours[name] = page("getComputedStyle(document.body).backgroundColor")
    assert colours["Theme: system"] == colours["Theme: light"] != colours["Theme: dark"]


def test_what_is_printed_is_the_fragment_alone(page: Page, keys: Keys) -> None:
    opened(page, keys)
    search(page, "flat in Alfama")
    page("window.print = () => { window.printed = true; }")
    page(
        "[...document.querySelectorAll('#hits button')].find((it) => it.textContent === 'Print').click()"
    )
    page.wait_for("window.printed")
    assert page("document.querySelectorAll('#print .line').length") == page(
        "document.querySelectorAll('#hits .hit:first-child .line').length"
    )


def test_axe_finds_nothing(page: Page, keys: Keys) -> None:
    """Rules of axe-core: roles, names, contrasts, what a screen reader and a keyboard meet."""
    axe = os.environ.get("FFR_AXE")
    if axe is None:
        pytest.skip("FFR_AXE names no axe.min.js; npm install axe-core brings one")

    def violations() -> list[list[str]]:
        page(Path(axe).read_text(encoding="utf-8") + "; 1")
        found: list[list[str]] = json.loads(
            page(
                "axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify("
                "found.violations.map((it) => [it.impact, it.id, it.nodes[0].html])))"
            )
        )
        return found

    opened(page, keys)
    assert violations() == []
    search(page, "flat in Alfama")
    page("document.querySelector('#ask details').open = true")
    page("document.querySelector('#hits .main').click()")
    page.wait_for("document.querySelectorAll('#lines .found').length > 1")
    assert violations() == []
    for _ in range(2):
        page("document.getElementById('theme').click()")
    assert violations() == []
    page("document.getElementById('theme').click()")
    for dialog, button in (("calendar", "date"), ("keys", "show-keys")):
        page(f"document.getElementById('{button}').click()")
        page.wait_for(f"document.getElementById('{dialog}').open")
        assert violations() == []
        page(f"document.querySelector('#{dialog} [data-close]').click()")
    page.resize(390, 800)
    try:
        assert violations() == []
    finally:
        page.resize(1280, 900)


@pytest.mark.slow
def test_more_lines_than_a_browser_has_pixels_for(
    page: Page, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as if a browser had room for 3,000 lines alone
    monkeypatch.setattr(
        page_app,
        "asset",
        lambda name: asset(name).replace("const ROOM = 150000;", "const ROOM = 3000;"),
    )
    folder = tmp_path_factory.mktemp("longer")
    stored = fill(folder)
    with Store(stored) as store:
        add(store, long_chat(6_000, random.Random(0)), "Years", folder / "export.txt")
    with served(stored) as keys:
        opened(page, keys)
        open_chat(page, 2)
        assert page(SEEN)[-1] == 5_999
        assert page("document.getElementById('lines').offsetHeight") < 3_000 * 100
        # on to the beginning, a window at a time, through all that is laid out meanwhile
        passed = page("""(async () => {
          const scroll = document.getElementById("scroll"), seen = new Set();
          for (let turn = 0; turn < 2000 && !seen.has(0); turn++) {
            for (const line of document.querySelectorAll("#lines .line")) seen.add(Number(line.dataset.place));
            scroll.scrollTop -= 600;
            await new Promise((done) => setTimeout(done, 16));
            while (document.querySelector(".waiting")) await new Promise((done) => setTimeout(done, 10));
          }
          return [seen.size, seen.has(0)];
        })()""")
        assert passed == [6_000, True]
        page("document.querySelector('#lines .line').focus()")
        for key, place in (("End", 5_999), ("Home", 0)):
            page.press(key)
            page.wait_for(f"{FOCUSED} === '{place}' && {SEEN}.includes({place})")
        assert page.faults == []


@pytest.mark.slow
def test_a_hundred_thousand_lines_scroll(
    page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("long")
    stored = fill(folder)
    with Store(stored) as store:
        add(store, long_chat(100_000, random.Random(0)), "Years", folder / "export.txt")
        index_store(store, [3], None, None, say=print, bar=no_bar)
    with served(stored) as keys:
        opened(page, keys)
        begun = time.monotonic()
        open_chat(page, 2)
        assert time.monotonic() - begun < 3
        assert page(SEEN)[-1] == 99_999
        # few elements, whatever length
        assert page("document.querySelectorAll('#lines .line').length") <= 400
        for share, low, high in ((0, 0, 5), (0.5, 45_000, 55_000), (0.25, 20_000, 30_000)):
            page(
                "(() => { const it = document.getElementById('scroll');"
                f"it.scrollTop = {share} * it.scrollHeight; }})()"
            )
            page.wait_for(f"{SEEN}.length > 0 && {low} <= {SEEN}[0] && {SEEN}[0] <= {high}")
            places = page(SEEN)
            assert places == list(range(places[0], places[-1] + 1))
        # backwards, where heights above are only guessed, nothing jumps: a line moves as far as one scrolls
        moved = page("""(async () => {
          const scroll = document.getElementById("scroll"), found = [];
          for (let turn = 0; turn < 120; turn++) {
            const top = scroll.getBoundingClientRect().top;
            const line = [...document.querySelectorAll("#lines .line")].find((it) => it.getBoundingClientRect().top > top + 250);
            const before = line.getBoundingClientRect().top;
            scroll.scrollTop -= 90;
            await new Promise((done) => setTimeout(done, 30));
            const now = document.querySelector(`#lines [data-place="${line.dataset.place}"]`);
            found.push(now.getBoundingClientRect().top - before);
          }
          return found;
        })()""")
        assert moved == pytest.approx([90] * 120, abs=1)
        # frames while one scrolls on: 60 a second, but for a few
        frames = page("""(async () => {
          const scroll = document.getElementById("scroll"), found = [];
          let last = performance.now();
          for (let turn = 0; turn < 200; turn++) {
            scroll.scrollTop += 60;
            await new Promise(requestAnimationFrame);
            found.push(performance.now() - last);
            last = performance.now();
          }
          return found.sort((a, b) => a - b);
        })()""")
        assert frames[100] < 40
        assert frames[190] < 100
        # the keyboard's place is kept, though it is far out of sight
        page("document.querySelector('#lines .line').focus()")
        page.press("Home")
        page.wait_for(f"{FOCUSED} === '0'")
        for place in range(1, 61):
            page.press("j")
            page.wait_for(f"{FOCUSED} === '{place}'")
        page("document.getElementById('scroll').scrollTop = 3000000")
        page.wait_for(f"{SEEN}.length > 0 && {SEEN}[0] > 40000")
        assert page(FOCUSED) == "60"
        page.press("j")
        page.wait_for(f"{FOCUSED} === '61' && {SEEN}.includes(61)")
        page.press("End")
        page.wait_for(f"{FOCUSED} === '99999' && {SEEN}.includes(99999)")
        # a day years ahead
        page("document.getElementById('date').click()")
        page.wait_for("document.getElementById('calendar').open")
        page.choose("#year", "2024")
        page(
            "document.getElementById('year').dispatchEvent(new Event('change'));"
            "document.querySelector('#month button:not(:disabled)').click()"
        )
        page.wait_for(f"{SEEN}.includes(Number({FOCUSED})) && Number({FOCUSED}) < 99999")
        assert page("document.activeElement.querySelector('.day').textContent").endswith(" 2024")
        assert page.faults == []
