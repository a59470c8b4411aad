"""Kernels called by address: what they take, answer and raise, their bits, and the list of those compiled ahead."""

import copy
import json
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from numba.core.errors import TypingError

import gpuresample as gr
from benchmarks import signatures
from gpuresample.engines.cpu import ahead, compiler, jit, shipped, store
from gpuresample.engines.cpu.jit import VARIES, Kernel, Prepared

MODULE = '''
from typing import NamedTuple

import numpy as np
from gpuresample.engines.cpu.jit import njit

class Line(NamedTuple):
    starts: np.ndarray
    between: tuple[float, float]
    slope: int

class Pair(NamedTuple):
    low: float
    high: float

class Turned(NamedTuple):
    """The names of `Pair` in another order."""
    high: float
    low: float

class Other(NamedTuple):
    """The names of `Pair` in their order."""
    low: float
    high: float

@njit()
def width(ends):
    return ends.high - ends.low

@njit()
def at(line, x):
    """A point of a line that begins with its last start."""
    low, high = line.between
    return line.starts[line.starts.size - 1] + line.slope * min(max(x, low), high)

@njit()
def total(x, factor, more):
    """The sum of an array, times a number, and of a tuple's array; how many numbers; whether the sum is positive."""
    count, sum = 0, 0.0
    for value in x.flat:
        sum += value
        count += 1
    for value in more[0]:
        sum += value * more[1]
    return sum * factor, count, sum > 0

@njit()
def first(x):
    return x[0]

@njit()
def room(n):
    return np.empty(n).size

@njit()
def pair(x):
    a, b = x
    return a - b

@njit()
def nothing(x):
    x[0] = 1

@njit()
def last(x):
    return x.ravel()[x.size - 1]

@njit()
def drawn():
    return np.random.random()
'''


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """A module of kernels."""
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "some_kernels.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        import some_kernels

        yield some_kernels
    sys.modules.pop("some_kernels", None)


@pytest.mark.parametrize(
    "change",
    [lambda a: a, lambda a: a.T, lambda a: a[:, ::-2], lambda a: a[:0], lambda a: a[1:2], np.asfortranarray],
    ids=["C", "transposed", "steps", "none", "one row", "Fortran"],
)
def test_an_array_in_any_layout_is_taken(kernels, change):
    x = change(np.arange(12, dtype=np.int16).reshape(3, 4))
    more = (np.array([1.0, 2.0], np.float32), 3)
    for _ in range(2):
        assert kernels.total(x, 0.5, more) == ((x.sum() + 9) * 0.5, x.size, True)


def test_what_follows_a_call_in_another_layout_is_right(kernels):
    """One signature's code is never run on another's arrays."""
    x = np.arange(24.0).reshape(4, 6)
    more = (np.zeros(1, np.float32), 1)
    for part in (x, x[:, ::2], x[::2], x.T, x):
        assert kernels.total(part, 1.0, more)[0] == part.sum()


def test_numbers_keep_their_values(kernels):
    for value in (np.float32(0.1), np.float64(0.1), 0.1, -3, True, np.uint8(200), np.int64(-5), (1 << 64) - 1):
        x = np.array([1.0, 2.0])
        found = kernels.total(x, value, (np.zeros(0, np.float32), 1))[0]
        assert found == pytest.approx(3.0 * float(value), rel=1e-15)
    for kind in ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
        x = np.array([np.iinfo(kind).max if kind[0] in "iu" else 1], kind)
        assert kernels.first(x) == x[0]
    assert kernels.pair((1 << 62, 1)) == (1 << 62) - 1
    assert kernels.nothing(np.zeros(1)) is None


def test_an_array_is_reshaped_without_numba(kernels):
    for shape in ((2, 3, 4), (1, 5, 1), (1, 1, 1)):
        x = np.arange(float(np.prod(shape))).reshape(shape)
        assert kernels.last(x) == x.flat[-1]
    assert store.is_kept(kernels.last, "f8[3]")


def test_subclasses_are_what_they_are_made_of(kernels, tmp_path):
    held = np.memmap(tmp_path / "file", np.float32, "w+", shape=(3,))
    held[:] = 2
    assert kernels.first(held) == 2


def test_errors_are_the_function_s_own(kernels):
    with pytest.raises(ValueError, match="negative dimensions not allowed"):
        kernels.room(-1)
    with pytest.raises(MemoryError):
        kernels.room(1 << 56)
    with pytest.raises(ValueError, match=r"^$"):  # Numba says no more
        kernels.pair(np.zeros(3))
    assert kernels.room(7) == 7


@pytest.mark.parametrize("value", [None, "text", [1, 2], 1j, np.zeros(2, np.float16), np.zeros(2, ">f4")])
def test_what_no_kernel_takes_is_refused(kernels, value):
    with pytest.raises(TypeError, match="a kernel takes"):
        kernels.first(value)


def test_an_array_that_is_not_aligned_is_refused(kernels):
    x = np.frombuffer(bytes(25), np.uint8)[1:].view(np.float64)
    kernels.first(np.zeros(3))
    for _ in range(2):
        with pytest.raises(TypeError, match="arrays must be aligned"):
            kernels.first(x)


def test_an_array_s_fields_lie_where_code_looks_for_them():
    assert store.layout_is_known()


# --- named tuples ----------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(kernels, monkeypatch):
    """The kernels of calls that did not go the short way; of these two, none was called before."""
    for kernel in (kernels.width, kernels.at):
        kernel.entries.clear()
        kernel._quick.clear()
    seen, own = [], Kernel._slowly
    monkeypatch.setattr(Kernel, "_slowly", lambda k, args, kinds: seen.append(k.name) or own(k, args, kinds))
    return seen


def test_a_kernel_reads_a_named_tuple_by_name(kernels, slow):
    for low, high in ((1.0, 3.0), (5.0, 2.0), (-0.5, 0.5)):
        assert kernels.width(kernels.Pair(low, high)) == high - low
    assert slow == ["some_kernels.width"], "later calls go the short way"


def test_tuples_of_the_same_types_and_other_names_do_not_share_code(kernels, slow):
    """Whichever comes first, and when they take turns."""
    for _ in range(3):
        assert kernels.width(kernels.Pair(1.0, 3.0)) == 2.0
        assert kernels.width(kernels.Turned(1.0, 3.0)) == -2.0
        assert kernels.width(kernels.Other(1.0, 3.0)) == 2.0
    assert set(kernels.width.entries) == {"(low=f8 high=f8)", "(high=f8 low=f8)"}
    assert len(slow) == 3, "each class is looked at once"
    kept = [store._kept(kernels.width, signature) for signature in kernels.width.entries]
    assert len({next(files)[0] for files in kept}) == 2
    for level in ("x86-64-v3", "aarch64"):
        assert len({shipped.symbol(level, kernels.width, signature) for signature in kernels.width.entries}) == 2


def test_parts_without_names_are_not_read_by_name(kernels):
    kernels.width(kernels.Pair(1.0, 3.0))
    with pytest.raises(TypingError, match="Unknown attribute 'high'"):
        kernels.width((1.0, 3.0))


def test_named_tuples_hold_arrays_and_tuples(kernels, slow, tmp_path):
    held = np.memmap(tmp_path / "file", np.int16, "w+", shape=(2,))
    held[:] = 3, 7
    for starts in (np.array([1, 5], np.int16), np.array([1, 4, 5, 2], np.int16)[::2], held):
        for x, kept in ((0.25, 0.5), (0.75, 0.75), (9.0, 1.0)):
            assert kernels.at(kernels.Line(starts, (0.5, 1.0), 2), x) == starts[-1] + 2 * kept
    assert set(kernels.at.entries) == {f"(starts=i2[{n}] between=(f8 f8) slope=i8) f8" for n in ("1", "1A")}, (
        "an array of another class is taken for what it is"
    )
    slow.clear()
    line = kernels.Line(np.array([1, 5], np.int16), (0.5, 1.0), 2)
    prepared = Prepared(kernels.at, (line, VARIES))
    assert [prepared(x) for x in (0.25, 0.75, 9.0)] == [6.0, 6.5, 7.0]
    assert slow == []
    assert prepared._quick[1] is not None


def test_a_signature_s_named_tuples_are_numba_s_own():
    line, ends = compiler.types_of("(starts=i2[1A] between=(f8 f8) slope=i8) (low=f8 high=f8)")
    assert (line.fields, ends.fields) == (("starts", "between", "slope"), ("low", "high"))
    assert line.types == compiler.types_of("i2[1A] (f8 f8) i8")
    (turned,) = compiler.types_of("(high=f8 low=f8)")
    assert turned != ends
    assert compiler.types_of("(low=f8 high=f8)") == (ends,)


def test_repeated_calls_of_the_engine_go_the_short_way(slow):
    """Its tables are named tuples: whoever looked at their names in every call would take longer than small arrays."""
    result()
    slow.clear()
    result()
    assert slow == []


# --- the same bits as Numba's ----------------------------------------------------------------------------------------

VOLUME = (1000 * np.random.default_rng(3).standard_normal((20, 21, 23))).astype(np.int16)


def result():
    return gr.resample(VOLUME, size=(17, 30, 19), interpolation="linear", device="cpu").tobytes()


def test_bits_are_those_of_numba_s_own_code(monkeypatch):
    kept = result()
    called = []
    own = Kernel._by_numba.func
    monkeypatch.setattr(Kernel, "_by_numba", property(lambda k: called.append(k.name) or compiled(k)))
    made = {}

    def compiled(kernel):
        return made.setdefault(kernel.name, own(kernel))

    signatures.forget()
    with monkeypatch.context() as patched:
        patched.setattr(store, "layout_is_known", lambda: False)
        assert result() == kept
    # It takes arrays, numbers, flags and tuples of them. Numba compiles it for this test alone.
    assert called == ["table_kernels.separable_block"] * len(called) != []
    signatures.forget()


# --- where it is kept, and where it is not ---------------------------------------------------------------------------

CHILD = """
import json, sys
import numpy as np
import gpuresample as gr
out = gr.resample(np.arange(27, dtype=np.uint8).reshape(3, 3, 3), size=(2, 2, 2), interpolation="nearest", device="cpu")
print(json.dumps([int(out.sum()), "numba" in sys.modules, "llvmlite" in sys.modules]))
"""


def child(folder, **environment):
    """The sum, and whether Numba and LLVM were loaded."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder)} | environment
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=300, env=env, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_second_process_needs_no_compiler(tmp_path):
    right = int(np.arange(27).reshape(3, 3, 3)[::2, ::2, ::2].sum())
    assert child(tmp_path) == [right, True, True]
    assert child(tmp_path) == [right, False, False]


def test_without_a_linker_llvm_alone_loads_what_is_kept(tmp_path):
    right = int(np.arange(27).reshape(3, 3, 3)[::2, ::2, ::2].sum())
    assert child(tmp_path, PATH="") == [right, True, True]
    assert [p.suffix for p in tmp_path.iterdir()] == [".o"]
    assert child(tmp_path, PATH="") == [right, False, True]


def test_code_of_another_machine_or_setting_is_not_run(tmp_path, monkeypatch):
    kernel = ahead.kernel_of("table_kernels.copy_block")
    signature = next(s for name, s in ahead.recorded() if name == "table_kernels.copy_block")
    seen = {store._key(kernel, signature)}
    with monkeypatch.context() as patched:
        patched.setattr(store, "machine", lambda: "another processor")
        seen.add(store._key(kernel, signature))
    with monkeypatch.context() as patched:
        patched.setenv("NUMBA_BOUNDSCHECK", "1")
        seen.add(store._key(kernel, signature))
    with monkeypatch.context() as patched:
        patched.setattr(store, "_numba", lambda: "another Numba")
        seen.add(store._key(kernel, signature))
    assert len(seen) == 4
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert store._key(kernel, signature) in seen


def test_a_setting_that_a_program_makes_counts_as_one_of_the_environment(monkeypatch):
    from numba import config

    kernel = ahead.kernel_of("table_kernels.copy_block")
    signature = next(s for name, s in ahead.recorded() if name == kernel.name)
    usual = store._key(kernel, signature)
    for name, value in (("BOUNDSCHECK", 1), ("OPT", 0), ("CPU_NAME", "generic")):
        with monkeypatch.context() as patched:
            patched.setattr(config, name, value)
            assert store._key(kernel, signature) != usual
    assert store._key(kernel, signature) == usual
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    assert store.interpreted()


def test_a_kernel_that_python_cannot_run_says_so(monkeypatch):
    kernel = ahead.kernel_of("gather_kernels.linear_rows")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(
        RuntimeError, match=r"NUMBA_DISABLE_JIT is set, and gather_kernels\.linear_rows has instructions"
    ):
        kernel(np.zeros(3))


def test_a_kernel_is_one_and_the_same_when_it_is_copied():
    for name, _ in ahead.recorded():
        kernel = ahead.kernel_of(name)
        assert copy.deepcopy(kernel) is kernel
        assert pickle.loads(pickle.dumps(kernel)) is kernel


def test_code_that_needs_numba_s_own_functions_runs_and_is_not_kept(kernels, caplog):
    assert 0 <= kernels.drawn() < 1
    assert not store.is_kept(kernels.drawn, "")
    assert "cannot be kept" in caplog.text


# --- compiled ahead --------------------------------------------------------------------------------------------------


def test_the_list_is_what_the_jobs_ask_for():
    """Where this fails, kernels have changed: `python -m benchmarks.signatures --write`."""
    asked, listed = set(signatures.record()), set(ahead.recorded())
    # Kernels are not run for it: what memory happens to hold decides whether sums are made anew for a few more types.
    assert {one for one in asked - listed if one[0] != "exact_kernels.exact_rows"} == set()
    assert len(asked) > 0.9 * len(listed)


def test_every_kernel_of_the_list_is_one():
    for name, signature in ahead.recorded():
        kernel = ahead.kernel_of(name)
        assert kernel.py_func.__code__.co_argcount == len(list(arguments(signature))), name


def arguments(signature):
    """The arguments of a signature, tuples whole."""
    depth, now = 0, ""
    for letter in f"{signature} ":
        depth += (letter == "(") - (letter == ")")
        if letter == " " and depth == 0:
            yield now
            now = ""
        else:
            now += letter


def test_processes_compile_what_is_missing_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    some = [one for one in ahead.recorded() if one[0] in ("path_kernels.row_ends", "path_kernels.move_linear")]
    assert len(some) == 2
    short = tmp_path / "list.txt"
    short.write_text("".join(f"{name} {signature}\n" for name, signature in some))
    assert ahead.build(2, short) == (2, 2)
    assert ahead.build(2, short) == (0, 0)
    assert ahead.missing(some) == []


@pytest.mark.parametrize("name", ["os.path", "table_kernels.nobody", "table_kernels.ROWS"])
def test_unknown_kernels_are_refused(name):
    with pytest.raises(ValueError, match=r"no (module of kernels|kernel)"):
        ahead.kernel_of(name)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "2", 5000])
def test_warmup_refuses_what_is_no_number_of_processes(value):
    with pytest.raises((ValueError, TypeError), match="processes must be a whole number from 1 to 4096, got"):
        gr.warmup(processes=value)


def test_warmup_says_what_it_did(monkeypatch):
    monkeypatch.setattr(ahead, "build", lambda n: (3, 3))
    assert gr.warmup(processes=1) == 3
    monkeypatch.setattr(ahead, "build", lambda n: (3, 1))
    with pytest.raises(RuntimeError, match="2 of 3 kernels could not be compiled or kept"):
        gr.warmup()


def test_a_signature_s_types_are_counted():
    assert jit.leaves("i8 (f4[1] (b1 u4[2])) f8") == ["i8", "f4[1]", "b1", "u4[2]", "f8"]
    assert jit.leaves("(a=i8 b=(c=f4[1] d=(b1 u4[2A]))) f8") == ["i8", "f4[1]", "b1", "u4[2A]", "f8"]


def test_a_kernel_s_signatures_go_to_one_process_until_another_has_nothing_to_do():
    many, few = [("many", str(n)) for n in range(5)], [("few", str(n)) for n in range(2)]
    handout = ahead.Handout([*few, *many])
    assert handout.after("") == ("many", "0")
    # Ties go to the first of the list, what is done to the same kernel's next.
    assert [handout.after("few") for _ in range(2)] == few
    assert handout.after("few") == ("many", "1")
    assert [handout.after("many") for _ in range(4)] == [*many[2:], None]
    assert handout.after("few") is None


def test_a_process_that_dies_is_seen_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    some = [one for one in ahead.recorded() if one[0] in ("path_kernels.row_ends", "path_kernels.move_linear")]
    broken = ("path_kernels.row_ends", "i8")
    assert not ahead.spread([broken, *some], ahead.__name__, [], 2)
    assert ahead.missing(some) == []


# --- processes that compile ------------------------------------------------------------------------------------------

WORKER = """
import os, sys, time
from pathlib import Path
from gpuresample.engines.cpu import ahead

def main(arguments):
    for name, signature in ahead.asked():
        Path(arguments[0], signature).write_text(str(os.getpid()))
        print("what is printed is no answer", flush=True)
        os.system("echo nor what others print")
        if "waits" in arguments:
            time.sleep(60)
    return 0
"""
WANTED = [("any.kernel", str(k)) for k in range(5)]


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A module that does what it is asked, and the folder where it says so."""
    (tmp_path / "talkative.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    done = tmp_path / "done"
    done.mkdir()
    return "talkative", done


def test_what_a_process_prints_is_no_answer(worker):
    module, done = worker
    assert ahead.spread(WANTED, module, [str(done)], 2)
    assert sorted(one.name for one in done.iterdir()) == [signature for _, signature in WANTED]


def test_ctrl_c_of_the_parent_alone_ends_the_others(worker, monkeypatch):
    module, done = worker

    class Interrupted(ahead.ThreadPoolExecutor):
        def map(self, serve, running):
            super().map(serve, running)
            end = time.monotonic() + 30
            while not list(done.iterdir()) and time.monotonic() < end:
                time.sleep(0.01)
            raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "ThreadPoolExecutor", Interrupted)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ahead.spread(WANTED, module, [str(done), "waits"], 1)
    assert time.monotonic() - start < 45
    assert len(list(done.iterdir())) == 1
