"""Compiled kernels that come with the package: which are taken, and what happens to those that do not fit."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gpuresample.engines.cpu import ahead, build, exact_kernels, shipped, store, table_kernels

NAMES = ("table_kernels.copy_block", "exact_kernels.blur_row", "exact_kernels.axis_cells")
LIST = [next(one for one in ahead.recorded() if one[0] == name) for name in NAMES]
KERNEL, SIGNATURE = ahead.kernel_of(LIST[0][0]), LIST[0][1]
# What Linux says of processors, older ones first.
BASE = "fpu sse sse2"
V2 = f"{BASE} pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
V3 = f"{V2} fma movbe xsave avx f16c abm bmi1 avx2 bmi2"
V4 = f"{V3} avx512f avx512dq avx512cd avx512bw avx512vl"
BUILDS = pytest.mark.skipif(
    build.driver() is None or not shipped.levels(), reason="libraries of kernels are not built on this machine"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a library of these kernels, for this processor."""
    folder = tmp_path_factory.mktemp("made")
    short = folder.with_name("list.txt")
    short.write_text("".join(f"{name} {signature}\n" for name, signature in LIST))
    build.build(folder, shipped.levels()[:1], short, 1)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it, which kernels are taken from."""
    copy = tmp_path / "compiled"
    shutil.copytree(made, copy)
    monkeypatch.setattr(shipped, "FOLDER", copy)
    monkeypatch.setattr(shipped._Said, "unusable", False)
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    for name in store.settings():
        monkeypatch.delenv(name)
    shipped.library.cache_clear()
    yield copy
    shipped.library.cache_clear()


def path_of(folder):
    return folder / shipped.file_name(shipped.levels()[0])


# --- which instruction sets a processor has --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (V4, ["x86-64-v4", "x86-64-v3", "x86-64-v2"]),
        (V3, ["x86-64-v3", "x86-64-v2"]),
        (f"{V3} avx512f avx512cd", ["x86-64-v3", "x86-64-v2"]),
        (V2, ["x86-64-v2"]),
        (f"{V2} avx", ["x86-64-v2"]),
        (BASE, []),
        ("", []),
    ],
)
def test_a_processor_s_instruction_sets(flags, expected):
    text = f"processor\t: 0\nmodel name\t: any: one\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: {V4}\n"
    assert shipped.levels("x86_64", shipped.features_in(text)) == expected


@pytest.mark.parametrize("lacks", V4.split())
def test_a_processor_that_lacks_one_feature_is_an_older_one(lacks):
    has = frozenset(V4.split()) - {lacks}
    best = 4 if lacks in BASE else 3 if lacks not in V3.split() else 2 if lacks not in V2.split() else 1
    assert shipped.levels("x86_64", has) == [f"x86-64-v{k}" for k in range(best, 1, -1)]


def test_other_kinds_of_machines():
    assert shipped.levels("aarch64", frozenset()) == shipped.levels("arm64", frozenset()) == ["aarch64"]
    assert shipped.levels("riscv64", frozenset(V4.split())) == []
    assert shipped.features_in("no processor that we know") == frozenset()


def test_what_numpy_does_not_find_is_not_there_whatever_the_system_says(monkeypatch, tmp_path):
    """So it is under an emulator of a lesser processor, which shows the file of the machine that it runs on."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {V4}\n")
    monkeypatch.setattr(shipped, "Path", lambda path: cpuinfo)
    every = dict.fromkeys(shipped._BY_NUMPY.values(), True)
    assert set(shipped._BY_NUMPY) <= set(V4.split())
    for lacks, best in (({}, 4), ({"AVX512VL"}, 3), ({"AVX2"}, 2), ({"FMA3"}, 2), ({"SSE42"}, 1)):
        monkeypatch.setattr(shipped.store, "asked_by_numpy", lambda lacks=lacks: every | dict.fromkeys(lacks, False))
        has = shipped.features.__wrapped__()
        assert shipped.levels("x86_64", has) == [f"x86-64-v{k}" for k in range(best, 1, -1)], lacks
    monkeypatch.setattr(shipped.store, "asked_by_numpy", dict)  # a NumPy that has other names
    assert shipped.features.__wrapped__() == frozenset(V4.split())


def test_a_lower_instruction_set_can_be_asked_for_and_a_higher_one_is_not_taken(monkeypatch):
    monkeypatch.setattr(shipped.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shipped, "features", lambda: frozenset(V3.split()))
    for asked, taken in (("", [3, 2]), ("x86-64-v4", [3, 2]), ("x86-64-v3", [3, 2]), ("x86-64-v2", [2]), ("none", [])):
        monkeypatch.setenv(shipped.VARIABLE, asked)
        assert shipped.wanted() == [f"x86-64-v{k}" for k in taken], asked
    monkeypatch.setenv(shipped.VARIABLE, "aarch64")
    assert shipped.wanted() == []
    monkeypatch.setenv(shipped.VARIABLE, "avx2")
    with pytest.raises(ValueError, match=r"GPURESAMPLE_LEVEL must be one of x86-64-v4, .*, none; got 'avx2'"):
        shipped.wanted()


# --- a library that fits ---------------------------------------------------------------------------------------------

CHILD = """
import json, pathlib, sys
import numpy as np
import gpuresample as gr
from gpuresample.engines.cpu import shipped
shipped.FOLDER = pathlib.Path(sys.argv[1])
out = gr.resample(np.arange(27, dtype=np.uint8).reshape(3, 3, 3), size=(2, 2, 2), interpolation="nearest", device="cpu")
print(json.dumps([int(out.sum()), "numba" in sys.modules, "llvmlite" in sys.modules]))
"""


@BUILDS
def test_a_first_call_loads_no_compiler_and_writes_nothing(folder, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-W", "error", "-c", CHILD, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    right = int(np.arange(27).reshape(3, 3, 3)[::2, ::2, ::2].sum())
    assert json.loads(done.stdout) == [right, False, False]
    assert list(cache.iterdir()) == []


@BUILDS
def test_bits_are_those_of_code_that_is_compiled_here(folder, monkeypatch):
    kernel, rng = ahead.kernel_of(LIST[1][0]), np.random.default_rng(0)
    x, weights = rng.standard_normal(201).astype(np.float32), rng.random(9)
    results, places = [], []
    for asked in ("", "none"):
        monkeypatch.setenv(shipped.VARIABLE, asked)
        kernel.entries.clear()
        kernel._quick.clear()
        out = np.empty_like(x)
        kernel(x, out, 0, x.size, weights, np.empty(x.size), np.empty(x.size + 8))
        results.append(out)
        places += [entry._code.place for entry in kernel.entries.values()]
    assert places[0] == path_of(folder) != places[1]
    assert results[0].tobytes() == results[1].tobytes()
    right = np.convolve(np.pad(x.astype(float), 4, "edge"), weights[::-1], "valid")
    np.testing.assert_allclose(results[0], right, rtol=1e-6)


@BUILDS
def test_shipped_code_takes_a_named_tuple(folder):
    kernel = ahead.kernel_of(NAMES[2])
    kernel.entries.clear()
    kernel._quick.clear()
    cells = exact_kernels.Cells(np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3))
    kernel(np.array([0.0, 1.25, 2.0]), 4, cells)
    assert [entry._code.place for entry in kernel.entries.values()] == [path_of(folder)]
    assert [part.tolist() for part in cells] == [[0, 1, 2], [0, 2, 2], [0.0, 0.25, 0.0]]
    kernel.entries.clear()
    kernel._quick.clear()


@BUILDS
def test_only_what_is_in_it_is_taken(folder):
    there = shipped.load(KERNEL, SIGNATURE)
    assert there is not None
    assert there.place == path_of(folder)
    assert shipped.load(KERNEL, SIGNATURE.replace("u1", "f4")) is None
    assert ahead.missing(LIST) == []


@BUILDS
def test_code_for_other_settings_of_numba_is_compiled(folder, monkeypatch):
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert shipped.load(KERNEL, SIGNATURE) is None


# --- libraries that do not fit ---------------------------------------------------------------------------------------


def truncated(folder):
    path = path_of(folder)
    path.write_bytes(path.read_bytes()[:-1000])


def something_else(folder):
    path = path_of(folder)
    path.write_bytes(bytes(path.stat().st_size))


def gone(folder):
    path_of(folder).unlink()


def a_folder(folder):
    path_of(folder).unlink()
    path_of(folder).mkdir()


def no_index(folder):
    (folder / shipped.INDEX).unlink()


def index_cut_off(folder):
    path = folder / shipped.INDEX
    path.write_text(path.read_text()[:-20])


def index_of_something_else(folder):
    (folder / shipped.INDEX).write_text('["sizes"]')


def of_another_processor(folder):
    path = folder / shipped.INDEX
    index = json.loads(path.read_text())
    index["sizes"] = {"x86-64-v9": 1000}
    path.write_text(json.dumps(index))


@BUILDS
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (truncated, "it has [0-9]+ bytes and not [0-9]+"),
        (something_else, "cannot be used"),
        (gone, "cannot be used"),
        (a_folder, "cannot be used"),
        (no_index, "cannot be read"),
        (index_cut_off, "cannot be read"),
        (index_of_something_else, "cannot be read"),
        (of_another_processor, "x86-64-v9, and this processor has none of these"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_library_that_does_not_fit_is_not_taken_and_a_warning_says_so_once(folder, change, said):
    change(folder)
    with pytest.warns(RuntimeWarning, match=f"{said}.*: kernels are compiled when they are first called"):
        assert shipped.load(KERNEL, SIGNATURE) is None
    assert shipped.load(KERNEL, SIGNATURE) is None
    shipped.library.cache_clear()
    assert shipped.load(KERNEL, SIGNATURE) is None


@BUILDS
def test_a_lower_instruction_set_stands_in_for_one_that_is_damaged(folder, monkeypatch):
    path = path_of(folder)
    index = json.loads((folder / shipped.INDEX).read_text())
    shutil.copyfile(path, folder / shipped.file_name("lower"))
    index["sizes"]["lower"] = path.stat().st_size
    (folder / shipped.INDEX).write_text(json.dumps(index))
    truncated(folder)
    monkeypatch.setattr(shipped, "levels", lambda: [path.stem, "lower"])
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert shipped.present().level == "lower"


@BUILDS
def test_code_of_another_version_is_not_found(folder, monkeypatch):
    now = store.sources(KERNEL)
    monkeypatch.setattr(store, "sources", lambda kernel: [*now[:-1], "another number"])
    with pytest.warns(RuntimeWarning, match="made of another version of table_kernels.copy_block"):
        assert shipped.load(KERNEL, SIGNATURE) is None


@BUILDS
def test_a_number_that_goes_into_the_code_is_looked_at(folder, monkeypatch):
    known = {k: v for k, v in vars(table_kernels).items() if type(v) in (int, float) and not k.startswith("_")}
    used = [k for k in known if any(k in one for one in KERNEL.constants())]
    if not used:
        pytest.skip("this kernel has no numbers from its module")
    monkeypatch.setattr(table_kernels, used[0], known[used[0]] + 1)
    with pytest.warns(RuntimeWarning, match="another version"):
        assert shipped.load(KERNEL, SIGNATURE) is None


def test_where_nothing_is_shipped_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "compiled")
    assert shipped.load(KERNEL, SIGNATURE) is None


# --- building --------------------------------------------------------------------------------------------------------


def test_without_a_linker_nothing_is_built(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="no compiler driver here"):
        build.build(tmp_path, ["x86-64-v2"], ahead.LIST, 1)


@pytest.mark.parametrize("arguments", [["--levels", "avx2"], ["--processes", "0"], []])
def test_a_wrong_command_line_is_refused(arguments, tmp_path, capsys):
    to = ["--to", str(tmp_path)] if arguments else []
    with pytest.raises(SystemExit):
        build.main([*to, *arguments])
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(("machine", "levels"), [("x86_64", ["x86-64-v3", "x86-64-v2"]), ("aarch64", ["aarch64"])])
def test_what_is_built_unless_it_is_named(monkeypatch, tmp_path, machine, levels):
    """No library that was never run: processors with AVX-512 take that for v3."""
    asked = []
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    monkeypatch.setattr(build, "build", lambda folder, chosen, *rest: asked.extend(chosen))
    assert build.main(["--to", str(tmp_path)]) == 0
    assert asked == levels
    assert shipped.levels("x86_64", shipped.LEVELS["x86_64"]["x86-64-v4"])[1:] == ["x86-64-v3", "x86-64-v2"]
