"""The test suites of other libraries, as they are and with our classes and functions in the place of theirs.

    python -m benchmarks.peer_suites SOURCES [--peers monai torchio SimpleITK] [--all-files] [--match spacing]

SOURCES is a folder with the libraries' source trees, in folders named as the peers are (SOURCES/monai, ...). Nothing is
fetched: of a tree only the tests are taken, and they run against the installed library, best of the same version. Of a
suite those files run that name something that is replaced. A test counts if it passes or fails as the library is; the
exit code is 1 if one passes then and fails with ours.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Where a source tree has its tests, and which of their files are tests.
TESTS = {
    "monai": ("tests", "test_*.py"),
    "torchio": ("tests", "test_*.py"),
    "SimpleITK": ("Testing/Unit/Python", "sitk*.py"),
}
# Of one file, in seconds.
WAITED = 900


@dataclass
class Run:
    """What came of a suite: by the name of a test, "passed", "failed" or "skipped"."""

    tests: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    # By the name of a file that pytest could not collect: why.
    unread: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """How many tests ended so."""
        return Counter(self.tests.values())[outcome]


def names_of(peer: str) -> list[str]:
    """The names that are replaced in a library."""
    text = f"from benchmarks.peer_plugin import replaced; print(*sorted(replaced({peer!r})))"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()


def files_of(tests: Path, pattern: str, names: list[str] | None) -> list[Path]:
    """The files of a suite whose text has one of the names; all of them for None."""
    wanted = None if names is None else re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    found = sorted(tests.rglob(pattern))
    return [path for path in found if wanted is None or wanted.search(path.read_text("utf-8", "replace"))]


def run(peer: str, root: Path, files: list[Path], ours: bool) -> Run:
    """Run files of tests that lie in a folder, each in a process of its own."""
    result, began = Run(), time.monotonic()
    for path in files:
        report = root / "report.xml"
        report.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "benchmarks.peer_plugin", "-o",
            "addopts=", "-W", "ignore", f"--rootdir={root}", f"--junitxml={report}", str(path),
        ]  # fmt: skip
        # The copy of their tests comes first: ours are a package "tests", too.
        env = dict(
            os.environ, PYTHONPATH=os.pathsep.join([str(root), str(ROOT)]), GPURESAMPLE_PEER=peer if ours else ""
        )
        where = path.relative_to(root).as_posix()
        try:
            subprocess.run(
                command,
                cwd=root,
                env=env,
                timeout=WAITED,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            made, why = outcomes(where, report)
            if why:
                result.unread[where] = why
        except subprocess.TimeoutExpired:
            made = {f"{where} (took more than {WAITED} s)": "failed"}
        result.tests |= made
        # A suite takes up to an hour: what it did is seen meanwhile, and stays where it is stopped.
        passed = sum(outcome == "passed" for outcome in made.values())
        side = "with ours" if ours else "as it is"
        sys.stderr.write(f"{where}, {side}: {passed} of {len(made)} passed, {time.monotonic() - began:.0f} s\n")
    result.seconds = time.monotonic() - began
    return result


def outcomes(where: str, report: Path) -> tuple[dict[str, str], str]:
    """What a report of pytest says of each test of a file, and why the file was not collected, if so.

    A file that ended without a report has failed.
    """
    if not report.exists():
        return {f"{where} (ended without a report)": "failed"}, ""
    made, why = {}, ""
    for case in ET.parse(report).getroot().iter("testcase"):  # pytest has written it
        error = case.find("error")
        if error is not None and error.get("message") == "collection failure":
            lines = (error.text or "").split("\n")
            why = next((line[1:].strip() for line in lines if line.startswith("E ")), "collection failure")
            continue
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        made[f"{where}::{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"] = outcome
    return made, why


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--peers", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--all-files", action="store_true", help="files that name nothing that is replaced, too")
    parser.add_argument("--match", default="", help="files whose name matches this regular expression alone")
    options = parser.parse_args()
    print(f"{'suite':10s} {'version':8s} {'run':>6s} {'passed':>8s} {'with ours':>10s} {'new':>5s} {'seconds':>8s}")
    new: list[str] = []
    for peer in options.peers:
        folder, pattern = TESTS[peer]
        if not (options.sources / peer / folder).is_dir():
            print(f"{peer:10s} no folder {options.sources / peer / folder}")
            continue
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            shutil.copytree(options.sources / peer / folder, root / "tests")
            files = files_of(root / "tests", pattern, None if options.all_files else names_of(peer))
            files = [path for path in files if re.search(options.match, path.name)]
            before, after = (run(peer, root, files, ours) for ours in (False, True))
        passed = {name for name, outcome in before.tests.items() if outcome == "passed"}
        lost = sorted(name for name in passed if after.tests.get(name) != "passed")
        new += [f"{peer}: {name}" for name in lost]
        for name, why in before.unread.items():
            sys.stderr.write(f"{name} was not collected, as it is: {why}\n")
        counted = before.count("passed") + before.count("failed")
        print(
            f"{peer:10s} {importlib.metadata.version(peer):8s} {counted:6d} {len(passed):8d} "
            f"{after.count('passed'):10d} {len(lost):5d} {before.seconds + after.seconds:8.0f}",
            flush=True,
        )
    for name in new:
        print(f"passes without ours, not with them: {name}")
    return int(bool(new))


if __name__ == "__main__":
    sys.exit(main())
