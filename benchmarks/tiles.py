"""A volume larger than memory, as zarr, to an OME-Zarr pyramid: time and peak memory, against copies of the same store.

    python -m benchmarks.tiles [--gigabytes 8] [--levels N] [--folder DIR] [--quick] [--json FILE]

The volume is made on the fly, shard by shard from a formula and a seed: int16, a wave with 6 bits of noise. What is
measured runs in processes of their own, one after the other, and their high-water mark is that of the whole process,
libraries included. "files" copies the store file by file, nothing decoded; "copy" reads and writes its voxels as the
pyramid's first level does. All is brought to disk. Everything written is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import gpuresample as gr
from gpuresample.bench import measure, memory, tables
from gpuresample.omezarr import writer

CHUNK, SHARD = 64, (128, 256, 256)


def make(path: Path, edge: int) -> None:
    """A cube of `edge` voxels as a zarr array, in shards of 16 MiB."""
    import zarr

    codec = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
    array = zarr.create_array(
        str(path), shape=(edge,) * 3, chunks=(CHUNK,) * 3, shards=SHARD, dtype="int16", compressors=codec
    )
    wave = (200 * np.sin(np.arange(edge) / 23.0)).astype(np.int16)

    def write(number: int, block: tuple[slice, ...]) -> None:
        z, y, x = (wave[s] for s in block)
        noise = np.random.default_rng(number).integers(0, 64, [s.stop - s.start for s in block], np.int16)
        array[block] = noise + z[:, None, None] + y[:, None] + x

    starts = [range(0, edge, s) for s in SHARD]
    blocks = [
        tuple(slice(a, min(a + s, edge)) for a, s in zip(at, SHARD, strict=True))
        for at in np.array(np.meshgrid(*starts, indexing="ij")).reshape(3, -1).T.tolist()
    ]
    with ThreadPoolExecutor(gr.get_num_threads()) as threads:
        for done in [threads.submit(write, *each) for each in enumerate(blocks)]:
            done.result()


def files(source: str, target: str) -> None:
    """The store, file by file."""
    shutil.copytree(source, target)
    for folder, _, names in os.walk(target):
        for name in names:
            descriptor = os.open(Path(folder, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def measured(what: str, source: str, target: str, levels: str) -> dict[str, Any]:
    """Seconds and peak memory of one way, in this process."""
    ways: dict[str, Callable[[], Any]] = {
        "files": lambda: files(source, target),
        "copy": lambda: writer.write_pyramid(source, target, 1),
        "pyramid": lambda: writer.write_pyramid(source, target, int(levels)),
    }
    start = time.perf_counter()
    ways[what]()
    return {"seconds": time.perf_counter() - start, "peak": memory.memory_now("VmHWM")}


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def right(source: Path, target: Path) -> None:
    """Compare a corner of every level with the pyramid of a part of the volume in memory, away from that part's ends.

    Raises
    ------
    RuntimeError
        If a voxel differs.
    """
    import zarr

    levels = writer.opened_levels(target)
    array = zarr.open_array(str(source), mode="r")
    n = min(array.shape[0], 256)
    part = array[:n, :n, :n]
    for k, (level, whole) in enumerate(zip(levels, gr.pyramid(part, len(levels)), strict=True)):
        # An even volume: both are cut alike at this end. What lies within reach of the part's other end may differ.
        m = (n >> k) - 12
        if m > 0 and not np.array_equal(level.array[:m, :m, :m], whole[:m, :m, :m]):
            raise RuntimeError(f"level {k} differs from the pyramid in memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["child"]:
        print(json.dumps(measured(*given[1:])))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles", description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=8.0, help="of the volume, in memory; 8 unless given")
    parser.add_argument("--levels", type=int, default=4, help="of the pyramid, the volume included; 4 unless given")
    parser.add_argument("--folder", help="where to write: some three times the volume; a temporary folder unless given")
    parser.add_argument("--quick", action="store_true", help="a volume of 0.1 GB")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(given)
    gigabytes = 0.1 if options.quick else options.gigabytes
    # Up to a multiple of all factors: cut nowhere, so that a corner of it has the whole's voxels.
    edge = math.ceil((gigabytes * 1e9 / 2) ** (1 / 3) / 64) * 64
    machine = measure.machine(gr.get_num_threads())
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        source = folder / "volume.zarr"
        start = time.perf_counter()
        make(source, edge)
        figures["made"] = time.perf_counter() - start
        figures["bytes"], figures["stored"] = 2 * edge**3, size_of(source)
        # The first call of a process that has compiled nothing yet takes its time.
        gr.pyramid(np.zeros((64, 64, 64), np.int16), 2)
        for what in ("files", "copy", "pyramid"):
            target = folder / f"{what}.ome.zarr"
            figures[what] = measure.child(
                "child", what, str(source), str(target), str(options.levels), module="benchmarks.tiles"
            )
            if what == "pyramid":
                figures["written"] = size_of(target)
                right(source, target)
            shutil.rmtree(target)
    base = figures["files"]["seconds"]
    rows = [
        [name, f"{f['seconds']:.1f}", f"{f['seconds'] / base:.1f}x", f"{figures['bytes'] / f['seconds'] / 1e6:,.0f}",
         tables.megabytes(f["peak"])]
        for name, f in ((name, figures[name]) for name in ("files", "copy", "pyramid"))
    ]  # fmt: skip
    note = (
        f"{edge}x{edge}x{edge} int16, {figures['bytes'] / 1e9:.2f} GB, stored in {figures['stored'] / 1e9:.2f} GB; "
        f"{options.levels} levels written in {figures['written'] / 1e9:.2f} GB. Peak memory of the whole process."
    )
    tables.table("Larger than memory", ("what", "s", "times files", "MB/s of the volume", "peak"), rows, note)
    print(measure.about(machine))
    measure.save(options.json, "tiles", given, {"machine": machine, "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
