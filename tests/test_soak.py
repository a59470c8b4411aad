"""Ten thousand volumes in one process: its memory, threads and open files stay what they were (`make soak`)."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).parent / "soak_child.py"
VOLUMES, SAMPLES = 10_000, 100
# The first tenth compiles kernels, fills caches and makes scratch.
WARM = 0.1
# Resident memory may grow by so much from the tenth after that to the last one: 1 KiB per volume.
BOUND = 8 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is asked of Linux")


def soaked(volumes, samples, leak=0, timeout=7200):
    done = subprocess.run(
        [sys.executable, str(CHILD), str(volumes), str(samples), str(leak)],
        capture_output=True, text=True, timeout=timeout, check=False, cwd=CHILD.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["samples"]


def say(line):
    sys.stdout.write(line + "\n")


def growth(samples):
    """Bytes by which resident memory grew after the warm-up: medians of a tenth of the run each."""
    resident = [sample[1] for sample in samples]
    tenth = max(1, round(WARM * len(resident)))
    return statistics.median(resident[-tenth:]) - statistics.median(resident[tenth : 2 * tenth])


def test_growth_is_seen_and_a_peak_in_between_is_not():
    flat = [[k, 300 << 20, 4, 6] for k in range(100)]
    assert growth(flat) == 0
    assert growth([[k, (200 if k < 9 else 300) << 20, 4, 6] for k in range(100)]) == 0
    assert growth([[k, (900 if k == 50 else 300) << 20, 4, 6] for k in range(100)]) == 0
    assert growth([[k, (300 << 20) + k * 100 * 1100, 4, 6] for k in range(100)]) > BOUND


@pytest.mark.slow
def test_a_leak_is_seen():
    # The small run of this test leaks what the bound allows the large one, and half as much again.
    samples = soaked(120, 40, leak=(BOUND + BOUND // 2) // 100)
    assert growth(samples) > BOUND


@pytest.mark.slow
def test_memory_stays_flat():
    samples = soaked(VOLUMES, SAMPLES)
    grown = growth(samples)
    first, last = samples[0], samples[-1]
    warm = samples[round(WARM * SAMPLES) - 1]
    for volumes, resident, threads, opened in (first, warm, samples[SAMPLES // 2 - 1], last):
        say(f"{volumes:,} volumes: {resident / 2**20:.1f} MiB resident, {threads} threads, {opened} open files")
    say(f"grown after the warm-up by {grown / 2**20:.2f} MiB; allowed are {BOUND / 2**20:.0f} MiB")
    assert last[0] == VOLUMES
    assert grown <= BOUND
    assert last[2:] == warm[2:]
