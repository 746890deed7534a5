"""The settings of the training stages."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from ffr.errors import UsageError
from ffr.settings.declaration import CONFIG, Settings, declared, setting

SCRATCH = "scratch"
"""As the model that a reader starts from: random weights."""
NEWEST = "newest"
"""As the model that GRPO starts from: the newest finished SFT run."""
_NOT_PACKED = "only packed sequences are filled up, and these settings pack none"
_OF_PROMPT = "the model's own setting, else the file's prompt text"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class StageConfig(Settings):
    """Settings that every training stage has."""

    stage: ClassVar[str]

    model: str = setting(
        "tiny",
        "model to start from: `tiny`, a folder, a run, or a hub id",
        unit="MODEL",
        by_content=True,
    )
    dataset: str = setting(
        "sample", "training data: a named set or a file", unit="NAME|PATH", by_content=True
    )
    split: str = setting("train", "part of a named set to train on", by_content=True)
    val_dataset: str | None = setting(
        None,
        "validation data: a named set or a file",
        unit="NAME|PATH",
        unset="the training set's own `val` part, if named",
        by_content=True,
    )
    val_split: str = setting("val", "part of a named set to validate on", by_content=True)
    image_root: str | None = setting(
        None,
        "folder that image paths are relative to",
        unit="DIR",
        unset="the data file's folder",
        by_content=True,
    )
    skip_bad: bool = setting(
        False, "leave bad records out, counted, instead of stopping at the first", by_content=True
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "auto = bf16 on a GPU that has it, else fp32"
    )
    epochs: float = setting(1.0, "passes over the training data", above=0)
    max_steps: int | None = setting(
        None, "stop after this many optimizer steps even if epochs are left", low=1
    )
    batch_size: int = setting(1, "dialogues a device takes at once", low=1)
    accumulate: int = setting(4, "batches a device adds up before an optimizer step", low=1)
    learning_rate: float = setting(1e-4, "peak learning rate", above=0)
    warmup_share: float = setting(
        0.05,
        "share of the steps over which the learning rate rises; a cosine follows",
        low=0,
        high=1,
    )
    weight_decay: float = setting(0.01, "AdamW weight decay", low=0)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm; 0 = never", low=0)

    val_every_steps: int | None = setting(
        None, "validate every so many steps", low=1, unset="four times a run"
    )
    val_examples: int = setting(64, "validation examples that are answered for F1; 0 = none", low=0)
    checkpoint_every_steps: int = setting(
        50, "write a checkpoint every so many steps", low=1, decides_result=False
    )
    keep_checkpoints: int = setting(
        2, "newest checkpoints that are kept", low=1, decides_result=False
    )

    seed: int = setting(0, "seed of data order, adapter and dropout", low=0, high=2**32 - 1)
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = setting("auto", "kind of device")
    devices: int = setting(1, "processes, one a device", low=1)
    strategy: str = setting(
        "auto", "Lightning strategy by name: auto, ddp, fsdp, deepspeed_stage_2, …"
    )
    # the last bits of a sum may hang on it, as they hang on the machine, which no setting names
    num_threads: int | None = setting(
        None, "CPU threads a process uses", low=1, unset="torch's choice", decides_result=False
    )
    num_workers: int = setting(
        2, "threads that read and encode ahead of training", low=0, decides_result=False
    )
    report_to: Literal["none", "wandb", "trackio"] = setting(
        "none",
        "also log figures, and GRPO's answers as tables, to Weights & Biases or trackio (extras "
        "`wandb`, `trackio`)",
        decides_result=False,
    )
    report_project: str | None = setting(
        None, "its project there", unset="ffr", decides_result=False
    )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ReaderConfig(StageConfig):
    """Everything that decides what `ffr train reader` does; an example is a query on a dialogue.

    >>> ReaderConfig().model, ReaderConfig(rejoined=2).rejoined
    ('scratch', 2.0)
    """

    stage: ClassVar[str] = "reader"

    model: str = setting(
        SCRATCH,
        "reader to start from: `reader` (the one that comes with ffr), a run, a folder; "
        "`scratch` = "
        "random weights",
        unit="MODEL",
        flag="--from",
        by_content=True,
    )
    batch_size: int = setting(32, "examples a device takes at once", low=1)
    accumulate: int = setting(1, "batches a device adds up before an optimizer step", low=1)
    learning_rate: float = setting(1e-3, "peak learning rate", above=0)
    weight_decay: float = setting(0.05, "AdamW weight decay", low=0)
    accelerator: Literal["cpu"] = setting("cpu", "kind of device: a reader is trained on a CPU")
    encoder: str | None = setting(
        None,
        "sentence encoder whose vectors it reads: `e5`, `minilm`, a folder, a hub id",
        unit="ENCODER",
        unset="e5, or that of the reader that it starts from",
    )
    encoder_cache_dir: str | None = setting(
        None,
        "folder that keeps vectors between runs",
        unset="the user's cache",
        decides_result=False,
    )
    encoder_cache_mb: int = setting(4096, "size bound of that folder", low=1, decides_result=False)
    width: int | None = setting(
        None, "width of the network, of one from scratch", low=8, high=1024, unset="96"
    )
    num_layers: int | None = setting(
        None, "layers of the network, likewise", low=1, high=24, unset="4"
    )
    num_heads: int | None = setting(
        None, "attention heads of a layer, likewise", low=1, high=32, unset="6"
    )
    dropout: float | None = setting(
        None,
        "share of numbers left out in training, of a network from scratch",
        low=0,
        high=0.9,
        unset="0.1",
    )
    jitter: float = setting(
        0.15, "noise on likenesses in training, so that no fine shade of them is learned", low=0
    )
    nothing_weight: float = setting(
        0.3, 'weight of the loss of "nothing here" beside that of the fragment', low=0
    )
    rejoined: float = setting(
        0.0,
        "new dialogues, made of fragments of several, for each example of the data",
        low=0,
        high=100,
    )
    absent_share: float = setting(
        0.15,
        "share of the new dialogues that are asked a query of another one, which means nothing "
        "there",
        low=0,
        high=1,
    )
    max_units: int = setting(
        512,
        "a dialogue of more utterances and pictures is an error that names it",
        low=8,
        high=4096,
    )

    def check(self) -> None:
        super().check()
        sizes = ("width", "num_layers", "num_heads", "dropout")
        given = [name for name in sizes if getattr(self, name) is not None]
        if given and self.model != SCRATCH:
            raise UsageError(
                f"setting {given[0]}: a reader that is trained further keeps its own; leave it "
                "out, "
                f"or train one from {SCRATCH}"
            )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class EmbeddingConfig(StageConfig):
    """Everything that decides what `ffr train embedding` does; an example is a query's fragment.

    >>> EmbeddingConfig().model, EmbeddingConfig(temperature="0.02").temperature
    ('e5', 0.02)
    """

    stage: ClassVar[str] = "embedding"

    model: str = setting(
        "e5",
        "sentence encoder to start from: `e5`, `minilm`, a folder, a hub id",
        unit="ENCODER",
        flag="--encoder",
        by_content=True,
    )
    batch_size: int = setting(32, "queries a step tells apart at once, with their texts", low=2)
    accumulate: int = setting(1, "batches that are added up before an optimizer step", low=1)
    learning_rate: float = setting(2e-5, "peak learning rate", above=0)
    warmup_share: float = setting(
        0.1,
        "share of the steps over which the learning rate rises; a cosine follows",
        low=0,
        high=0.9,
    )
    val_examples: int = setting(256, "validation queries whose loss is measured; 0 = none", low=0)
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "kind of device")
    hard_negatives: int = setting(
        3, "other fragments of a query's dialogue that each query is told from", low=0, high=32
    )
    temperature: float = setting(
        0.05,
        "cosines are divided by it: the lower, the more the nearest wrong text counts",
        above=0,
    )
    max_text_tokens: int = setting(
        256, "longer texts are cut at their end in training", low=8, high=8192
    )
    pass_texts: int | None = setting(
        None,
        "texts that go through the encoder at once, for less memory",
        low=1,
        unset="all of a batch",
    )

    def check(self) -> None:
        super().check()
        for name in ("devices", "strategy"):
            if getattr(self, name) != declared(type(self))[name].default:
                raise UsageError(
                    f"setting {name}: an encoder is trained by one process; leave it out"
                )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class VlmStageConfig(StageConfig):
    """Settings of the stages that train a vision-language model."""

    template: Literal["zh", "en"] | None = setting(None, "prompt template", unset=_OF_PROMPT)
    query_position: Literal["first", "last"] | None = setting(
        None, "query before or after the dialogue", unset=_OF_PROMPT
    )
    max_image_pixels: int = setting(
        602_112, "larger images are scaled down to this many pixels", low=784
    )
    max_tokens: int = setting(
        15_536, "a longer prompt with its answer is an error that names the dialogue", low=16
    )

    lora_rank: int = setting(
        8, "rank of the LoRA adapter; 0 trains all weights of the language model", low=0
    )
    lora_alpha: float = setting(
        32.0, "LoRA scale: the update is multiplied by alpha / rank", above=0
    )
    lora_dropout: float = setting(0.0, "dropout in front of the adapter", low=0, high=0.9)
    load_in_4bit: bool = setting(
        False, "load the frozen weights in 4 bits (needs bitsandbytes and a GPU)"
    )
    trust_remote_code: bool = setting(
        False, "run code that comes with the model; only for a model you trust", typed_only=True
    )
    gradient_checkpointing: bool = setting(
        True, "recompute activations in the backward pass to save memory"
    )
    compile: bool = setting(
        False, "compile the decoder's layers: quicker steps, after some time of compiling"
    )
    feature_cache_mb: int = setting(
        512,
        "memory for image features, computed once by the frozen vision tower; 0 = off",
        low=0,
        decides_result=False,
    )
    feature_cache_dir: str | None = setting(
        None,
        "folder that keeps image features between runs",
        unset="memory only",
        decides_result=False,
    )
    feature_cache_dir_mb: int = setting(
        4096, "size bound of that folder", low=1, decides_result=False
    )

    val_batch_tokens: int = setting(16_384, "prompt tokens answered at once in validation", low=16)
    max_new_tokens: int = setting(512, "longest answer that validation lets the model write", low=8)
    pad_to_multiple_of: int = setting(
        1,
        "packed sequences are filled up to a multiple of these tokens: fewer different lengths, "
        "for which a CPU keeps less memory (64)",
        low=1,
    )


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class SftConfig(VlmStageConfig):
    """Everything that decides what `ffr train sft` does.

    >>> SftConfig(learning_rate=2e-4).learning_rate
    0.0002
    >>> SftConfig(epochs=-1)
    Traceback (most recent call last):
        ...
    ffr.errors.UsageError: setting epochs: -1 is too small; it must be more than 0
    """

    stage: ClassVar[str] = "sft"

    pack_queries: bool = setting(
        False,
        "train all queries of a dialogue (16 at most) in one sequence behind it: batch_size then "
        "counts dialogues with all these queries; needs query_position=last",
    )

    def check(self) -> None:
        super().check()
        _check_packing(self)
        if self.pad_to_multiple_of > 1 and not self.pack_queries:
            raise UsageError(f"setting pad_to_multiple_of: {_NOT_PACKED}; set pack_queries=true")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class GrpoConfig(VlmStageConfig):
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
    updates_per_rollout: int = setting(1, "optimizer steps on the answers of one step", low=1)
    answers_per_pass: int | None = setting(
        None,
        "answers packed behind a prompt at once, for less memory",
        low=1,
        unset="all of them",
        of="vlm",
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
        "Chinese-CLIP model, `onnx:DIR`, `vlm:MODEL`, `vlm-mean:MODEL`",
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
        _check_packing(self)
        if self.pack_queries and self.curriculum is not None:
            raise UsageError(
                "setting pack_queries: dialogues come shuffled with all their queries, and "
                f"curriculum {self.curriculum} orders queries one by one; leave one of the two out"
            )
        if self.pad_to_multiple_of > 1 and self.prompt_sharing == "off":
            raise UsageError(
                f"setting pad_to_multiple_of: {_NOT_PACKED}; leave prompt_sharing at auto"
            )
        if self.sampling_weights == "merged":
            _check_merging(self)
        if self.compile_sampling and self.prompt_sharing == "off":
            raise UsageError(
                "setting compile_sampling: its steps are those of answers that share their prompt; "
                "leave prompt_sharing at auto"
            )
        _check_server(self)
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


def _check_merging(config: GrpoConfig) -> None:
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


def _check_server(config: GrpoConfig) -> None:
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


def _check_packing(config: SftConfig | GrpoConfig) -> None:
    if config.pack_queries and config.query_position == "first":
        raise UsageError(
            "setting pack_queries: the dialogue must stand before them; set query_position=last"
        )
