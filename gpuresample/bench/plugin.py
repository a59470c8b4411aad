"""pytest's side of the suite: options, what the recorded file says about the machine, ratios. For `-p`."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from gpuresample.bench import measure, suite
from gpuresample.bench.journal import Journal
from gpuresample.bench.timing import Session

LOAD = pytest.StashKey[float | None]()
JOURNAL = pytest.StashKey[Journal | None]()
PARENT = os.getppid()


def pytest_configure(config: pytest.Config) -> None:
    """How busy the machine is before the rows keep it busy: pytest-benchmark asks for its facts at the end."""
    config.stash[LOAD] = measure.load()
    path = config.getoption("--suite-journal")
    config.stash[JOURNAL] = Journal(Path(path)) if path else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Another process may go on from what was measured."""
    if (journal := config.stash.get(JOURNAL, None)) is not None:
        journal.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A run whose parent was killed has nobody who would take its figures: they are in the journal."""
    if item.config.stash[JOURNAL] is not None and os.getppid() != PARENT:
        pytest.exit("the process that asked for the run has ended")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which rows."""
    group = parser.getgroup("gpuresample")
    group.addoption("--suite-profile", default="quick", choices=sorted(suite.PROFILES))
    group.addoption("--suite-image", metavar="FILE", help="cases of this volume in place of the named ones")
    group.addoption("--suite-case", action="append", default=[], metavar="NAME", help="only this case")
    group.addoption("--suite-journal", metavar="FILE", help="keeps what was measured, and knows what was before")


def _chosen(config: pytest.Config) -> tuple[suite.Profile, Path | None, tuple[str, ...]]:
    image = config.getoption("--suite-image")
    profile = suite.PROFILES[config.getoption("--suite-profile")]
    return profile, Path(image) if image else None, tuple(config.getoption("--suite-case"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every row."""
    if "row" in metafunc.fixturenames:
        rows = suite.rows(*_chosen(metafunc.config))
        metafunc.parametrize("row", rows, ids=[row.name for row in rows])


@pytest.fixture(scope="session")
def suite_session(request: pytest.FixtureRequest) -> Any:
    """What runs the rows that were collected."""
    rows = [item.callspec.params["row"] for item in request.session.items if hasattr(item, "callspec")]
    session = Session(rows, _chosen(request.config)[0], request.config.stash[JOURNAL])
    yield session
    session.close()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Our own facts; the machine's name is nobody's business."""
    machine_info.pop("node", None)
    profile, image, _ = _chosen(config)
    journal = config.stash[JOURNAL]
    sittings = 1 if journal is None else journal.sittings
    machine_info["gpuresample"] = {
        **suite.facts(profile, image), "load_before": config.stash[LOAD], "sittings": sittings,
    }  # fmt: skip


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Every row's ratio to SimpleITK's time for the same."""
    if output_json["commit_info"].get("id") == "unversioned":
        output_json["commit_info"]["id"] = None
    same = ("kind", "case", "size", "threads")
    judges: dict[tuple[Any, ...], float] = {}
    for entry in output_json["benchmarks"]:
        info = entry["extra_info"]
        if info["peer"] == "simpleitk":
            judges[tuple(info[k] for k in same)] = statistics.median(info["seconds"])
    for entry in output_json["benchmarks"]:
        info = entry["extra_info"]
        judge = judges.get(tuple(info[k] for k in same))
        info["ratio_to_simpleitk"] = None if judge is None else judge / statistics.median(info["seconds"])
        entry.pop("param", None)
        entry.pop("params", None)
