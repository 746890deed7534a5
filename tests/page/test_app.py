"""The server as a browser asks it: every question, what is refused, and that nothing leads out."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from page_builds import HOSTILE, TRIP, add, asked, fill, no_bar, said
from starlette.testclient import TestClient

import ffr.page.app as page_app
from ffr.corpus.indexing import index_store
from ffr.corpus.people import join_people
from ffr.corpus.store import Store
from ffr.page.access import Keys
from ffr.page.app import make_app


class Client:
    """A client that has been let in.

    Args:
        folder: Of the store.
        chats: Those that are served.
    """

    def __init__(self, folder: Path, chats: tuple[int, ...] = ()) -> None:
        self.store, self.reading = Store(folder), Store(folder)
        keys = Keys(1234)
        app = make_app(asked(self.store), self.reading, keys, chats)
        self.http = TestClient(app, base_url="http://127.0.0.1:1234", raise_server_exceptions=False)
        self.http.get(keys.address)

    def json(self, path: str, status: int = 200) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def close(self) -> None:
        self.http.close()
        self.store.close()
        self.reading.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    made = Client(folder)
    yield made
    made.close()


def test_the_page_and_all_that_it_names(client: Client) -> None:
    page = client.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert not re.search(r"\son\w+=", page.text)
    names = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert sorted(names) == ["/static/icon.svg", "/static/page.css", "/static/page.js"]
    for name in names:
        assert client.http.get(name).status_code == 200
    script = client.http.get("/static/page.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    for name in re.findall(r'from "\./(\w+\.js)"', script.text):
        assert client.http.get(f"/static/{name}").status_code == 200
    scripts = "".join(
        client.http.get(f"/static/{name}.js").text
        for name in ("page", "list", "bubbles", "calendar", "dom")
    )
    # what is said becomes text alone
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", scripts)


def test_chats_lines_and_days(client: Client) -> None:
    chats = client.json("/api/chats")["chats"]
    assert [(chat["id"], chat["title"], chat["num_lines"]) for chat in chats] == [
        (1, "Trip", 10),
        (2, "<i>Strange</i>", 4),
    ]
    lines = client.json("/api/chats/1/lines?start=2&count=3")["lines"]
    assert [line["text"] for line in lines] == [message.text for message in TRIP[2:5]]
    # the line before is known, though it is not sent
    assert (lines[0]["continues"], lines[0]["starts_day"]) == (True, False)
    assert client.json("/api/chats/1/lines")["lines"][0]["starts_day"]
    assert client.json("/api/chats/1/lines?start=10")["lines"] == []
    assert client.json("/api/chats/1/days")["days"] == [
        {"day": "2023-05-12", "place": 0, "count": 6},
        {"day": "2023-05-13", "place": 6, "count": 4},
    ]
    line = client.json("/api/lines/3")
    assert (line["chat"], line["place"], line["text"]) == (1, 2, "with a balcony")


def test_one_person_under_two_names(tmp_path: Path) -> None:
    client = Client(fill(tmp_path))
    join_people(client.store, ["Bob", "Ann"])
    (people, *_) = (chat["people"] for chat in client.json("/api/chats")["chats"])
    assert [(person["name"], person["is_me"]) for person in people] == [("Bob", True)]
    key = people[0]["key"]
    places = [client.json(f"/api/chats/1/next?place={place}&person={key}")["place"]
              for place in (0, 1, 2)]  # fmt: skip
    assert places == [1, 2, 3]
    assert {line["speaker"] for line in client.json("/api/chats/1/lines")["lines"]} <= {"Bob", ""}
    client.close()


@pytest.mark.parametrize(
    ("place", "person", "back", "expected"),
    [(0, "Bob", "false", 1), (3, "Bob", "false", 7), (3, "Bob", "true", 2), (9, "Bob", "0", None),
     (0, "Ann", "true", None), (0, "nobody", "false", None)],
)  # fmt: skip
def test_the_next_message_of_a_person(
    client: Client, place: int, person: str, back: str, expected: int | None
) -> None:
    found = client.json(f"/api/chats/1/next?place={place}&person={person}&back={back}")
    assert found == {"place": expected}


def test_a_search(client: Client) -> None:
    found = client.json("/api/search?q=flat+in+Alfama&top=1")
    (hit,) = found["hits"]
    assert hit["title"] == "Trip"
    assert "I found a flat in Alfama" in [line["text"] for line in hit["lines"]]
    assert hit["found_by"] == ["meaning", "words"]
    assert found["searched"] == "searched 13 of 13 messages"
    narrowed = client.json("/api/search?q=dentist&chat=1&by=Ann&since=2023-05-13&until=2023-05-13")
    assert [line["text"] for hit in narrowed["hits"] for line in hit["lines"]] == [
        "did the dentist call?"
    ]
    assert narrowed["searched"] == "searched 2 of 9 messages"
    assert client.json("/api/search?q=zebra")["hits"] == []


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/search", 400, "q: Field required"),
        ("/api/search?q=+", 400, "q: "),
        ("/api/search?q=a&q=b", 400, "q: "),
        ("/api/search?q=a&other=1", 400, "other: Extra inputs are not permitted"),
        ("/api/search?q=a&top=51", 400, "top: "),
        ("/api/search?q=a&has=gold", 400, "has: "),
        ("/api/search?q=a&since=2023-02-30", 400, "since 2023-02-30 is no day of the calendar"),
        ("/api/search?q=a&until=9999-12-31", 400, "until 9999-12-31 is too late"),
        ("/api/search?q=a&since=2023-02-02&until=2023-02-01", 400, "which leaves no day"),
        ("/api/search?q=a&by=Zed", 400, "by Zed: nobody is called so; there are"),
        ("/api/search?q=a&chat=7", 404, "there is no chat 7"),
        ("/api/chats/7/lines", 404, "there is no chat 7"),
        ("/api/chats/x/lines", 400, "chat: "),
        ("/api/chats/1/lines?count=201", 400, "count: "),
        ("/api/chats/1/lines?start=-1", 400, "start: "),
        (f"/api/lines/{2**63}", 400, "line: "),
        ("/api/lines/99", 404, "there is no message 99"),
        ("/api/fragment", 400, "line: "),
        ("/api/fragment?line=1&line=11", 400, "of several chats"),
        ("/api/fragment?line=1&form=exe", 400, "form: "),
        ("/pictures/4/1", 404, "message 4 has no picture 1"),
        ("/pictures/1/0", 404, "message 1 has no picture 0"),
        ("/pictures/9/0", 404, "message 9 has no picture 0"),
        ("/nothing", 404, "there is nothing at this address"),
        ("/api/chats/", 404, "there is nothing at this address"),
    ],
)
def test_what_is_wrong_is_said(client: Client, path: str, status: int, words: str) -> None:
    assert words in client.json(path, status)["error"]


def test_pictures_are_jpeg_whatever_they_are_called(client: Client) -> None:
    for path, size in (
        ("/pictures/4/0", (1200, 900)),
        ("/thumbnails/4/0", (480, 360)),
        ("/pictures/13/0", (30, 20)),
    ):
        for _ in range(2):
            answer = client.http.get(path)
            assert answer.headers["content-type"] == "image/jpeg"
            assert PIL.Image.open(io.BytesIO(answer.content)).size == size


def test_a_picture_that_is_none_is_not_handed_out(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    (tmp_path / "flat.png").write_text("<script>alert(1)</script>")
    client = Client(folder)
    for kind in ("pictures", "thumbnails"):
        answer = client.json(f"/{kind}/4/0", 404)
        assert answer == {"error": "the picture cannot be opened"}
    client.close()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pyproject.toml", "/static/..%2f..%2fapp.py", "/static/%2e%2e/app.py",
        "/static//etc/passwd", "/static/page.css/..", "/..%2f..%2f..%2f..%2fetc/passwd",
        "/pictures/../../etc/passwd", "/pictures/4/..%2f..%2fflat.png", "/pictures/4/0%00.jpg",
        "/thumbnails/%2e%2e/0", "//etc/passwd", "/static/page.css%00", "/static/PAGE.CSS",
        "/static/", "/static/page.html", "/store/messages.sqlite3",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file(client: Client, path: str) -> None:
    answer = client.http.get(f"http://127.0.0.1:1234{path}")
    assert answer.status_code in (400, 404)
    assert "error" in answer.json()


def test_a_fragment_to_take_along(client: Client) -> None:
    # in the order of the chat, each once
    lines = "line=4&line=1&line=2&line=2&line=7"
    answer = client.http.get(f"/api/fragment?{lines}&form=txt")
    assert answer.headers["content-disposition"] == 'attachment; filename="fragment.txt"'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == (
        "Trip\n\n12 May 2023\n\n[18:00] Ann: shall we fly to Lisbon in May?\n"
        "[18:05] Bob: I found a flat in Alfama\n…\n[18:07] Bob: [picture flat.png]\n"
        "\n13 May 2023\n\n[18:00] Ann: did the dentist call?\n"
    )
    found = client.http.get(f"/api/fragment?{lines}&form=json").json()
    assert found["chat"] == "Trip"
    assert [line["id"] for line in found["lines"]] == [1, 2, 4, 7]
    answer = client.http.get(f"/api/fragment?{lines}&form=zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["pictures/001.jpg", "fragment.txt", "fragment.json"]
        assert b"[18:07] Bob: [pictures/001.jpg]\n" in archive.read("fragment.txt")
        assert json.loads(archive.read("fragment.json")) == found
        picture = PIL.Image.open(io.BytesIO(archive.read("pictures/001.jpg")))
        assert picture.size == (1200, 900)


def test_hostile_names_stay_words(client: Client) -> None:
    lines = client.json("/api/chats/2/lines")["lines"]
    assert (lines[0]["speaker"], lines[0]["text"]) == ("<b>Eve</b>", HOSTILE)
    assert lines[1]["text"] == "turned ⟨U+202E⟩ round␛[31m :: here"
    answer = client.http.get("/api/fragment?line=13&form=zip")
    assert zipfile.ZipFile(io.BytesIO(answer.content)).namelist()[0] == "pictures/001.jpg"
    text = client.http.get("/api/fragment?line=12&form=txt").text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_other_chats_are_not_served(folder: Path) -> None:
    client = Client(folder, (2,))
    assert [chat["id"] for chat in client.json("/api/chats")["chats"]] == [2]
    for path in ("/api/chats/1/lines", "/api/lines/1", "/pictures/4/0", "/api/search?q=a&chat=1",
                 "/api/fragment?line=1", "/api/chats/1/days"):  # fmt: skip
        client.json(path, 404)
    found = client.json("/api/search?q=flat")
    assert (found["hits"], found["searched"]) == ([], "searched 4 of 4 messages")
    client.close()


def test_what_another_process_reads_is_found(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    client = Client(folder)
    assert client.json("/api/search?q=zebra")["hits"] == []
    with Store(folder) as other:
        add(other, [said("Ann", "a zebra!")], "Zoo", tmp_path / "zoo.txt")
        index_store(other, [3], None, None, say=print, bar=no_bar)
    found = client.json("/api/search?q=zebra")
    assert [hit["title"] for hit in found["hits"]] == ["Zoo"]
    assert found["searched"] == "searched 14 of 14 messages"
    client.close()


def test_nothing_is_written_into_the_store(folder: Path, client: Client) -> None:
    before = client.store.rows("SELECT count(*) AS n FROM messages")[0]["n"]
    for path in ("/api/chats", "/api/search?q=flat", "/api/chats/1/lines", "/thumbnails/4/0"):
        client.http.get(path)
    assert client.store.database.total_changes == 0
    assert client.reading.database.total_changes == 0
    assert client.store.rows("SELECT count(*) AS n FROM messages")[0]["n"] == before


def test_a_fault_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("at /home/ann/secret")

    monkeypatch.setattr(page_app.Api, "chats", broken)
    client = Client(folder)
    answer = client.json("/api/chats", 500)
    assert answer == {"error": "this is a fault of ffr; the terminal in which it runs says more"}
    client.close()


# ---- the description, and questions made of it


def _text_of(schema: dict[str, Any]) -> some.SearchStrategy[str]:
    """Values of a parameter: some that its schema allows, and some that are anything."""
    known = [str(value) for value in schema.get("enum", [])]
    if "items" in schema:
        return _text_of(schema["items"])
    if schema.get("type") == "integer":
        known += ["0", "1", "2", "4", "13", str(2**53), str(2**64), "-1", "1.5", "1e3"]
    if schema.get("type") == "boolean":
        known += ["true", "false"]
    known += [
        "2023-05-12",
        "0000-00-00",
        "9999-12-31",
        "Ann",
        "flat",
        "公园",
        '" OR "',
        "*",
        "\x00",
    ]
    return some.one_of(some.sampled_from(known), some.text(max_size=40))


def _question(path: str, parameters: list[dict[str, Any]]) -> some.SearchStrategy[Any]:
    in_path = {
        item["name"]: _text_of(item["schema"]) for item in parameters if item["in"] == "path"
    }
    asked_for = {
        item["name"]: some.lists(_text_of(item["schema"]), max_size=2)
        for item in parameters
        if item["in"] == "query"
    }
    return some.tuples(
        some.just(path), some.fixed_dictionaries(in_path), some.fixed_dictionaries(asked_for)
    )


def test_no_question_that_the_description_allows_is_a_fault(client: Client) -> None:
    said = client.json("/api/openapi.json")
    assert said["openapi"] == "3.1.0"
    assert len(said["paths"]) == 9
    questions = [_question(path, its["get"]["parameters"]) for path, its in said["paths"].items()]

    @settings(max_examples=400, deadline=None)
    @given(some.one_of(questions))
    def ask(question: tuple[str, dict[str, str], dict[str, list[str]]]) -> None:
        path, in_path, values = question
        from urllib.parse import quote

        for name, value in in_path.items():
            path = path.replace(f"{{{name}}}", quote(value or "-", safe="", errors="replace"))
        query = [
            (name, value.encode("utf-8", "replace").decode())
            for name, its in values.items()
            for value in its
        ]
        answer = client.http.get(path, params=query)
        # an address may come out as another one: `//`, `..`
        assert answer.status_code in (200, 400, 404), (path, query, answer.text)
        if answer.status_code != 200:
            assert set(answer.json()) == {"error"}

    ask()


def test_answers_are_as_described(client: Client) -> None:
    said = client.json("/api/openapi.json")
    schemas = said["components"]["schemas"]
    line = client.json("/api/lines/2")
    assert set(line) == set(schemas["ShownLine"]["properties"])
    found = client.json("/api/search?q=flat")
    assert set(found) == set(schemas["ShownFound"]["properties"])
    assert set(found["hits"][0]) == set(schemas["ShownHit"]["properties"])
    for its in said["paths"].values():
        for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(its)):
            assert reference.rpartition("/")[2] in schemas
    assert said["components"]["securitySchemes"]["key"]["name"] == "ffr-1234"
