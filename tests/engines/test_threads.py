"""Threads, forks, and the same bits whatever their number."""

import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from support import flat, labels, noise, rotation, same_bits

import gpuresample as gr
from gpuresample.engines import quota
from gpuresample.engines import threads as pool

# Large enough to be spread over threads: the engine keeps small work to itself.
SHAPE = (30, 44, 48)
TURNED = gr.Grid((46, 42, 33), (1.0, 1.0, 1.0), (1.0, 2.0, -1.0), flat(rotation(9, 13, -17)))
JOBS = {
    "linear": {"spacing": 0.9, "interpolation": "linear"},
    "bspline": {"spacing": (1.1, 0.8, 0.9)},
    "nearest": {"spacing": 0.9, "interpolation": "nearest"},
    "gaussian": {"spacing": 1.2, "interpolation": "gaussian"},
    "turned linear": {"like": TURNED, "interpolation": "linear"},
    "turned bspline": {"like": TURNED},
    "turned labels": {"like": TURNED, "interpolation": "label_linear"},
}


def run(name, image):
    options = JOBS[name]
    if "like" in options:
        return gr.resample(gr.Volume(image, (1, 1, 1)), **options).array
    return gr.resample(image, **options)


@pytest.fixture(scope="module")
def image():
    return noise(SHAPE)


@pytest.mark.parametrize("name", JOBS)
def test_any_number_of_threads_gives_the_same_bits(name, image, threads):
    picture = labels(SHAPE, "float32") if "labels" in name else image
    threads(1)
    expected = run(name, picture)
    for n in (2, 5):
        threads(n)
        assert gr.get_num_threads() == n
        assert same_bits(run(name, picture), expected), f"{n} threads"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_eight_threads_at_once_get_what_one_gets(n, image, threads):
    threads(1)
    names = ["linear", "bspline", "nearest", "turned bspline"]
    expected = {name: run(name, image) for name in names}
    threads(n)
    gate = threading.Barrier(8)
    wrong, errors = [], []

    def call(i):
        try:
            gate.wait(timeout=60)
            for k in range(4):
                name = names[(i + k) % len(names)]
                if not same_bits(run(name, image), expected[name]):
                    wrong.append(name)
        except BaseException as error:
            errors.append(error)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(timeout=120)
    assert not any(t.is_alive() for t in callers)
    assert errors == []
    assert wrong == []


def test_changing_the_number_of_threads_while_others_work(image, threads):
    threads(1)
    expected = run("bspline", image)
    errors = []

    def call():
        try:
            for _ in range(6):
                assert same_bits(run("bspline", image), expected)
        except BaseException as error:
            errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for t in callers:
        t.start()
    for n in (2, 3, 1, 4, 2, 5) * 4:
        threads(n)
    for t in callers:
        t.join(timeout=120)
    assert not any(t.is_alive() for t in callers)
    assert errors == []


# --- the pool ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 100])
def test_every_item_is_done_once(n, items, threads):
    threads(n)
    done = []
    pool.run_items(done.append, items)
    assert sorted(done) == list(range(items))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("bad", [0, 13, 49])
def test_an_exception_in_a_worker_is_raised(n, bad, threads):
    threads(n)

    def job(item):
        if item == bad:
            raise ArithmeticError(f"item {item}")

    with pytest.raises(ArithmeticError, match=f"item {bad}"):
        pool.run_items(job, 50)
    # The pool lives on.
    done = []
    pool.run_items(done.append, 50)
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize("n", [2, 5])
def test_an_interrupt_in_a_worker_is_raised(n, threads):
    threads(n)
    reached = threading.Event()

    def job(item):
        if threading.current_thread() is threading.main_thread():
            reached.set()
            raise KeyboardInterrupt
        # The others must not do it all before the main thread has its turn.
        reached.wait(timeout=60)

    with pytest.raises(KeyboardInterrupt):
        pool.run_items(job, 50)


def test_after_an_exception_no_new_item_begins(threads):
    threads(2)
    begun = []

    def job(item):
        begun.append(item)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        pool.run_items(job, 1000)
    assert len(begun) <= 2


def test_items_may_call_items(threads):
    # A job that resamples: threads that wait for threads must not wait for ever.
    threads(2)
    done = []

    def inner(item):
        done.append(item)

    pool.run_items(lambda _: pool.run_items(inner, 5), 20)
    assert len(done) == 100


# --- the number --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, -5, 4097, 99999, 2**64])
def test_the_number_must_be_at_least_one(n):
    with pytest.raises(ValueError, match=f"n must be a whole number from 1 to 4096, or None, got {n}"):
        gr.set_num_threads(n)


@pytest.mark.parametrize("n", [2.0, "2", True, (2,), 1j], ids=repr)
def test_the_number_must_be_whole(n):
    with pytest.raises(TypeError, match="n must be a whole number from 1 to 4096, or None"):
        gr.set_num_threads(n)


def test_a_refused_number_changes_nothing(threads):
    threads(3)
    with pytest.raises(ValueError, match="n must"):
        gr.set_num_threads(0)
    assert gr.get_num_threads() == 3


def test_numpy_integers_are_whole(threads):
    threads(np.int64(3))
    assert gr.get_num_threads() == 3


def test_none_returns_to_the_default(threads):
    before = gr.get_num_threads()
    threads(before + 3)
    threads(None)
    assert gr.get_num_threads() == before


def python(code, timeout=120, **environment):
    """What a fresh interpreter prints."""
    env = {k: v for k, v in os.environ.items() if k != pool.ENVIRONMENT} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = "import gpuresample as gr; print(gr.get_num_threads())"


@pytest.mark.parametrize("n", ["1", "3", "17"])
def test_the_environment_sets_the_number(n):
    assert python(SHOW, GPURESAMPLE_NUM_THREADS=n) == n


def test_an_empty_environment_is_the_default():
    assert python(SHOW, GPURESAMPLE_NUM_THREADS="") == python(SHOW)


def test_a_call_outranks_the_environment():
    code = "import gpuresample as gr; gr.set_num_threads(2); print(gr.get_num_threads())"
    assert python(code, GPURESAMPLE_NUM_THREADS="5") == "2"


@pytest.mark.parametrize("n", ["0", "-1", "two", "1.5", "4097", "99999", "1" * 30])
def test_a_bad_environment_is_refused_by_name(n):
    code = """
import numpy as np, gpuresample as gr
try:
    gr.resample(np.zeros((4, 4, 4), np.float32), spacing=2)
except ValueError as error:
    print(error)
"""
    message = python(code, GPURESAMPLE_NUM_THREADS=n)
    assert "GPURESAMPLE_NUM_THREADS must be a whole number from 1 to 4096" in message
    assert repr(n) in message


# --- processes ---------------------------------------------------------------------------------------------------

# A parent that has used its threads, a child that uses its own. A hang ends by the alarm, with a status.
FORK = """
import os, signal, sys, warnings
import numpy as np
import gpuresample as gr

warnings.simplefilter("ignore")  # Python warns of forks beside threads: that is what this is about
gr.set_num_threads(3)
image = np.random.default_rng(0).standard_normal((30, 44, 48)).astype(np.float32)
expected = gr.resample(image, spacing=0.9).tobytes()
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = gr.resample(image, spacing=0.9).tobytes() == expected
    os._exit(0 if same and gr.get_num_threads() == 3 else 3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), gr.resample(image, spacing=0.9).tobytes() == expected)
"""

WORKERS = """
import multiprocessing, sys
import numpy as np
import gpuresample as gr

image = np.random.default_rng(0).standard_normal((30, 44, 48)).astype(np.float32)

def work(seed):
    gr.set_num_threads(2)
    return gr.resample(image + np.float32(seed), spacing=0.9).tobytes()

if __name__ == "__main__":
    import warnings
    warnings.simplefilter("ignore")
    gr.set_num_threads(2)
    expected = [work(seed) for seed in range(4)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as workers:
        got = workers.map_async(work, range(4)).get(timeout=90)
    print(got == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_resamples_after_its_parent_did():
    assert python(FORK) == "0 True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_in_the_midst_of_work_resamples():
    """The lock and the threads of a parent that was working must not bind its child."""
    code = FORK.replace(
        "child = os.fork()",
        """
import threading
stop = threading.Event()
def busy():
    while not stop.is_set():
        gr.resample(image, spacing=0.9)
others = [threading.Thread(target=busy) for _ in range(3)]
[t.start() for t in others]
child = os.fork()
""",
    ).replace(
        "_, status = os.waitpid(child, 0)", "_, status = os.waitpid(child, 0); stop.set(); [t.join() for t in others]"
    )
    assert python(code) == "0 True"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(method, tmp_path):
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(script), method], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


# Threads that call at once, in the program, in children forked while it works, in spawned ones: all at the same time.
EVERYWHERE = """
import hashlib, multiprocessing, sys, threading, warnings
import numpy as np
import gpuresample as gr

image = np.random.default_rng(0).standard_normal((30, 44, 48)).astype(np.float32)
scores = np.random.default_rng(1).standard_normal((3, 15, 22, 24)).astype(np.float32)
turned = gr.Grid((46, 42, 33), (1.0, 1.0, 1.0), (1.0, 2.0, -1.0), (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0))
CALLS = {
    "linear": lambda: gr.resample(image, spacing=0.9, interpolation="linear"),
    "bspline": lambda: gr.resample(image, spacing=0.9),
    "turned": lambda: gr.resample(gr.Volume(image, (1, 1, 1)), like=turned).array,
    "gaussian": lambda: gr.gaussian(image, sigma=1.5),
    "means": lambda: gr.bin_shrink(image, 2),
    "ensemble": lambda: gr.ensemble([scores, -scores], size=image.shape, output="probabilities"),
}

def digests(n, callers):
    gr.set_num_threads(n)
    gate, found = threading.Barrier(callers), []

    def work(own):
        gate.wait(timeout=60)
        names = list(CALLS)
        for name in names[own:] + names[:own]:
            found.append((name, hashlib.sha256(CALLS[name]().tobytes()).hexdigest()))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(callers)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == callers * len(CALLS)
    return sorted(set(found))

def child(n, callers, pipe):
    pipe.send(digests(n, callers))

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Python warns of forks beside threads: that is what this is about
    expected = digests(1, 1)
    assert len(expected) == len(CALLS)
    stop, seen = threading.Event(), []

    def busy():
        while not stop.is_set():
            seen.append(digests(2, 3))

    other = threading.Thread(target=busy)
    other.start()
    try:
        for method in sys.argv[1:]:
            context = multiprocessing.get_context(method)
            children = []
            for n in (1, 2, 3):
                mine, theirs = context.Pipe()
                children.append((context.Process(target=child, args=(n, 2, theirs)), mine))
                children[-1][0].start()
            for process, mine in children:
                assert mine.poll(90), f"{method}: no answer"
                assert mine.recv() == expected, f"{method}: other bits"
                process.join(60)
                assert process.exitcode == 0, f"{method}: exit code {process.exitcode}"
    finally:
        stop.set()
    other.join()
    print(len(seen) > 0, all(found == expected for found in seen))
"""


def test_threads_forks_and_spawns_at_once_give_the_same_bits(tmp_path):
    script = tmp_path / "everywhere.py"
    script.write_text(EVERYWHERE)
    methods = ["fork", "spawn"] if hasattr(os, "fork") else ["spawn"]
    done = subprocess.run(
        [sys.executable, str(script), *methods], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True True"


# NumPy loads `numpy.fft` when its name is first asked for. A thread that asks for it when it is loaded, and NumPy has
# not put the name in its place yet, gets a RecursionError. That moment is a long one here.
FIRST = """
import threading, time, types
import numpy as np
import gpuresample as gr

class Slow(types.ModuleType):
    def __setattr__(self, name, value):
        if name == "fft":
            begun.set()
            time.sleep(0.5)
        super().__setattr__(name, value)

def work():
    done.append(gr.resample(np.ones((5, 6, 7), np.float32), size=(6, 7, 8), device="cpu").shape)

begun, done = threading.Event(), []
np.__class__ = Slow
first = threading.Thread(target=work)
first.start()
assert begun.wait(30)
work()
first.join()
print(done)
"""


def test_a_first_call_while_another_thread_loads_a_part_of_numpy():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip() == str([(6, 7, 8)] * 2), done.stderr


# A thread's first call loads a module, slowly, when another one forks.
LOADING = """
import os, sys, threading, time
import numpy as np

import gpuresample as gr

begun = threading.Event()

class Slow:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            begun.set()
            time.sleep(0.5)

def work():
    image, turn = np.ones((40, 40, 40), np.float32), np.eye(4)[:3] + 0.1
    gr.resample(image, size=(50, 50, 50), interpolation="linear", device="cpu")
    gr.resample(image, transform=turn, interpolation="linear", device="cpu")

sys.meta_path.insert(0, Slow())
gr.set_num_threads(2)
thread = threading.Thread(target=work)
thread.start()
assert begun.wait(30)
child = os.fork()
if not child:
    work()
    os._exit(0)
thread.join()
end = time.monotonic() + 30
while not os.waitpid(child, os.WNOHANG)[0]:
    if time.monotonic() > end:
        os.kill(child, 9)
        sys.exit("the child waits for ever")
    time.sleep(0.02)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("module", ["ops.resample", "engines.cpu.engine", "engines.cpu.gather"])
def test_a_fork_waits_for_a_module_that_another_thread_loads(module):
    command = [sys.executable, "-W", "ignore", "-c", LOADING, f"gpuresample.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


# Forks wait for a module that is being loaded. If that one has forks take a lock of its own, as logging does, a fork
# that waits may release that lock without having taken it.
HOOKS = """
import os
from gpuresample.engines import threads

late = set()

def registered(**hooks):
    register(**hooks)
    if "before" in hooks:
        late.add(hooks["before"].__module__)

register, os.register_at_fork = os.register_at_fork, registered
import numpy as np
import SimpleITK as sitk
import gpuresample as gr

image = np.ones((40, 40, 40), np.float32)
gr.set_num_threads(2)
gr.resample(image, size=(50, 50, 50))
gr.resample(image, transform=np.eye(4)[:3] + 0.1, interpolation="linear")
gr.resample(sitk.GetImageFromArray(image), transform=sitk.Euler3DTransform((20, 20, 20), 0.1, 0.2, 0.3), spacing=0.9)
gr.gaussian(image, sigma=1.5)
gr.pyramid(image, 2)
gr.ensemble([image[None], -image[None]], size=(50, 50, 50))
print(late)
"""


def test_no_call_loads_what_has_forks_take_locks():
    done = subprocess.run([sys.executable, "-c", HOOKS], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip() == "{'gpuresample.engines.threads'}", done.stderr


def test_a_fork_that_waited_in_vain_leaves_the_lock_to_who_holds_it(monkeypatch):
    hooks = {}
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.update(given), raising=False)
    monkeypatch.setattr(pool, "FORK_WAITS", 0.01)
    lock = threading.RLock()
    pool.held_at_forks(lambda: lock)

    def fork():
        hooks["before"]()
        hooks["after_in_parent"]()

    hooks["after_in_parent"]()  # the hooks came while a fork was under way
    hooks["before"]()
    other = threading.Thread(target=fork)
    other.start()
    other.join()
    hooks["after_in_parent"]()
    free = []
    other = threading.Thread(target=lambda: free.append(lock.acquire(timeout=5)))
    other.start()
    other.join()
    assert free == [True]


# What a loader's workers do: all at once, with nothing compiled yet, each another voxel type.
COLD = """
import glob, multiprocessing, os, sys, time
import numpy as np
import gpuresample as gr

KINDS = ["uint8", "int16", "float32", "float64"]

def image(kind):
    return (100 * np.random.default_rng(0).random((12, 14, 16))).astype(kind)

def work(kind, gate, answers):
    gate.wait(timeout=100)
    out = gr.resample(image(kind), spacing=0.9, interpolation="nearest")
    answers.put((kind, out.tobytes(), gr.get_num_threads()))

def files():
    return sorted(glob.glob(os.environ["NUMBA_CACHE_DIR"] + "/**/*copy_block*.so", recursive=True))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    gate, answers = context.Barrier(len(KINDS)), context.Queue()
    workers = [context.Process(target=work, args=(kind, gate, answers)) for kind in KINDS]
    [w.start() for w in workers]
    got = [answers.get(timeout=200) for _ in KINDS]
    [w.join(timeout=60) for w in workers]
    assert [w.exitcode for w in workers] == [0] * len(KINDS)
    assert {threads for _, _, threads in got} == {1}
    # Every worker's code is there under its own name: nothing is compiled again here, and nothing is mistaken.
    compiled = files()
    for kind, result, _ in got:
        assert gr.resample(image(kind), spacing=0.9, interpolation="nearest").tobytes() == result, kind
    print(len(compiled), files() == compiled)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_that_compile_at_once_keep_each_others_code(method, tmp_path):
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    script = tmp_path / "cold.py"
    script.write_text(COLD)
    alone = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "GPURESAMPLE_LEVEL": "none"}
    env = {k: v for k, v in os.environ.items() if k != pool.ENVIRONMENT} | alone
    done = subprocess.run(
        [sys.executable, str(script), method], capture_output=True, text=True, timeout=400, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4 True"
    assert done.stderr == ""


def test_a_worker_of_multiprocessing_takes_one_thread_unless_told():
    code = """
import multiprocessing
import gpuresample as gr

def ask(_):
    return gr.get_num_threads()

with multiprocessing.get_context("fork").Pool(2) as workers:
    print(*workers.map(ask, range(2)))
"""
    assert python(code) == "1 1"
    assert python(code, GPURESAMPLE_NUM_THREADS="3") == "3 3"


def test_at_most_bounds_the_calling_thread_only(threads):
    threads(4)
    seen = []
    with pool.at_most(2):
        other = threading.Thread(target=lambda: seen.append(pool.get_num_threads()))
        other.start()
        other.join()
        with pool.at_most(3), pool.at_most(None):
            seen.append(pool.get_num_threads())
        seen.append(pool.get_num_threads())
    assert seen == [4, 2, 2]
    assert pool.get_num_threads() == 4


def test_the_program_ends_with_its_threads():
    code = """
import numpy as np, gpuresample as gr
gr.set_num_threads(4)
gr.resample(np.zeros((40, 50, 60), np.float32), spacing=0.9)
print("done")
"""
    assert python(code, timeout=60) == "done"


@pytest.mark.parametrize("shape", [(), (5,), (3, 1, 70), (2, 40, 50, 9), (1, 1, 3000), (0, 4)])
@pytest.mark.parametrize("layout", ["c", "f", "sliced"])
def test_copies_on_all_threads(shape, layout, monkeypatch):
    monkeypatch.setattr(pool, "COPIED_AT_ONCE", 64)
    src = np.random.default_rng(1).integers(-99, 99, shape).astype(">i2")
    if layout == "f":
        src = np.asfortranarray(src)
    if layout == "sliced" and shape:
        src = np.repeat(src, 2, axis=0)[::2]
    dst = np.full(shape, -1, np.float32)
    threads = []
    monkeypatch.setattr(pool, "run_items", lambda job, n: (threads.append(n), [job(k) for k in range(n)]))
    monkeypatch.setattr(pool, "get_num_threads", lambda: 3)
    pool.copy(dst, src)
    assert (dst == src).all()
    assert bool(threads) == (dst.nbytes >= 128)


# --- a container's share of the processors ---------------------------------------------------------------------------


def groups(tmp_path, own, files):
    """The quota that such files say, `own` being what the process's own file says."""
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    return quota.cpu_quota.__wrapped__(tmp_path / "groups", tmp_path / "own")


QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
V1 = "5:memory:/x\n4:cpu,cpuacct:/docker/1\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "max 100000\n"}, math.inf),
        ("0::/gone\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/\n", {"cpu.max": "1 0"}, math.inf),
        ("", {"cpu.max": "100000 100000\n"}, math.inf),
        ("nonsense\n", {}, math.inf),
        (V1, {f"cpu,cpuacct/docker/1/{QUOTA}": "300000", f"cpu,cpuacct/docker/1/{PERIOD}": "100000"}, 3),
        (V1, {f"cpu,cpuacct/{QUOTA}": "300000\n", f"cpu,cpuacct/{PERIOD}": "100000\n"}, 3),
        (V1, {f"cpu/docker/1/{QUOTA}": "-1", f"cpu/docker/1/{PERIOD}": "100000"}, math.inf),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2),
        ("1:name=cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, math.inf),
    ],
)  # fmt: skip
def test_quotas_of_containers(own, files, expected, tmp_path):
    assert groups(tmp_path, own, files) == expected


def test_no_groups_no_quota(tmp_path):
    assert quota.cpu_quota.__wrapped__(tmp_path, tmp_path / "none") == math.inf


@pytest.mark.parametrize(("share", "expected"), [(1.5, 2), (1.0, 1), (0.1, 1), (7.2, 6), (math.inf, 6), (6.0, 6)])
def test_threads_follow_the_containers_quota(share, expected, monkeypatch):
    monkeypatch.setattr(pool, "cpu_quota", lambda: share)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert pool.cores() == expected
