"""The cold start from its settings: data, model and module of a training with true answers."""

from __future__ import annotations

from collections.abc import Iterator

from ffr.data.judgement import ModelRules
from ffr.models.shared_prefix import PrefixSharing
from ffr.prompt import MAX_SHARED_QUERIES
from ffr.runs import ModelSource
from ffr.settings import SftConfig
from ffr.training.common.setup import (
    load_base,
    make_prompt_builder,
    make_trainable,
    model_rules,
)
from ffr.training.common.stage import Built, Job, Stage, Start
from ffr.training.common.vlm_subject import VlmSubject
from ffr.training.sft.data import SftData
from ffr.training.sft.module import SftModule


class SftStage(Stage[SftConfig]):
    """Supervised fine-tuning on dialogues with true answers."""

    def rules(self, config: SftConfig, source: ModelSource) -> ModelRules:
        return model_rules(config, source.location)

    def build(self, start: Start[SftConfig], job: Job) -> Built:
        config = start.config
        vlm = load_base(config, start.source.location)
        builder = make_prompt_builder(config, vlm)
        make_trainable(config, vlm)
        sharing = None
        if config.pack_queries:
            sharing = PrefixSharing(vlm, pad_to_multiple_of=config.pad_to_multiple_of)
            if sharing.reason is not None:
                job.say(
                    "dialogues are repeated for each of their queries, which takes more time and "
                    "memory: " + sharing.reason
                )
        vlm.train()
        data = SftData(config, start.train_data, builder, sharing=sharing, say=job.say)
        module = SftModule(
            vlm,
            config,
            num_steps=data.plan.num_steps,
            fingerprints={**start.fingerprints, "model": vlm.fingerprint},
            sharing=sharing,
        )
        subject = VlmSubject(vlm, builder)
        return Built(
            module,
            data,
            subject,
            callbacks=[],
            notes=list(_notes(start, data)),
            longest_of=data.longest_of,
            savers="batch_size or max_image_pixels, or set gradient_checkpointing=true",
        )


def _notes(start: Start[SftConfig], data: SftData) -> Iterator[str]:
    is_packed = start.config.pack_queries
    items = "packs" if is_packed else "examples"
    yield f"{data.plan.num_steps} optimizer steps of up to {data.plan.items_per_step} {items}"
    number, longest = data.longest()
    where = start.train_data.where(data.packs[number][0])
    if not is_packed:
        yield f"longest example {where}: {longest.num_tokens} tokens with its answer"
        return
    sizes = [len(pack) for pack in data.packs]
    yield (
        f"{len(start.train_data)} examples in {len(sizes)} packs of {min(sizes)} to {max(sizes)} "
        "queries on one "
        f"dialogue (at most {MAX_SHARED_QUERIES})"
    )
    yield f"longest pack {where}: {longest.num_tokens} tokens with its {sizes[number]} queries and answers"
