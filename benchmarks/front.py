"""The front: grids that are rotated or deformed, against SimpleITK and affine-rs, line by line beside its target.

    python -m benchmarks.front [--quick] [--lines LINE ...] [--rounds N] [--out FOLDER]

The job is float32, 256x256x192, turned by 0.1, 0.15 and 0.2 rad about its centre. Every line's result is compared with
SimpleITK's float64 result first, voxel by voxel; what is wrong has no ratio. Then the calls take turns, in this process
and on as many threads as it has cores; medians. `--out` writes front.md and front.json into a folder
`<machine>-<date>` there. Exit code 1 if a result is wrong; a target that is not reached is said, and is no failure.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench import cases, measure, reference, tables
from gpuresample.bench.bounds import EXACT, bound_of, distance
from gpuresample.bench.cases import Array, Geometry
from gpuresample.bench.memory import peak_of
from gpuresample.bench.peers import ENUMERATORS
from gpuresample.bench.runs import machine_name
from gpuresample.containers.voxels import finite_range
from gpuresample.engines.threads import cores
from gpuresample.files.volumes import replacing
from gpuresample.ops.transforms import Path as TransformPath

Call = Callable[[], Any]

SIZE, ANGLES = (256, 256, 192), (0.1, 0.15, 0.2)
LABELS = 9
MESH = 8
# Voxels by which a lattice moves points, at most.
REACH = 4.0
# Matrices that take turns where every call has another one: more than calls are made, and than plans are kept.
MATRICES = 1000
ROUNDS = 11
# Above this an output's memory tells what a call takes beside it.
LARGE = 1 << 24
# What a call may take beside inputs and outputs, as a share of the output.
MEMORY = 0.10
# Apart from its border, where it has rules of its own, affine-rs is as far from SimpleITK as float32 positions are.
PEER_TOLERANCE = 1e-3


# -- the lines -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Given:
    """What a line is about: voxels on a grid, and a transform from the same grid.

    Attributes
    ----------
    array : ndarray, shape (z, y, x)
    grid, target : Grid
        The image's and the output's.
    transforms : list of SimpleITK.Transform
        One after the other, call by call.
    interpolation : str
    """

    array: Array
    grid: gr.Grid
    target: gr.Grid
    transforms: list[Any]
    interpolation: str

    @cached_property
    def image(self) -> sitk.Image:
        """The voxels as SimpleITK has them."""
        return cases.image(self.array, self.grid)

    @cached_property
    def volume(self) -> gr.Volume:
        """The voxels as we have them."""
        return cases.volume(self.array, self.grid)

    @cached_property
    def expected(self) -> Array:
        """SimpleITK's result by the first transform, in float64 where it is a sum."""
        pixel = self.image.GetPixelID() if self.interpolation in EXACT else sitk.sitkFloat64
        geometry = Geometry("front", self.grid, self.target, self.transforms[0])
        made: Array = sitk.GetArrayFromImage(
            reference.resampled(self.image, geometry, self.interpolation, 0.0, pixel)
        )  # fmt: skip
        return made


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes
    ----------
    what : str
    given : callable
        What it is about, made from a factor that sizes are divided by.
    target : float
        How many times as fast as the other it is to be; of `milliseconds`, what a call may take.
    ours, theirs : callable
        From what is given to a call.
    other : str
        Whose call the other is.
    milliseconds : bool
    calls : int
        So many are timed at once, being short.
    """

    what: str
    given: Callable[[int], Given]
    target: float
    ours: Callable[[Given], Call]
    theirs: Callable[[Given], Call]
    other: str = "SimpleITK"
    milliseconds: bool = False
    calls: int = 1


def ours(given: Given) -> Call:
    """Arrays with geometry, in and out."""
    return _resample(given.volume, given, itertools.cycle(given.transforms))


def ours_on_images(given: Given) -> Call:
    """SimpleITK's images, in and out."""
    return _resample(given.image, given, itertools.cycle(given.transforms))


def ours_by_matrix(given: Given) -> Call:
    """Arrays with geometry and matrices of shape (3, 4)."""
    return _resample(given.volume, given, itertools.cycle([homogeneous(t) for t in given.transforms]))


def ours_by_path(given: Given) -> Call:
    """Arrays with geometry, and a `Path` made beforehand of the members of a composite."""
    members = [given.transforms[0].GetNthTransform(k) for k in (1, 0)]
    return _resample(given.volume, given, itertools.cycle([TransformPath(members)]))


def _resample(image: Any, given: Given, transforms: Any) -> Call:
    target = None if given.target is given.grid else given.target
    return lambda: gr.resample(
        image, like=target, transform=next(transforms), interpolation=given.interpolation, device="cpu"
    )


def simpleitk(given: Given) -> Call:
    """`SimpleITK.Resample`."""
    transforms, t = itertools.cycle(given.transforms), given.target
    where = (ENUMERATORS[given.interpolation], t.origin, t.spacing, t.direction, 0.0)
    return lambda: sitk.Resample(given.image, t.size, next(transforms), *where)


def affine_rs(given: Given) -> Call:
    """`affiners.affine_transform`, on voxels of 1 mm at the origin: its indices are points, in axis order."""
    affiners = importlib.import_module("affiners")
    matrix = homogeneous(given.transforms[0])
    linear, offset = np.ascontiguousarray(matrix[::-1, 2::-1]), np.ascontiguousarray(matrix[::-1, 3])
    return lambda: affiners.affine_transform(given.array, linear, offset, 0.0)


def homogeneous(transform: Any) -> Array:
    """A transform's matrix and offset, shape (3, 4)."""
    matrix = np.reshape(transform.GetMatrix(), (3, 3))
    offset = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    return np.concatenate([matrix, offset[:, None]], axis=1)


# -- what is given ---------------------------------------------------------------------------------------------------


def _size(factor: int, size: tuple[int, int, int] = SIZE) -> tuple[int, int, int]:
    x, y, z = (max(n // factor, 8) for n in size)
    return x, y, z


def _centre(grid: gr.Grid) -> list[float]:
    found: list[float] = grid.points(np.array([[(n - 1) / 2 for n in grid.size]]))[0].tolist()
    return found


def turned(grid: gr.Grid, angles: Sequence[float] = ANGLES) -> Any:
    """The rotation about the grid's centre."""
    return sitk.Euler3DTransform(_centre(grid), *angles, (0.0, 0.0, 0.0))


def _voxels(grid: gr.Grid, interpolation: str) -> Array:
    x, y, z = grid.size
    if interpolation not in EXACT or interpolation == "nearest":
        return cases.ct_like((z, y, x), np.float32)
    coarse = cases.label_map((-(-z // 4), -(-y // 4), -(-x // 4)), np.uint8) % LABELS
    for axis, n in enumerate((z, y, x)):
        coarse = np.repeat(coarse, 4, axis=axis).take(np.arange(n), axis=axis)
    return np.ascontiguousarray(coarse)


def affine(interpolation: str, factor: int) -> Given:
    """The job by its rotation."""
    grid = gr.Grid.of_size(_size(factor))
    return Given(_voxels(grid, interpolation), grid, grid, [turned(grid)], interpolation)


def fresh_matrices(factor: int) -> Given:
    """64x64x64 by another rotation each call."""
    grid = gr.Grid.of_size(_size(factor, (64, 64, 64)))
    angles = np.random.default_rng(0).uniform(-0.25, 0.25, (MATRICES, 3))
    return Given(_voxels(grid, "linear"), grid, grid, [turned(grid, a) for a in angles.tolist()], "linear")


def vectors(grid: gr.Grid) -> sitk.Image:
    """A smooth displacement field on a grid, float64."""
    x, y, z = grid.size
    k, j, i = np.ogrid[:z, :y, :x]
    out = np.empty((z, y, x, 3))
    for axis, (a, b, c) in enumerate(((3, 2, 1), (1, 3, 2), (2, 1, 3))):
        wave = np.sin(2 * np.pi * a * i / x) * np.cos(2 * np.pi * b * j / y) * np.sin(2 * np.pi * c * k / z + 1.0)
        out[..., axis] = REACH * wave
    return cases.image(out, grid, vectors=True)


def deformed(interpolation: str, then: bool, factor: int) -> Given:
    """The job by a displacement field on the output's voxels; `then`, and by its rotation after that."""
    grid = gr.Grid.of_size(_size(factor))
    moved = sitk.DisplacementFieldTransform(vectors(grid))
    # Of a composite, the last member acts first.
    transform = sitk.CompositeTransform([turned(grid), moved]) if then else moved
    return Given(_voxels(grid, interpolation), grid, grid, [transform], interpolation)


def splined(factor: int) -> Given:
    """The job by a B-spline transform of 8x8x8 cells."""
    grid = gr.Grid.of_size(_size(factor))
    array = _voxels(grid, "linear")
    transform = sitk.BSplineTransformInitializer(cases.image(array, grid), [MESH] * 3, 3)
    n = len(transform.GetParameters())
    transform.SetParameters(np.random.default_rng(0).uniform(-REACH, REACH, n).tolist())
    return Given(array, grid, grid, [transform], "linear")


def tiny(rotate: bool, factor: int) -> Given:
    """16x16x16, turned, or onto finer voxels along the axes."""
    del factor
    grid = gr.Grid.of_size((16, 16, 16))
    target = grid if rotate else gr.Grid.of_size((16, 16, 16), (0.9, 0.9, 0.9))
    transform = turned(grid) if rotate else sitk.Transform(3, sitk.sitkIdentity)
    return Given(_voxels(grid, "linear"), grid, target, [transform], "linear")


LINES = {
    "nearest": Line("affine, nearest", partial(affine, "nearest"), 3.5, ours, simpleitk),
    "linear": Line("affine, linear", partial(affine, "linear"), 4.0, ours, simpleitk),
    "linear-affine-rs": Line("affine, linear", partial(affine, "linear"), 1.2, ours, affine_rs, "affine-rs"),
    "linear-image": Line("affine, linear, SimpleITK.Image in and out", partial(affine, "linear"), 2.5,
                         ours_on_images, simpleitk),
    "small": Line("affine, linear, 64x64x64, another matrix each call", fresh_matrices, 4.0, ours_by_matrix,
                  simpleitk, calls=10),
    "small-sitk": Line("the same, by another SimpleITK transform each call", fresh_matrices, 4.0, ours, simpleitk,
                       calls=10),
    "cubic": Line("affine, cubic B-spline", partial(affine, "bspline"), 14.0, ours, simpleitk),
    "labels": Line(f"affine, label_linear, {LABELS} labels", partial(affine, "label_linear"), 4.0, ours, simpleitk),
    "field": Line("displacement field on the output's grid, linear", partial(deformed, "linear", False), 6.0, ours,
                  simpleitk),
    "field-cubic": Line("the same, cubic B-spline", partial(deformed, "bspline", False), 12.0, ours, simpleitk),
    "spline": Line(f"B-spline transform, {MESH}x{MESH}x{MESH} mesh, linear", splined, 50.0, ours, simpleitk),
    "affine-field": Line("affine after field, linear", partial(deformed, "linear", True), 4.0, ours, simpleitk),
    "affine-field-path": Line("the same, by a Path, which copies no vectors", partial(deformed, "linear", True), 4.0,
                              ours_by_path, simpleitk),
    "tiny": Line("a repeated call, 16x16x16, along the axes, linear", partial(tiny, False), 0.2, ours, simpleitk,
                 milliseconds=True, calls=50),
    "tiny-affine": Line("a repeated call, 16x16x16, affine, linear", partial(tiny, True), 0.2, ours, simpleitk,
                        milliseconds=True, calls=50),
}  # fmt: skip


# -- checking and timing ---------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What a line's calls returned and took.

    Attributes
    ----------
    key, what, other : str
        See `Line`.
    target : float
    milliseconds : bool
    error : float
        Largest difference from SimpleITK's float64 result, in parts of the image's range; of copied voxels and labels,
        the share that differs.
    outside : int
        Voxels outside the contract.
    problem : str
        Why there is no ratio.
    beside : int or None
        Bytes that a call takes at its peak beside input and output.
    output : int
        Bytes of the output.
    ours, theirs : list of float
        Seconds of every call.
    """

    key: str
    what: str
    other: str
    target: float
    milliseconds: bool
    error: float = 0.0
    outside: int = 0
    problem: str = ""
    beside: int | None = None
    output: int = 0
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the other."""
        if not self.ours or not self.theirs:
            return None
        return statistics.median(self.theirs) / statistics.median(self.ours)

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.outside:
            return "WRONG"
        if self.problem:
            return self.problem
        if not self.ours:
            return "not timed"
        if self.milliseconds:
            return "reached" if statistics.median(self.ours) <= self.target / 1e3 else "not reached"
        return "reached" if self.ratio is not None and self.ratio >= self.target else "not reached"


def voxels_of(result: Any) -> Array:
    """A result's voxels."""
    if isinstance(result, sitk.Image):
        found: Array = sitk.GetArrayFromImage(result)
        return found
    return np.asarray(getattr(result, "array", result))


def checked(key: str, given: Given) -> tuple[Found, dict[str, Call]]:
    """A line's calls, and how right our result is.

    Parameters
    ----------
    key : str
        Of `LINES`.
    given : Given
        What the line's `given` has made.
    """
    line = LINES[key]
    found = Found(key, line.what, line.other, line.target, line.milliseconds)
    # A call of its own, for matrices take turns and the first one's result is known.
    made = voxels_of(line.ours(given)())
    found.output = made.nbytes
    low, high = finite_range(given.array)[:2]
    if given.interpolation in EXACT:
        found.outside = int(np.count_nonzero(made != given.expected))
        found.error = found.outside / made.size
    else:
        gap = distance(made, given.expected) / (high - low)
        found.error = float(gap.max())
        found.outside = int(np.count_nonzero(gap > bound_of(given.interpolation, given.array.dtype)))
    calls = {"ours": line.ours(given)}
    if line.other == "affine-rs" and importlib.util.find_spec("affiners") is None:
        found.problem = "not installed"
        return found, calls
    calls["theirs"] = line.theirs(given)
    if line.other == "affine-rs":
        gap = distance(calls["theirs"](), given.expected) / (high - low)
        # Where it has rules of its own: up to a voxel from the border.
        if float(np.max(gap, where=_well_inside(given), initial=0.0)) > PEER_TOLERANCE:
            found.problem = "another result"
    return found, calls


def _well_inside(given: Given) -> Array:
    """Voxels at least one voxel from the image's border."""
    matrix = homogeneous(given.transforms[0])
    k, j, i = np.ogrid[tuple(slice(n) for n in given.array.shape)]
    inside = np.ones(given.array.shape, np.bool_)
    for (a, b, c, d), n in zip(matrix, given.grid.size, strict=True):
        x = a * i + b * j + c * k + d
        inside &= (x >= 1.0) & (x <= n - 2.0)
    return inside


def _repeated(call: Call, calls: int) -> Call:
    def run() -> None:
        for _ in range(calls):
            call()

    return run if calls > 1 else call


def timed(found: Found, calls: dict[str, Call], rounds: int) -> None:
    """The calls in turns, and the memory that ours takes."""
    n = LINES[found.key].calls
    times = measure.interleaved(
        {name: _repeated(call, n) for name, call in calls.items()}, rounds, budget=float("inf")
    )  # fmt: skip
    found.ours = [s / n for s in times["ours"]]
    found.theirs = [s / n for s in times["theirs"]] if "theirs" in times else []
    if sys.platform == "linux" and found.output >= LARGE:
        found.beside = max(_peak(calls["ours"]) - found.output, 0)


def _peak(call: Call) -> int:
    """Peak memory of a call on threads that have kept no scratch from calls before."""
    measure.set_threads(cores())
    time.sleep(0.2)  # the threads of before end, and let go of theirs

    def on_a_thread() -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    return peak_of(on_a_thread)


# -- what people see -------------------------------------------------------------------------------------------------

HEADER = ("line", "against", "ours", "theirs", "ratio", "target", "beside in and out", "error", "outside", "verdict")


def row(found: Found) -> list[str]:
    """Cells under `HEADER`."""
    ours, theirs = (tables.duration(statistics.median(s)) if s else "-" for s in (found.ours, found.theirs))
    ratio = "-" if found.ratio is None else tables.times(found.ratio)
    target = f"{found.target:g} ms" if found.milliseconds else f"{found.target:g}x"
    beside = "-" if found.beside is None else tables.percent(found.beside / found.output)
    return [
        found.what, found.other, ours, theirs, ratio, target, beside, f"{found.error:.1e}", str(found.outside),
        found.verdict,
    ]  # fmt: skip


def notes(all_found: Sequence[Found], info: dict[str, Any], factor: int) -> list[str]:
    """What is to be known of the table."""
    size = "x".join(map(str, _size(factor)))
    return [
        f"float32 {size}, turned by {', '.join(map(str, ANGLES))} rad about its centre; medians of calls in turns.",
        "error: largest difference from SimpleITK's float64 result, in parts of the image's range; of copied voxels "
        "and labels, the share that differs. outside: voxels outside the contract.",
        f"beside in and out: peak memory beside input and output, as a share of the output; at most "
        f"{tables.percent(MEMORY)} is wanted. {_memory(all_found)}",
        measure.about(info),
    ]


def _memory(all_found: Sequence[Found]) -> str:
    known = [f for f in all_found if f.beside is not None]
    over = [f.what for f in known if f.beside is not None and f.beside > MEMORY * f.output]
    if not known:
        return "Not measured here."
    return f"More is taken by: {'; '.join(over)}." if over else "None takes more."


def markdown(all_found: Sequence[Found], said: Sequence[str]) -> str:
    """The table as Markdown."""
    lines = ["# The front", "", "| " + " | ".join(HEADER) + " |", "|---|---|" + "---:|" * (len(HEADER) - 3) + "---|"]
    lines += ["| " + " | ".join(row(found)) + " |" for found in all_found]
    return "\n".join([*lines, "", *[f"- {note}" for note in said]]) + "\n"


def write(all_found: Sequence[Found], said: Sequence[str], info: dict[str, Any], command: str, out: Path) -> Path:
    """Markdown and JSON into `<machine>-<date>` in a folder; answers that folder."""
    folder = out / measure.folder_name(machine_name(), info["date"])
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(f), "ratio": f.ratio, "verdict": f.verdict} for f in all_found]
    content = {"kind": "front", "command": command, "machine": info, "rows": rows}
    for name, text in (("front.md", markdown(all_found, said)), ("front.json", json.dumps(content, indent=1) + "\n")):
        with replacing(folder / name) as part:
            part.write_text(text)
    return folder


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.front", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the size along every axis, three rounds")
    parser.add_argument("--lines", nargs="+", choices=list(LINES), default=list(LINES), metavar="LINE",
                        help=", ".join(LINES))  # fmt: skip
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write front.md and front.json into a folder there")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else ROUNDS)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, time, print."""
    given_arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parsed(given_arguments)
    factor = 4 if options.quick else 1
    info = measure.machine(cores())
    measure.set_threads(cores())
    all_found = []
    for key in options.lines:
        found, calls = checked(key, LINES[key].given(factor))
        if not found.outside:
            if found.problem == "another result":
                del calls["theirs"]
            timed(found, calls, options.rounds)
        all_found.append(found)
        print(f"{found.what}: {found.verdict}", file=sys.stderr)
    said = notes(all_found, info, factor)
    tables.table("The front", HEADER, [row(found) for found in all_found], "\n".join(said))
    if options.out is not None:
        command = " ".join(["python", "-m", "benchmarks.front", *given_arguments])
        print(f"written: {write(all_found, said, info, command, options.out)}")
    return 1 if any(found.outside for found in all_found) else 0


if __name__ == "__main__":
    sys.exit(main())
