"""The model cards of a run: what its `merged/` and `adapter/` are, and how plain transformers use them.

Nothing in them names a place on this machine, and nothing changes from one run of the same settings
to the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffr.dialogue import Dialogue, Image, Utterance
from ffr.markup import markdown_text
from ffr.prompt import QueryPosition, render
from ffr.runs import ModelSource
from ffr.settings import VlmStageConfig

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_STAGES = {
    "sft": "supervised fine-tuning on true answers (`ffr train sft`)",
    "grpo": "GRPO on the rewards of its own answers (`ffr train grpo`)",
}
_EXAMPLES = {
    "zh": (("今天去哪里吃饭?", "去河边的面馆吧.", "你看, 我的猫."), "吃饭"),
    "en": (("where shall we eat?", "at the noodle bar by the river.", "look, my cat."), "a meal"),
}
"""Three lines and a query, by template; a picture hangs on the last line."""
_QWEN_KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Models whose image processor gives grids, from which the places of a picture are counted."""


@dataclass(frozen=True)
class CardFacts:
    """What the cards say of a run.

    Args:
        name: What the run is called.
        config: Its settings.
        source: The model that it started from.
        recipe: Where its settings come from; empty for none.
        num_examples: Number of training examples.
        data_fingerprint: Names the training data.
        architecture: The model's, by transformers' name.
        prompt_settings: Template, query position and answer style that it was trained with.
        figures: The last figures of its training.
        versions: Version of each package.
    """

    name: str
    config: VlmStageConfig
    source: ModelSource
    recipe: str
    num_examples: int
    data_fingerprint: str
    architecture: str
    prompt_settings: Mapping[str, str]
    figures: Mapping[str, float]
    versions: Mapping[str, str]

    @property
    def base(self) -> str:
        """The model that it started from, without its place: a hub id, `tiny`, a folder's name."""
        label = self.source.label
        return label if self.is_of_hub or self.source.run is not None else Path(label).name

    @property
    def is_of_hub(self) -> bool:
        """Whether that model is one of the hub."""
        return not self.source.has_files and bool(_HUB_ID.fullmatch(self.source.label))


def merged_card(facts: CardFacts) -> str:
    """The README of a run's `merged/`, in Markdown."""
    return f"""{_front_matter(facts, "transformers")}
# {markdown_text(facts.name)}

A plain `transformers` model: the adapter of the run is merged into the weights. {_about(facts)}

## Use

{_usage(facts)}

Or by ffr, on files of dialogues: `ffr eval --model FOLDER --dataset FILE`.

{_details(facts)}"""


def adapter_card(facts: CardFacts) -> str:
    """The README of a run's `adapter/`, in Markdown."""
    named = facts.base if facts.is_of_hub else "BASE"
    where = ""
    if not facts.is_of_hub:
        part = "merged/" if facts.source.run is not None else "folder"
        where = f"  # for BASE the {part} of {facts.base}"
    return f"""{_front_matter(facts, "peft")}
# {markdown_text(facts.name)}: adapter

A LoRA adapter for the language model of {markdown_text(facts.base)}, as `peft` writes it. {_about(facts)}

## Use

```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = AutoModelForImageTextToText.from_pretrained("{named}"){where}
model = PeftModel.from_pretrained(base, ".").merge_and_unload()  # . is this folder
```

Tokenizer, image processor and prompts are those of the base model; `merged/` beside this folder has
all of them together, and an example of a prompt.

{_details(facts)}"""


def _front_matter(facts: CardFacts, library: str) -> str:
    base = f"base_model: {facts.base}\n" if facts.is_of_hub else ""
    return f"""---
library_name: {library}
pipeline_tag: image-text-to-text
{base}tags: [fragment-retrieval, ffr]
---"""


def _about(facts: CardFacts) -> str:
    return (
        "Given a long dialogue with pictures and a query, it writes the ids of the utterances and "
        f"of the pictures that the query means. It was made of {markdown_text(facts.base)} by "
        f"{_STAGES[facts.config.stage]}."
    )


def _details(facts: CardFacts) -> str:
    config = facts.config
    is_file = Path(config.dataset).exists()
    data = Path(config.dataset).name if is_file else f"{config.dataset} ({config.split})"
    rows = {
        "data": f"{data}, {facts.num_examples} examples, fingerprint {facts.data_fingerprint[:16]}",
        "recipe": Path(facts.recipe).name or "settings of its own",
        "seed": str(config.seed),
        "learning rate": f"{config.learning_rate:g}",
        "LoRA": (
            f"rank {config.lora_rank}, alpha {config.lora_alpha:g}"
            if config.lora_rank
            else "none: all weights of the language model were trained"
        ),
        "prompt": ", ".join(f"{key} {value}" for key, value in facts.prompt_settings.items())
        or "as the data file has it",
        "limits": f"{config.max_tokens:,} tokens with the answer; pictures of "
        f"{config.max_image_pixels:,} pixels, larger ones were scaled down",
        "validation": _validation(facts.figures),
        "made with": ", ".join(
            f"{name} {facts.versions[name]}"
            for name in ("ffr-vlm", "torch", "transformers", "peft")
            if name in facts.versions
        ),
    }
    lines = "\n".join(f"| {name} | {markdown_text(text)} |" for name, text in rows.items())
    return f"""## How it was made

| | |
|---|---|
{lines}

The licence is that of the model it was made of.
"""


def _validation(figures: Mapping[str, float]) -> str:
    if "val_joint_f1" not in figures:
        return "none"
    return (
        f"F1 {figures['val_utterance_f1']:.3f} (utterances), {figures['val_image_f1']:.3f} "
        "(pictures)"
    )


def _usage(facts: CardFacts) -> str:
    """A snippet that runs as it stands, and what it does not say."""
    settings: dict[str, Any] = dict(facts.prompt_settings)
    template = settings.get("template", "zh")
    position: QueryPosition = settings.get("query_position", "first")
    shows_picture = facts.architecture in _QWEN_KINDS
    texts, query = _EXAMPLES[template]
    segments = [(text,) for text in texts]
    lines = [Utterance(f"user{1 + number % 2}", content) for number, content in enumerate(segments)]
    if shows_picture:
        lines[-1] = Utterance("user1", (texts[-1], Image("cat.jpg")))
    prompt = render(
        Dialogue("example", tuple(lines)),
        query,
        template=template,
        query_position=position,
        answer_style=settings.get("answer_style", "bare"),
    )
    system = f'{{"role": "system", "content": "{prompt.system}"}}, ' if prompt.system else ""
    pictures = _PICTURES if shows_picture else ""
    given = "**ids, **pixels, mm_token_type_ids=kinds" if shows_picture else "**ids"
    note = (
        "`AutoProcessor` would do the picture's part too, but needs torchvision."
        if shows_picture
        else "Pictures go through the processor of the base model (`AutoProcessor`; some need "
        "torchvision), and stand in the dialogue at the marks `<image>`."
    )
    return f'''```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

folder = "."  # this folder
model = AutoModelForImageTextToText.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
image_processor = AutoImageProcessor.from_pretrained(folder)

prompt = """{prompt.user}"""
{pictures}messages = [{system}{{"role": "user", "content": prompt}}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
ids = tokenizer(text, return_tensors="pt")
{_KINDS if shows_picture else ""}with torch.no_grad():
    answer = model.generate({given}, max_new_tokens={facts.config.max_new_tokens}, do_sample=False)
written = answer[0, ids["input_ids"].shape[1] :]
print(tokenizer.decode(written, skip_special_tokens=False))  # the markers may be special tokens
```

{note} The prompt is to be kept to the byte: the first line of the dialogue has id 0, the first picture
id 0, speakers are in lower case.'''


_PICTURES = """\
pictures = [Image.new("RGB", (112, 112), "orange")]  # Image.open("cat.jpg").convert("RGB")
pixels = image_processor(images=pictures, return_tensors="pt")
for grid in pixels["image_grid_thw"]:
    places = "<|image_pad|>" * (int(grid.prod()) // image_processor.merge_size**2)
    prompt = prompt.replace("<image>", f"<|vision_start|>{places}<|vision_end|>", 1)
"""
_KINDS = """\
kinds = (ids["input_ids"] == model.config.image_token_id).int()  # 1 where a picture stands
"""
