"""SciPy's own tests of `scipy.ndimage` with `gpuresample.ndimage` in the place of it.

    python -m benchmarks.scipy_tests .venv/lib/python3.11/site-packages/scipy/ndimage/tests

The folder is that of an installed SciPy; pytest, hypothesis and pooch are what these tests ask for. Nothing is fetched.
A test counts if it calls a function that is ours. The table says for each function how many tests call it, how many
pass, and in how many of these SciPy had a part; below it each failure has its reason, and each reason for SciPy its
number of tests.

    --alone       what is left to SciPy raises instead
    -k WORDS      as pytest's
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILES = ("test_interpolation.py", "test_filters.py", "test_datatypes.py", "test_splines.py", "test_ni_support.py")


class Reasons(set[str]):
    """Stands for the reasons that were said already: all of them, and each is noted."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.now: list[str] = []
        self.alone = alone

    def __contains__(self, reason: object) -> bool:
        said = str(reason).removeprefix("gpuresample.ndimage.").removesuffix(" (Said once for every reason.)")
        self.now.append(said.replace(" leaves this to SciPy: ", ": ").removesuffix("."))
        return True


class Face(ModuleType):
    """`scipy.ndimage` with our functions in it; notes which are called."""

    def __init__(self, theirs: ModuleType, ours: ModuleType) -> None:
        super().__init__("scipy.ndimage")
        self.called: set[str] = set()
        self.theirs = theirs
        self.wrapped = {name: self._noting(name, getattr(ours, name)) for name in ours.OURS}

    def _noting(self, name: str, function: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            self.called.add(name)
            return function(*args, **keywords)

        call.__name__ = name
        return call

    def __getattr__(self, name: str) -> Any:
        return self.wrapped[name] if name in self.wrapped else getattr(self.theirs, name)


class Swap:
    """A pytest plugin: our functions wherever test modules and parameters have SciPy's, and what became of each test.

    Attributes
    ----------
    tests : dict
        Names of the functions that each test called.
    failed : dict
        Why each failed test did.
    helped : dict
        Why SciPy had a part in a test.
    """

    def __init__(self, alone: bool) -> None:
        import scipy.ndimage

        import gpuresample.ndimage
        from gpuresample import installation
        from gpuresample.ndimage import _base

        self.face = Face(scipy.ndimage, gpuresample.ndimage)
        self.originals = {id(getattr(scipy.ndimage, name)): name for name in gpuresample.ndimage.OURS}
        self.reasons = installation.said = Reasons(alone)
        if alone:
            _base.scipys = self._refuse
        self.tests: dict[str, set[str]] = {}
        self.failed: dict[str, str] = {}
        self.helped: dict[str, set[str]] = {}

    def _refuse(self, name: str, why: str) -> Any:
        raise NotImplementedError(f"{name} leaves this to SciPy: {why}")

    def _ours(self, value: Any) -> Any:
        name = self.originals.get(id(value))
        return value if name is None else self.face.wrapped[name]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Swap names in modules, and functions among parameters."""
        for module in {item.module for item in session.items if hasattr(item, "module")}:
            for name, value in list(vars(module).items()):
                if value is self.face.theirs:
                    setattr(module, name, self.face)
                else:
                    setattr(module, name, self._ours(value)) if id(value) in self.originals else None
        for item in session.items:
            spec = getattr(item, "callspec", None)
            if spec is not None:
                spec.params.update({key: self._ours(value) for key, value in spec.params.items()})

    @pytest.hookimpl(wrapper=True)  # type: ignore[untyped-decorator]
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Note which functions a test calls, and what goes to SciPy."""
        self.face.called.clear()
        self.reasons.now.clear()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] = set(self.face.called)
            if self.reasons.now:
                self.helped[item.nodeid] = set(self.reasons.now)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note failures."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash is not None else str(report.longrepr)
            self.failed[report.nodeid] = " ".join(text.split())[:300]
        elif report.skipped:
            self.tests.pop(report.nodeid, None)

    def report(self) -> str:
        """The tables, as Markdown."""
        import scipy

        counted = {test: called for test, called in self.tests.items() if called}
        by: dict[str, list[str]] = defaultdict(list)
        for test, called in counted.items():
            for name in called:
                by[name].append(test)
        lines = [f"SciPy {scipy.__version__}", "", "| function | tests | passed | SciPy had a part |"]
        lines.append("| --- | ---: | ---: | ---: |")
        for name, tests in [*sorted(by.items()), ("all", list(counted))]:
            passed = sum(test not in self.failed for test in tests)
            helped = sum(test in self.helped for test in tests)
            lines.append(f"| `{name}` | {len(tests)} | {passed} | {helped} |")
        lines += ["", "| why SciPy had a part | tests |", "| --- | ---: |"]
        why = Counter(reason for test in counted for reason in self.helped.get(test, ()))
        lines += [f"| {reason} | {count} |" for reason, count in why.most_common()]
        lines += ["", "| failed | why |", "| --- | --- |"]
        lines += [f"| {test.split('::', 1)[-1]} | {self.failed[test]} |" for test in counted if test in self.failed]
        return "\n".join(lines)


def main() -> int:
    """Run the tests of a folder; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scipy_tests", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="scipy/ndimage/tests of an installed SciPy")
    parser.add_argument("--alone", action="store_true", help="what is left to SciPy raises instead")
    parser.add_argument("-k", default="", help="as pytest's")
    given = parser.parse_args()
    folder = given.folder.resolve()
    files = [folder / name for name in FILES if (folder / name).is_file()]
    if not files:
        parser.error(f"{given.folder} has none of {', '.join(FILES)}")
    root = folder.parents[2]
    sys.path.insert(0, str(root))
    swap = Swap(given.alone)
    import scipy

    if Path(scipy.__file__).resolve().parents[1] != root:
        parser.error(f"{given.folder} is not the imported SciPy's, {Path(scipy.__file__).parent}")
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(root), "--tb=no", "-W", "ignore", "--no-header"]
    pytest.main([*options, "-o", "addopts=", "-c", "/dev/null", *(["-k", given.k] if given.k else []),
                 *map(str, files)], plugins=[swap])  # fmt: skip
    print(swap.report())
    return int(any(swap.tests.get(test) for test in swap.failed))


if __name__ == "__main__":
    sys.exit(main())
