"""What a model's folder says besides its weights: a template that opens a thought, rules for writing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ffr.answer import format_answer, is_well_formed, read_answer
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.models.decoding.greedy import answer_neighbours, generate_answers
from ffr.models.decoding.sampling import sample_answers
from ffr.models.loading import load_vlm
from ffr.models.prompts import PromptBuilder
from ffr.models.vlm import Vlm
from ffr.retrieval.vlm import VlmRetriever
from ffr.rewards.functions import format_reward
from ffr.thoughts import THOUGHT_TAGS
from ffr.training.grpo.rollout import columns_of

CHAT = Dialogue("d", tuple(Utterance("a", (f"line {number}",)) for number in range(4)))
EXAMPLES = [Example(CHAT, query, Fragment((0, 2), ())) for query in ("one", "two")]
ANSWER = format_answer(Fragment((0, 2), ()))


def _that_opens(folder: Path, tag: str) -> Vlm:
    """The model of a folder with a template that ends every prompt in a tag and a line break."""
    template = (folder / "chat_template.jinja").read_text()
    opened = template.replace("assistant\\n' }}", f"assistant\\n{tag}\\n' }}}}").replace(
        "assistant\n' }}", f"assistant\n{tag}\n' }}}}"
    )
    assert opened != template
    (folder / "chat_template.jinja").write_text(opened)
    return load_vlm(folder)


@pytest.fixture
def thinking(model_folder: Callable[[str], Path], tmp_path: Path) -> Vlm:
    """A model whose template ends every prompt in `<think>` and a line break."""
    return _that_opens(
        Path(shutil.copytree(model_folder("qwen2-vl"), tmp_path / "model")), "<think>"
    )


@pytest.mark.parametrize(("start", "end"), THOUGHT_TAGS[1:7])
@pytest.mark.parametrize("style", ["bare", "think"])
def test_thoughts_of_other_families_are_trained_rewarded_and_read_alike(
    model_folder: Callable[[str], Path], tmp_path: Path, start: str, end: str, style: str
) -> None:
    folder = Path(shutil.copytree(model_folder("qwen2-vl"), tmp_path / "model"))
    vlm = _that_opens(folder, start)
    assert vlm.opened_thought == f"{start}\n"
    builder = PromptBuilder(vlm, answer_style=style)  # type: ignore[arg-type]
    trained = f"\n{end}\n\n{ANSWER}" if style == "bare" else f"{end}<answer>{ANSWER}</answer>"
    assert builder.answer_text(EXAMPLES[0]) == trained
    prompt = columns_of(builder.opened_prompt, EXAMPLES)(0)["prompt"]
    assert prompt.endswith(f"{start}\n")
    written = f"line 0 and line 2{trained}"
    assert format_reward([prompt] * 2, [written, ANSWER], answer_style=[style] * 2) == [1.0, 0.0]
    # where a reward is not shown the end of the prompt, the completion tells
    assert format_reward(["?"], [written], answer_style=[style]) == [1.0]
    assert is_well_formed(vlm.opened_thought + written)
    assert read_answer(vlm.opened_thought + written) == Fragment((0, 2), ())
    # a tag of another family closes nothing
    other = written.replace(end, "</think>")
    assert format_reward([prompt], [other], answer_style=[style]) == [0.0]


@pytest.mark.parametrize(
    ("style", "trained"),
    [("bare", f"\n</think>\n\n{ANSWER}"), ("think", f"</think><answer>{ANSWER}</answer>")],
)
def test_the_trained_text_closes_the_thought_that_the_prompt_opened(
    thinking: Vlm, style: str, trained: str
) -> None:
    builder = PromptBuilder(thinking, answer_style=style)  # type: ignore[arg-type]
    row = builder(EXAMPLES[0], with_answer=True)
    shown = thinking.tokenizer.decode(row.input_ids).rpartition("assistant\n")[2]
    assert shown == f"<think>\n{trained}<|im_end|>"
    assert row.num_answer_tokens == builder.count_answer_tokens(EXAMPLES[0])
    # and earns the format reward, which is given the prompt with what it opens
    prompt = columns_of(builder.opened_prompt, EXAMPLES)(0)["prompt"]
    assert prompt.endswith("<think>\n")
    assert format_reward([prompt], [trained], answer_style=[style]) == [1.0]
    assert is_well_formed("<think>\n" + trained)


def test_answers_begin_with_the_thought_that_the_prompt_opened(thinking: Vlm) -> None:
    free = VlmRetriever(thinking, name="m", max_new_tokens=4).answer(EXAMPLES)
    assert all(answer.response.startswith("<think>\n") for answer in free)
    assert read_answer(free[0].response) == Fragment()
    # within the grammar there is no place for a thought: the prompt closes it, as in training
    retriever = VlmRetriever(thinking, name="m", is_constrained=True, max_new_tokens=64)
    assert all(is_well_formed(answer.response) for answer in retriever.answer(EXAMPLES))
    asked = PromptBuilder(thinking, closes_thought=True)(EXAMPLES[0]).input_ids
    trained = PromptBuilder(thinking)(EXAMPLES[0], with_answer=True).input_ids
    assert (
        thinking.tokenizer.decode(asked)
        == thinking.tokenizer.decode(trained).partition("<|utt_ids_start|>[0")[0]
    )


RULES = {
    "min_new_tokens": 20,
    "min_length": 400,
    "suppress_tokens": list(range(5, 60)),
    "encoder_no_repeat_ngram_size": 1,
    "exponential_decay_length_penalty": [1, 5.0],
    "stop_strings": ["a", "e"],
    "guidance_scale": 3.0,
    "prompt_lookup_num_tokens": 3,
    "no_repeat_ngram_size": 1,
    "repetition_penalty": 5.0,
    "begin_suppress_tokens": list(range(5, 60)),
    "forced_eos_token_id": 5,
}


def test_no_rule_of_a_generation_config_changes_an_answer(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder("qwen2-vl"), tmp_path / "model"))
    path = folder / "generation_config.json"
    plain = json.loads(path.read_text())

    def answers() -> list[list[tuple[int, ...]]]:
        vlm = load_vlm(folder)
        builder = PromptBuilder(vlm, template="en", query_position="last")
        prompts = [builder(example) for example in EXAMPLES]
        sampled = sample_answers(
            vlm,
            prompts,
            num_samples=2,
            max_new_tokens=12,
            generator=torch.Generator().manual_seed(0),
        )
        together = [
            generate_answers(vlm, prompts, max_new_tokens=12),
            *answer_neighbours(vlm, [prompts], max_new_tokens=12),
            *sampled,
        ]
        return [[answer.token_ids for answer in part] for part in together]

    expected = answers()
    assert expected[0] == expected[1]
    for name, value in RULES.items():
        path.write_text(json.dumps(plain | {name: value}))
        assert answers() == expected, name


def test_no_decoder_writes_a_token_that_stands_for_an_image(
    model_folder: Callable[[str], Path],
) -> None:
    vlm = load_vlm(model_folder("qwen2-vl"))
    image = vlm.base.config.image_token_id
    assert image in vlm.placeholder_ids
    head = vlm.base.get_output_embeddings()
    builder = PromptBuilder(vlm, template="en", query_position="last")
    prompts = [builder(example) for example in EXAMPLES]
    with torch.no_grad():
        # the likeliest token of every state is the image's
        head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
        head.bias[image] = 1e4
    greedy = generate_answers(vlm, prompts, max_new_tokens=6)
    [together] = answer_neighbours(vlm, [prompts], max_new_tokens=6)
    sampled = sample_answers(vlm, prompts, num_samples=1, max_new_tokens=6, temperature=0.0)
    expected = [answer.token_ids for answer in greedy]
    assert [answer.token_ids for answer in together] == expected
    assert [answer.token_ids for [answer] in sampled] == expected
    assert not any(image in ids for ids in expected)
