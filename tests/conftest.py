"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
import SimpleITK as sitk
from hypothesis import settings

# Derandomised: a red run is red again. No deadline: the first call of a kernel compiles it.
settings.register_profile("gpuresample", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("gpuresample")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real volumes; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("GPURESAMPLE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no folder of real volumes at {folder}; set GPURESAMPLE_DATA")
    return folder


@pytest.fixture(scope="session")
def read(data_dir):
    """`read(name, start, size)`: a real volume, cut to a box (x, y, z) where one is given."""
    kept = {}

    def read(name, start=None, size=None):
        if name not in kept:
            path = data_dir / name
            if not path.is_file():
                pytest.skip(f"{name} is not among the real volumes in {data_dir}")
            kept[name] = sitk.ReadImage(str(path))
        image = kept[name]
        return image if start is None else sitk.RegionOfInterest(image, size, start)

    return read


@pytest.fixture
def threads():
    """`set_num_threads`, undone afterwards."""
    import gpuresample as gr

    yield gr.set_num_threads
    gr.set_num_threads(None)


@pytest.fixture
def run(capsys):
    """`run(*arguments)`: exit code, standard output, standard error of the command line."""
    from gpuresample.cli import main

    def run(*arguments):
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
