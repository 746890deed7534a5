"""Reports: what stands in the page, that hostile texts stay texts, that pages stay small, and what a browser makes of it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import random
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest
from browser import Page, find_chromium

from ffr.answer import format_answer, id_text, read_answer
from ffr.data.forms.formats import write_examples
from ffr.data.forms.predictions import PredictionRecord, prediction_to_json
from ffr.dialogue import Dialogue, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.evaluation.controls import WrongPictures as WrongPictureSet
from ffr.evaluation.predictions import score_predictions
from ffr.evaluation.run import evaluate
from ffr.files import write_records
from ffr.prompt import render
from ffr.report.answered import open_evaluation
from ffr.report.html import page as html_page
from ffr.report.html.page import write_report
from ffr.report.html.pictures import Thumbnails
from ffr.report.html.plots import bar_chart, line_chart, scatter, share_chart

MAX_PAGE_BYTES = 50_000_000


class Parts(HTMLParser):
    """The elements of a page: their tags with attributes, and the text of each script, style and other element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, [])

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]].append(data)


def content_of(page: Path) -> dict:
    """What the page's script reads."""
    return json.loads(Parts(page.read_text(encoding="utf-8")).texts["script"][0])


def prediction(
    dialogue: Dialogue, query: str, response: str, truth: Fragment | None = None
) -> PredictionRecord:
    prompt = render(dialogue, query)
    return PredictionRecord(
        dialogue_id=dialogue.id,
        response=response,
        labels=None if truth is None else format_answer(truth),
        messages=({"role": "user", "content": prompt.user},),
        images=tuple(image.source for image in dialogue.images),
    )


@pytest.fixture
def evaluated(examples, fake_retriever, tmp_path):
    """An output folder of `ffr eval` on a file of five dialogues with two queries each."""
    data = tmp_path / "pictures" / "data.jsonl"
    write_examples(data, examples)
    folder = tmp_path / "out"
    evaluate(examples, fake_retriever(), folder, dataset=str(data))
    return folder


@pytest.fixture
def report(evaluated, tmp_path):
    page = tmp_path / "report.html"
    write_report(open_evaluation(evaluated), page)
    return page


def test_dialogues_pictures_and_marks(evaluated, report, examples):
    content = content_of(report)
    assert [query["q"] for query in content["queries"]] == [example.query for example in examples]
    assert len(content["dialogues"]) == 5
    for query, example in zip(content["queries"], examples, strict=True):
        lines = content["dialogues"][query["d"]]["l"]
        assert [speaker for speaker, _ in lines] == [
            line.speaker for line in example.dialogue.utterances
        ]
        texts = ["".join(part for part in parts if isinstance(part, str)) for _, parts in lines]
        assert texts == [line.text for line in example.dialogue.utterances]
        assert query["t"] == [
            list(example.fragment.utterance_ids),
            list(example.fragment.image_ids),
        ]
    # the fake answers the truth to queries of even length and talks past the point otherwise
    first, second = content["queries"][:2]
    assert first["a"] == first["t"] == [[0, 1], [0]]
    assert first["u"] == [1.0, 1.0, 1.0]
    assert first["w"] == []
    assert not first["m"]
    assert second["m"]
    assert second["w"] == ["not in the answer format", "no utterance ids", "no image ids"]
    # the truth is empty and so is what can be read of the answer
    assert second["u"] == [1.0, 1.0, 1.0]
    assert second["s"]["by_truth"] == "empty"
    # each distinct picture once, as it is on disk
    sources = [image.source for example in examples[::2] for image in example.dialogue.images]
    assert len(content["pictures"]) == len(set(sources)) == 26
    number = content["dialogues"][0]["l"][3][1][0][0]
    encoded, width, height = content["pictures"][number]
    opened = PIL.Image.open(
        io.BytesIO(base64.b64decode(encoded.removeprefix("data:image/jpeg;base64,")))
    )
    assert (opened.format, opened.size, width, height) == ("JPEG", (8, 8), 8, 8)
    assert opened.getpixel((4, 4)) == pytest.approx((0, 15, 90), abs=12)


def test_figures_are_those_of_the_results(evaluated, report):
    results = json.loads((evaluated / "results.json").read_text())
    parts = Parts(report.read_text(encoding="utf-8"))
    shown = {text for kind in ("b", "td", "small") for text in parts.texts[kind]}
    scores = results["summary"]["scores"]
    for name in ("joint_f1", "utterance_precision", "image_mcc"):
        assert f"{100 * scores[name]:.2f}" in shown
        low, high = results["intervals"]["scores"][name]
        assert f"{100 * low:.1f}–{100 * high:.1f}" in shown
    assert f"{100 * results['baselines']['baseline:everything']['scores']['joint_f1']:.2f}" in shown
    assert f"{100 * results['summary']['by_density']['<0.15']['joint_f1']:.2f}" in shown


def test_nothing_is_fetched_and_only_the_pages_own_script_runs(report):
    text = report.read_text(encoding="utf-8")
    parts = Parts(text)
    policy = next(
        attrs["content"]
        for tag, attrs in parts.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name, element in (
        ("script-src", parts.texts["script"][1]),
        ("style-src", "".join(parts.texts["style"])),
    ):
        digest = base64.b64encode(hashlib.sha256(element.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    for tag, attrs in parts.tags:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        assert attrs.get("src") is None
        assert attrs.get("href") in (None, "data:,") or attrs["href"].startswith("#")
    assert not re.search(r"https?://", parts.texts["script"][1] + "".join(parts.texts["style"]))


HOSTILE = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "<!-- <script>",
    "]]><img src=x onerror='window.pwned = 3'>",
    "\u202eright to left\u202c \u2028 line \u2029 paragraph \x07\x1b[31m",
    "مرحبا، هذه رسالة",
    "x" * 10_000,
    "&lt;b&gt; {{data}} {{script}} ${1} \\u003c",
]


@pytest.fixture
def hostile(tmp_path):
    """A prediction file in which every text tries to be more than a text."""
    lines = tuple(
        Utterance("<b>eve</b>" if number % 2 else "<i>", (text,))
        for number, text in enumerate(HOSTILE)
    )
    sources = (
        "javascript:window.pwned = 4",
        "<img src=x onerror=alert(5)>.png",
        "https://example.org/a.png",
        "data:text/html,x",
    )
    pictures = tuple(Image(source) for source in sources)
    dialogue = Dialogue(
        "</title><script>window.pwned = 6</script>", (*lines, Utterance("z", pictures))
    )
    path = tmp_path / "<script>window.pwned = 7<script>.jsonl"
    response = format_answer(Fragment((0, 1, 500), (0, 9))) + "</script>"
    records = [
        prediction(
            dialogue, "\"><svg onload='window.pwned = 8'>", response, Fragment((1, 2), (0, 1))
        ),
        prediction(dialogue, "no truth", response),
    ]
    write_records(path, map(prediction_to_json, records))
    return path


def test_hostile_texts_stay_texts(hostile, tmp_path):
    written = write_report(open_evaluation(hostile), tmp_path / "report.html")
    parts = Parts(written.pages[0].read_text(encoding="utf-8"))
    assert [tag for tag, _ in parts.tags].count("script") == 2
    assert {tag for tag, _ in parts.tags}.isdisjoint({"img", "i", "b-eve"})
    content = content_of(written.pages[0])
    lines = content["dialogues"][0]["l"]
    assert [parts[0] for _, parts in lines[: len(HOSTILE)]] == HOSTILE
    assert lines[1][0] == "<b>eve</b>"
    assert content["queries"][0]["q"] == "\"><svg onload='window.pwned = 8'>"
    assert content["queries"][0]["a"] == [[0, 1, 500], [0, 9]]
    assert content["queries"][1]["t"] is None
    assert content["queries"][1]["u"] is None
    # no address but those of pictures that the page brings along
    assert [len(picture) for picture in content["pictures"]] == [1, 1, 1, 1]
    assert written.num_unopened == 4
    assert any("4 pictures could not be opened" in note for note in written.notes)


def test_pictures_that_cannot_be_opened_are_counted(evaluated, tmp_path):
    (tmp_path / "pictures" / "0-3.png").unlink()
    (tmp_path / "pictures" / "1-3.png").write_bytes(b"no picture")
    evaluation = open_evaluation(evaluated)
    assert "but its pictures are not: they were changed since" in evaluation.notes[0]
    written = write_report(evaluation, tmp_path / "report.html")
    assert written.num_unopened == 2
    assert written.num_pictures == 24
    content = content_of(written.pages[0])
    assert ["0-3.png" in picture[0] for picture in content["pictures"] if len(picture) == 1] == [
        True,
        False,
    ]


def test_the_same_picture_under_two_names_is_stored_once(tmp_path):
    for name in ("a.png", "b.png"):
        PIL.Image.new("RGB", (1000, 500), (9, 9, 200)).save(tmp_path / name)
    found = Thumbnails([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.png"])
    assert found[tmp_path / "a.png"] is found[tmp_path / "b.png"]
    assert (found[tmp_path / "a.png"].width, found[tmp_path / "a.png"].height) == (360, 180)


def test_a_large_report_is_split_into_linked_pages(evaluated, tmp_path):
    whole = write_report(open_evaluation(evaluated), tmp_path / "whole.html")
    frame = whole.pages[0].stat().st_size - len(json.dumps(content_of(whole.pages[0])))
    written = write_report(
        open_evaluation(evaluated), tmp_path / "a b.html", max_page_bytes=frame + 6_000
    )
    assert len(written.pages) > 2
    contents = [content_of(page) for page in written.pages]
    assert sorted(query["n"] for part in contents for query in part["queries"]) == list(range(10))
    for page, part in zip(written.pages, contents, strict=True):
        assert page.stat().st_size < frame + 12_000
        links = [
            attrs["href"]
            for tag, attrs in Parts(page.read_text(encoding="utf-8")).tags
            if tag == "a" and not attrs["href"].startswith("#")
        ]
        assert len(links) == len(written.pages) - 1
        assert all(link.startswith("a%20b") for link in links)
        numbers = {
            item[0]
            for its in part["dialogues"]
            for _, parts in its["l"]
            for item in parts
            if isinstance(item, list)
        }
        assert numbers == set(range(len(part["pictures"])))
    assert sum(len(part["pictures"]) for part in contents) == 26


def test_other_data_is_refused(evaluated, examples, tmp_path):
    other = tmp_path / "pictures" / "other.jsonl"
    write_examples(other, [dataclasses.replace(examples[0], query="another"), *examples[1:]])
    with pytest.raises(UsageError, match="is not the data that was measured"):
        open_evaluation(evaluated, dataset=other)
    # where the results themselves name it, the prompts give the dialogues, and a note says so
    other.replace(tmp_path / "pictures" / "data.jsonl")
    evaluation = open_evaluation(evaluated)
    assert "its fingerprint is another" in evaluation.notes[0]
    assert [answer.query for answer in evaluation] == [example.query for example in examples]


def test_without_the_data_the_pictures_come_from_the_image_root(evaluated, tmp_path):
    (tmp_path / "pictures" / "data.jsonl").unlink()
    written = write_report(open_evaluation(evaluated), tmp_path / "report.html")
    assert written.num_unopened == 26
    assert any("Name it with --dataset" in note for note in written.notes)
    root = tmp_path / "pictures"
    assert (
        write_report(
            open_evaluation(evaluated, image_root=root), tmp_path / "report.html"
        ).num_unopened
        == 0
    )


def test_a_limited_evaluation_finds_its_data(examples, fake_retriever, tmp_path):
    write_examples(tmp_path / "pictures" / "data.jsonl", examples)
    evaluate(
        examples[:3],
        fake_retriever(),
        tmp_path / "out",
        dataset=str(tmp_path / "pictures" / "data.jsonl"),
    )
    written = write_report(open_evaluation(tmp_path / "out"), tmp_path / "report.html")
    assert (written.num_queries, written.num_unopened, written.notes) == (3, 0, [])


def test_changed_predictions_are_noticed(evaluated, tmp_path):
    path = evaluated / "predictions.jsonl"
    path.write_text(
        path.read_text().replace(
            '"response": "<|utt_ids_start|>[0, 1]', '"response": "<|utt_ids_start|>[2]'
        )
    )
    (evaluated / "SHA256SUMS").unlink()
    written = write_report(open_evaluation(evaluated), tmp_path / "report.html")
    assert any("does not give the figures that the results state" in note for note in written.notes)


def test_results_of_a_prediction_file_find_it(hostile, tmp_path):
    folder = tmp_path / "scored"
    score_predictions(hostile).save(folder)
    assert len(list(open_evaluation(folder))) == 2
    hostile.write_text(hostile.read_text() + hostile.read_text())
    with pytest.raises(DataError, match="has changed since it was scored"):
        open_evaluation(folder)
    hostile.unlink()
    with pytest.raises(DataError, match="not found; put it back"):
        open_evaluation(folder)


def test_prompts_that_are_no_dialogue_are_shown_as_they_are(tmp_path):
    path = tmp_path / "p.jsonl"
    record = {"response": format_answer(Fragment((0,))), "labels": format_answer(Fragment((0, 1)))}
    message = {"role": "user", "content": "find <it>"}
    path.write_text(
        json.dumps({**record, "messages": [message]}) + "\nnot json\n" + json.dumps(record) + "\n"
    )
    written = write_report(open_evaluation(path), tmp_path / "report.html")
    content = content_of(written.pages[0])
    assert [dialogue["p"] for dialogue in content["dialogues"]] == ["find <it>", ""]
    assert [query["n"] for query in content["queries"]] == [0, 2]
    assert content["queries"][0]["u"] == [1.0, 0.5, 0.6667]
    assert "2 prompts cannot be read as dialogues and are shown as they are." in written.notes


def test_the_control_shows_the_wrong_pictures(examples, fake_retriever, tmp_path):
    shown = WrongPictureSet(examples, seed=0)
    evaluate(examples, fake_retriever(), tmp_path / "out", dataset="gone", shown=shown)
    pictures = Path(next(examples[0].image_locations())).parent
    answers = list(open_evaluation(tmp_path / "out"))
    for answer, wrong in zip(answers, shown, strict=True):
        assert list(map(str, answer.locations)) == list(map(str, wrong.image_locations()))
    written = write_report(
        open_evaluation(tmp_path / "out", image_root=pictures), tmp_path / "report.html"
    )
    assert written.num_unopened == 0
    assert 'class="note control"' in written.pages[0].read_text()


def svgs(page: Path) -> dict[str, ElementTree.Element]:
    found = re.findall(r"<svg.*?</svg>", page.read_text(encoding="utf-8"))
    return {(tree := ElementTree.fromstring(text)).attrib["aria-label"]: tree for text in found}


def test_plots_of_answers_and_of_the_run(evaluated, tmp_path):
    run = tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    evaluated.rename(run / "eval" / "data")
    (run / "run.json").write_text("{}")
    header = "step,loss,reward,level_easy,level_medium,level_confusing,level_hard,val_joint_f1\n"
    steps = [
        f"{step},{1 / step},{step / 900},0.5,0.25,0.25,0.0,{0.5 if step % 100 == 0 else ''}\n"
        for step in range(1, 901)
    ]
    (run / "metrics.csv").write_text(header + "".join(steps))
    page = tmp_path / "report.html"
    write_report(open_evaluation(run / "eval" / "data"), page)
    found = svgs(page)
    assert set(found) == {
        "F1 by dialogue length",
        "F1 by density of the fragment",
        "Precision and recall of each answer: utterances",
        "Precision and recall of each answer: images",
        "Loss of the run",
        "Rewards of the run",
        "Validation F1 of the run",
        "Levels of the curriculum",
    }
    # 900 steps as means of three neighbours
    (curve,) = (item for item in found["Rewards of the run"].iter() if item.tag == "polyline")
    assert len(curve.attrib["points"].split()) == 300
    assert (
        len([item for item in found["Validation F1 of the run"].iter() if item.tag == "circle"])
        == 9
    )
    dots = [
        item
        for item in found["Precision and recall of each answer: utterances"].iter()
        if item.tag == "circle"
    ]
    # five queries have a truth, and the fake answers each of them exactly
    assert [dot.attrib["data-cell"] for dot in dots] == ["utterance 20 20"]
    assert dots[0].attrib["aria-label"].endswith(": 5")


def test_every_reward_of_a_run_is_drawn(evaluated, tmp_path):
    run = tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    evaluated.rename(run / "eval" / "data")
    (run / "run.json").write_text("{}")
    terms = ["reward_std", "reward_mcc", "reward_overlong", "reward_<own>"]
    rows = [
        f"{step},0.1,{','.join(str(step / 10 + place) for place in range(5))}\n" for step in (1, 2)
    ]
    (run / "metrics.csv").write_text(f"step,kl,reward,{','.join(terms)}\n" + "".join(rows))
    page = tmp_path / "report.html"
    write_report(open_evaluation(run / "eval" / "data"), page)
    chart = svgs(page)["Rewards of the run"]
    names = [
        item.text for item in chart.iter("text") if item.text and item.text.startswith("reward")
    ]
    assert sorted(names) == sorted(["reward", "reward", *terms])  # the axis is called so too
    curves = list(chart.iter("polyline"))
    assert [item.attrib["class"] for item in curves] == [f"curve c{number}" for number in range(5)]
    # two lines of names: the plot begins below them
    highest = min(
        float(place.split(",")[1]) for item in curves for place in item.attrib["points"].split()
    )
    assert highest == 45


def test_a_large_picture_is_averaged_down(tmp_path):
    PIL.Image.new("RGBA", (4000, 3000), (0, 200, 0, 0)).save(tmp_path / "clear.png")
    image = PIL.Image.new("RGB", (4000, 3000), (0, 200, 0))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.convert("P").save(tmp_path / "palette.png")
    found = Thumbnails([tmp_path / name for name in ("clear.png", "turned.jpg", "palette.png")])
    sizes = [
        (found[tmp_path / name].width, found[tmp_path / name].height)
        for name in ("clear.png", "turned.jpg", "palette.png")
    ]
    assert sizes == [(360, 270), (270, 360), (360, 270)]
    for name, colour in (
        ("clear.png", (255, 255, 255)),
        ("turned.jpg", (0, 200, 0)),
        ("palette.png", (0, 200, 0)),
    ):
        code = found[tmp_path / name].source.removeprefix("data:image/jpeg;base64,")
        opened = PIL.Image.open(io.BytesIO(base64.b64decode(code)))
        assert opened.getpixel((100, 100)) == pytest.approx(colour, abs=30), name


def test_charts_draw_values_where_they_belong():
    chart = ElementTree.fromstring(
        bar_chart(
            "t",
            [("<a>", 3), ("b", 1)],
            {"x": [0.5, None]},
            intervals={"x": [(0.25, 1.0), None]},
            x_label="&",
        )
    )
    bars = [item for item in chart.iter("rect") if item.find("title") is not None]
    (whisker,) = (item for item in chart.iter("line") if item.attrib["class"] == "whisker")
    assert len(bars) == 1
    bottom = float(bars[0].attrib["y"]) + float(bars[0].attrib["height"])
    full = bottom - float(whisker.attrib["y2"])
    assert float(bars[0].attrib["height"]) == pytest.approx(full / 2, abs=0.2)
    assert bottom - float(whisker.attrib["y1"]) == pytest.approx(full / 4, abs=0.2)
    dots = ElementTree.fromstring(
        scatter("t", {(0, 20): 4, (10, 10): 1}, num_steps=20, modality="image")
    ).iter("circle")
    assert [(dot.attrib["data-cell"], dot.attrib["r"]) for dot in dots] == [
        ("image 0 20", "16"),
        ("image 10 10", "8"),
    ]
    flat = ElementTree.fromstring(line_chart("t", {"loss": [(5, 0.0)]}, y_label="loss"))
    assert [item.attrib["points"] for item in flat.iter("polyline")] == ["44,220"]
    areas = ElementTree.fromstring(
        share_chart("t", {"a": [(0, 0.5), (1, 0.5)], "b": [(0, 0.5), (1, 0.5)]})
    ).iter("polygon")
    assert [area.attrib["points"].split()[0] for area in areas] == ["44,125", "44,30"]


def synthetic(folder: Path, *, num_dialogues: int, num_pictures: int, side: int) -> Path:
    """A prediction file of long dialogues with two queries each, and photo-like pictures beside it."""
    draw = random.Random(0)
    folder.mkdir()
    for number in range(num_pictures):
        # coarse noise, scaled up: about as many bytes as a photo of this size
        coarse = PIL.Image.frombytes("RGB", (18, 18), draw.randbytes(18 * 18 * 3))
        coarse.resize((side, side), PIL.Image.Resampling.BICUBIC).save(
            folder / f"{number}.jpg", quality=80
        )
    records = []
    for number in range(num_dialogues):
        pictures = (Image(f"{(3 * number + k) % num_pictures}.jpg") for k in range(3))
        at = {5: next(pictures), 15: next(pictures), 25: next(pictures)}
        lines = tuple(
            Utterance(f"user{index % 2 + 1}", (f"line {index} of dialogue {number}: " + "很长的一段对话 " * draw.randint(1, 8), *([at[index]] if index in at else [])))
            for index in range(40)
        )  # fmt: skip
        dialogue = Dialogue(f"d{number}", lines)
        for query in ("the first lines", "pictures of something"):
            ids = tuple(sorted(draw.sample(range(40), 6)))
            records.append(
                prediction(
                    dialogue,
                    query,
                    format_answer(Fragment(ids, (0,))),
                    Fragment(tuple(range(6)), (0,)),
                )
            )
    write_records(folder / "predictions.jsonl", map(prediction_to_json, records))
    return folder / "predictions.jsonl"


@pytest.mark.slow
def test_two_thousand_dialogues_stay_under_fifty_megabytes(tmp_path):
    path = synthetic(tmp_path / "data", num_dialogues=2_000, num_pictures=2_400, side=448)
    written = write_report(open_evaluation(path), tmp_path / "report.html")
    assert (written.num_queries, written.num_dialogues, written.num_pictures) == (
        4_000,
        2_000,
        2_400,
    )
    assert len(written.pages) == 1
    assert 10_000_000 < written.pages[0].stat().st_size < MAX_PAGE_BYTES


# ---- in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    find_chromium()
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


def shown_rows(page: Page) -> list[str]:
    return page(
        "[...document.querySelectorAll('#list .item .words')].map((row) => row.textContent)"
    )


def test_browser_opens_filters_and_shows_pictures(report, chromium):
    chromium.open(report)
    assert chromium("getComputedStyle(document.getElementById('overview')).display") != "none"
    assert chromium("document.documentElement.scrollHeight > innerHeight && scrollY") == 0
    chromium("document.querySelector('[data-tab=dialogues]').click()")
    assert len(shown_rows(chromium)) == 10
    chromium.choose("#text", "nothing of the")
    assert shown_rows(chromium) == ["nothing of the kind"] * 5
    chromium.choose("#text", "line 9 of talk 3")
    assert len(shown_rows(chromium)) == 2
    chromium.choose("#text", "")
    chromium.choose("#slice-by_length", "35-65")
    assert chromium("document.getElementById('count').textContent").startswith("2 of 10 queries")
    chromium("document.getElementById('clear').click()")
    chromium("new Promise((done) => setTimeout(done, 50))")
    assert len(shown_rows(chromium)) == 10
    chromium.choose("#outcome", "malformed")
    assert shown_rows(chromium) == ["nothing of the kind"] * 5
    chromium.choose("#outcome", "exact")
    chromium.choose("#sort", "longest")
    assert chromium("document.querySelectorAll('#reader .line').length") == 40
    chromium("Promise.all([...document.images].map((image) => image.decode()))")
    sizes = chromium("[...document.images].map((image) => image.naturalWidth)")
    assert sizes == [8] * 10
    assert chromium(
        "[...document.querySelectorAll('#reader .line.hit')].map((row) => row.dataset.line)"
    ) == ["0", "1"]
    assert chromium("[...document.querySelectorAll('#reader .picture.hit')].length") == 1
    assert chromium.faults == []
    assert chromium.requests == []


def test_browser_keys_themes_and_links(report, chromium):
    chromium.open(report, "#q4")
    query = "document.querySelector('#reader .meta').textContent"
    assert chromium(query).startswith("#4 ")
    chromium.choose("#sort", "data")
    assert chromium(query).startswith("#0 ")
    for key, index in (
        ("j", 1),
        ("ArrowRight", 2),
        ("j", 3),
        ("k", 2),
        ("ArrowLeft", 1),
        ("k", 0),
        ("k", 0),
    ):
        chromium.press(key)
        assert chromium(query).startswith(f"#{index} "), key
    assert chromium("location.hash") == "#q0"
    chromium.press("n")
    assert chromium("document.querySelector('.here').dataset.line") == "0"
    chromium.press("m")
    assert chromium("document.querySelectorAll('#reader .line').length") == 4
    chromium.press("j")
    chromium("document.querySelector('.skip').click()")
    assert chromium("document.querySelectorAll('#reader .line').length") == 4
    colour = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for _ in range(3):
        chromium.press("t")
        found[chromium("document.getElementById('theme').textContent")] = chromium(colour)
    assert found["theme: light"] == found["theme: system"] != found["theme: dark"]
    # a circle of the scatter lists its answers
    chromium("document.querySelector('.dot').dispatchEvent(new Event('click', {bubbles: true}))")
    assert shown_rows(chromium) == ["talk about lines"] * 5
    # letters typed into the search field are words, not keys
    chromium.press("/")
    chromium.press("t")
    assert chromium("document.activeElement.id") == "text"
    assert chromium("document.getElementById('text').value") == "t"
    assert chromium.faults == []


def test_browser_narrow_shows_one_thing_at_a_time(report, chromium):
    chromium.resize(400, 800)
    chromium.open(report, "#dialogues")
    visible = "['side', 'reader'].filter((id) => document.getElementById(id).offsetParent !== null)"
    assert chromium(visible) == ["side"]
    chromium("document.querySelector('.item').click()")
    assert chromium(visible) == ["reader"]
    assert chromium("document.documentElement.scrollWidth") <= 400
    chromium("document.getElementById('back').click()")
    assert chromium(visible) == ["side"]
    chromium.resize(1280, 900)
    assert chromium.faults == []


def test_browser_opens_a_long_dialogue_at_its_first_mark(tmp_path, chromium):
    lines = tuple(Utterance("ann", (f"line {number}",)) for number in range(200))
    record = prediction_to_json(
        prediction(
            Dialogue("long", lines), "end", format_answer(Fragment((151,))), Fragment((150,))
        )
    )
    write_records(tmp_path / "p.jsonl", [record])
    write_report(open_evaluation(tmp_path / "p.jsonl"), tmp_path / "long.html")
    chromium.open(tmp_path / "long.html", "#q0")
    place = "document.querySelector('[data-line=\"150\"]').getBoundingClientRect()"
    assert 0 < chromium(f"{place}.top") < chromium("innerHeight")
    assert chromium("document.querySelector('.here').dataset.line") == "150"


def test_browser_plots_are_one_stop_of_the_tab_key(tmp_path, chromium):
    path = synthetic(tmp_path / "data", num_dialogues=6, num_pictures=3, side=20)
    chromium.open(write_report(open_evaluation(path), tmp_path / "report.html").pages[0])
    stops = "[...document.querySelectorAll('svg')].map((svg) => svg.querySelectorAll('[tabindex=\"0\"]').length)"
    assert set(chromium(stops)) <= {0, 1}
    assert 1 in chromium(stops)
    chromium(
        "[...document.querySelectorAll('svg')].find((svg) => svg.querySelectorAll('.dot').length > 1)"
        ".querySelector('.dot[tabindex=\"0\"]').focus()"
    )
    first = chromium("document.activeElement.dataset.cell")
    chromium.press("ArrowRight")
    assert chromium("document.activeElement.dataset.cell") != first
    assert set(chromium(stops)) <= {0, 1}
    chromium.press("ArrowLeft")
    assert chromium("document.activeElement.dataset.cell") == first


def test_browser_axe_finds_nothing_serious(report, chromium):
    """Rules of axe-core: roles, names, contrasts, what a screen reader and a keyboard meet."""
    axe = os.environ.get("FFR_AXE")
    if axe is None:
        pytest.skip("FFR_AXE names no axe.min.js; npm install axe-core brings one")
    for fragment in ("#overview", "#dialogues"):
        chromium.open(report, fragment)
        chromium(Path(axe).read_text(encoding="utf-8") + "; 1")
        found = json.loads(
            chromium(
                "axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify("
                "found.violations.map((it) => [it.impact, it.id, it.nodes[0].html])))"
            )
        )
        assert [it for it in found if it[0] in ("serious", "critical")] == []


def test_browser_hostile_texts_do_nothing(hostile, tmp_path, chromium):
    page = tmp_path / "report.html"
    write_report(open_evaluation(hostile), page)
    chromium.open(page, "#q0")
    assert chromium("window.pwned") is None
    bubbles = chromium(
        "[...document.querySelectorAll('#reader .bubble')].map((bubble) => bubble.textContent)"
    )
    assert bubbles[:6] == HOSTILE[:6]
    assert "show all 10,000 characters" in bubbles[6]
    assert len(bubbles[6]) < 2_000
    chromium("document.querySelector('#reader .bubble .more').click()")
    assert chromium("document.querySelectorAll('#reader .bubble')[6].textContent") == HOSTILE[6]
    assert chromium("document.querySelectorAll('#reader .lost').length") == 4
    assert (
        chromium("document.querySelectorAll('#reader img, #reader script, #reader svg').length")
        == 0
    )
    assert "500" in chromium("document.querySelector('#reader .head').textContent")
    assert chromium("document.documentElement.scrollWidth <= innerWidth")
    # each line keeps its own direction
    assert (
        chromium("getComputedStyle(document.querySelectorAll('#reader .bubble')[5]).direction")
        == "rtl"
    )
    chromium.press("j")
    assert chromium("document.querySelector('#reader .head').textContent").startswith("no truth")
    assert chromium("document.querySelectorAll('#reader .line.answered').length") == 2
    assert chromium("window.pwned") is None
    assert chromium.faults == []
    assert chromium.requests == []


@pytest.mark.slow
def test_browser_is_quick_with_two_thousand_dialogues(tmp_path, chromium):
    path = synthetic(tmp_path / "data", num_dialogues=2_000, num_pictures=50, side=200)
    write_report(open_evaluation(path), tmp_path / "report.html")
    chromium.open(tmp_path / "report.html", "#q0")
    # bubbles and rows are made when they are looked at
    assert chromium("document.querySelectorAll('*').length") < 3_000
    took = chromium(
        "(() => { const start = performance.now(); const field = document.getElementById('text');"
        "field.value = 'dialogue 1999:'; field.dispatchEvent(new Event('input', {bubbles: true}));"
        "return performance.now() - start; })()"
    )
    assert len(shown_rows(chromium)) == 2
    assert took < 3_000
    assert chromium.faults == []


def test_the_page_knows_what_is_no_id_as_the_reader_does():
    code = (Path(html_page.__file__).parent / "page.js").read_text(encoding="utf-8")
    (bound,) = re.findall(
        r"idText = \(id\) => \(id < 2 \*\* (\d+) \? String\(id\) : \"no id\"\)", code
    )
    first = read_answer("<|utt_ids_start|>[1.5]").utterance_ids[0]
    assert first == 2 ** int(bound)
    assert id_text(first) == "no id" != id_text(first - 1)
    # every list of ids that is shown goes through it
    assert code.count(".map(idText).join") == 3
