"""Where a name becomes an encoder: `--encoder`, `embedding:NAME`, the setting `encoder` of GRPO.

policy           the vision-language model at hand, with its own features (`ffr.embedding.policy`)
onnx:DIR         what `ffr export onnx` wrote
vlm:MODEL        pooled states of a vision-language model, of the last token
vlm-mean:MODEL   the same, the mean over all tokens
gme:MODEL        a GME model, by the token that it was trained to end with
anything else    a name of `ffr.embedding.SHIPPED`, or the folder or hub id of a dual or sentence
encoder, told by its config.json
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ffr.embedding import Encoder, load_encoder
from ffr.errors import UsageError

POLICY = "policy"
ONNX_PREFIX = "onnx:"
VLM_PREFIXES = {"vlm:": "last", "vlm-mean:": "mean", "gme:": "gme"}


def open_encoder(
    name: str | Path, *, device: str = "cpu", policy: Encoder | None = None
) -> Encoder:
    """Opens the encoder of a name.

    Args:
        name: As above.
        device: Where it works: cpu, cuda, cuda:1, mps, or auto: on a GPU where there is one. What
            is exported goes back to the CPU, with a loud line, where ONNX Runtime cannot use the
            GPU and `auto` was said.
        policy: What `policy` means; None where there is no such model.

    Raises:
        UsageError: where nothing is named, `policy` means nothing here, or the device is not here.
        ModelError: where files are missing, damaged, of another kind, or not safetensors.
    """
    name = str(name)
    if name == POLICY:
        if policy is None:
            raise UsageError(
                "encoder `policy` is the vision-language model that is trained or measured, and "
                "here is none; name another encoder"
            )
        return policy
    for prefix in (ONNX_PREFIX, *VLM_PREFIXES):
        if name == prefix:
            raise UsageError(
                f"encoder {name!r} names nothing; write "
                f"{prefix}{'DIR' if prefix == ONNX_PREFIX else 'MODEL'}"
            )
    if name.startswith(ONNX_PREFIX):
        from ffr.exports.encoder import load_onnx_encoder

        exported = load_onnx_encoder(
            Path(name.removeprefix(ONNX_PREFIX)), device=device.partition(":")[0]
        )
        return cast("Encoder", exported)
    for prefix, way in VLM_PREFIXES.items():
        if name.startswith(prefix):
            return _open_vlm(name, name.removeprefix(prefix), way, _torch_device(device))
    return load_encoder(name, device=_torch_device(device))


def _torch_device(device: str) -> str:
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _open_vlm(name: str, model: str, way: str, device: str) -> Encoder:
    from ffr.embedding import gme
    from ffr.embedding.pooled import PooledEncoder, Pooling
    from ffr.images import MAX_IMAGE_PIXELS
    from ffr.models.features import ImageFeatureCache
    from ffr.models.loading import load_vlm
    from ffr.runs import resolve_model

    # as `ffr eval` loads a model: float32 on a CPU, as in the files on a GPU
    vlm = load_vlm(
        resolve_model(model).location,
        device=device,
        dtype="float32" if device == "cpu" else "auto",
        max_image_pixels=gme.MAX_IMAGE_PIXELS if way == "gme" else MAX_IMAGE_PIXELS,
    )
    vlm.tower.cache = ImageFeatureCache(memory_bytes=512 << 20)
    if way == "gme":
        return gme.GmeEncoder(vlm, name=name)
    return PooledEncoder(vlm, pooling=cast("Pooling", way), name=name)
