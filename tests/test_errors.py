"""Bad input is refused by name, before any voxel is touched."""

import importlib.util
import itertools
import re
import subprocess
import sys
from fractions import Fraction

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.planning.filters import INTERPOLATIONS

ARRAY = np.zeros((4, 5, 6), np.float32)
IMAGE = sitk.GetImageFromArray(ARRAY)
VOLUME = gr.Volume(ARRAY, (1, 1, 1))
INF, NAN = float("inf"), float("nan")


def refused(error, *words, image=ARRAY, **options):
    """The message of the error that a call raises; it must hold all `words`."""
    with pytest.raises(error) as caught:
        gr.resample(image, **options)
    assert type(caught.value) is error
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


# --- spacing and size --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 0.0, (1, 0, 1), (1, -2, 1)], ids=str)
@pytest.mark.parametrize("name", ["spacing", "input_spacing"])
def test_spacing_must_be_above_zero(name, value):
    refused(ValueError, f"{name} must be above zero", str(value), **{"spacing": 1, name: value})


@pytest.mark.parametrize("value", [NAN, INF, -INF, (1, NAN, 1), (1, 1, INF)], ids=str)
@pytest.mark.parametrize("name", ["spacing", "input_spacing"])
def test_spacing_must_be_finite(name, value):
    refused(ValueError, f"{name} must be 3 finite numbers", "nan" if "nan" in str(value) else "inf",
            **{"spacing": 1, name: value})  # fmt: skip


@pytest.mark.parametrize("value", [(1, 1), (1, 1, 1, 1), ()], ids=str)
@pytest.mark.parametrize("name", ["spacing", "input_spacing"])
def test_spacing_must_have_one_value_per_axis(name, value):
    refused(ValueError, f"{name} must have 3 values", f"got {len(value)}", **{"spacing": 1, name: value})


@pytest.mark.parametrize("value", ["1", "111", ("1", "1", "1"), (1, None, 1), True, {}, 1j], ids=repr)
def test_spacing_must_be_numbers(value):
    with pytest.raises((TypeError, ValueError), match=r"^spacing must"):
        gr.resample(ARRAY, spacing=value)


@pytest.mark.parametrize("value", [(0, 1, 1), (-3, 1, 1)], ids=str)
def test_size_must_be_at_least_one(value):
    refused(ValueError, "size must be 3 whole numbers of at least 1", str(value), size=value)


@pytest.mark.parametrize(
    "value", [(2.0, 2, 2), (2.5, 2, 2), ("2", 2, 2), (True, 2, 2), 5, "222", (NAN, 2, 2)], ids=repr
)
def test_size_must_be_whole_numbers(value):
    refused(TypeError, "size must be 3 whole numbers of at least 1", repr(value), size=value)


@pytest.mark.parametrize("value", [(2, 2), (2, 2, 2, 2)], ids=str)
def test_size_must_have_one_value_per_axis(value):
    refused(ValueError, "size must have 3 values", f"got {len(value)}", size=value)


@pytest.mark.parametrize("image", [ARRAY, IMAGE, VOLUME], ids=["array", "image", "volume"])
def test_nothing_asked(image):
    refused(ValueError, "spacing", "size", "like", image=image)


@pytest.mark.parametrize("image", [ARRAY, IMAGE, VOLUME], ids=["array", "image", "volume"])
@pytest.mark.parametrize("size", [(100000, 100000, 100000), (10**9,) * 3], ids=str)
def test_sizes_that_cannot_fit(size, image):
    message = refused(ValueError, "size", "GiB", image=image, size=size)
    needed = float(re.search(r"([\d,.]+) GiB, but", message).group(1).replace(",", ""))
    assert needed == pytest.approx(np.prod([float(n) for n in size]) * 4 / 2**30, rel=0.01)


@pytest.mark.parametrize("spacing", [1e-6, 1e-200, 1e-320])
def test_spacings_that_cannot_fit(spacing):
    # Nothing but a ValueError: not a MemoryError, not an OverflowError.
    refused(ValueError, spacing=spacing)


@pytest.mark.parametrize("image", [IMAGE, VOLUME], ids=["image", "volume"])
def test_input_spacing_is_for_arrays(image):
    refused(ValueError, "input_spacing", "(2, 2, 2)", image=image, spacing=1, input_spacing=(2, 2, 2))


def test_center_decides_the_spacing():
    refused(ValueError, "center", "spacing", "size", spacing=1, size=(2, 2, 2), anchor="center")


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "known", "nearest"),
    [
        ("interpolation", "bsplin", INTERPOLATIONS, "bspline"),
        ("interpolation", "Linear", INTERPOLATIONS, "linear"),
        ("interpolation", "neerest", INTERPOLATIONS, "nearest"),
        ("interpolation", "bspline7", INTERPOLATIONS, "bspline"),
        ("anchor", "centre", ("first", "edge", "center"), "center"),
        ("anchor", "edges", ("first", "edge", "center"), "edge"),
        ("boundary", "mirrored", ("nearest", "reflect", "mirror", "constant"), "mirror"),
        ("boundary", "Constant", ("nearest", "reflect", "mirror", "constant"), "constant"),
        ("rounding", "truncated", ("nearest", "truncate"), "truncate"),
        ("rounding", "neares", ("nearest", "truncate"), "nearest"),
    ],
)
def test_unknown_words(option, value, known, nearest):
    message = refused(ValueError, f"{option} must be one of", f"got {value!r}", "did you mean", spacing=2,
                      **{option: value})  # fmt: skip
    assert all(repr(word) in message for word in known)
    assert f"did you mean '{nearest}" in message


@pytest.mark.parametrize("option", ["interpolation", "anchor", "boundary", "rounding"])
def test_words_far_from_any_get_no_suggestion(option):
    message = refused(ValueError, f"{option} must be one of", "'qqqqqq'", spacing=2, **{option: "qqqqqq"})
    assert "did you mean" not in message


@pytest.mark.parametrize("value", [None, 1.5, b"linear", ["linear"], True], ids=repr)
@pytest.mark.parametrize("option", ["interpolation", "anchor", "rounding"])
def test_words_must_be_words(option, value):
    refused(TypeError, f"{option} must be one of", repr(value), spacing=2, **{option: value})


def test_unknown_enumerators():
    refused(ValueError, "interpolation", "99", "23 (bspline3)", spacing=2, interpolation=99)


def test_resampler_enumerators():
    refused(
        ValueError, "interpolation", str(sitk.sitkBSplineResampler), spacing=2, interpolation=sitk.sitkBSplineResampler
    )


@pytest.mark.parametrize(
    ("value", "hint"), [("gpu", True), ("cuda0", True), ("CUDA", True), ("tpu", False), ("cuda:x", True)]
)
def test_unknown_devices(value, hint):
    message = refused(
        ValueError, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N'", repr(value), spacing=2, device=value
    )
    assert ("did you mean 'cuda'" in message) == hint


@pytest.mark.parametrize("value", [0, None, True], ids=repr)
def test_devices_must_be_words(value):
    refused(TypeError, "device must be", repr(value), spacing=2, device=value)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="this machine may have a usable GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu_says_what_to_install(device):
    refused(RuntimeError, repr(device), "pip install", "gpuresample[cuda", spacing=2, device=device)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_devices_that_work_everywhere(device):
    assert gr.resample(ARRAY, spacing=2, device=device).shape == (2, 2, 3)


# --- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["U3", "S3", "object", "datetime64[s]", "timedelta64[s]", [("a", "f4")], "V4"],
    ids=str,
)
def test_voxels_must_be_numbers(dtype):
    refused(TypeError, "image must have integer, float or bool voxels", str(np.dtype(dtype)),
            image=np.zeros((3, 4, 5), dtype), spacing=2)  # fmt: skip


def test_complex_voxels_of_volumes_get_a_hint():
    with pytest.raises(TypeError, match=r"got complex128; resample image\.real and image\.imag separately"):
        gr.Volume(np.zeros((3, 4, 5), complex), (1, 1, 1), (0, 0, 0))


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_long_double_is_refused():
    refused(TypeError, "up to 64 bits", image=np.zeros((3, 4, 5), np.longdouble), spacing=2)


@pytest.mark.parametrize("shape", [(), (5,)], ids=str)
def test_images_need_two_axes(shape):
    refused(ValueError, "image must have at least 2 axes", str(shape), image=np.zeros(shape), spacing=2)


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 0, 5), (4, 5, 0), (0, 0), (0, 3, 4, 5)], ids=str)
def test_images_must_not_be_empty(shape):
    refused(ValueError, "image must not be empty", str(shape), image=np.zeros(shape), spacing=2)


@pytest.mark.parametrize("image", [[[1, 2], [3, 4]], "a.nii.gz", None, 5, b"abc"], ids=repr)
def test_images_must_be_of_a_known_kind(image):
    known = "a SimpleITK.Image, a gpuresample.Volume, a nibabel image, a MONAI MetaTensor or an array"
    refused(TypeError, f"image must be {known}",
            type(image).__name__, image=image, spacing=2)  # fmt: skip


def test_complex_images():
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.complex64))
    refused(TypeError, "complex", "ComplexToReal", image=image, spacing=2)


def test_complex_images_on_disk(read):
    refused(TypeError, "complex", image=read("complex_image.nii.gz"), spacing=2)


def test_label_map_images():
    # In a process of its own: SimpleITK aborts the interpreter when a label map is taken for an array.
    code = """
import SimpleITK as sitk, gpuresample as gr
image = sitk.Cast(sitk.Image((4, 4, 4), sitk.sitkUInt8), sitk.sitkLabelUInt8)
try:
    gr.resample(image, spacing=2)
except TypeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[:200]
    assert "image must have integer or float voxels" in done.stdout
    assert "LabelMapToLabel" in done.stdout


def test_images_of_five_dimensions():
    refused(ValueError, "2, 3 or 4 dimensions", "got 5", image=sitk.Image((2, 2, 2, 2, 2), sitk.sitkUInt8), spacing=2)


def test_a_fourth_axis_mixed_with_space():
    image = sitk.Image((3, 3, 3, 3), sitk.sitkUInt8)
    direction = np.eye(4)
    direction[:, [2, 3]] = direction[:, [3, 2]]
    image.SetDirection(direction.ravel().tolist())
    refused(ValueError, "fourth axis", image=image, spacing=2)


@pytest.mark.parametrize(
    "options", [{"transform": np.eye(3, 4) + 0.02}, {"size": (4, 5, 6), "anchor": "edge"}], ids=["turned", "axes"]
)
def test_outputs_of_a_list_that_are_others_memory(options):
    """An image would be written before it is read, or a result twice."""
    a, b = (np.random.default_rng(k).random((4, 5, 6), np.float32) for k in (0, 1))
    c = np.empty_like(a)
    options["interpolation"] = "linear"
    refused(ValueError, "out[0] must not share memory with image[1]", image=[a, b], out=[b, a], **options)
    refused(ValueError, "out[0] must not share memory with image[1]", image=[a, b], out=[b, None], **options)
    refused(ValueError, "out[0] must not share memory with out[1]", image=[a, b], out=[c, c], **options)
    side_by_side = np.empty((*a.shape, 2), np.float32)
    gr.resample([a, b], out=[side_by_side[..., 0], side_by_side[..., 1]], **options)
    assert np.array_equal(np.moveaxis(side_by_side, -1, 0), gr.resample([a, b], **options))


def test_masked_arrays():
    # A mask that silently vanished would be read as voxels.
    masked = np.ma.masked_array(ARRAY, ARRAY == 0)
    refused(TypeError, "mask", image=masked, spacing=2)
    refused(TypeError, "mask", image=nibabel.Nifti1Image(masked.astype(np.float32), np.eye(4)), spacing=2)
    refused(TypeError, "image must not be a masked array", image=masked.astype(np.complex64), spacing=2)
    out = np.ma.masked_array(np.zeros(ARRAY.shape, np.complex64))
    refused(
        TypeError, "out must not be a masked array", image=ARRAY.astype(np.complex64), transform=np.eye(3, 4), out=out
    )


def test_masked_arrays_in_dask():
    array = pytest.importorskip("dask.array")
    masked = array.ma.masked_equal(array.from_array(ARRAY, chunks=4), 0)
    refused(TypeError, "mask", image=masked, spacing=2)
    refused(TypeError, "mask", image=masked, spacing=2, region=[slice(0, 2)] * 3)


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", -1), ("uint8", 256), ("uint8", -1024), ("int8", 128), ("int16", 70000), ("int16", -40000),
        ("uint16", -1024), ("int32", 2**31), ("uint64", -1), ("uint64", 2**64), ("int64", 2**63),
        ("uint8", 3.7), ("int16", 0.5), ("int16", NAN), ("uint8", INF), ("bool", 2),
    ],
)  # fmt: skip
def test_default_values_must_fit(dtype, value):
    refused(ValueError, "default_value must be a whole number from", dtype, repr(value),
            image=np.zeros((3, 4, 5), dtype), spacing=2, default_value=value)  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e39), ("float16", 1e5), ("float16", -7e4)])
def test_default_values_must_fit_floats(dtype, value):
    refused(ValueError, "default_value must fit", dtype, repr(value), spacing=2, dtype=dtype, default_value=value)


@pytest.mark.parametrize("value", ["0", None, [0], 1j], ids=repr)
def test_default_values_must_be_numbers(value):
    refused(TypeError, "default_value must be a number", repr(value), spacing=2, default_value=value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", 255), ("int16", -1024), ("int16", -1024.0), ("uint64", 2**64 - 1), ("float32", NAN), ("float32", -INF),
     ("int16", np.int16(3)), ("float32", np.float64(1.5)), ("bool", True)],
    ids=str,
)  # fmt: skip
def test_default_values_that_fit(dtype, value):
    image = gr.Volume(np.ones((3, 3, 3), dtype), (1, 1, 1))
    far = gr.Grid((1, 1, 1), (1, 1, 1), (50.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.warns(RuntimeWarning, match="like lies nowhere near the image"):
        got = gr.resample(image, like=far, default_value=value).array[0, 0, 0]
    np.testing.assert_equal(got, np.dtype(dtype).type(value))


@pytest.mark.parametrize("dtype", ["complex64", "U4", "object", "bool", "floaty", "datetime64[s]"])
def test_dtypes_must_be_numbers(dtype):
    refused(TypeError, "dtype must be a NumPy integer or float type", repr(dtype), spacing=2, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16"])
def test_dtypes_that_simpleitk_lacks(dtype):
    refused(TypeError, "dtype", dtype, image=IMAGE, spacing=2, dtype=dtype)


# --- antialias ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["nearest", "label_linear", "label_gaussian"])
@pytest.mark.parametrize("value", [True, 1.0, (1, 1, 1)], ids=str)
def test_labels_cannot_be_blurred(interpolation, value):
    refused(ValueError, "antialias", repr(value), spacing=2, interpolation=interpolation, antialias=value)


@pytest.mark.parametrize("value", [-1, -0.5, (1, -1, 1), NAN, INF, (1, 1)], ids=str)
def test_sigmas_must_be_sound(value):
    refused(ValueError, "antialias", spacing=2, antialias=value)


@pytest.mark.parametrize("value", ["yes", ("a", 1, 1), {}, 1j], ids=repr)
def test_sigmas_must_be_numbers(value):
    with pytest.raises((TypeError, ValueError), match=r"^antialias"):
        gr.resample(ARRAY, spacing=2, antialias=value)


# --- out ---------------------------------------------------------------------------------------------------------


def test_out_of_another_shape():
    refused(ValueError, "out must have shape (2, 2, 3)", "(2, 3, 3)", spacing=2, out=np.zeros((2, 3, 3), np.float32))


def test_out_of_another_type():
    refused(TypeError, "out must have dtype float32", "float64", spacing=2, out=np.zeros((2, 2, 3)))


def test_out_of_another_byte_order():
    refused(TypeError, "out must have dtype float32", spacing=2, out=np.zeros((2, 2, 3), np.dtype("f4").newbyteorder()))


def test_out_that_is_read_only():
    out = np.zeros((2, 2, 3), np.float32)
    out.setflags(write=False)
    refused(ValueError, "out must be writable", "read-only", spacing=2, out=out)


def test_out_of_misaligned_memory():
    out = np.ndarray((2, 2, 3), np.float32, np.zeros(49, np.uint8).data, offset=1)
    try:
        assert gr.resample(ARRAY + 1, spacing=2, out=out) is out
    except (ValueError, TypeError) as error:
        assert str(error).startswith("out must")  # noqa: PT017
    else:
        assert (out == gr.resample(ARRAY + 1, spacing=2)).all()


@pytest.mark.parametrize("out", [[[0.0]], "out.nii", 3], ids=repr)
def test_out_of_another_kind(out):
    refused(TypeError, "out must be a numpy.ndarray", type(out).__name__, spacing=2, out=out)


@pytest.mark.parametrize("part", [slice(0, 4), slice(3, 7)], ids=str)
def test_out_that_overlaps_the_input(part):
    room = np.zeros((8, 5, 6), np.float32)
    refused(ValueError, "out must not share memory with the input", image=room[0:4], size=(4, 5, 6), out=room[part])


def test_out_beside_the_input_is_fine():
    room = np.ones((8, 5, 6), np.float32)
    assert gr.resample(room[0:4], size=(4, 5, 6), out=room[4:8], anchor="edge").base is room


def test_out_image_that_is_the_input():
    image = sitk.Image(IMAGE)
    refused(ValueError, "out must not share memory with the input", image=image, spacing=1, out=image)


@pytest.mark.parametrize(
    ("out", "error", "word"),
    [
        (sitk.Image((3, 2, 3), sitk.sitkFloat32), ValueError, "out must have size (3, 2, 2)"),
        (sitk.Image((3, 2), sitk.sitkFloat32), ValueError, "out must have size (3, 2, 2)"),
        (sitk.Image((3, 2, 2), sitk.sitkFloat64), TypeError, "out must have pixel type 32-bit float"),
        (sitk.Image((3, 2, 2), sitk.sitkVectorFloat32, 2), TypeError, "out must have pixel type 32-bit float"),
        (np.zeros((2, 2, 3), np.float32), TypeError, "out must be a SimpleITK.Image"),
    ],
    ids=["size", "dimension", "type", "vector", "array"],
)
def test_out_image(out, error, word):
    refused(error, word, image=IMAGE, spacing=2, out=out)


def test_out_image_of_other_components():
    image = sitk.Image((4, 4, 4), sitk.sitkVectorFloat32, 3)
    refused(TypeError, "out must have", image=image, spacing=2, out=sitk.Image((2, 2, 2), sitk.sitkVectorFloat32, 2))


def test_a_refused_call_leaves_out_alone():
    out = np.full((2, 2, 3), 7, np.float32)
    refused(ValueError, "interpolation", spacing=2, interpolation="cubic", out=out)
    refused(ValueError, "default_value", spacing=2, default_value=1e300, out=out)
    assert (out == 7).all()


def test_a_refused_out_image_keeps_its_geometry():
    out = sitk.Image((3, 2, 3), sitk.sitkFloat32)
    out.SetOrigin((5, 5, 5))
    refused(ValueError, "out must have size", image=IMAGE, spacing=2, out=out)
    assert out.GetOrigin() == (5.0, 5.0, 5.0)


# --- like --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("spacing", 1), ("spacing", (1, 1, 1)), ("spacing", np.array([1, 1, 1])), ("size", (4, 4, 4)),
     ("size", np.array([4, 4, 4])), ("anchor", "edge")],
    ids=str,
)  # fmt: skip
def test_like_gives_the_whole_grid(name, value):
    refused(ValueError, "like gives the whole grid", name, like=VOLUME, image=VOLUME, **{name: value})


@pytest.mark.parametrize("like", [(4, 5, 6), "a.nii", 5], ids=repr)
def test_like_must_be_an_image(like):
    refused(TypeError, "like must be", type(like).__name__, like=like)


def test_like_of_another_dimension():
    refused(
        ValueError,
        "like must have the image's 3 dimensions",
        "got 2",
        image=IMAGE,
        like=sitk.Image((3, 3), sitk.sitkUInt8),
    )
    refused(ValueError, "like must have at least the image's 3 spatial axes", "(3, 3)", like=np.zeros((3, 3)))


def test_like_an_empty_array():
    with pytest.raises(ValueError, match=r"like|size"):
        gr.resample(ARRAY, like=np.zeros((3, 0, 3)))


# --- transforms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["affine.tfm", 3, {}], ids=["path", "number", "dict"])
def test_transforms_must_be_transforms(transform):
    refused(
        TypeError, "transform must be a SimpleITK.Transform", type(transform).__name__, image=IMAGE, transform=transform
    )


def test_transforms_of_another_dimension():
    refused(ValueError, "transform must have the image's dimension 3", "2-D", image=IMAGE,
            transform=sitk.Euler2DTransform())  # fmt: skip
    refused(ValueError, "transform must have the image's dimension 2", "3-D", image=IMAGE[:, :, 0],
            transform=sitk.AffineTransform(3))  # fmt: skip


def test_true_antialias_of_a_deforming_transform():
    field = sitk.DisplacementFieldTransform(sitk.Image((4, 4, 4), sitk.sitkVectorFloat64))
    refused(ValueError, "antialias", "sigma", image=IMAGE, transform=field, antialias=True)


# --- volumes and grids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((ARRAY, (1, 1)), ValueError, "spacing must have 3 values"),
        ((ARRAY, (1, 0, 1)), ValueError, "spacing must be above zero"),
        ((ARRAY, (1, NAN, 1)), ValueError, "spacing must be 3 finite numbers"),
        ((ARRAY, "abc"), TypeError, "spacing must be 3 finite numbers"),
        ((ARRAY, (1, 1, 1), (0, 0)), ValueError, "origin must have 3 values"),
        ((ARRAY, (1, 1, 1), (0, 0, INF)), ValueError, "origin must be 3 finite numbers"),
        ((ARRAY, (1, 1, 1), 0), TypeError, "origin must"),
        ((ARRAY, (1, 1, 1), None, (1, 0, 0, 1)), ValueError, "direction must have 9 values"),
        ((ARRAY, (1, 1, 1), None, (1, (0, 0), 1)), ValueError, "direction must be 9 finite numbers"),
        ((ARRAY, (1, 1, 1), None, (1, 0, 0, 0, 1, 0, 0, 0, 0)), ValueError, "direction must have an inverse"),
        ((ARRAY, (1, 1, 1), None, (1, 0, 0, 0, 1, 0, 0, NAN, 1)), ValueError, "direction must be 9 finite numbers"),
        (
            ([[1.0]], (1, 1)),
            TypeError,
            "__cuda_array_interface__), got list",
        ),
        ((np.zeros(5), (1,)), ValueError, "image must have at least 2 axes"),
        ((np.zeros((0, 5)), (1, 1)), ValueError, "image must not be empty"),
        ((np.zeros((3, 5), complex), (1, 1)), TypeError, "integer, float or bool"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_volumes(arguments, error, words):
    with pytest.raises(error, match=re.escape(words)):
        gr.Volume(*arguments)


@pytest.mark.parametrize(
    ("size", "spacing", "origin", "direction", "error", "words"),
    [
        ((3,), (1,), (0,), (1,), ValueError, "size must have 2 or 3 values"),
        (np.array(2), (1, 1), (0, 0), (1, 0, 0, 1), ValueError, "size must have 2 or 3 values"),
        ((3, 3, 3, 3), (1,) * 4, (0,) * 4, (1,) * 16, ValueError, "size must have 2 or 3 values"),
        ((3, 0), (1, 1), (0, 0), (1, 0, 0, 1), ValueError, "size must be 2 whole numbers"),
        ((3, 2.0), (1, 1), (0, 0), (1, 0, 0, 1), TypeError, "size must be 2 whole numbers"),
        ((3, 3), (1, -1), (0, 0), (1, 0, 0, 1), ValueError, "spacing must be above zero"),
        ((3, 3), (1, 1), (0,), (1, 0, 0, 1), ValueError, "origin must have 2 values"),
        ((3, 3), (1, 1), (0, 0), (1, 1, 1, 1), ValueError, "direction must have an inverse"),
    ],
)
def test_grids(size, spacing, origin, direction, error, words):
    with pytest.raises(error, match=re.escape(words)):
        gr.Grid(size, spacing, origin, direction)


# --- plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((5,), ValueError, "at least 2 axes"),
        ((5, 0, 3), ValueError, "whole numbers of at least 1"),
        ((5, 2.0, 3), TypeError, "whole numbers of at least 1"),
        ((), ValueError, "at least 2 axes"),
        ("abc", TypeError, "image must be"),
    ],
    ids=str,
)
def test_plans_of_bad_shapes(shape, error, words):
    with pytest.raises(error, match=words):
        gr.plan(shape, spacing=2)


def test_plans_check_like_resample():
    with pytest.raises(ValueError, match="interpolation must be one of"):
        gr.plan((4, 5, 6), spacing=2, interpolation="cubic")
    with pytest.raises(ValueError, match="nothing asked"):
        gr.plan((4, 5, 6))
    with pytest.raises(TypeError, match="dtype must be"):
        gr.plan((4, 5, 6), spacing=2, dtype="complex64")


def test_arguments_go_by_name():
    with pytest.raises(TypeError, match="positional"):
        gr.resample(ARRAY, (2, 2, 2))


# --- numbers beyond all numbers, and things that are none -----------------------------------------------------------

HUGE = 10**400
ODD = [
    HUGE, -HUGE, 10**5000, 2**63, 5e-324, 1e300, np.nan, np.inf, 1j, "x", b"x", None, object(), Fraction(HUGE, 3),
    np.zeros(0), np.array([None]), np.array([[1, 2], [3, 4]]), range(10**12), itertools.repeat(1),
]  # fmt: skip
CALLS = {
    "spacing": lambda v: gr.resample(ARRAY, spacing=v),
    "spacings": lambda v: gr.resample(ARRAY, spacing=(1, v, 1)),
    "size": lambda v: gr.resample(ARRAY, size=v),
    "sizes": lambda v: gr.resample(ARRAY, size=(1, v, 1)),
    "input_spacing": lambda v: gr.resample(ARRAY, spacing=2, input_spacing=v),
    "antialias": lambda v: gr.resample(ARRAY, spacing=2, interpolation="linear", antialias=(v, 0, 0)),
    "default_value": lambda v: gr.resample(ARRAY, spacing=2, default_value=v),
    "interpolation": lambda v: gr.resample(ARRAY, spacing=2, interpolation=v),
    "sigma": lambda v: gr.gaussian(ARRAY, v),
    "sigma, recursive": lambda v: gr.gaussian(ARRAY, (0, v, 0), kind="recursive"),
    "order": lambda v: gr.gaussian(ARRAY, 1, kind="sampled", order=v),
    "truncate": lambda v: gr.gaussian(ARRAY, 1, kind="sampled", truncate=v),
    "max_error": lambda v: gr.gaussian(ARRAY, 1, max_error=v),
    "max_radius": lambda v: gr.gaussian(ARRAY, 1, max_radius=v),
    "factors": lambda v: gr.downsample(ARRAY, v),
    "factors of shrink": lambda v: gr.shrink(ARRAY, (1, v, 1)),
    "levels": lambda v: gr.pyramid(ARRAY, v),
    "levels, itk": lambda v: gr.pyramid(ARRAY, v, kind="itk"),
    "levels of laplacian": lambda v: gr.laplacian(ARRAY, v),
    "schedule": lambda v: gr.pyramid(ARRAY, schedule=[1, v]),
    "n": gr.set_num_threads,
    "origin": lambda v: gr.Grid((3, 3), (1, 1), (0, v), (1, 0, 0, 1)),
    "direction": lambda v: gr.Grid((3, 3), (1, 1), (0, 0), (1, 0, 0, v)),
    "size of a grid": lambda v: gr.Grid(v, (1, 1), (0, 0), (1, 0, 0, 1)),
    "dst_slices": lambda v: gr.plan(ARRAY, spacing=2).input_region(v),
    "volumes": lambda v: gr.plan(ARRAY, spacing=2).cost(volumes=v),
    "weights": lambda v: gr.ensemble([ARRAY[None]], size=(3, 3, 3), weights=(v,)),
    # By a spline, for its kernel takes less time to compile for large labels.
    "labels": lambda v: gr.ensemble([ARRAY[None]], size=(3, 3, 3), labels=(v,), interpolation="bspline"),
    "threshold": lambda v: gr.ensemble([ARRAY[None]], size=(3, 3, 3), activation="sigmoid", threshold=v),
    "output": lambda v: gr.ensemble([ARRAY[None]], size=(3, 3, 3), output=v),
}


@pytest.mark.filterwarnings("ignore:the pyramid ends")
@pytest.mark.parametrize("value", ODD, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("call", CALLS)
def test_odd_arguments_are_answered_or_refused_by_name(call, value):
    message = ""
    try:
        CALLS[call](value)
    except (ValueError, TypeError) as error:
        message = str(error)
    finally:
        gr.set_num_threads(None)
    # Of the two spacings either may be what does not fit the other.
    name = call.split(",")[0].split(" ")[0].removesuffix("s").removeprefix("input_")
    assert not message or name in message
    assert len(message) < 600


@pytest.mark.parametrize("size", [2**31, 2**31 + 55, 2**32 + 200, 2**63, 10**30])
def test_axes_that_32_bits_cannot_count_are_refused(size):
    refused(ValueError, "size must be", "2147483647", size=(1, 1, size))
    with pytest.raises(ValueError, match=r"size must be .* at most 2147483647"):
        gr.Grid((size, 1, 1), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(ValueError, match="at most 2147483647"):
        gr.plan((1, size), size=(1, 5))
    with pytest.raises(ValueError, match="at most 2147483647"):
        gr.resample(np.broadcast_to(np.uint8(1), (1, min(size, 2**60))), size=(1, 5))


# --- an output whose voxels lie on one another ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 2, 3)])
@pytest.mark.parametrize(
    "strides",
    [(0, 12, 4), (36, 0, 4), (4, 4, 4), (12, 12, 4), (8, 12, 4), (-36, 4, 4), (0, 0, 0), (12, 8, 4), (36, 12, 0)],
)
def test_out_that_overlaps_itself(shape, strides):
    memory = np.zeros(200, np.float32)
    out = np.lib.stride_tricks.as_strided(memory[60:], shape, strides)
    with pytest.raises(ValueError, match="out must have no two voxels in one place"):
        gr.resample(ARRAY, size=shape, out=out)
    assert not memory.any()


@pytest.mark.parametrize("strides", [(4, 8, 24), (36, 12, 4), (-36, 12, -4), (4, 24, 8), (100, 12, 4), (8, 12, 40)])
def test_out_in_any_order_does_not_overlap_itself(strides):
    """(8, 12, 40) interleaves: no axis is nested in another, yet no two voxels meet."""
    shape = (2, 3, 3)
    memory = np.zeros(400, np.float32)
    out = np.lib.stride_tricks.as_strided(memory[200:], shape, strides)
    image = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    gr.resample(image, size=shape, out=out)
    assert (out == gr.resample(image, size=shape)).all()
