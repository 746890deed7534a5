"""A whole GRPO step (rollout, reference, update, optimizer) of ours beside TRL's GRPOTrainer and beside ours with repeated prompts.

Ours is `GrpoModule.training_step` inside Lightning's Trainer, as `ffr train grpo` runs it. TRL trains a text-only model with the same
decoder; its `-rows` form takes one answer at a time through the model, its `-answers` form scores the answers' positions only, as its GPU
path does. Every variant is a process of its own; they take turns, step by step, and only one works at a time. Medians.

    python benchmarks/grpo_step.py                          # all points, writes benchmarks/results/grpo_step.json and .md
    python benchmarks/grpo_step.py --points 2000x8 --rounds 2 --variants shared,trl --out /tmp/one.json
    python benchmarks/grpo_step.py --difference-only        # loss and gradients of both on the same answers

Shapes: P prompt tokens, G answers to each prompt, C tokens of each answer (none can end early: the end token lies outside the vocabulary).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "grpo_step.json"
WARM_UP_TOKENS = 64
PAD, IMAGE, VIDEO, VISION_START, VISION_END = 0, 3, 4, 5, 6
FIRST_WORD, NUM_WORDS = (
    266,
    2_000,
)  # ids of words are FIRST_WORD … NUM_WORDS - 1, after specials and the 256 bytes
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Size:
    """Sizes of the model and of an image."""

    vocab: int = 2_000
    hidden: int = 256
    intermediate: int = 704
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vision_depth: int = 2
    vision_width: int = 64
    vision_heads: int = 4
    image_side: int = 224
    mrope: tuple[int, int, int] = (8, 12, 12)
    is_tied: bool = False
    weight_scale: float = (
        4.0  # a fresh model's answers are near uniform; larger weights make them peaked
    )

    @property
    def image_tokens(self) -> int:
        return (self.image_side // 28) ** 2


SIZES = {
    "tiny": Size(),
    "2b": Size(
        vocab=151_936, hidden=1536, intermediate=8960, layers=28, heads=12, kv_heads=2, vision_depth=32, vision_width=1280,
        vision_heads=16, image_side=448, mrope=(16, 24, 24), is_tied=True, weight_scale=1.0,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One point that is measured; what a worker is told."""

    prompt_tokens: int = 2_000
    answers: int = 8
    answer_tokens: int = 40
    images: int = 0
    size: str = "tiny"
    vocab: int | None = None
    device: str = "cpu"
    threads: int = 1
    rounds: int = 5
    gradient_checkpointing: bool = False

    @property
    def model_size(self) -> Size:
        size = SIZES[self.size]
        return (
            size
            if self.vocab is None
            else Size(**{**asdict(size), "vocab": self.vocab, "mrope": size.mrope})
        )

    @property
    def name(self) -> str:
        pictures = f", {self.images} images" if self.images else ""
        words = f", vocabulary {self.model_size.vocab}" if self.vocab is not None else ""
        return f"P={self.prompt_tokens} G={self.answers}{pictures}{words}"


# -- models and data ----------------------------------------------------------------------------------------------------------


def make_tokenizer(vocab: int) -> Any:
    """Bytes and made-up words, with an end token outside the model's vocabulary, so that no answer ends before its C tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {
        "<pad>": PAD,
        "<unused1>": 1,
        "<unused2>": 2,
        "<image>": IMAGE,
        "<video>": VIDEO,
        "<see>": VISION_START,
    }
    words |= {"</see>": VISION_END, "<unused7>": 7, "<unused8>": 8, "<unused9>": 9}
    words |= {
        character: 10 + number
        for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    names = [word_of(number) for number in range(FIRST_WORD, NUM_WORDS)]
    words |= dict(zip(names, range(FIRST_WORD, NUM_WORDS), strict=True)) | {"<end>": vocab}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(names)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left",
        additional_special_tokens=["<image>", "<video>", "<see>", "</see>"],
    )  # fmt: skip
    fast.chat_template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
        "{% if message.role == 'assistant' %}<end>{% endif %}{% endfor %}"
    )
    return fast


def word_of(number: int) -> str:
    return f"<t{number}>"


def _text_settings(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocab, "hidden_size": size.hidden, "intermediate_size": size.intermediate, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads, "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6, "bos_token_id": None, "eos_token_id": size.vocab, "pad_token_id": PAD, "tie_word_embeddings": size.is_tied,
    }  # fmt: skip


def _build(kind: Any, config: Any, case: Case) -> Any:
    """A model with random weights, made where it will work."""
    import torch

    torch.manual_seed(0)
    with torch.device(case.device):
        model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(case.model_size.weight_scale)
            # parameters only: rotary buffers stay in full precision, as they do in models that are loaded
            weight.data = weight.data.to(dtype_of(case))
    return model


def dtype_of(case: Case) -> Any:
    import torch

    return torch.bfloat16 if case.device == "cuda" else torch.float32


def make_policy(case: Case) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    size = case.model_size
    config = Qwen2VLConfig(
        text_config=_text_settings(size) | {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(size.mrope)}
        },
        vision_config={
            "depth": size.vision_depth, "embed_dim": size.vision_width, "hidden_size": size.hidden, "num_heads": size.vision_heads,
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=VISION_START, vision_end_token_id=VISION_END,
        tie_word_embeddings=size.is_tied,
    )  # fmt: skip
    return _build(Qwen2VLForConditionalGeneration, config, case)


def make_text_model(case: Case) -> Any:
    """The decoder alone, as TRL takes it without a processor."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    settings = _text_settings(case.model_size) | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}
    }
    return _build(Qwen2ForCausalLM, Qwen2Config(**settings), case)


def make_prompts(case: Case) -> list[tuple[list[int], int]]:
    """Ids and number of images of each prompt: a short one to warm up, then one a round, all different."""
    import random

    chance = random.Random(0)
    size = case.model_size

    def prompt(length: int, images: int) -> tuple[list[int], int]:
        picture = [VISION_START, *[IMAGE] * size.image_tokens, VISION_END]
        num_words = length - images * len(picture)
        if num_words <= images:
            raise SystemExit(
                f"{length} tokens have no room for {images} images of {len(picture)} tokens"
            )
        words = [chance.randrange(FIRST_WORD, NUM_WORDS) for _ in range(num_words)]
        gap = num_words // (images + 1)
        ids: list[int] = []
        for number in range(images):
            ids += words[number * gap : (number + 1) * gap] + picture
        return ids + words[images * gap :], images

    few = min(1, case.images)
    warm_up = prompt(WARM_UP_TOKENS + few * (size.image_tokens + 2), few)
    return [warm_up, *(prompt(case.prompt_tokens, case.images) for _ in range(case.rounds))]


def reward_of(answer: Sequence[int]) -> float:
    return sum(answer) % 1000 / 1000


# -- workers ------------------------------------------------------------------------------------------------------------------


class Turns:
    """A worker's side of taking turns: waits before a step, tells its time and parts after it, and its memory at the end."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._started = self._cpu_started = self._base = 0.0

    def begin(self) -> None:
        if not self._base:
            _reset_peak(self.case)
            self._base = _memory_mb(self.case, peak=False)
        print("READY", flush=True)
        if not sys.stdin.readline():
            raise SystemExit(1)
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def end(self, parts: dict[str, float], lengths: set[int]) -> None:
        _wait_for_device(self.case)
        seconds, cpu_seconds = (
            time.perf_counter() - self._started,
            time.process_time() - self._cpu_started,
        )
        if lengths != {self.case.answer_tokens}:
            raise SystemExit(
                f"answers have {sorted(lengths)} tokens, not {self.case.answer_tokens}"
            )
        peak = _memory_mb(self.case, peak=True) - self._base
        if self.case.device == "cuda":
            import torch

            torch.cuda.empty_cache()  # the next one in turn needs it
        found = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            **parts,
            "peak_mb_above_start": peak,
        }
        print("STEP " + json.dumps(found), flush=True)


def _wait_for_device(case: Case) -> None:
    if case.device == "cuda":
        import torch

        torch.cuda.synchronize()


def _reset_peak(case: Case) -> None:
    if case.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _memory_mb(case: Case, *, peak: bool) -> float:
    """Resident memory of the process, or on a GPU what its tensors take."""
    if case.device == "cuda":
        import torch

        return (
            torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
        ) / 2**20
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def work_ours(
    case: Case, *, is_shared: bool, has_feature_cache: bool = True, **settings: Any
) -> None:
    """Takes its turns with the module's own training step inside Lightning's Trainer; settings are `GrpoConfig`'s."""
    import lightning as L
    from lightning.pytorch.callbacks import Callback

    from ffr.training.grpo import local_sampling
    from ffr.training.grpo.loader import PromptLoader

    if not is_shared:
        # what is not there to be replaced would leave the prompts shared
        assert hasattr(local_sampling, "sample_answers")
        local_sampling.sample_answers = sample_from_repeated_prompts
    prompts = make_prompts(case)
    module = make_module(case, is_shared=is_shared, has_feature_cache=has_feature_cache, **settings)
    turns = Turns(case)

    class Clock(Callback):
        def on_train_batch_start(self, *rest: Any) -> None:
            turns.begin()

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *rest: Any
        ) -> None:
            figures = module.take_step_figures(batch)
            parts = {
                name: figures[f"seconds_{name}"] for name in ("rollout", "reference", "update")
            }
            parts |= {name: figures[name] for name in ("sampling_gap_mean", "sampling_gap_max")}
            turns.end(parts, {len(answer.token_ids) for answer in module.last_rollout.answers})

    class InOrder:
        def __init__(self) -> None:
            self.next = 0

        def draw(self, num: int) -> list[int]:
            self.next += num
            return list(range(self.next - num, self.next))

    loader = PromptLoader(
        InOrder(), lambda index: encode(case, index, *prompts[index]), num_steps=len(prompts), prompts_per_step=1, num_workers=0
    )  # fmt: skip
    trainer = L.Trainer(
        accelerator="gpu" if case.device == "cuda" else "cpu", devices=1, max_epochs=1, logger=False,
        precision="bf16-mixed" if case.device == "cuda" else "32-true", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.callbacks.append(Clock())
    trainer.fit(module, train_dataloaders=loader)


def make_module(
    case: Case, *, is_shared: bool, has_feature_cache: bool = True, **settings: Any
) -> Any:
    """A GRPO module around a random policy, put together as `ffr.training.grpo.stage` does it."""
    from ffr.models.features import ImageFeatureCache
    from ffr.models.loading import load_vlm
    from ffr.models.vlm import Vlm
    from ffr.rewards.terms import RewardTerm
    from ffr.settings import GrpoConfig
    from ffr.shipped.tiny import TINY_FOLDER
    from ffr.training.grpo.module import GrpoModule
    from ffr.training.grpo.rollout import Sampler
    from ffr.training.grpo.vlm_policy import VlmPolicy

    processor = load_vlm(
        TINY_FOLDER
    ).processor  # its ids are not used: prompts come as ids and pixels
    tokenizer = make_tokenizer(case.model_size.vocab)
    processor.tokenizer, processor.chat_template, processor.image_token = (
        tokenizer,
        tokenizer.chat_template,
        "<image>",
    )
    vlm = Vlm(make_policy(case), tokenizer, processor, name="benchmark")
    if has_feature_cache:
        vlm.tower.cache = ImageFeatureCache(memory_bytes=GrpoConfig().feature_cache_mb * 2**20)
    config = GrpoConfig(
        batch_size=1, accumulate=1, num_generations=case.answers, max_new_tokens=case.answer_tokens, temperature=1.0, top_p=1.0,
        resample_attempts=0, kl_coefficient=0.04, learning_rate=1e-4, gradient_checkpointing=case.gradient_checkpointing,
        prompt_sharing="auto" if is_shared else "off", **settings,
    )  # fmt: skip
    policy = VlmPolicy(vlm, config)
    policy.free()
    if is_shared and not policy.sharing.is_active:
        raise SystemExit(f"prompts cannot be shared: {policy.sharing.reason}")

    def reward(
        prompts: Any, completions: Any, completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        return [reward_of(answer) for answer in completion_ids]

    def columns(index: int) -> dict[str, Any]:
        return {"prompt": "", "dialogue_id": str(index), "query": ""}

    sampler = Sampler(policy, config, [RewardTerm("sum", reward)], columns)
    return GrpoModule(policy, config, num_steps=case.rounds + 1, fingerprints={}, sampler=sampler)


def encode(case: Case, index: int, ids: list[int], num_images: int) -> Any:
    """A prompt as the model takes it, its images random pixels that no other prompt has."""
    import torch

    from ffr.models.rows import Encoded, EncodedImage

    patches = case.model_size.image_side // 14
    draw = torch.Generator().manual_seed(index)
    images = [
        EncodedImage(
            f"{index}-{number}",
            f"{index}-{number}",
            {
                "pixel_values": torch.randn(patches * patches, 3 * 2 * 14 * 14, generator=draw),
                "image_grid_thw": torch.tensor([[1, patches, patches]]),
            },
        )
        for number in range(num_images)
    ]
    return Encoded(ids, 0, images)


def sample_from_repeated_prompts(
    vlm: Any, prompts: Sequence[Any], *, num_samples: int, **options: Any
) -> Any:
    """What `sample_answers` does, each prompt passing through the model once for each answer."""
    from ffr.models.decoding.sampling import sample_answers

    repeated = [prompt for prompt in prompts for _ in range(num_samples)]
    answers = [group[0] for group in sample_answers(vlm, repeated, num_samples=1, **options)]
    return [answers[start : start + num_samples] for start in range(0, len(answers), num_samples)]


def work_trl(case: Case, *, by_rows: bool = False, answers_only: bool = False) -> None:
    """Takes its turns with TRL's GRPOTrainer."""
    from transformers import TrainerCallback

    turns = Turns(case)
    parts: dict[str, float] = {}
    lengths: set[int] = set()

    def reward(
        completions: Any, completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        lengths.update(map(len, completion_ids))
        return [reward_of(answer) for answer in completion_ids]

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            parts.update(rollout=0.0, reference=0.0)
            lengths.clear()
            turns.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            turns.end(dict(parts), lengths)

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trl(case, folder, reward, by_rows=by_rows)
        trainer.add_callback(Clock())
        if answers_only:
            trainer._get_per_token_logps_and_entropies = lambda *given, **options: _score_answers(
                trainer, *given, **options
            )
        _measure_parts(case, trainer, parts)
        trainer.train()


def make_trl(
    case: Case, folder: str, reward: Callable[..., list[float]], *, by_rows: bool = False
) -> Any:
    import inspect

    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    prompts = [
        "".join(map(word_of, ids)) for ids, _ in make_prompts(Case(**{**asdict(case), "images": 0}))
    ]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 1 if by_rows else case.answers, "gradient_accumulation_steps": case.answers if by_rows else 1,
        "num_generations": case.answers, "max_completion_length": case.answer_tokens, "max_steps": len(prompts),
        "beta": 0.04, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "loss_type": "grpo", "epsilon": 0.2, "epsilon_high": 0.28,
        "learning_rate": 1e-4, "max_grad_norm": 1.0, "gradient_checkpointing": case.gradient_checkpointing,
        "bf16": case.device == "cuda", "use_cpu": case.device == "cpu", "report_to": [], "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "seed": 0,
    }  # fmt: skip
    # releases differ: some would shuffle, or cut the prompt
    known = inspect.signature(GRPOConfig.__init__).parameters
    settings |= {
        name: value
        for name, value in {"shuffle_dataset": False, "max_prompt_length": None}.items()
        if name in known
    }
    return GRPOTrainer(
        model=make_text_model(case),
        reward_funcs=reward,
        args=GRPOConfig(output_dir=folder, **settings),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=make_tokenizer(case.model_size.vocab),
        peft_config=LoraConfig(r=8, lora_alpha=32, target_modules=LINEARS, task_type="CAUSAL_LM"),
    )


def _measure_parts(case: Case, trainer: Any, parts: dict[str, float]) -> None:
    """Makes the trainer note how long it generates and scores the reference; releases that name these otherwise are left alone."""
    import torch

    def timed(name: str, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*given: Any, **options: Any) -> Any:
            if part == "reference" and torch.is_grad_enabled():
                return function(*given, **options)
            started = time.perf_counter()
            found = function(*given, **options)
            _wait_for_device(case)
            parts[part] += time.perf_counter() - started
            return found

        return run

    for name, part in (
        ("_generate_single_turn", "rollout"),
        ("_get_per_token_logps_and_entropies", "reference"),
    ):
        if hasattr(trainer, name):
            setattr(trainer, name, timed(name, getattr(trainer, name), part))


def _score_answers(
    trainer: Any, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, batch_size: int | None = None,
    compute_entropy: bool = False, **rest: Any,
) -> tuple[Any, Any, None]:  # fmt: skip
    """TRL's scoring with the output embedding applied to the answers' positions alone."""
    import torch

    step = batch_size or len(input_ids)
    logprobs, entropies = [], []
    for start in range(0, len(input_ids), step):
        ids, mask = input_ids[start : start + step], attention_mask[start : start + step]
        logits = model(
            input_ids=ids, attention_mask=mask, logits_to_keep=logits_to_keep + 1, use_cache=False
        ).logits[:, :-1]
        normalised = (logits.float() / trainer.temperature).log_softmax(-1)
        logprobs.append(normalised.gather(2, ids[:, -logits_to_keep:, None])[..., 0])
        if compute_entropy:
            with torch.no_grad():
                entropies.append(-(normalised.exp() * normalised).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies) if compute_entropy else None, None


VARIANTS: dict[str, Callable[[Case], None]] = {
    "shared": lambda case: work_ours(case, is_shared=True),
    "merged": lambda case: work_ours(case, is_shared=True, sampling_weights="merged"),
    # a random policy repeats nothing, so that guesses come to nothing and a pass writes one token of nine
    "merged-guessed": lambda case: work_ours(
        case, is_shared=True, sampling_weights="merged", draft_tokens=8
    ),
    "repeated": lambda case: work_ours(case, is_shared=False),
    "repeated-uncached": lambda case: work_ours(case, is_shared=False, has_feature_cache=False),
    "trl": lambda case: work_trl(case),
    "trl-rows": lambda case: work_trl(case, by_rows=True),
    "trl-answers": lambda case: work_trl(case, answers_only=True),
}


# -- the same answers in both -------------------------------------------------------------------------------------------------


def compare_losses(case: Case) -> dict[str, float]:
    """Loss and gradients of both sides on the same weights, prompt, answers, advantages, old and reference log-probabilities."""
    import torch
    from torch.nn import functional as F

    from ffr.training.grpo.loss import policy_loss, token_weights

    module = make_module(case, is_shared=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trl(case, folder, lambda completions, **columns: [0.0] * len(completions))
    trainer.current_gradient_accumulation_steps = 1
    policies = {"ours": module.policy.vlm.model, "trl": trainer.model}
    weights = {
        side: {
            name.replace("language_model.", ""): weight
            for name, weight in model.named_parameters()
            if "visual" not in name
        }
        for side, model in policies.items()
    }
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in weights["ours"].items():
            if (
                "lora_" in name
            ):  # a fresh adapter is 0, and then the divergence from the reference is too
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.002)
            weights["trl"][name].copy_(weight)
    assert weights["ours"].keys() == weights["trl"].keys()

    ids = make_prompts(case)[1][0]
    answers = torch.randint(
        FIRST_WORD, NUM_WORDS, (case.answers, case.answer_tokens), generator=draw
    )
    advantages = torch.randn(case.answers, generator=draw)
    prompt, branches = encode(case, 0, ids, 0), [answers.tolist()]
    module.policy.vlm.train()
    with torch.no_grad(), module.policy.vlm.model.disable_adapter():
        reference = module.policy.sharing.score([prompt], branches).logprobs
    scores = module.policy.sharing.score([prompt], branches)
    old = (
        scores.logprobs.detach() + torch.randn(scores.mask.shape, generator=draw) * 0.1
    )  # so that some ratios are clipped
    counts = {
        "num_step_answers": case.answers,
        "num_step_tokens": answers.numel(),
        "max_new_tokens": case.answer_tokens,
    }
    ours, _ = policy_loss(
        scores.logprobs, old, advantages, scores.mask, token_weights(scores.mask, "grpo", **counts), loss_type="grpo",
        clip_low=0.2, clip_high=0.28, kl_coefficient=0.04, reference_logprobs=reference,
    )  # fmt: skip
    ours.backward()

    prompts = torch.tensor([ids] * case.answers)
    trainer.model.train()
    given = {
        "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": answers,
        "completion_mask": torch.ones_like(answers), "advantages": advantages, "old_per_token_logps": old,
        "num_items_in_batch": torch.tensor(answers.numel()),
    }  # fmt: skip
    # each side's own reference: it must agree too
    rows = torch.cat([prompts, answers], dim=1)
    with torch.no_grad(), trainer.model.disable_adapter():
        given["ref_per_token_logps"] = trainer._get_per_token_logps_and_entropies(
            trainer.model, rows, torch.ones_like(rows), case.answer_tokens
        )[0]
    theirs = trainer._compute_loss(trainer.model, given)
    theirs.backward()

    apart = []
    for name, weight in weights["ours"].items():
        if weight.requires_grad:
            left, right = weight.grad.flatten(), weights["trl"][name].grad.flatten()
            apart.append(float(F.pairwise_distance(left, right, eps=0.0) / right.norm()))
    return {
        "loss_ours": float(ours.detach()),
        "loss_trl": float(theirs.detach()),
        "loss_difference": abs(float(ours.detach()) - float(theirs.detach())),
        "largest_reference_difference": float(
            (reference - given["ref_per_token_logps"]).abs().max()
        ),
        "largest_relative_gradient_difference": max(apart),
    }


# -- taking turns -------------------------------------------------------------------------------------------------------------


class Worker:
    """A variant in a process of its own."""

    def __init__(self, variant: str, case: Case) -> None:
        self.variant, self.case = variant, case
        self.steps: list[dict[str, float]] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker", variant, "--case", json.dumps(asdict(case))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=_environment(case.threads),
        )  # fmt: skip
        self._read("READY")

    def _read(self, mark: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(mark):
                return line.removeprefix(mark)
        self._process.wait()
        self._errors.seek(0)
        raise WorkerError(
            f"{self.variant} failed at {self.case.name}: {self._errors.read()[-3000:].strip()}"
        )

    def step(self, *, is_counted: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        found = json.loads(self._read("STEP "))
        if "rollout" in found:
            found["update"] = found["seconds"] - found["rollout"] - found["reference"]
        if is_counted:
            self.steps.append(found)
        if len(self.steps) < self.case.rounds:
            self._read("READY")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _environment(threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


class WorkerError(Exception):
    """A worker ended early."""


def measure(
    case: Case, rounds: dict[str, int], say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Lets variants take turns; each has its own number of rounds.

    Returns:
        The case, and for each variant medians of seconds, parts and memory, with all steps; or the error of one that failed.
    """
    workers: list[Worker] = []
    errors: dict[str, str] = {}
    for variant, number in rounds.items():
        try:
            workers.append(Worker(variant, Case(**{**asdict(case), "rounds": number})))
            workers[-1].step(is_counted=False)
        except WorkerError as error:
            errors[variant] = str(error)
            say(str(error))
    workers = [worker for worker in workers if worker.variant not in errors]
    try:
        for number in range(max(rounds.values())):
            for worker in workers:
                if worker.variant in errors or number >= worker.case.rounds:
                    continue
                try:
                    worker.step(is_counted=True)
                    say(f"{case.name} {worker.variant} {worker.steps[-1]['seconds']:.2f} s")
                except WorkerError as error:
                    errors[worker.variant] = str(error)
                    say(str(error))
    finally:
        for worker in workers:
            worker.close()
    found: dict[str, Any] = {}
    for worker in workers:
        if worker.steps:
            names = worker.steps[0]
            found[worker.variant] = {
                "rounds": len(worker.steps),
                "median": {
                    name: statistics.median(step[name] for step in worker.steps) for name in names
                },
                "steps": worker.steps,
            }
            found[worker.variant]["median"]["peak_mb_above_start"] = max(
                step["peak_mb_above_start"] for step in worker.steps
            )
    return {
        "name": case.name,
        "case": asdict(case),
        "variants": found,
        "errors": errors,
        "ratios_to_shared": ratios(found),
    }


def ratios(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times ours (shared) each variant takes, in time and memory."""
    if "shared" not in found:
        return {}
    ours = found["shared"]["median"]
    return {
        variant: {
            name: figures["median"][name] / ours[name]
            for name in ("seconds", "cpu_seconds", "peak_mb_above_start")
        }
        for variant, figures in found.items()
        if variant != "shared"
    }


def table(points: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| point | variant | rounds | step s | CPU s | rollout s | reference s | update s | peak MB | time ÷ shared | CPU ÷ shared | memory ÷ shared |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for point in points:
        for variant, figures in point["variants"].items():
            median = figures["median"]
            ratio = point["ratios_to_shared"].get(variant)
            times = " | ".join(
                f"{median[part]:.2f}" if part in median else "–"
                for part in ("seconds", "cpu_seconds", "rollout", "reference", "update")
            )
            against = (
                " | ".join(f"{value:.1f}" for value in ratio.values()) if ratio else "1 | 1 | 1"
            )
            lines.append(
                f"| {point['name']} | {variant} | {figures['rounds']} | {times} | {median['peak_mb_above_start']:.0f} | {against} |"
            )
    return "\n".join(lines)


POINTS = {
    "2000x8": (
        Case(2_000, 8),
        {"shared": 5, "repeated": 5, "trl": 5, "trl-rows": 5, "trl-answers": 3},
    ),
    "2000x16": (Case(2_000, 16), {"shared": 5, "repeated": 3, "trl": 5, "trl-rows": 3}),
    "6000x8": (Case(6_000, 8), {"shared": 5, "repeated": 3, "trl": 3, "trl-rows": 3}),
    "images": (Case(2_000, 8, images=8), {"shared": 5, "repeated": 5, "repeated-uncached": 3}),
    "vocabulary": (Case(2_000, 8, vocab=32_000), {"shared": 3, "trl": 2, "trl-answers": 2}),
}
"""Points and how many rounds each variant takes: fewer where one takes minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--points", default=",".join(POINTS), help="which points: %(default)s")
    parser.add_argument("--variants", help="only these, with commas")
    parser.add_argument(
        "--rounds", type=int, help="rounds of every variant, instead of each point's own"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--difference-only", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker, options.case)
        return
    if options.difference_only:
        print(json.dumps(compare_losses(Case(rounds=1))))
        return
    # in a process of its own: the models would stay in this one's memory while the others are measured
    done = subprocess.run(
        [sys.executable, __file__, "--difference-only"], capture_output=True, text=True, check=False, env=_environment(options.threads)
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"comparing the losses failed:\n{done.stderr[-3000:]}")
    difference = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(difference), flush=True)
    from ffr.provenance import now, versions

    report: dict[str, Any] = {
        "what": "one GRPO step, LoRA r=8 on all linears of the decoder, KL 0.04, one prompt, answers of exactly C tokens",
        "model": asdict(SIZES["tiny"]),
        "same_answers": difference,
        "points": [],
        "versions": versions(),
        "at": now(),
    }
    options.out.parent.mkdir(exist_ok=True)
    for name in options.points.split(","):
        case, rounds = POINTS[name]
        case = Case(**{**asdict(case), "threads": options.threads})
        chosen = options.variants.split(",") if options.variants else list(rounds)
        point = measure(
            case, {variant: options.rounds or rounds.get(variant, 3) for variant in chosen}
        )
        report["points"].append(point)
        # after each point: a long run that is stopped leaves what it has
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(table(report["points"]) + "\n", encoding="utf-8")
    print(table(report["points"]))


def run_worker(variant: str, settings: dict[str, Any]) -> None:
    import logging
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    case = Case(**settings)
    torch.set_num_threads(case.threads)
    VARIANTS[variant](case)


if __name__ == "__main__":
    main()
