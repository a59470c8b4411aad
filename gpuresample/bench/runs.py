"""A whole run of the suite, from pytest to a folder with its file, its tables and its page."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuresample.bench import devices, journal, listing, measure, records, suite
from gpuresample.engines.threads import cores

MISSING = ("pytest", "pytest_benchmark")
PARTS = ("benchmark.json", "tables.md", "report.html")


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
    profile: str,
    out: Path,
    image: Path | None = None,
    only: Sequence[str] = (),
    extra: Sequence[str] = (),
    go_on: bool = False,
) -> Path:
    """Run the suite in a process of its own.

    What a run that was stopped, killed or failed has measured stays in `<machine>-<date>.partial`.

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
    go_on : bool
        Take what the latest run in `out` measured that ended early. It must have had the same arguments, code,
        libraries and machine.

    Returns
    -------
    Path
        The folder, with `benchmark.json`, `tables.md` and `report.html`. It appears whole or not at all; a run of the
        same day keeps its own.

    Raises
    ------
    ValueError
        For an image that the suite does not take, or a name that is no case's.
    FileNotFoundError
        If there is no run to continue.
    RuntimeError
        If pytest-benchmark is missing, rows failed or nothing was measured; the folder is then not made. If only the
        tables or the page could not be made, it is made, with `benchmark.json`. If another process is measuring the
        run that is to be continued.
    KeyboardInterrupt
        Says what was kept.
    """
    check_installed()
    suite.rows(suite.PROFILES[profile], image, tuple(only))  # what is wrong with the arguments is known before any work
    about = _about(profile, image, only)
    name = measure.folder_name(machine_name(), datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"))
    if go_on:
        partial = _stopped(out, about)
    else:
        out.mkdir(parents=True, exist_ok=True)
        partial = _free(out / f"{name}.partial", Path.mkdir)
        journal.begin(partial / journal.NAME, about)
    try:
        (partial / "pytest.ini").write_text("[pytest]\n")
        file = partial / "benchmark.json"
        file.unlink(missing_ok=True)
        code = _pytest(partial, file, profile, image, only, extra)
        if code != 0 or not file.exists():
            raise RuntimeError(f"the benchmarks failed: pytest ended with exit code {code}; {_kept(partial)}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {_kept(partial)}") from None
    try:
        _finish(partial, file)
    except Exception as error:  # what was measured is kept
        kept = _placed(partial, out / name)
        raise RuntimeError(f"the figures are in {kept}, but not as tables and a page: {error}") from error
    return _placed(partial, out / name)


def _about(profile: str, image: Path | None, only: Sequence[str]) -> dict[str, Any]:
    """What must be the same for two processes' rows to be of one run."""
    facts = suite.facts(suite.PROFILES[profile], image)
    volume = None
    if image is not None:
        volume = hashlib.blake2b(image.read_bytes(), digest_size=16).hexdigest()
    return {
        **{k: v for k, v in facts.items() if k not in ("date", "load_before", "versions")},
        **facts["versions"], "cases": list(only), "voxels": volume, "code": journal.code(),
    }  # fmt: skip


def _stopped(out: Path, about: Mapping[str, Any]) -> Path:
    """The latest folder of a run that ended early and of which all of `about` holds."""
    differ: list[str] = []
    for path in sorted(out.glob(f"*.partial/{journal.NAME}"), key=os.path.getmtime, reverse=True):
        found = journal.differences(path, about)
        if not found:
            return path.parent
        differ.append(f"{path.parent}: {', '.join(found)}")
    raise FileNotFoundError(
        f"{out} holds no run of these arguments, this code and this machine that ended early"
        + (f" ({'; '.join(differ)})" if differ else "")
    )


def _kept(partial: Path) -> str:
    """What became of the rows of a run that ended early; a folder without any is removed."""
    if rows := journal.measured(partial / journal.NAME):
        return f"{rows} rows are kept in {partial}: --continue goes on after them"
    shutil.rmtree(partial, ignore_errors=True)
    return "nothing was measured"


def _pytest(
    partial: Path, file: Path, profile: str, image: Path | None, only: Sequence[str], extra: Sequence[str]
) -> int:
    command = [
        sys.executable, "-m", "pytest", "-q", "-rs", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider",
        # --noconftest: in a checkout pytest would load tests/conftest.py, which needs what `bench` does not install.
        "-c", str(partial / "pytest.ini"), "--rootdir", str(partial), "--noconftest", "-p", "gpuresample.bench.plugin",
        "--pyargs", "gpuresample.bench.timed", "--suite-profile", profile,
        "--suite-journal", str(partial / journal.NAME), "--benchmark-json", str(file), "--benchmark-quiet",
        "--benchmark-storage", f"file://{partial}",
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
    for path in partial.iterdir():
        if path.name not in PARTS:  # what only a run under way needs
            path.unlink()
    return _free(wanted, partial.rename)


def _free(wanted: Path, take: Callable[[Path], object]) -> Path:
    """Take a path, or the first free one after it."""
    for k in range(1, 1000):
        target = wanted if k == 1 else wanted.with_name(f"{wanted.stem}-{k}{wanted.suffix}")
        if target.exists():
            continue
        try:
            take(target)
        except OSError:
            if not target.exists():  # else another run was quicker
                raise
        else:
            return target
    raise RuntimeError(f"{wanted} and 998 names after it are taken")
