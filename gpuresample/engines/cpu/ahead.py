"""Kernels compiled before they are called: those of the signatures that were recorded (`benchmarks/signatures.py`).

`python -m gpuresample.engines.cpu.ahead` compiles what is not there yet, in several processes. Code goes where a first
call would put it, and later processes load it without Numba.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gpuresample.engines.cpu import shipped, store
from gpuresample.engines.cpu.jit import Kernel

LIST = Path(__file__).with_name("signatures.txt")
MODULES = (
    "ensemble_kernels", "exact_kernels", "gather_kernels", "gradient_kernels", "majority_kernels", "means_kernels",
    "path_kernels", "table_kernels", "vote_kernels",
)  # fmt: skip
# Signatures of one kernel that one process takes in turn: they have most of what they call in common.
TOGETHER = 4

Signature = tuple[str, str]
"""A kernel's name and a signature."""


def recorded(path: Path = LIST) -> list[Signature]:
    """The kernels and signatures of a list, one a line."""
    lines = path.read_text().splitlines()
    return [(name, signature) for name, _, signature in (line.partition(" ") for line in lines if line)]


def kernel_of(name: str) -> Kernel:
    """The kernel of a name."""
    module, _, function = name.partition(".")
    if module not in MODULES:
        raise ValueError(f"there is no module of kernels named {module}")
    found = getattr(importlib.import_module(f"{__package__}.{module}"), function, None)
    if not isinstance(found, Kernel):
        raise ValueError(f"{module} has no kernel {function}")
    return found


def is_there(kernel: Kernel, signature: str) -> bool:
    """Whether a kernel's code for a signature was shipped for this machine, or is kept."""
    return shipped.load(kernel, signature) is not None or store.is_kept(kernel, signature)


def missing(wanted: Sequence[Signature]) -> list[Signature]:
    """Those that would be compiled when they are called."""
    return [(name, signature) for name, signature in wanted if not is_there(kernel_of(name), signature)]


def share(wanted: Sequence[Signature], k: int, n: int) -> list[Signature]:
    """Process `k`'s part of a list that `n` processes compile."""
    groups = [wanted[at : at + TOGETHER] for at in range(0, len(wanted), TOGETHER)]
    return [one for group in groups[k::n] for one in group]


def parts(
    module: str, arguments: Sequence[str], started: int, of: int, environment: dict[str, str] | None = None
) -> list[int]:
    """Run a module's `main` in several processes at once, `--part k/of` for each; their exit codes."""
    # What this process imports from is what they import from; nothing is imported from the current folder.
    start = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, *arguments, "--part"]
    running = [subprocess.Popen([*command, f"{k}/{of}"], env=environment) for k in range(started)]
    return [process.wait() for process in running]


def build(processes: int, path: Path = LIST) -> tuple[int, int]:
    """Compile what is missing of a list.

    Parameters
    ----------
    processes : int
        So many compile at once; each takes some 300 MB.
    path : Path
        The list.

    Returns
    -------
    tuple of two int
        How many were missing, and how many of them are there now.
    """
    left = missing(recorded(path))
    if not left:
        return 0, 0
    parts(__spec__.name, ["--list", str(path)], min(processes, len(left)), processes)
    return len(left), len(left) - len(missing(left))


def _part(path: Path, k: int, n: int) -> None:
    """Compile what is missing of one process's share."""
    from gpuresample.engines.cpu import compiler

    compiler.for_disk_alone()
    # Shares of all that is listed: what is missing is another thing for each process.
    for name, signature in share(recorded(path), k, n):
        kernel = kernel_of(name)
        if not is_there(kernel, signature):
            compiler.code_for(kernel, signature)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where something could not be compiled."""
    parser = argparse.ArgumentParser(prog="python -m gpuresample.engines.cpu.ahead", description=__doc__)
    parser.add_argument("--list", type=Path, default=LIST, help="another list of signatures")
    parser.add_argument("--processes", type=int, default=2, help="that compile at once (2)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error("--processes must be at least 1")
    if options.part:
        k, n = options.part.split("/")
        _part(options.list, int(k), int(n))
        return 0
    left, done = build(options.processes, options.list)
    if left:
        sys.stdout.write(f"{done} of {left} kernels compiled\n")
    return int(done < left)


if __name__ == "__main__":
    sys.exit(main())
