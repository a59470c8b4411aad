"""Run by `test_kernels`, under the AddressSanitizer: every kernel once, on memory that it watches.

With the argument "broken", a kernel that reads one sample too far.
"""

import os
import sys
from dataclasses import replace

import numpy as np
from cuda_support import identity, picks, plane, random_table, separable, view

import gpuresample as gr
from gpuresample.engines.cuda import runtime as cuda_runtime
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.interface import Outputs, Store
from gpuresample.ops import ensemble_walk
from gpuresample.planning import planner
from gpuresample.planning.works import Ensemble, Lattice, Majority

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
ONTO = (3, 4, 133)  # more rows than a block has, and longer ones
KERNELS = {
    "resample_axis", "resample_axis_tile", "resample_axis_lines", "resample_axis_plane", "resample_volume",
    "resample_volume_two", "take",
    "take_four", "fill_box", "convert_voxels", "gather_copy", "gather_linear", "gather_cubic", "gather_any",
    "vote_linear", "vote_gaussian", "ensemble_normalise", "ensemble_decide", "ensemble_activate", "majority",
    "gather_copy_lattice", "gather_linear_lattice", "gather_cubic_lattice", "gather_any_lattice",
    "vote_linear_lattice", "vote_gaussian_lattice", "find_largest", "settle_sums", "splat_linear",
    "splat_linear_lattice", "splat_cubic", "splat_cubic_lattice", "gradient_linear", "gradient_linear_lattice",
    "gradient_cubic", "gradient_cubic_lattice",
}  # fmt: skip


def broken(name):
    text = cuda_runtime.read(name)
    return text.replace("for (int k = 1; k < taps; k++)", "for (int k = 1; k <= taps; k++)")


def ensembles_once(engine, *grids):
    """Models on both grids, onto the first."""
    models = [np.random.default_rng(1).standard_normal((3, *g.size[::-1])).astype(np.float32) for g in grids]
    shape = grids[0].size[::-1]
    for interpolation, before in (("linear", False), ("bspline3", True)):
        members = tuple(ensemble_walk.member(g, grids[0], interpolation, 0.5) for g in grids)
        thresholds, values = np.full(3, 0.5, np.float32), np.arange(4, dtype=np.uint64)
        work = Ensemble(members, 3, shape, "softmax", before, "largest", thresholds, values)
        floats = [np.empty((3, *shape), np.float32), *[np.empty(shape, np.float32) for _ in range(2)]]
        with engine.combining(2) as combiner:
            combiner.combine(work, models, Outputs(np.empty(shape, np.uint8), *floats))


def along_lattices(work):
    """The same gather through a field, its nearest nodes, and splines of every order."""
    rng = np.random.default_rng(2)
    route = work.routes[0]
    kinds = (("linear", 1), ("nearest", 1), ("spline", 1), ("spline", 2), ("spline", 3))
    stages = tuple(
        Lattice(rng.uniform(-1, 1, (4, 5, 6, 3)), np.diag([0.2, 0.25, 0.3]), np.full(3, -1.0), kind, order, None, False)
        for kind, order in kinds
    )
    return replace(work, routes=(replace(route, stages=(*route.stages, *stages)),))


def gradients_once(engine, work, src):
    engine.splat(work, np.ones((1, *ONTO), np.float32), np.empty((1, 11, 14, 19), np.float32))
    engine.gradient(work, src[None], np.empty((1, *ONTO, 3), np.float32))


def main():
    # It has done its work: the compiler need not run under it, too.
    os.environ.pop("LD_PRELOAD", None)
    read = broken if sys.argv[1:] == ["broken"] else cuda_runtime.read
    # Compiling takes most of the time, and least of it without any optimisation.
    options = (
        "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=float-cast-overflow",
        "--param=asan-instrumentation-with-call-threshold=0",
    )  # fmt: skip
    runtime = HostRuntime(read, options)
    engine = CudaEngine(runtime)
    rng = np.random.default_rng(0)
    for n_src, n_dst, n_taps, step in ((37, 41, 9, 0.9), (36, 40, 5, -0.9), (64, 33, 8, 2.0), (5, 6, 5, None)):
        table = random_table(rng, n_src, n_dst, n_taps, step)
        for version in ("plain", "tile", "staged"):
            for columns in (36, 33):
                src = rng.integers(-9, 9, (1, 2, columns, n_src)).astype(np.int16)
                dst = np.empty((1, 2, columns, n_dst), np.float32)
                read_part = view(runtime, src).narrow(3, *table.source_range())
                run = getattr(engine.axes, version)
                run(table, read_part, view(runtime, dst), 3, np.dtype(np.float32), Store())
                if version != "staged":
                    src, dst = np.ascontiguousarray(src.swapaxes(2, 3)), np.ascontiguousarray(dst.swapaxes(2, 3))
                    read_part = view(runtime, src).narrow(2, *table.source_range())
                    run(table, read_part, view(runtime, dst), 2, np.dtype(np.float32), Store())
        for rows, columns in ((37, 33), (70, 90), (1, 1), (35, 150)):
            tables = (
                random_table(rng, 40, rows, 7, 40 / rows),
                table if columns == 33 else random_table(rng, 50, columns, 9, -50 / columns),
            )
            src = rng.integers(-9, 9, (2, 1, 40, tables[1].n_src)).astype(np.int16)
            dst = np.empty((2, 1, rows, tables[1].n_dst), np.float32)
            plane(tables, (2, 3))(engine, src, dst)
            plane(tables, (2, 3))(engine, src, dst.swapaxes(2, 3).copy().swapaxes(2, 3))
    for n_x in (8, 7):
        src = rng.integers(0, 9, (3, 4, 5)).astype(np.uint8)
        work = separable([picks(3, [2, 0]), identity(4), picks(5, rng.integers(0, 5, n_x))], n_dst=(4, 4, n_x))
        engine.run(work, src, np.empty((4, 4, n_x), np.uint8), Store(3))
        for pair in (("int16", "uint8"), ("uint8", "float16"), ("float64", "int64")):
            work = separable([identity(3), identity(4), picks(5, rng.integers(0, 5, n_x))])
            src = rng.integers(0, 9, (3, 4, 5)).astype(pair[0])
            engine.run(work, src, np.empty((3, 4, n_x), pair[1]), Store(exact=True))
    source = gr.Grid((19, 14, 11), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), STRAIGHT)
    target = gr.Grid(ONTO[::-1], (0.15, 2.5, 3.0), (-3.0, -4.0, 0.2), TURNED)
    for name in ("nearest", "linear", "bspline3", "bspline5", "gaussian", "hamming", "label_linear", "label_gaussian"):
        for boundary in (None, "mirror", "reflect"):
            work = planner.make_work(source, target, (), name, boundary, False, "single")
            # One type, the gradients': compiling takes most of the time.
            src = rng.integers(0, 4, (11, 14, 19)).astype(np.float32)
            engine.run(work, src, np.empty(ONTO, np.float32), Store())
            deformed = along_lattices(work)
            engine.run(deformed, src, np.empty(ONTO, np.float32), Store())
            if name in ("linear", "bspline3"):
                gradients_once(engine, work, src)
                gradients_once(engine, deformed, src)
    part = separable([identity(4), identity(4), random_table(rng, 9, 3, 2, 1.0)], (2,), start=(0, 0, 2))
    engine.run(part, np.ones((4, 4, 9), np.int16), np.empty((4, 4, 5), np.float32), Store())
    few = separable([random_table(rng, n, m, k) for n, m, k in ((9, 7, 2), (11, 13, 1), (40, 35, 4))])
    engine.run(few, rng.integers(-9, 9, (9, 11, 40)).astype(np.int16), np.empty((7, 13, 35), np.float32), Store())
    ensembles_once(engine, source, target)
    engine.run(Majority((2, 1, 3), (2, 5, 3)), rng.integers(0, 3, (4, 5, 9)), np.empty((2, 5, 3), np.int64), Store())
    assert set(runtime.launches) == KERNELS, set(runtime.launches) ^ KERNELS
    print(f"{len(KERNELS)} kernels ran")


main()
