"""What a batch does when it is killed, interrupted, starved or crowded: processes, signals and file systems are real.

`make reliability` runs the slow ones too. Disks that are full are small tmpfs mounts in a mount namespace of their own
(`unshare`); where that is not allowed, the test is skipped.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
import psutil

from gpuresample.files import job
from gpuresample.files.job import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, mounts and limits as on Linux")
COUNT = 12
SETTINGS = Settings(spacing=(0.5, 0.5, 0.5), interpolation="linear")
ASKED = ("--spacing", "0.5", "--interpolation", "linear")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """IN_DIR with volumes of some 0.2 s each, and what becomes of each without a batch."""
    root = tmp_path_factory.mktemp("cohort")
    (root / "in" / "sub").mkdir(parents=True)
    (root / "alone" / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    for k in range(COUNT):
        image = sitk.GetImageFromArray(random.integers(-1000, 1000, (40, 50, 60)).astype(np.int16))
        name = f"{'sub/' * (k % 2)}v{k:02}.nii.gz"
        sitk.WriteImage(image, str(root / "in" / name))
        job.run(root / "in" / name, root / "alone" / name, SETTINGS)
    return root


def start(source, out, *more, prefix=(), **keywords):
    """A batch as a process that leads a group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "gpuresample.cli", "batch", str(source), str(out), *ASKED, *more]
    return subprocess.Popen(
        [*prefix, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0, **keywords
    )  # fmt: skip


def ended(process, timeout=120):
    """Exit code, standard output and error."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return process.returncode, out, err


def results(out):
    """Files in OUT_DIR that have a result's name, and those half-written."""
    found = [p for p in out.rglob("*.nii.gz") if ".gpuresample" not in p.parts]
    return [p for p in found if not p.name.startswith(".")], [p for p in found if p.name.startswith(".")]


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def some_done(out, count=2):
    return wait_for(lambda: len(results(out)[0]) >= count)


def recorded(out):
    """How many volumes the journal says are done, by lines that are whole: one under way may be cut by a kill."""
    journal = out / ".gpuresample" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    return sum('"kind":"done"' in line and line.endswith("\n") for line in lines)


def workers_of(process):
    """Python processes below it that are workers."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        return [c for c in children if any("spawn_main" in word for word in c.cmdline())]
    return []


def assert_all_equal(cohort, out):
    """Every output is the single command's, bit for bit, and nothing else is there."""
    complete, partial = results(out)
    assert partial == []
    expected = {p.relative_to(cohort / "alone"): p.read_bytes() for p in results(cohort / "alone")[0]}
    assert {p.relative_to(out): p.read_bytes() for p in complete} == expected


def assert_whole(cohort, out):
    """What has a result's name is a whole result."""
    for path in results(out)[0]:
        assert path.read_bytes() == (cohort / "alone" / path.relative_to(out)).read_bytes()


def said(text):
    """Counts of the last line but one: {"done": 3, ...}."""
    line = re.search(r"^\d+ volumes: (.*);", text, re.MULTILINE)[1]
    return {kind: int(n) for n, kind in re.findall(r"(\d+) (done|as before|failed|not done)", line)}


def continued(cohort, out):
    """The same command again: it finishes; returns what it said."""
    code, text, err = ended(start(cohort / "in", out, "--workers", "1"))
    assert code == 0, err
    assert_all_equal(cohort, out)
    return said(text), err


def test_a_killed_client_is_continued(cohort, tmp_path):
    process = start(cohort / "in", tmp_path, "--workers", "2")
    known = wait_for(lambda: recorded(tmp_path))
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    # Its workers do not outlive it.
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert_whole(cohort, tmp_path)
    before = len(results(tmp_path)[0])
    assert before < COUNT
    counts, err = continued(cohort, tmp_path)
    assert "the run before this one was cut off" in err
    # Those whose record was written are not done again; those that were under way may be.
    assert known <= counts["as before"] <= before
    assert counts["as before"] + counts["done"] == COUNT


@pytest.mark.slow
def test_a_killed_worker_is_replaced(cohort, tmp_path):
    process = start(cohort / "in", tmp_path, "--workers", "2")
    some_done(tmp_path)
    workers_of(process)[0].kill()
    code, text, err = ended(process)
    assert code == 0, err
    assert said(text) == {"done": COUNT}
    assert "a worker died while" in err
    assert_all_equal(cohort, tmp_path)


@pytest.mark.slow
def test_a_volume_that_kills_its_worker_fails_alone(cohort, tmp_path):
    """A stand-in for a crash of a native library: one volume's name makes the worker kill itself."""
    code = (
        "import os, signal; from gpuresample.batch import items; real = items.run\n"
        "def run(item, *a):\n"
        "    if 'v03' in item.name: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(item, *a)\n"
        "items.run = run\n"
    )
    # By reference: workers import it from here, too.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    status, text, err = ended(start(cohort / "in", tmp_path / "out", "--workers", "2", env=environment))
    assert status == 1
    assert said(text) == {"done": COUNT - 1, "failed": 1}
    assert "v03.nii.gz: the worker died each time it was tried" in err
    assert_whole(cohort, tmp_path / "out")


@pytest.mark.slow
def test_ctrl_c_once_finishes_what_is_under_way(cohort, tmp_path):
    process = start(cohort / "in", tmp_path, "--workers", "1")
    some_done(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    code, text, err = ended(process)
    assert code == 130
    assert "stopping after the volumes under way; Ctrl-C again" in err
    assert "the same command continues" in err
    counts = said(text)
    assert counts["not done"] > 0
    assert "failed" not in counts
    assert len(results(tmp_path)[0]) == counts["done"]
    assert_whole(cohort, tmp_path)
    assert results(tmp_path)[1] == []
    assert (tmp_path / "report.html").exists()
    again, err = continued(cohort, tmp_path)
    assert again["as before"] == counts["done"]
    assert "cut off" not in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_finishes_what_is_under_way(cohort, tmp_path, number):
    process = start(cohort / "in", tmp_path, "--workers", "1")
    some_done(tmp_path)
    os.killpg(process.pid, signal.SIGHUP) if number == signal.SIGHUP else process.send_signal(number)
    code, text, _err = ended(process)
    assert code == 130
    counts = said(text)
    assert counts["not done"] > 0
    assert "failed" not in counts
    assert_whole(cohort, tmp_path)
    assert len(results(tmp_path)[0]) == counts["done"]
    assert results(tmp_path)[1] == []


@pytest.mark.parametrize("seconds", [0.7, 1.5, None])
def test_ctrl_c_in_the_first_seconds_is_no_traceback(cohort, tmp_path, seconds):
    """While libraries are loaded, while workers are started, while the first volumes are under way (None)."""
    process = start(cohort / "in", tmp_path, "--workers", "2")
    some_done(tmp_path) if seconds is None else time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    code, _text, err = ended(process)
    # Before the command listens, the system ends it: shells call that 130, too.
    assert code in (130, -signal.SIGINT)
    assert "Traceback" not in err, err
    assert "Exception" not in err, err
    log = tmp_path / ".gpuresample" / "workers.log"
    assert "Traceback" not in (log.read_text() if log.exists() else "")
    assert_whole(cohort, tmp_path)


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_and_leaves_nothing_half_written(cohort, tmp_path):
    process = start(cohort / "in", tmp_path, "--workers", "1")
    some_done(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code, text, _err = ended(process)
    assert code == 130
    assert said(text)["not done"] > 0
    assert_whole(cohort, tmp_path)
    assert results(tmp_path)[1] == []
    continued(cohort, tmp_path)


@pytest.mark.slow
def test_the_second_batch_on_a_folder_is_refused(cohort, tmp_path):
    first = start(cohort / "in", tmp_path, "--workers", "1")
    some_done(tmp_path, 1)
    code, out, err = ended(start(cohort / "in", tmp_path))
    assert (code, out) == (1, "")
    assert f"another batch works on this folder (process {first.pid} " in err
    code, text, err = ended(first)
    assert code == 0, err
    assert said(text) == {"done": COUNT}
    assert_all_equal(cohort, tmp_path)


def small_disk(folder, size):
    """What runs a command with a tmpfs of so many bytes mounted at `folder`, for that command alone."""
    mount = f"mount -t tmpfs -o size={size} none '{folder}'"
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*prefix, mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    # What was written would be gone with the mount: it is copied out, for the test to look at.
    kept = folder.with_name("kept")
    return [*prefix, f"{mount} && \"$@\"; code=$?; cp -a '{folder}' '{kept}'; exit $code", "sh"], kept


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_nothing_is_torn(cohort, tmp_path):
    (tmp_path / "out").mkdir()
    one = max(p.stat().st_size for p in results(cohort / "alone")[0])
    prefix, kept = small_disk(tmp_path / "out", (1 << 20) + int(5.5 * one))
    code, text, err = ended(start(cohort / "in", tmp_path / "out", "--workers", "1", prefix=prefix))
    assert code == 1
    assert "stopped: the disk is full" in err
    counts = said(text)
    assert counts["failed"] >= 1
    assert counts["not done"] >= 1
    assert_whole(cohort, kept)
    assert results(kept)[1] == []
    # Records that say "done" are of whole files.
    assert len(results(kept)[0]) == counts["done"] >= 1
    # With room, the run goes on from there.
    again, _err = continued(cohort, kept)
    assert again["done"] + again.get("as before", 0) == COUNT


@pytest.mark.slow
def test_files_that_may_not_grow_fail_and_small_ones_are_done(cohort, tmp_path):
    """RLIMIT_FSIZE: writes end with EFBIG, as on file systems and quotas for single files."""
    import resource

    (tmp_path / "in").mkdir()
    shutil.copy(cohort / "in" / "v00.nii.gz", tmp_path / "in" / "large.nii.gz")
    image = sitk.ReadImage(str(cohort / "in" / "v00.nii.gz"))
    sitk.WriteImage(image[:20, :20, :20], str(tmp_path / "in" / "small.nii.gz"))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    process = start(tmp_path / "in", tmp_path / "out", "--workers", "1", preexec_fn=limit)
    code, text, err = ended(process)
    assert code == 1, err
    assert said(text) == {"done": 1, "failed": 1}
    assert "large.nii.gz" in err
    complete, partial = results(tmp_path / "out")
    assert [p.name for p in complete] == ["small.nii.gz"]
    assert partial == []


def without_override():
    """What runs a command so that modes of files bind it, root or not."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("runs as root, whom modes of files do not bind, and there is no setpriv")
    drop = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"]


def test_an_output_folder_that_may_not_be_written_is_refused(cohort, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o555)
    code, text, err = ended(start(cohort / "in", out, prefix=without_override()))
    out.chmod(0o755)
    assert (code, text) == (1, "")
    assert err == f"error: {out}: cannot be written to\n"
    assert os.listdir(out) == []


@pytest.mark.slow
def test_a_folder_within_that_may_not_be_written_fails_alone(cohort, tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub").chmod(0o555)
    code, text, err = ended(start(cohort / "in", out, prefix=without_override()))
    (out / "sub").chmod(0o755)
    assert code == 1
    assert said(text) == {"done": COUNT // 2, "failed": COUNT // 2}
    assert "sub is not writable" in err
    assert_whole(cohort, out)
    counts, _err = continued(cohort, out)
    assert counts == {"done": COUNT // 2, "as before": COUNT // 2}


@pytest.mark.slow
def test_a_link_made_meanwhile_leads_nowhere(cohort, tmp_path):
    """A folder within OUT_DIR becomes a link to elsewhere while the batch runs."""
    source, out, elsewhere = (tmp_path / name for name in ("in", "out", "elsewhere"))
    elsewhere.mkdir()
    (source / "zone").mkdir(parents=True)
    for k in range(9):
        shutil.copy(cohort / "in" / "v00.nii.gz", source / f"v{k}.nii.gz")
    for k in range(2):
        shutil.copy(cohort / "in" / "v00.nii.gz", source / "zone" / f"v{k}.nii.gz")
    process = start(source, out, "--workers", "1")
    # The first results are in the folder itself; those in zone/ come last.
    some_done(out, 1)
    assert not (out / "zone").exists()
    (out / "zone").symlink_to(elsewhere)
    code, text, err = ended(process)
    assert code == 1
    assert "by a symbolic link" in err
    assert os.listdir(elsewhere) == []
    assert said(text) == {"done": 9, "failed": 2}
