"""A stranger's chat template is rendered as transformers does, and can neither hang nor eat all memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from model_builds import chat_template
from transformers import AutoTokenizer

from ffr.errors import ModelError
from ffr.models import rendering
from ffr.models.loading import load_skeleton
from ffr.models.rendering import RenderingError, render
from ffr.shipped.tiny import TINY_FOLDER

SAID = [
    {"role": "system", "content": [{"type": "text", "text": "你好 \ud83d"}]},
    {
        "role": "user",
        "content": [{"type": "text", "text": " a\u2028b\n"}, {"type": "image"}],
    },
]
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
OTHERS = [
    "{% for m in messages %}{{ m | tojson(indent=2) }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
    "{{ bos_token }}{% set n = namespace(x=0) %}{% for m in messages %}{% set n.x = n.x + 1 %}"
    "{% generation %}{{ n.x }}{{ m.content[0].text | trim }}{% endgeneration %}{% endfor %}{{ eos_token }}",
]


@pytest.fixture(scope="module")
def tokenizer() -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(TINY_FOLDER)


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize(
    "template",
    [chat_template("<image>"), *OTHERS, (TINY_FOLDER / "chat_template.jinja").read_text("utf-8")],
)
def test_the_text_is_that_of_transformers(
    tokenizer: AutoTokenizer, template: str, ask: bool
) -> None:
    theirs = tokenizer.apply_chat_template(
        SAID, chat_template=template, tokenize=False, add_generation_prompt=ask
    )
    ours = render(template, SAID, tokenizer.special_tokens_map, ask=ask)
    assert ours == theirs


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 3000000000 }}",
        "{{ 'x' | center(3000000000) }}",
        "{{ '%3000000000d' % 1 }}",
        "{{ '{:3000000000}'.format(1) }}",
        "{{ range(99999) | list | batch(3000000000, 1) | list | length }}",
        "{% set n = namespace(x='x' * 1000) %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ ('x' * 1000000).replace('x', 'x' * 1000000) }}",
    ],
)
def test_memory_is_bounded(template: str) -> None:
    with pytest.raises(RenderingError, match="it takes more than 512 MiB for one prompt"):
        render(template, SAID, {}, ask=True)
    assert render("{{ 1 + 1 }}", SAID, {}, ask=True) == "2"


@pytest.mark.parametrize("template", [LOOP, "{{ (9 ** 99999999) | length }}"])
def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(rendering, "MAX_SECONDS", 0)
    with pytest.raises(RenderingError, match="it takes too long for one prompt"):
        render(template, SAID, {}, ask=True)
    monkeypatch.undo()
    assert render("{{ 1 + 1 }}", SAID, {}, ask=True) == "2"


def test_a_clock_bounds_what_no_signal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render("{{ 2 + 1 }}", SAID, {}, ask=True) == "3"  # the process has started
    monkeypatch.setattr(rendering, "_MAX_WAIT_SECONDS", 0.2)
    with pytest.raises(RenderingError, match="it takes too long for one prompt"):
        render(LOOP, SAID, {}, ask=True)


def test_the_length_is_bounded() -> None:
    with pytest.raises(RenderingError, match="it makes a text far longer than what is said"):
        render("{{ 'x' * 2000000 }}", SAID, {}, ask=True)
    long = [{"role": "user", "content": "x" * 2_000_000}]
    assert len(render("{{ messages[0].content * 2 }}", long, {}, ask=True)) == 4_000_000


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only\ntext') }}", "only"),
        ("{% if", "unexpected 'end of template'"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{% include 'x' %}", "no loader"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ messages[0]['nothing'].more }}", "UndefinedError"),
    ],
)
def test_a_template_that_fails_says_why(template: str, reason: str) -> None:
    with pytest.raises(RenderingError, match=reason):
        render(template, SAID, {}, ask=True)


def test_variables_of_any_name_are_no_traceback() -> None:
    with pytest.raises(RenderingError, match="multiple values for keyword argument"):
        render("{{ 1 }}", SAID, {"conversations": "x"}, ask=True)


def test_a_process_that_died_is_started_anew() -> None:
    assert render("{{ 2 + 1 }}", SAID, {}, ask=True) == "3"
    process = rendering._worker()._process
    assert process is not None
    process.kill()
    process.wait()
    assert render("{{ 2 + 2 }}", SAID, {}, ask=True) == "4"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_has_a_worker_of_its_own() -> None:
    assert render("{{ 2 + 1 }}", SAID, {}, ask=True) == "3"
    child = os.fork()
    if not child:
        os._exit(0 if render("{{ 2 + 3 }}", SAID, {}, ask=True) == "5" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert render("{{ 2 + 2 }}", SAID, {}, ask=True) == "4"


def test_a_model_folder_with_such_a_template_is_a_sentence(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder("qwen2-vl"), tmp_path / "model"))
    (folder / "chat_template.jinja").write_text("{{ 'x' * 2000000 }}", encoding="utf-8")
    with pytest.raises(
        ModelError,
        match=r"model: its chat template cannot be used \(it makes a text far longer than what is",
    ):
        load_skeleton(folder)
