"""Every convention against the installed library's own call, on a real volume."""

import numpy as np
import pytest

from benchmarks.conventions import LIBRARIES, NEW, OLD, compare, ours, volume
from gpuresample.bench import measure
from gpuresample.planning.conventions import CONVENTIONS

CASES = [(n, i) for n, c in CONVENTIONS.items() for i in c.interpolations if "label" not in i]

# Not ours: what the libraries say when they are called as they want to be.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def volumes():
    # An eighth of what the benchmark takes: windowed sincs take the libraries seconds.
    middle = np.s_[10:30, 15:45, 12:37]
    return volume(np.float32)[middle].copy(), volume(np.int16)[middle].copy()


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_library_is_there(name):
    assert measure.version(CONVENTIONS[name].package)


@pytest.mark.parametrize(("name", "interpolation"), CASES)
def test_the_result_is_the_librarys(volumes, name, interpolation):
    row = compare(name, interpolation, *volumes)
    assert row.ok, row
    assert row.differ <= 0.005


@pytest.mark.parametrize("name", ["torchio", "simpleitk"])
def test_labels_are_the_librarys(volumes, name):
    labels = (volumes[1] // 40).astype(np.uint8)
    for new in NEW:
        theirs, mine = (f(labels, OLD, new, "label_gaussian") for f in (LIBRARIES[name], lambda *a: ours(name, *a)))
        assert theirs.shape == mine.shape
        assert (theirs != mine).mean() <= 0.001


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [(80, 90, 100), (20, 30, 25), (41, 59, 51)])
def test_torchs_nearest_goes_its_way_on_ties_too(dtype, size):
    import torch

    import gpuresample as gr

    array = np.random.default_rng(0).standard_normal((40, 60, 50)).astype(dtype)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(array)[None, None], size, mode="nearest-exact")[0, 0]
    assert (gr.resample(array, size=size, interpolation="nearest", convention="torch") == theirs.numpy()).all()


def test_labels_of_bytes_are_torchs():
    import torch

    import gpuresample as gr

    array = np.random.default_rng(0).integers(0, 255, (40, 60, 50)).astype(np.uint8)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(array)[None, None], (80, 31, 100), mode="nearest-exact")
    assert (
        gr.resample(array, size=(80, 31, 100), interpolation="nearest", convention="torch") == theirs[0, 0].numpy()
    ).all()
