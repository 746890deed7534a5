"""Export, parity and speed of the ONNX side on a machine with a GPU: CLIP ViT-B/32's towers and Qwen2-VL-2B's vision tower at half depth.

One call exports each part with random weights of real size, checks it against torch, and measures it as `ffr export bench` does: ONNX Runtime
beside eager torch on the CPU, and on CUDA where ONNX Runtime's CUDA provider really runs, with inputs and outputs bound to the GPU. Where it does
not, the JSON says why, and holds eager torch on CUDA alone. What the time does not allow is named under `skipped`.

    python benchmarks/gpu/onnx.py --out onnx-gpu.json
    python benchmarks/gpu/onnx.py --dtype fp16
    python benchmarks/gpu/onnx.py --tiny     # two layers, small pictures: does it run here at all?
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
# the script's own folder goes from the path: its name would hide the package onnx
sys.path[:] = [place for place in sys.path if Path(place).resolve() != HERE]
PARTS = ("clip-text", "clip-image", "qwen2-vl")


def cpu_benchmark() -> ModuleType:
    """`benchmarks/onnx.py`, which builds the models; by its file, since its name is that of the package onnx."""
    spec = importlib.util.spec_from_file_location("onnx_cpu_benchmark", HERE.parent / "onnx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cuda_provider(export: Path) -> str | None:
    """Why ONNX Runtime does not run a graph on CUDA; None where it does."""
    from ffr.errors import FfrError
    from ffr.exports.runtime import load_onnx

    try:
        load_onnx(export, device="cuda")
    except FfrError as error:
        return str(error)
    return None


def measure(name: str, scratch: Path, options: argparse.Namespace, is_late: Any) -> dict[str, Any]:
    """Exports one part, checks it, and measures it on each device."""
    import torch

    from ffr.exports.benchmark import Load, run_bench
    from ffr.exports.onnx import export_plan
    from ffr.exports.plans import plan_encoder, plan_vision

    builder = cpu_benchmark()
    place, export = scratch / name.split("-")[0], scratch / f"{name}-export"
    started = time.perf_counter()
    side = 56 if options.tiny else 448
    if name == "qwen2-vl":
        from ffr.models.loading import load_vlm

        # the parity check's largest picture is kept small: here time is measured, tests hold the rest
        plan = plan_vision(
            load_vlm(builder.qwen(place, 2 if options.tiny else 16), max_image_pixels=side * side)
        )
        sizes: tuple[int, ...] = (1,)
    else:
        from ffr.embedding import load_dual_encoder

        if not place.is_dir():
            builder.clip(place, layers=2 if options.tiny else 12)
        plan = plan_encoder(load_dual_encoder(place), "text" if name == "clip-text" else "image")
        sizes, side = ((1, 2) if options.tiny else (1, 32)), 224
    content = export_plan(plan, export, dtype=options.dtype)
    del plan
    found: dict[str, Any] = {
        "part": name,
        "dtype": options.dtype,
        "export_seconds": round(time.perf_counter() - started, 1),
        "parity": content["parity"],
        "tolerance": content["tolerance"],
        "provider_of_the_check": content["providers_tried"],
        "without_cuda_because": cuda_provider(export),
        "devices": {},
    }
    note(f"{name}: exported and equal to torch after {found['export_seconds']} s")
    contenders: dict[str, tuple[str, ...]] = {}
    if torch.cuda.is_available():
        contenders["cuda"] = (
            ("onnx", "torch") if found["without_cuda_because"] is None else ("torch",)
        )
    contenders["cpu"] = ("onnx", "torch")
    for device, names in contenders.items():
        if is_late():
            found.setdefault("skipped", []).append(device)
            continue
        load = Load(str(export), str(place), sizes, options.threads, options.rounds, device, side)
        result = run_bench(load, names)
        del result["load"]["folder"], result["load"]["model"]
        found["devices"][device] = {key: result[key] for key in ("load", "contenders", "results")}
        note(f"{name}: measured on {device}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tiny", action="store_true", help="small models, to see that it runs; needs no GPU"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "fp16", "int8"])
    parser.add_argument(
        "--threads", type=int, default=min(8, os.cpu_count() or 1), help="threads of each contender"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds",
        type=float,
        default=110.0,
        help="no measurement is begun after this; each takes about 20 s",
    )
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    started = time.perf_counter()
    if unknown := sorted(set(options.parts.split(",")) - set(PARTS)):
        raise SystemExit(f"there is no part {unknown[0]!r}; name some of {', '.join(PARTS)}")
    import torch

    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no GPU; run this where there is one, or try it out with --tiny"
        )
    import onnxruntime

    from ffr.provenance import now, versions

    def is_late() -> bool:
        return time.perf_counter() - started > options.seconds

    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "onnxruntime": {
            "version": onnxruntime.__version__,
            "providers": onnxruntime.get_available_providers(),
        },
        "versions": versions(),
        "time": now(),
        "parts": [],
        "skipped": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.parts.split(","):
            if is_late():
                report["skipped"].append(name)
                continue
            try:
                report["parts"].append(measure(name, Path(scratch), options, is_late))
            except Exception as error:  # whatever another release of torch raises: the other parts are still worth having
                report["parts"].append({"part": name, "failed": f"{type(error).__name__}: {error}"})
                note(f"{name}: {error}")
            report["seconds"] = round(time.perf_counter() - started, 1)
            if options.out is not None:
                options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    if any("failed" in part for part in report["parts"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
