"""Loading a model with its tokenizer and processor, from a folder or the hub.

What is missing or damaged is said in a sentence.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ffr.errors import ModelError, UsageError
from ffr.images import MAX_IMAGE_PIXELS
from ffr.model_files import (
    check_checksums,
    check_model_folder,
    check_weights_finite,
    loading_explained,
)
from ffr.models.saving import SETTINGS_FILE
from ffr.models.vlm import Vlm
from ffr.shipped.tiny import TINY_FOLDER
from ffr.text import counted, one_line

_PROMPT_SETTINGS = {
    "template": ("zh", "en"),
    "query_position": ("first", "last"),
    "answer_style": ("bare", "think"),
}
"""What `ffr.json` may say of the prompts a model was trained with."""
DType = Literal["auto", "float32", "bfloat16", "float16"]


def load_vlm(
    name_or_path: str | Path,
    *,
    dtype: DType = "float32",
    device: str = "cpu",
    adapter: Path | None = None,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    attn_implementation: str | None = None,
) -> Vlm:
    """Loads a model with tokenizer and processor from a folder or the hub, from safetensors only.

    Args:
        name_or_path: `tiny`, a folder, or a hub id.
        dtype: Type of the weights in memory; `auto` as the files have it.
        device: Where the weights go.
        adapter: Folder of a peft adapter to put on top.
        load_in_4bit: Quantise the weights on loading (needs bitsandbytes and a GPU).
        trust_remote_code: Run code that comes with the model.
        max_image_pixels: Larger images are scaled down.
        attn_implementation: transformers' name of the attention to use.

    Raises:
        ModelError: where the files are missing, damaged, of another kind, or not safetensors.
        UsageError: where something that was asked for is not installed.
    """
    name = str(name_or_path)
    location = str(TINY_FOLDER) if name == "tiny" else name
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    weights: dict[str, Any] = {}
    if load_in_4bit:
        weights["quantization_config"] = _four_bits()
    if attn_implementation:
        weights["attn_implementation"] = attn_implementation
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"device {device!r} was asked for, but torch finds no GPU; use cpu or install torch "
            "with CUDA"
        )
    with loading_explained(name, kind="an image-text-to-text model"):
        _, tokenizer, processor = _load_parts(name, location, options)
        model, report = AutoModelForImageTextToText.from_pretrained(
            location,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **weights,
            **options,
        )
        if missing := sorted(report["missing_keys"]):
            # transformers would go on with random numbers in their place
            raise ModelError(
                f"lacks {counted(len(missing), 'weight')}, such as {missing[0]}; fetch its files "
                "again",
                name,
            )
        if not load_in_4bit:
            model.to(device)
        if adapter is not None:
            model = _with_adapter(model, adapter)
    check_weights_finite(model, name)
    _check_stop_ids(model, name)
    model.eval()
    return Vlm(
        model,
        tokenizer,
        processor,
        name=name,
        max_image_pixels=max_image_pixels,
        prompt_settings=_read_settings(Path(location)),
    )


def load_skeleton(
    name_or_path: str | Path,
    *,
    trust_remote_code: bool = False,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> Vlm:
    """A model without its weights, which makes prompts and counts tokens but computes nothing.

    Args:
        name_or_path: `tiny`, a folder, or a hub id.
        trust_remote_code: Run code that comes with the model.
        max_image_pixels: Larger images are scaled down.

    Raises:
        ModelError: as `load_vlm`, but for what is wrong with its weights.
    """
    name = str(name_or_path)
    location = str(TINY_FOLDER) if name == "tiny" else name
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    with loading_explained(name, kind="an image-text-to-text model"):
        config, tokenizer, processor = _load_parts(name, location, options)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, **options)
    return Vlm(
        model,
        tokenizer,
        processor,
        name=name,
        max_image_pixels=max_image_pixels,
        prompt_settings=_read_settings(Path(location)),
    )


def _load_parts(name: str, location: str, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """A model's configuration, tokenizer and processor."""
    check_model_folder(location)
    config = AutoConfig.from_pretrained(location, **options)
    if not hasattr(config, "vision_config"):
        raise ModelError(
            f"is a {config.model_type} model, which takes no images; name an image-text-to-text "
            "model",
            name,
        )
    tokenizer = AutoTokenizer.from_pretrained(location, **options)
    return config, tokenizer, _load_processor(location, tokenizer, options)


def _check_stop_ids(model: Any, name: str) -> None:
    """Refuses a generation configuration whose ends of an answer are no ids."""
    found = model.generation_config.eos_token_id
    if not all(
        isinstance(item, int)
        for item in (found if isinstance(found, list) else [found])
        if item is not None
    ):
        raise ModelError(
            f"its generation_config.json names {found!r} as eos_token_id, which is no id; restore "
            "it",
            name,
        )


def _four_bits() -> Any:
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise UsageError(
            "4-bit loading needs bitsandbytes; pip install 'ffr-vlm[quantization]' or leave it out"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _with_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """The model with a peft adapter on top, whole and from safetensors."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    weights = folder / "adapter_model.safetensors"
    for path in (folder / "adapter_config.json", weights):
        if not path.is_file():
            raise ModelError(
                f"holds no {path.name}; name the folder of a peft adapter in safetensors",
                str(folder),
            )
    with loading_explained(str(folder), kind="a peft adapter"):
        wrapped = PeftModel.from_pretrained(model, str(folder), use_safetensors=True)
        with safe_open(weights, framework="pt") as file:
            found = set(file.keys())
    if found != set(get_peft_model_state_dict(wrapped)):
        raise ModelError("does not fit the model; name the adapter's own base model", str(folder))
    check_checksums(folder)
    return wrapped


def _read_settings(folder: Path) -> dict[str, str]:
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        prompt = content.get("prompt") or {}
        found = {name: prompt[name] for name in _PROMPT_SETTINGS if prompt.get(name) is not None}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(
            f"cannot be read ({one_line(error)}); restore or delete it", str(path)
        ) from None
    for setting, value in found.items():
        if value not in _PROMPT_SETTINGS[setting]:
            raise ModelError(
                f"{setting} {value!r} is not one of {', '.join(_PROMPT_SETTINGS[setting])}",
                str(path),
            )
    return found


def _load_processor(
    location: str, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]
) -> Any:
    """The model's processor.

    Without its video part where that cannot be loaded (it needs torchvision).
    """
    try:
        processor = AutoProcessor.from_pretrained(location, **options)
        if hasattr(processor, "image_processor"):
            return processor
    except (ImportError, ValueError, OSError, TypeError, AttributeError):
        pass  # composed below; what is wrong with the files themselves is said there
    from transformers.models.auto.processing_auto import (
        PROCESSOR_MAPPING_NAMES,
        processor_class_from_name,
    )

    config = AutoConfig.from_pretrained(location, **options)
    kind = processor_class_from_name(PROCESSOR_MAPPING_NAMES.get(config.model_type, ""))
    if kind is None:
        raise ModelError(f"transformers has no processor for {config.model_type}", location)

    class WithoutVideo(kind):  # type: ignore[misc, valid-type]
        """The processor with None in the place of its video part."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor" and argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    WithoutVideo.__name__ = kind.__name__
    accepted = inspect.signature(kind.__init__).parameters
    settings = {}
    path = Path(location) / "processor_config.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = {
            key: value
            for key, value in content.items()
            if key in accepted and not isinstance(value, dict)
        }
    parts: dict[str, Any] = {
        "image_processor": AutoImageProcessor.from_pretrained(location, **options),
        "tokenizer": tokenizer,
    }
    if "video_processor" in accepted:
        parts["video_processor"] = None
    template = settings.pop("chat_template", None) or tokenizer.chat_template
    jinja = Path(location) / "chat_template.jinja"
    if template is None and jinja.is_file():
        template = jinja.read_text(encoding="utf-8")
    return WithoutVideo(**parts, **settings, chat_template=template)
