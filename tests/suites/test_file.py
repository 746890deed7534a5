"""What a suite's file may say: every fault is a sentence with its line, every default stands."""

from __future__ import annotations

import pytest

from ffr.errors import UsageError
from ffr.settings import AnswerConfig
from ffr.settings.yaml import read_yaml
from ffr.suites.file import SuiteDataset, SuiteFile, SuiteModel, SuiteSetting, check_file

HEAD = "figures: [joint_f1]\n"
DATA = "datasets:\n  - dataset: a.jsonl\n"
MODELS = "models:\n  - model: baseline:nothing\n"


def check(text: str) -> SuiteFile:
    return check_file(read_yaml(text, "s.yaml"), AnswerConfig)


def test_what_is_left_out_has_its_default() -> None:
    assert check(HEAD + DATA + MODELS) == SuiteFile(
        figures=("joint_f1",),
        datasets=(SuiteDataset(label="a.jsonl", dataset="a.jsonl"),),
        models=(SuiteModel(label="baseline:nothing", model="baseline:nothing"),),
    )
    found = check(HEAD + DATA + MODELS)
    assert (found.title, found.seed, found.slices) == (None, 0, ("all",))
    assert (found.datasets[0].split, found.datasets[0].limit) == ("val", None)


def test_settings_stand_beside_their_label_and_percent_becomes_a_share() -> None:
    found = check(
        HEAD
        + DATA
        + "models:\n  - {label: paper, reported: {a.jsonl: {joint_f1: 51.71}}}\n"
        + "  - {model: tiny, settings: {max_new_tokens: 7}}\n"
        + "settings:\n  - {label: tight, constrained: true}\n"
    )
    assert found.models[0].reported == {"a.jsonl": {"joint_f1": 0.5171}}
    assert found.models[1].settings == {"max_new_tokens": 7}
    assert found.settings == (SuiteSetting(label="tight", settings={"constrained": True}),)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("", None, "is empty; `ffr bench show sample` prints a suite to begin with"),
        (DATA + MODELS, 1, "a suite needs `figures`"),
        (
            HEAD + "datasets: a.jsonl\n" + MODELS,
            2,
            "`datasets` is a list; write one `- …` for each",
        ),
        (HEAD + "datasets: []\n" + MODELS, 2, "`datasets` is empty; name at least one"),
        (HEAD + DATA + "models:\n  - tiny\n", 5, "a model is written as `key: value` lines"),
        (HEAD + DATA + MODELS + "sed: 1\n", 6, "a suite has no key `sed`; did you mean seed?"),
        (HEAD + DATA + MODELS + "seed: [1]\n", 6, "`seed` takes one value, no list and no mapping"),
        (HEAD + DATA + MODELS + "title: 7\n", 6, "; put it into quotes"),
        ("figures: [joint_f2]\n" + DATA + MODELS, 1, "`figures`: there is no joint_f2; did you"),
        ("figures: [joint_f1, joint_f1]\n" + DATA + MODELS, 1, "joint_f1 is given twice"),
        (HEAD + DATA + "    limit: 0\n" + MODELS, 4, "`limit`"),
        (
            HEAD + DATA + "  - dataset: A.JSONL\n" + MODELS,
            4,
            "two data sets have the label A.JSONL",
        ),
        (HEAD + DATA + "models:\n  - {label: x}\n", 5, "a model has either `model` (what to meas"),
        (
            HEAD + DATA + "models:\n  - {label: x, reported: {b.jsonl: {joint_f1: 1}}}\n",
            5,
            "`reported` has no key `b.jsonl`",
        ),
        (
            HEAD + DATA + "models:\n  - {label: x, reported: {a.jsonl: {image_f1: 1}}}\n",
            5,
            "`reported` of a.jsonl has no key `image_f1`",
        ),
        (
            HEAD + DATA + MODELS + "    settings: {constrained: true}\n",
            6,
            "constrained has no effect on baseline:nothing; take it out",
        ),
        (
            HEAD + DATA + MODELS + "defaults: {trust_remote_code: true}\n",
            6,
            "a suite does not decide on trust; pass --trust-remote-code on the command line",
        ),
        (
            HEAD + DATA + MODELS + "defaults: {api_key_env: HOME}\n",
            6,
            "`api_key_env` names a variable that ends in _API_KEY, so that no other secret goes out",
        ),
        (HEAD + DATA + "models:\n  - model: baseline:none\n", 5, "no baseline 'none'"),
    ],
)
def test_every_fault_is_a_sentence_with_its_line(
    text: str, line: int | None, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(text)
    place = "s.yaml: " if line is None else f"s.yaml:{line}: "
    assert str(caught.value).startswith(place)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


ASKS = "asks: archive\nfigures: [recall_at_1]\n"
OF_ARCHIVE = "datasets:\n  - {dataset: a.jsonl, corpus: b.jsonl}\n"


def test_a_suite_that_asks_an_archive() -> None:
    found = check(
        ASKS
        + "datasets:\n  - {dataset: a.jsonl, corpus: b.jsonl, specific: [human_*, goal]}\n"
        + "models:\n  - {model: none, ways: [words, lines]}\n  - {model: reader}\n"
    )
    assert (found.asks, found.slices) == ("archive", ("one dialogue",))
    assert [model.ways for model in found.models] == [("words", "lines"), None]
    (dataset,) = found.datasets or ()
    assert (dataset.corpus, dataset.specific) == ("b.jsonl", ("human_*", "goal"))
    assert check(HEAD + DATA + MODELS).asks == "dialogue"


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (
            "asks: archives\n" + HEAD + DATA + MODELS,
            1,
            "`asks`: 'archives' is not one of dialogue, archive; did you mean archive?",
        ),
        (
            "asks: archive\n" + HEAD + OF_ARCHIVE + MODELS,
            2,
            "`figures`: there is no joint_f1",
        ),
        (HEAD.replace("joint_f1", "recall_at_1") + DATA + MODELS, 1, "there is no recall_at_1"),
        (
            ASKS + "slices: [by_length]\n" + OF_ARCHIVE + MODELS,
            3,
            "`slices`: there is no by_length",
        ),
        (
            ASKS + DATA + MODELS,
            4,
            "a data set of a suite that asks an archive needs `corpus`",
        ),
        (
            ASKS + OF_ARCHIVE + "models:\n  - {model: none, ways: [smell]}\n",
            6,
            "`ways`: there is no smell",
        ),
        (
            ASKS + OF_ARCHIVE + "models:\n  - {model: none, ways: [words, words]}\n",
            6,
            "`ways`: words is given twice; give it once",
        ),
        (
            HEAD + DATA + "models:\n  - {model: tiny, ways: [words]}\n",
            5,
            "`ways` is of suites that ask an archive; add `asks: archive`, or take it out",
        ),
        (
            HEAD + DATA + "models:\n  - {model: none}\n",
            5,
            "the model `none` is of suites that ask an archive",
        ),
        (HEAD + OF_ARCHIVE + MODELS, 3, "`corpus` is of suites that ask an archive"),
        (
            ASKS + OF_ARCHIVE.replace("}", ", skip_bad: true}") + MODELS,
            4,
            "`skip_bad` has no effect where an archive is asked; take it out",
        ),
        (
            ASKS
            + OF_ARCHIVE
            + "models:\n  - {label: x, reported: {a.jsonl: {recall_at_1: 5}}, ways: [words]}\n",
            6,
            "reported figures have no `ways`",
        ),
    ],
)
def test_faults_of_archives_are_sentences_with_their_line(
    text: str, line: int, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(text)
    said = str(caught.value)
    assert said.startswith(f"s.yaml:{line}: "), said
    assert sentence in said
    assert "\n" not in said
