"""The settings of GRPO: how answers come about, and what is learned from them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from ffr.errors import UsageError
from ffr.settings.declaration import CONFIG, declared, setting
from ffr.settings.stages import NOT_PACKED, StageConfig, VlmStageConfig, check_packing

NEWEST = "newest"
"""As the model that GRPO starts from: the newest finished SFT run."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class RolloutConfig(VlmStageConfig):
    """Settings of how a policy's answers are sampled, and how far that may be from what is trained."""

    num_generations: int = setting(8, "answers sampled to each prompt (G)", low=2)
    temperature: float = setting(
        1.0, "sampling temperature; the log-probabilities are taken at it too", above=0
    )
    top_p: float = setting(
        0.85, "sampling keeps the likeliest tokens of this total probability", above=0, high=1
    )
    resample_attempts: int = setting(
        3, "how often prompts whose answers all earn the same are answered anew; 0 = never", low=0
    )
    rollout_batch: int | None = setting(
        None,
        "prompts answered at once",
        low=1,
        unset="all of a device in a step, since decoding many takes hardly longer",
    )
    sampling_weights: Literal["adapters", "merged"] = setting(
        "adapters",
        "what answers are sampled with: the weights with their adapters, as they are trained, or the "
        "adapters folded into a copy of the weights once a step, which takes fewer operations a "
        "token, and the memory of the copy",
        of="vlm",
    )
    rollout_engine: Literal["local", "server"] = setting(
        "local",
        "what writes the answers: this process, or a vLLM server, to which the adapter is handed "
        "each step",
        of="vlm",
    )
    rollout_server: str | None = setting(
        None,
        "that server and the model that it serves, as `http://localhost:8000/v1#MODEL`",
        unit="URL#MODEL",
        of="vlm",
        decides_result=False,
    )
    rollout_key_env: str = setting(
        "OPENAI_API_KEY",
        "environment variable that holds the server's key",
        of="vlm",
        decides_result=False,
    )
    rollout_adapter_dir: str | None = setting(
        None,
        "folder for the adapters that the server loads, which it sees under the same path",
        unit="DIR",
        unset="the run's folder",
        of="vlm",
        decides_result=False,
    )
    rollout_timeout: float = setting(
        300.0,
        "seconds that the server may take for the answers to one prompt",
        above=0,
        unit="SECONDS",
        of="vlm",
        decides_result=False,
    )
    rollout_retries: int = setting(
        4,
        "how often it is asked again after a fault that may pass",
        low=0,
        of="vlm",
        decides_result=False,
    )
    compile_sampling: bool = setting(
        False,
        "write answers by one compiled step of fixed shapes, which a GPU replays as a graph: quicker "
        "tokens, after some time of compiling",
        of="vlm",
    )
    draft_tokens: int = setting(
        0,
        "so many tokens of an answer are guessed ahead, from what was answered before, and go through "
        "the model at once; the answers are the same, written in fewer passes; 0 = none",
        low=0,
        high=32,
        of="vlm",
    )
    importance_cap: float = setting(
        3.0,
        "where what samples is not what is trained, a token counts by the ratio of its "
        "probabilities under the two, at most this",
        low=1,
    )
    sampling_gap_limit: float | None = setting(
        0.05,
        "a run stops where its log-probabilities and those of what sampled differ by more, in the "
        "mean over a step's tokens",
        above=0,
        unset="never",
    )

    def check(self) -> None:
        super().check()
        if self.sampling_weights == "merged":
            _check_merging(self)
        _check_server(self)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class GrpoConfig(RolloutConfig):
    """Everything that decides what `ffr train grpo` does; a prompt is a dialogue with a query.

    >>> GrpoConfig().num_generations, GrpoConfig().clip_high
    (8, 0.28)
    """

    stage: ClassVar[str] = "grpo"

    model: str = setting(
        NEWEST,
        "run or model to start from; `newest` = the newest finished SFT run under ./runs",
        unit="MODEL",
        flag="--from",
        by_content=True,
    )
    batch_size: int = setting(
        1, "prompts a device takes through the model at once, each with all its answers", low=1
    )
    accumulate: int = setting(4, "such batches of a device in a step", low=1)
    learning_rate: float = setting(2e-6, "peak learning rate", above=0)
    warmup_share: float = setting(
        0.03,
        "share of the steps over which the learning rate rises; a cosine follows",
        low=0,
        high=1,
    )
    max_new_tokens: int = setting(1024, "longest answer, in training and in validation", low=8)

    updates_per_rollout: int = setting(1, "optimizer steps on the answers of one step", low=1)
    answers_per_pass: int | None = setting(
        None,
        "answers packed behind a prompt at once, for less memory",
        low=1,
        unset="all of them",
        of="vlm",
    )
    prompt_sharing: Literal["auto", "off"] = setting(
        "auto",
        "take a prompt through the model once for all its answers; off = once for each",
        of="vlm",
    )
    pack_queries: bool = setting(
        False,
        "keep the queries of a dialogue (16 at most) side by side in the order of the data, and "
        "take it through the model once for those that are answered (rollout_batch) or trained "
        "(batch_size) at once; needs query_position=last, and no curriculum",
        of="vlm",
    )
    startup_check: bool = setting(
        True, "take the longest prompt through a whole step before training"
    )

    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"] = setting(
        "grpo", "objective"
    )
    clip_low: float = setting(0.2, "probability ratios are clipped below 1 minus this", low=0)
    clip_high: float = setting(0.28, "probability ratios are clipped above 1 plus this", low=0)
    kl_coefficient: float = setting(
        0.02, "weight of the divergence from the model it started from", low=0
    )
    scale_advantages: Literal["group", "batch", "none"] = setting(
        "group", "whose standard deviation the advantages are divided by"
    )
    mask_cut_off: bool = setting(
        False, "answers that reached max_new_tokens teach nothing", of="vlm"
    )

    f1_weight: float = setting(1.0, "weight of the F1 reward", low=0)
    f1_beta: float = setting(1.0, "beta of F-beta in the F1 reward", above=0)
    length_discount: float = setting(
        0.95, "factor of the F1 reward for each id more or fewer than true", above=0, high=1
    )
    order_weight: float = setting(1.0, "weight of the fragment order reward", low=0)
    format_weight: float = setting(0.3, "weight of the format reward", low=0)
    mcc_weight: float = setting(0.0, "weight of the MCC reward", low=0)
    overlong_tokens: int = setting(
        0,
        "a penalty grows from 0 to 1 over so many last tokens before max_new_tokens; 0 = none",
        low=0,
        of="vlm",
    )
    rewards: str | None = setting(
        None,
        "rewards of your own: `module:function=weight`, several with commas",
        typed_only=True,
    )
    encoder: str = setting(
        "policy",
        "what embeds texts and images for the order reward: `policy`, `tiny-clip`, a CLIP, SigLIP, "
        "Chinese-CLIP model, `onnx:DIR`, `vlm:MODEL`, `vlm-mean:MODEL`, `gme:MODEL`",
    )
    encoder_cache_dir: str | None = setting(
        None,
        "folder that keeps embeddings between runs",
        unset="memory only",
        decides_result=False,
    )
    encoder_cache_mb: int = setting(1024, "size bound of that folder", low=1, decides_result=False)
    answer_style: Literal["bare", "think"] = setting(
        "bare",
        "`think` = the answer in <answer> tags after a thought in <think> tags",
        of="vlm",
    )

    curriculum: Literal["paper", "paced", "online"] | None = setting(
        None,
        "order of the data: paper (easy to hard), paced (a growing pool), online (by signal)",
        unset="shuffled",
        alone="paper",
    )
    difficulty: str | None = setting(
        None, "table of `ffr curriculum score`", unset="made, or found in the cache"
    )
    pace_start_share: float = setting(
        0.3, "share of the data in the pool at the start of `paced`", above=0, high=1
    )
    show_samples_every_steps: int = setting(
        20, "write out answers with their rewards every so many steps; 0 = never", low=0
    )

    def check(self) -> None:
        super().check()
        check_packing(pack_queries=self.pack_queries, query_position=self.query_position)
        if self.pack_queries and self.curriculum is not None:
            raise UsageError(
                "setting pack_queries: dialogues come shuffled with all their queries, and "
                f"curriculum {self.curriculum} orders queries one by one; leave one of the two out"
            )
        if self.compile_sampling and self.prompt_sharing == "off":
            raise UsageError(
                "setting compile_sampling: its steps are those of answers that share their prompt; "
                "leave prompt_sharing at auto"
            )
        _check_drafts(self)
        if self.pad_to_multiple_of > 1 and self.prompt_sharing == "off":
            raise UsageError(
                f"setting pad_to_multiple_of: {NOT_PACKED}; leave prompt_sharing at auto"
            )
        if self.loss_type == "cispo" and self.clip_high < 1:
            raise UsageError(
                f"setting clip_high: {self.clip_high} is too small for cispo, which takes it as "
                "the largest ratio; set about 5"
            )

    @property
    def prompts_at_once(self) -> int:
        """Prompts that a device answers at once in sampling."""
        return self.rollout_batch or self.batch_size * self.accumulate


def check_of_reader(config: GrpoConfig) -> None:
    """Refuses settings of a vision-language model beside a reader, where they are not the default.

    Raises:
        UsageError: naming the first.
    """
    known = declared(GrpoConfig)
    of_vlms = declared(VlmStageConfig).keys() - declared(StageConfig).keys()
    for name, item in known.items():
        if (name in of_vlms or "vlm" in item.about.of) and getattr(config, name) != item.default:
            raise UsageError(
                f"setting {name} has no meaning for a reader, whose answers are no text; leave it "
                "out"
            )
    if config.accelerator not in ("auto", "cpu"):
        raise UsageError(
            f"setting accelerator: {config.accelerator} is no CPU, on which a reader is trained; "
            "set accelerator=cpu"
        )


def _check_merging(config: RolloutConfig) -> None:
    name = "setting sampling_weights: merged"
    if not config.lora_rank:
        raise UsageError(f"{name} folds an adapter, and lora_rank=0 has none; leave it at adapters")
    if config.load_in_4bit:
        raise UsageError(
            f"{name} copies weights in their own type, which load_in_4bit has not; leave one out"
        )
    if config.strategy.startswith(("fsdp", "deepspeed")):
        raise UsageError(
            f"{name} needs whole weights in each process, and strategy {config.strategy} divides "
            "them; leave it at adapters"
        )


def _check_drafts(config: GrpoConfig) -> None:
    name = f"setting draft_tokens: {config.draft_tokens}"
    if not config.draft_tokens:
        return
    if config.prompt_sharing == "off":
        raise UsageError(
            f"{name} tokens are guessed of answers that share their prompt; leave prompt_sharing at "
            "auto, or draft_tokens at 0"
        )


def _check_server(config: RolloutConfig) -> None:
    name = "setting rollout_engine: server"
    if (config.rollout_engine == "server") != (config.rollout_server is not None):
        raise UsageError(
            "settings rollout_engine=server and rollout_server=URL#MODEL have no meaning without "
            "each other; give both"
        )
    if config.rollout_engine == "local":
        return
    if not config.lora_rank:
        raise UsageError(f"{name} is handed adapters, and lora_rank=0 has none; leave it at local")
    if config.devices > 1:
        raise UsageError(f"{name} works with one process that trains; set devices=1")
    if config.temperature != 1:
        raise UsageError(
            f"{name} says log-probabilities at temperature 1 alone; set temperature=1, or leave "
            "the engine at local"
        )
    if config.sampling_weights != "adapters":
        raise UsageError(
            f"{name} samples by itself, and sampling_weights={config.sampling_weights} has no "
            "meaning; leave it at adapters"
        )
    if config.compile_sampling:
        raise UsageError(
            f"{name} samples by itself, and compile_sampling has no meaning; leave it false"
        )
    if config.draft_tokens:
        raise UsageError(
            f"{name} samples by itself, and draft_tokens has no meaning; leave it at 0"
        )
