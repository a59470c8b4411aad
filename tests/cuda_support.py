"""What the kernels' tests share: buffers between guard bands, layouts, works, and the engine on the host."""

import faulthandler
import math
import os
import signal
import warnings
from dataclasses import replace
from functools import lru_cache
from unittest import mock

import numpy as np

from gpuresample.engines.cuda import axis as cuda_axis
from gpuresample.engines.cuda import runtime as cuda_runtime
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.host import LINK, HostRuntime
from gpuresample.engines.cuda.views import View
from gpuresample.engines.interface import Store
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Separable

BAND = 4096  # bytes on either side of every buffer
VOXELS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
# Sums that show how they are stored: halves, ends of types, what is no number.
SPECIAL = [
    0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 126.5, 127.4, 127.5, 128.0, -128.5, -129.0, 254.5, 255.5,
    256.0, 32767.5, -32768.5, 65535.5, 2147483647.0, -2147483648.0, 4294967295.0, 9.3e18, -9.3e18, 1.9e19, 1e30, -1e30,
    np.inf, -np.inf, np.nan, 65504.0, 65519.0, 65520.0, 6e-8, 2e-8, 3e-8, 6.1e-5, 1 / 3, 1e-40,
]  # fmt: skip
FILLS = (0x5A, 0xFF)  # two patterns: what depends on memory that is not its own, differs between them


class Guarded(HostRuntime):
    """The host runtime with every buffer between guard bands, checked after every launch; new memory is poisoned."""

    def __init__(self, fill=FILLS[0], read=cuda_runtime.read):
        # What is changed for one test has one or two kernels launched, a few times: compiling is most of it.
        changed = read is not cuda_runtime.read
        super().__init__(read, ("-O0", *LINK) if changed else (), apart=changed)
        self.fill = fill
        self.raw = []

    def empty(self, shape, dtype):
        n = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(n + 2 * BAND, self.fill, np.uint8)
        for band in (raw[:BAND], raw[-BAND:]):
            band[:] = self.band(len(self.raw))
        self.raw.append(raw)
        return raw[BAND : BAND + n].view(dtype).reshape(shape)

    def upload(self, array):
        out = self.empty(array.shape, array.dtype)
        out[...] = array
        return out

    def launch(self, launch):
        super().launch(launch)
        self.check()

    def band(self, number):
        """The byte in the guard bands of one buffer. The next one has another: a copy from band to band shows."""
        return (self.fill - number) % 256

    def check(self):
        for number, raw in enumerate(self.raw):
            bands = np.concatenate([raw[:BAND], raw[-BAND:]])
            assert (bands == self.band(number)).all(), "a kernel wrote outside its buffer"

    def laid_out(self, shape, dtype, layout):
        """A poisoned array of this shape, laid out as the word says, and the memory that it is part of."""
        *batch, z, y, x = shape
        if layout == "c":
            base = self.empty(shape, dtype)
            return base, base
        if layout == "transposed":
            base = self.empty((*batch, x, y, z), dtype)
            return np.swapaxes(base, -1, -3), base
        if layout == "turned":
            base = self.empty((*batch, y, x, z), dtype)
            return np.moveaxis(base, -1, -3), base
        if layout == "flipped":
            base = self.empty(shape, dtype)
            return base[..., ::-1, ::-1, ::-1], base
        if layout == "sliced":
            base = self.empty((*batch, 2 * z + 1, y + 2, 3 * x + 2), dtype)
            return base[..., 1::2, 1:-1, 1:-1:3], base
        if layout == "vectors":
            base = self.empty((*batch, z, y, x, 3), dtype)
            return base[..., 1], base
        assert layout == "offset"
        base = self.empty((*batch, z, y, x + 3), dtype)
        return base[..., 1 : x + 1], base


LAYOUTS = ("c", "transposed", "turned", "flipped", "sliced", "vectors", "offset")


def untouched(view, base, fill):
    """Whether memory around a view is as it was."""
    inside = np.zeros(base.shape, bool)
    offset = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    assert base.flags.c_contiguous
    flat = inside.reshape(-1)
    index = np.full(view.shape, offset // base.itemsize)
    for axis, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        shape = [1] * view.ndim
        shape[axis] = n
        index += (np.arange(n) * (stride // base.itemsize)).reshape(shape)
    flat[index.ravel()] = True
    bytes_ = base.reshape(-1).view(np.uint8).reshape(flat.size, base.itemsize)
    return bool((bytes_[~flat] == fill).all())


def run_twice(act, src, shape, dtype, src_layout="c", dst_layout="c", read=cuda_runtime.read):
    """`act(engine, src, dst)` in memory of either pattern: the result, which must be the same.

    Also returns the runtimes. Everything that the result must not depend on differs between the two runs: guard bands,
    gaps between voxels, new memory, what was in the destination.
    """
    results, runtimes = [], []
    for fill in FILLS:
        runtime = Guarded(fill, read)
        engine = CudaEngine(runtime)
        source, _ = runtime.laid_out(src.shape, src.dtype, src_layout)
        source[...] = src
        target, base = runtime.laid_out(shape, dtype, dst_layout)
        act(engine, source, target)
        runtime.check()
        assert untouched(target, base, fill), "a kernel wrote between the voxels of the destination"
        assert source.tobytes() == src.tobytes(), "a kernel changed its source"
        results.append(target.copy())
        runtimes.append(runtime)
    assert results[0].tobytes() == results[1].tobytes(), "the result depends on memory that is not the kernel's"
    return results[0], runtimes


def patched(file, old, new):
    """`cuda_runtime.read` with a change in one file, which must be there to be changed."""

    def read(name):
        text = cuda_runtime.read(name)
        if name != file:
            return text
        if old not in text:  # no AssertionError, which is what mistakes are seen by
            raise LookupError(f"{old!r} is not in {name}")
        return text.replace(old, new, 1)

    return read


def assert_seen(check, read):
    """A check sees a mistake in a kernel: one that does not compile was not run.

    In a child, for a kernel with a mistake may write anywhere: one that ends its process is seen.
    """
    into, out_of = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
        child = os.fork()
    if not child:
        faulthandler.disable()
        signal.alarm(120)  # it may also run for ever
        said = "nothing"
        try:
            check(read)
        except (AssertionError, RuntimeError) as mistake:
            said = "" if "cannot compile" not in str(mistake) else str(mistake)
        except BaseException as error:  # pytest's own among them
            said = repr(error)
        finally:
            os.write(out_of, said.encode()[:4096])
            os._exit(bool(said))
    os.close(out_of)
    with open(into, errors="replace") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code <= 0, f"the check saw: {said}"


@lru_cache
def holds(check):
    """Run a check of the kernels as they are: once, whatever number of changes it must then see."""
    check(cuda_runtime.read)


def view(runtime, array):
    return View.of(array, runtime.address(array))


def random_table(rng, n_src, n_dst, n_taps, step=None):
    """Rows of 1 to `n_taps` taps, anywhere or, with a step, one after the other."""
    count = rng.integers(1, min(n_taps, n_src) + 1, n_dst)
    first = rng.integers(0, n_src - count + 1)
    if step is not None:
        first = np.clip((np.arange(n_dst) * abs(step)).astype(int), 0, n_src - count)
        if step < 0:
            first, count = first[::-1].copy(), count[::-1].copy()
    weight = rng.standard_normal((n_dst, int(count.max())))
    weight[np.arange(weight.shape[1]) >= count[:, None]] = 0
    return TapTable(n_src, first, count, weight)


def identity(n):
    return TapTable(n, np.arange(n), np.ones(n, np.int64), np.ones((n, 1)))


def picks(n_src, index):
    index = np.asarray(index, np.int64)
    return TapTable(n_src, index, np.ones(index.size, np.int64), np.ones((index.size, 1)))


def separable(tables, order=(0, 1, 2), dst_axis=(0, 1, 2), start=(0, 0, 0), n_dst=None, precision="single"):
    n_dst = tuple(n_dst or (s + t.n_dst for s, t in zip(start, tables, strict=True)))
    return Separable(tuple(tables), tuple(order), tuple(dst_axis), n_dst, tuple(start), precision)


def plane(tables, axes, acc="float32", store=None, whole=False):
    """Two tables along two axes of an array of four, one after the other, by one kernel.

    `whole`: by blocks of whole rows, or of parts of them.
    """

    def act(engine, src, dst):
        read = view(engine.runtime, src)
        finite = src.dtype.kind != "f"
        for table, axis in zip(tables, axes, strict=True):
            read = read.narrow(axis, *table.source_range())
        with mock.patch.object(cuda_axis, "MANY_BLOCKS", 0 if whole else 1 << 30):
            engine.axes.plane(
                tables, read, view(engine.runtime, dst), axes, np.dtype(acc), stored(src, store), finite=finite
            )

    return act


def stored(src, store=None):
    """How the engine stores sums of a source: those of integers have no -0."""
    store = store or Store()
    return store if src.dtype.kind == "f" else replace(store, window=cuda_axis.UNSIGNED_ZERO)


def two_passes(tables, axes, acc="float32", store=None):
    """What `plane` does, by two passes of the plain kernel and what lies between them."""

    def act(engine, src, dst):
        (first, second), (row, column) = tables, axes
        read = view(engine.runtime, src).narrow(row, *first.source_range()).narrow(column, *second.source_range())
        shape = list(read.shape)
        shape[row] = first.n_dst
        between = engine.axes.scratch(tuple(shape), np.dtype(acc))
        engine.axes.plain(first, read, between, row, np.dtype(acc), Store())
        engine.axes.plain(second, between, view(engine.runtime, dst), column, np.dtype(acc), stored(src, store))

    return act


def weighted(table, src, axis):
    """The oracle of a pass: row by row, in float64, only the samples that a row taps."""
    moved = np.moveaxis(src.astype(np.float64), axis, 0)
    rows = []
    for i in range(table.n_dst):
        k, n = table.first[i], table.count[i]
        rows.append(np.tensordot(table.weight[i, :n], moved[k : k + n], axes=1))
    return np.moveaxis(np.array(rows).reshape(table.n_dst, *moved.shape[1:]), 0, axis)


def summed(work, src, default=0.0):
    """The oracle of separable work, in float64."""
    out = src.astype(np.float64)
    for axis in work.order:
        out = weighted(work.tables[axis], out, axis - 3)
    whole = np.full((*src.shape[:-3], *work.n_dst), float(default))
    (z0, z1), (y0, y1), (x0, x1) = work.inside
    whole[..., z0:z1, y0:y1, x0:x1] = out
    n = src.ndim - 3
    inverse = np.argsort(work.dst_axis)
    return whole.transpose(*range(n), *[n + a for a in inverse])


def settled(values, dtype, rounding="nearest"):
    """The oracle of the store: sums, exactly as they are, as voxels of a type; integers saturate, NaN becomes 0."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    # The largest sum that fits: 2**63 - 1 has no float.
    top = np.array(info.max, values.dtype)
    if int(top) > info.max:
        top = np.nextafter(top, np.zeros((), values.dtype))
    out = []
    for v in values.ravel().tolist():
        if math.isnan(v):
            out.append(0)
        elif v >= info.max:
            out.append(int(top))
        elif v <= info.min:
            out.append(info.min)
        else:
            whole = int(v)
            out.append(
                round(v) if rounding == "nearest" else whole if rounding == "truncate" else whole + int(2 * (v - whole))
            )
    return np.array(out, dtype).reshape(values.shape)
