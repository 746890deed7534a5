"""The front door for Python: what `import ffr` gives, what it leaves unimported, and its page."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ffr
from ffr import load_dataset
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.settings import AnswerConfig, kind_of, without_effect
from ffr.settings.declaration import declared
from ffr.shipped.tiny import TINY_FOLDER

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "python.md"
NAMES = [
    "Collator",
    "Index",
    "__version__",
    "evaluate",
    "load_dataset",
    "load_model",
    "parse",
    "read_chat",
]


def fresh(code: str) -> Any:
    """What a fresh interpreter prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_these_names_are_the_door() -> None:
    assert ffr.__all__ == NAMES
    assert set(NAMES) <= set(dir(ffr))
    for name in NAMES:
        assert getattr(ffr, name) is not None
    with pytest.raises(AttributeError, match="module 'ffr' has no attribute 'lode_model'"):
        ffr.lode_model  # type: ignore[attr-defined]  # noqa: B018


def test_import_alone_loads_nothing() -> None:
    found = fresh(
        "import json, sys; before = set(sys.modules); import ffr; ffr.__version__; dir(ffr); "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ours = [name for name in found if name.startswith("ffr")]
    assert ours == ["ffr"]
    standard = {name for name in found if name.partition(".")[0] in sys.stdlib_module_names}
    assert sorted(set(found) - standard) == ["ffr"]


def test_parse_needs_no_heavy_package() -> None:
    heavy = ["torch", "transformers", "datasets", "numpy", "PIL"]
    found = fresh(
        "import json, sys, ffr; ffr.parse('<|utt_ids_start|>[0]'); "
        f"print(json.dumps(sorted(set({heavy!r}) & set(sys.modules))))"
    )
    assert found == []


def test_type_checkers_see_what_the_door_hands_out() -> None:
    """The imports under TYPE_CHECKING are the very objects that are handed out."""
    tree = ast.parse(Path(str(ffr.__file__)).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ffr.")
        for alias in node.names
    }
    assert sorted([*seen, "__version__"]) == NAMES
    for name, module in seen.items():
        assert getattr(ffr, name) is getattr(importlib.import_module(str(module)), name)


def test_each_name_has_an_example() -> None:
    finder = doctest.DocTestFinder(recurse=False)
    for name in set(NAMES) - {"__version__"}:
        (found,) = finder.find(getattr(ffr, name), name)
        assert found.examples, name
    # in a fresh interpreter, where none of the names is there yet
    assert fresh("import doctest, ffr; print(list(doctest.testmod(ffr)))") == [0, 3]


def test_the_page_names_all_and_its_examples_run(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"`ffr.{name}" in text, name
    found = doctest.testfile(
        str(PAGE),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert found.attempted > 20
    assert found.failed == 0


def blocks() -> list[str]:
    """The code of the page that is no doctest."""
    found, block = [], list[str]()
    for line in [*PAGE.read_text(encoding="utf-8").splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block.append(line[4:])
        elif block:
            found.append("\n".join(block).strip())
            block = []
    return [text for text in found if not text.startswith(">>>")]


def test_models_on_the_page_are_named_with_settings_that_they_have() -> None:
    (code,) = [text for text in blocks() if "load_model" in text]
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert len(calls) == 5
    for call in calls:
        name = ast.literal_eval(call.args[0])
        for keyword in call.keywords:
            assert keyword.arg in declared(AnswerConfig)
            assert keyword.arg not in without_effect(kind_of(name))
            AnswerConfig(**{str(keyword.arg): ast.literal_eval(keyword.value)})


@pytest.mark.slow
def test_trainers_of_transformers_and_trl_take_the_data_and_the_collator(
    small_sample_home: Path, tmp_path: Path
) -> None:
    import transformers

    (code,) = [text for text in blocks() if "Trainer(" in text]
    model = transformers.AutoModelForImageTextToText.from_pretrained(TINY_FOLDER)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_FOLDER)
    given = f"output_dir={str(tmp_path)!r}, max_steps=1, use_cpu=True, bf16=False, report_to=[]"
    names = {"MODEL": "tiny", "data": ffr.load_dataset("sample"), "ffr": ffr}
    imports, *calls = (
        code.replace("…", given).replace("\nSFTTrainer", "\n#\nSFTTrainer").split("\n#\n")
    )
    imports, first = imports.split("\n\n")
    for call in (first, *calls):
        before = model.get_input_embeddings().weight.detach().clone()
        exec(f"{imports}\n{call}", names | {"model": model, "tokenizer": tokenizer})
        assert not before.equal(model.get_input_embeddings().weight)


CHAT = Dialogue.of([("Ann", "the bus is late"), ("Bob", "too bad")])
EXAMPLE = Example(CHAT, "bus", Fragment((0,)))
MODEL = ffr.load_model("baseline:overlap")

WRONG_CALLS: list[tuple[Any, tuple[Any, ...], str]] = [
    (ffr.parse, (None,), "None is no answer; give the text"),
    (ffr.parse, (["[0]"],), r"\['\[0\]'\] is no answer"),
    (ffr.parse, (b"[0]",), "b'.0.' is no answer"),
    (ffr.parse, (3,), "3 is no answer"),
    (ffr.parse, ({"role": "assistant"},), "is no answer"),
    (ffr.parse, (Fragment((0,)),), "Fragment.* is no answer"),
    (ffr.load_model, (None,), "None is no model; give its name or folder"),
    (ffr.load_model, (3,), "3 is no model"),
    (ffr.load_model, (["tiny"],), "is no model"),
    (ffr.load_model, (MODEL,), "is no model"),
    (MODEL.retrieve, (None, "bus"), "the dialogue is None; write a list of pairs"),
    (MODEL.retrieve, ("the bus is late", "bus"), "the dialogue is 'the bus is late'"),
    (MODEL.retrieve, ([], "bus"), "the dialogue is empty"),
    (MODEL.retrieve, (["the bus is late"], "bus"), "line 0 of the dialogue is 'the bus is late'"),
    (MODEL.retrieve, ([("Ann", 3)], "bus"), "line 0 of the dialogue says 3"),
    (MODEL.retrieve, ([("Ann", "a", "b")], "bus"), "line 0 of the dialogue is .*write a pair"),
    (MODEL.retrieve, ([{"speaker": "Ann", "utterance": "a"}], "bus"), "line 0 .*write a pair"),
    (MODEL.retrieve, ({"dialogue": []}, "bus"), "the dialogue is {'dialogue'"),
    (MODEL.retrieve, (CHAT, None), "the query is None; give a text, or a list of texts"),
    (MODEL.retrieve, (CHAT, 3), "the query is 3"),
    (MODEL.retrieve, (CHAT, ""), "query 0 is empty"),
    (MODEL.retrieve, (CHAT, ["bus", None]), "query 1 is None; give a text"),
    (MODEL.retrieve, (CHAT, b"bus"), "the query is b'bus'"),
    (MODEL.retrieve, (CHAT, {"query": "bus"}), "the query is {'query'"),
    (load_dataset, (None,), "None are no data; give the name of a set, a file, a list"),
    (load_dataset, (3,), "3 are no data"),
    (load_dataset, ([],), "the data hold no record"),
    (load_dataset, ({"dialogue": []},), "the data are one dict; give a list of records"),
    (load_dataset, (["a"],), "record 0 is 'a'; give a dict"),
    (load_dataset, ([[1]],), r"record 0 is \[1\]; give a dict"),
    (load_dataset, ([EXAMPLE],), "record 0 is Example"),
    (load_dataset, (b"dev.jsonl",), "b'dev.jsonl' are no data"),
    (ffr.evaluate, (None, [EXAMPLE]), "None is no model; give a name, or what load_model gives"),
    (ffr.evaluate, (len, [EXAMPLE]), "built-in function len> is no model"),
    (ffr.evaluate, (MODEL, None), "None are no data"),
    (ffr.evaluate, (MODEL, []), "the data hold no record"),
    (ffr.evaluate, (MODEL, [EXAMPLE, None]), "example 1 is None; give Examples only"),
    (ffr.evaluate, (MODEL, [(CHAT, "bus")]), "record 0 is .*give a dict"),
    (ffr.Collator, (None,), "None is no model; give its name, folder or hub id"),
    (ffr.Collator, (3,), "3 is no model"),
    (ffr.Collator, (MODEL,), "is no model"),
]


@pytest.mark.parametrize(("call", "given", "sentence"), WRONG_CALLS)
def test_the_most_natural_wrong_things_are_refused(
    call: Any, given: tuple[Any, ...], sentence: str, sample_home: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(*given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": 2.5}, "limit is 2.5"),
        ({"limit": True}, "limit is True"),
        ({"baselines": ["overlapp"]}, "no baseline 'overlapp'; there are everything"),
        ({"baselines": "all"}, "no baseline 'all'"),
    ],
)
def test_wrong_options_of_evaluate(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ffr.evaluate(MODEL, [EXAMPLE], **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"padding_side": "top"}, "padding_side 'top' is unknown; choose one of left, right"),
        ({"template": "de"}, "template 'de' is unknown; choose one of zh, en"),
        ({"query_position": "middle"}, "query_position 'middle' is unknown"),
        ({"answer_style": "loud"}, "answer_style 'loud' is unknown"),
    ],
)
def test_wrong_options_of_the_collator(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ffr.Collator("tiny", **options)


@pytest.mark.parametrize("wrong", [None, [], "a", EXAMPLE, [None], [3], [(CHAT, "bus")]])
def test_wrong_batches_are_refused(wrong: Any) -> None:
    collate = ffr.Collator("tiny")
    with pytest.raises(ValueError, match=r"no examples|example 0 is"):
        collate(wrong)


def test_strict_parsing() -> None:
    text = "<|utt_ids_start|>[0, 3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    assert ffr.parse(text, strict=True) == ffr.parse(f"So: {text}") == Fragment((0, 3))
    for wrong in (f"So: {text}", text.replace("0, 3", "3, 3"), "", "[0]"):
        with pytest.raises(ValueError, match="is no well-formed answer: "):
            ffr.parse(wrong, strict=True)
    assert ffr.parse("nothing at all") == Fragment()
