"""Drawn attacks on the package, in child processes: what ends one, hangs it or is answered wrongly is found.

    python -m benchmarks.attack [--cases 2000] [--seed 0] [--kinds guarded bounds odd far words]

Of every kind so many cases are drawn, see `attacks.py`; "bounds" is "guarded" where kernels check every index. These
are compiled with few optimisations, for two types, and kept for the next run in the folder that `CHECKED` names. A case
may take `SECONDS` and a child `MEMORY` bytes. The exit code is 1 if anything was found. A case is run again by

    python -m benchmarks.attack --kinds far --seed 0 --only 1234
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gpuresample.engines.cpu import store

KINDS = ("guarded", "bounds", "odd", "far", "words")
# Where kernels that check their indices are kept: not in /tmp, where another user could put others in their place.
CHECKED = store.user_folder() / "bounds-checked"
# Of one case, in seconds that it computes: compiling is allowed, hanging is not; where indices are checked, compiling
# takes longer. And in seconds that pass, since what waits for something computes nothing.
SECONDS, CHECKED_SECONDS, WAITED = 60, 300, 900
# Of one child: address space, of which Numba and ITK take the most.
MEMORY = 6 << 30
# Cases that one child runs before a new one begins.
CASES_OF_A_CHILD = 250


@dataclass
class Result:
    """What came of one kind of attack."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    found: list[tuple[int, str, str]] = field(default_factory=list)  # number, case, what happened
    seconds: float = 0.0


def child(kind: str, seed: int, start: int, stop: int) -> None:
    """Run cases; a line of JSON before each and after it."""
    import resource

    from benchmarks.attacks import KINDS as DRAW
    from benchmarks.attacks import Found

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(start, stop):
        text, run = DRAW[kind](random.Random(f"{seed} {number}"))
        print(json.dumps({"case": number, "text": text}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, CHECKED_SECONDS if kind == "bounds" else SECONDS)
        signal.alarm(WAITED)
        try:
            outcome = {"end": run()}
        except Found as found:
            outcome = {"end": "found", "what": str(found)}
        except BaseException as error:  # whatever it is, it is not a refusal
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
            outcome = {"end": "found", "what": what}
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        print(json.dumps(outcome), flush=True)


def attacked(kind: str, cases: int, seed: int, first: int = 0) -> Result:
    """Run a kind's cases in children; one that dies costs its case only."""
    began, result = time.monotonic(), Result(kind)
    at, end = first, first + cases
    while at < end:
        for number, text, outcome, what in _of_child(kind, seed, at, min(end, at + CASES_OF_A_CHILD)):
            result.counts[outcome] += 1
            if outcome == "found":
                result.found.append((number, text, what))
            at = number + 1
    result.seconds = time.monotonic() - began
    return result


def _of_child(kind: str, seed: int, start: int, stop: int) -> Iterator[tuple[int, str, str, str]]:
    """Number, text, outcome and finding of every case that a child came to."""
    command = [sys.executable, "-m", "benchmarks.attack", "--child", kind, str(seed), str(start), str(stop)]
    env = dict(os.environ)
    if kind == "bounds":
        # Numba's cache does not know whether code checks its indices: it must not meet code that does not.
        env |= {
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_CACHE_DIR": str(CHECKED),
            # Which index is used does not depend on these, and compiling takes half the time.
            "NUMBA_OPT": "1",
            "NUMBA_LOOP_VECTORIZE": "0",
            "NUMBA_SLP_VECTORIZE": "0",
        }
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as process:
            assert process.stdout is not None
            number, text, open_case = start, "none", True
            for line in process.stdout:
                said = json.loads(line)
                if "case" in said:
                    number, text, open_case = said["case"], said["text"], True
                else:
                    open_case = False
                    yield number, text, said["end"], said.get("what", "")
            code = process.wait()
        if code:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["nothing said"])[-1]
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            if open_case:
                yield number, text, "found", f"the process ended {how}: {last}"
            else:
                raise RuntimeError(f"a child ended {how} after case {number} of {kind}: {last}")


HEAD = f"{'attack':10s} {'answered':>9s} {'refused':>9s} {'found':>7s} {'seconds':>8s}"


def row(result: Result) -> str:
    """A kind's counts, as a row below `HEAD`."""
    c = result.counts
    return f"{result.kind:10s} {c['answered']:9d} {c['refused']:9d} {c['found']:7d} {result.seconds:8.0f}"


def found(results: list[Result]) -> list[str]:
    """What was found, and how to run it again."""
    return [f"{r.kind} {number}: {text}\n    {what}" for r in results for number, text, what in r.found]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--workers", type=int, default=2, help="kinds that run at once")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *numbers = options.child
        child(kind, *map(int, numbers))
        return 0
    first, cases = (0, options.cases) if options.only is None else (options.only, 1)
    results = []
    print(HEAD, flush=True)
    with ThreadPoolExecutor(options.workers) as workers:
        for result in workers.map(lambda kind: attacked(kind, cases, options.seed, first), options.kinds):
            print(row(result), flush=True)
            results.append(result)
    for text in found(results):
        print(text)
    return int(any(r.found for r in results))


if __name__ == "__main__":
    sys.exit(main())
