"""House rules: which way imports point, what an import loads, what is documented."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpuresample as gr
from gpuresample.engines.cpu.jit import Kernel

PACKAGE = Path(gr.__file__).parent

# From the bottom to the top: a room imports lower rooms only, itself apart. "engines.*" are the modules beside the
# engines, which both of them build on; "engines" chooses between the two.
ROOMS = (
    "checks", "caching", "memory", "texts", "installation", "planning", "engines.*", "engines.cpu", "engines.cuda",
    "engines", "containers", "chunked", "plans", "ops", "server", "sitk", "ndimage", "tensors", "warps", "torch",
    "monai", "torchio", "batchgenerators", "nnunet", "files", "omezarr", "pages", "batch", "distributed", "bench",
    "verification", "cli",
)  # fmt: skip
# Around the package, not in it: what measures, what compares and the command line use the front door, as users do.
SHELLS = ("bench", "verification", "cli")
# The front door, what every room needs, and faces.
MOST_AT_THE_ROOT = 14
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
           for path in SOURCES}  # fmt: skip


def room(module):
    """The room of a module, one of `ROOMS`."""
    first, *rest = module.split(".")
    if first != "engines" or not rest:
        return first
    return f"engines.{rest[0]}" if rest[0] in ("cpu", "cuda") else "engines.*"


def imports(path):
    """Modules of the package that a file imports, at the top or within functions, and the line."""
    known = set(MODULES.values())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "gpuresample":
                    yield alias.name.removeprefix("gpuresample").lstrip("."), node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            if (node.module or "").split(".")[0] != "gpuresample":
                continue
            base = node.module.removeprefix("gpuresample").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in known else base, node.lineno


@pytest.mark.parametrize("path", [p for p in SOURCES if MODULES[p]], ids=lambda p: MODULES[p])
def test_a_room_imports_lower_rooms_only(path):
    here = room(MODULES[path])
    assert here in ROOMS, f"{MODULES[path]} is in no room of ROOMS"
    for target, line in imports(path):
        there = room(target)
        if there == here or (target == "" and here in SHELLS):
            continue
        why = f"{MODULES[path]}, line {line}, imports {target or 'gpuresample'}"
        assert there in ROOMS[: ROOMS.index(here)], why
        assert {here, there} != {"engines.cpu", "engines.cuda"}, why


@pytest.mark.parametrize("name", [r for r in ROOMS if r not in SHELLS])
def test_no_room_has_an_import_cycle(name):
    """Imports within functions count, too: a cycle that they hide is one all the same."""
    left = {MODULES[p]: {t for t, _ in imports(p)} for p in SOURCES if MODULES[p] and room(MODULES[p]) == name}
    assert left
    while left:
        free = [m for m, targets in left.items() if not targets & set(left)]
        assert free, f"these import one another: {sorted(left)}"
        for module in free:
            del left[module]


PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "functools",
    "itertools",
    "math",
    "struct",
    "typing",
    "warnings",
    "weakref",
    "numpy",
}


@pytest.mark.parametrize("path", [p for p in SOURCES if room(MODULES[p]) == "planning"], ids=lambda p: MODULES[p])
def test_planning_imports_numpy_alone(path):
    """Functions may ask SimpleITK. Of the package, checks are all that is below."""
    for node in ast.parse(path.read_text()).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert {n.split(".")[0] for n in names} <= PURE | {"gpuresample"}, f"line {node.lineno}: {names}"


# What NumPy loads when its name is first asked for. Where two threads ask at once, one gets a RecursionError.
LATE = {"char", "ctypeslib", "f2py", "fft", "ma", "matlib", "polynomial", "random", "rec", "strings", "testing"}


@pytest.mark.parametrize("path", [p for p in SOURCES if room(MODULES[p]) not in SHELLS], ids=str)
def test_parts_of_numpy_that_come_late_are_imported_by_name(path):
    asked = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    assert [n.lineno for n in asked if n.attr in LATE and isinstance(n.value, ast.Name) and n.value.id == "np"] == []


def test_no_lock_of_pythons_is_held_while_a_value_is_found():
    """`functools.cached_property` holds one in Python 3.11: the children of a fork would wait for it."""
    asked = re.compile(r"from functools import .*cached_property|functools\.cached_property")
    assert [MODULES[path] for path in SOURCES if asked.search(path.read_text())] == ["caching"]


def test_every_room_exists():
    assert {room(m) for m in MODULES.values() if m} == set(ROOMS)


def test_few_modules_stand_at_the_root():
    root = [p.name for p in SOURCES if p.parent == PACKAGE]
    assert len(root) <= MOST_AT_THE_ROOT, root


def loaded_by(code):
    """Names of the modules that a fresh interpreter has loaded after `code`."""
    show = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {
    "numba",
    "llvmlite",
    "SimpleITK",
    "cupy",
    "torch",
    "scipy",
    "matplotlib",
    "typer",
    "rich",
    "nibabel",
    "dask",
    "zarr",
}


def test_import_loads_nothing_heavy():
    loaded = loaded_by("import gpuresample")
    assert "gpuresample" in loaded
    assert loaded & (HEAVY | {"numpy"}) == set()


@pytest.mark.parametrize("name", ["Volume", "Grid", "plan", "resample", "set_num_threads"])
def test_naming_a_thing_loads_no_engine(name):
    assert loaded_by(f"import gpuresample; gpuresample.{name}") & HEAVY == set()


def test_planning_an_array_loads_no_engine_but_the_work_does():
    plan = "import gpuresample as gr; p = gr.plan((4, 5, 6), spacing=2)"
    run = f"{plan}; import numpy as np; p.run(np.zeros((4, 5, 6), np.float32))"
    assert "SimpleITK" not in loaded_by(plan)
    # SciPy is Numba's doing: it takes it where it finds it, and is loaded where something is compiled.
    assert loaded_by(run) & {"SimpleITK", "torch", "cupy", "matplotlib", "nibabel"} == set()
    loaded = loaded_by(run)
    assert "numpy" in loaded
    assert loaded & HEAVY == set(), "what was compiled once needs no compiler"
    beside = loaded - loaded_by("import numpy")
    assert beside & {"subprocess", "tempfile", "difflib"} == set(), "a first call is short"


@pytest.mark.parametrize("name", gr.__all__)
def test_public_names_resolve(name):
    assert getattr(gr, name) is not None
    assert name in dir(gr)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match=r"module 'gpuresample' has no attribute 'resampel'"):
        gr.resampel  # noqa: B018


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", gr.__version__)


def public_functions():
    for name in gr.__all__:
        thing = getattr(gr, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            for attribute, value in vars(thing).items():
                if inspect.isfunction(value) and not attribute.startswith("_") and name == "Plan":
                    yield f"{name}.{attribute}", value


@pytest.mark.parametrize(("name", "function"), list(public_functions()), ids=lambda v: v if isinstance(v, str) else "")
def test_public_functions_are_documented(name, function):
    doc = inspect.getdoc(function) or ""
    assert len(doc.splitlines()[0]) > 10
    signature = inspect.signature(function)
    sections = []
    if [p for p in signature.parameters if p != "self"]:
        sections += ["Parameters", "Raises"]
    if signature.return_annotation not in (None, "None"):
        sections += ["Returns"]
    if re.search(r"Parameters and errors are those of `\w+`", doc):
        sections = [s for s in sections if s == "Returns"]
    for section in sections:
        assert f"\n{section}\n{'-' * len(section)}\n" in f"\n{doc}\n", f"{name} has no section {section}"


def test_every_keyword_of_resample_is_documented():
    doc = inspect.getdoc(gr.resample)
    parameters = doc.split("Parameters\n")[1].split("Returns\n")[0]
    for name in inspect.signature(gr.resample).parameters:
        assert re.search(rf"^{name} : ", parameters, re.MULTILINE), name


def test_plan_takes_what_resample_takes():
    of_resample = {n: p.default for n, p in inspect.signature(gr.resample).parameters.items()}
    of_plan = {n: p.default for n, p in inspect.signature(gr.plan).parameters.items()}
    # A plan is of the whole; its regions are `Plan.crop`'s.
    del of_resample["image"], of_resample["out"], of_resample["region"], of_plan["image_or_shape"]
    assert of_plan == of_resample


def test_every_keyword_goes_by_name():
    for function in (gr.resample, gr.plan):
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        assert set(kinds[1:]) == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: MODULES[p] or "__init__")
def test_no_file_names_a_home(path):
    assert not re.search(r"(?<![\w.])(/home/|/root/|/Users/|[A-Z]:\\\\?Users)", path.read_text())


@pytest.mark.parametrize("path", [p for p in SOURCES if p.stat().st_size], ids=lambda p: MODULES[p] or "__init__")
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name.endswith("kernels.py")], ids=lambda p: MODULES[p])
def test_kernels_release_the_lock(path):
    """No `parallel=True`: its layers end processes that fork or that call from two threads."""
    module = importlib.import_module(f"gpuresample.{MODULES[path]}")
    options = importlib.import_module("gpuresample.engines.cpu.table_kernels").OPTIONS
    assert options["nogil"] is True
    assert not options.get("parallel")
    assert options["fastmath"] == {"contract"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword):
            assert node.arg != "parallel"
    kernels = [k for k in vars(module).values() if getattr(k, "targetoptions", {}).get("nogil")]
    assert kernels
    # Compiled by `engines.cpu.jit`, whose cache many processes may fill at once.
    assert all(isinstance(k, Kernel) for k in kernels)


def test_kernels_load_without_numba():
    modules = [f"gpuresample.{MODULES[p]}" for p in SOURCES if p.name.endswith("kernels.py")]
    assert loaded_by(f"import {', '.join(modules)}") & {"numba", "llvmlite"} == set()
