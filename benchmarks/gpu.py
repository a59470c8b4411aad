"""Everything that needs a GPU, in one go: the tests, the sanitizers, the timings. `make gpu` is this.

    python -m benchmarks.gpu [--out FOLDER] [--quick] [--skip tests|sanitizers|kernels ...]

Writes to benchmarks/results/<gpu>-<date>/: summary.json and summary.md, tests.txt, memcheck.txt, racecheck.txt,
kernels.json and kernels.md. Exit code 0 if all that ran was right, 1 if something was not, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("tests", "sanitizers", "kernels")
TOOLS = ("memcheck", "racecheck")
ONCE = "--every-kernel"
# Share of labels that may differ from the CPU engine's.
TIES = 1e-4
TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def every_kernel() -> int:
    """Run each kernel once on small volumes, for the sanitizers; returns how many there were.

    Where labels are chosen by Gaussian votes, ties may go either way: erf's last bits are the device's own.

    Raises
    ------
    RuntimeError
        If a result is not the CPU engine's.
    """
    import numpy as np

    from gpuresample import Grid, Volume, gaussian, plan
    from gpuresample.engines.cuda import engine as cuda
    from gpuresample.planning.filters import FILTERS

    cupy = cuda.usable()
    rng = np.random.default_rng(0)
    # Wide enough for whole strips of pairs.
    source = Grid.of_size((146, 37, 11))
    targets = (Grid((132, 44, 12), (1.1, 0.8, 0.9), (0.2, 0.1, 0.3), source.direction),
               Grid((9, 3, 2), (17.0, 14.0, 15.0), (0.2, 0.1, 0.3), source.direction),
               Grid((38, 40, 12), (1.1, 1.0, 1.0), (-3.0, -4.0, 0.2), TURNED))  # fmt: skip
    for interpolation, filter_ in FILTERS.items():
        for target in targets:
            for dtype in ("int16", "float32") if filter_.method == "sum" else ("uint8", "int16"):
                voxels = rng.integers(0, 5, source.size[::-1]).astype("int16")
                options: dict[str, Any] = {"like": target, "interpolation": interpolation, "dtype": dtype}
                made = plan(Volume(voxels, source.spacing), **options)
                out = made.run(Volume(cupy.asarray(voxels), source.spacing)).array
                right = replace(made, device="cpu").run(Volume(voxels, source.spacing)).array
                apart = np.abs(cupy.asnumpy(out).astype(float) - right)
                if filter_.name == "label_gaussian" and (apart > 0).any():
                    print(f"{interpolation}: {np.count_nonzero(apart)} of {apart.size:,} labels differ, at ties")
                    apart = apart if np.count_nonzero(apart) > TIES * apart.size else 0 * apart
                if apart.max() > (1 if dtype != "float32" else 1e-5):
                    raise RuntimeError(f"{interpolation} onto {target}: not the CPU engine's result")
    # A few taps along one axis.
    voxels = rng.integers(0, 5, source.size[::-1]).astype("float32")
    out, right = (gaussian(Volume(a, source.spacing), (0.4, 0.0, 0.0)).array for a in (cupy.asarray(voxels), voxels))
    if np.abs(cupy.asnumpy(out) - right).max() > 1e-5:
        raise RuntimeError("gaussian along x: not the CPU engine's result")
    _ensembles(cupy, rng)
    _paths(cupy, rng)
    return len(cuda.engine().runtime.launches)


def _paths(cupy: Any, rng: Any) -> None:
    """Transforms with lattices, and the ways back of gathers."""
    import numpy as np

    from gpuresample import BSpline, DisplacementField, plan, resample
    from gpuresample.engines.cpu import engine as cpu
    from gpuresample.engines.cuda import engine as cuda
    from gpuresample.planning.works import Gather

    shape = (9, 21, 70)
    transforms = (np.eye(3, 4) + 0.05, DisplacementField(rng.normal(0, 1, (*shape, 3))),
                  BSpline(rng.normal(0, 1, (6, 7, 8, 3))))  # fmt: skip
    for transform in transforms:
        for interpolation in ("nearest", "linear", "bspline", "lanczos", "label_linear", "label_gaussian"):
            voxels = rng.integers(0, 5, shape).astype("float32")
            options: dict[str, Any] = {"transform": transform, "interpolation": interpolation}
            apart = cupy.asnumpy(resample(cupy.asarray(voxels), **options)) - resample(voxels, device="cpu", **options)
            if np.count_nonzero(np.abs(apart) > 1e-5) > (TIES * apart.size if interpolation == "label_gaussian" else 0):
                raise RuntimeError(f"{interpolation} along {type(transform).__name__}: not the CPU engine's result")
        for interpolation in ("linear", "bspline", "lanczos"):
            work = plan(shape, transform=transform, interpolation=interpolation, dtype="float64").work
            assert isinstance(work, Gather)
            x, y = rng.standard_normal((2, 1, *shape))
            back, slopes = np.empty((1, *shape)), np.empty((1, 3, *shape))
            there = cupy.empty(back.shape, "float64"), cupy.empty(slopes.shape, "float64")
            cpu.splat(work, y, back)
            cpu.gradient(work, x, slopes)
            cuda.engine().splat(work, cupy.asarray(y), there[0])
            cuda.engine().gradient(work, cupy.asarray(x), there[1])
            for mine, right in zip(there, (back, slopes), strict=True):
                if np.abs(cupy.asnumpy(mine) - right).max() > 1e-9:
                    raise RuntimeError(f"back by {interpolation}: not the CPU engine's result")
    values, total, right = rng.standard_normal((1, 3, *shape)), cupy.empty((1, 3, 4), "float64"), np.empty((1, 3, 4))
    cuda.engine().moments(cupy.asarray(values), cupy.asarray(values), total)
    cpu.moments(values, values, right)
    if np.abs(cupy.asnumpy(total) - right).max() > 1e-9 * np.abs(right).max():
        raise RuntimeError("moments: not the CPU engine's")


def _ensembles(cupy: Any, rng: Any) -> None:
    """Scores to labels in several ways, and modes of blocks, which no interpolation runs."""
    import numpy as np

    from gpuresample import bin_shrink, ensemble

    models = [rng.standard_normal((3, *shape)).astype("float32") for shape in ((9, 20, 24), (6, 11, 13))]
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"activation": "sigmoid", "regions": [1, 2, 3]},
        {"interpolation": "bspline", "resample_after": True},
    )
    for options in ways:
        options |= {"size": (9, 20, 24), "output": ("labels", "probabilities")}
        labels, shares = ensemble(models, device="cpu", **options)
        out = [cupy.asnumpy(o) for o in ensemble([cupy.asarray(m) for m in models], **options)]
        if (out[0] != labels).mean() > TIES or np.abs(out[1] - shares).max() > 1e-5:
            raise RuntimeError(f"ensemble {options}: not the CPU engine's result")
    labels = rng.integers(0, 5, (9, 20, 24)).astype("uint8")
    if (cupy.asnumpy(bin_shrink(cupy.asarray(labels), 2, reduce="mode")) != bin_shrink(labels, 2, reduce="mode")).any():
        raise RuntimeError("bin_shrink: not the CPU engine's modes")


def ran(command: Sequence[str], log: Path, **environment: str) -> int:
    """Run a command, with its output on the terminal and in a file; its exit code."""
    print(f"\n== {' '.join(command)}", flush=True)
    options: dict[str, Any] = {"cwd": ROOT, "env": {**os.environ, **environment}, "text": True}
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
    return int(process.returncode)


def tests(out: Path) -> dict[str, Any]:
    """The tests marked `gpu`, slow ones included. That they ran and were not skipped is said by their summary line."""
    from gpuresample.engines.threads import cores

    # By name: to collect the other files, their libraries would have to be there. Compiling takes most of the time.
    several = ["--numprocesses", str(min(8, cores()))] if importlib.util.find_spec("xdist") else []
    files = ["tests/engines/test_gpu.py", "tests/engines/test_gpu_warp.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:benchmark", "-m", "gpu", *files, *several]
    code = ran(command, out / "tests.txt", GPURESAMPLE_SLOW="1")
    lines = (out / "tests.txt").read_text().splitlines()
    said = next((line for line in reversed(lines) if line.startswith("gpu: ")), "gpu: no test ran")
    return {"ok": code == 0 and " ran on " in said, "said": said}


def sanitizers(out: Path) -> dict[str, Any]:
    """compute-sanitizer on every kernel, where the tool exists."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"ok": None, "said": "compute-sanitizer is not on the PATH (it comes with the CUDA toolkit): not run"}
    codes = {}
    for name in TOOLS:
        command = [
            tool,
            "--tool",
            name,
            "--error-exitcode",
            "9",
            sys.executable,
            "-m",
            "benchmarks.gpu",
            "--every-kernel",
        ]
        # CuPy's pool hides the ends of buffers from memcheck.
        codes[name] = ran(command, out / f"{name}.txt", GPURESAMPLE_NO_POOL="1")
    said = ", ".join(f"{name}: {'no errors' if code == 0 else f'exit code {code}'}" for name, code in codes.items())
    return {"ok": not any(codes.values()), "said": said}


def timings(out: Path, quick: bool) -> dict[str, Any]:
    """The kernels' timings."""
    command = [sys.executable, "-m", "benchmarks.kernels", "--out", str(out), *(["--quick"] if quick else [])]
    code = ran(command, out / "kernels.txt")
    return {"ok": code == 0, "said": "kernels.md" if code == 0 else f"exit code {code}"}


def summary(device: str, date: str, steps: dict[str, dict[str, Any]]) -> str:
    """The summary as a text."""
    words = {True: "ok", False: "FAILED", None: "not run"}
    lines = [f"# {device}, {date}", "", "| step | result | |", "|---|---|---|"]
    lines += [f"| {name} | {words[step['ok']]} | {step['said']} |" for name, step in steps.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and write the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where to write")
    parser.add_argument("--quick", action="store_true", help="timings of a smaller job")
    parser.add_argument("--skip", action="append", default=[], choices=STEPS)
    parser.add_argument(ONCE, action="store_true", help="only run each kernel once, for a sanitizer")
    options = parser.parse_args(arguments)
    try:
        from gpuresample.bench.measure import folder_name
        from gpuresample.engines.cuda import engine as cuda

        cupy = cuda.usable()
    except ImportError as error:
        print(f"make gpu takes an interpreter as it is, and {sys.executable} lacks something: {error}\n"
              f"Name another by make gpu PY=/path/to/python3. Nothing was run.", file=sys.stderr)  # fmt: skip
        return 2
    except RuntimeError as error:
        print(f"make gpu needs a CUDA GPU, and there is none to use: {error}\n"
              f"`gpuresample doctor` says what is missing. Nothing was run.", file=sys.stderr)  # fmt: skip
        return 2
    if options.every_kernel:
        if os.environ.get("GPURESAMPLE_NO_POOL"):
            cupy.cuda.set_allocator(None)
        print(f"{every_kernel()} kernels ran, with the CPU engine's results")
        return 0
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    out = options.out or ROOT / "benchmarks" / "results" / folder_name(device, date)
    out.mkdir(parents=True, exist_ok=True)
    steps: dict[str, dict[str, Any]] = {}
    if "tests" not in options.skip:
        steps["tests"] = tests(out)
    if "sanitizers" not in options.skip:
        steps["sanitizers"] = sanitizers(out)
    if "kernels" not in options.skip:
        steps["kernels"] = timings(out, options.quick)
    (out / "summary.json").write_text(json.dumps({"device": device, "date": date, "steps": steps}, indent=1) + "\n")
    (out / "summary.md").write_text(summary(device, date, steps))
    print(f"\n{summary(device, date, steps)}\nwritten: {out}")
    return 1 if any(step["ok"] is False for step in steps.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
