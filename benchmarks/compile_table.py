"""Compiles every kernel for every GPU generation, without a GPU: registers, shared memory, stack, spills.

    python -m benchmarks.compile_table [--quick]

nvcc on the PATH does it, for all generations at once, and NVRTC, from `pip install nvidia-cuda-nvrtc`: the compiler of
run time, which does not know all of nvcc's words. Beside nvcc, NVRTC compiles for one generation only, to save time.
`--quick`: by NVRTC for the oldest generation only. Exit code 1 if a kernel spills registers or does not compile.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from gpuresample.bench import tables
from gpuresample.engines.cuda.runtime import Types, assemble

ARCHITECTURES = (75, 80, 86, 90, 100, 120)
# The one that NVRTC compiles for beside nvcc.
RUN_TIME = 90
SINGLE, DOUBLE = Types("float32", "float32"), Types("float64", "float64", "float64")
CASES: dict[str, list[Types]] = {
    "resample_axis": [
        Types("int16", "float32"), SINGLE, Types("float32", "int16"), Types("uint8", "uint8"),
        Types("float16", "float16"), DOUBLE, Types("int32", "int64", "float64", "int64"),
    ],
    "resample_volume": [Types("int16", "int16"), SINGLE, DOUBLE, Types("uint8", "uint8", "float32", "int64")],
    "take": [Types(f"uint{bits}", f"uint{bits}") for bits in (8, 16, 32, 64)],
    "convert": [
        Types("int16", "uint8"), Types("uint64", "int64"), Types("float64", "int16"), Types("float16", "float32"),
        Types("float64", "float16"), Types("float64", "float32", idx="int64"),
    ],
    "gather": [Types("int16", "float32"), SINGLE, DOUBLE, Types("float32", "int16", "float32", "int64")],
    "gradient": [SINGLE, DOUBLE, Types("float32", "float32", "float32", "int64")],
    "ensemble": [
        Types("float32", "uint8"), Types("float16", "uint16"), Types("float32", "uint64", "float32", "int64"),
    ],
    "majority": [Types(name, name) for name in ("uint8", "int64", "float16")],
    "vote": [Types("uint8", "uint8"), Types("int64", "int64"), Types("float16", "float16")],
}  # fmt: skip


# What nvcc compiles of the largest files, for every generation: minutes each. NVRTC compiles all of theirs for one.
FOR_ALL = {"gather": [SINGLE, Types("float32", "int16", "float32", "int64")], "gradient": [SINGLE]}


class Usage(NamedTuple):
    """What one kernel takes on one architecture."""

    kernel: str
    architecture: int
    registers: int
    shared: int
    stack: int
    spills: int


def usages(log: str) -> Iterator[Usage]:
    """The kernels in what ptxas says with -v."""
    pattern = (
        r"Compiling entry function '(\w+)' for 'sm_(\d+)a?f?'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)"
    )
    for kernel, architecture, stack, stores, loads, registers, rest in re.findall(pattern, log, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", rest)
        spills = int(stores) + int(loads)
        yield Usage(kernel, int(architecture), int(registers), int(shared[1]) if shared else 0, int(stack), spills)


def by_nvcc(text: str, architectures: Sequence[int]) -> str:
    """What ptxas says of a text, compiled by nvcc for all architectures at once."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.cu")
        source.write_text(text, encoding="utf-8")
        command = [
            "nvcc",
            "-std=c++17",
            "-fatbin",
            *targets,
            "-Xptxas",
            "-v",
            "-o",
            str(source) + ".fatbin",
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stderr


def by_nvrtc(text: str, architectures: Sequence[int]) -> str:
    """What ptxas says of a text, compiled by NVRTC for one architecture after the other."""
    library = nvrtc()
    log = ""
    for architecture in architectures:
        program = ctypes.c_void_p()
        words = [f"--gpu-architecture=sm_{architecture}", "-std=c++17", "--ptxas-options=-v"]
        options = (ctypes.c_char_p * len(words))(*[word.encode() for word in words])
        library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
        error = library.nvrtcCompileProgram(program, len(words), options)
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        said = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, said)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        if error:
            raise RuntimeError(said.value.decode())
        log += said.value.decode()
    return log


def nvrtc() -> ctypes.CDLL:
    """The compiler of run time.

    Raises
    ------
    RuntimeError
        If it is not installed.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for library in sorted(Path(folder).glob("**/libnvrtc.so.*")):
            return ctypes.CDLL(str(library))
    raise RuntimeError("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if anything spills."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compile_table", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="by NVRTC for the oldest generation only")
    quick = parser.parse_args(arguments).quick
    architectures = ARCHITECTURES[:1] if quick else ARCHITECTURES
    if quick or not shutil.which("nvcc"):
        return _compiled("NVRTC", by_nvrtc, architectures)
    return max(_compiled("NVRTC", by_nvrtc, (RUN_TIME,)), _compiled("nvcc", by_nvcc, architectures, FOR_ALL))


def _compiled(
    name: str,
    compile_: Callable[[str, Sequence[int]], str],
    architectures: Sequence[int],
    instead: dict[str, list[Types]] | None = None,
) -> int:
    """Compile every case, some files' cases `instead` of all of theirs; print the table."""
    rows, spilling, missing = [], [], []
    cases = [(file, types) for file, each in (CASES | (instead or {})).items() for types in each]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        logs = list(pool.map(lambda case: compile_(assemble(*case), architectures), cases))
    for (_, types), log in zip(cases, logs, strict=True):
        found: dict[str, dict[int, Usage]] = defaultdict(dict)
        for usage in usages(log):
            found[usage.kernel][usage.architecture] = usage
        words = f"{types.src} > {types.dst}, {types.acc}, {types.idx}"
        for kernel, each in sorted(found.items()):
            missing += [f"{kernel} {words} sm_{a}" for a in architectures if a not in each]
            spilling += [f"{kernel} {words} sm_{a}: {u.spills} bytes" for a, u in each.items() if u.spills]
            rows.append([
                kernel, words, *[str(each[a].registers) if a in each else "-" for a in architectures],
                str(max(u.shared for u in each.values())), str(max(u.stack for u in each.values())),
                str(max(u.spills for u in each.values())),
            ])  # fmt: skip
    header = (
        "kernel",
        "voxels in > out, sums, offsets",
        *[f"sm_{a}" for a in architectures],
        "shared",
        "stack",
        "spills",
    )
    note = "Shared memory is static; resample_axis_lines and _plane take up to 48 KB more, which the launch decides."
    tables.table(f"Registers per thread, as compiled by {name}", header, rows, note)
    for line in [*(f"not compiled: {m}" for m in missing), *(f"spills: {s}" for s in spilling)]:
        print(line)
    return 1 if missing or spilling else 0


if __name__ == "__main__":
    sys.exit(main())
