"""The endpoint client against a local server that speaks the protocol, with its faults."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, FfrError, UsageError
from ffr.evaluation.run import evaluate
from ffr.retrieval import api_client
from ffr.retrieval.api import ApiRetriever, split_name
from ffr.retrieval.api_client import ApiError, ChatClient, Limits
from ffr.retrieval.chat_protocol import Prices
from ffr.retrieval.windows import WindowedRetriever

KEY = "sk-secret-0123456789abcdef"
GOOD = format_answer(Fragment((0,), ()))


def completion(text: Any = GOOD, **more: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        **more,
    }
    return {
        "id": "x",
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {
        "Content_Type": "application/json",
        "Content_Length": str(len(body)),
        **headers,
    }.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


Fault = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, content: Any = None, **headers: str) -> Fault:
    body = json.dumps({"error": {"message": "no"}} if content is None else content).encode()
    return lambda handler: send(handler, status, body, **headers)


def cut_at_once(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def cut_in_the_middle(handler: BaseHTTPRequestHandler) -> None:
    body = json.dumps(completion()).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def html(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, b"<html>Welcome</html>", Content_Type="text/html")


def broken_json(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, b'{"choices": [{"mess')


CUT_OFF: threading.Event = threading.Event()
"""Set when a client has gone away while a byte came now and then."""


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, each well within any single wait; longer than the whole may take."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(200):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            CUT_OFF.set()
            return
        time.sleep(0.05)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(200):
        try:
            handler.wfile.write(b"x")
            handler.wfile.flush()
        except OSError:
            CUT_OFF.set()
            return
        time.sleep(0.05)


class Server:
    """Answers `GOOD`, after the faults that were put in its way; keeps what it was asked."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.always: Callable[[dict[str, Any]], Fault | None] = lambda body: None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.most_at_a_time = 0
        self._num_open = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with outer._lock:
                    outer._num_open += 1
                    outer.most_at_a_time = max(outer.most_at_a_time, outer._num_open)
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    outer.times.append(time.monotonic())
                    fault = outer.faults.pop(0) if outer.faults else outer.always(body)
                try:
                    (fault or says(200, completion()))(self)
                finally:
                    with outer._lock:
                        outer._num_open -= 1

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = Server()
    yield made
    made.close()


def chats(number: int) -> list[Example]:
    return [
        Example(
            Dialogue(f"d{index}", (Utterance("a", (f"talk {index}",)), Utterance("b", ("hm",)))),
            "q",
            Fragment((0,)),
        )
        for index in range(number)
    ]


def retriever(server: Server, **options: Any) -> ApiRetriever:
    limits = {"concurrency": 4, "timeout_s": 20.0, "first_wait_s": 0.01, "max_retries": 3}
    limits |= {
        name: options.pop(name)
        for name in list(options)
        if name in (*limits, "requests_per_minute")
    }
    return ApiRetriever(f"api:{server.url}#org/model", limits=Limits(**limits), **options)  # type: ignore[arg-type]


# -- what is sent -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictured(tmp_path: Path) -> Example:
    PIL.Image.new("RGB", (400, 200), (255, 0, 0)).save(tmp_path / "red.png")
    PIL.Image.new("RGB", (30, 20), (0, 0, 255)).save(tmp_path / "blue.jpg", quality=95)
    lines = (
        Utterance("A", ("see ", Image("red.png"), " and ", Image("blue.jpg"))),
        Utterance("b", ("ok",)),
    )
    return Example(Dialogue("d", lines), "colours", Fragment((0,), (0, 1)), image_root=tmp_path)


def test_a_request(server: Server, pictured: Example) -> None:
    client = retriever(
        server, max_image_pixels=5_000, max_new_tokens=99, template="en", query_position="last"
    )
    assert client.answer([pictured])[0].response == GOOD
    [body], [headers] = server.bodies, server.headers
    assert server.paths == ["/v1/chat/completions"]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("org/model", 0, 99)
    assert "logprobs" not in body
    system, user = body["messages"]
    assert system["content"] == "You are a multimodal information retrieval assistant."
    shown, prompt = "", client.prompt(pictured).user
    pictures = []
    for part in user["content"]:
        if part["type"] == "text":
            shown += part["text"]
        else:
            shown += "<image>"
            kind, _, content = part["image_url"]["url"].partition(";base64,")
            pictures.append((kind, PIL.Image.open(io.BytesIO(base64.b64decode(content)))))
    assert shown == prompt
    (first_kind, first), (second_kind, second) = pictures
    assert (first_kind, first.size, first.getpixel((0, 0))) == (
        "data:image/png",
        (100, 50),
        (255, 0, 0),
    )
    assert (second_kind, second.size) == ("data:image/jpeg", (30, 20))


def test_words_alone_are_one_text(server: Server) -> None:
    [example] = chats(1)
    client = retriever(server)
    client.answer([example])
    assert server.bodies[0]["messages"][1] == {
        "role": "user",
        "content": client.prompt(example).user,
    }


def test_log_probabilities_where_asked_and_given(server: Server) -> None:
    server.faults = [
        says(
            200,
            completion(
                logprobs={
                    "content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]
                }
            ),
        )
    ]
    asked = retriever(server, with_logprobs=True)
    assert asked.answer(chats(1))[0].logprobs == (-0.5, -1.0)
    assert server.bodies[0]["logprobs"] is True
    assert asked.answer(chats(1))[0].logprobs is None  # not given


def test_what_no_file_can_hold_does_not_stop_the_rest(server: Server, tmp_path: Path) -> None:
    def raw(body: bytes) -> Fault:
        return lambda handler: send(handler, 200, body)

    def logprob(value: bytes) -> Fault:
        choice = (
            b'{"message":{"content":"x"},"logprobs":{"content":[{"logprob":-0.5},{"logprob":'
            + value
            + b"}]}}"
        )
        return raw(b'{"choices":[' + choice + b"]}")

    large = b"1" + b"0" * 400
    server.faults = [
        raw(b'{"choices":[{"message":{"content":"a\\ud83d"},"finish_reason":"\\udc00"}]}'),
        raw(b'{"choices":[{"message":{"content":"\\ud83d\\ude00"}}]}'),
        logprob(b"-Infinity"),
        logprob(b"NaN"),
        logprob(b"-" + large),
        raw(
            b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":'
            + large
            + b',"completion_tokens":1}}'
        ),
    ]
    asked = retriever(server, with_logprobs=True, prices=Prices(1.0, 1.0))
    answers = [asked.answer([chat])[0] for chat in chats(6)]
    assert [answer.response for answer in answers] == ["a\ufffd", "\U0001f600", "x", "x", "x", "x"]
    assert answers[0].extra == {"finish_reason": "\ufffd"}
    for answer in answers[2:5]:
        assert answer.logprobs is None
        assert answer.extra == {"logprobs_left_out": "not all finite"}
    assert answers[5].extra == {}
    for answer in answers:
        json.dumps(
            [answer.response, dict(answer.extra)], allow_nan=False, ensure_ascii=False
        ).encode()


def test_ends_and_refusals(server: Server) -> None:
    server.faults = [
        says(200, completion("cut", finish_reason="length")),
        says(200, completion(None, finish_reason="content_filter")),
    ]
    first, second = (retriever(server, concurrency=1).answer(chats(1))[0] for _ in range(2))
    assert (first.response, first.is_cut_off) == ("cut", True)
    assert (second.response, second.is_cut_off, second.extra["finish_reason"]) == (
        "",
        False,
        "content_filter",
    )


def test_tokens_and_cost(server: Server) -> None:
    priced = retriever(server, prices=Prices(2.0, 8.0)).answer(chats(1))[0]
    assert priced.extra["usage"] == {"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.00028}
    assert retriever(server).answer(chats(1))[0].extra["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 10,
    }
    server.faults = [
        says(200, {**completion(), "usage": usage})
        for usage in (None, {"prompt_tokens": "many"}, [])
    ]
    assert all(not answer.extra for answer in retriever(server).answer(chats(3)))


def test_no_key_no_header(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    retriever(server).answer(chats(1))
    assert "Authorization" not in server.headers[0]
    monkeypatch.setenv("OTHER_KEY", "other")
    retriever(server, key_variable="OTHER_KEY").answer(chats(1))
    assert server.headers[1]["Authorization"] == "Bearer other"


def test_length_under_its_second_name(server: Server) -> None:
    message = {
        "error": {
            "message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        }
    }
    server.always = lambda body: says(400, message) if "max_tokens" in body else None
    client = retriever(server, max_new_tokens=7, concurrency=1)
    assert [answer.response for answer in client.answer(chats(2))] == [GOOD] * 2
    assert [("max_tokens" in body, body.get("max_completion_tokens")) for body in server.bodies] == [
        (True, None), (False, 7), (False, 7),
    ]  # fmt: skip


def test_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")
    client = ApiRetriever("api:http://models.example:81/v1#m", limits=Limits(max_retries=0))
    assert client.answer(chats(1))[0].response == GOOD
    assert server.paths == ["http://models.example:81/v1/chat/completions"]


# -- faults that pass ---------------------------------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "429": says(429),
    "500": says(500, {"error": "boom"}),
    "503": says(503, {"detail": "starting"}),
    "cut at once": cut_at_once,
    "cut in the middle": cut_in_the_middle,
    "broken JSON": broken_json,
    "HTML": html,
    "no choices": says(200, {"choices": []}),
    "a list": says(200, []),
    "a number for an answer": says(200, completion(7)),
    "an error with 200": says(200, {"error": {"message": "overloaded"}}),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_passed_over(server: Server, fault: str) -> None:
    server.faults = [PASSING[fault], PASSING[fault]]
    assert retriever(server).answer(chats(1))[0].response == GOOD
    assert len(server.bodies) == 3


SENTENCES = {
    "429": "429 (no)",
    "500": "500 (boom)",
    "503": "503 (starting)",
    "cut at once": "a cut connection (",
    "cut in the middle": "a cut connection (",
    "broken JSON": "application/json that is not JSON (19 bytes)",
    "HTML": "text/html that is not JSON (20 bytes)",
    "no choices": "JSON that is no chat completion",
    "a list": "JSON that is no chat completion",
    "a number for an answer": "a chat completion whose content is no text",
    "an error with 200": "an error in the place of an answer (overloaded)",
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_does_not_pass(server: Server, fault: str) -> None:
    server.always = lambda body: PASSING[fault]
    (found,) = retriever(server).answer(chats(1))
    assert str(found.failure).startswith(
        f"dialogue 'd0': the server was asked 4 times and gave no answer, at last {SENTENCES[fault]}"
    )
    assert (found.response, len(server.bodies)) == ("", 4)
    with pytest.raises(ApiError) as caught:
        retriever(server, concurrency=1, max_retries=0).answer(chats(9))
    assert str(caught.value).startswith(
        f"dialogue 'd2': the server was asked once and gave no answer, at last {SENTENCES[fault]}"
    ), caught.value
    assert str(caught.value).endswith(
        f"; it answers nothing else either: see whether it runs at {server.url.removesuffix('/v1')}, "
        "and go on by the same command (answers so far are kept)"
    )
    assert len(server.bodies) == 4 + 3 + 1  # three in a row, and a word
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "?"}]


def test_json_under_another_content_type_is_taken(server: Server) -> None:
    server.faults = [says(200, completion("fine"), Content_Type="text/plain")]
    assert retriever(server).answer(chats(1))[0].response == "fine"


@pytest.mark.parametrize("slow", [drip, drip_headers])
def test_a_slow_drip_is_cut_off(server: Server, slow: Fault) -> None:
    CUT_OFF.clear()
    server.faults = [slow]
    begin = time.monotonic()
    assert retriever(server, timeout_s=0.5).answer(chats(1))[0].response == GOOD
    assert time.monotonic() - begin >= 0.5
    assert CUT_OFF.wait(20)  # one that came to its end would have set nothing
    server.always = lambda body: slow
    (found,) = retriever(server, timeout_s=0.5, max_retries=0).answer(chats(1))
    assert "at last no whole answer within 0.5 s" in str(found.failure)


def test_a_server_that_is_not_there(server: Server) -> None:
    url = server.url
    server.close()
    with pytest.raises(
        ApiError,
        match=r"a cut connection \(ConnectionRefusedError.*see whether it runs at http://127",
    ):
        ApiRetriever(f"api:{url}#m", limits=Limits(max_retries=1, first_wait_s=0.01)).answer(
            chats(3)
        )


def test_too_long_an_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "_MAX_ANSWER_BYTES", 1 << 20)
    server.faults = [says(200, completion("x" * (3 << 20)))]
    (found,) = retriever(server, max_retries=0).answer(chats(1))
    assert "an answer of more than 1 MiB" in str(found.failure)


def test_retry_after_is_kept_by_all(server: Server) -> None:
    """One 429 with Retry-After holds back every thread: nothing is begun before the second is over."""
    server.faults = [says(429, Retry_After="1")]
    client = retriever(server, concurrency=1)
    client.answer(chats(3))
    first, *later = server.times
    assert all(moment - first >= 1.0 for moment in later)
    server.faults = [says(503, Retry_After="3600")]
    with pytest.raises(ApiError, match=r"the server sent 503 \(no\) and wants 3,600 s of rest"):
        client.answer(chats(1))


def test_waits_double_with_jitter(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    client = retriever(server, max_retries=9, first_wait_s=1.0)
    monkeypatch.setattr(client._client._gives_up, "wait", lambda seconds: waits.append(seconds))
    server.always = lambda body: says(500)
    assert "asked 10 times" in str(client.answer(chats(1))[0].failure)
    assert len(waits) == 9
    assert all(
        0.5 * longest <= wait <= longest
        for wait, longest in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True)
    )
    assert len({wait / 2**number for number, wait in enumerate(waits[:6])}) == 6


def test_requests_per_minute(server: Server) -> None:
    """1,200 a minute is one every 50 ms, whatever the concurrency; a repeated request counts."""
    server.faults = [says(500)]
    retriever(server, requests_per_minute=1200, concurrency=4).answer(chats(7))
    assert len(server.times) == 8
    assert server.times[-1] - server.times[0] >= 7 * 0.05 - 0.02


def test_concurrency(server: Server) -> None:
    """Requests wait for one another in the server: as many come in as are allowed, and no more."""
    barrier = threading.Barrier(3)

    def together(handler: BaseHTTPRequestHandler) -> None:
        barrier.wait(10)
        says(200, completion())(handler)

    server.always = lambda body: together
    retriever(server, concurrency=3, max_retries=0).answer(chats(9))
    assert server.most_at_a_time == 3


# -- faults that do not pass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (says(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}), "the key in OPENAI_API_KEY is not taken"),
        (says(404), "the URL ends before /chat/completions"),
        (says(307, {}, Location="http://elsewhere.example/"), "name that address in api:URL#MODEL"),
        (says(429, {"error": {"message": "pay", "code": "insufficient_quota"}}), r"refused with 429 \(pay; insufficient_quota\)"),
    ],
)  # fmt: skip
def test_refusals_are_not_repeated(server: Server, fault: Fault, sentence: str) -> None:
    server.always = lambda body: fault
    with pytest.raises(ApiError, match=sentence) as caught:
        retriever(server).answer(chats(1))
    assert str(caught.value).startswith("dialogue 'd0': the server refused with ")
    assert KEY not in str(caught.value)
    assert len(server.bodies) == 1


TOO_LONG = says(400, {"error": {"message": "This model's maximum context length is 4096 tokens."}})
FILTERED = says(400, {"error": {"message": f"content filter, {KEY[:9]}\n{KEY[9:]}"}})


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (TOO_LONG, "the server refused with 400 (This model's maximum context length is 4096 tokens.); cut long dialogues by --window"),
        (FILTERED, "the server refused with 400 (content filter, [key]); correct what it names"),
        (says(422, {"detail": "no such field"}), "the server refused with 422 (no such field); correct what it names"),
    ],
)  # fmt: skip
def test_a_refusal_of_one_request_is_no_fault_of_the_others(
    server: Server, fault: Fault, sentence: str
) -> None:
    server.always = fails_at("talk 1", fault)
    answers = retriever(server).answer(chats(3))
    assert [answer.response for answer in answers] == [GOOD, "", GOOD]
    assert answers[0].failure is answers[2].failure is None
    assert str(answers[1].failure).startswith(f"dialogue 'd1': {sentence}")
    assert len(server.bodies) == 3


def test_the_key_is_taken_out_before_a_reason_is_cut(server: Server) -> None:
    server.always = lambda body: says(500, {"error": {"message": "m" * 285 + f" {KEY}"}})
    (found,) = retriever(server, max_retries=0).answer(chats(1))
    assert "mmm" in str(found.failure)
    assert KEY[:6] not in str(found.failure)


def test_a_query_that_is_refused_does_not_block_the_others(server: Server, tmp_path: Path) -> None:
    server.always = fails_at("talk 1", FILTERED)
    results = evaluate(chats(3), retriever(server), tmp_path / "out", dataset="made")
    answers = results.summary["answers"]
    assert (answers["num_answers"], answers["num_failed"], answers["num_malformed"]) == (3, 1, 1)
    assert answers["problems"] == {"no answer": 1}
    assert [note for note in results.notes if "could not be answered" in note] == [
        "1 of 3 queries could not be answered and count as wrong; the same command asks them again. Why: dialogue 'd1': "
        "the server refused with 400 (content filter, [key]); correct what it names"
    ]
    # the truths name the first line, which the answers do too
    assert results.summary["scores"]["sample_utterance_f1"] == pytest.approx(2 / 3)
    assert results.summary["scores"]["exact_match"] == pytest.approx(2 / 3)
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    evaluate(chats(3), retriever(server), tmp_path / "out", dataset="made")
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    assert len(server.bodies) == 4, "it alone is asked again"
    server.always = lambda body: None
    results = evaluate(chats(3), retriever(server), tmp_path / "out", dataset="made")
    assert (results.summary["answers"]["num_failed"], results.summary["scores"]["exact_match"]) == (
        0,
        1,
    )
    evaluate(chats(3), retriever(server), tmp_path / "whole", dataset="made")
    whole = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole


@pytest.mark.parametrize("concurrency", [1, 4])
def test_queries_that_are_never_answered_do_not_block_the_others(
    server: Server, tmp_path: Path, concurrency: int
) -> None:
    """However many of them follow each other: the server is asked for a word, and gives it."""
    bad = {f"talk {number}\\n" for number in range(1, 7)}

    def always(body: dict[str, Any]) -> Fault | None:
        said = json.dumps(body["messages"])
        return says(500) if any(text in said for text in bad) else None

    server.always = always
    options = {"concurrency": concurrency, "max_retries": 1}
    for num_resumed, num_asked in ((0, 9), (3, 6)):
        del server.bodies[:]
        results = evaluate(chats(9), retriever(server, **options), tmp_path / "out", dataset="made")
        assert results.summary["answers"]["num_failed"] == 6
        assert results.provenance["num_answers_resumed"] == num_resumed
        queries = {json.dumps(body["messages"]) for body in server.bodies} - {
            json.dumps([{"role": "user", "content": "?"}])
        }
        assert len(queries) == num_asked
    assert "dialogue 'd1': the server was asked 2 times and gave no answer" in results.notes[0]
    bad.clear()
    results = evaluate(chats(9), retriever(server, **options), tmp_path / "out", dataset="made")
    assert (results.summary["answers"]["num_failed"], results.summary["scores"]["exact_match"]) == (
        0,
        1,
    )


def test_a_server_that_goes_down_stops_the_work(server: Server, tmp_path: Path) -> None:
    server.faults = [says(200, completion())] * 2
    server.always = lambda body: says(503)
    options = {"concurrency": 1, "max_retries": 0}
    with pytest.raises(ApiError, match=r"dialogue 'd4': .* it answers nothing else either: see"):
        evaluate(chats(9), retriever(server, **options), tmp_path / "out", dataset="made")
    assert len(server.bodies) == 2 + 3 + 1
    assert not (tmp_path / "out" / "results.json").exists()
    server.always = lambda body: None
    results = evaluate(chats(9), retriever(server, **options), tmp_path / "out", dataset="made")
    assert results.provenance["num_answers_resumed"] == 2
    assert results.summary["answers"]["num_failed"] == 0


def test_failures_may_be_bounded(server: Server, tmp_path: Path) -> None:
    server.always = lambda body: None if "talk 0" in json.dumps(body) else FILTERED
    slowly = {"concurrency": 1}
    with pytest.raises(
        DataError, match=r"dialogue 'd2': .* \(this is failure 2, and max_failures is 1: stopped"
    ):
        evaluate(
            chats(5), retriever(server, **slowly), tmp_path / "out", dataset="made", max_failures=1
        )
    assert len(server.bodies) <= 4
    assert not (tmp_path / "out" / "results.json").exists()
    results = evaluate(
        chats(5), retriever(server, **slowly), tmp_path / "out", dataset="made", max_failures=4
    )
    assert results.summary["answers"]["num_failed"] == 4


def test_a_server_that_refuses_all_gives_no_result(server: Server, tmp_path: Path) -> None:
    server.always = lambda body: FILTERED
    with pytest.raises(
        DataError, match="none of 3 queries can be answered; the first: dialogue 'd"
    ):
        evaluate(chats(3), retriever(server), tmp_path / "out", dataset="made")
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("answer", "text", "extra"),
    [
        (
            completion([{"type": "text", "text": GOOD[:5]}, {"type": "text", "text": GOOD[5:]}]),
            GOOD,
            {},
        ),
        (completion([{"type": "image_url"}, {"type": "text", "text": GOOD}]), GOOD, {}),
        (completion("\ud83d" + GOOD), "\ufffd" + GOOD, {}),
        (
            completion("x", logprobs={"content": [{"logprob": -math.inf}]}),
            "x",
            {"logprobs_left_out": "not all finite"},
        ),
        (completion("x", logprobs={"content": [{"logprob": -(10**400)}]}), "x", {}),
        (
            completion("x") | {"usage": {"prompt_tokens": 10**400, "completion_tokens": 1}},
            "x",
            {"usage": None},
        ),
    ],
)
def test_odd_answers_are_answers(
    server: Server, tmp_path: Path, answer: dict[str, Any], text: str, extra: dict[str, Any]
) -> None:
    server.always = lambda body: says(200, answer)
    [found] = retriever(server, prices=Prices(1.0, 1.0), with_logprobs=True).answer(chats(1))
    assert (found.response, found.logprobs, found.failure) == (text, None, None)
    assert {name: found.extra.get(name) for name in extra} == extra
    evaluate(chats(1), retriever(server, with_logprobs=True), tmp_path / "out", dataset="made")


def test_a_picture_that_cannot_be_opened(server: Server, pictured: Example, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(b"none")
    [answer] = retriever(server).answer([pictured])
    assert str(answer.failure).startswith("dialogue 'd': image ")
    assert not server.bodies


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("api:http://localhost:8000/v1", "api:URL#MODEL"),
        ("api:localhost:8000#m", "begins with http"),
        ("api:ftp://host/v1#m", "begins with http"),
        ("api:http://:80/#m", "begins with http"),
        ("api:http://host:99999/#m", "begins with http"),
        (f"api:https://me:{KEY}@host/v1#m", "holds a user name"),
        (f"api:https://host/v1?key={KEY}#m", "holds a user name, a password or a query"),
        ("api:http://host/a\r\nX: y#m", "begins with http"),
    ],
)
def test_wrong_names(name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        split_name(name)
    assert KEY not in str(caught.value)


def test_a_key_with_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nHost: x")
    with pytest.raises(
        UsageError, match="the key in OPENAI_API_KEY holds characters that no key has"
    ) as caught:
        ApiRetriever("api:http://host/v1#m")
    assert KEY not in str(caught.value)


# -- in an evaluation ---------------------------------------------------------------------------------------------------------


def answered(folder: Path) -> set[int]:
    path = folder / "predictions.jsonl"
    return (
        {json.loads(line)["index"] for line in path.read_text().splitlines()}
        if path.exists()
        else set()
    )


def fails_at(text: str, fault: Fault) -> Callable[[dict[str, Any]], Fault | None]:
    return lambda body: fault if text in json.dumps(body["messages"]) else None


def test_a_failure_loses_nothing_that_was_answered(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that were under way beside the failing one are written down; the same command asks the rest."""
    gate = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(10)
        says(200, completion())(handler)

    stop = ChatClient.stop_retrying

    def seen(client: ChatClient) -> None:
        stop(client)
        gate.set()

    # 0, 2 and 3 answer after 1 has failed and the client has seen it
    monkeypatch.setattr(ChatClient, "stop_retrying", seen)
    server.always = lambda body: says(401) if "talk 1\\n" in json.dumps(body["messages"]) else slow
    with pytest.raises(ApiError, match="dialogue 'd1'"):
        evaluate(chats(12), retriever(server, concurrency=4), tmp_path / "out", dataset="made")
    assert answered(tmp_path / "out") == {0, 2, 3}
    assert len(server.bodies) == 4
    server.always = lambda body: None
    results = evaluate(chats(12), retriever(server), tmp_path / "out", dataset="made")
    assert results.provenance["num_answers_resumed"] == 3
    assert len(server.bodies) == 4 + 9
    evaluate(chats(12), retriever(server), tmp_path / "whole", dataset="made")
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == (
        tmp_path / "whole" / "predictions.jsonl"
    ).read_bytes()


def test_a_hanging_server_does_not_hold_what_failed(server: Server) -> None:
    """A request in its back-off when another fails for good gives up at once."""
    server.always = lambda body: says(401) if "talk 1" in json.dumps(body) else says(500)
    begin = time.monotonic()
    with pytest.raises(ApiError):
        retriever(server, first_wait_s=60.0).answer(chats(2))
    assert time.monotonic() - begin < 30  # the shortest that one wait may last


def test_tokens_and_cost_add_up_over_an_interruption(server: Server, tmp_path: Path) -> None:
    server.always = fails_at("talk 4", says(401))
    options: dict[str, Any] = {"prices": Prices(1.0, 10.0), "concurrency": 1}
    with pytest.raises(ApiError):
        evaluate(chats(6), retriever(server, **options), tmp_path, dataset="made")
    server.always = lambda body: None
    results = evaluate(chats(6), retriever(server, **options), tmp_path, dataset="made")
    usage = results.summary["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (600, 60)
    assert usage["cost"] == pytest.approx(600e-6 + 600e-6)


def test_windows_over_a_server(server: Server, tmp_path: Path) -> None:
    """Pieces of all dialogues are under way together: each waits in the server until three have come."""
    barrier = threading.Barrier(3)

    def together(handler: BaseHTTPRequestHandler) -> None:
        barrier.wait(10)
        says(200, completion())(handler)

    server.always = lambda body: together
    examples = [
        Example(Dialogue(f"d{number}", tuple(Utterance("a", (f"{number}.{line}",)) for line in range(7))), "q", Fragment((0, 3, 6)))
        for number in range(3)
    ]  # fmt: skip
    windowed = WindowedRetriever(retriever(server, concurrency=3, max_retries=0), window=3)
    results = evaluate(examples, windowed, tmp_path, dataset="made")
    assert len(server.bodies) == 9
    assert results.summary["scores"]["utterance_f1"] == 1
    assert results.summary["usage"]["prompt_tokens"] == 900


def test_the_key_is_nowhere(
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that repeats the key in everything it says: it stands in no file, no log, no error."""
    caplog.set_level(logging.DEBUG)
    leak = {"error": {"message": f"your key {KEY} is bad, header Bearer {KEY}"}}
    raised: list[FfrError] = []
    for number, fault in enumerate(
        [
            says(401, leak),
            says(500, leak),
            says(200, leak),
            says(429, leak, Retry_After="9999"),
            says(307, leak),
        ]
    ):
        # the fault of one query, which may be written down, and of the server
        for text in ("talk 2", ""):
            server.always = fails_at(text, fault)
            out = tmp_path / f"{number}{text}"
            try:
                evaluate(chats(4), retriever(server, max_retries=1), out, dataset="made")
            except FfrError as error:
                raised.append(error)
    assert len(raised) == 2 * 3 + 2, "500 and an error in place of an answer are a query's own"
    server.always = lambda body: None
    evaluate(chats(4), retriever(server), tmp_path / "good", dataset="made")
    assert all(headers["Authorization"].endswith(KEY) for headers in server.headers)
    import traceback

    texts = ["".join(traceback.format_exception(error)) for error in raised]
    texts += [*capfd.readouterr(), caplog.text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 6
    texts += [path.read_text() for path in files]
    assert not any(KEY in text for text in texts)
    assert any("[key]" in text for text in texts)
