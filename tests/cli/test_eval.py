"""`ffr eval` by exit code and text, with a random model, baselines and prediction files."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.data.forms.predictions import read_predictions
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, ["eval", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A file of three dialogues with two queries each; the working folder is a fresh one."""
    monkeypatch.chdir(tmp_path)
    found = []
    for number in range(3):
        PIL.Image.new("RGB", (28, 28), (80 * number, 10, 10)).save(tmp_path / f"{number}.png")
        lines = [Utterance("a", (f"line {index} of talk {number}",)) for index in range(3 + number)]
        chat = Dialogue(f"d{number}", (*lines, Utterance("b", (Image(f"{number}.png"),))))
        found += [
            Example(chat, f"talk {number}", Fragment((0, 1), (0,))),
            Example(chat, "no such thing", Fragment()),
        ]
    write_examples(tmp_path / "data.jsonl", found)
    return tmp_path / "data.jsonl"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Qwen2-VL of a few thousand random weights, saved as a real one is."""
    import model_builds

    return model_builds.build_model("qwen2-vl", tmp_path_factory.mktemp("model") / "qwen2-vl")


def test_baseline(data):
    code, text = run("--dataset", data, "--model", "baseline:everything")
    assert code == 0, text
    assert text.startswith(f"Evaluating baseline:everything on {data}\n")
    assert "6 queries; output folder eval/baseline-everything-data" in text
    assert "bold: the best of a column" in text
    assert "\n overlap " in text
    assert "below the best baseline overlap " in text.splitlines()[-1]
    assert text.splitlines()[-1].endswith("next: ffr report eval/baseline-everything-data")
    assert "length <35" not in text
    assert "Malformed answers: 0 (0.00 %)" in text
    folder = Path("eval/baseline-everything-data")
    results = json.loads((folder / "results.json").read_text())
    assert results["summary"]["scores"]["utterance_recall"] == 1
    assert "baseline:everything" not in results["baselines"]
    assert len(read_predictions(folder / "predictions.jsonl")) == 6


def test_model_from_start_to_finish(data, model):
    code, text = run(
        "--dataset",
        data,
        "--model",
        model,
        "--out",
        "free",
        "--max-new-tokens",
        8,
        "--logprobs",
        "--coherence",
        "--no-baselines",
    )
    assert code == 0, text
    results = json.loads(Path("free/results.json").read_text())
    assert results["summary"]["answers"]["num_answers"] == 6
    assert results["model"]["fingerprint"]
    assert results["baselines"] == {}
    assert results["summary"]["coherence"]["num_answers"] == 6
    assert "Fragment order coherence: " in text
    assert "query–fragment similarity: " in text
    for line in read_predictions("free/predictions.jsonl"):
        assert line.logprobs
        assert max(line.logprobs) <= 0
    if results["summary"]["answers"]["num_cut_off"]:
        assert "answers were cut off at the longest length" in " ".join(text.split())
    # batches are part of what is evaluated; their size must not change an answer of this model in
    # float32
    code, text = run(
        "--dataset",
        data,
        "--model",
        model,
        "--out",
        "alone",
        "--max-new-tokens",
        8,
        "--batch-tokens",
        1,
        "--no-baselines",
    )
    assert code == 0, text
    together, alone = (
        read_predictions("free/predictions.jsonl"),
        read_predictions("alone/predictions.jsonl"),
    )
    assert [line.response for line in together] == [line.response for line in alone]


def test_constrained_answers_are_well_formed(data, model):
    code, text = run(
        "--dataset",
        data,
        "--model",
        model,
        "--out",
        "out",
        "--constrained",
        "--wrong-pictures",
        "--limit",
        4,
    )
    assert code == 0, text
    assert "CONTROL WITH WRONG PICTURES" in text
    results = json.loads(Path("out/results.json").read_text())
    assert results["summary"]["answers"]["num_malformed"] == 0
    assert results["summary"]["answers"]["problems"] == {}
    assert results["model"]["label"].endswith("(wrong pictures)")
    code, text = run(
        "--dataset", data, "--model", model, "--out", "out", "--wrong-pictures", "--limit", 4
    )
    assert code == 2
    assert "holds an evaluation that differs in model constrained" in text


def test_json_is_all_that_stdout_gets(data):
    done = CliRunner().invoke(
        ffr, ["eval", "--dataset", str(data), "--model", "baseline:nothing", "--json"]
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["data"]["num_examples"] == 6
    assert "Evaluating baseline:nothing" in done.stderr


def test_predictions(data, monkeypatch):
    run("--dataset", data, "--model", "baseline:overlap", "--out", "out")
    code, text = run("--predictions", "out/predictions.jsonl", "--out", "scored")
    assert code == 0, text
    assert text.startswith("Scoring out/predictions.jsonl (no model)")
    own, scored = (
        json.loads(Path(folder, "results.json").read_text()) for folder in ("out", "scored")
    )
    assert own["summary"]["scores"] == scored["summary"]["scores"]
    done = CliRunner().invoke(ffr, ["compare", "out", "scored"])
    assert done.exit_code == 0, done.output
    assert "B better on 0, worse on 0, the same on 6" in done.output
    # another's file has no keys; the copy has
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    keys = [line.pop("key") for line in lines]
    Path("third.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("--predictions", "third.jsonl", "--out", "third")[0] == 0
    assert [
        json.loads(line)["key"] for line in Path("third/predictions.jsonl").read_text().splitlines()
    ] == keys
    assert CliRunner().invoke(ffr, ["compare", "out", "third"]).exit_code == 0
    before = Path("out/predictions.jsonl").read_bytes()
    code, text = run("--predictions", "third.jsonl", "--out", "out")
    assert (code, "holds the evaluation of a model" in text) == (2, True), text
    assert Path("out/predictions.jsonl").read_bytes() == before
    # from another folder
    folder = Path("third").resolve()
    elsewhere = data.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    done = CliRunner().invoke(ffr, ["show", str(folder), "--id", "1"])
    assert done.exit_code == 0, done.output


def test_the_published_reading_is_a_third_block(data):
    words = ["--model", "baseline:everything", "--dataset", data, "--out", "out", "--no-baselines"]
    code, text = run(*words, "--reading", "published")
    assert code == 0, text
    summary = json.loads(Path("out/results.json").read_text())["summary"]
    published = summary["published"]
    assert (published["num_scored"], published["num_skipped"], published["num_unmarked"]) == (
        6,
        0,
        0,
    )
    # well-formed answers, each dialogue with an image: the same figures to the last bit
    assert published["scores"] == {name: summary["scores"][name] for name in published["scores"]}
    assert len(published["scores"]) == 24
    assert "Published reading (6 answers, 0 skipped" in text
    code, text = run("--predictions", "out/predictions.jsonl", "--reading", "published", "--json")
    assert code == 0, text
    assert json.loads(text[text.index("{") :])["summary"]["published"] == published
    run(*words)
    assert "published" not in json.loads(Path("out/results.json").read_text())["summary"]


def test_skip_bad_is_counted(data):
    data.write_text(data.read_text() + "garbage\n")
    code, text = run("--dataset", data, "--model", "baseline:nothing")
    assert code == 1
    assert "data.jsonl:7: not JSON" in text
    code, text = run("--dataset", data, "--model", "baseline:nothing", "--skip-bad")
    assert code == 0
    assert "1 bad record or query left out:" in text
    assert "1 bad record or query of the data was left out." in text


def test_bare_call_takes_the_newest_finished_run(data, model):
    from ffr.runs import RunRecord

    for name, status, finished in (
        ("old", "finished", "2026-01-01"),
        ("new", "finished", "2026-01-02"),
        ("last", "failed", None),
    ):
        folder = Path("runs", name)
        folder.mkdir(parents=True)
        RunRecord("sft", status, "2026-01-01", 0, "m", "d", finished_at=finished).save(folder)
        (folder / "merged").symlink_to(model)
    code, text = run("--dataset", data, "--max-new-tokens", 4, "--limit", 1, "--no-baselines")
    assert code == 0, text
    assert text.startswith(f"Evaluating the newest finished run runs/new on {data}\n")
    assert Path("runs/new/eval/data-first-1/results.json").is_file()


class Server:
    """Speaks the protocol.

    Answers the truth of the file's dialogues, or a status where it was told to.
    """

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.bodies: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.keys.append(self.headers["Authorization"])
                text = json.dumps(body["messages"])
                status = next(
                    (number for word, number in outer.status.items() if word in text), 200
                )
                ids = "[0, 1]" if "no such thing" not in text else "[]"
                content = (
                    f"<|utt_ids_start|>{ids}<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
                )
                answer = {
                    "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1000, "completion_tokens": 20},
                }
                sent = json.dumps(
                    answer if status == 200 else {"error": {"message": "not so"}}
                ).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.model = f"api:http://127.0.0.1:{self.server.server_port}/v1#org/some-model"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_server(data, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-0123456789")
    words = [
        "--dataset",
        data,
        "--model",
        server.model,
        "--api-key-env",
        "MY_KEY",
        "--no-baselines",
    ]
    server.status = {"of talk 2": 422}
    code, text = run(*words, "--concurrency", 1, "--max-failures", 0)
    assert code == 1
    assert "dialogue 'd2': the server refused with 422 (not so); correct what it names" in " ".join(
        text.split()
    )
    num_asked = len(server.bodies)
    assert num_asked == 5
    server.status = {}
    code, text = run(*words, "--price-in", 2, "--price-out", 5)
    assert code == 0, text
    assert text.startswith(f"Evaluating api:org/some-model on {data}\n")
    assert len(server.bodies) == num_asked + 2
    assert set(server.keys) == {"Bearer sk-secret-0123456789"}
    folder = Path("eval/api-org-some-model-data")
    results = json.loads((folder / "results.json").read_text())
    assert results["model"]["url"] == server.model.removeprefix("api:").partition("#")[0]
    assert results["provenance"]["num_answers_resumed"] == 4
    assert results["summary"]["scores"]["utterance_f1"] == 1
    assert results["summary"]["usage"]["prompt_tokens"] == 6000
    # prices may be said at any time: what was answered before them has no cost
    assert results["summary"]["usage"]["cost"] == pytest.approx(2 * (0.002 + 0.0001))
    assert not any("sk-secret" in path.read_text() for path in folder.rglob("*") if path.is_file())
    pictures = [
        part
        for body in server.bodies
        for part in body["messages"][1]["content"]
        if part["type"] == "image_url"
    ]
    assert len(pictures) == len(server.bodies)


def test_windows(data, model):
    """Dialogues of 4, 5 and 6 lines; those of more than 4 are cut."""
    words = ["--dataset", data, "--window", 4, "--overlap", 1, "--no-baselines"]
    code, text = run(*words, "--model", "baseline:everything")
    assert code == 0, text
    folder = Path("eval/baseline-everything-data-window-4-1")
    results = json.loads((folder / "results.json").read_text())
    assert results["summary"]["scores"]["utterance_recall"] == 1
    assert (results["model"]["window"], results["model"]["overlap"]) == (4, 1)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [len(line.get("pieces", ())) for line in lines] == [0, 0, 2, 2, 2, 2]
    code, text = run(*words, "--best-windows", 1, "--model", "baseline:everything")
    assert code == 0, text
    best = Path("eval/baseline-everything-data-window-4-1-best-1/predictions.jsonl")
    lines = [json.loads(line) for line in best.read_text().splitlines()]
    assert [len(line.get("pieces", ())) for line in lines] == [0, 0, 1, 1, 1, 1]
    code, text = run(*words, "--model", model, "--constrained", "--out", "out")
    assert code == 0, text
    assert (
        json.loads(Path("out/results.json").read_text())["summary"]["answers"]["num_malformed"] == 0
    )


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ["--model", "baseline:best"],
            2,
            "no baseline 'best'; there are everything, nothing, random-third, overlap, bm25",
        ),
        (["--model", "./nowhere"], 2, "no such model folder or run"),
        (["--dataset", "nowhere.jsonl", "--model", "baseline:nothing"], 2, "nowhere.jsonl"),
        (["--dataset", "mldr", "--model", "baseline:nothing"], 2, "mldr is not here"),
        (
            ["--predictions", "x.jsonl", "--model", "tiny"],
            2,
            "--model has no meaning beside --predictions",
        ),
        (["--predictions", "x.jsonl"], 1, "x.jsonl: not found"),
        (
            ["--model", "baseline:nothing", "--coherence"],
            2,
            "--coherence takes the vectors of a model",
        ),
        (["--limit", "0"], 2, "0 is not in the range"),
        (["--model", "tiny", "--device", "warp"], 2, "--device warp cannot be used here"),
        (["--model", "api:localhost#m"], 2, "begins with http:// or https://"),
        (["--model", "api:http://localhost/v1"], 2, "an endpoint is written api:URL#MODEL"),
        (
            ["--model", "api:http://h/v1#m", "--constrained"],
            2,
            "--constrained has no meaning beside api:",
        ),
        (
            ["--model", "api:http://h/v1#m", "--batch-tokens", "9"],
            2,
            "--batch-tokens has no meaning beside api:",
        ),
        (
            ["--model", "api:http://h/v1#m", "--api-key-env", "NO_SUCH"],
            2,
            "--api-key-env NO_SUCH: no such variable is set",
        ),
        (
            ["--model", "baseline:nothing", "--timeout", "9"],
            2,
            "--timeout has no meaning beside a model that is no api:",
        ),
        (
            ["--model", "baseline:nothing", "--overlap", "1"],
            2,
            "--overlap 1 is not less than --window 0",
        ),
        (
            ["--model", "baseline:nothing", "--best-windows", "1"],
            2,
            "--best-windows has no meaning without --window; give both",
        ),
        (
            ["--model", "baseline:nothing", "--window", "3", "--overlap", "3"],
            2,
            "--overlap 3 is not less than --window 3",
        ),
        (
            ["--predictions", "x.jsonl", "--window", "3"],
            2,
            "--window has no meaning beside --predictions",
        ),
        (
            ["--model", "baseline:nothing", "--logprobs"],
            2,
            "--logprobs has no meaning beside baseline:, which",
        ),
        (
            ["--model", "baseline:nothing", "--device", "cpu"],
            2,
            "nor loads a model, but with --encoder",
        ),
        (
            ["--model", "api:http://h/v1#m", "--device", "cpu"],
            2,
            "whose model runs elsewhere, but with --encoder",
        ),
        (
            ["--model", "tiny", "--encoder-cache", "x"],
            2,
            "a model that asks no encoder, but with --encoder",
        ),
        (
            ["--model", "tiny", "--select", "top-share"],
            2,
            "--select has no meaning beside a model that is no embedding:",
        ),
    ],
)
def test_wrong_calls(data, monkeypatch, words, code, sentence):
    monkeypatch.setenv("FFR_DATA_HOME", str(data.parent / "home"))
    arguments = (
        words if "--dataset" in words or "--predictions" in words else [*words, "--dataset", data]
    )
    found, text = run(*arguments)
    assert (found, sentence in text) == (code, True), text


def test_a_picture_that_is_none_is_named(data, model):
    Path("1.png").write_bytes(b"no picture")
    code, text = run("--dataset", data, "--model", model)
    assert code == 1
    assert "1.png" in text
