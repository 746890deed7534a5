"""Typed settings of every stage: defaults, bounds, one line of text each; and how recipes, files and `-o key=value` fill them.

Torch-free, so that the command line can list settings without loading a model.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union

from ffr.errors import UsageError
from ffr.shipped import purposes
from ffr.text import one_line


def setting(
    default: Any, text: str, *, low: float | None = None, high: float | None = None, above: float | None = None
) -> Any:
    """A settings field: its default, one line that says what it is, and the bounds that a value must keep."""
    return field(default=default, metadata={"text": text, "low": low, "high": high, "above": above})


@dataclass(frozen=True)
class StageConfig:
    """Settings that every training stage has."""

    stage: ClassVar[str]

    model: str = setting("tiny", "model to start from: `tiny`, a folder, a run, or a hub id")
    dataset: str = setting("sample", "training data: a named set or a file")
    split: str = setting("train", "part of a named set to train on")
    val_dataset: str | None = setting(
        None, "validation data: a named set or a file; none = the training set's own `val` part, if named"
    )
    val_split: str = setting("val", "part of a named set to validate on")
    image_root: str | None = setting(None, "folder that image paths are relative to; none = the data file's folder")
    skip_bad: bool = setting(False, "leave bad records out, counted, instead of stopping at the first")
    template: Literal["zh", "en"] | None = setting(
        None, "prompt template; none = the model's own setting, else the file's prompt text"
    )
    query_position: Literal["first", "last"] | None = setting(
        None, "query before or after the dialogue; none = the model's own setting, else the file's prompt text"
    )
    max_image_pixels: int = setting(602_112, "larger images are scaled down to this many pixels", low=784)
    max_tokens: int = setting(15_536, "a longer prompt with its answer is an error that names the dialogue", low=16)

    lora_rank: int = setting(8, "rank of the LoRA adapter; 0 trains all weights of the language model", low=0)
    lora_alpha: float = setting(32.0, "LoRA scale: the update is multiplied by alpha / rank", above=0)
    lora_dropout: float = setting(0.0, "dropout in front of the adapter", low=0, high=0.9)
    load_in_4bit: bool = setting(False, "load the frozen weights in 4 bits (needs bitsandbytes and a GPU)")
    trust_remote_code: bool = setting(False, "run code that comes with the model; only for a model you trust")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "auto = bf16 on a GPU that has it, else fp32")
    gradient_checkpointing: bool = setting(True, "recompute activations in the backward pass to save memory")
    compile: bool = setting(False, "compile the decoder's layers: quicker steps, after some time of compiling")
    feature_cache_mb: int = setting(
        512, "memory for image features, computed once by the frozen vision tower; 0 = off", low=0
    )
    feature_cache_dir: str | None = setting(None, "folder that keeps image features between runs; none = memory only")
    feature_cache_dir_mb: int = setting(4096, "size bound of that folder", low=1)

    epochs: float = setting(1.0, "passes over the training data", above=0)
    max_steps: int | None = setting(None, "stop after this many optimizer steps even if epochs are left", low=1)
    batch_size: int = setting(1, "dialogues a device takes at once", low=1)
    accumulate: int = setting(4, "batches a device adds up before an optimizer step", low=1)
    learning_rate: float = setting(1e-4, "peak learning rate", above=0)
    warmup_share: float = setting(
        0.05, "share of the steps over which the learning rate rises; a cosine follows", low=0, high=1
    )
    weight_decay: float = setting(0.01, "AdamW weight decay", low=0)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm; 0 = never", low=0)

    val_every_steps: int | None = setting(None, "validate every so many steps; none = four times a run", low=1)
    val_examples: int = setting(64, "validation examples that are answered for F1; 0 = none", low=0)
    val_batch_tokens: int = setting(16_384, "prompt tokens answered at once in validation", low=16)
    max_new_tokens: int = setting(512, "longest answer that validation lets the model write", low=8)
    checkpoint_every_steps: int = setting(50, "write a checkpoint every so many steps", low=1)
    keep_checkpoints: int = setting(2, "newest checkpoints that are kept", low=1)

    seed: int = setting(0, "seed of data order, adapter and dropout", low=0, high=2**32 - 1)
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = setting("auto", "kind of device")
    devices: int = setting(1, "processes, one a device", low=1)
    strategy: str = setting("auto", "Lightning strategy by name: auto, ddp, fsdp, deepspeed_stage_2, …")
    num_threads: int | None = setting(None, "CPU threads a process uses; none = torch's choice", low=1)
    pad_to_multiple_of: int = setting(
        1,
        "packed sequences are filled up to a multiple of these tokens: fewer different lengths, for which a CPU keeps less memory (64)",
        low=1,
    )
    num_workers: int = setting(2, "threads that read and encode ahead of training", low=0)
    wandb_project: str | None = setting(None, "also log to this Weights & Biases project (extra `wandb`)")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class SftConfig(StageConfig):
    """Everything that decides what `ffr train sft` does.

    >>> SftConfig(learning_rate=2e-4).learning_rate
    0.0002
    >>> SftConfig(epochs=-1)
    Traceback (most recent call last):
        ...
    ffr.errors.UsageError: setting epochs: -1.0 is too small; it must be more than 0
    """

    stage: ClassVar[str] = "sft"

    pack_queries: bool = setting(
        False,
        "train all queries of a dialogue (16 at most) in one sequence behind it: batch_size then counts dialogues with all "
        "these queries; needs query_position=last",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_packing(self)
        if self.pad_to_multiple_of > 1 and not self.pack_queries:
            raise UsageError(f"setting pad_to_multiple_of: {_NOT_PACKED}; set pack_queries=true")


@dataclass(frozen=True)
class GrpoConfig(StageConfig):
    """Everything that decides what `ffr train grpo` does; a prompt is a dialogue with a query.

    >>> GrpoConfig().num_generations, GrpoConfig().clip_high
    (8, 0.28)
    """

    stage: ClassVar[str] = "grpo"

    model: str = setting("newest", "run or model to start from; `newest` = the newest finished SFT run under ./runs")
    batch_size: int = setting(1, "prompts a device takes through the model at once, each with all its answers", low=1)
    accumulate: int = setting(4, "such batches of a device in a step", low=1)
    learning_rate: float = setting(2e-6, "peak learning rate", above=0)
    warmup_share: float = setting(
        0.03, "share of the steps over which the learning rate rises; a cosine follows", low=0, high=1
    )
    max_new_tokens: int = setting(1024, "longest answer, in training and in validation", low=8)

    num_generations: int = setting(8, "answers sampled to each prompt (G)", low=2)
    temperature: float = setting(1.0, "sampling temperature; the log-probabilities are taken at it too", above=0)
    top_p: float = setting(0.85, "sampling keeps the likeliest tokens of this total probability", above=0, high=1)
    resample_attempts: int = setting(
        3, "how often prompts whose answers all earn the same are answered anew; 0 = never", low=0
    )
    updates_per_rollout: int = setting(1, "optimizer steps on the answers of one step", low=1)
    answers_per_pass: int | None = setting(
        None, "answers packed behind a prompt at once, for less memory; none = all of them", low=1
    )
    rollout_batch: int | None = setting(
        None,
        "prompts answered at once; none = all of a device in a step, since decoding many takes hardly longer",
        low=1,
    )
    prompt_sharing: Literal["auto", "off"] = setting(
        "auto", "prompts pass through the model once for all their answers; off = once for each, as others do it"
    )
    pack_queries: bool = setting(
        False,
        "keep the queries of a dialogue (16 at most) side by side in the order of the data, and take it through the model once for those "
        "that are answered (rollout_batch) or trained (batch_size) at once; needs query_position=last, and no curriculum",
    )
    startup_check: bool = setting(True, "take the longest prompt through a whole step before training")

    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"] = setting("grpo", "objective")
    clip_low: float = setting(0.2, "probability ratios are clipped below 1 minus this", low=0)
    clip_high: float = setting(0.28, "probability ratios are clipped above 1 plus this", low=0)
    kl_coefficient: float = setting(0.02, "weight of the divergence from the model it started from", low=0)
    scale_advantages: Literal["group", "batch", "none"] = setting(
        "group", "whose standard deviation the advantages are divided by"
    )
    mask_cut_off: bool = setting(False, "answers that reached max_new_tokens teach nothing")

    f1_weight: float = setting(1.0, "weight of the F1 reward", low=0)
    f1_beta: float = setting(1.0, "beta of F-beta in the F1 reward", above=0)
    length_discount: float = setting(
        0.95, "factor of the F1 reward for each id more or fewer than true", above=0, high=1
    )
    order_weight: float = setting(1.0, "weight of the fragment order reward", low=0)
    format_weight: float = setting(0.3, "weight of the format reward", low=0)
    mcc_weight: float = setting(0.0, "weight of the MCC reward", low=0)
    overlong_tokens: int = setting(
        0, "a penalty grows from 0 to 1 over so many last tokens before max_new_tokens; 0 = none", low=0
    )
    rewards: str | None = setting(None, "rewards of your own: `module:function=weight`, several with commas")
    encoder: str = setting(
        "policy",
        "what embeds texts and images for the order reward: `policy`, `tiny-clip`, a CLIP, SigLIP, Chinese-CLIP model, `onnx:DIR`, `vlm:MODEL`, "
        "`vlm-mean:MODEL`",
    )
    encoder_cache_dir: str | None = setting(None, "folder that keeps embeddings between runs; none = memory only")
    encoder_cache_mb: int = setting(1024, "size bound of that folder", low=1)
    answer_style: Literal["bare", "think"] = setting(
        "bare", "`think` = the answer in <answer> tags after a thought in <think> tags"
    )

    curriculum: Literal["paper", "paced", "online"] | None = setting(
        None, "order of the data: paper (easy to hard), paced (a growing pool), online (by signal); none = shuffled"
    )
    difficulty: str | None = setting(None, "table of `ffr curriculum score`; none = made, or found in the cache")
    pace_start_share: float = setting(0.3, "share of the data in the pool at the start of `paced`", above=0, high=1)
    show_samples_every_steps: int = setting(
        20, "write out answers with their rewards every so many steps; 0 = never", low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_packing(self)
        if self.pack_queries and self.curriculum is not None:
            raise UsageError(
                f"setting pack_queries: dialogues come in shuffled order with all their queries, and curriculum {self.curriculum} "
                "orders queries one by one; leave one of the two out"
            )
        if self.pad_to_multiple_of > 1 and self.prompt_sharing == "off":
            raise UsageError(f"setting pad_to_multiple_of: {_NOT_PACKED}; leave prompt_sharing at auto")
        if self.loss_type == "cispo" and self.clip_high < 1:
            raise UsageError(
                f"setting clip_high: {self.clip_high} is too small for cispo, which takes it as the largest ratio; set about 5"
            )

    @property
    def prompts_at_once(self) -> int:
        """Prompts that a device answers at once in sampling."""
        return self.rollout_batch or self.batch_size * self.accumulate


@dataclass(frozen=True)
class AnswerConfig:
    """How a model is asked, in `ffr eval` and in the suites of `ffr bench run`.

    >>> AnswerConfig(window=100).overlap
    0
    """

    constrained: bool = setting(False, "let the model write well-formed answers only")
    batch_tokens: int = setting(16_384, "prompt tokens answered at once", low=1)
    max_new_tokens: int = setting(512, "longest answer", low=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "type of the weights; auto = float32 on a CPU, as in the files on a GPU"
    )
    template: Literal["zh", "en"] | None = setting(None, "prompt template; none = the model's, else the file's")
    query_position: Literal["first", "last"] | None = setting(None, "query before or after the dialogue; none likewise")
    logprobs: bool = setting(False, "write the log-probability of every answer token")
    window: int = setting(0, "answer dialogues of more utterances in pieces of so many; 0 never cuts", low=0)
    overlap: int = setting(0, "utterances that neighbouring pieces share", low=0)
    api_key_env: str | None = setting(
        None, "environment variable that holds the key; none = OPENAI_API_KEY, where it is set"
    )
    concurrency: int = setting(8, "requests at a time", low=1, high=256)
    requests_per_minute: float | None = setting(None, "requests begun in a minute at most; none = no bound", above=0)
    timeout: float = setting(300.0, "longest time for one answer, in seconds", above=0)
    max_retries: int = setting(6, "how often a request is repeated after a passing fault", low=0)
    neighbours: int | None = setting(
        None,
        "lines on either side that an utterance is joined with; none = 2 for encoders of texts alone, else 0",
        low=0,
    )
    select: Literal["threshold", "top-share"] = setting(
        "threshold", "choose what is as similar as this, or this share of a dialogue; the number is fitted"
    )
    threshold: float | None = setting(None, "this similarity, not a fitted one", low=-1, high=1)
    image_threshold: float | None = setting(None, "that of pictures; none = as threshold", low=-1, high=1)
    fit_dataset: str | None = setting(None, "data to fit the number on; none = another part of the named set")
    fit_split: str = setting("train", "part of the set to fit on")
    fit_limit: int | None = setting(None, "the first so many queries of it only", low=1)
    fit_image_root: str | None = setting(None, "folder of its images")
    encoder_cache: str | None = setting(
        None, "folder that keeps the vectors of encoders between runs; none = memory only"
    )
    price_in: float = setting(0.0, "price of a million prompt tokens", low=0)
    price_out: float = setting(0.0, "price of a million answer tokens", low=0)

    def __post_init__(self) -> None:
        _check(self)
        if self.overlap >= max(self.window, 1):
            raise UsageError(f"setting overlap: {self.overlap} is not less than the window of {self.window}")
        if self.image_threshold is not None and self.threshold is None:
            raise UsageError("setting image_threshold: it has no meaning beside a fitted threshold; set threshold too")


SETTINGS_OF_VLMS = frozenset({"constrained", "batch_tokens", "dtype"})
"""Settings of `AnswerConfig` that only a vision-language model on this machine has."""
SETTINGS_OF_PROMPTS = frozenset({"max_new_tokens", "template", "query_position", "logprobs", "window", "overlap"})
"""Those of what reads a prompt and writes a text."""
SETTINGS_OF_APIS = frozenset(
    {"api_key_env", "concurrency", "requests_per_minute", "timeout", "max_retries", "price_in", "price_out"}
)
"""Those of a model behind a server."""
SETTINGS_OF_FITTING = frozenset({"select", "fit_dataset", "fit_split", "fit_limit", "fit_image_root"})
"""Those of an encoder whose threshold is fitted."""
SETTINGS_OF_EMBEDDINGS = SETTINGS_OF_FITTING | {"neighbours", "threshold", "image_threshold"}
"""Those of an encoder that retrieves."""


Config = TypeVar("Config", bound=StageConfig)


_NOT_PACKED = "only packed sequences are filled up, and these settings pack none"


def _check_packing(config: SftConfig | GrpoConfig) -> None:
    if config.pack_queries and config.query_position == "first":
        raise UsageError(
            "setting pack_queries: queries share a dialogue that stands before them; set query_position=last"
        )


def _check(config: Any) -> None:
    hints = typing.get_type_hints(type(config))
    for item in fields(config):
        object.__setattr__(config, item.name, _checked(item, getattr(config, item.name), hints[item.name]))


def checked_setting(kind: type[Any], name: str, value: Any) -> Any:
    """A value as the type of a setting that exists, within its bounds.

    Raises:
        UsageError: where it is neither.

    >>> checked_setting(AnswerConfig, "window", "100")
    100
    """
    item = next(item for item in fields(kind) if item.name == name)
    return _checked(item, value, typing.get_type_hints(kind)[name])


def _checked(item: Field[Any], value: Any, hint: Any) -> Any:
    value = _convert(item.name, value, hint)
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    low, high, above = item.metadata["low"], item.metadata["high"], item.metadata["above"]
    if low is not None and value < low:
        raise UsageError(f"setting {item.name}: {value} is too small; it must be at least {low}")
    if above is not None and not value > above:
        raise UsageError(f"setting {item.name}: {value} is too small; it must be more than {above}")
    if high is not None and value > high:
        raise UsageError(f"setting {item.name}: {value} is too large; it must be at most {high}")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise UsageError(f"setting {item.name}: {value} is not a finite number")
    return value


def _convert(name: str, value: Any, hint: Any) -> Any:
    """`value` as the hinted type, from the type itself or from the text of `-o`; anything else is a UsageError."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(None) in options:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
        options = tuple(option for option in options if option is not type(None))
    option = options[0]
    if typing.get_origin(option) is Literal:
        choices = typing.get_args(option)
        if value in choices:
            return value
        raise UsageError(
            f"setting {name}: {value!r} is not one of {', '.join(map(str, choices))}{nearest(str(value), choices)}"
        )
    if option is bool:
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text in ("true", "yes", "on", "1"):
            return True
        if text in ("false", "no", "off", "0"):
            return False
        raise UsageError(f"setting {name}: {value!r} is neither true nor false")
    if option in (int, float):
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
            if option is int:
                if number != int(number):
                    raise ValueError
                return int(value) if isinstance(value, int) else int(number)
            if number != number:
                raise ValueError
            return number
        except (TypeError, ValueError, OverflowError):
            kind = "a whole number" if option is int else "a number"
            raise UsageError(f"setting {name}: {value!r} is not {kind}") from None
    if isinstance(value, str):
        return value
    raise UsageError(f"setting {name}: {value!r} is not a text")


def nearest(word: str, words: Iterable[Any]) -> str:
    """`; did you mean …?` with the word that is most like this one; empty where none is."""
    found = difflib.get_close_matches(word, [str(item) for item in words], n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def recipes(stage: str) -> dict[str, str]:
    """The recipes that come with ffr for a stage, by name, with the first comment line of each."""
    return purposes(resources.files("ffr.shipped.recipes") / stage)


def load_config(
    kind: type[Config],
    *,
    source: str | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Config:
    """Settings from a recipe or file, then from named options, then from `key=value` texts; later ones win.

    Args:
        kind: The stage's settings.
        source: Name of a recipe, or path of a YAML file; none = the recipe `tiny`.
        overrides: Texts `key=value` from the command line.
        settings: Values of options with names of their own; None ones are left out.

    Raises:
        UsageError: for an unknown recipe, a file that is no mapping, an unknown key (the nearest right one is named), or a
            value of the wrong type or out of bounds.

    >>> load_config(SftConfig, overrides=["learning_rat=1"])
    Traceback (most recent call last):
        ...
    ffr.errors.UsageError: -o learning_rat=1: there is no setting learning_rat; did you mean learning_rate?
    """
    import yaml

    name = source or "tiny"
    known = recipes(kind.stage)
    if name in known:
        text = (resources.files("ffr.shipped.recipes") / kind.stage / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"{name}: neither a recipe ({', '.join(known)}) nor a file{nearest(name, known)}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: cannot be read ({error})") from None
    try:
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{name}: not YAML ({one_line(error)})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{name}: holds no settings; write `key: value` lines")
    merged = _known_keys(kind, values, name)
    merged.update({key: value for key, value in (settings or {}).items() if value is not None})
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"-o {override}: write key=value")
        merged.update(_known_keys(kind, {key.strip(): value.strip()}, f"-o {override}"))
    return kind(**merged)


def _known_keys(kind: type[Config], values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    names = [item.name for item in fields(kind)]
    for key in values:
        if key not in names:
            raise UsageError(f"{where}: there is no setting {key}{nearest(str(key), names)}")
    return dict(values)


def to_yaml(config: StageConfig) -> str:
    """The resolved settings as a file that `--config` reads back."""
    import yaml

    return yaml.safe_dump(asdict(config), allow_unicode=True, sort_keys=False)


def config_fingerprint(config: StageConfig) -> str:
    """SHA-256 over all settings: two runs with the same one were asked for the same thing."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()


def describe(kind: type[StageConfig]) -> list[tuple[str, str, str]]:
    """(name, default, text) of each setting, for `--list-settings`."""
    return [(item.name, str(item.default), item.metadata["text"]) for item in fields(kind)]
