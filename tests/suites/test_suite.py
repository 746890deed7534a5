"""Suite files: those that come with ffr parse, and every fault is one sentence with file and line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.errors import UsageError
from ffr.settings import AnswerConfig
from ffr.suites import packaged_suites, suite_text
from ffr.suites.suite import load_suite, read_suite

SMALL = """\
figures: [joint_f1]
datasets:
  - {label: here, dataset: data.jsonl}
models:
  - {label: all, model: "baseline:everything"}
"""


def read(text: str):
    return read_suite(text, name="s", where="s.yaml")


@pytest.mark.parametrize("name", packaged_suites())
def test_every_packaged_suite_parses(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.rows
    assert packaged_suites()[name] == suite_text(name).splitlines()[0].removeprefix("# ")


def test_the_papers_suites_have_the_papers_rows():
    main = load_suite("paper-main")
    groups = list(dict.fromkeys(row.model.group for row in main.rows))
    assert groups == [
        "Embedding models, zero-shot", "Closed models, zero-shot", "Open models after SFT", "F2RVLM", "Reported by the paper",
    ]  # fmt: skip
    reported = {row.label: row.model.reported for row in main.rows if row.model.model is None}
    assert reported == {
        "Qwen2.5-VL-7B, zero-shot (paper)": {"WeChat-MDR": {"joint_f1": 0.1258}},
        "Qwen2.5-VL-7B after SFT (paper)": {"WeChat-MDR": {"joint_f1": 0.5171}},
        "F2RVLM-7B (paper)": {"MLDR": {"joint_f1": 0.8725}, "WeChat-MDR": {"joint_f1": 0.6207}},
    }
    assert [dataset.settings for dataset in main.datasets] == [
        {},
        {"window": 100, "fit_dataset": "mldr"},
    ]
    assert load_suite("paper-length").slices == ("all", "by_length")
    assert [row.label for row in load_suite("paper-ablation").rows][1:4] == [
        "without the F1 reward", "without the fragment reward", "without the curriculum",
    ]  # fmt: skip


def test_settings_give_way_in_order():
    suite = read(
        SMALL.replace("data.jsonl}", "data.jsonl, settings: {window: 20, max_new_tokens: 30}}")
        + "  - {label: t, model: tiny, settings: {max_new_tokens: 40, batch_tokens: 7}}\n"
        "defaults: {window: 10, overlap: 5, max_new_tokens: 20, concurrency: 2}\n"
        "settings:\n  - {label: free}\n  - {label: tight, constrained: true, batch_tokens: 9}\n"
    )
    assert [row.label for row in suite.rows] == ["all", "t, free", "t, tight"]
    asked = [suite.settings_of(row, suite.datasets[0]) for row in suite.rows]
    assert asked == [
        AnswerConfig(window=20, overlap=5),
        AnswerConfig(window=20, overlap=5, max_new_tokens=40, batch_tokens=7),
        AnswerConfig(window=20, overlap=5, max_new_tokens=40, batch_tokens=9, constrained=True),
    ]
    assert suite.notes == (
        "No row “tight” for all: nothing changes with batch_tokens, constrained.",
    )


def test_rows_are_picked_by_model_and_by_row():
    suite = read(
        SMALL
        + "  - {label: t, model: tiny}\nsettings: [{label: a}, {label: b, constrained: true}]\n"
    )
    assert [row.label for row in suite.rows_of(["t"])] == ["t, a", "t, b"]
    assert [row.label for row in suite.rows_of(["t, b", "all"])] == ["all", "t, b"]
    assert suite.rows_of([]) == suite.rows
    with pytest.raises(
        UsageError, match=r"--only t, c: the suite s has no such row; did you mean t, b\?"
    ):
        suite.rows_of(["t, c"])


def test_a_limit_never_raises_one():
    suite = read(SMALL.replace("data.jsonl}", "data.jsonl, limit: 5}"))
    assert [suite.limited_to(number).datasets[0].limit for number in (3, 8)] == [3, 5]


MODEL = '  - {label: all, model: "baseline:everything"}'


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("figures:", "figure:", "s.yaml:1: a suite has no key `figure`; did you mean figures?"),
        ("models:\n" + MODEL, "", "s.yaml:1: a suite needs `models`"),
        ("[joint_f1]", "[joint_f2]", "s.yaml:1: `figures`: there is no joint_f2; did you mean joint_f1?"),
        ("[joint_f1]", "[joint_f1, joint_f1]", "s.yaml:1: `figures`: joint_f1 is given twice"),
        ("[joint_f1]", "[]", "s.yaml:1: `figures` is empty; name at least one"),
        ("[joint_f1]", "joint_f1", "s.yaml:1: `figures` is a list"),
        ("[joint_f1]", "[[joint_f1]]", "s.yaml:1: `figures` takes one value, no list and no mapping"),
        ("datasets:", "slices: [by_lenght]\ndatasets:", "s.yaml:2: `slices`: there is no by_lenght; did you mean by_length?"),
        ("datasets:", "seed: -1\ndatasets:", "s.yaml:2: `seed`: -1 is too small; it must be at least 0"),
        ("datasets:", "seed: true\ndatasets:", "s.yaml:2: `seed`: True is not a whole number"),
        ("datasets:", "seed: " + "9" * 5000 + "\ndatasets:", "s.yaml:2: a number of more than 40 digits; write a smaller one"),
        ("datasets:", "title: 2020\ndatasets:", "s.yaml:2: `title`: 2020 is not a text; put it into quotes"),
        ("datasets:", "figures: [joint_f1]\ndatasets:", "s.yaml:2: `figures` is given twice; give it once"),
        ("datasets:", "? [a]\n: b\ndatasets:", "s.yaml:2: a key is no text; write `key: value`"),
        ("datasets:", "defaults: {widow: 3}\ndatasets:", "s.yaml:2: there is no setting widow; did you mean window?"),
        ("datasets:", "defaults: {window: -3}\ndatasets:", "s.yaml:2: setting window: -3 is too small; it must be at least 0"),
        ("datasets:", "defaults: {window: [1]}\ndatasets:", "s.yaml:2: setting window: [1] is not a whole number"),
        ("datasets:", "defaults: {timeout: .inf}\ndatasets:", "s.yaml:2: .inf is not a finite number"),
        ("datasets:", "defaults: {overlap: 3}\ndatasets:", "all on here: setting overlap 3 is not less than setting window 0"),
        ("datasets:", "defaults: {trust_remote_code: true}\ndatasets:", "s.yaml:2: a suite does not decide on trust; pass --trust"),
        ("datasets:", "defaults: {api_key_env: AWS_SECRET}\ndatasets:", "s.yaml:2: `api_key_env` names a variable that ends in _API_KEY"),
        ("datasets:", "settings: [{constrained: true}]\ndatasets:", "s.yaml:2: a setting needs `label`"),
        ("datasets:", "settings: [{label: a, constraint: true}]\ndatasets:", "there is no setting constraint; did you mean constrained?"),
        ("datasets:", "settings: [{label: a, constrained: true}]\ndatasets:", "all gets no row, since every one of `settings`"),
        ("dataset: data.jsonl", "data: data.jsonl", "s.yaml:3: a data set has no key `data`; did you mean dataset?"),
        (", dataset: data.jsonl", "", "s.yaml:3: a data set needs `dataset`"),
        ("data.jsonl}", "data.jsonl, limit: 0}", "s.yaml:3: `limit`: 0 is too small; it must be at least 1"),
        ("data.jsonl}", "data.jsonl, skip_bad: 1}", "s.yaml:3: `skip_bad`: 1 is neither true nor false"),
        ("data.jsonl}", "data.jsonl}\n  - {label: HERE, dataset: b}", "s.yaml:4: two data sets have the label HERE"),
        ("  - {label: here, dataset: data.jsonl}", "  here: data.jsonl", "s.yaml:3: `datasets` is a list"),
        ("  - {label: here, dataset: data.jsonl}", "  - data.jsonl", "s.yaml:3: a data set is written as `key: value` lines"),
        (MODEL, MODEL + "\n" + MODEL, "s.yaml:6: two models have the label all; give each its own"),
        (MODEL, "  - {label: all}", "s.yaml:5: a model has either `model` (what to measure) or `reported`"),
        (MODEL, "  - {label: a, model: tiny, reported: {}}", "s.yaml:5: a model has either"),
        (MODEL, "  - {reported: {here: {joint_f1: 1}}}", "s.yaml:5: a model needs `label`"),
        (MODEL, "  - {label: a, reported: {there: {joint_f1: 1}}}", "`reported` has no key `there`; did you mean here?"),
        (MODEL, "  - {label: a, reported: {here: {joint_f2: 1}}}", "`reported` of here has no key `joint_f2`; did you mean joint_f1?"),
        (MODEL, "  - {label: a, reported: {here: {joint_f1: 101}}}", "`joint_f1`: 101 is too large; it must be at most 100"),
        (MODEL, "  - {label: a, reported: {here: {joint_f1: .nan}}}", "s.yaml:5: .nan is not a finite number"),
        (MODEL, "  - {model: baseline:overlop}", "s.yaml:5: no baseline 'overlop'; there are everything"),
        (MODEL, "  - {model: 'api:nothing'}", "s.yaml:5: an endpoint is written api:URL#MODEL"),
        (MODEL, "  - {model: 'baseline:nothing', settings: {constrained: true}}", "constrained has no effect on baseline:nothing"),
        (MODEL, "  - {label: \"a\\nb\", model: tiny}", "s.yaml:5: `label` must be one line of 1 to 120 characters"),
        (MODEL, "  - {label: \"\\ud800\", model: tiny}", "s.yaml:5: `label` must be one line"),
        (MODEL, f"  - {{label: {'x' * 121}, model: tiny}}", "s.yaml:5: `label` must be one line of 1 to 120 characters"),
        (MODEL, "  - &a {label: a, model: tiny}\n  - *a", "s.yaml:5: an anchor (&a) is not taken; take it out"),
        (MODEL, "  - {label: !!python/name:os.system x, model: tiny}", "s.yaml:5: a tag (tag:yaml.org,2002:python/name:os.system) is not taken; take it out"),
        (MODEL, "  - {label: [", "not YAML ("),
        (MODEL, MODEL + "\n---\na: b", "s.yaml:6: a second document begins here; keep one"),
        (MODEL, "  - \x00", "s.yaml:5: not YAML (special characters are not allowed)"),
        (MODEL, "  - " + "[" * 5000, "s.yaml:5: is nested more than 20 deep; write it flatter"),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_with_its_line(old, new, sentence):
    assert old in SMALL
    with pytest.raises(UsageError) as caught:
        read(SMALL.replace(old, new))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "s.yaml: is empty; `ffr bench show sample` prints a suite to begin with"),
        ("# nothing\n", "s.yaml: is empty"),
        ("- 1\n", "s.yaml:1: a suite is written as `key: value` lines"),
        ("7", "s.yaml:1: a suite is written as `key: value` lines"),
    ],
)
def test_what_is_no_suite(text, sentence):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert sentence in str(caught.value)


def test_too_many_cells():
    models = "".join(f"  - {{label: m{number}, model: tiny}}\n" for number in range(101))
    data = "".join(f"  - {{label: d{number}, dataset: a}}\n" for number in range(100))
    with pytest.raises(
        UsageError, match="101 rows on 100 data sets are more than 10,000 cells; split it"
    ):
        read(f"figures: [joint_f1]\ndatasets:\n{data}models:\n{models}")


def test_two_rows_of_one_name():
    text = (
        SMALL
        + "  - {label: 't, a', model: tiny}\n  - {label: t, model: tiny}\nsettings: [{label: a}, {label: b, constrained: true}]\n"
    )
    assert read(text)  # "t, a, a" and "t, a" are two
    with pytest.raises(UsageError, match="two rows would be called t, a; choose other labels"):
        read(text.replace("'t, a', model: tiny", "'t, a', model: 'baseline:nothing'"))


def test_files(tmp_path):
    with pytest.raises(
        UsageError, match=r"sampel: neither a suite \(.*\) nor a file; did you mean sample\?"
    ):
        load_suite("sampel")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        load_suite(str(tmp_path / "bad.yaml"))
    (tmp_path / "huge.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="is larger than 1 MiB; name another file"):
        load_suite(str(tmp_path / "huge.yaml"))
    (tmp_path / "my.suite.yaml").write_text(SMALL, encoding="utf-8")
    assert load_suite(str(tmp_path / "my.suite.yaml")).name == "my.suite"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}*&!?|>%@'\"#,\n 1.~", max_size=60))
def test_any_text_is_read_or_refused(text):
    with pytest.raises(UsageError):
        read(text)
    with contextlib.suppress(UsageError):  # nothing else comes out, whatever is in it
        read(SMALL + "defaults: {window: 1, " + text)


ARCHIVE = """\
asks: archive
figures: [recall_at_1]
models:
  - {label: all, model: none}
"""


def test_the_archive_of_data_that_is_named_when_it_is_run():
    found = read(ARCHIVE).with_data(["a=q.jsonl"], [], ["a=c.jsonl"], "human_*, goal")
    (dataset,) = found.datasets
    assert (dataset.label, dataset.dataset, dataset.corpus) == ("a", "q.jsonl", "c.jsonl")
    assert dataset.specific == ("human_*", "goal")
    (dataset,) = read(ARCHIVE).with_data(["a=q.jsonl"], [], ["a=q.jsonl"]).datasets
    assert dataset.specific == ("*",)


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (ARCHIVE, (["a=q"], []), "the suite s asks an archive; add --corpus a=FILE"),
        (
            ARCHIVE,
            ([], [], ["a=c"]),
            "the suite s names no data; add --data NAME=FILE and --corpus NAME=FILE",
        ),
        (ARCHIVE, (["a=q"], [], ["b=c"]), "--corpus b: no --data has this name"),
        (ARCHIVE, (["a=q"], [], ["a"]), "--corpus a: write NAME=FILE"),
        (ARCHIVE, (["a=q"], [], ["a=c"], " ,"), "--specific ',' names no kind"),
        (
            SMALL,
            ([], [], ["a=c"], "goal"),
            "asks each query of its own dialogue, and no archive; leave --corpus and --specific out",
        ),
        (SMALL, (["a=q"], ["a=f"]), "names its own data; leave --data and --fit out"),
    ],
)
def test_what_does_not_go_with_a_suite_is_one_sentence(text, options, sentence):
    with pytest.raises(UsageError) as caught:
        read(text).with_data(*options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
