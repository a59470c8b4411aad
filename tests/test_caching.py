"""What is kept from call to call: bounded in bytes, given up on demand, the same bits before and after."""

import os
import signal
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from support import noise, same_bits

import gpuresample as gr
from gpuresample import caching, memory
from gpuresample.engines.cpu import tables
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import FILTERS, gaussian_response


@pytest.fixture(autouse=True)
def _empty():
    gr.clear_caches()
    yield
    gr.clear_caches()


def test_what_is_kept_is_kept_by_bytes(monkeypatch):
    monkeypatch.setattr(caching, "MOST_BYTES", 1000_000)
    made = []

    @caching.kept
    def zeros(n):
        made.append(n)
        return np.zeros(n, np.uint8)

    for n in (100_000, 200_000, 300_000):
        zeros(n)
        assert zeros(n) is zeros(n)
    assert made == [100_000, 200_000, 300_000]
    zeros(100_000)
    zeros(400_000)  # more than there is room for: the one used longest ago goes, and that is not the first
    assert caching.kept_bytes() <= 1000_000
    zeros(100_000), zeros(300_000), zeros(400_000)
    assert made == [100_000, 200_000, 300_000, 400_000]
    zeros(200_000)
    assert made[-1] == 200_000
    assert zeros(2000_000) is not zeros(2000_000)
    assert caching.kept_bytes() <= 1000_000
    zeros.cache_clear()
    assert caching.kept_bytes() == 0


def test_bytes_of_a_work_are_those_of_its_tables():
    table = gr.plan((4, 5000), size=(4, 3000)).work.tables[2]
    n = caching.n_bytes((table, (table, 1)), set())
    assert n == table.first.nbytes + table.count.nbytes + table.weight.nbytes


def test_many_different_calls_stay_within_the_bound(monkeypatch):
    monkeypatch.setattr(caching, "MOST_BYTES", 8 << 20)
    image = noise((4, 20_000))
    first = gr.resample(image, size=(4, 19_000))
    for k in range(1, 12):
        gr.resample(image, size=(4, 19_000 + k))
        assert caching.kept_bytes() <= 8 << 20
    assert caching.kept_bytes() > 1 << 20
    assert same_bits(gr.resample(image, size=(4, 19_000)), first)


CALLS = """
import resource, sys
import numpy as np, gpuresample as gr
gr.set_num_threads(2)
image = np.zeros((4, 60_000), np.float32)
gr.resample(image, size=(4, 50_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for k in range(28):
    gr.resample(image, size=(4, 50_001 + k))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_28_calls_on_a_wide_image_leave_no_more_than_is_kept():
    # 110 MB; 430 where nothing that is kept is ever let go.
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 270, "MB"


def test_scratch_of_all_threads_is_given_up():
    threads = [threading.Thread(target=lambda: (tables.scratch(1000, "f4"), gate.wait(), gate.wait())) for _ in "ab"]
    gate = threading.Barrier(3)
    [t.start() for t in threads]
    gate.wait()
    own = tables.scratch(1000, "f4")
    assert tables.scratch(10, "f4") is own
    held = [b for buffers in tables._all_scratch for b in buffers.by_type.values()]
    assert len(held) >= 3
    gr.clear_caches()
    assert not [b for buffers in tables._all_scratch for b in buffers.by_type.values()]
    assert tables.scratch(10, "f4") is not own
    gate.wait()
    [t.join() for t in threads]


def test_threads_that_begin_while_scratch_is_given_up(monkeypatch):
    """Each adds its buffers to those that are gone through."""
    begun = []

    class Joined(weakref.WeakSet):
        def __iter__(self):
            for buffers in super().__iter__():
                if len(begun) < 3:
                    begun.append(tables._Buffers())
                    begun[-1].by_type["<f4"] = np.empty(4, np.float32)
                    self.add(begun[-1])
                yield buffers

    first = tables._Buffers()
    monkeypatch.setattr(tables, "_all_scratch", Joined([first]))
    gr.clear_caches()
    assert len(begun) == 3
    assert not any(buffers.by_type for buffers in begun)


def test_a_huge_buffer_is_not_kept():
    n = tables.KEPT_SCRATCH // 4
    assert tables.scratch(n, "f4") is tables.scratch(n, "f4")
    assert tables.scratch(n + 1, "f4") is not tables.scratch(n + 1, "f4")
    assert tables.scratch(n, "f4").size == n


def test_caches_cleared_while_others_plan():
    image = noise((12, 13, 14))
    expected = gr.resample(image, spacing=1.7)
    wrong = []

    def calls():
        for _ in range(50):
            if not same_bits(gr.resample(image, spacing=1.7), expected):
                wrong.append(1)

    threads = [threading.Thread(target=calls) for _ in range(3)]
    [t.start() for t in threads]
    while any(t.is_alive() for t in threads):
        gr.clear_caches()
    assert not wrong


# --- memory that is asked for before it is taken ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size"), [((4, 4), (1, 2_000_000)), ((3, 4, 5), (1, 1, 700_000)), ((5, 4), (900_000, 2))], ids=str
)
def test_tables_that_would_not_fit_are_refused_before_they_are_made(shape, size, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 30 << 20)
    monkeypatch.setattr(taps, "build", lambda *a, **k: pytest.fail("a table was made"))
    with pytest.raises(ValueError, match=r"of size .* asks for tables of weights: .* GiB of memory are free"):
        gr.plan(shape, size=size)


@pytest.mark.parametrize("size", [(1, 9_000_000), (14_000_000, 1), (1, 1, 12_000_000), (9_000_000, 1, 1)], ids=str)
def test_positions_that_would_not_fit_are_refused_before_they_are_made(size, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 60 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"of size .* asks for positions along its axes: "):
            gr.plan((4,) * len(size), size=size)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20  # of 72 MB and more
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "blur"), [("bspline", 0.0), ("linear", 0.0), ("lanczos", 0.0), ("linear", 3.0)])
@pytest.mark.parametrize("n_src", [4, 70, 20_000])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_tables_take_what_is_estimated(name, blur, n_src, precision):
    f = FILTERS["bspline3" if name == "bspline" else name]
    response = gaussian_response(blur)
    x = np.linspace(0, n_src - 1, 30_000)
    table = taps.build(f, x, n_src, blur=response, precision=precision)
    acc = np.dtype(np.float32 if precision == "single" else np.float64)
    held = caching.n_bytes((table, tables.pack_x.__wrapped__(table, acc)), set())
    assert held <= taps.table_bytes(f, x.size, n_src, response, precision)


@pytest.mark.parametrize("name", ["nearest", "linear", "bspline3", "lanczos", "gaussian"])
@pytest.mark.parametrize("n_src", [4, 700])
def test_making_tables_takes_what_is_estimated(name, n_src):
    f = FILTERS[name]
    x = np.linspace(0, n_src - 1, 3_000)
    taps.build(f, x[:9], n_src)  # what is kept of a filter
    tracemalloc.start()
    try:
        table = taps.build(f, x, n_src)
        tables.pack_x.__wrapped__(table, np.dtype(np.float32))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= taps.table_bytes(f, x.size, n_src, None, "single") + 50_000


def test_scratch_that_would_not_fit_is_refused_before_the_run(monkeypatch):
    image = np.zeros((2, 600_000), np.float32)
    plan = gr.plan(image, size=(2, 599_999), device="cpu")
    assert plan.scratch_bytes(threads=1) < 150 << 20
    monkeypatch.setattr(memory, "ALWAYS_FITS", 1 << 20)
    monkeypatch.setattr(memory, "available_memory", lambda: 5 << 20)
    with pytest.raises(ValueError, match=r"size \(2, 599999\) asks for memory beside the output"):
        plan.run(image)


@pytest.mark.parametrize("name", [*(n for n, f in FILTERS.items() if f.method != "vote")])
@pytest.mark.parametrize("boundary", [None, "nearest", "mirror"])
def test_tables_made_in_parts_are_those_made_at_once(name, boundary, monkeypatch):
    x = np.random.default_rng(3).uniform(-0.5, 8.5, 501)
    whole = taps.build(FILTERS[name], x, 9, boundary=boundary)
    blurred = taps.build(FILTERS[name], x, 9, boundary=boundary, blur=gaussian_response(1.3))
    smooth = taps.smoothing_table(gaussian_response(2.2), 300, "reflect")
    prefilter = taps.prefilter_table(3, 300, "mirror", "single", pad=4)
    monkeypatch.setattr(taps, "AT_ONCE", 700)
    for before, after in (
        (whole, taps.build(FILTERS[name], x, 9, boundary=boundary)),
        (blurred, taps.build(FILTERS[name], x, 9, boundary=boundary, blur=gaussian_response(1.3))),
        (smooth, taps.smoothing_table(gaussian_response(2.2), 300, "reflect")),
        (prefilter, taps.prefilter_table(3, 300, "mirror", "single", pad=4)),
    ):
        assert (before.first == after.first).all()
        assert (before.count == after.count).all()
        np.testing.assert_array_equal(after.weight, before.weight)


@pytest.mark.parametrize("reach", [40.0, 3000.0])
def test_blurs_far_wider_than_the_axis_are_the_same_in_parts(reach, monkeypatch):
    x = np.random.default_rng(4).uniform(-0.5, 8.5, 301)
    blur = gaussian_response(reach)

    def made():
        sampled = [taps.build(FILTERS[name], x, 9, blur=blur) for name in ("linear", "gaussian", "bspline3")]
        return [
            *sampled,
            taps.smoothing_table(blur, 9, "nearest"),
            taps.prefilter_table(3, 9, "nearest", "double", blur),
        ]

    whole = made()
    monkeypatch.setattr(taps, "AT_ONCE", 2000)
    for before, after in zip(whole, made(), strict=True):
        np.testing.assert_array_equal(after.dense(), before.dense())


# Tables are made some rows at once: beside what is estimated, what those rows take.
PART_BYTES = 64 << 20


@pytest.mark.parametrize(
    ("shape", "size", "name"),
    [
        ((4, 4), (1, 300_000), "bspline"), ((4, 4), (300_000, 1), "bspline"), ((4, 4), (1, 300_000), "linear"),
        ((5, 4), (2, 100_000), "lanczos"),
        ((3, 4, 5), (300_000, 1, 1), "bspline5"), ((2, 300_000), (2, 100_000), "linear"),
        ((2, 40_000), (2, 80_000), "bspline"),
        ((2, 300_000), (2, 300_000), "bspline"), ((9, 9), (1, 30_000), "gaussian"),
        ((300_000, 2), (150_000, 2), "blackman"), ((4, 4), (1, 300_000), "nearest"),
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_and_its_run_take_what_is_estimated(shape, size, name, monkeypatch):
    image = np.ones(shape, np.float32)
    gr.resample(image[:3, :3], size=(2,) * len(shape), interpolation=name, device="cpu")  # compiles
    estimates = []
    monkeypatch.setattr(planner, "check_room", lambda needed, what: estimates.append(needed))
    gr.clear_caches()
    tracemalloc.start()
    try:
        gr.plan(shape, size=size, interpolation=name, dtype=np.float32)
        planned = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        result = gr.resample(image, size=size, interpolation=name, device="cpu")
        ran = tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()
    assert planned <= estimates[0] + PART_BYTES
    assert ran <= estimates[0] + PART_BYTES + (64 << 20)  # scratch, which has an estimate of its own
    assert result.max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="limits as on Linux")
@pytest.mark.parametrize("limit", [1 << 30, 3 << 30])
def test_the_limit_of_a_process_is_what_it_may_take(limit):
    code = f"""
import resource
from gpuresample import memory
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
print(memory.available_memory())
try:
    memory.check_room({limit}, "it")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    free, refusal = done.stdout.splitlines()
    assert 0 < int(free) < limit
    assert refusal.startswith(f"it: {limit / 2**30:.1f} GiB, but ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_finds_a_value_that_another_thread_was_finding():
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        @caching.cached_property
        def value(self):
            begun.set()
            go_on.wait(60)
            return 7

    there = Slow()
    thread = threading.Thread(target=lambda: there.value)
    thread.start()
    assert begun.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(20)  # which ends it
        go_on.set()
        os._exit(Slow().value)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert vars(there) == {"value": 7}
    assert isinstance(Slow.value, caching.cached_property)
