"""A reader as the policy: decisions drawn and scored, by hand; a training of it, killed, resumed and refused."""

from __future__ import annotations

import csv
import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from reader_builds import WIDTH, LetterEncoder
from signalled import before, run_signalled

from ffr.answer import parse_strict
from ffr.cli.main import ffr
from ffr.data.dataset import open_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Image
from ffr.models.decoding.loop import Generated
from ffr.reader.gate import NUM_EVIDENCE, Gate
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.settings import GrpoConfig
from ffr.training.common.reader_items import UnitTable
from ffr.training.grpo.reader_policy import ReaderPolicy, answer_of, drawn

LONG = Dialogue.of([("a", "the bus"), ("b", ["look", Image("b.png")]), ("a", Image("x.png"))])
SHORT = Dialogue.of([("a", "a cat"), ("b", "a dog")])
EXAMPLES = [Example(LONG, "bus", Fragment((0,))), Example(SHORT, "cat", Fragment((0,)))]


def a_policy(gate: Gate | None = None, **settings: Any) -> ReaderPolicy:
    rows = torch.randn(2, 1, 40, WIDTH, generator=torch.manual_seed(3))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    shape = NetworkShape(width=16, num_heads=2, num_layers=1, dropout=0.5)
    encoder: Any = LetterEncoder()
    reader = Reader.untrained(
        encoder, Background(rows[0], rows[1]), shape=shape, num_networks=2, scale=2.0, shift=0.3
    )
    reader.gate = gate
    data: Any = EXAMPLES
    table = UnitTable(reader, encoder, data)
    return ReaderPolicy(
        reader, encoder, GrpoConfig(num_generations=3, top_p=1.0, **settings), train=table
    )


def rows_of_logits(policy: ReaderPolicy) -> list[torch.Tensor]:
    """That there is anything, then each unit: as the reader says it of each prompt alone."""
    found = []
    for example in EXAMPLES:
        units = policy.reader.units(example.dialogue, policy.encoder)
        vectors = policy.reader.query_vectors([example.query], policy.encoder)
        (said,) = policy.reader.predict(units, vectors)
        something = torch.tensor([1 - said.nothing])
        found.append(torch.logit(torch.cat([something, said.probabilities])))
    return found


# -- by hand ---------------------------------------------------------------------------------------


def test_decisions_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([0.75, 0.2, 0.5])
    draws = drawn(probabilities, 8_000, 1.0, torch.Generator().manual_seed(0))
    some = [row for row in draws if row != [0]]
    assert len(some) / 8_000 == pytest.approx(0.75, abs=0.02)
    assert all(len(row) == 3 and row[0] == 1 for row in some)
    means = torch.tensor(some).float().mean(0)
    assert means.tolist() == pytest.approx([1.0, 0.2, 0.5], abs=0.03)


def test_what_is_sure_enough_is_not_drawn() -> None:
    draws = drawn(torch.tensor([0.9, 0.1, 0.5]), 200, 0.85, torch.Generator().manual_seed(0))
    assert {row[0] for row in draws} == {1}
    assert {row[1] for row in draws} == {0}
    assert {row[2] for row in draws} == {0, 1}


def test_an_answer_is_written_in_the_tasks_format() -> None:
    policy = a_policy()
    units = policy.reader.units(LONG, policy.encoder)
    logits = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0])
    answer = answer_of(units, [1, 1, 0, 1, 1], logits)
    # the units: two utterances, the picture on the second, and a picture that is an utterance
    assert parse_strict(answer.text) == Fragment((0, 2), (0, 1))
    signs = (1, 1, -1, 1, 1)
    by_hand = [-math.log1p(math.exp(-s * z)) for s, z in zip(signs, logits.tolist(), strict=True)]
    assert answer.logprobs == pytest.approx(by_hand)
    nothing = answer_of(units, [0], logits)
    assert parse_strict(nothing.text) == Fragment()
    assert nothing.logprobs == pytest.approx([-math.log1p(math.exp(1.0))])


def test_scores_are_the_readers_own_probabilities() -> None:
    """At a temperature of 2, of answers of different lengths, beside another prompt, with the entropy of each decision."""
    policy = a_policy(temperature=2.0, batch_size=2)
    prompts = [policy.encode(example, "") for example in EXAMPLES]
    branches = [[1, 1, 0, 0, 1], [0], [1, 0, 0, 0, 0], [1, 1, 0], [0], [1, 0, 1]]
    answers = [Generated("", tuple(branch), (0.0,) * len(branch)) for branch in branches]
    policy.model.train()  # dropout of a half must not be seen
    (item,) = policy.cut(prompts, [0, 1], answers)
    scores = policy.score(item, with_entropy=True)
    assert scores.mask.sum(1).tolist() == [len(branch) for branch in branches]
    for number, branch in enumerate(branches):
        logits = rows_of_logits(policy)[number // 3] / 2
        signs = torch.tensor([1.0 if decision else -1.0 for decision in branch])
        own = logits[: len(branch)]
        expected = torch.nn.functional.logsigmoid(signs * own)
        assert torch.allclose(scores.logprobs[number][: len(branch)], expected, atol=1e-4)
        p = torch.sigmoid(own)
        entropy = -(p * p.log() + (1 - p) * (1 - p).log())
        assert scores.entropy is not None
        assert torch.allclose(scores.entropy[number][: len(branch)], entropy, atol=1e-4)
        assert (scores.logprobs[number][len(branch) :] == 0).all()


def test_sampling_has_the_probabilities_that_scoring_gives() -> None:
    policy = a_policy(batch_size=1)
    prompts = [policy.encode(example, "") for example in EXAMPLES]
    answers = [a for g in policy.sample(prompts, [], torch.Generator().manual_seed(0)) for a in g]
    assert len(answers) == 6
    passes = policy.cut(prompts, [], answers)
    assert [item.answers for item in passes] == [[0, 1, 2], [3, 4, 5]]
    for item in passes:
        scores = policy.score(item).logprobs
        for row, number in zip(scores, item.answers, strict=True):
            sampled = torch.tensor(answers[number].logprobs)
            assert torch.allclose(row[: len(sampled)], sampled, atol=1e-5)


@pytest.mark.parametrize("has_gate", [False, True])
def test_the_reference_stays_where_training_started(has_gate: bool) -> None:
    row = torch.full((NUM_EVIDENCE,), 0.5)
    policy = a_policy(Gate(row, row, row) if has_gate else None, batch_size=2)
    policy.free()
    prompts = [policy.encode(example, "") for example in EXAMPLES]
    answers = [Generated("", (1, 0, 1), (0.0,) * 3)] * 6
    (item,) = policy.cut(prompts, [], answers)
    start = policy.score_still(item, of_start=True)
    assert torch.equal(start, policy.score_still(item, of_start=False))
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.1
    assert torch.equal(start, policy.score_still(item, of_start=True))
    assert not torch.allclose(start, policy.score_still(item, of_start=False))


def test_the_trial_moves_nothing() -> None:
    policy = a_policy(batch_size=2)
    policy.free()
    before_ = [weight.clone() for weight in policy.model.parameters()]
    policy.try_longest(policy.encode(EXAMPLES[0], ""))
    for old, weight in zip(before_, policy.model.parameters(), strict=True):
        assert torch.equal(old, weight)
        assert weight.grad is None


# -- a training ------------------------------------------------------------------------------------

GRPO = {
    "max_steps": 4, "batch_size": 4, "accumulate": 2, "num_generations": 4, "val_examples": 8, "val_every_steps": 2,
    "checkpoint_every_steps": 1, "updates_per_rollout": 2, "num_threads": 1, "learning_rate": 1e-3, "kl_coefficient": 0.1,
    "show_samples_every_steps": 2,
}  # fmt: skip


def words_of(data: Path, start: Path, **settings: object) -> list[str]:
    named = {"dataset": data / "train.jsonl", "val_dataset": data / "val.jsonl", **GRPO, **settings}
    options = [word for name, value in named.items() for word in ("-o", f"{name}={value}")]
    return ["--from", str(start), *map(str, options)]


def run(*words: object) -> Result:
    return CliRunner().invoke(ffr, ["train", *map(str, words)], catch_exceptions=False)


def figures(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [
            {
                name: row[name]
                for name in row
                if name not in ("tokens_per_second", "peak_memory_mb") and "seconds" not in name
            }
            for row in csv.DictReader(file)
        ]


@pytest.fixture(autouse=True, scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of vectors and tables for all tests here, as a user has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFR_DATA_HOME", str(tmp_path_factory.mktemp("home") / "data"))
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, data: Path, bert: Path) -> Path:
    """A reader that knows a little."""
    folder = tmp_path_factory.mktemp("start") / "run"
    settings = {
        "dataset": data / "train.jsonl", "val_dataset": data / "val.jsonl", "encoder": bert, "max_steps": 6, "batch_size": 16,
        "rejoined": 0, "width": 16, "num_heads": 2, "num_layers": 1, "learning_rate": 1e-2, "num_threads": 1, "epochs": 9,
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    assert run("reader", *options, "--out", folder).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, data: Path, start: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run("grpo", *words_of(data, start), "--curriculum", "online", "--out", folder)
    assert done.exit_code == 0, done.output
    return folder


def test_a_run_leaves_a_reader_that_has_moved(whole_run: Path, start: Path, data: Path) -> None:
    assert (whole_run / "reader/README.md").is_file()
    assert not (whole_run / "merged").exists()
    begun, trained = (Reader.load(folder / "reader") for folder in (start, whole_run))
    assert begun.fingerprint != trained.fingerprint
    assert (begun.settings.scale, begun.settings.shift) == (
        trained.settings.scale,
        trained.settings.shift,
    )
    assert trained.settings.notes["started_from"] == start.name
    rows = figures(whole_run)
    assert [row["step"] for row in rows] == list("1234")
    for row in rows:
        assert 0 < float(row["entropy"]) < math.log(2)
        assert 1 <= float(row["answer_tokens"]) <= 11
        assert float(row["cut_off_share"]) == 0
    # nothing has moved before the first update, and the divergence grows from there
    assert float(rows[0]["kl"]) < float(rows[3]["kl"])
    lines = (whole_run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    for line in map(json.loads, lines):
        assert all(parse_strict(answer["text"]) is not None for answer in line["answers"])
    words = ["eval", "--model", whole_run, "--dataset", data / "val.jsonl", "--no-baselines"]
    assert CliRunner().invoke(ffr, list(map(str, words))).exit_code == 0


@pytest.mark.parametrize(
    ("number", "event"),
    [
        (signal.SIGKILL, before("ffr.training.grpo.module:GrpoModule._update", 4)),
        pytest.param(
            signal.SIGTERM, before("ffr.training.grpo.module:GrpoModule._update", 5),
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_killed_and_resumed_is_the_same_to_the_bit(
    whole_run: Path, data: Path, start: Path, tmp_path: Path, number: signal.Signals, event: Any
) -> None:
    folder = tmp_path / "run"
    words = [
        "train",
        "grpo",
        *words_of(data, start),
        "--curriculum",
        "online",
        "--out",
        str(folder),
    ]
    assert run_signalled(words, event, number) == (-9 if number == signal.SIGKILL else 130)
    done = run("grpo", "--resume", folder)
    assert done.exit_code == 0, done.output
    assert figures(folder) == figures(whole_run)
    for name in ("reader/reader.safetensors", "samples.jsonl"):
        assert (folder / name).read_bytes() == (whole_run / name).read_bytes()


def test_the_cut_of_a_step_does_not_matter(data: Path, start: Path, tmp_path: Path) -> None:
    found = []
    for batch_size, accumulate in ((8, 1), (2, 4)):
        folder = tmp_path / str(batch_size)
        more = {
            "batch_size": batch_size,
            "accumulate": accumulate,
            "max_steps": 1,
            "val_examples": 0,
        }
        words = words_of(data, start, **more, updates_per_rollout=1, rollout_batch=8)
        assert run("grpo", *words, "--out", folder).exit_code == 0
        found.append(figures(folder)[0])
    for name in ("reward", "entropy", "grad_norm", "answer_tokens", "kl"):
        assert float(found[0][name]) == pytest.approx(float(found[1][name]), rel=1e-3, abs=1e-6), (
            name
        )


def test_rewards_rise(data: Path, start: Path, tmp_path: Path) -> None:
    """On four queries that it is asked again and again."""
    few = [
        example for example in open_dataset(data / "train.jsonl") if not example.fragment.is_empty
    ]
    write_examples(tmp_path / "few.jsonl", few[:4])
    more = {"max_steps": 40, "epochs": 40, "learning_rate": 3e-3, "batch_size": 4, "accumulate": 1}
    words = words_of(
        data, start, **more, dataset=tmp_path / "few.jsonl", image_root=data, num_generations=8,
        updates_per_rollout=1, val_examples=0, kl_coefficient=0,
    )  # fmt: skip
    assert run("grpo", *words, "--out", tmp_path / "run").exit_code == 0
    rewards = [float(row["reward"]) for row in figures(tmp_path / "run")]
    assert sum(rewards[-5:]) > 1.1 * sum(rewards[:5])


def test_the_papers_curriculum_is_made_of_decisions(
    data: Path, start: Path, tmp_path: Path
) -> None:
    """The entropy in the table is the mean entropy of the decisions; the same table serves the command and the training."""
    words = ["curriculum", "score", "--model", start, "--dataset", data / "train.jsonl"]
    done = CliRunner().invoke(ffr, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    named = {word for word in done.output.split() if word.endswith("difficulty.csv")}
    (table,) = map(Path, named)
    with table.open(encoding="utf-8") as file:
        entropies = [float(row["entropy"]) for row in csv.DictReader(file)]
    lines = (table.parent / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert entropies == [json.loads(line)["decision_entropy"] for line in lines]
    assert 0 < min(entropies) <= max(entropies) < math.log(2)
    dry = run("grpo", *words_of(data, start), "--curriculum", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "curriculum paper: " in dry.output
    assert "would first answer" not in dry.output


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lora_rank": 4}, "setting lora_rank has no meaning for a reader"),
        ({"answer_style": "think"}, "setting answer_style has no meaning for a reader"),
        ({"accelerator": "gpu"}, "setting accelerator: gpu is no CPU"),
        ({"order_weight": 1}, "setting encoder: policy encodes texts only"),
    ],
)
def test_what_means_nothing_is_refused(
    data: Path, start: Path, tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    done = run("grpo", *words_of(data, start, **settings), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_a_reader_is_no_model_of_sft(start: Path) -> None:
    done = run("sft", "--model", start)
    assert done.exit_code == 2
    assert "is a reader, and `ffr train sft` trains vision-language models" in done.output
