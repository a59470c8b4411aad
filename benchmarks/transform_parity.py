"""Drawn transforms against SimpleITK: kinds, depths of composites, interpolations, voxel types, grids, 2-D and 3-D.

    python -m benchmarks.transform_parity [--cases N] [--seed S] [--case K] [--workers N] [--json FILE]

Every case is drawn from a seed and its number: a small image on a drawn grid, another grid, and one to four transforms.
Float results are held against SimpleITK's float64 result, voxel by voxel; copied voxels and labels must be equal;
integers, truncated as SimpleITK truncates, may be off by 1 in a small share of the voxels. Exit code 1 if a voxel is
outside these bounds. `--case K` runs one case again and shows its voxels.

A voxel is a tie where rounding decides: its position is within 1e-9 of a face of the image or of a lattice's domain,
or, where the nearest voxel or vector counts, within 1e-9 of half-way between two; and a label where two labels weigh
the same; and, of truncated integers, a sum that is a whole number but for its last bits. Ties are counted and left
out.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench import cases, measure, reference, tables
from gpuresample.bench.bounds import (
    EXACT,
    LABEL_MODES,
    MOST_DIFFERING,
    bound_of,
    distance,
    floats,
)
from gpuresample.bench.cases import Array, Geometry
from gpuresample.containers.voxels import finite_range
from gpuresample.engines.threads import cores

Generator = np.random.Generator

# A position closer than this to where a result jumps is a tie.
TIE = 1e-9
# Weights of two labels that are closer than this are a tie: ITK's Gaussian has an error function of its own.
LABEL_TIE = {"label_linear": 1e-9, "label_gaussian": 1e-7}

LATTICES = ("field", "field_nearest", "spline1", "spline2", "spline3")
KINDS_2D = ("identity", "translation", "scale", "affine", "euler", "similarity", *LATTICES)
KINDS_3D = (
    "identity", "translation", "scale", "affine", "euler", "euler_zyx", "versor", "versor_rigid", "similarity",
    "scale_versor", "scale_skew_versor", "compose_scale_skew_versor", *LATTICES,
)  # fmt: skip
DIRECTIONS = ("along the axes", "flipped", "permuted", "oblique")
# What is drawn, and how often: windowed sincs take SimpleITK long, on as few voxels as these all the same.
INTERPOLATIONS = {
    "nearest": 5, "linear": 5, "bspline": 4, "bspline2": 1, "bspline5": 1, "gaussian": 1, "lanczos": 0.4,
    "label_linear": 3, "label_gaussian": 0.6,
}  # fmt: skip
TYPES = ("float32", "float64", "int16", "uint8")
LABEL_TYPES = ("uint8", "int16")
MOST_DEPTH = 4
CASES, SEED = 10_000, 20
# Beside this many failing cases, others are only counted.
SHOWN = 12


# -- drawing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """One comparison.

    Attributes
    ----------
    seed, number : int
        What it is drawn from.
    array : ndarray, shape ((z,) y, x)
    source, target : Grid
    members : tuple of SimpleITK.Transform
        In the order of `AddTransform`: the last one acts first.
    kinds : tuple of str
        Of the members.
    interpolation : str
    default : int
        Value outside, which no voxel has.
    directions : tuple of str
        Of the source's and the target's grid.
    """

    seed: int
    number: int
    array: Array
    source: gr.Grid
    target: gr.Grid
    members: tuple[Any, ...]
    kinds: tuple[str, ...]
    interpolation: str
    default: int
    directions: tuple[str, str]

    @property
    def transform(self) -> Any:
        """One member as it is; several as a composite, of four the inner two in a composite of their own."""
        if len(self.members) == 1:
            return self.members[0]
        if len(self.members) < MOST_DEPTH:
            return sitk.CompositeTransform(list(self.members))
        first, *inner, last = self.members
        return sitk.CompositeTransform([first, sitk.CompositeTransform(inner), last])

    def __str__(self) -> str:
        grids = [
            f"size {g.size}, spacing {g.spacing}, origin {g.origin}, direction {g.direction}"
            for g in (self.source, self.target)
        ]
        return (
            f"seed {self.seed}, case {self.number}: {' <- '.join(self.kinds)}; {self.interpolation} of "
            f"{self.array.dtype}; image {self.directions[0]}, output {self.directions[1]}\n"
            f"  image {grids[0]}\n  output {grids[1]}"
        )


def draw(seed: int, number: int) -> Case:
    """Case `number` of a seed; depths and kinds of the first member take turns, all else is drawn."""
    rng = np.random.default_rng((seed, number))
    d = 3 if rng.random() < 0.8 else 2
    depth = 1 + number % MOST_DEPTH
    known = KINDS_3D if d == 3 else KINDS_2D
    kinds = [known[number // MOST_DEPTH % len(known)]]
    while len(kinds) < depth:
        kinds.append(str(rng.choice(LATTICES if rng.random() < 0.4 else known)))
    kinds = [kinds[k] for k in rng.permutation(depth)]
    source, from_ = _grid(d, rng)
    target, to = _target(source, rng)
    if target is source:
        to = from_
    members = tuple(_transform(kind, source, target, rng, 1.0 / math.sqrt(depth)) for kind in kinds)
    weights = np.array(list(INTERPOLATIONS.values()))
    interpolation = str(rng.choice(list(INTERPOLATIONS), p=weights / weights.sum()))
    if interpolation == "bspline5" and any(n in (2, 3) for n in source.size):
        # On so few voxels SimpleITK reads beyond its memory.
        interpolation = "bspline"
    shape = source.size[::-1]
    if interpolation in LABEL_MODES:
        array = rng.integers(0, 5, shape).astype(rng.choice(LABEL_TYPES))
        default = 9
    else:
        kind = np.dtype(rng.choice(TYPES))
        array = rng.uniform(10, 200, shape).astype(kind)
        default = 250 if kind == np.uint8 else -300
    return Case(seed, number, array, source, target, members, tuple(kinds), interpolation, default, (from_, to))


def _direction(d: int, rng: Generator) -> tuple[Array, str]:
    kind = str(rng.choice(DIRECTIONS))
    if kind == "along the axes":
        return np.eye(d), kind
    if kind == "flipped":
        return np.diag(rng.permutation([-1.0, *rng.choice([-1.0, 1.0], d - 1)])), kind
    if kind == "permuted":
        turned = np.roll(np.eye(d), int(rng.integers(1, d)), axis=0)
        return turned * rng.choice([-1.0, 1.0], d), kind
    if d == 2:
        return cases.rotation(float(rng.uniform(-60, 60)))[:2, :2], kind
    return cases.rotation(float(rng.uniform(-60, 60)), tuple(rng.normal(size=3).tolist())), kind


def _around(middle: Array, size: Array, spacing: Array, direction: Array) -> gr.Grid:
    """A grid whose centre is at a point."""
    origin = middle - direction @ (spacing * (size - 1) / 2)
    return gr.Grid(
        tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin.tolist()), tuple(direction.ravel().tolist())
    )


def _sizes(d: int, rng: Generator) -> Array:
    """Voxels per axis; now and then one alone."""
    return np.where(rng.random(d) < 0.04, 1, rng.integers(3, 12 if d == 3 else 24, d))


def _spacings(d: int, rng: Generator) -> Array:
    return np.ones(d) if rng.random() < 0.2 else np.round(rng.uniform(0.4, 3.0, d), int(rng.integers(1, 9)))


def _grid(d: int, rng: Generator) -> tuple[gr.Grid, str]:
    direction, kind = _direction(d, rng)
    middle = rng.uniform(-150, 150, d) if rng.random() < 0.8 else np.zeros(d)
    return _around(middle, _sizes(d, rng), _spacings(d, rng), direction), kind


def _middle(grid: gr.Grid) -> Array:
    return grid.points(np.array([[(n - 1) / 2 for n in grid.size]]))[0]


def _extent(grid: gr.Grid) -> Array:
    return np.array(grid.size) * np.array(grid.spacing)


def _target(source: gr.Grid, rng: Generator) -> tuple[gr.Grid, str]:
    """The image's own grid, or one of another spacing and direction that covers more or less of it."""
    if rng.random() < 0.2:
        return source, ""
    d = source.dimension
    direction, kind = _direction(d, rng)
    size = _sizes(d, rng)
    reach = float(_extent(source).mean())
    spacing = reach * rng.uniform(0.5, 1.3) / size * rng.uniform(0.8, 1.2, d)
    return _around(_middle(source) + rng.uniform(-0.15, 0.15, d) * reach, size, spacing, direction), kind


def _transform(kind: str, source: gr.Grid, target: gr.Grid, rng: Generator, strength: float) -> Any:
    """A SimpleITK transform that leaves points near the image, the less strong the more there are of them."""
    d = source.dimension
    if kind in LATTICES:
        return _lattice(kind, source, target, rng, strength)
    centre = (_middle(source) + rng.uniform(-2, 2, d)).tolist()
    shift = (strength * rng.uniform(-2, 2, d) * np.array(source.spacing)).tolist()
    angles = (strength * rng.uniform(-0.6, 0.6, 3)).tolist()
    versor = (strength * rng.uniform(-0.3, 0.3, 3)).tolist()
    scale = (1.0 + strength * rng.uniform(-0.3, 0.4, d)).tolist()
    skew = strength * rng.uniform(-0.2, 0.2, 6)
    if kind == "identity":
        return sitk.Transform(d, sitk.sitkIdentity)
    if kind == "translation":
        halves = np.array(source.spacing) * rng.integers(-4, 5, d) / 2
        return sitk.TranslationTransform(d, halves.tolist() if rng.random() < 0.2 else shift)
    if kind == "scale":
        t = sitk.ScaleTransform(d, scale)
        t.SetCenter(centre)
        return t
    if kind == "affine":
        matrix = np.eye(d) + strength * rng.uniform(-0.3, 0.3, (d, d))
        return sitk.AffineTransform(matrix.ravel().tolist(), shift, centre)
    if d == 2:
        if kind == "euler":
            return sitk.Euler2DTransform(centre, angles[0], shift)
        return sitk.Similarity2DTransform(scale[0], angles[0], shift, centre)
    if kind in ("euler", "euler_zyx"):
        t = sitk.Euler3DTransform(centre, *angles, shift)
        t.SetComputeZYX(kind == "euler_zyx")
        return t
    make, parameters = {
        "versor": (sitk.VersorTransform, versor),
        "versor_rigid": (sitk.VersorRigid3DTransform, [*versor, *shift]),
        "similarity": (sitk.Similarity3DTransform, [*versor, *shift, scale[0]]),
        "scale_versor": (sitk.ScaleVersor3DTransform, [*versor, *shift, *scale]),
        "scale_skew_versor": (sitk.ScaleSkewVersor3DTransform, [*versor, *shift, *scale, *skew.tolist()]),
        "compose_scale_skew_versor": (
            sitk.ComposeScaleSkewVersor3DTransform, [*versor, *shift, *scale, *skew[:3].tolist()]
        ),
    }[kind]  # fmt: skip
    t = make()
    t.SetFixedParameters(centre)
    t.SetParameters(parameters)
    return t


def _lattice(kind: str, source: gr.Grid, target: gr.Grid, rng: Generator, strength: float) -> Any:
    """A field or a B-spline: on the output's voxels, along its axes, along the image's, or turned; not always all over.

    A B-spline's control points lie on the grid.
    """
    d = target.dimension
    order = int(kind[-1]) if kind.startswith("spline") else 1
    where = rng.choice(("output", "along the output", "along the image", "initializer", "any"))
    near = source if where == "along the image" else target
    if where == "initializer" and kind.startswith("spline"):
        nothing = cases.image(np.zeros(target.size[::-1], np.uint8), target)
        t = sitk.BSplineTransformInitializer(nothing, rng.integers(1, 5, d).tolist(), order)
        t.SetParameters((strength * rng.uniform(-2, 2, len(t.GetParameters()))).tolist())
        return t
    if where == "output" and min(target.size) > order:
        grid = target
    else:
        direction = _direction(d, rng)[0] if where == "any" else np.reshape(near.direction, (d, d))
        # Control points reach beyond their domain.
        size = rng.integers(order + 1, order + 6, d)
        reach = rng.uniform(0.5, 1.6, d) * _extent(near)
        spacing = reach / np.maximum(size - order, 1)
        grid = _around(_middle(near) + rng.uniform(-0.2, 0.2, d) * reach, size, spacing, direction)
    values = strength * rng.uniform(-1.5, 1.5, (*grid.size[::-1], d)) * np.array(source.spacing)
    if kind.startswith("spline"):
        t = sitk.BSplineTransform(d, order)
        t.SetFixedParameters([*map(float, grid.size), *grid.origin, *grid.spacing, *grid.direction])
        t.SetParameters(np.moveaxis(values, -1, 0).ravel().tolist())
        return t
    t = sitk.DisplacementFieldTransform(cases.image(values, grid, vectors=True))
    if kind == "field_nearest":
        t.SetInterpolator(sitk.sitkNearestNeighbor)
    return t


# -- ties ------------------------------------------------------------------------------------------------------------


def _points(members: Sequence[Any], target: gr.Grid) -> Array:
    """Where the last members take the output's voxels, by SimpleITK: points [voxel, x y z], voxels x fastest."""
    ranges = [np.arange(n, dtype=np.float64) for n in target.size[::-1]]
    index = np.stack([k.ravel() for k in np.meshgrid(*ranges, indexing="ij")][::-1], axis=1)
    p = target.points(index)
    if not members:
        return p
    transform = members[0] if len(members) == 1 else sitk.CompositeTransform(list(members))
    moved = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, target.size, target.origin, target.spacing, target.direction
    )
    return p + sitk.GetArrayFromImage(moved).reshape(p.shape)


def _at_faces(x: Array, low: Array, high: Array) -> Array:
    """Which positions [voxel, axis] are on a face of a box, up to rounding."""
    near = ((np.abs(x - low) < TIE) | (np.abs(x - high) < TIE)).any(axis=1)
    return np.asarray(near & ((x > low - TIE) & (x < high + TIE)).all(axis=1))


def _halfway(x: Array) -> Array:
    """Which positions are half-way between two voxels along an axis, up to rounding."""
    return np.asarray((np.abs(x - np.floor(x) - 0.5) < TIE).any(axis=1))


def ties(case: Case) -> Array:
    """Voxels, shape of the output, where rounding decides."""
    x = case.source.indices(_points(case.members, case.target))
    n = np.array(case.source.size)
    found = _at_faces(x, np.full(n.size, -0.5), n - 0.5)
    if case.interpolation in EXACT:
        found |= _halfway(x)
    for k, (member, kind) in enumerate(zip(case.members, case.kinds, strict=True)):
        if kind not in LATTICES:
            continue
        d = n.size
        if kind.startswith("spline"):
            fixed, order = member.GetFixedParameters(), int(kind[-1])
            grid = gr.Grid(tuple(int(m) for m in fixed[:d]), fixed[2 * d : 3 * d], fixed[d : 2 * d], fixed[3 * d :])
            low = np.full(d, (order - 1) / 2)
            high = np.array(grid.size) - (order - 1) / 2 - 1
        else:
            image = member.GetDisplacementField()
            grid = gr.Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
            low, high = np.full(d, -0.5), np.array(grid.size) - 0.5
        x = grid.indices(_points(case.members[k + 1 :], case.target))
        found |= _at_faces(x, low, high)
        if kind == "field_nearest":
            found |= _halfway(x)
    return found.reshape(case.target.size[::-1])


def _tied_labels(case: Case, ours: Array, theirs: Array, differs: Array) -> Array:
    """Voxels that differ because both labels weigh the same, or nearly so."""
    x = case.source.indices(_points(case.members, case.target)).reshape(*differs.shape, differs.ndim)
    found = np.zeros(differs.shape, np.bool_)
    for at in zip(*np.nonzero(differs), strict=True):
        weight = label_weights(case.array, x[at].tolist(), case.interpolation)
        a, b = (weight.get(int(result[at]), -math.inf) for result in (ours, theirs))
        found[at] = abs(a - b) < LABEL_TIE[case.interpolation]
    return found


def label_weights(array: Array, position: Sequence[float], interpolation: str) -> dict[int, float]:
    """What every label near a position x, y(, z) weighs, by the interpolation's definition."""
    axes: list[list[tuple[int, float]]] = []
    for x, n in zip(position, array.shape[::-1], strict=True):
        if interpolation == "label_linear":
            first = math.floor(x)
            near = [(first, first + 1.0 - x), (first + 1, x - first)]
            axes.append([(min(max(k, 0), n - 1), w) for k, w in near])
        else:
            # A Gaussian of one voxel, averaged over voxels that begin within one voxel.
            first, stop = max(math.floor(x - 0.5), 0), min(math.ceil(x + 1.5), n)
            edge = [math.erf((k - 0.5 - x) / math.sqrt(2.0)) for k in range(first, stop + 1)]
            axes.append([(first + k, edge[k + 1] - edge[k]) for k in range(stop - first)])
    out: dict[int, float] = {}
    for taps in itertools.product(*axes[::-1]):
        label = int(array[tuple(k for k, _ in taps)])
        out[label] = out.get(label, 0.0) + math.prod(w for _, w in taps)
    return out


# -- comparing -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was found of one case, or of several.

    Attributes
    ----------
    cases, voxels : int
    ties, ties_differ : int
        Voxels where rounding decides, and how many of these differ.
    outside : int
        Other voxels that are outside the contract.
    single, double : float
        Largest error over the image's range of images that are summed in float32 and in float64.
    integers, off : int
        Integer voxels, truncated as SimpleITK truncates, and how many of these are off by 1 though the sum behind them
        is no whole number.
    """

    cases: int = 0
    voxels: int = 0
    ties: int = 0
    ties_differ: int = 0
    outside: int = 0
    single: float = 0.0
    double: float = 0.0
    integers: int = 0
    off: int = 0

    def add(self, other: Tally) -> None:
        """Take another one in."""
        for name in ("cases", "voxels", "ties", "ties_differ", "outside", "integers", "off"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.single, self.double = max(self.single, other.single), max(self.double, other.double)

    @property
    def ok(self) -> bool:
        """Whether all voxels are within the contract."""
        return self.outside == 0 and self.off <= MOST_DIFFERING * self.integers


def _geometry(case: Case) -> Geometry:
    return Geometry("drawn", case.source, case.target, case.transform)


def ours(case: Case, **keywords: Any) -> Array:
    """Our result."""
    with warnings.catch_warnings():
        # Now and then a drawn path leads past the image.
        warnings.filterwarnings("ignore", "transform leads nowhere", RuntimeWarning)
        made = gr.resample(
            cases.volume(case.array, case.source), like=case.target, transform=case.transform,
            interpolation=case.interpolation, default_value=case.default, device="cpu", **keywords,
        )  # fmt: skip
    found: Array = made.array
    return found


def theirs(case: Case, pixel: int = sitk.sitkUnknown) -> Array:
    """SimpleITK's result."""
    image = cases.image(case.array, case.source)
    made: Array = sitk.GetArrayFromImage(
        reference.resampled(image, _geometry(case), case.interpolation, case.default, pixel)
    )
    return made


@dataclass
class Found:
    """A case's tally, where it is outside the contract, and which of its groups it counts for."""

    number: int
    tally: Tally
    groups: tuple[tuple[str, str], ...]
    text: str = ""
    where: list[str] = field(default_factory=list)


def compare(case: Case) -> Found:
    """Both results of a case, voxel by voxel."""
    tied = ties(case)
    tally = Tally(cases=1, voxels=tied.size)
    apart = np.zeros(tied.shape, np.bool_)
    where: list[str] = []
    if case.interpolation in EXACT:
        mine, right = ours(case), theirs(case)
        gap = (mine != right).astype(np.float64)
        if case.interpolation in LABEL_MODES and (gap * ~tied).any():
            tied = tied | _tied_labels(case, mine, right, (gap > 0) & ~tied)
        bound = 0.0
    else:
        low, high = finite_range(case.array)[:2]
        unit = high - low or max(abs(high), 1.0)
        mine, right = ours(case, dtype=floats(case.array.dtype)), theirs(case, sitk.sitkFloat64)
        gap, bound = distance(mine, right) / unit, bound_of(case.interpolation, case.array.dtype)
        worst = float(np.max(gap, where=~tied, initial=0.0))
        if floats(case.array.dtype) is np.float32:
            tally.single = worst
        else:
            tally.double = worst
        if case.array.dtype.kind in "iu":
            whole = np.abs(right - np.rint(right)) <= bound * unit
            step = np.where(tied, 0, distance(ours(case, rounding="truncate"), theirs(case)))
            tally.integers, tally.off = step.size, int(np.count_nonzero(step * ~whole))
            apart |= step > 1
    differs = gap > bound
    apart |= differs & ~tied
    tally.ties, tally.ties_differ = int(tied.sum()), int((differs & tied).sum())
    tally.outside = int(apart.sum())
    for at in list(zip(*np.nonzero(apart), strict=True))[:5]:
        index = tuple(int(k) for k in at)
        where.append(f"  voxel {index}: ours {mine[at]!r}, SimpleITK {right[at]!r}, {gap[at]:.3g} of the range")
    return Found(case.number, tally, groups(case), str(case) if apart.any() else "", where)


def groups(case: Case) -> tuple[tuple[str, str], ...]:
    """The lines that a case counts for: table and name."""
    moved = any(kind in LATTICES for kind in case.kinds)
    one = [("transform", kind) for kind in sorted(set(case.kinds))]
    rest = [
        ("depth", f"{len(case.kinds)}, {'with a lattice' if moved else 'linear'}"),
        ("interpolation", case.interpolation),
        ("voxels", str(case.array.dtype)),
        ("image", f"{case.source.dimension}-D, {case.directions[0]}"),
        ("output", "the image's grid" if case.target is case.source else f"{case.directions[1]}"),
    ]
    return (*one, *rest)


# -- the run ---------------------------------------------------------------------------------------------------------


def _part(seed: int, numbers: Sequence[int]) -> list[Found]:
    """Cases in a process of their own; one thread each, as small as they are."""
    measure.set_threads(1)
    return [compare(draw(seed, number)) for number in numbers]


def run(seed: int, count: int, workers: int = 1) -> Iterator[Found]:
    """Compare cases 0 to `count - 1`."""
    size = 50
    parts = [range(k, min(k + size, count)) for k in range(0, count, size)]
    work: Callable[[Sequence[int]], list[Found]] = partial(_part, seed)
    if workers == 1:
        for part in parts:
            yield from work(part)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(work, parts):
            yield from done


def tallied(found: Iterable[Found]) -> dict[tuple[str, str], Tally]:
    """By table and name; the whole as ("all", "")."""
    out: dict[tuple[str, str], Tally] = {}
    for one in found:
        for key in (*one.groups, ("all", "")):
            out.setdefault(key, Tally()).add(one.tally)
    return out


HEADER = (
    "", "cases", "voxels", "ties", "ties that differ", "outside", "error, float32", "error, float64",
    "integers off by 1", "verdict",
)  # fmt: skip


def line(name: str, tally: Tally) -> list[str]:
    """Cells under `HEADER`."""
    off = f"{100 * tally.off / tally.integers:.3f} %" if tally.integers else ""
    return [
        name, str(tally.cases), f"{tally.voxels:,}", f"{tally.ties:,}", f"{tally.ties_differ:,}", f"{tally.outside:,}",
        f"{tally.single:.1e}", f"{tally.double:.1e}", off, "ok" if tally.ok else "FAILS",
    ]  # fmt: skip


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transform_parity", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--cases", type=int, default=CASES, help=f"how many (default {CASES:,})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"default {SEED}")
    parser.add_argument("--case", type=int, help="run this one alone, and show it")
    parser.add_argument("--workers", type=int, default=cores(), help="processes (default: as many as there are cores)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    for name in ("cases", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, compare, print."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parsed(given)
    if options.case is not None:
        case = draw(options.seed, options.case)
        one = compare(case)
        print(case, f"  {one.tally}", *one.where, sep="\n")
        return 0 if one.tally.ok else 1
    start = time.perf_counter()
    found = list(run(options.seed, options.cases, options.workers))
    seconds = time.perf_counter() - start
    whole = tallied(found)
    note = (
        f"{options.cases:,} cases of seed {options.seed} in {seconds:.0f} s, SimpleITK "
        f"{sitk.Version().VersionString()}. Errors are shares of the image's range."
    )
    for table in dict.fromkeys(key[0] for key in whole):
        names = sorted((key for key in whole if key[0] == table), key=lambda key: key[1])
        tables.table(table, HEADER, [line(name or "all", whole[table, name]) for _, name in names])
    print(note)
    broken = sorted((one for one in found if one.tally.outside), key=lambda one: one.tally.voxels)
    for one in broken[:SHOWN]:
        print(one.text, *one.where, sep="\n")
    if broken:
        print(f"{len(broken)} cases are outside the contract; smallest first, {min(len(broken), SHOWN)} shown")
    content = {
        "machine": measure.machine(gr.get_num_threads()), "seconds": seconds, "seed": options.seed,
        "rows": [{"table": t, "name": n, **asdict(tally)} for (t, n), tally in whole.items()],
        "outside": [one.number for one in broken],
    }  # fmt: skip
    measure.save(options.json, "transform_parity", given, content)
    return 0 if all(tally.ok for tally in whole.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
