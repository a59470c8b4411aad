"""The cache of compiled code: it may be damaged, full, forbidden or busy, and no call fails or waits for it."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuresample.engines.cpu import compiler, gather_kernels, store

SOURCE = """
from gpuresample.engines.cpu.jit import njit

@njit(inner=True)
def one(x):
    return x + {one}

@njit()
def plus(x):
    return one(x) * 2
"""


def fresh(folder, one=1, name="plus_one"):
    """`plus` as a new process would have it, in a module of its own; its cache is in the module's folder."""
    path = folder / f"{name}.py"
    text = SOURCE.format(one=one)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    # Python's own code of a source that changes within a second, and is as long as it was, counts as its present one.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(importlib.util.cache_from_source(path))
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.plus


class Compiler:
    """Counts what is compiled; the rest was loaded."""

    compiled = 0


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Compilations of a test."""
    made, Compiler.compiled = compiler.object_of, 0

    def counting(kernel, signature, **options):
        Compiler.compiled += 1
        return made(kernel, signature, **options)

    monkeypatch.setattr(compiler, "object_of", counting)


def loaded(function):
    """How many versions of a function came from the cache, since it was asked last."""
    compiled, Compiler.compiled = Compiler.compiled, 0
    return len(function.entries) - compiled


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder with the versions of `plus` for an integer and a float, and their files."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # the second folder that is asked
    plus = fresh(tmp_path)
    assert (plus(3), plus(0.5), loaded(plus)) == (8, 3.0, 0)
    files = sorted(tmp_path.glob("__pycache__/*.so"))
    assert len(files) == 2
    return tmp_path, files


def test_what_was_kept_is_loaded(kept):
    folder, _ = kept
    plus = fresh(folder)
    assert (plus(3), plus(0.5), loaded(plus)) == (8, 3.0, 2)


damages = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("content"), st.binary(max_size=200)),
    st.tuples(st.just("longer"), st.binary(min_size=1, max_size=9)),
)


def test_damaged_code_is_compiled_anew(kept):
    folder, files = kept
    whole = files[0].read_bytes()

    @settings(max_examples=40)
    @given(damages)
    def run(damage):
        kind, value = damage
        content = {
            "cut": lambda: whole[: int(value * len(whole))],
            "flip": lambda: bytes(b ^ 16 if k == int(value * len(whole)) else b for k, b in enumerate(whole)),
            "content": lambda: value,
            "longer": lambda: whole + value,
        }[kind]()
        files[0].write_bytes(content)
        plus = fresh(folder)
        assert (plus(3), plus(0.5), loaded(plus)) == (8, 3.0, 1)
        again = fresh(folder)
        assert (again(3), again(0.5), loaded(again)) == (8, 3.0, 2), "what was compiled anew is kept"

    run()


def test_code_under_a_wrong_name_is_not_run(kept):
    folder, (a, b) = kept
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)
    plus = fresh(folder)
    assert (plus(3), plus(0.5), loaded(plus)) == (8, 3.0, 0)


def test_code_of_a_former_source_is_not_run(kept):
    folder, _ = kept
    plus = fresh(folder, one=7)
    assert (plus(3), loaded(plus)) == (20, 0)


def test_code_of_a_source_that_changed_since_its_import_is_neither_kept_nor_loaded(kept, monkeypatch):
    """Nobody knows what the functions in memory are of: a new process must not get their code, nor they the new one."""
    folder, _ = kept
    old = fresh(folder, one=7)
    (folder / "plus_one.py").write_text(SOURCE.format(one=1000))
    monkeypatch.setattr(store._Said, "unsaved", False)
    with pytest.warns(RuntimeWarning, match="has changed since it was imported"):
        assert old(3) == 20
    new = fresh(folder, one=1000)
    assert (new(3), loaded(new)) == (2006, -1)  # of two that were compiled, one is the old one


def test_code_is_old_where_a_function_of_another_file_changed(kept, monkeypatch):
    folder, _ = kept
    monkeypatch.syspath_prepend(str(folder))
    caller = folder / "calls_another.py"
    caller.write_text(
        "from gpuresample.engines.cpu.jit import njit\nfrom {module} import one\n"
        "@njit()\ndef plus(x):\n    return one(x) * 2\n".format(module="plus_one")
    )

    def called():
        for name in ("plus_one", "calls_another"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        import calls_another

        return calls_another.plus

    first, second = called(), called()
    assert (first(3), loaded(first), second(3), loaded(second)) == (8, 0, 8, 1)
    fresh(folder, one=70)
    for pyc in folder.glob("__pycache__/*.pyc"):
        pyc.unlink()
    changed = called()
    assert (changed(3), loaded(changed)) == (146, 0)
    for name in ("plus_one", "calls_another"):
        sys.modules.pop(name, None)


def test_code_is_as_old_as_the_instructions_in_it():
    """Functions that write LLVM's instructions are in files of their own."""
    for kernel in (gather_kernels.linear_rows, gather_kernels.cubic_rows):
        files = {path.name for path, _ in kernel.ways()}
        assert {"neighbours.py", "gather_kernels.py", "table_kernels.py"} <= files


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(kept, make):
    folder, files = kept
    files[0].unlink()
    make(files[0])
    plus = fresh(folder)
    assert (plus(3), plus(0.5), loaded(plus)) == (8, 3.0, 1)


def test_a_folder_in_the_file_s_place(kept, monkeypatch):
    folder, files = kept
    files[0].unlink()
    files[0].mkdir()
    monkeypatch.setattr(store._Said, "unsaved", False)
    plus = fresh(folder)
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert [plus(x) for x in (3, 0.5)] == [8, 3.0]
    assert not list(folder.glob("__pycache__/*.tmp"))


# No place to write at all, as for a user without a home beside a read-only installation.
NO_PLACE = """
import pathlib
def refused(*rest, **keywords):
    raise PermissionError(13, "Permission denied")
pathlib.Path.mkdir = pathlib.Path.write_bytes = refused
"""
# A full disk: files cannot be longer than some bytes.
FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""
CALLS = """
import numpy as np, gpuresample as gr
for kind in ("uint8", "int16"):
    print(gr.resample(np.ones((4, 4, 4), kind), size=(3, 3, 3), interpolation="nearest", device="cpu").sum())
"""


@pytest.mark.parametrize("before", [NO_PLACE, FULL], ids=["no place", "full"])
def test_calls_work_where_code_cannot_be_kept_and_say_so_once(before, tmp_path):
    pytest.importorskip("resource")
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", before + CALLS], capture_output=True, text=True, timeout=200, env=env, check=False
    )
    assert (done.returncode, done.stdout) == (0, "27\n27\n"), done.stderr
    assert done.stderr.count("compiled code cannot be kept") == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_another_thread_compiles_can_compile(tmp_path):
    code = """
import os, threading, time
import numpy as np, gpuresample as gr
from gpuresample.engines.cpu import engine
from numba.core.compiler_lock import global_compiler_lock

def compiles():
    with global_compiler_lock:
        begun.set()
        time.sleep(0.5)

begun = threading.Event()
thread = threading.Thread(target=compiles)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    gr.resample(np.ones((4, 4, 4), "u2"), size=(3, 3, 3), interpolation="nearest", device="cpu")
    os._exit(7)
thread.join()
deadline = time.monotonic() + 100
while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
    time.sleep(0.05)
if done == (0, 0):
    os.kill(child, 9)
print(os.waitstatus_to_exitcode(done[1]) if done[0] else "the child waits for ever")
"""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], capture_output=True, text=True, timeout=200,
        env=env, check=False,
    )  # fmt: skip
    assert done.stdout == "7\n", done.stderr


def test_threads_that_keep_the_same_code_at_once(kept):
    folder, _ = kept
    functions = [fresh(folder, one=5) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=f, args=(np.int64(k),)) for k, f in enumerate(functions)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    Compiler.compiled = 0
    plus = fresh(folder, one=5)
    assert (plus(np.int64(3)), loaded(plus)) == (16, 1)
