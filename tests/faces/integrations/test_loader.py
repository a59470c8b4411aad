"""Data loaders: forked and spawned torch workers, the worked example, the benchmark."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).parents[3]

WORKERS = """
import os, sys
import numpy as np
import torch
import gpuresample as gr

def image(seed):
    return np.random.default_rng(seed).standard_normal((30, 44, 48)).astype(np.float32)

class Volumes(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, seed):
        return gr.resample(image(seed), spacing=0.9), gr.get_num_threads(), os.getpid()

if __name__ == "__main__":
    gr.set_num_threads(None)
    if sys.argv[2] == "used":  # threads and compiled code in the parent, before workers are forked
        gr.resample(image(0), spacing=0.9)
    loader = torch.utils.data.DataLoader(Volumes(), batch_size=2, num_workers=4, multiprocessing_context=sys.argv[1])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for _ in range(2):
        seen, pids, seed = set(), set(), 0
        for batch, threads, pid in loader:
            seen |= set(threads.tolist())
            pids |= set(pid.tolist())
            for one in batch:
                assert one.numpy().tobytes() == gr.resample(image(seed), spacing=0.9).tobytes(), seed
                seed += 1
        assert seed == 12
        assert seen == {max(1, cores // 4)}, seen
        assert len(pids) == 4
    print("done", gr.get_num_threads() == cores)
"""


def ran(*arguments, timeout=400):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize("parent", ["used", "fresh"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_four_workers(tmp_path, method, parent):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = ran(script, method, parent)
    assert done.stdout.strip() == "done True"
    # No storm: at most Python's own word on forks beside threads, once for every loader pass and worker.
    said = [line for line in done.stderr.splitlines() if "gpuresample" in line.lower()]
    assert said == []


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(5):
        image = sitk.GetImageFromArray((100 * rng.standard_normal((20 + k, 40, 36))).astype(np.int16))
        image.SetSpacing((1.5, 1.4, 3.0 + 0.1 * k))
        sitk.WriteImage(image, str(tmp_path / f"{k}.nii.gz"))
    return tmp_path


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_worked_example(folder, method):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loader.md").read_text(), re.DOTALL)
    script = folder / "example.py"
    script.write_text(code)
    assert ran(script, folder, 2, method).stdout.strip() == "3 (2, 64, 96, 96)"


def test_the_benchmark_says_what_it_measured():
    said = ran("-m", "benchmarks.loader", "--quick").stdout
    for name in (
        "SimpleITK in workers",
        "gpuresample in workers",
        "gpuresample served",
        "gpuresample on the GPU",
        "volumes/s",
    ):
        assert name in said
