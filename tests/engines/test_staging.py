"""Host arrays on the GPU, in parts: the same bits, within the memory there is, and never before their data is there."""

import collections
import gc
import itertools
import weakref
from functools import lru_cache

import numpy as np
import pytest
import SimpleITK as sitk
from fake_cupy import Pool
from support import labels, noise, path_of, rotation, same_bits

import gpuresample as gr
from gpuresample.engines.cuda import staging, tiles
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.footprint import footprint
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.cuda.staging import Staged
from gpuresample.engines.interface import Store
from gpuresample.planning import planner

pytestmark = pytest.mark.kernels


class Small(HostRuntime):
    """A device of a given size, that counts what is taken of it."""

    fill = 0x5A

    def __init__(self, total=1 << 40, seen=None):
        super().__init__()
        self.pool = Pool(total)
        self.seen = seen

    def free_memory(self):
        return self.pool.total - self.pool.used if self.seen is None else self.seen

    def empty(self, shape, dtype):
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(self.fill)
        return self.pool.take(array)

    def upload(self, array):
        out = self.empty(array.shape, array.dtype)
        out[...] = array
        return out


class Deferred(Small):
    """A device whose streams do nothing until the host waits for them, and then no more than they must.

    What was to be waited for and was not, has not happened: a missing wait is a wrong result, every time.
    """

    fill = 0  # a table that is not there yet leads nowhere

    def __init__(self, **options):
        super().__init__(**options)
        self.queues = collections.defaultdict(collections.deque)
        self.done = collections.Counter()
        self.current = 0
        self.names = itertools.count(1)
        self.log = []

    def put(self, what, act):
        self.log.append((what, self.current))
        self.queues[self.current].append(act)

    def stream(self):
        return next(self.names)

    def within(self, stream):
        return _Current(self, stream)

    def upload(self, array):
        out, there = self.empty(array.shape, array.dtype), array.copy()
        self.put("copy", lambda: np.copyto(out, there))
        return out

    def copy_in(self, host, array):
        assert host.flags.c_contiguous
        self.put("copy", lambda: np.copyto(array, host))

    def copy_out(self, array, host):
        assert host.flags.c_contiguous
        self.put("copy", lambda: np.copyto(host, array))

    def download(self, array, out):
        self.put("copy", lambda: np.copyto(out, array))
        self.finish(self.mark())

    def launch(self, launch):
        self.put("launch", lambda: HostRuntime.launch(self, launch))

    def mark(self):
        return self.current, self.done[self.current] + len(self.queues[self.current])

    def wait(self, mark):
        if mark[0] != self.current:
            self.put("wait", lambda: self.finish(mark))

    def finish(self, mark):
        stream, count = mark
        while self.done[stream] < count:
            act = self.queues[stream].popleft()
            self.done[stream] += 1
            act()


class _Current:
    def __init__(self, runtime, stream):
        self.runtime, self.stream = runtime, stream

    def __enter__(self):
        self.before, self.runtime.current = self.runtime.current, self.stream

    def __exit__(self, *_):
        self.runtime.current = self.before


SOURCE = gr.Grid((40, 30, 44), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
OBLIQUE = gr.Grid((33, 27, 30), (1.2, 1.3, 1.9), (4.0, -3.0, 3.0), tuple(np.ravel(rotation(13, -7, 24)).tolist()))
GRIDS = {
    "aligned": gr.Grid((47, 33, 50), (0.81, 1.03, 1.3), (3.0, -2.0, 1.0), SOURCE.direction),
    "permuted": gr.Grid((30, 40, 42), (1.1, 1.2, 1.3), (33.0, -2.0, 1.0), tuple(np.ravel(rotation(0, 0, 90)).tolist())),
    "oblique": OBLIQUE,
}


def deforming():
    image = sitk.GetImageFromArray(noise((*OBLIQUE.size[::-1], 3), "float64", seed=3) / 1500, isVector=True)
    image.SetSpacing(OBLIQUE.spacing)
    image.SetOrigin(OBLIQUE.origin)
    image.SetDirection(OBLIQUE.direction)
    return (path_of(sitk.DisplacementFieldTransform(image)),)


CASES = [
    ("aligned", "bspline", "int16", "int16", {}),
    ("aligned", "linear", "uint8", "float32", {}),
    ("aligned", "nearest", "int16", "int16", {}),
    ("aligned", "nearest", "int32", "uint8", {"exact": True}),
    ("aligned", "hamming", "float16", "float16", {}),
    ("aligned", "linear", "int16", "int16", {"divisor": 3}),
    ("permuted", "bspline", "int16", "float32", {}),
    ("oblique", "bspline", "int16", "int16", {}),
    ("oblique", "nearest", "uint8", "uint8", {"exact": True}),
    ("oblique", "label_linear", "int16", "int16", {"exact": True}),
    ("field", "linear", "int16", "float32", {}),
]


def job(case, batch=()):
    grid, interpolation, source, target, options = case
    transform = deforming() if grid == "field" else ()
    grid = OBLIQUE if grid == "field" else GRIDS[grid]
    name = "bspline3" if interpolation == "bspline" else interpolation
    work = planner.make_work(SOURCE, grid, transform, name, None, False, "single")
    src = (labels if "label" in name or name == "nearest" else noise)((*batch, *SOURCE.size[::-1]), source)
    return work, src, np.zeros((*batch, *grid.size[::-1]), target), Store(7, **options)


def interpolates(case):
    """Whether what lies between passes, not input and output, takes most of the memory."""
    return case[1] in ("bspline", "hamming")


def whole(work, src, dst, store):
    out = np.zeros_like(dst)
    CudaEngine(HostRuntime()).run(work, src, out, store)
    return out


@lru_cache
def whole_of(number, batch):
    """What a case gives without being cut."""
    return whole(*job(CASES[number], batch))


@pytest.fixture
def eager(monkeypatch):
    """Parts overlap however small a volume is."""
    monkeypatch.setattr(staging, "OVERLAP_BYTES", 0)
    monkeypatch.setattr(staging, "READ_AGAIN", 100.0)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_the_footprint_is_what_a_work_takes_at_most(case, batch):
    work, src, dst, store = job(case, batch)
    runtime = Small()
    engine = CudaEngine(runtime)
    source, target = runtime.upload(src), runtime.empty(dst.shape, dst.dtype)
    engine.run(work, source, target, store)
    estimate = footprint(work, src.shape, src.dtype, dst.shape, dst.dtype, store)
    assert runtime.pool.peak <= estimate
    # Nor so much more that work is cut for nothing.
    assert estimate <= 3 * runtime.pool.peak + (80 << 10)


def test_what_one_kernel_keeps_to_itself_is_not_counted(monkeypatch):
    """Passes along y and x alone have one volume between them, or none."""
    grid = gr.Grid((60, 50, 44), (0.7, 0.8, 1.5), SOURCE.origin, SOURCE.direction)
    work = planner.make_work(SOURCE, grid, (), "bspline3", None, False, "single")
    src, dst = noise(SOURCE.size[::-1], "int16"), np.zeros(grid.size[::-1], np.float32)
    peaks = {}
    for forced in (True, False):
        monkeypatch.setattr(tiles, "FUSE", forced)
        runtime = Small()
        source, target = runtime.upload(src), runtime.empty(dst.shape, dst.dtype)
        CudaEngine(runtime).run(work, source, target, Store())
        estimate = footprint(work, src.shape, src.dtype, dst.shape, dst.dtype, Store())
        peaks[forced] = runtime.pool.peak
        assert peaks[forced] <= estimate <= peaks[forced] + (80 << 10)
    assert peaks[True] < peaks[False]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_what_does_not_fit_is_cut_and_has_the_bits_of_the_whole(case, batch, monkeypatch):
    work, src, dst, store = job(case, batch)
    tried = batch != ()  # small ones are tried at once first
    monkeypatch.setattr(staging, "OVERLAP_BYTES", 1 << 40 if tried else 0)
    single = footprint(work, src.shape[-3:], src.dtype, dst.shape[-3:], dst.dtype, store)
    runtime = Small(total=int((0.8 if interpolates(case) else 0.3) * single))
    before = len(list(staging.parts(work, src, dst, store, 1 << 40, 1 << 40)))
    budget = int(staging.SHARE * runtime.free_memory())
    pieces = len(list(staging.parts(work, src, dst, store, budget // 2, budget)))
    assert pieces > before
    Staged(CudaEngine(runtime), None).run(work, src, dst, store)
    assert same_bits(dst, whole_of(CASES.index(case), batch))
    assert 0 < runtime.pool.peak <= (runtime.pool.total if tried else budget)


def test_a_volume_many_times_the_memory(monkeypatch):
    monkeypatch.setattr(staging, "OVERLAP_BYTES", 0)
    src = noise((60, 50, 40), "int16")
    plan = gr.plan(src, size=(80, 60, 50), device="cpu")
    runtime = Small(total=400 << 10)
    dst = np.zeros((80, 60, 50), np.int16)
    budget = int(staging.SHARE * runtime.free_memory())
    assert len(list(staging.parts(plan.work, src, dst, plan.store, budget // 2, budget))) > 20
    Staged(CudaEngine(runtime), None).run(plan.work, src, dst, plan.store)
    assert same_bits(dst, whole(plan.work, src, dst, plan.store))
    assert runtime.pool.peak <= budget < (src.nbytes + dst.nbytes)


def test_no_part_is_larger_than_its_pinned_buffers_may_be(monkeypatch):
    monkeypatch.setattr(staging, "OVERLAP_BYTES", 0)
    monkeypatch.setattr(staging, "PART_BYTES", 200 << 10)
    src = noise((60, 50, 40), "int16")
    plan = gr.plan(src, size=(80, 60, 50), device="cpu")
    dst = np.zeros((80, 60, 50), np.int16)
    runtime = Small()
    Staged(CudaEngine(runtime), None).run(plan.work, src, dst, plan.store)
    assert same_bits(dst, whole(plan.work, src, dst, plan.store))
    assert runtime.pool.peak <= 2 * (200 << 10)


def test_memory_that_others_took_is_done_without():
    work, src, dst, store = job(CASES[0])
    needed = footprint(work, src.shape, src.dtype, dst.shape, dst.dtype, store)
    # The device says that all would fit, and then it does not.
    runtime = Small(total=int(0.6 * needed), seen=10 * needed)
    Staged(CudaEngine(runtime), None).run(work, src, dst, store)
    assert same_bits(dst, whole(work, src, dst, store))


def test_a_device_without_memory_says_so():
    work, src, dst, store = job(CASES[0])
    with pytest.raises(MemoryError, match="cannot hold what a single voxel needs"):
        Staged(CudaEngine(Small(total=1 << 10)), None).run(work, src, dst, store)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("batch", [(), (1, 3)], ids=str)
def test_nothing_happens_before_its_data_is_there(case, batch, eager):
    work, src, dst, store = job(case, batch)
    runtime = Deferred()
    Staged(CudaEngine(runtime), None).run(work, src, dst, store)
    assert same_bits(dst, whole_of(CASES.index(case), batch))
    assert not any(runtime.queues.values())
    lone = batch == () and case[0] == "field"
    used = {stream for what, stream in runtime.log if what == "launch"}
    assert len(used) == (1 if lone else 2)


def test_parts_take_turns_in_two_streams(eager):
    work, src, dst, store = job(CASES[0])
    runtime = Deferred()
    engine = CudaEngine(runtime)
    Staged(engine, None).run(work, src, dst, store)
    first, second = sorted({stream for _, stream in runtime.log})
    starts = [stream for stream, group in itertools.groupby(s for _, s in runtime.log)]
    assert starts == [first, second] * 4
    # A part's copy goes in before its kernels, its result out after them.
    for stream in (first, second):
        words = [what for what, s in runtime.log if s == stream and what != "wait"]
        assert words[0] == words[-1] == "copy"
    # Streams are kept for the next call.
    Staged(engine, None).run(work, src, dst, store)
    assert {stream for _, stream in runtime.log} == {first, second}


def test_what_a_work_was_cut_into_is_kept_with_it(eager, monkeypatch):
    work, src, dst, store = job(CASES[0])
    runtime = Deferred()
    staged = Staged(CudaEngine(runtime), None)
    staged.run(work, src, dst, store)
    uploads = sum(what == "copy" for what, _ in runtime.log)
    monkeypatch.setattr(planner, "crop", None)
    runtime.log.clear()
    again = np.zeros_like(dst)
    staged.run(work, src, again, store)
    assert same_bits(again, dst)
    # Voxels alone: eight parts there and back.
    assert sum(what == "copy" for what, _ in runtime.log) == 16 < uploads
    # Another type is cut anew, and nothing outlives the work.
    with pytest.raises(TypeError):
        staged.run(work, src.astype(np.float64), again, store)
    assert work in staging._blocks
    kept = weakref.ref(work)
    del work
    planner._tables.cache_clear()
    gc.collect()
    assert kept() is None


def test_what_is_small_does_not_ask_how_much_memory_there_is(monkeypatch):
    work, src, dst, store = job(CASES[0])
    runtime = Small()
    monkeypatch.setattr(runtime, "free_memory", None)
    Staged(CudaEngine(runtime), None).run(work, src, dst, store)
    assert same_bits(dst, whole(work, src, dst, store))


def test_a_wait_for_the_host_that_is_left_out_is_seen(eager):
    """The stand-in shows what it is there to show."""
    work, src, dst, store = job(CASES[0])
    runtime = Deferred()
    runtime.finish = lambda mark: None
    Staged(CudaEngine(runtime), None).run(work, src, dst, store)
    for queue in runtime.queues.values():
        while queue:
            queue.popleft()()
    assert not same_bits(dst, whole(work, src, dst, store))


@pytest.mark.parametrize("waits", [True, False])
def test_a_stream_that_shares_tables_waits_for_them(waits):
    """Only the second stream is finished; the tables were made in the first."""
    work, src, dst, store = job(CASES[0])
    runtime = Deferred()
    engine = CudaEngine(runtime)
    if not waits:
        runtime.wait = lambda mark: None
    for stream in (1, 2):
        with runtime.within(stream):
            source, target = runtime.empty(src.shape, src.dtype), runtime.empty(dst.shape, dst.dtype)
            runtime.copy_in(src, source)
            engine.run(work, source, target, store)
    runtime.finish((2, len(runtime.queues[2])))
    expected = whole(work, src, dst, store)
    assert same_bits(target, expected) == waits


def test_an_error_leaves_nothing_under_way(eager):
    work, src, dst, store = job(CASES[0])
    runtime = Deferred()
    launch, left = runtime.launch, iter(range(7))

    def failing(it):
        if next(left, None) is None:
            raise RuntimeError("no more")
        launch(it)

    runtime.launch = failing
    with pytest.raises(RuntimeError, match="no more"):
        Staged(CudaEngine(runtime), None).run(work, src, dst, store)
    assert not any(runtime.queues.values())


# --- through the public call, on the stand-in for CuPy ------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_pinned_copies_overlap(cupy, eager, device):
    src = noise((40, 34, 41), "int16")
    out = gr.resample(src, size=(39, 40, 33), device=device)
    expected = gr.resample(src, size=(39, 40, 33), device="cpu")
    assert np.abs(out.astype(int) - expected).max() <= 1
    assert cupy.calls["get"] == 0
    assert cupy.calls["async copies"] == 2 * staging.PARTS
    used = {ptr for what, ptr in cupy.log if what == "copy"}
    assert len(used) == 2
    assert cupy.stream.ptr == 0
    assert cupy.current == 0


def test_pinned_arrays_are_taken_as_they_are(cupy, eager):
    src = noise((40, 34, 41), "int16")
    held = np.frombuffer(cupy.pinned(src.nbytes), np.int16).reshape(src.shape)
    held[...] = src
    for k in range(40):  # slabs begin within it
        cupy.pinned_memory.add(held[k:].__array_interface__["data"][0])
    before = len(cupy.pinned_memory)
    gr.resample(held, size=(39, 40, 33), device="cuda")
    # Buffers for results only.
    assert len(cupy.pinned_memory) - before <= staging.PARTS


def test_a_small_gpu_takes_what_it_can_hold(cupy):
    cupy.pool = Pool(300 << 10)
    src = noise((40, 50, 41), "int16")
    out = gr.resample(src, size=(50, 60, 33), device="cuda")
    assert np.abs(out.astype(int) - gr.resample(src, size=(50, 60, 33), device="cpu")).max() <= 1
    assert cupy.pool.peak < src.nbytes + out.nbytes
