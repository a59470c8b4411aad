"""Is it slower than it was? A small set of jobs, against another commit or against a stored baseline.

    python -m benchmarks.regress --against COMMIT|FOLDER    two checkouts in turns: what to use on shared machines
    python -m benchmarks.regress                            against the baseline stored for this machine
    python -m benchmarks.regress --save                     store that baseline

Exit code 0 if nothing is slower, 1 if something is, 2 if nothing could be compared. How it tells a regression from
noise: `paired.py`, docs/gpu-runners.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.paired import LEAST_ROUNDS, Interval, interval, spread, verdict
from benchmarks.regress_worker import JOBS
from gpuresample.bench import measure, tables
from gpuresample.engines import threads
from gpuresample.files.volumes import replacing

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "benchmarks" / "regress_worker.py"
BASELINES = ROOT / "benchmarks" / "baselines"

# Below these nothing is called a change. What they rest on is in docs/gpu-runners.md: two runs of the same code.
THRESHOLD_PAIRED, THRESHOLD_STORED = 0.10, 0.25
LAUNCHES, ROUNDS, MOST_LAUNCHES = 3, 9, 6
# The least of so many measurements counts, each at least so long.
TIMES, LEAST_SECONDS = 5, 0.004


class NotComparedError(Exception):
    """A comparison could not be made; the message says why."""


class Process:
    """A worker in a process of its own, on the package of a checkout.

    Parameters
    ----------
    checkout : Path
    device : {"cpu", "cuda"}
    slow : float
        By how much its kernel is slowed down on purpose.
    """

    def __init__(self, checkout: Path, device: str, slow: float = 1.0) -> None:
        self.checkout = checkout
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), device, str(slow)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        try:
            self.hello = self._read()
            package = Path(self.hello["package"]).resolve().parent
            if package != (checkout / "gpuresample").resolve():
                raise NotComparedError(f"{checkout} was to be measured, but Python imports {package}")
        except BaseException:
            self.close()
            raise

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NotComparedError(f"the process on {self.checkout} ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, job: str, reference: bool, calls: int, times: int) -> dict[str, Any]:
        """The worker's answer: `seconds` per call, or `error`."""
        assert self._process.stdin is not None
        request = {"job": job, "reference": reference, "calls": calls, "times": times}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it; it has nothing to lose."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        self._process.wait()


@dataclass
class Side:
    """One of the two times that make a ratio: whose process, and whether the job itself or its reference."""

    process: Process
    reference: bool

    def seconds(self, job: str, calls: int, times: int = TIMES) -> float:
        """Seconds per call.

        Raises
        ------
        NotComparedError
            If the checkout cannot do the job.
        """
        answer = self.process.ask(job, self.reference, calls, times)
        if "error" in answer:
            raise NotComparedError(f"{job} on {self.process.checkout.name}: {answer['error']}")
        return float(answer["seconds"])


@dataclass
class Pairs:
    """All rounds of a job: seconds below, seconds above, and the median ratio of every launch."""

    below: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)
    launches: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Above over below, round by round."""
        return [a / b for a, b in zip(self.above, self.below, strict=True)]


def launch(below: Side, above: Side, jobs: Sequence[str], rounds: int, pairs: dict[str, Pairs]) -> dict[str, str]:
    """Time the jobs in turns, below and above; returns what could not be done, and why."""
    failed: dict[str, str] = {}
    calls: dict[tuple[str, bool], int] = {}
    for job in jobs:
        try:
            once = {side.reference: side.seconds(job, 1) for side in (below, above)}
            calls |= {(job, which): max(1, round(LEAST_SECONDS / s)) for which, s in once.items()}
        except NotComparedError as error:
            failed[job] = str(error)
    for k in range(rounds):
        for job in (j for j in jobs if j not in failed):
            # Who goes first changes: whatever the first leaves behind, each finds it as often.
            order = (below, above) if k % 2 == 0 else (above, below)
            taken = {id(side): side.seconds(job, calls[job, side.reference]) for side in order}
            pairs.setdefault(job, Pairs()).below.append(taken[id(below)])
            pairs[job].above.append(taken[id(above)])
    for job in (j for j in jobs if j not in failed):
        pairs[job].launches.append(interval(pairs[job].ratios[-rounds:]).middle)
    return failed


@dataclass(frozen=True)
class Result:
    """A job's comparison: medians of both sides, how many times the base's time, and what that means."""

    job: str
    base: float
    head: float
    ratio: Interval | None
    threshold: float
    verdict: str


def compared(job: str, pairs: Pairs, threshold: float, before: float = 1.0) -> Result:
    """A job's ratios, over `before`, against a threshold. The base's time is what `before` makes of the times below."""
    found = interval([r / before for r in pairs.ratios])
    below, above = statistics.median(pairs.below) * before, statistics.median(pairs.above)
    return Result(job, below, above, found, threshold, verdict(found, threshold))


# -- two checkouts in turns -------------------------------------------------------------------------------------------


@contextmanager
def checked_out(against: str) -> Iterator[Path]:
    """The folder of a checkout: one that exists, or a commit's, made for the time being."""
    if (Path(against) / "gpuresample" / "__init__.py").exists():
        yield Path(against).resolve()
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        added = _git("worktree", "add", "--quiet", "--detach", str(folder), against)
        if added.returncode:
            raise NotComparedError(f"--against {against} is neither a checkout's folder nor a commit:\n{added.stderr}")
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def against_checkout(base: Path, options: argparse.Namespace) -> tuple[list[Result], str]:
    """Time of this checkout over the base's, job by job; the same job twice, so the machine cancels."""
    pairs: dict[str, Pairs] = {}
    failed: dict[str, str] = {}
    jobs, device = list(options.jobs), ""
    results: dict[str, Result] = {}
    for n in range(MOST_LAUNCHES):
        with ExitStack() as stack:
            # New processes every time: where its memory lies makes one faster than another, as long as it lives.
            old = stack.enter_context(closing(Process(base, options.device)))
            new = stack.enter_context(closing(Process(ROOT, options.device, options.slow)))
            device = new.hello["device"]
            failed |= launch(Side(old, False), Side(new, False), jobs, options.rounds, pairs)
        jobs = [j for j in jobs if j not in failed]
        results |= {job: compared(job, pairs[job], options.threshold or THRESHOLD_PAIRED) for job in jobs}
        if n + 1 >= LAUNCHES:
            jobs = [j for j in jobs if results[j].verdict == "undecided"]
        if not jobs:
            break
    return [results.get(job) or _not_done(job, failed[job]) for job in options.jobs], device


def _not_done(job: str, why: str) -> Result:
    return Result(job, 0.0, 0.0, None, 0.0, why)


# -- a stored baseline ------------------------------------------------------------------------------------------------


def measured(options: argparse.Namespace) -> tuple[dict[str, Pairs], str]:
    """Every job's time over its reference's in the same moment, and on what.

    Raises
    ------
    NotComparedError
        If a job cannot be done.
    """
    pairs: dict[str, Pairs] = {}
    device = ""
    for _ in range(LAUNCHES):
        with closing(Process(ROOT, options.device, options.slow)) as process:
            device = process.hello["device"]
            failed = launch(Side(process, True), Side(process, False), options.jobs, options.rounds, pairs)
        if failed:
            raise NotComparedError("; ".join(failed.values()))
    return pairs, device


def baseline_file(device: str) -> Path:
    """Where the baseline of this machine is."""
    name = device if not device.startswith("CPU") else f"{measure.machine(1)['cpu']} {device.removeprefix('CPU')}"
    return BASELINES / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")


def save_baseline(pairs: dict[str, Pairs], device: str) -> Path:
    """Store what was measured, for later runs on such a machine; jobs that were not measured keep theirs."""
    path = baseline_file(device)
    jobs = json.loads(path.read_text())["jobs"] if path.exists() else {}
    for job, each in pairs.items():
        jobs[job] = {"ratio": interval(each.ratios).middle, "launches": each.launches}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": measure.machine(threads.cores()), "device": device, "jobs": jobs}
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    return path


def against_baseline(pairs: dict[str, Pairs], device: str, options: argparse.Namespace) -> list[Result]:
    """Ratios to the reference, over those stored.

    Raises
    ------
    NotComparedError
        If none are stored for this machine.
    """
    path = options.baseline or baseline_file(device)
    if not path.exists():
        raise NotComparedError(f"no baseline is stored for this machine ({path.name}); --save stores one, "
                              f"--against COMMIT needs none")  # fmt: skip
    stored = json.loads(path.read_text())["jobs"]
    results = []
    for job in options.jobs:
        if job not in stored:
            results.append(_not_done(job, "not in the baseline"))
            continue
        # Where launches of the baseline differed much among themselves, so may those of any later run.
        threshold = options.threshold or max(THRESHOLD_STORED, 3 * spread(stored[job]["launches"]))
        results.append(compared(job, pairs[job], threshold, stored[job]["ratio"]))
    return results


# -- what people see --------------------------------------------------------------------------------------------------


HEADER = ("job", "base", "now", "ratio", "99 % interval", "threshold", "verdict")


def rows(results: Sequence[Result]) -> list[list[str]]:
    """Cells under `HEADER`."""
    made = []
    for r in results:
        if r.ratio is None:
            made.append([JOBS[r.job].what, "-", "-", "-", "-", "-", r.verdict])
            continue
        between = f"{r.ratio.low:.3f} to {r.ratio.high:.3f}"
        times = [tables.duration(r.base), tables.duration(r.head)]
        made.append([JOBS[r.job].what, *times, f"{r.ratio.middle:.3f}", between, f"{1 + r.threshold:.2f}", r.verdict])
    return made


def markdown(results: Sequence[Result], note: str) -> str:
    """The table for a comment on a change."""
    slower = [JOBS[r.job].what for r in results if r.verdict == "slower"]
    said = f"**Slower: {'; '.join(slower)}.**" if slower else "Nothing is slower."
    if n := sum(r.verdict == "undecided" for r in results):
        said += f" Undecided: {n}; the machine was too restless for the threshold."
    lines = [said, "", "| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 2) + "---|"]
    lines += ["| " + " | ".join(f"**{c}**" if c == "slower" else c for c in row) + " |" for row in rows(results)]
    return "\n".join([*lines, "", f"<sub>{note}</sub>"]) + "\n"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regress", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT|FOLDER", help="another checkout, measured in turns with this one")
    parser.add_argument("--baseline", metavar="FILE", type=Path, help="the stored baseline (default: this machine's)")
    parser.add_argument("--save", action="store_true", help="store this run as the machine's baseline")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"per launch (default {ROUNDS})")
    parser.add_argument("--threshold", type=float, metavar="SHARE",
                        help=f"what counts as slower (default {THRESHOLD_PAIRED} against a checkout, else at least "
                             f"{THRESHOLD_STORED})")  # fmt: skip
    parser.add_argument("--slow", type=float, default=1.0, metavar="FACTOR",
                        help="slow this checkout's table pass down on purpose, to be noticed; CPU only")  # fmt: skip
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the table there too")
    options = parser.parse_args(arguments)
    if options.jobs is None:
        # Threads of the CPU are nothing that a GPU's time depends on.
        options.jobs = [name for name in JOBS if options.device == "cpu" or name != "threads"]
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds must be at least {LEAST_ROUNDS}, got {options.rounds}")
    if options.threshold is not None and options.threshold <= 0:
        parser.error(f"--threshold must be above 0, got {options.threshold:g}")
    if not 1 <= options.slow <= 2:
        parser.error(f"--slow must be from 1 to 2, got {options.slow:g}")
    if options.slow > 1 and (options.device != "cpu" or options.save):
        parser.error("--slow goes with the CPU, and never with --save")
    if options.against and (options.save or options.baseline):
        parser.error("--against measures its base itself; --save and --baseline go without it")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare, print; see the module for exit codes."""
    options = parsed(arguments)
    try:
        if options.against:
            with checked_out(options.against) as base:
                results, device = against_checkout(base, options)
            title = f"this checkout against {options.against}, in turns"
        else:
            pairs, device = measured(options)
            if options.save:
                print(f"stored: {save_baseline(pairs, device).relative_to(ROOT)}")
                return 0
            results = against_baseline(pairs, device, options)
            title = "this checkout against the stored baseline; base: its ratio times the reference's time now"
    except NotComparedError as error:
        print(f"regress: {error}", file=sys.stderr)
        return 2
    note = f"{title}; {device}; {measure.about(measure.machine(threads.cores()))}"
    tables.table("is it slower?", HEADER, rows(results), note)
    if options.markdown:
        with replacing(options.markdown) as partial:
            partial.write_text(markdown(results, note))
    if not any(r.ratio for r in results):
        print("regress: nothing could be compared", file=sys.stderr)
        return 2
    return 1 if any(r.verdict == "slower" for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
