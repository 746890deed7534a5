"""Commands that read results need no torch: they answer at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ffr.data.forms.formats import write_examples
from ffr.evaluation.run import evaluate


@pytest.fixture
def folder(examples, fake_retriever, tmp_path):
    write_examples(tmp_path / "pictures" / "data.jsonl", examples)
    data = str(tmp_path / "pictures" / "data.jsonl")
    evaluate(examples, fake_retriever(), tmp_path / "out", dataset=data)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "out", "out"],
        ["gate", "out", "--baseline", "out"],
        ["show", "out", "--id", "d0"],
        ["report", "out"],
        ["runs"],
    ],
    ids=lambda words: words[0],
)
def test_torch_stays_unimported(folder, words):
    code = (
        "import sys\n"
        "from ffr.cli.main import ffr\n"
        f"try:\n    ffr.main({words!r}, prog_name='ffr')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'transformers', 'lightning', 'torchmetrics', 'matplotlib', 'scipy', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
