"""Exported graphs in ONNX Runtime beside eager torch: CLIP ViT-B/32's towers and the vision tower of Qwen2-VL-2B at half depth.

Weights are random, sizes are the real ones. Contenders are processes that take turns, call by call, as `ffr export bench` runs them.

    python benchmarks/onnx.py                     # one and two threads, writes benchmarks/results/onnx.json
    python benchmarks/onnx.py --parts clip-text --threads 1 --rounds 3 --dtype int8 --out /tmp/one.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# the script's own folder goes from the path: its name would hide the package onnx
sys.path[:] = [
    str(HERE.parent / "tests"),
    *(place for place in sys.path if Path(place).resolve() != HERE),
]
RESULT = HERE / "results" / "onnx.json"
PARTS = ("clip-text", "clip-image", "qwen2-vl")


def clip(folder: Path, layers: int = 12) -> Path:
    """CLIP ViT-B/32, or fewer layers of it, with a tokenizer of one token a word, near what a real one makes of English."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    from ffr.exports.contenders import WORDS

    words = {
        word: index for index, word in enumerate(["<pad>", "<start>", "<other>", *WORDS, "<end>"])
    }
    tokens = Tokenizer(models.WordLevel(words, unk_token="<other>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<start>", 1), ("<end>", len(words) - 1)]
    tokens.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=ends
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<other>",
        model_max_length=77, padding_side="right",
    )  # fmt: skip
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": len(words) - 1}
    depth = {"num_hidden_layers": layers}
    config = CLIPConfig(text_config={"vocab_size": 49_408, **ids, **depth}, vision_config=depth)
    CLIPModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    cut = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    settings = {"image_processor_type": "CLIPImageProcessor", **cut}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def qwen(folder: Path, depth: int) -> Path:
    """The vision tower of Qwen2-VL-2B over one small layer of language model."""
    import model_builds
    import torch
    from transformers import AutoModelForImageTextToText, Qwen2VLConfig

    _, tokens, processor, _ = model_builds.qwen2_vl()
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [16, 24, 24]}
    text = model_builds._text(tokens, rope_parameters=rope)
    text |= {
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
    }
    vision = {
        "depth": depth, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision, **model_builds._qwen_tokens(tokens)
    )
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    side = {
        "size": {"shortest_edge": 28 * 28, "longest_edge": 602_112},
        "min_pixels": 784,
        "max_pixels": 602_112,
    }
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**processor, **side}), encoding="utf-8"
    )
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "fp16", "int8"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--depth", type=int, default=16, help="layers of the Qwen2-VL tower; the real one has 32"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()

    from ffr.exports.benchmark import Load, as_table, run_bench
    from ffr.exports.onnx import export_plan
    from ffr.exports.plans import plan_encoder, plan_vision

    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.parts.split(","):
            place = Path(scratch) / name
            export = Path(scratch) / f"{name}-export"
            if name == "qwen2-vl":
                from ffr.models.loading import load_vlm

                # the parity check's largest picture is kept small: here time is measured, tests hold the rest
                model = load_vlm(qwen(place, options.depth), max_image_pixels=448 * 448)
                plan, loads = plan_vision(model), (((1,), 112), ((1,), 224), ((1,), 448))
                del model
            else:
                from ffr.embedding import load_dual_encoder

                part = "text" if name == "clip-text" else "image"
                plan = plan_encoder(load_dual_encoder(clip(place)), part)  # type: ignore[arg-type]
                loads = (((1, 8, 32), 224),)
            content = export_plan(plan, export, dtype=options.dtype, device=options.device)
            del plan
            worst = max(item["max_difference"] for item in content["parity"])
            print(f"{name}: exported, largest difference {worst:.1e}", flush=True)
            contenders = ("onnx", "torch", *(("compile",) if options.compile else ()))
            for threads in map(int, options.threads.split(",")):
                for sizes, side in loads:
                    load = Load(
                        str(export),
                        str(place),
                        sizes,
                        threads,
                        options.rounds,
                        options.device,
                        side,
                    )
                    result = run_bench(load, contenders)
                    del result["load"]["folder"], result["load"]["model"]
                    results.append(
                        {
                            "part": name,
                            "dtype": options.dtype,
                            "largest_difference": worst,
                            **result,
                        }
                    )
                    # after each, so that a long run that is stopped keeps what it has
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
                    print(
                        f"\n{name}, {threads} threads, pictures of {side}²\n\n{as_table(result)}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
