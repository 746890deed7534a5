"""A model asked from Python: answers, scores, several queries at once, and what is refused."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from model_builds import random_picture

from ffr.answer import format_answer, read_answer
from ffr.data.catalog import load_dataset
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, ModelError, UsageError
from ffr.models.decoding import greedy
from ffr.retrieval.asking import Model, RetrievedFragment, load_model
from ffr.retrieval.fitting import AskedData
from ffr.settings import AnswerConfig

CHAT = [("Ann", "the bus is late"), ("Bob", "too bad"), ("Ann", [Path("bus.png"), "see"])]


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load_model("tiny")


@pytest.fixture
def server() -> Iterator[str]:
    """A chat-completions server that names the first line, with two tokens of probability 0.5."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            choice: dict[str, Any] = {"message": {"content": format_answer(Fragment((0,)))}}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"logprob": math.log(0.5)}] * 2}
            content = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield f"api:http://127.0.0.1:{found.server_port}/v1#m"
    found.shutdown()
    found.server_close()


def test_a_baseline_answers_with_what_it_shares() -> None:
    found = load_model("baseline:overlap").retrieve(CHAT, "late bus at night")
    assert found == Fragment((0,))
    assert hash(found) == hash(Fragment((0,)))
    assert Fragment((0,)) == found
    assert found != Fragment((1,))
    assert found.score == 0.5
    assert found.utterances == (Utterance("Ann", ("the bus is late",)),)
    assert (found.images, found.text) == ((), "Ann: the bus is late")
    everything = load_model("baseline:everything").retrieve(CHAT, "late")
    assert everything.images == (Image("bus.png"),)
    assert everything.text == "Ann: the bus is late\nBob: too bad\nAnn: see [image 0: bus.png]"
    assert everything.dialogue == Dialogue.of(CHAT)
    picture_alone = RetrievedFragment((1,), (0,), Example(Dialogue.of(CHAT), "q"))
    assert picture_alone.text == "Bob: too bad\nAnn: [image 0: bus.png]"
    with pytest.raises(ValueError, match="was made by hand and knows no dialogue"):
        RetrievedFragment((0,)).text  # noqa: B018


def test_several_queries_share_one_pass_of_their_dialogue(
    tiny: Model, sample_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset("sample")
    example = data[0]
    queries = [data[index].query for index in range(3)]
    parts: list[list[int]] = []
    answer_neighbours = greedy.answer_neighbours

    def counted(vlm: Any, units: Any, **options: Any) -> Any:
        parts.append([len(unit) for unit in units])
        return answer_neighbours(vlm, units, **options)

    monkeypatch.setattr(greedy, "answer_neighbours", counted)
    together = tiny.retrieve(example, queries)
    assert parts == [[3]]
    for query, found in zip(queries, together, strict=True):
        alone = tiny.retrieve(example, query)
        assert (found, found.response) == (alone, alone.response)
        assert found.score == pytest.approx(alone.score, abs=1e-4)
    assert tiny.retrieve(example, []) == []


def test_the_score_of_a_written_answer_is_its_tokens_probability(
    tiny: Model, sample_home: Path
) -> None:
    example = load_dataset("sample")[0]
    found = tiny.retrieve(example, example.query)
    whole = load_model("tiny", logprobs=True)
    (answer,) = whole.retriever(AskedData((), "d", None)).answer([example])
    assert answer.logprobs is not None
    expected = math.exp(sum(answer.logprobs) / len(answer.logprobs))
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert found.problems == ()
    assert read_answer(found.response) == found


def test_settings_are_those_of_eval(sample_home: Path) -> None:
    example = load_dataset("sample")[0]
    short = load_model("tiny", max_new_tokens=3).retrieve(example, example.query)
    assert short.problems[-1] == "cut off at the longest length"
    windowed = load_model("baseline:overlap", window=2)
    found = windowed.retrieve(CHAT, "late see")
    assert (found.utterance_ids, found.image_ids) == ((0, 2), (0,))
    assert found.score == 0.5  # the mean of two pieces, each with one of two words


def test_invented_ids_are_left_out_and_said(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("baseline:everything")
    monkeypatch.setattr(
        "ffr.retrieval.lexical.BaselineRetriever.fragment", lambda self, example: Fragment((0, 9))
    )
    monkeypatch.setattr("ffr.retrieval.lexical.shared_words", lambda example, fragment: 0.5)
    found = model.retrieve(CHAT, "late")
    assert found == Fragment((0,))
    assert found.problems == ("utterance ids out of range",)


def test_pictures_are_found_beside_the_data(tiny: Model, tmp_path: Path) -> None:
    random_picture(tmp_path / "bus.png", 40, 40)
    chat = Dialogue.of(CHAT)
    by_root = tiny.retrieve(chat, "bus", image_root=tmp_path)
    assert (
        tiny.retrieve(Example(chat, "q", image_root=tmp_path), "bus").response == by_root.response
    )
    assert tiny.retrieve(chat, "bus", image_root=str(tmp_path)).response == by_root.response
    with pytest.raises(DataError, match=r'image "bus\.png" not found'):
        tiny.retrieve(chat, "bus")
    with pytest.raises(DataError, match=r'image "bus\.png" not found'):
        tiny.retrieve(chat, ["bus", "late"])


def test_a_server_has_a_score_where_it_tells_log_probabilities(server: str) -> None:
    found = load_model(server).retrieve(CHAT[:2], "bus")
    assert (found, found.score) == (Fragment((0,)), None)
    found = load_model(server, logprobs=True).retrieve(CHAT[:2], "bus")
    assert found.score == pytest.approx(0.5)


def test_an_encoder_has_the_likeness_of_what_it_chose(sample_home: Path, tmp_path: Path) -> None:
    example = load_dataset("sample")[0]
    everything = load_model("embedding:tiny-clip", threshold=-1).retrieve(example, "衬衫")
    nothing = load_model("embedding:tiny-clip", threshold=1).retrieve(example, "衬衫")
    assert len(everything.utterance_ids) == len(example.dialogue.utterances)
    assert 0 < float(everything.score or 0) < 1
    assert (nothing, nothing.score) == (Fragment(), 0.0)
    close = load_model("embedding:tiny-clip", threshold=0.6).retrieve(example, "衬衫")
    assert 0 < len(close.utterance_ids) < len(example.dialogue.utterances)
    assert float(close.score or 0) > float(everything.score or 0)


def test_a_run_is_a_model_by_its_folder(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load_model(model_folder("qwen2-vl"), max_new_tokens=4)
    assert model.retrieve(CHAT[:2], "bus").score is not None
    assert repr(model) == f"<ffr model {model_folder('qwen2-vl')}>"


@pytest.mark.parametrize(
    ("name", "settings", "kind", "sentence"),
    [
        ("baseline:overlapp", {}, UsageError, "no baseline 'overlapp'; there are everything"),
        ("./none", {}, UsageError, "no such model folder or run"),
        ("tiny", {"constraint": True}, UsageError, "no setting constraint; did you mean `?constr"),
        ("tiny", {"window": -1}, UsageError, "window"),
        ("tiny", {"threshold": 0.5}, UsageError, "setting threshold has no meaning for tiny"),
        ("baseline:overlap", {"constrained": True}, UsageError, "constrained has no meaning"),
        ("tiny", {"device": "cuda:99"}, UsageError, "cannot be used here"),
        ("embedding:tiny-clip", {}, UsageError, "must know what is similar enough; name data"),
        ("embedding:", {"threshold": 0.5}, UsageError, "names no encoder"),
        ("embedding:./none", {"threshold": 0.5}, ModelError, "none"),
        ("http://localhost/v1", {}, UsageError, "a server is written api:http://localhost/v1"),
    ],
)
def test_what_cannot_be_opened_is_said(
    name: str, settings: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        load_model(name, **settings)


def test_a_fragment_shows_itself_in_a_notebook() -> None:
    chat = [("<b>", "the bus & co"), ("Bob", "too bad")]
    found = load_model("baseline:overlap").retrieve(chat, "bus")
    html = found._repr_html_()
    assert "<th>&lt;b&gt;</th><th>the bus &amp; co</th>" in html
    assert "<td>Bob</td><td>too bad</td>" in html
    assert "<b>" not in html


def test_the_same_settings_class_as_the_command() -> None:
    assert load_model("baseline:overlap", window=7)._settings == AnswerConfig(window=7)
