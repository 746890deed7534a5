"""The embedded model: it loads with plain transformers, its tokenizer loses nothing, and it is no larger than promised."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.answer import format_answer
from ffr.data.catalog import load_dataset
from ffr.dialogue import Fragment
from ffr.models.loading import load_vlm
from ffr.models.vlm import Vlm
from ffr.prompt import TEMPLATES
from ffr.retrieval.asking import load_model
from ffr.shipped.tiny import TINY_FOLDER
from ffr.world.lexicon import TOPICS

REPOSITORY = Path(__file__).resolve().parents[2]
MARKERS = [
    f"<|{name}_{end}|>"
    for name in ("query", "utt_id", "img_id", "utt_ids", "img_ids")
    for end in ("start", "end")
]


@pytest.fixture(scope="module")
def tokens() -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY_FOLDER)


def _ids(tokens: object, text: str) -> list[int]:
    return tokens(text, add_special_tokens=False).input_ids  # type: ignore[operator,no-any-return]


def test_it_loads_with_plain_transformers() -> None:
    from transformers import Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = Qwen2VLForConditionalGeneration.from_pretrained(TINY_FOLDER)
    assert sum(weight.numel() for weight in model.parameters()) < 5_000_000
    assert Qwen2VLImageProcessorPil.from_pretrained(TINY_FOLDER).merge_size == 2


def test_it_is_small_and_says_where_it_comes_from() -> None:
    assert sum(path.stat().st_size for path in TINY_FOLDER.iterdir()) < 6_000_000
    settings_file = json.loads((TINY_FOLDER / "ffr.json").read_text(encoding="utf-8"))
    assert settings_file["prompt"] == {"template": "zh", "query_position": "last"}
    assert settings_file["provenance"]["seed"] == 0
    card = (TINY_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "real work takes a real backbone" in card


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=60))
def test_the_tokenizer_loses_nothing(text: str) -> None:
    vlm = _loaded()
    ids = vlm.tokenizer(text, add_special_tokens=False).input_ids
    assert (
        vlm.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        == text
    )


@lru_cache(maxsize=1)
def _loaded() -> Vlm:
    return load_vlm("tiny")


def test_markers_numbers_and_topic_words_are_single_tokens(tokens: object) -> None:
    for marker in MARKERS:
        assert len(_ids(tokens, marker)) == 1
    for number in range(200):
        assert len(_ids(tokens, str(number))) == 1
    for topic in TOPICS:
        for word in (*topic.zh_words, *topic.zh_names):
            assert len(_ids(tokens, word)) == 1
            assert _ids(tokens, word)[0] in _ids(tokens, f"我要{word}吗")
        for word in (*topic.en_words, *topic.en_names):
            assert len(_ids(tokens, word)) == len(_ids(tokens, f" {word}")) == 1


def test_markers_are_ordinary_tokens_that_no_decoding_cuts(tokens: object) -> None:
    text = format_answer(Fragment((0, 3), (1,)))
    ids = _ids(tokens, text)
    assert tokens.decode(ids, skip_special_tokens=True) == text  # type: ignore[attr-defined]
    assert not set(MARKERS) & set(tokens.all_special_tokens)  # type: ignore[attr-defined]
    # what ends a turn or stands for a picture is special as it was
    assert tokens.decode(_ids(tokens, "<|im_end|>"), skip_special_tokens=True) == ""  # type: ignore[attr-defined]


def test_a_model_of_before_gives_the_same_answers(sample_home: Path, tmp_path: Path) -> None:
    """Runs made while the markers were special tokens load, and read and write as they did."""
    old = tmp_path / "old"
    shutil.copytree(TINY_FOLDER, old)
    content = json.loads((old / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["special"] = token["special"] or token["content"] in MARKERS
    (old / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    before, now = load_model(old), load_model("tiny")
    example = load_dataset("sample")[0]
    answers = [model.retrieve(example, example.query) for model in (before, now)]
    assert answers[0].response == answers[1].response
    assert answers[0].score == answers[1].score
    assert not answers[0].is_empty
    told = [model.identity["fingerprint"] for model in (before, now)]
    assert told[0] == told[1]


@given(
    utterances=st.lists(st.integers(0, 199), max_size=8, unique=True),
    images=st.lists(st.integers(0, 20), max_size=3, unique=True),
)
def test_an_answer_is_the_same_tokens_alone_and_in_parts(
    utterances: list[int], images: list[int]
) -> None:
    tokenizer = _loaded().tokenizer
    text = format_answer(Fragment(tuple(sorted(utterances)), tuple(sorted(images))))
    whole = tokenizer(text, add_special_tokens=False).input_ids
    assert len(whole) == 9 + max(0, 2 * len(utterances) - 1) + max(0, 2 * len(images) - 1)


def test_the_instruction_costs_few_tokens(tokens: object) -> None:
    for template in TEMPLATES.values():
        assert len(_ids(tokens, template.query_last.format(query="", dialogue=""))) < 40


@pytest.fixture
def pretraining() -> Iterator[None]:
    """The folder of the pre-training script, importable."""
    folder = str(REPOSITORY / "scripts" / "pretrain_tiny")
    if not Path(folder).is_dir():
        pytest.skip("the pre-training script is not part of the installed package")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


def test_the_script_makes_this_tokenizer_and_these_sizes(pretraining: None, tokens: object) -> None:
    import build

    made = build.make_tokenizer()
    assert made.get_vocab() == tokens.get_vocab()  # type: ignore[attr-defined]
    flags = [
        json.loads(each.backend_tokenizer.to_str())["added_tokens"]  # type: ignore[attr-defined]
        for each in (made, tokens)
    ]
    assert flags[0] == flags[1]
    config = build.make_config(made).to_dict()
    shipped = json.loads((TINY_FOLDER / "config.json").read_text(encoding="utf-8"))
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"):
        assert config["text_config"][name] == shipped["text_config"][name]


def test_a_query_in_a_packed_row_gives_the_numbers_it_gives_alone(pretraining: None) -> None:
    """The pre-training's packing: block mask and restarted positions change nothing."""
    import main
    import torch
    from dialogues import Row, World
    from stages import STAGES

    vlm = _loaded()
    world = World(vlm.tokenizer, seed=5)
    stage = next(stage for stage in STAGES if stage.name == "full")
    row = world.encode(stage, world.draw(stage))
    drawings = torch.randn(
        len(TOPICS), world.drawings_per_topic, 4, 64, generator=torch.Generator().manual_seed(0)
    )

    def loss(rows: list[Row]) -> float:
        with torch.no_grad():
            return float(main.step_loss(vlm.base, world, world.collate(rows), drawings)[0])

    alone, sizes = [], []
    for block in range(1, max(row.block) + 1):
        keep = [at for at, number in enumerate(row.block) if number in (0, block)]
        one = Row(
            [row.ids[at] for at in keep], [row.is_answer[at] for at in keep], [int(row.block[at] > 0) for at in keep],
            row.prefix, row.pictures,
        )  # fmt: skip
        alone.append(loss([one]))
        sizes.append(sum(one.is_answer))
    mean = sum(value * size for value, size in zip(alone, sizes, strict=True)) / sum(sizes)
    assert loss([row]) == pytest.approx(mean, rel=1e-5)


def test_the_bases_dialogues_are_not_the_samples(pretraining: None, sample_home: Path) -> None:
    from dialogues import World
    from stages import STAGES

    from ffr.data.dataset import open_dataset

    world = World(_loaded().tokenizer, seed=0)
    stage = STAGES[-1]
    base_lines = {text for _ in range(300) for _, text in world.draw(stage).lines}
    sample_lines: set[str] = set()
    for part in ("train", "grpo", "val"):
        for example in open_dataset(sample_home / "sample" / f"{part}.jsonl"):
            sample_lines |= {line.text for line in example.dialogue.utterances}
    assert len(base_lines) > 1_000
    assert not base_lines & sample_lines
