"""What is no file where files are expected: pipes, devices, sockets, and links to them. All commands end.

Nothing here is opened by a library: each is refused before, and every command runs in a process with a time limit.
"""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import volume

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes and devices as on Linux")

PATIENCE = 60  # seconds; a command takes some 2


def pipe(path):
    os.mkfifo(path)
    return "a named pipe"


def device(path):
    path.symlink_to("/dev/zero")
    return "a device"


def null(path):
    path.symlink_to("/dev/null")
    return "a device"


def link(path):
    os.mkfifo(path.with_name("far"))
    path.with_name("near").symlink_to("far")
    path.symlink_to("near")
    return "a named pipe"


def bound(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return "a socket"


ODD = [pipe, device, null, link, bound]
COMMANDS = {
    "info": ("info", "{odd}"),
    "resample": ("resample", "{odd}", "out.nii.gz", "--spacing", "2"),
    "like": ("resample", "whole.nii.gz", "out.nii.gz", "--like", "{odd}"),
    "transform": ("resample", "whole.nii.gz", "out.nii.gz", "--transform", "{odd}"),
    "blur": ("blur", "{odd}", "out.nii.gz", "--sigma", "1"),
    "pyramid": ("pyramid", "{odd}", "out.ome.zarr"),
    "plan-cost": ("plan-cost", "{odd}", "--spacing", "2"),
    "verify": ("verify", "{odd}"),
}


@pytest.fixture
def folder(tmp_path):
    sitk.WriteImage(volume(), str(tmp_path / "whole.nii.gz"))
    return tmp_path


def ended(folder, *words):
    """Exit code, output and error of a command, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gpuresample.cli", *words], cwd=folder, timeout=PATIENCE, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_a_pipe(folder, command):
    kind = pipe(folder / "odd.nii.gz")
    done = ended(folder, *(word.format(odd="odd.nii.gz") for word in COMMANDS[command]))
    assert done.returncode in (1, 2)
    assert f"odd.nii.gz: is {kind}" in done.stderr
    assert sorted(os.listdir(folder)) == ["odd.nii.gz", "whole.nii.gz"]


@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize("name", ["odd.nii.gz", "odd.nrrd", "odd.mha", "odd", "odd.dcm"])
def test_all_that_is_no_file_is_refused(folder, run, make, name):
    kind = make(folder / name)
    code, _, err = run("info", folder / name)
    assert (code, err.count("\n")) == (1, 1)
    assert f"{name}: is {kind}; only regular files and folders are read" in err


@pytest.mark.parametrize("name", ["odd.npy", "odd.npz", "odd.nii.gz"])
def test_scores_come_out_of_files_alone(folder, name):
    from gpuresample.files import scores

    pipe(folder / name)
    with pytest.raises(OSError, match="is a named pipe"):
        scores.read(folder / name)


@pytest.mark.parametrize("make", ODD)
def test_a_folder_of_dicom_files_with_one_among_them_is_refused(folder, run, make):
    (folder / "scan").mkdir()
    image = sitk.GetImageFromArray(np.zeros((4, 4), np.int16))
    for name in ("a.dcm", "b.dcm"):
        sitk.WriteImage(image, str(folder / "scan" / name))
    kind = make(folder / "scan" / "0")
    code, _, err = run("info", folder / "scan")
    assert (code, err.count("\n")) == (1, 1)
    assert f"0: is {kind}" in err


def test_a_batch_passes_by_and_says_which(folder, tmp_path):
    pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
    source = folder / "in"
    (source / "scan").mkdir(parents=True)
    (source / "odd").mkdir()
    sitk.WriteImage(volume(), str(source / "a.nii.gz"))
    image = sitk.GetImageFromArray(np.zeros((4, 4), np.int16))
    for name in ("a.dcm", "b.dcm"):
        sitk.WriteImage(image, str(source / "scan" / name))
    for k, make in enumerate(ODD):
        # By an ending; by a name that DICOM files have; by none.
        for name in (f"v{k}.nii.gz", f"s{k}.dcm", f"{k}"):
            make(source / "odd" / name) if make is not link else (source / "odd" / name).symlink_to("v0.nii.gz")
    pipe(source / "scan" / "0")
    done = ended(folder, "batch", "in", "out", "--spacing", "2", "--workers", "1")
    assert done.returncode == 1, done.stderr
    assert f"{len(ODD) + 2} volumes: 1 done, {len(ODD) + 1} failed" in done.stdout
    assert done.stderr.count(": is a ") == len(ODD) + 1
