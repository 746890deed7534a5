"""What each process of the two-process metric test does; its own module, so that a spawned process can import it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed

from ffr.metrics import FragmentExactMatch, FragmentScores


def score_share(rank, world_size, folder, samples):
    """Scores every `world_size`-th sample and writes what the synchronised metrics say."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    scores, exact = FragmentScores(), FragmentExactMatch()
    for pred, target, num_utterances, num_images in samples[rank::world_size]:
        scores.update([pred], [target], [num_utterances], [num_images])
        exact.update([pred], [target])
    result = {name: value.item() for name, value in scores.compute().items()} | {
        "exact": exact.compute().item()
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()
