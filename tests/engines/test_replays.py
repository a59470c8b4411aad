"""Calls that come again on the CUDA engine: the bits of a first call, its launches, and nothing else."""

import gc
import os
import signal
import sys
import threading
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
from cuda_support import Guarded
from fake_cupy import FAKE, Stream
from support import labels, noise, rotation, same_bits

import gpuresample as gr
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.cuda.replays import KINDS, Replays
from gpuresample.engines.interface import Store
from gpuresample.planning import planner
from gpuresample.planning.works import Majority

pytestmark = pytest.mark.kernels

TURNED = tuple(np.ravel(rotation(13, -7, 24)).tolist())
SOURCE = gr.Grid((20, 15, 11), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
ALIGNED = gr.Grid((33, 12, 14), (0.61, 1.3, 1.1), (2.0, -2.0, 1.0), SOURCE.direction)
OBLIQUE = gr.Grid((17, 13, 9), (1.2, 1.3, 1.9), (4.0, -3.0, 3.0), TURNED)


def work_of(grid, interpolation):
    return planner.make_work(SOURCE, grid, (), interpolation, None, False, "single")


# Grid, interpolation, types of source and result, how sums are stored: one pass, several, and conversions around them.
JOBS = {
    "linear": (ALIGNED, "linear", "int16", "float32", {}),
    "three passes": (ALIGNED, "bspline3", "int16", "float32", {}),
    "copies": (ALIGNED, "nearest", "int16", "int16", {"exact": True}),
    "converted copies": (ALIGNED, "nearest", "int32", "uint8", {"exact": True}),
    "means": (ALIGNED, "linear", "int16", "int16", {"divisor": 3}),
    "turned": (OBLIQUE, "bspline3", "int16", "float32", {}),
    "votes": (OBLIQUE, "label_linear", "int16", "int16", {"exact": True}),
}


class Counting(Guarded):
    """Counts what a call takes of a device."""

    def __init__(self):
        super().__init__()
        self.took = {"upload": 0, "empty": 0}

    def upload(self, array):
        self.took["upload"] += 1
        self.took["empty"] -= 1  # which it is made by here
        return super().upload(array)

    def empty(self, shape, dtype):
        self.took["empty"] += 1
        return super().empty(shape, dtype)


def spied(engine, monkeypatch):
    """Calls that were worked out."""
    calls, run = [], engine._run
    monkeypatch.setattr(engine, "_run", lambda *call: calls.append(call) or run(*call))
    return calls


@pytest.mark.parametrize("name", JOBS)
def test_a_call_that_comes_again_has_the_bits_of_a_first_one(name, monkeypatch):
    grid, interpolation, source, target, options = JOBS[name]
    work, store = work_of(grid, interpolation), Store(7, **options)
    runtime = Counting()
    engine = CudaEngine(runtime)
    worked_out = spied(engine, monkeypatch)
    make = labels if options.get("exact") else noise
    launched, took = [], []
    for k in range(4):
        before, taken = runtime.launches.copy(), dict(runtime.took)
        src, out, fresh = (np.empty((2, *n), t) for n, t in (
            (SOURCE.size[::-1], source), (grid.size[::-1], target), (grid.size[::-1], target),
        ))  # fmt: skip
        src[...] = make(src.shape, source, seed=k)
        engine.run(work, src, out, store)
        runtime.check()
        CudaEngine(HostRuntime()).run(work, src, fresh, store)
        assert same_bits(out, fresh)
        launched.append(runtime.launches - before)
        took.append({what: n - taken[what] for what, n in runtime.took.items()})
    assert len(worked_out) == 2  # the first, and the one that is noted
    assert launched[0].total() > 0
    assert launched[1:] == launched[:1] * 3
    assert took[0]["upload"] > 0
    assert took[1]["upload"] == took[2]["upload"] == 0
    assert took[1] == took[2] == took[3]


def test_blocks_of_labels_come_again_too(monkeypatch):
    engine = CudaEngine(HostRuntime())
    worked_out, work = spied(engine, monkeypatch), Majority((2, 2, 2), (4, 6, 8), (2, 3, 4))
    for k in range(4):
        src, outs = labels((4, 6, 8), "uint8", seed=k), [np.empty((2, 3, 4), np.uint8) for _ in range(2)]
        engine.run(work, src, outs[0], Store())
        CudaEngine(HostRuntime()).run(work, src, outs[1], Store())
        assert same_bits(*outs)
    assert len(worked_out) == 2


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_ways_back_come_again_too(interpolation, monkeypatch):
    engine, work = (
        CudaEngine(HostRuntime()),
        planner.make_work(SOURCE, OBLIQUE, (), interpolation, None, False, "double"),
    )
    calls = []
    for name in ("splat", "slopes"):
        act = getattr(engine.gradients, name)
        monkeypatch.setattr(engine.gradients, name, lambda *a, act=act, **k: calls.append(1) or act(*a, **k))
    for k in range(4):
        grad, src = (
            noise((1, *OBLIQUE.size[::-1]), "float64", seed=k),
            noise((1, *SOURCE.size[::-1]), "float64", seed=9 - k),
        )
        results = []
        for each in (engine, CudaEngine(HostRuntime())):
            back, slope = np.empty_like(src), np.empty((1, 3, *OBLIQUE.size[::-1]))
            each.splat(work, grad, back)
            each.gradient(work, src, slope)
            results.append((back, slope))
        assert all(same_bits(a, b) for a, b in zip(*results, strict=True))
    assert len(calls) == 2 * 2


def test_what_is_stored_and_how_arrays_lie_tell_calls_apart():
    engine, left = CudaEngine(HostRuntime()), gr.Grid((30, 15, 11), SOURCE.spacing, (-9.0, -2.0, 1.0), SOURCE.direction)
    work = work_of(left, "linear")  # which lies outside, in part
    src = noise(SOURCE.size[::-1], "int16")
    wide = np.zeros((11, 15, 90), np.float32)
    for k in range(3 * 5):
        default = (0.0, -0.0, 0, np.nan, 2.0)[k % 5]  # the first three are equal
        place = wide[..., k % 3 :: 3] if k % 2 else wide[..., k : k + 30]
        engine.run(work, src, place, Store(default))
        fresh = np.empty((11, 15, 30), np.float32)
        CudaEngine(HostRuntime()).run(work, src, fresh, Store(default))
        assert same_bits(place, fresh)


def test_a_source_of_odd_bytes_is_copied_each_time():
    engine, work = CudaEngine(HostRuntime()), work_of(ALIGNED, "linear")
    raw = np.zeros(SOURCE.voxels * 2 + 1, np.uint8)
    odd = raw[1:].view(np.int16).reshape(SOURCE.size[::-1])
    outs = [np.empty(ALIGNED.size[::-1], np.float32) for _ in range(2)]
    for k in range(4):
        odd[...] = noise(odd.shape, "int16", seed=k)
        engine.run(work, odd, outs[0], Store())
        engine.run(work, odd.copy(), outs[1], Store())
        assert same_bits(*outs)


def test_nothing_is_kept_longer_than_its_work():
    engine = CudaEngine(HostRuntime())
    work = replace(work_of(ALIGNED, "bspline3"))  # not the planner's own, which it may keep
    arrays = [noise(SOURCE.size[::-1], "int16"), np.empty(ALIGNED.size[::-1], np.float32)]
    for _ in range(3):
        engine.run(work, *arrays, Store())
    (kept,) = engine._replays._kept.values()
    (replay,) = kept.values()
    gone = [weakref.ref(array) for array in arrays]
    arrays.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    gone = [weakref.ref(work), weakref.ref(replay)]
    del work, kept, replay
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert len(engine._replays._kept) == 0


def test_what_is_kept_is_bounded_and_given_up_with_the_caches(monkeypatch):
    engine, work = CudaEngine(HostRuntime()), work_of(ALIGNED, "nearest")
    worked_out = spied(engine, monkeypatch)
    src, out = labels(SOURCE.size[::-1], "int16"), np.empty(ALIGNED.size[::-1], np.int16)
    for k in range(KINDS + 4):
        engine.run(work, src, out, Store(k, exact=True))
    (kept,) = engine._replays._kept.values()
    assert len(kept) == KINDS
    for _ in range(3):
        engine.run(work, src, out, Store(k, exact=True))
    assert len(worked_out) == KINDS + 4 + 1
    gr.clear_caches()
    engine.run(work, src, out, Store(k, exact=True))
    assert len(worked_out) == KINDS + 4 + 2


def test_threads_may_repeat_one_call_at_once():
    engine, work = CudaEngine(HostRuntime()), work_of(ALIGNED, "bspline3")
    images = [noise(SOURCE.size[::-1], "int16", seed=k) for k in range(4)]
    wanted, found = ([np.empty(ALIGNED.size[::-1], np.float32) for _ in images] for _ in range(2))
    for image, out in zip(images, wanted, strict=True):
        CudaEngine(HostRuntime()).run(work, image, out, Store())

    def often(image, out):
        for _ in range(5):
            engine.run(work, image, out, Store())

    threads = [threading.Thread(target=often, args=pair) for pair in zip(images, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(a, b) for a, b in zip(found, wanted, strict=True))


# --- through the public call, on a stand-in for CuPy ------------------------------------------------------------------


def asked(call, times=1):
    """What calls asked of CuPy, apart from where arrays are."""
    before, log, waited = FAKE.calls.copy(), len(FAKE.log), len(FAKE.stream.waited)
    for _ in range(times):
        call()
    assert (len(FAKE.log), len(FAKE.stream.waited)) == (log, waited)
    return dict(FAKE.calls - before)


WORDS = {
    "linear": ({"interpolation": "linear"}, 1, 0),
    "bspline": ({"interpolation": "bspline"}, 3, 2),  # an axis each; what lies between
    "turned": ({"interpolation": "linear", "transform": gr.Affine(np.reshape(TURNED, (3, 3)), (0.3, 0.2, 0.1))}, 1, 0),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_plan_that_is_run_again_launches_its_kernels_and_does_nothing_else(cupy, name):
    words, launches, scratch = WORDS[name]
    images = [noise((9, 34, 41), "float32", seed=k) for k in range(4)]
    plan = gr.plan(images[0], size=(7, 40, 33), **words)
    sources, out = [cupy.asarray(image) for image in images], cupy.empty((7, 40, 33), np.float32)
    for source in sources[:2]:
        plan.run(source, out=out)
    wanted = {"launch": launches} | ({"empty": scratch} if scratch else {})
    assert asked(lambda: plan.run(sources[2], out=out)) == wanted
    assert same_bits(np.asarray(out), np.asarray(plan.run(sources[2])))
    # Without a place for the result, it alone is made besides.
    results = []
    assert asked(lambda: results.append(plan.run(sources[3]))) == wanted | {"empty": scratch + 1}
    expected = gr.resample(images[3], size=(7, 40, 33), device="cpu", **words)
    assert np.abs(np.asarray(results[0]) - expected).max() <= 2e-6 * np.ptp(images[3])


def test_what_is_asked_of_a_gpu_again_is_planned_once_whatever_its_size(cupy, monkeypatch):
    ops = sys.modules["gpuresample.ops.resample"]
    monkeypatch.setattr(ops, "ALWAYS_FITS", 100)
    source, out = cupy.asarray(noise((9, 34, 41), "float32")), cupy.empty((7, 40, 33), np.float32)
    call = {"size": (7, 40, 33), "interpolation": "linear", "out": out}
    for _ in range(2):
        gr.resample(source, **call)
    assert asked(lambda: gr.resample(source, **call), 3) == {"launch": 3}


def test_each_device_has_its_own_tables(cupy):
    plan = gr.plan((9, 34, 41), size=(7, 40, 33), interpolation="linear")
    image = noise((9, 34, 41), "float32")
    made = []
    for number in (0, 1, 0, 1, 0, 1):
        with cupy.cuda.Device(number):
            source, out = cupy.asarray(image), cupy.empty((7, 40, 33), np.float32)
        before = cupy.calls["asarray"]
        plan.run(source, out=out)
        made.append((out.number, cupy.calls["asarray"] - before))
        assert cupy.current == 0
    assert [n for _, n in made[2:]] == [0] * 4
    assert made[0][1] == made[1][1] > 0
    assert [number for number, _ in made] == [0, 1] * 3


def test_another_stream_waits_for_tables_until_they_are_there(cupy):
    plan = gr.plan((9, 34, 41), size=(7, 40, 33), interpolation="linear")
    source, out = cupy.asarray(noise((9, 34, 41), "float32")), cupy.empty((7, 40, 33), np.float32)
    for _ in range(3):
        plan.run(source, out=out)
    assert not cupy.stream.waited
    cupy.stream = Stream(7)
    plan.run(source, out=out)
    (event,) = cupy.stream.waited
    event.done = True
    # As when a stream is captured: neither the event nor the host is asked for anything any more.
    assert asked(lambda: plan.run(source, out=out)) == {"launch": 1}
    del type(event).done
    try:
        assert asked(lambda: plan.run(source, out=out)) == {"launch": 1}
    finally:
        type(event).done = False


def test_threads_that_have_streams_of_their_own_wait_for_tables_of_each_other(cupy):
    plan = gr.plan((9, 34, 41), size=(7, 40, 33), interpolation="linear")
    source, out = cupy.asarray(noise((9, 34, 41), "float32")), cupy.empty((7, 40, 33), np.float32)
    cupy.stream = Stream(2)  # CUDA's one address for all of them
    plan.run(source, out=out)
    for _ in range(2):
        waited = len(cupy.stream.waited)
        plan.run(source, out=out)
        assert len(cupy.stream.waited) > waited


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_was_forked_during_a_call_can_give_up_what_is_kept():
    replays = Replays(HostRuntime())
    with replays._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads beside a fork
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that waits
            replays.clear()
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
