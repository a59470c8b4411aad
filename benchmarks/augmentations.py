"""Spatial augmentations of an image and its labels: three libraries' own, and ours with the same draws.

    python -m benchmarks.augmentations [--size N] [--rounds N] [--only WORD] [--workers N] [--json FILE]

Needs the environment of `make test-integrations`. A float32 image and uint8 labels of N x N x N voxels (128), made from
formulas. The library's transform and ours take turns, each time with another seed, the same for both. Results of the
first seed are compared before anything is timed: the largest difference as a share of the image's range, the labels
that differ, the affine. The table shows medians of the whole call. With `--workers`, volumes per second of a torch
DataLoader whose workers augment; the volume is in memory, so nothing is read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpuresample as gr
from gpuresample.bench import measure

Call = Callable[[int], Any]


@dataclass(frozen=True)
class Case:
    """One transform: what both libraries' calls give for a seed, as (image, labels, affine)."""

    library: str
    name: str
    theirs: Call
    ours: Call
    target: float


def volume(n: int) -> tuple[Any, Any]:
    """An image with detail and noise, and four labels that follow it; [x, y, z]."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n)] * 3, indexing="ij")
    rng = np.random.default_rng(0)
    smooth = np.cos(5 * axes[0]) * np.sin(4 * axes[1] + 1) + np.cos(3 * axes[2]) - sum(a * a for a in axes)
    image = (300 * smooth + 20 * rng.standard_normal(smooth.shape)).astype(np.float32)
    labels = np.digitize(smooth, np.quantile(smooth, (0.4, 0.7, 0.9))).astype(np.uint8)
    return image, labels


def monai_cases(n: int) -> list[Case]:
    """`RandAffined`, `Rand3DElasticd` and more, by MONAI and by us."""
    import monai.transforms as theirs
    import torch
    from monai.data import MetaTensor

    import gpuresample.monai as ours

    image, labels = (torch.from_numpy(v)[None] for v in volume(n))
    data = {"image": MetaTensor(image), "label": MetaTensor(labels)}
    turn, affine = {"rotate_range": (0.3,) * 3}, {"shear_range": (0.05,) * 6, "translate_range": (n / 20,) * 3}
    ranges = {**turn, **affine, "scale_range": (0.15,) * 3}
    elastic = {"sigma_range": (4, 6), "magnitude_range": (50, 100)}
    asked: list[tuple[str, dict[str, Any], float]] = [
        ("RandAffined", ranges, 20),
        ("Rand3DElasticd", {**elastic, **ranges}, 10),
        ("RandGridDistortiond", {"distort_limit": 0.1}, 0),
        ("RandRotated", {"range_x": 0.3, "range_y": 0.3, "range_z": 0.3}, 0),
        ("RandZoomd", {"min_zoom": 0.8, "max_zoom": 1.2, "mode": ("trilinear", "nearest")}, 0),
    ]

    def call(transform: Any) -> Call:
        def run(seed: int) -> Any:
            out = transform.set_random_state(seed)(data)
            return out["image"], out["label"], out["image"].affine

        return run

    made = []
    for name, own, target in asked:
        keywords = {"keys": ("image", "label"), "mode": ("bilinear", "nearest"), "prob": 1.0} | own
        both = [call(getattr(module, name)(**keywords)) for module in (theirs, ours)]
        made.append(Case("monai", name, both[0], both[1], target))
    return made


def torchio_cases(n: int) -> list[Case]:
    """`RandomAffine`, `RandomElasticDeformation` and `RandomAnisotropy`, by TorchIO and by us."""
    import torch
    import torchio as theirs

    import gpuresample.torchio as ours

    image, labels = (torch.from_numpy(v)[None] for v in volume(n))
    subject = theirs.Subject(image=theirs.ScalarImage(tensor=image), label=theirs.LabelMap(tensor=labels))
    asked: list[tuple[str, dict[str, Any], float]] = [
        ("RandomAffine", {"degrees": 15, "translation": n / 20}, 12),
        ("RandomElasticDeformation", {}, 60),
        ("RandomAnisotropy", {}, 0),
    ]

    def call(transform: Any) -> Call:
        def run(seed: int) -> Any:
            torch.manual_seed(seed)
            out = transform(subject)
            return out.image.data, out.label.data, out.image.affine

        return run

    made = []
    for name, keywords, target in asked:
        both = [call(getattr(module, name)(**keywords)) for module in (theirs, ours)]
        made.append(Case("torchio", name, both[0], both[1], target))
    return made


def batchgenerators_cases(n: int) -> list[Case]:
    """`SpatialTransform`, affine and elastic, by batchgeneratorsv2 and by us; nnU-Net's ranges."""
    import torch
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform as Theirs

    from gpuresample.batchgenerators import SpatialTransform as Ours

    image, labels = (torch.from_numpy(v)[None] for v in volume(n))
    common = {
        "patch_size": (n,) * 3, "patch_center_dist_from_border": n // 2, "random_crop": False, "rotation": (-0.5, 0.5),
        "scaling": (0.7, 1.4), "bg_style_seg_sampling": False,
    }  # fmt: skip
    affine: dict[str, Any] = {"p_rotation": 1, "p_scaling": 1}
    elastic = {"p_elastic_deform": 1, "elastic_deform_scale": (0.05, 0.2), "elastic_deform_magnitude": (2, 8)}

    def call(transform: Any) -> Call:
        def run(seed: int) -> Any:
            np.random.seed(seed)  # noqa: NPY002 - the library draws from the global stream
            torch.manual_seed(seed)
            out = transform(image=image.clone(), segmentation=labels.to(torch.int16))
            return out["image"], out["segmentation"], np.eye(4)

        return run

    made = []
    for name, own in (("affine", affine), ("elastic", elastic | affine)):
        both = [call(cls(**common, **own)) for cls in (Theirs, Ours)]
        made.append(Case("batchgeneratorsv2", f"SpatialTransform, {name}", both[0], both[1], 10))
    return made


def compared(case: Case) -> tuple[float, int, bool]:
    """Largest difference as a share of the range, labels that differ, whether affines are the same."""
    (a, la, fa), (b, lb, fb) = case.theirs(0), case.ours(0)
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    spread = float(a.max() - a.min())
    differ = int((np.asarray(la) != np.asarray(lb)).sum())
    return float(np.abs(a - b).max()) / spread, differ, bool(np.array_equal(np.asarray(fa), np.asarray(fb)))


@dataclass(frozen=True)
class Row:
    """A line of the table; times in milliseconds."""

    library: str
    version: str
    name: str
    theirs_ms: float
    ours_ms: float
    ratio: float
    target: float
    difference: float
    labels: int
    same_affine: bool


def timed(case: Case, rounds: int) -> Row:
    """A case compared, then timed in turns."""
    from importlib.metadata import version

    difference, labels, same = compared(case)
    times: tuple[list[float], list[float]] = [], []
    for seed in range(1, rounds + 1):
        for calls, call in zip(times, (case.theirs, case.ours), strict=True):
            start = time.perf_counter()
            call(seed)
            calls.append(time.perf_counter() - start)
    theirs, ours = (statistics.median(t) * 1e3 for t in times)
    package = version(case.library)
    return Row(
        case.library, package, case.name, theirs, ours, theirs / ours, case.target, difference, labels, same
    )  # fmt: skip


def line(row: Row) -> str:
    """A row of the table, in Markdown."""
    target = f"{row.target:g}x" if row.target else ""
    affine = "same" if row.same_affine else "differs"
    return (
        f"| {row.library} {row.version} | {row.name} | {row.theirs_ms:.0f} | {row.ours_ms:.1f} | {row.ratio:.1f}x "
        f"| {target} | {row.difference:.1e} | {row.labels} | {affine} |"
    )


class Augmented:
    """A dataset whose items are one call each, in whatever process asks."""

    def __init__(self, call: Call, count: int) -> None:
        self.call, self.count = call, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        image, labels, _ = self.call(index)
        return np.asarray(image), np.asarray(labels)


def per_second(call: Call, workers: int, count: int) -> float:
    """Volumes per second of a loader, after one pass that is not counted."""
    from torch.utils.data import DataLoader

    dataset: Any = Augmented(call, count)
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, multiprocessing_context="fork")
    for _ in loader:
        pass
    start = time.perf_counter()
    for _ in loader:
        pass
    return count / (time.perf_counter() - start)


def main() -> None:
    """The table, and what was asked for besides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--workers", type=int, default=0, help="volumes per second of a loader with so many workers")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="The maximum displacement is larger")
    cases = monai_cases(given.size) + torchio_cases(given.size) + batchgenerators_cases(given.size)
    cases = [c for c in cases if given.only.lower() in c.name.lower()]
    print(measure.about(measure.machine(gr.get_num_threads())))
    print(f"image float32 and labels uint8, {given.size}x{given.size}x{given.size}; medians of {given.rounds}\n")
    print("| library | transform | its ms | ours ms | ratio | at least | difference / range | labels | affine |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    rows = []
    for case in cases:
        rows.append(timed(case, given.rounds))
        print(line(rows[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if given.workers:
        print(f"\n| transform | its volumes/s | ours | {given.workers} workers |\n| --- | ---: | ---: | --- |")
        for case in cases:
            rates = [per_second(call, given.workers, 4 * given.workers) for call in (case.theirs, case.ours)]
            print(f"| {case.name} | {rates[0]:.2f} | {rates[1]:.2f} | {rates[1] / rates[0]:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
