"""The table of the answer grammar beside xgrammar: in every state that an answer can reach, which tokens may come next.

The grammar is written a second time, in xgrammar's notation, and compiled by it; each state of the table is reached by tokens, which
xgrammar takes one by one. Beside it, how many tokens of true answers are forced, the only ones that may come: what could be written
without asking a model. No test does it, since xgrammar asks for triton beside a PyTorch without GPUs.

    pip install --no-deps xgrammar apache-tvm-ffi
    python benchmarks/grammar.py      # writes benchmarks/results/grammar.json; fails where a state differs
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ffr.answer import IMG_IDS_END, IMG_IDS_START, UTT_IDS_END, UTT_IDS_START, format_answer
from ffr.dialogue import Fragment
from ffr.models.decoding.grammar import kinds_of
from ffr.models.decoding.grammar_table import FORBIDDEN, grammar_table
from ffr.provenance import now, versions

SIZES = ((0, 0), (3, 1), (12, 3), (25, 0))
RESULT = Path(__file__).parent / "results" / "grammar.json"


def notation(num_utterances: int, num_images: int) -> str:
    """The grammar in EBNF: what may follow each id is a rule of its own."""

    def rules_of(name: str, size: int) -> list[str]:
        firsts = ['""', *(f"{name}{item}" for item in range(size))]
        rules = [f"{name} ::= {' | '.join(firsts)}"]
        for item in range(size):
            later = " | ".join(f"{name}{other}" for other in range(item + 1, size))
            more = f' ("" | ", " ({later}))' if later else ""
            rules.append(f'{name}{item} ::= "{item}"{more}')
        return rules

    between = f"]{UTT_IDS_END};{IMG_IDS_START}["
    root = f'root ::= "{UTT_IDS_START}[" u "{between}" v "]{IMG_IDS_END}"'
    return "\n".join([root, *rules_of("u", num_utterances), *rules_of("v", num_images)])


def compare(tokenizer: Any, size: tuple[int, int]) -> tuple[int, int]:
    """How many states were compared, and how many were unlike."""
    import xgrammar

    stop = tokenizer.eos_token_id
    info = xgrammar.TokenizerInfo.from_huggingface(
        tokenizer, vocab_size=len(tokenizer), stop_token_ids=[stop]
    )
    grammar = xgrammar.Grammar.from_ebnf(notation(*size))
    compiled = xgrammar.GrammarCompiler(info).compile_grammar(grammar)
    kinds, kind_of = kinds_of(tokenizer, stop)
    table = grammar_table(*size, kinds).next_state
    written: dict[int, list[int]] = {0: []}
    waiting, num_unlike = [0], 0
    while waiting:
        state = waiting.pop()
        matcher = xgrammar.GrammarMatcher(compiled)
        is_taken = all(matcher.accept_token(item) for item in written[state])
        bits = xgrammar.allocate_token_bitmask(1, len(tokenizer))
        matcher.fill_next_token_bitmask(bits)
        theirs = np.unpackbits(bits.numpy().view(np.uint8), bitorder="little")[: len(tokenizer)]
        following = table[state][kind_of]
        mine = following != FORBIDDEN
        num_unlike += not is_taken or not np.array_equal(mine, theirs.astype(bool))
        for item in np.nonzero(mine)[0].tolist():
            if item != stop and int(following[item]) not in written:
                written[int(following[item])] = [*written[state], item]
                waiting.append(int(following[item]))
    return len(written), num_unlike


def forced(tokenizer: Any) -> tuple[int, int]:
    """How many tokens three true answers have, and how many of these are the only ones that may come."""
    kinds, kind_of = kinds_of(tokenizer, tokenizer.eos_token_id)
    table = grammar_table(60, 10, kinds).next_state
    num_tokens = num_forced = 0
    for fragment in (Fragment((3, 4, 5, 12, 13), (1,)), Fragment((0,)), Fragment((40, 41, 42, 43), (2, 3))):  # fmt: skip
        state = 0
        for item in tokenizer(format_answer(fragment), add_special_tokens=False).input_ids:
            following = table[state][kind_of]
            num_forced += int((following != FORBIDDEN).sum()) == 1
            num_tokens += 1
            state = int(following[item])
    return num_tokens, num_forced


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from answer_tokenizers import TOKENIZERS

    found = [
        {"tokenizer": name, "utterances": size[0], "images": size[1], "states": states, "unlike": unlike}
        for name in ("qwen2-vl", "markers")
        for size in SIZES
        for states, unlike in [compare(TOKENIZERS[name](), size)]
    ]  # fmt: skip
    of_answers = {name: forced(make()) for name, make in TOKENIZERS.items()}
    report = {
        "what": "states of the answer grammar's table whose allowed tokens were compared with xgrammar's, and how many were unlike",
        "compared": found,
        "tokens_of_true_answers_and_how_many_are_forced": of_answers,
        "versions": {**versions(), "xgrammar": version("xgrammar")},
        "at": now(),
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps([*found, of_answers], indent=2))
    if any(item["unlike"] for item in found):
        raise SystemExit("some states differ")


if __name__ == "__main__":
    main()
