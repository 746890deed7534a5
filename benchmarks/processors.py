"""ONNX Runtime as on a processor that lacks some instructions, at that processor's own path and at the real speed of this one.

ONNX Runtime asks the processor what it can do by the instruction `cpuid`, which a program can neither hide nor change. So a copy
of its library is made in which each of these (two bytes) is a trap (`int3`, and one byte of nothing); the handler asks
in its place and leaves out of the answer what the other processor lacks. Needs Linux on x86-64, gcc and objdump.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

PROCESSORS = {"this": 0, "AVX-512 without VNNI": 1, "AVX2 without VNNI": 2}
"""What is left out of the answers: nothing; what multiplies bytes without saturation; that and all of AVX-512."""

_HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

static int without;

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0 && without) {
        c &= ~(1u << 11);                                   /* AVX512_VNNI */
        d &= ~(7u << 24 | 1u << 22);                        /* AMX */
        if (without == 2) {
            b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 15u << 26 & ~(1u << 29) | 1u << 30 | 1u << 31);
            c &= ~(1u << 1 | 1u << 6 | 1u << 12 | 1u << 14);
            d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 23);
        }
    }
    if (leaf == 7 && part == 1 && without) {
        a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);    /* AVX_VNNI, AVX512_BF16, AMX, AVX_IFMA */
        d &= ~(1u << 4 | 1u << 5 | 1u << 10 | 1u << 19);    /* AVX_VNNI_INT8 and its kin */
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 1;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    without = atoi(getenv("FFR_BENCHMARK_WITHOUT"));
    sigaction(SIGTRAP, &action, NULL);
}
"""


def prepare(folder: Path) -> None:
    """Writes the changed copy of ONNX Runtime and the handler into a folder."""
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent
    # other providers' libraries are large and not needed
    shutil.copytree(
        source, folder / "onnxruntime", ignore=shutil.ignore_patterns("*providers*.so", "*.so.*")
    )
    (library,) = (folder / "onnxruntime" / "capi").glob("onnxruntime_pybind11_state*.so")
    listing = subprocess.run(
        ["objdump", "-d", str(library)], capture_output=True, text=True, check=True
    )
    places = re.findall(r"^\s*([0-9a-f]+):\t0f a2\s+\tcpuid", listing.stdout, re.MULTILINE)
    code = subprocess.run(
        ["objdump", "-h", str(library)], capture_output=True, text=True, check=True
    )
    _, _, _, address, _, offset, _ = re.search(r"^.*\s\.text\s.*$", code.stdout, re.MULTILINE)[
        0
    ].split()
    content = bytearray(library.read_bytes())
    for place in places:
        at = int(place, 16) - int(address, 16) + int(offset, 16)
        assert content[at : at + 2] == b"\x0f\xa2"
        content[at : at + 2] = b"\xcc\x90"
    library.write_bytes(content)
    (folder / "handler.c").write_text(_HANDLER)
    command = [
        "gcc",
        "-O1",
        "-shared",
        "-fPIC",
        "-o",
        str(folder / "handler.so"),
        str(folder / "handler.c"),
    ]
    subprocess.run(command, check=True)


def environment(processor: str, folder: Path) -> dict[str, str]:
    """Of a Python that runs ONNX Runtime as on a processor.

    Args:
        processor: Of `PROCESSORS`.
        folder: What `prepare` wrote.
    """
    if processor == "this":
        return dict(os.environ)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    changes = {"LD_PRELOAD": str(folder / "handler.so"), "PYTHONPATH": path}
    return {**os.environ, **changes, "FFR_BENCHMARK_WITHOUT": str(PROCESSORS[processor])}
