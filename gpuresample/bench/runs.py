"""A whole run of the suite, from pytest to a folder with its file, its tables and its page."""

from __future__ import annotations

import datetime
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gpuresample.bench import devices, listing, measure, records, suite
from gpuresample.engines.pool import cores

MISSING = ("pytest", "pytest_benchmark")


def machine_name() -> str:
    """What this machine is called in names of folders: its GPU, or its CPU and cores."""
    gpu = devices.usable()
    return gpu if gpu is not None else f"{measure.cpu_model()} {cores()} cores"


def check_installed() -> None:
    """Refuse to begin without pytest-benchmark.

    Raises
    ------
    RuntimeError
    """
    for module in MISSING:
        if importlib.util.find_spec(module) is None:
            raise RuntimeError(f"the benchmarks need {module}: pip install 'gpuresample[bench]'")


def run(
    profile: str, out: Path, image: Path | None = None, only: Sequence[str] = (), extra: Sequence[str] = ()
) -> Path:
    """Run the suite in a process of its own.

    Parameters
    ----------
    profile : str
        A name of `suite.PROFILES`.
    out : Path
        Where the run's folder, `<machine>-<date>`, is made.
    image : Path, optional
        A volume, in place of the named cases.
    only : sequence of str
        Names of cases.
    extra : sequence of str
        More arguments for pytest.

    Returns
    -------
    Path
        The folder, with `benchmark.json`, `tables.md` and `report.html`. It appears whole or not at all; a run of the
        same day keeps its own.

    Raises
    ------
    ValueError
        For an image that the suite does not take, or a name that is no case's.
    RuntimeError
        If pytest-benchmark is missing, rows failed or nothing was measured; the folder is then not made. If only the
        tables or the page could not be made, it is, with `benchmark.json`.
    KeyboardInterrupt
        What was measured until then is thrown away.
    """
    check_installed()
    suite.rows(suite.PROFILES[profile], image, tuple(only))  # what is wrong with the arguments is known before any work
    out.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    partial = out / f".{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        (partial / "pytest.ini").write_text("[pytest]\n")
        file = partial / "benchmark.json"
        code = _pytest(partial, file, profile, image, only, extra)
        if code != 0 or not file.exists():
            raise RuntimeError(f"the benchmarks failed: pytest ended with exit code {code}; nothing was written")
        (partial / "pytest.ini").unlink()
        target = out / measure.folder_name(machine_name(), date)
        try:
            _finish(partial, file)
        except Exception as error:  # what was measured is kept
            kept = _placed(partial, target)
            raise RuntimeError(f"the figures are in {kept}, but not as tables and a page: {error}") from error
        return _placed(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pytest(
    partial: Path, file: Path, profile: str, image: Path | None, only: Sequence[str], extra: Sequence[str]
) -> int:
    command = [
        sys.executable, "-m", "pytest", "-q", "-rs", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider",
        "-c", str(partial / "pytest.ini"), "--rootdir", str(partial), "-p", "gpuresample.bench.plugin",
        "--pyargs", "gpuresample.bench.timed", "--suite-profile", profile,
        "--benchmark-json", str(file), "--benchmark-quiet", "--benchmark-storage", f"file://{partial}",
        *(["--suite-image", str(image.resolve())] if image is not None else []),
        *(a for name in only for a in ("--suite-case", name)), *extra,
    ]  # fmt: skip
    # Another pytest's variables are not this one's: a worker of xdist would have pytest-benchmark keep nothing.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal has told the child, too; one that was not started from a terminal has not heard of it.
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def _finish(partial: Path, file: Path) -> None:
    """The tables and the page."""
    from gpuresample.bench.report import write_report

    (partial / "tables.md").write_text(listing.markdown(records.read(file)), encoding="utf-8")
    write_report(file, partial / "report.html")


def _placed(partial: Path, wanted: Path) -> Path:
    """The folder under its name, or the first free one after it."""
    for k in range(1, 1000):
        target = wanted if k == 1 else wanted.with_name(f"{wanted.name}-{k}")
        if target.exists():
            continue
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # else another run was quicker
                raise
        else:
            return target
    raise RuntimeError(f"{wanted} and 998 names after it are taken")
