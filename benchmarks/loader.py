"""Volumes per second of a torch DataLoader: SimpleITK in its workers, ours in its workers, served to them, on the GPU.

    python -m benchmarks.loader [--workers N] [--method fork] [--quick] [--json FILE]

Every item is a CT-like int16 volume, resampled by a cubic B-spline from 0.78125 x 0.78125 x 1 mm to 1 x 1 x 2 mm. It is
made before the clock starts and stays in memory, so that nothing but resampling and the way to the main process is
measured. One pass of each comes first and is not counted. Passes take turns. "Served" is a process of its own that
resamples for the workers (`gpuresample.server`), on the GPU if there is one. Without one, the last line says why.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample import engines
from gpuresample.bench import cases, measure, tables
from gpuresample.server import ResampleServer

OLD, NEW = (1.0, 0.78125, 0.78125), (2.0, 1.0, 1.0)  # z, y, x


class Volumes:
    """A dataset of `count` volumes, resampled by `how`, a word or a function, in whatever process asks."""

    def __init__(self, volume: cases.Array, count: int, how: str | Callable[..., Any]) -> None:
        self.volume, self.count, self.how = volume, count, how

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if self.how == "raw":
            return self.volume
        if callable(self.how):
            return self.how(self.volume, spacing=NEW, input_spacing=OLD)
        image = sitk.GetImageFromArray(self.volume)
        image.SetSpacing(OLD[::-1])
        size = [round(n * a / b) for n, a, b in zip(image.GetSize(), OLD[::-1], NEW[::-1], strict=True)]
        out = sitk.Resample(image, size, sitk.Transform(), sitk.sitkBSpline, (0.0,) * 3, NEW[::-1])
        return sitk.GetArrayFromImage(out)


def one_thread_each(_: int) -> None:
    """What SimpleITK needs in a worker: its default takes all cores in every one of them."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def loader(volume: cases.Array, count: int, how: str | Callable[..., Any], workers: int, method: str) -> Any:
    """The DataLoader of one way."""
    from torch.utils.data import DataLoader

    dataset: Any = Volumes(volume, count, how)
    return DataLoader(
        dataset, batch_size=1, num_workers=workers, multiprocessing_context=method, worker_init_fn=one_thread_each,
        persistent_workers=True,
    )  # fmt: skip


def passes(
    volume: cases.Array, count: int, workers: int, method: str, server: ResampleServer
) -> dict[str, Callable[[], int] | str]:
    """A whole pass of every way, or why there is none."""

    def through(way: Any) -> Callable[[], int]:
        return lambda: sum(1 for _ in way)

    ways: dict[str, Callable[[], int] | str] = {
        "SimpleITK in workers": through(loader(volume, count, "SimpleITK", workers, method)),
        "gpuresample in workers": through(loader(volume, count, gr.resample, workers, method)),
        "gpuresample served": through(loader(volume, count, server.client().resample, workers, method)),
    }
    try:
        engines.select("cuda")
    except RuntimeError as error:
        ways["gpuresample on the GPU"] = str(error)
        return ways
    raw = loader(volume, count, "raw", workers, method)

    def on_the_gpu() -> int:
        done = 0
        for batch in raw:
            gr.resample(batch[0].numpy(), spacing=NEW, input_spacing=OLD, device="cuda")
            done += 1
        return done

    ways["gpuresample on the GPU"] = on_the_gpu
    return ways


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workers", type=int, default=gr.get_num_threads(), help="processes; one per core unless given"
    )
    parser.add_argument("--method", default="fork", choices=("fork", "spawn"), help="how workers begin")
    parser.add_argument("--quick", action="store_true", help="small volumes, two of them, one round")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    shape, count, rounds = ((20, 40, 44), 2, 1) if options.quick else ((124, 256, 256), 8, 3)
    volume = cases.ct_like(shape, np.int16)
    with ResampleServer(slots=options.workers + 1) as server:
        ways = passes(volume, count, options.workers, options.method, server)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                if isinstance(way, str):
                    continue
                start = time.perf_counter()
                done = way()
                if number > 0:
                    rates[name].append(done / (time.perf_counter() - start))
    lines = []
    base = statistics.median(rates["SimpleITK in workers"])
    for name, way in ways.items():
        if isinstance(way, str):
            lines.append([name, "not measured", ""])
            continue
        median = statistics.median(rates[name])
        lines.append(
            [name, f"{median:.3g} ({min(rates[name]):.3g} to {max(rates[name]):.3g})", f"{median / base:.1f}x"]
        )
    size = "x".join(map(str, shape))
    note = f"{count} volumes of {size} int16 in each pass, {options.workers} workers ({options.method})."
    tables.table("Data loader", ("way", "volumes/s", "times SimpleITK"), lines, note)
    for name, way in ways.items():
        if isinstance(way, str):
            print(f"{name}: {way}")
    content = {"machine": measure.machine(gr.get_num_threads()), "workers": options.workers, "rates": rates}
    measure.save(options.json, "loader", given, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
