"""Class scores of several models to one label map: time and memory, against torch, in one run.

    python -m benchmarks.ensemble [--quick] [--json FILE] [--skip NAME ...] [--runs N] [--threads N]

torch does what pipelines do: interpolate every class to full size (trilinear, outer faces aligned), softmax, mean over
models, arg-max. Labels are compared before anything is timed; where they differ, the two best classes must be closer
than float32 can tell. Scores are smooth regions with noise on top, made from formulas.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.bench import measure, tables
from gpuresample.bench.child import peak_of
from gpuresample.engines.pool import cores

Array = npt.NDArray[Any]
# Averages closer than this are a tie to float32.
TIE = 1e-5
TORCH_TARGET = 12.0


@dataclass(frozen=True)
class Case:
    """One job.

    Attributes
    ----------
    models, classes : int
    shape, size : three int
        Of the scores and of the label map, z, y, x.
    interpolation : str
    by_torch : bool
        Whether torch is asked, too: it has no B-spline, and no memory for the largest.
    """

    models: int
    classes: int
    shape: tuple[int, int, int]
    size: tuple[int, int, int]
    interpolation: str = "linear"
    by_torch: bool = True

    @property
    def what(self) -> str:
        """The job in words."""
        models = f"{self.models} models" if self.models > 1 else "1 model"
        to = "x".join(map(str, self.size))
        return f"{models}, {self.classes} classes, {self.interpolation}, {'x'.join(map(str, self.shape))} to {to}"

    @property
    def torch_bytes(self) -> int:
        """What torch's way holds at the least at once: all classes of one model and of the mean, at full size."""
        return 4 * self.classes * math.prod(self.size) * (1 if self.models == 1 else 2)


CASES = {
    "2x12": Case(2, 12, (62, 200, 200), (124, 400, 400)),
    "1x12": Case(1, 12, (62, 200, 200), (124, 400, 400)),
    "5x12": Case(5, 12, (62, 200, 200), (124, 400, 400)),
    "2x12-bspline": Case(2, 12, (62, 200, 200), (124, 400, 400), "bspline", by_torch=False),
    "1x118": Case(1, 118, (124, 256, 256), (247, 512, 512), by_torch=False),
}


def small(case: Case) -> Case:
    """Half as many voxels on every axis."""
    return Case(case.models, case.classes, _half(case.shape), _half(case.size), case.interpolation, case.by_torch)


def _half(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = (max(n // 2, 2) for n in shape)
    return z, y, x


def scores(case: Case, model: int) -> Array:
    """Scores of one model: a wave per class, and noise."""
    rng = np.random.default_rng(model)
    out = np.empty((case.classes, *case.shape), np.float32)
    z, y, x = (np.arange(n, dtype=np.float32) for n in case.shape)
    noise = rng.standard_normal(case.shape[1:], np.float32)
    for c in range(case.classes):
        fz, fy, fx, phase = (rng.uniform(0, 1, 4) * (0.1, 0.1, 0.1, 6.28) + (0.02, 0.02, 0.02, 0)).tolist()
        plane = np.sin(fy * y + phase)[:, None] + np.sin(fx * x + 2 * phase)
        out[c] = 2 * np.sin(fz * z + phase)[:, None, None] + plane
        out[c] += 0.5 * np.roll(noise, 17 * c, axis=1)
    return out


def ours(case: Case, models: Sequence[Array]) -> Callable[[], Array]:
    """`gpuresample.ensemble`."""
    import gpuresample as gr

    options: dict[str, Any] = {"size": case.size, "anchor": "edge", "interpolation": case.interpolation}
    return lambda: gr.ensemble(models, **options)


def torch_way(case: Case, models: Sequence[Array]) -> Callable[[], Array]:
    """Resample, softmax, mean, arg-max, each over whole volumes."""
    import torch

    sources = [torch.from_numpy(m)[None] for m in models]

    def average() -> Any:
        mean = None
        for source in sources:
            full = torch.nn.functional.interpolate(source, case.size, mode="trilinear", align_corners=False)
            share = torch.softmax(full, dim=1) if len(sources) > 1 else full
            del full
            mean = share if mean is None else mean.add_(share)
        return mean

    def call() -> Array:
        labels: Array = average().argmax(dim=1)[0].to(torch.uint8).numpy()
        return labels

    return call


def difference(case: Case, models: Sequence[Array], a: Array, b: Array) -> tuple[float, float]:
    """Share of voxels whose labels differ, and the largest lead of a class over another there."""
    import torch

    wrong = np.argwhere(a != b)
    lead = 0.0
    for z in np.unique(wrong[:, 0]).tolist():
        mean = None
        for m in models:
            # Two planes are enough for one; torch's coordinates are those of the whole.
            position = min(max((z + 0.5) * case.shape[0] / case.size[0] - 0.5, 0.0), case.shape[0] - 1.0)
            low = int(position)
            high, part = min(low + 1, case.shape[0] - 1), position - low
            plane = torch.from_numpy(m[:, low].astype(np.float64) * (1 - part) + m[:, high].astype(np.float64) * part)
            full = torch.nn.functional.interpolate(plane[None], case.size[1:], mode="bilinear", align_corners=False)[0]
            share = torch.softmax(full, dim=0)
            mean = share if mean is None else mean + share
        assert mean is not None
        for _, y, x in wrong[wrong[:, 0] == z].tolist():
            at = mean[:, y, x] / len(models)
            lead = max(lead, float((at[int(a[z, y, x])] - at[int(b[z, y, x])]).abs()))
    return len(wrong) / a.size, lead


def run_case(name: str, case: Case, runs: int) -> dict[str, Any]:
    """Check, time and print one case."""
    models = [scores(case, m) for m in range(case.models)]
    calls = {"gpuresample": ours(case, models)}
    if case.by_torch and importlib.util.find_spec("torch") is not None:
        calls["torch"] = torch_way(case, models)
    first = {key: call() for key, call in calls.items()}
    share, lead = difference(case, models, first["gpuresample"], first["torch"]) if "torch" in first else (0.0, 0.0)
    del first
    times = measure.interleaved(calls, runs, budget=60.0)
    del models, calls
    same = lead <= TIE
    memory = {
        key: measure.child("--memory-of", name, key, str(case.shape[0]), module="benchmarks.ensemble") for key in times
    }
    base, lines, rows = times["gpuresample"].median, [], []
    labels = math.prod(case.size)
    for key, t in times.items():
        m = memory[key]
        check = "judge" if key == "torch" else "ok" if same else "WRONG"
        rows.append({"who": key, "seconds": t.seconds, "median": t.median, "extra": m["extra"], "check": check})
        lines.append([
            key, tables.duration(t.median), t.spread, str(len(t.seconds)), f"{t.median / base:.3g}",
            tables.megabytes(m["extra"]), check,
        ])  # fmt: skip
    note = f"Inputs {tables.megabytes(memory['gpuresample']['input'])}, labels {tables.megabytes(labels)}."
    if "torch" in times:
        note += f" Labels differ in {share:.1e} of the voxels, the largest lead there is {lead:.0e}."
    else:
        note += f" torch's way would hold {case.torch_bytes / 1e9:.1f} GB."
    tables.table(case.what, ("", "median", "spread", "runs", "times ours", "peak beyond input", "check"), lines, note)
    return {
        "name": name, "what": case.what, "rows": rows, "differ": share, "lead": lead, "labels": labels,
        "input": memory["gpuresample"]["input"], "torch_bytes": case.torch_bytes,
    }  # fmt: skip


def memory_of(name: str, who: str, planes: int) -> dict[str, Any]:
    """Peak memory of one ensemble (a key of `CASES`, or its half where that has as many planes)."""
    if who == "torch":
        __import__("torch")
    measure.set_threads(cores())
    case = CASES[name]
    case = case if case.shape[0] == planes else small(case)
    prepare = torch_way if who == "torch" else ours
    tiny = Case(case.models, case.classes, (4, 5, 6), (8, 10, 12), case.interpolation)
    prepare(tiny, [scores(tiny, m) for m in range(case.models)])()
    models = [scores(case, m) for m in range(case.models)]
    call = prepare(case, models)
    return {"who": who, "input": sum(m.nbytes for m in models), "extra": peak_of(call)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit code 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensemble", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half as many voxels on every axis, three runs")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--skip", metavar="NAME", action="append", default=[], choices=list(CASES))
    parser.add_argument("--only", metavar="NAME", action="append", default=[], choices=list(CASES))
    parser.add_argument("--runs", type=int, help="runs of every call (default 5)")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of every library")
    parser.add_argument("--memory-of", nargs=3, metavar=("CASE", "WHO", "PLANES"), help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if options.memory_of:  # a process of its own for one peak
        name, who, planes = options.memory_of
        print(json.dumps(memory_of(name, who, int(planes))))
        return 0
    info = measure.machine(options.threads)
    print(measure.about(info))
    if importlib.util.find_spec("torch") is not None:
        __import__("torch")
    measure.set_threads(options.threads)
    wanted = [n for n in options.only or CASES if n not in options.skip]
    cases = {n: small(CASES[n]) if options.quick else CASES[n] for n in wanted}
    results = [run_case(n, case, options.runs or (3 if options.quick else 5)) for n, case in cases.items()]
    measure.save(options.json, "ensemble", given, {"machine": info, "quick": options.quick, "cases": results})
    return 1 if any(row["check"] == "WRONG" for r in results for row in r["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
