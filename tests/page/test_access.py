"""Who is let in: nobody without the key, no other site, no other name, and no order at all."""

from __future__ import annotations

import re

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from ffr.page.access import HEADERS, Access, Keys

PORT = 8377
HOST = {"host": f"127.0.0.1:{PORT}"}


@pytest.fixture
def keys() -> Keys:
    return Keys(PORT)


@pytest.fixture
def client(keys: Keys) -> TestClient:
    """Of an app that says `secret` to whoever gets that far."""
    app = Access(PlainTextResponse("secret"), keys)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False)


def let_in(client: TestClient, keys: Keys) -> None:
    answer = client.get(keys.address)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_the_key_becomes_a_cookie_that_no_script_and_no_site_gets(
    client: TestClient, keys: Keys
) -> None:
    assert client.get("/").status_code == 403
    answer = client.get(keys.address)
    cookie = answer.headers["set-cookie"]
    name, value = cookie.partition(";")[0].split("=", 1)
    assert name == f"ffr-{PORT}"
    assert len(value) == 43
    assert value != keys.token
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        "httponly",
        "path=/",
        "samesite=strict",
    }
    assert client.get("/").text == "secret"
    # the key leaves the address bar, whoever gives it
    assert client.get(keys.address).headers["location"] == "/"


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/?token=é%00", "/api/chats"])
def test_without_the_key_nothing_is_said(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 403
    assert answer.text == "open the address that `ffr serve` printed: it holds the key\n"


def test_the_key_opens_the_front_door_alone(client: TestClient, keys: Keys) -> None:
    assert client.get(f"/api/chats?token={keys.token}").status_code == 403
    assert client.post(f"/?token={keys.token}").status_code == 403
    assert "set-cookie" not in client.get(f"/x?token={keys.token}").headers


def test_a_key_for_once_opens_once(client: TestClient, keys: Keys) -> None:
    address = keys.address_for_once()
    assert address != keys.address
    assert client.get(address).status_code == 303
    client.cookies.clear()
    assert client.get(address).status_code == 403


@pytest.mark.parametrize(
    "cookie", ["", "ffr-8377=", "ffr-8377=é", "ffr-8377", "a=b; ffr-1=x", '";']
)
def test_a_wrong_cookie_opens_nothing(client: TestClient, cookie: str) -> None:
    answer = client.get("/", headers={"cookie": cookie.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example:8377", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:8377", "[::1]:8377",
     "127.0.0.1:8377.evil.example", "0.0.0.0:8377", ""],
)  # fmt: skip
def test_another_name_for_this_machine_is_refused(
    client: TestClient, keys: Keys, host: str
) -> None:
    let_in(client, keys)
    answer = client.get("/", headers={"host": host})
    assert (answer.status_code, answer.text) == (
        403,
        "this server answers to 127.0.0.1 and localhost alone\n",
    )


def test_two_hosts_are_refused(client: TestClient, keys: Keys) -> None:
    let_in(client, keys)
    host = (b"host", HOST["host"].encode())
    request = client.build_request("GET", "/")
    request.headers = type(request.headers)([*request.headers.raw, host])
    assert client.send(request).status_code == 403


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("origin", f"http://127.0.0.1:{PORT}", 200),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", f"https://127.0.0.1:{PORT}", 403),
        ("origin", f"http://localhost:{PORT}", 403),  # the other name is another origin
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "cross-site", 403),
    ],
)
def test_only_the_page_itself_may_ask(
    client: TestClient, keys: Keys, header: str, value: str, status: int
) -> None:
    let_in(client, keys)
    assert client.get("/", headers={header: value}).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"])
def test_nothing_can_be_ordered(client: TestClient, keys: Keys, method: str) -> None:
    let_in(client, keys)
    answer = client.request(method, "/api/chats")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_every_answer_carries_the_headers(client: TestClient, keys: Keys) -> None:
    refused = client.get("/")
    let_in(client, keys)
    for answer in (refused, client.get("/"), client.post("/")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = dict(
        part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src")} == {"'self'"}
    assert not re.search(r"unsafe|data:|\*|http", HEADERS["Content-Security-Policy"])


def test_a_web_socket_is_closed(client: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass
