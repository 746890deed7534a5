"""The settings of the training stages."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from ffr.errors import UsageError
from ffr.settings.declaration import CONFIG, Settings, declared, setting

SCRATCH = "scratch"
"""As the model that a reader starts from: random weights."""
NOT_PACKED = "only packed sequences are filled up, and these settings pack none"
"""What is said of filling up where nothing is packed."""
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
    strange_pictures: float = setting(
        0.0,
        "share of the pictures of the new dialogues that show what one of another dialogue shows, "
        "and so do not belong to what is meant",
        low=0,
        high=1,
    )
    picture_weight: float | None = setting(
        None,
        "how much what a picture shows counts in the trained reader's answers beside where it "
        "stands",
        low=0,
        high=10,
        unset="that of the reader that it starts from, 0 from scratch",
    )
    max_units: int = setting(
        512,
        "a dialogue of more utterances and pictures is an error that names it",
        low=8,
        high=4096,
    )

    def check(self) -> None:
        super().check()
        if self.strange_pictures and not self.rejoined:
            raise UsageError(
                "setting strange_pictures: it says what new dialogues show, and none are made; set "
                "rejoined=1 too, or leave it out"
            )
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
        "sentence encoder to start from: `e5`, `minilm`, a run, a folder, a hub id",
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
        check_packing(pack_queries=self.pack_queries, query_position=self.query_position)
        if self.pad_to_multiple_of > 1 and not self.pack_queries:
            raise UsageError(f"setting pad_to_multiple_of: {NOT_PACKED}; set pack_queries=true")


def check_packing(*, pack_queries: bool, query_position: str | None) -> None:
    """Sees that a dialogue that queries share stands before them.

    Raises:
        UsageError: where it does not.
    """
    if pack_queries and query_position == "first":
        raise UsageError(
            "setting pack_queries: the dialogue must stand before them; set query_position=last"
        )
