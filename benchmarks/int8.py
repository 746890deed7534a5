"""Which bytes an int8 export holds: signed, signed within 7 bits, or unsigned, by accuracy and speed on processors with VNNI and without.

CLIP ViT-B/32's towers (random weights, real sizes) and, where `FFR_MINILM` names its folder, MiniLM-L6 (real weights). One process
a processor (`processors.py`), which take turns, and in each the forms take turns call by call; one thread, medians.

    python benchmarks/int8.py                     # writes benchmarks/results/int8.json
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
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
# the script's own folder goes from the path: `onnx.py` in it would hide the package onnx
sys.path[:] = [place for place in sys.path if Path(place).resolve() != HERE]
RESULT = HERE / "results" / "int8.json"
FORMS = ("fp32", "signed", "reduced", "unsigned")
"""Plain; signed bytes; signed ones of 7 bits, whose products cannot saturate; unsigned bytes."""
SIZES = (1, 8)


def write(root: Path, name: str, folder: Path) -> None:
    """Writes a model's graphs in each form, and the calls of its parity check and of its timing, under ROOT/NAME."""
    import numpy as np
    import onnxruntime.quantization as quantization
    from onnxruntime.quantization import QuantType

    from ffr.embedding import load_encoder
    from ffr.exports import onnx as exporting
    from ffr.exports.contenders import texts
    from ffr.exports.parity import draw_picture
    from ffr.exports.plans import plan_encoder, plan_sentence_encoder

    encoder: Any = load_encoder(folder)
    plan = (
        plan_sentence_encoder(encoder)
        if name == "minilm"
        else plan_encoder(encoder, name.partition("-")[2])
    )  # type: ignore[arg-type]
    out = root / name
    out.mkdir()
    forms = {
        "signed": {"weight_type": QuantType.QInt8},
        "reduced": {"weight_type": QuantType.QInt8, "reduce_range": True},
        "unsigned": {"weight_type": QuantType.QUInt8},
    }
    exporting._trace(plan, out / "fp32.onnx", is_half=False, opset=exporting.DEFAULT_OPSET)
    whole = (out / "fp32.onnx").read_bytes()
    original = quantization.quantize_dynamic
    for form, settings in forms.items():

        def quantize(*places: str, settings: dict[str, Any] = settings, **others: Any) -> None:
            original(*places, **{**others, "reduce_range": False, **settings})

        (out / f"{form}.onnx").write_bytes(whole)
        with mock.patch.object(quantization, "quantize_dynamic", quantize):
            exporting._quantize(out / f"{form}.onnx", plan.whole_weights)
    calls = [call for case in plan.cases() for call in case.calls]
    for number, call in enumerate(calls):
        np.savez(out / f"check-{number}.npz", **call.inputs, expected=call.expected["embeddings"])
    for size in SIZES:
        if plan.part == "image":
            paths = [
                draw_picture(out / f"{number}.png", 224, 224, seed=number) for number in range(size)
            ]
            given = encoder.image_inputs(paths)
        else:
            given = encoder.text_inputs(texts(size))
        np.savez(out / f"time-{size}.npz", **{key: given[key].numpy() for key in plan.example})


def serve(root: Path, processor: str, names: list[str]) -> None:
    """A process of one processor: says how near each form comes and keeps its vectors, then times one call a question."""
    import numpy as np
    import onnxruntime as ort

    from ffr.exports.parity import Call, compare

    sessions: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for name in names:
        loaded = [dict(np.load(path)) for path in sorted((root / name).glob("check-*.npz"))]
        calls = [Call(inputs, {"embeddings": inputs.pop("expected")}) for inputs in loaded]
        for form in FORMS:
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 3
            session = ort.InferenceSession(
                str(root / name / f"{form}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            sessions[f"{name} {form}"] = session

            kept: list[Any] = []

            def run(
                inputs: dict[str, Any], session: Any = session, kept: list[Any] = kept
            ) -> dict[str, Any]:
                kept += session.run(None, inputs)
                return {"embeddings": kept[-1]}

            found = compare(form, calls, run, one_item=False)
            np.savez(root / name / f"vectors-{form}-{processor}.npz", *kept)
            figures[f"{name} {form}"] = {
                "max_difference": found.max_difference,
                "min_cosine": found.min_cosine,
            }
    print(json.dumps(figures), flush=True)
    given = {
        (name, size): dict(np.load(root / name / f"time-{size}.npz"))
        for name in names
        for size in SIZES
    }
    for line in sys.stdin:
        name, form, size = json.loads(line)
        begun = time.perf_counter()
        sessions[f"{name} {form}"].run(None, given[name, size])
        print(time.perf_counter() - begun, flush=True)


def between(root: Path, name: str, form: str, processors: list[str]) -> dict[str, float]:
    """How far a form's vectors on one processor are from those on another: the largest difference over the largest value."""
    import numpy as np

    from ffr.exports.parity import Call, compare

    first, second = (
        dict(np.load(root / name / f"vectors-{form}-{processor}.npz")) for processor in processors
    )
    calls = [Call({"number": number}, {"embeddings": vectors}) for number, vectors in first.items()]  # type: ignore[dict-item]
    found = compare(
        form, calls, lambda given: {"embeddings": second[str(given["number"])]}, one_item=False
    )
    return {"max_difference_to_this": found.max_difference, "min_cosine_to_this": found.min_cosine}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), options.serve[1], options.serve[2:])
        return

    import runpy

    from ffr import provenance

    processors = runpy.run_path(str(HERE / "processors.py"))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        clip = runpy.run_path(str(HERE / "onnx.py"))["clip"](root / "clip")
        models = {"clip-text": clip, "clip-image": clip}
        if minilm := os.environ.get("FFR_MINILM"):
            models["minilm"] = Path(minilm)
        for name, folder in models.items():
            write(root, name, folder)
            print(f"{name}: written", flush=True)
        (root / "changed").mkdir()
        processors["prepare"](root / "changed")
        start = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        workers = {
            name: start(
                [sys.executable, __file__, "--serve", scratch, name, *models],
                env=processors["environment"](name, root / "changed"),
            )
            for name in processors["PROCESSORS"]
        }
        try:
            figures = {
                name: json.loads(worker.stdout.readline()) for name, worker in workers.items()
            }
            for name, row in figures.items():
                for key in row:
                    row[key] |= between(root, *key.split(), ["this", name])  # type: ignore[arg-type]
            seconds: dict[tuple[str, str, int, str], list[float]] = {}
            for number in range(options.rounds + 1):
                for processor, worker in workers.items():
                    for model in models:
                        for size in SIZES:
                            for form in FORMS:
                                worker.stdin.write(json.dumps([model, form, size]) + "\n")
                                worker.stdin.flush()
                                taken = float(worker.stdout.readline())
                                if number:
                                    seconds.setdefault((processor, model, size, form), []).append(
                                        taken
                                    )
        finally:
            for worker in workers.values():
                worker.stdin.close()
                worker.wait()
    rows = []
    for (processor, model, size, form), taken in seconds.items():
        whole = seconds[processor, model, size, "fp32"]
        rows.append(
            {
                "processor": processor,
                "model": model,
                "batch_size": size,
                "form": form,
                "median_seconds": statistics.median(taken),
                # turns of one round lie side by side in time, so other load meets both
                "speed_against_fp32": statistics.median(
                    b / a for a, b in zip(taken, whole, strict=True)
                ),
                **figures[processor][f"{model} {form}"],
            }
        )
    content = {
        "rounds": options.rounds,
        "results": rows,
        "versions": provenance.versions(),
        "time": provenance.now(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(
        "| processor | model | batch | form | ms | against fp32 | difference to torch | cosine | between processors | cosine |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['processor']} | {row['model']} | {row['batch_size']} | {row['form']} | {1e3 * row['median_seconds']:.1f} | "
            f"{row['speed_against_fp32']:.2f}× | {row['max_difference']:.3f} | {row['min_cosine']:.5f} | "
            f"{row['max_difference_to_this']:.1e} | {row['min_cosine_to_this']:.5f} |"
        )


if __name__ == "__main__":
    main()
