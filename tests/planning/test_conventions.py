"""`convention=`: what it sets, what it refuses, and that SciPy's and SimpleITK's equal their own calls."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from support import SINGLE, noise

import gpuresample as gr
from benchmarks.conventions import LIBRARIES, NEW, OLD, ours
from gpuresample.planning.conventions import CONVENTIONS, NAMES, markdown

SUMMED = [i for i in CONVENTIONS["scipy"].interpolations if i != "nearest"]


@pytest.fixture(scope="module")
def floats():
    return noise((17, 24, 21))


@pytest.mark.parametrize("new", NEW)
@pytest.mark.parametrize("name", ["scipy", "simpleitk"])
@pytest.mark.parametrize("interpolation", CONVENTIONS["scipy"].interpolations)
def test_floats_equal_the_librarys_own(floats, name, interpolation, new):
    theirs, mine = LIBRARIES[name](floats, OLD, new, interpolation), ours(name, floats, OLD, new, interpolation)
    assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    assert np.abs(mine - theirs).max() <= SINGLE * np.ptp(floats)


@pytest.mark.parametrize("interpolation", SUMMED)
def test_doubles_equal_scipys(interpolation):
    array = noise((17, 24, 21), "float64")
    theirs, mine = (
        LIBRARIES["scipy"](array, OLD, NEW[0], interpolation),
        ours("scipy", array, OLD, NEW[0], interpolation),
    )
    assert np.abs(mine - theirs).max() <= 1e-9 * np.ptp(array)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int32"])
def test_scipys_integers_round_half_away_from_zero(dtype):
    # Doubling with corners aligned puts samples halfway: every second voxel is such a tie.
    array = noise((1, 1, 40), dtype)
    theirs = ndimage.zoom(array, (1, 1, 79 / 40), order=1)
    mine = gr.resample(array, size=(1, 1, 79), interpolation="linear", convention="scipy")
    assert (mine == theirs).all()
    assert mine.dtype == theirs.dtype
    assert (mine != gr.resample(array, size=(1, 1, 79), interpolation="linear", anchor="center")).any()


def test_scipys_overshoot_saturates():
    array = (noise((9, 9, 9), "uint8") > 127).astype(np.uint8) * 255
    mine = gr.resample(array, size=(17, 15, 13), convention="scipy")
    assert mine.dtype == np.uint8
    exact = ndimage.zoom(array.astype(np.float64), (17 / 9, 15 / 9, 13 / 9), order=3)
    assert (np.abs(mine - np.clip(exact, 0, 255)) <= 0.5 + 1e-3).all()


def test_the_padded_border_is_scipys_nearest():
    array = noise((3, 20, 31), "float64")
    for order in (2, 3, 4, 5):
        theirs = ndimage.zoom(array, (1, 2, 1.5), order=order, mode="nearest", grid_mode=True)
        mine = gr.resample(array, size=theirs.shape, interpolation=f"bspline{order}", convention="nnunet")
        inside = (theirs > array.min()) & (theirs < array.max())  # nnU-Net's call clips
        assert np.abs(mine - theirs)[inside].max() <= 1e-9 * np.ptp(array)
        assert mine.max() <= array.max()
        assert mine.min() >= array.min()


@pytest.mark.parametrize("target", ["float32", "int16"])
def test_clipping_is_to_the_numbers_there_are(target):
    array = 100 + 50 * np.abs(noise((60, 9, 10)))
    array[0, 0, 0] = np.nan
    mine = gr.resample(array, size=(70, 12, 11), convention="nnunet", dtype=target)
    number = ~np.isnan(mine) if target == "float32" else mine != 0  # integers have 0 for what is no number
    assert number[40:].all()
    assert not number[0].all()
    assert (mine[number] >= np.floor(np.nanmin(array))).all()
    assert (mine[number] <= np.nanmax(array)).all()
    nothing = gr.resample(np.full((4, 4, 4), np.nan, np.float32), size=(6, 6, 6), convention="nnunet", dtype=target)
    assert (np.isnan(nothing) if target == "float32" else nothing == 0).all()


def test_clipping_is_by_volume():
    array = np.stack([noise((8, 9, 10)), 1000 * noise((8, 9, 10), seed=1)])
    mine = gr.resample(array, size=(13, 12, 11), convention="skimage")
    for channel, result in zip(array, mine, strict=True):
        assert (result == gr.resample(channel, size=(13, 12, 11), convention="skimage")).all()
        assert result.max() <= channel.max()


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_follows_it_too(floats, name):
    options = {"spacing": NEW[1], "input_spacing": OLD, "interpolation": "linear", "convention": name}
    mine = gr.plan(floats, **options).run(floats)
    assert (mine == gr.resample(floats, **options)).all()


@pytest.mark.parametrize("name", NAMES)
def test_volumes_get_their_geometry(floats, name):
    """The grid in space is where the samples were taken: a ramp along x, y, z keeps its slope against position."""
    z, y, x = np.indices(floats.shape)
    spacing, origin = OLD[::-1], (5.0, -3.0, 11.0)
    for k, ramp in enumerate((x, y, z)):
        volume = gr.Volume((ramp * spacing[k] + origin[k]).astype(np.float64), spacing, origin)
        out = gr.resample(volume, spacing=NEW[0][::-1], interpolation="linear", convention=name)
        place = np.arange(out.size[k]) * out.spacing[k] * out.direction[4 * k] + out.origin[k]
        line = np.moveaxis(out.array, 2 - k, 0)[
            :, out.array.shape[(2 - k + 1) % 3] // 2, out.array.shape[(2 - k + 2) % 3] // 2
        ]
        inner = (place > origin[k] + 3) & (place < origin[k] + (volume.size[k] - 2) * spacing[k] - 3)
        assert inner.sum() > 3
        # MONAI's result is float32.
        assert np.abs(line - place)[inner].max() < 1e-5


def test_sizes_are_the_librarys():
    array = np.zeros((10, 20, 30), np.float32)
    shape = {n: ours(n, array, (1, 1, 1), (1.6, 1.6, 1.6), "linear").shape for n in NAMES}
    assert shape["simpleitk"] == shape["scipy"] == shape["torch"] == shape["skimage"] == shape["nnunet"] == (6, 12, 19)
    assert shape["monai"] == (7, 13, 19)
    assert shape["nibabel"] == (7, 13, 20)
    assert shape["torchio"] == (6, 12, 18)


def test_simpleitk_takes_images_and_transforms():
    image = sitk.GetImageFromArray(noise((9, 10, 11), "int16"))
    turn = sitk.Euler3DTransform((5.0, 5.0, 5.0), 0.1, 0.2, 0.0)
    mine = gr.resample(image, like=image, transform=turn, convention="simpleitk")
    theirs = sitk.Resample(image, image, turn, sitk.sitkBSpline)
    assert np.abs(sitk.GetArrayFromImage(mine).astype(int) - sitk.GetArrayFromImage(theirs)).max() <= 1


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"convention": "scipi"}, "convention must be one of .* got 'scipi'; did you mean 'scipy'"),
        ({"convention": "scipy", "anchor": "edge"}, "convention='scipy' sets anchor='center'.*anchor='edge'"),
        ({"convention": "scipy", "boundary": "reflect"}, "sets boundary='constant'"),
        ({"convention": "scipy", "antialias": True}, "sets antialias=False"),
        ({"convention": "scipy", "antialias": np.array([1.0, 1.0, 1.0])}, "sets antialias=False"),
        ({"convention": "scipy", "rounding": "truncate"}, "sets rounding='away'"),
        ({"convention": "torch"}, "convention='torch' offers interpolation 'nearest', 'linear', got 'bspline3'.*Keys"),
        (
            {"convention": "monai", "size": (4, 4, 4), "interpolation": "linear"},
            "takes the new grid by spacing, got size",
        ),
        (
            {"convention": "scipy", "transform": sitk.Transform()},
            "takes the new grid by spacing or size, got transform",
        ),
        ({"convention": "scipy", "size": (4, 4, 4), "spacing": 2.0}, "give spacing or size, not both"),
        ({"convention": "nibabel"}, "nothing asked"),
        ({"convention": "torch", "interpolation": "linear"}, "nothing asked"),
    ],
    ids=lambda v: "" if isinstance(v, str) else "-".join(map(str, v)),
)
def test_refused_by_name(keywords, message):
    with pytest.raises(ValueError, match=message):
        gr.resample(np.zeros((6, 7, 8), np.float32), **keywords)


def test_a_convention_is_a_word():
    with pytest.raises(TypeError, match="convention must be one of"):
        gr.resample(np.zeros((6, 7, 8), np.float32), size=(3, 3, 3), convention=3)


def test_keywords_that_agree_are_fine(floats):
    mine = gr.resample(floats, size=(9, 9, 9), convention="scipy", anchor="center", boundary="constant")
    assert (mine == gr.resample(floats, size=(9, 9, 9), convention="scipy")).all()


def test_scikit_images_blurred_nearest_is_refused():
    with pytest.raises(ValueError, match="does not offer nearest on floats that shrink"):
        gr.resample(np.zeros((6, 7, 8), np.float32), size=(3, 7, 8), interpolation="nearest", convention="skimage")


def test_a_clipping_plan_has_no_blocks():
    plan = gr.plan((6, 7, 8), size=(12, 14, 16), convention="nnunet")
    with pytest.raises(ValueError, match="clips"):
        plan.crop((slice(0, 3), slice(0, 3), slice(0, 3)))


def test_the_command_line_takes_it(run, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(noise((8, 9, 10), "int16")), str(tmp_path / "in.nrrd"))
    code, _, err = run(
        "resample", tmp_path / "in.nrrd", tmp_path / "out.nrrd", "--spacing", "1.6", "--convention", "torchio"
    )
    assert (code, err) == (0, "")
    assert sitk.ReadImage(str(tmp_path / "out.nrrd")).GetSize() == (6, 5, 5)
    code, _, err = run("resample", tmp_path / "in.nrrd", tmp_path / "no.nrrd", "--spacing", "2", "--convention", "itk")
    assert code == 2
    assert "convention must be one of" in err


def test_the_page_has_the_table():
    assert markdown() in (Path(__file__).parents[2] / "docs" / "words.md").read_text()
