"""Libraries of compiled kernels, as wheels carry them: see `shipped`.

`python -m gpuresample.engines.cpu.build --to FOLDER` compiles all that is recorded, once for each instruction set.
Nothing that it compiles is run: so a processor need not have an instruction set to compile for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpuresample.engines.cpu import ahead, shipped, store

# Numba's name of an instruction set, where it is another.
TARGETS = {"aarch64": "generic"}


def driver() -> str | None:
    """The compiler driver that links libraries here; None where there is none, or none that this module knows."""
    if platform.machine() not in shipped.LEVELS or sys.platform not in ("linux", "darwin"):
        return None
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path, levels: Sequence[str], path: Path, processes: int) -> None:
    """Make a library for each instruction set, and the index of what is in them.

    Parameters
    ----------
    folder : Path
        Where they go.
    levels : sequence of str
        Instruction sets, of `shipped.NAMES`.
    path : Path
        The list of signatures.
    processes : int
        So many compile at once.

    Raises
    ------
    RuntimeError
        If a kernel cannot be compiled, or a library cannot be linked.
    """
    linker = driver()
    if linker is None:
        raise RuntimeError("there is no compiler driver here (cc, gcc, clang) that links libraries")
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    returns: dict[str, str] = {}
    for level in levels:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            _compile(Path(scratch), level, path, processes)
            for part in sorted(Path(scratch).glob("*.json")):
                returns |= json.loads(part.read_text())
            objects = sorted(Path(scratch).glob("*.o"))
            if len(objects) != len(set(ahead.recorded(path))):
                raise RuntimeError(f"{len(objects)} of {len(ahead.recorded(path))} kernels were compiled")
            target = folder / shipped.file_name(level)
            try:
                store.link(linker, objects, target)
            except subprocess.CalledProcessError as error:
                raise RuntimeError(f"{target} cannot be linked: {error.stderr.decode(errors='replace')}") from error
        sizes[level] = target.stat().st_size
        seconds = time.monotonic() - start
        sys.stdout.write(f"{target.name}: {len(objects)} kernels, {sizes[level] / 1e6:.1f} MB, {seconds:.0f} s\n")
        sys.stdout.flush()
    text = json.dumps({"sizes": sizes, "returns": returns}, sort_keys=True, separators=(",", ":"))
    (folder / shipped.INDEX).write_text(text)


def _compile(scratch: Path, level: str, path: Path, processes: int) -> None:
    """Object files of all signatures of a list, and what they return, from several processes."""
    told = {"NUMBA_CPU_NAME": TARGETS.get(level, level), "NUMBA_CPU_FEATURES": "", "NUMBA_DISABLE_INTEL_SVML": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")} | told
    arguments = ["--to", str(scratch), "--levels", level]
    if not ahead.spread(ahead.recorded(path), __spec__.name, arguments, processes, environment):
        raise RuntimeError(f"kernels could not be compiled for {level}")


def _compile_what_is_asked(scratch: Path, level: str) -> None:
    from gpuresample.engines.cpu import compiler

    compiler.for_disk_alone()
    for name, signature in ahead.asked():
        kernel = ahead.kernel_of(name)
        symbol = shipped.symbol(level, kernel, signature)
        made, answers, needed = compiler.object_of(kernel, signature, shared=True, symbol=symbol)
        if needed:
            raise RuntimeError(f"{name} needs {', '.join(needed)}, which only Numba has")
        (scratch / f"{symbol}.o").write_bytes(made)
        (scratch / f"{symbol}.json").write_text(json.dumps({shipped.entry(kernel, signature): answers}))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a library could not be made."""
    own = shipped.LEVELS.get(platform.machine(), {})
    usual = [level for level in own if level not in shipped.NOT_RUN]
    parser = argparse.ArgumentParser(prog="python -m gpuresample.engines.cpu.build", description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="the folder that libraries go to")
    parser.add_argument("--list", type=Path, default=ahead.LIST, help="another list of signatures")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that compile at once (all cores)")
    parser.add_argument(
        "--levels", nargs="+", choices=(*own, "own"), default=usual,
        help=f"instruction sets; own: the best that this processor has ({', '.join(usual)})",
    )  # fmt: skip
    parser.add_argument("--asked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error("--processes must be at least 1")
    if options.asked:
        _compile_what_is_asked(options.to, options.levels[0])
        return 0
    best = shipped.levels()[:1]
    levels = list(dict.fromkeys(one for level in options.levels for one in (best if level == "own" else [level])))
    if not levels:
        sys.stderr.write("no instruction set that is known here\n")
        return 1
    try:
        build(options.to, levels, options.list, options.processes)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
