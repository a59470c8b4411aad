"""Kernels compiled before they are called: those of the signatures that were recorded (`benchmarks/signatures.py`).

`python -m gpuresample.engines.cpu.ahead` compiles what is not there yet, in several processes. Code goes where a first
call would put it, and later processes load it without Numba.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from gpuresample.engines.cpu import shipped, store
from gpuresample.engines.cpu.jit import Kernel

LIST = Path(__file__).with_name("signatures.txt")
MODULES = (
    "ensemble_kernels", "exact_kernels", "gather_kernels", "gradient_kernels", "majority_kernels", "means_kernels",
    "path_kernels", "table_kernels", "vote_kernels",
)  # fmt: skip

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


class Handout:
    """Signatures, handed out to processes one at a time.

    A process that did one of a kernel gets the next of it: what a kernel calls is compiled once in a process. One that
    has none left of its kernel gets one of the kernel that most are left of, so none waits for another.
    """

    def __init__(self, wanted: Sequence[Signature]) -> None:
        self._left: dict[str, list[Signature]] = {}
        self._lock = threading.Lock()
        for name, signature in wanted:
            self._left.setdefault(name, []).append((name, signature))

    def after(self, last: str) -> Signature | None:
        """The next one for a process whose last was of the kernel `last`; None where none is left."""
        with self._lock:
            left = {name: some for name, some in self._left.items() if some}
            if not left:
                return None
            return left.get(last, max(left.values(), key=len)).pop(0)


def spread(
    wanted: Sequence[Signature],
    module: str,
    arguments: Sequence[str],
    n: int,
    environment: dict[str, str] | None = None,
) -> bool:
    """Have signatures compiled by `n` processes at once that run a module's `main`, which takes them by `asked`.

    Answers whether every process did what it was asked.
    """
    # What this process imports from is what they import from; nothing is imported from the current folder.
    start = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main(sys.argv[1:]))"
    command, handout = [sys.executable, "-c", start, *arguments, "--asked"], Handout(wanted)
    running = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(min(n, len(wanted)))
    ]

    def serve(process: subprocess.Popen[str]) -> bool:
        assert process.stdin is not None
        assert process.stdout is not None
        last, done = "", False
        with suppress(OSError), process:  # its pipe is broken; on Windows that is another error
            while (one := handout.after(last)) is not None:
                last = one[0]
                process.stdin.write(f"{' '.join(one)}\n")
                process.stdin.flush()
                if not process.stdout.readline():  # it has ended
                    return False
            done = True
        return done and process.returncode == 0

    with ThreadPoolExecutor(max(1, len(running))) as pool:
        try:
            return all(list(pool.map(serve, running)))
        except BaseException:  # Ctrl-C, which they need not have got: what is left is not compiled first
            for process in running:
                process.kill()
            raise


def asked() -> Iterator[Signature]:
    """In a process that `spread` started: what it is to compile. The next one is asked for when this one is done."""
    # Whatever else is printed here, by Numba or a linker, would be taken for an answer: it goes where errors go.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            name, _, signature = line.rstrip("\n").partition(" ")
            yield name, signature
            answers.write("\n")
            answers.flush()


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
    spread(left, __spec__.name, [], processes)
    return len(left), len(left) - len(missing(left))


def _compile_what_is_asked() -> None:
    from gpuresample.engines.cpu import compiler

    compiler.for_disk_alone()
    for name, signature in asked():
        compiler.code_for(kernel_of(name), signature)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where something could not be compiled."""
    parser = argparse.ArgumentParser(prog="python -m gpuresample.engines.cpu.ahead", description=__doc__)
    parser.add_argument("--list", type=Path, default=LIST, help="another list of signatures")
    parser.add_argument("--processes", type=int, default=2, help="that compile at once (2)")
    parser.add_argument("--asked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error("--processes must be at least 1")
    if options.asked:
        _compile_what_is_asked()
        return 0
    left, done = build(options.processes, options.list)
    if left:
        sys.stdout.write(f"{done} of {left} kernels compiled\n")
    return int(done < left)


if __name__ == "__main__":
    sys.exit(main())
