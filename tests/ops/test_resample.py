"""What goes in comes out: containers, types, options of `resample`."""

import itertools

import naive
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from support import SINGLE, assert_close, labels, noise, same_bits, to_image

import gpuresample as gr

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
INTERPOLATING = [n for n in naive.EVERY if "gaussian" not in n]
EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def finer(array, **options):
    return gr.resample(array, size=[2 * n - 1 for n in array.shape[-min(array.ndim, 3) :]], **options)


# --- arrays ------------------------------------------------------------------------------------------------------

BASE = noise((9, 10, 11), "float32")


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


def misaligned(array):
    """The same voxels, one byte off."""
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = np.ndarray(array.shape, array.dtype, room.data, offset=1)
    view[...] = array
    return view


def every_second(array):
    room = np.zeros([2 * n for n in array.shape], array.dtype)
    room[::2, ::2, ::2] = array
    return room[::2, ::2, ::2]


LAYOUTS = {
    "fortran": np.asfortranarray,
    "big-endian": lambda a: a.astype(">f4"),
    "swapped": swapped,
    "misaligned": misaligned,
    "every second": every_second,
    "transposed view": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "negative strides": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "one negative stride": lambda a: a[:, ::-1].copy()[:, ::-1],
}


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "nearest", "label_linear"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_does_not_matter(layout, interpolation):
    array = LAYOUTS[layout](BASE)
    assert (array == BASE).all()
    got = finer(array, interpolation=interpolation)
    assert same_bits(got, finer(BASE, interpolation=interpolation))
    assert (array == BASE).all()


def test_read_only_input():
    array = BASE.copy()
    array.setflags(write=False)
    assert same_bits(finer(array), finer(BASE))


def test_memory_mapped_input(tmp_path):
    np.save(tmp_path / "a.npy", BASE)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert same_bits(np.asarray(finer(mapped)), finer(BASE))


def test_broadcast_input():
    array = np.broadcast_to(BASE[:1], BASE.shape)
    assert array.strides[0] == 0
    assert same_bits(finer(array), finer(array.copy()))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "nearest", "label_linear"])
@pytest.mark.parametrize("lead", [(1,), (3,), (2, 3)], ids=str)
def test_leading_axes_are_separate_volumes(lead, interpolation):
    array = noise((*lead, 5, 6, 7), "float32")
    got = finer(array, interpolation=interpolation)
    assert got.shape == (*lead, 9, 11, 13)
    for where in np.ndindex(lead):
        assert same_bits(got[where], finer(array[where], interpolation=interpolation))


def test_leading_axes_in_any_memory_order():
    array = np.moveaxis(noise((5, 6, 7, 3), "float32"), -1, 0)
    assert same_bits(finer(array), finer(np.ascontiguousarray(array)))


def test_two_axes_are_a_picture():
    picture = BASE[4]
    got = gr.resample(picture, size=(19, 31), interpolation="linear", anchor="edge")
    assert got.shape == (19, 31)
    slab = gr.resample(picture[None], size=(1, 19, 31), interpolation="linear", anchor="edge")
    assert same_bits(got, slab[0])


def test_array_tuples_are_in_axis_order():
    assert gr.resample(BASE, size=(3, 4, 5)).shape == (3, 4, 5)
    assert gr.resample(BASE, spacing=(3, 2, 1)).shape == (3, 5, 11)
    assert gr.resample(BASE, spacing=(3, 2, 1), input_spacing=(1, 2, 0.5)).shape == (3, 10, 6)


def test_volume_and_image_tuples_are_x_y_z():
    volume = gr.Volume(BASE, (1, 1, 1))
    assert gr.resample(volume, size=(5, 4, 3)).array.shape == (3, 4, 5)
    assert gr.resample(sitk.GetImageFromArray(BASE), size=(5, 4, 3)).GetSize() == (5, 4, 3)


def test_one_number_serves_all_axes():
    assert gr.resample(BASE, spacing=2).shape == (4, 5, 6)
    assert gr.resample(BASE, spacing=2.0, input_spacing=4).shape == (18, 20, 22)


@pytest.mark.parametrize("number", [np.float64(2), np.float32(2), np.int64(2)], ids=lambda v: type(v).__name__)
def test_numpy_numbers_are_numbers(number):
    assert gr.resample(BASE, spacing=number).shape == (4, 5, 6)
    assert gr.resample(BASE, spacing=(number,) * 3).shape == (4, 5, 6)
    assert same_bits(gr.resample(BASE, spacing=2, antialias=number), gr.resample(BASE, spacing=2, antialias=2.0))


def test_numpy_arrays_are_sequences():
    assert gr.resample(BASE, spacing=np.array([3, 2, 1.0])).shape == (3, 5, 11)
    assert gr.resample(BASE, size=np.array([3, 4, 5])).shape == (3, 4, 5)


# --- containers --------------------------------------------------------------------------------------------------

GEOMETRY = naive.Geometry(
    (11, 10, 9), (0.8, 1.1, 2.3), (1.0, -2.0, 3.0), ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
)


def test_arrays_come_back_as_arrays():
    got = finer(BASE)
    assert type(got) is np.ndarray
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert got.base is None


def test_volumes_come_back_as_volumes():
    volume = gr.Volume(BASE, GEOMETRY.spacing, GEOMETRY.origin, GEOMETRY.direction)
    got = gr.resample(volume, spacing=(1, 1, 1))
    assert isinstance(got, gr.Volume)
    assert got.size == (9, 11, 21)
    assert got.array.shape == (21, 11, 9)
    assert got.spacing == (1.0, 1.0, 1.0)
    assert got.origin == GEOMETRY.origin
    assert got.direction == tuple(v for row in GEOMETRY.direction for v in row)


def test_images_come_back_as_images():
    got = gr.resample(to_image(BASE, GEOMETRY), spacing=(1, 1, 1))
    assert isinstance(got, sitk.Image)
    assert got.GetSize() == (9, 11, 21)
    assert got.GetSpacing() == (1.0, 1.0, 1.0)
    assert got.GetOrigin() == GEOMETRY.origin
    assert got.GetDirection() == tuple(v for row in GEOMETRY.direction for v in row)


def test_the_three_containers_hold_the_same_voxels():
    volume = gr.Volume(BASE, GEOMETRY.spacing, GEOMETRY.origin, GEOMETRY.direction)
    image = to_image(BASE, GEOMETRY)
    from_volume = gr.resample(volume, spacing=(1, 1, 1)).array
    assert same_bits(from_volume, sitk.GetArrayFromImage(gr.resample(image, spacing=(1, 1, 1))))
    assert same_bits(from_volume, gr.resample(BASE, spacing=(1, 1, 1), input_spacing=GEOMETRY.spacing[::-1]))


def test_a_volume_of_channels():
    array = noise((2, 5, 6, 7))
    got = gr.resample(gr.Volume(array, (1, 1, 2)), spacing=1)
    assert got.array.shape == (2, 10, 6, 7)
    assert same_bits(got.array[1], gr.resample(gr.Volume(array[1], (1, 1, 2)), spacing=1).array)


def test_a_result_outlives_its_input():
    got = gr.resample(to_image(BASE, GEOMETRY), spacing=(1, 1, 1))
    again = gr.resample(got, spacing=(2, 2, 2))
    del got
    assert np.isfinite(sitk.GetArrayFromImage(again)).all()


def test_input_images_are_not_touched():
    image = to_image(BASE.copy(), GEOMETRY)
    copy = sitk.Image(image)
    gr.resample(image, spacing=(1, 1, 1))
    assert same_bits(sitk.GetArrayFromImage(image), BASE)
    assert copy.GetOrigin() == image.GetOrigin()


@pytest.mark.filterwarnings("ignore:like lies nowhere near")
@pytest.mark.parametrize("kind", ["image", "volume", "grid"])
def test_like(kind):
    grid = gr.Grid((6, 7, 8), (1.3, 1.2, 1.1), (2.0, -1.0, 4.0), EYE)
    like = {
        "grid": grid,
        "volume": gr.Volume(np.zeros((8, 7, 6)), grid.spacing, grid.origin),
        "image": to_image(np.zeros((8, 7, 6)), naive.Geometry(grid.size, grid.spacing, grid.origin)),
    }[kind]
    image = to_image(BASE, GEOMETRY)
    got = gr.resample(image, like=like)
    assert (got.GetSize(), got.GetSpacing(), got.GetOrigin()) == (grid.size, grid.spacing, grid.origin)
    assert same_bits(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(gr.resample(image, like=grid)))


def test_like_an_array_takes_its_size():
    like = np.zeros((4, 5, 6))
    assert same_bits(gr.resample(BASE, like=like), gr.resample(BASE, size=(4, 5, 6)))
    assert same_bits(gr.resample(BASE, like=np.zeros((2, 4, 5, 6))), gr.resample(BASE, size=(4, 5, 6)))


# --- out ---------------------------------------------------------------------------------------------------------


def test_out_array():
    out = np.full((17, 19, 21), np.nan, np.float32)
    assert finer(BASE, out=out) is out
    assert same_bits(out, finer(BASE))


@pytest.mark.parametrize("view", ["fortran", "strided", "reversed", "part"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "label_linear"])
def test_out_of_any_layout(view, interpolation):
    room = np.full((40, 40, 42), np.float32(np.nan))
    out = {
        "fortran": np.asfortranarray(room)[:17, :19, :21],
        "strided": room[:34:2, :38:2, ::2],
        "reversed": room[:17, :19, :21][::-1, :, ::-1],
        "part": room[3:20, 5:24, 7:28],
    }[view]
    assert finer(BASE, out=out, interpolation=interpolation) is out
    assert (out == finer(BASE, interpolation=interpolation)).all()
    if out.base is room:
        assert np.isnan(room).sum() == room.size - out.size


def test_out_image():
    image = to_image(BASE, GEOMETRY)
    expected = gr.resample(image, spacing=(1, 1, 1))
    out = sitk.Image(expected.GetSize(), sitk.sitkFloat32)
    assert gr.resample(image, spacing=(1, 1, 1), out=out) is out
    assert out.GetOrigin() == expected.GetOrigin()
    assert out.GetDirection() == expected.GetDirection()
    assert same_bits(sitk.GetArrayFromImage(out), sitk.GetArrayFromImage(expected))


def test_out_image_is_written_alone():
    # SimpleITK copies lazily: a copy made before shares memory until one of the two is written.
    image = to_image(BASE, GEOMETRY)
    out = sitk.Image((9, 11, 21), sitk.sitkFloat32)
    copy = sitk.Image(out)
    gr.resample(image, spacing=(1, 1, 1), out=out)
    assert (sitk.GetArrayViewFromImage(copy) == 0).all()
    assert (sitk.GetArrayViewFromImage(out) != 0).any()


def test_out_vector_and_4d_images():
    vector = sitk.GetImageFromArray(noise((5, 6, 7, 3)), isVector=True)
    out = sitk.Image((4, 3, 2), sitk.sitkVectorFloat32, 3)
    assert gr.resample(vector, size=(4, 3, 2), out=out) is out
    assert same_bits(sitk.GetArrayFromImage(out), sitk.GetArrayFromImage(gr.resample(vector, size=(4, 3, 2))))
    series = sitk.GetImageFromArray(noise((3, 5, 6, 7)), isVector=False)
    out = sitk.Image((4, 3, 2, 3), sitk.sitkFloat32)
    assert gr.resample(series, size=(4, 3, 2), out=out) is out
    assert same_bits(sitk.GetArrayFromImage(out), sitk.GetArrayFromImage(gr.resample(series, size=(4, 3, 2))))


@pytest.mark.parametrize("kind", ["array", "volume"])
def test_out_volume(kind):
    volume = gr.Volume(BASE, GEOMETRY.spacing, GEOMETRY.origin, GEOMETRY.direction)
    expected = gr.resample(volume, spacing=(1, 1, 1))
    array = np.zeros((21, 11, 9), np.float32)
    out = array if kind == "array" else gr.Volume(array, (9, 9, 9))
    got = gr.resample(volume, spacing=(1, 1, 1), out=out)
    assert got.array is array
    assert (got.spacing, got.origin, got.direction) == (expected.spacing, expected.origin, expected.direction)
    assert same_bits(array, expected.array)


def test_out_is_written_outside_too():
    out = np.full((20, 10, 11), 77, np.float32)
    gr.resample(BASE, spacing=(0.45, 1, 1), default_value=-3, interpolation="linear", out=out)
    assert (out[-1] == -3).all()
    assert (out[:-1] != 77).all()


# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
@pytest.mark.parametrize("dtype", ["bool", *INTEGERS, *FLOATS])
def test_every_type_comes_back(dtype, interpolation):
    array = labels((7, 8, 9), dtype, count=2 if dtype == "bool" else 5)
    got = gr.resample(array, size=(5, 9, 12), interpolation=interpolation)
    assert got.dtype == np.dtype(dtype)
    assert got.any()
    exact = gr.resample(array.astype(np.float64), size=(5, 9, 12), interpolation=interpolation)
    if dtype == "bool":
        exact = np.clip(exact, 0, 1)
    elif np.dtype(dtype).kind == "u":
        exact = np.maximum(exact, 0)
    bound = {"float64": 1e-8, "float32": 1e-5, "float16": 5e-3}.get(dtype, 0.5 + 1e-5)
    assert_close(got.astype(np.float64), exact, bound)


def test_bool_stays_bool_where_a_spline_overshoots():
    array = np.zeros((8, 8, 8), bool)
    array[3:5, 3:5, 3:5] = True
    exact = gr.resample(array.astype(np.float64), size=(15, 15, 15), anchor="center")
    assert exact.max() > 1.6
    got = gr.resample(array, size=(15, 15, 15), anchor="center")
    assert set(np.unique(got.view(np.uint8))) == {0, 1}
    assert (got == (exact > 0.5))[np.abs(exact - 0.5) > 1e-4].all()


def test_bool_in_float_out():
    array = noise((6, 6, 6)) > 0
    got = gr.resample(array, size=(9, 9, 9), dtype="float32", interpolation="linear")
    assert ((got > 0) & (got < 1)).any()


@pytest.mark.parametrize("interpolation", ["nearest", "label_linear", "label_gaussian"])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_big_labels_survive(dtype, interpolation):
    # SimpleITK loses them above 2 ** 53; two neighbours there are one double.
    big = np.array([2**53 + 1, 2**53, 2**62 + 12345, np.iinfo(dtype).max, np.iinfo(dtype).max - 1], dtype)
    array = big[labels((7, 8, 9), "uint8", count=5)]
    got = gr.resample(array, size=(11, 9, 13), interpolation=interpolation, anchor="edge")
    small = labels((7, 8, 9), "uint8", count=5)
    # Ties go to the smaller label, so the stand-ins have to be in the same order.
    rank = np.argsort(np.argsort(big)).astype(np.uint8)
    expected = np.sort(big)[gr.resample(rank[small], size=(11, 9, 13), interpolation=interpolation, anchor="edge")]
    assert same_bits(got, expected)


# Pairs whose kernels are compiled ahead.
@pytest.mark.parametrize(
    ("source", "dtype"),
    [("int16", "float32"), ("int16", "float64"), ("int32", "float32"), ("float32", "float64"), ("float32", "int16"),
     ("float32", "uint8"), ("float32", "uint16"), ("float64", "float32"), ("float64", "int32")],
)  # fmt: skip
def test_dtype(source, dtype):
    array = noise((6, 7, 8), source)
    got = gr.resample(array, spacing=0.7, dtype=dtype)
    assert got.dtype == np.dtype(dtype)
    exact = gr.resample(array.astype(np.float64), spacing=0.7)
    if np.dtype(dtype).kind in "iu":
        exact = naive.to_integers(exact, dtype)
        assert np.abs(got.astype(int) - exact).max() <= 1
    else:
        assert_close(got, exact, SINGLE * np.ptp(array.astype(float)))


def test_dtype_of_an_image():
    got = gr.resample(to_image(noise((9, 10, 11), "int16"), GEOMETRY), spacing=1, dtype=np.float32)
    assert got.GetPixelID() == sitk.sitkFloat32


def test_labels_in_another_type_saturate():
    array = np.array([[[-5, 0], [300, 7]]], np.int16)
    got = gr.resample(array, size=(1, 2, 2), interpolation="nearest", dtype="uint8")
    assert got.tolist() == [[[0, 0], [255, 7]]]


def test_copied_floats_in_integers_are_rounded():
    array = np.array([[[-1.5, -0.5, 0.5, 1.5, 2.5, 2.6, 300.0, -300.0, np.nan]]], np.float32)
    nearest = gr.resample(array, size=array.shape, interpolation="nearest", dtype="int8")
    assert nearest.ravel().tolist() == [-2, 0, 0, 2, 2, 3, 127, -128, 0]
    truncated = gr.resample(array, size=array.shape, interpolation="nearest", dtype="int8", rounding="truncate")
    assert truncated.ravel().tolist() == [-1, 0, 0, 1, 2, 2, 127, -128, 0]


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("nearest", [-2, -2, -1, 0, 0, 0, 1, 2, 2]),
        ("truncate", [-2, -1, -1, 0, 0, 0, 1, 1, 2]),
    ],
)
def test_rounding_golden(rounding, expected, interpolation):
    # A ramp from -2 to 2 in half steps; order 1 in both cases, as x mirrored about its ends is no ramp for splines.
    name = "linear" if interpolation == "linear" else "bspline1"
    array = np.arange(-2, 3, dtype=np.int16).reshape(1, 1, 5)
    got = gr.resample(array, size=(1, 1, 9), anchor="center", interpolation=name, rounding=rounding)
    assert got.ravel().tolist() == expected


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_overshoot_saturates(dtype):
    info = np.iinfo(dtype)
    array = np.full((1, 1, 8), info.min, dtype)
    array[..., 4:] = info.max
    got = gr.resample(array, size=(1, 1, 29), anchor="center").ravel()
    # A step overshoots on either side; wrapped around it would land at the other end of the type.
    assert got[: 28 * 3 // 7].max() < info.min // 2 + info.max // 2
    assert got[-28 * 3 // 7 :].min() > info.min // 2 + info.max // 2
    # 2 ** 63 - 1 and 2 ** 64 - 1 have no double: the largest double below stands for them.
    slack = 2048 if info.bits == 64 else 0
    assert int(got.max()) >= info.max - slack
    assert int(got.min()) == info.min


# --- values that are no numbers ----------------------------------------------------------------------------------


def with_one(value, dtype="float32"):
    array = np.zeros((9, 9, 9), dtype)
    array[4, 4, 4] = value
    return array


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_unread_neighbour_does_not_leak_into_linear(value):
    # On voxels only the voxel itself is read; between two, these two.
    same = gr.resample(with_one(value), size=(9, 9, 9), interpolation="linear")
    assert (~np.isfinite(same)).sum() == 1
    half = gr.resample(with_one(value), size=(17, 17, 17), interpolation="linear", anchor="center")
    assert (~np.isfinite(half)).sum() == 27
    assert not np.isfinite(half[7:10, 7:10, 7:10]).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("interpolation", ["linear", "bspline1"])
def test_nan_on_one_axis_that_is_resampled(interpolation, axis):
    size = [9, 9, 9]
    size[axis] = 17
    got = gr.resample(with_one(np.nan), size=size, anchor="center", interpolation=interpolation)
    expected = np.zeros(size, bool)
    index = [4, 4, 4]
    index[axis] = slice(7, 10)
    expected[tuple(index)] = True
    assert (np.isnan(got) == expected).all()


def test_nan_of_a_gather_does_not_leak_either():
    transform = sitk.Euler3DTransform((4.0, 4.0, 4.0), 0.0, 0.0, np.pi / 4)
    got = gr.resample(gr.Volume(with_one(np.nan), (1, 1, 1)), transform=transform, interpolation="linear").array
    # A quarter turn's half in the plane: what lies within a voxel of the centre, and only in its plane.
    assert np.isnan(got[4]).sum() == 5
    assert not np.isnan(np.delete(got, 4, axis=0)).any()


def test_nan_spreads_as_far_as_a_splines_taps():
    got = gr.resample(np.where(np.arange(61) == 30, np.nan, 0.0).astype(np.float32).reshape(1, 1, 61),
                      spacing=(1, 1, 0.5), interpolation="bspline3").ravel()  # fmt: skip
    bad = np.flatnonzero(np.isnan(got)) / 2
    assert bad.min() < 30 < bad.max()
    assert np.abs(bad - 30).max() <= 13


@pytest.mark.parametrize(("source", "dtype"), [("float32", "int16"), ("float32", "uint8"), ("float64", "int32")])
@pytest.mark.parametrize("interpolation", ["linear", "nearest", "bspline3"])
def test_nan_is_zero_in_integers(interpolation, source, dtype):
    array = np.full((5, 5, 5), 7, source)
    array[2, 2, 2] = np.nan
    got = gr.resample(array, size=(5, 5, 5), interpolation=interpolation, dtype=dtype)
    assert got[2, 2, 2] == 0
    assert got[0, 0, 0] == 7


# Pairs whose kernels are compiled ahead.
@pytest.mark.parametrize(
    ("rounding", "source", "dtype"), [("nearest", "float32", "int16"), ("truncate", "float64", "int32")]
)
def test_infinity_saturates_in_integers(rounding, source, dtype):
    array, ends = np.array([[[np.inf, 1, -np.inf]]], source), np.iinfo(dtype)
    for interpolation in ("linear", "nearest"):
        got = gr.resample(array, size=(1, 1, 3), interpolation=interpolation, dtype=dtype, rounding=rounding)
        assert got.ravel().tolist() == [ends.max, 1, ends.min]


@pytest.mark.parametrize("default", [-1024, 0, 3.5, np.nan, np.inf])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "label_linear"])
def test_default_value(interpolation, default):
    like = gr.Grid((4, 4, 4), (1, 1, 1), (7.0, 7.0, 7.0), EYE)
    volume = gr.Volume(np.ones((9, 9, 9), np.float32), (1, 1, 1))
    got = gr.resample(volume, like=like, default_value=default, interpolation=interpolation).array
    assert (got[:2, :2, :2] == 1).all()
    got[:2, :2, :2] = default
    np.testing.assert_array_equal(got, np.full((4, 4, 4), default, np.float32))


# --- identity ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("interpolation", INTERPOLATING)
def test_identity_changes_nothing(interpolation, dtype):
    # SimpleITK truncates and changes up to 81 % of the voxels here.
    array = noise((5, 6, 7), dtype)
    volume = gr.Volume(array, (0.7, 0.9, 1.3), (-120.7, 33.3, 17.17))
    got = gr.resample(volume, like=volume, interpolation=interpolation)
    assert same_bits(got.array, array)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int32"])
def test_truncated_identity_is_off_by_one_as_simpleitks_is(dtype):
    # Which voxels fall depends on last bits, which no contract covers on a grid of ties: how far they fall does.
    array = noise((9, 10, 11), dtype).astype(np.int64)
    volume = gr.Volume(array.astype(dtype), (0.7, 0.9, 1.3), (-120.7, 33.3, 17.17))
    got = gr.resample(volume, like=volume, interpolation="linear", rounding="truncate").array.astype(np.int64)
    image = to_image(array.astype(dtype), naive.Geometry(volume.size, volume.spacing, volume.origin))
    expected = sitk.GetArrayFromImage(sitk.Resample(image, image)).astype(np.int64)
    for result in (got, expected):
        assert ((result == array) | (result == array - np.sign(array))).all()
    assert (expected != array).mean() > 0.3
    assert abs((got != array).mean() - (expected != array).mean()) < 0.1


@pytest.mark.parametrize("interpolation", INTERPOLATING)
def test_identity_of_an_oblique_image_changes_nothing(interpolation):
    c, s = np.cos(0.3), np.sin(0.3)
    array = noise((5, 6, 7), "int16")
    volume = gr.Volume(array, (0.7, 0.9, 1.3), (-120.7, 33.3, 17.17), (c, -s, 0, s, c, 0, 0, 0, 1))
    assert same_bits(gr.resample(volume, like=volume, interpolation=interpolation).array, array)


@pytest.mark.parametrize("dtype", FLOATS)
def test_identity_of_floats_is_a_copy(dtype):
    array = noise((5, 6, 7), dtype)
    array[0, 0, 0] = np.nan
    got = gr.resample(array, spacing=1)
    assert got is not array
    assert not np.shares_memory(got, array)
    assert same_bits(got, array)


def test_identity_of_the_largest_integers():
    array = np.array([[[2**63 - 1, -(2**63), 2**53 + 1]]], np.int64)
    assert gr.resample(array, size=(1, 1, 3), interpolation="bspline").tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_flips_and_swaps_of_voxels_are_copies(dtype):
    array = noise((5, 6, 7), dtype)
    volume = gr.Volume(array, (1, 1, 1))
    like = gr.Grid((6, 7, 5), (1, 1, 1), (0.0, 0.0, 4.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    got = gr.resample(volume, like=like).array
    assert same_bits(got, np.ascontiguousarray(array[::-1].transpose(0, 2, 1)))


# --- small -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", naive.EVERY)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1), (1, 7)], ids=str)
def test_axes_of_one_voxel_keep_constants(shape, interpolation):
    array = np.full(shape, 9, np.int16)
    got = gr.resample(array, size=[n + 2 for n in shape], anchor="edge", interpolation=interpolation)
    assert got.shape == tuple(n + 2 for n in shape)
    # ITK's windowed sincs are not normalised: off by up to 1 %, which is below half a unit here.
    assert (got == 9).all()


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "label_gaussian"])
def test_down_to_one_voxel(interpolation):
    array = np.full((5, 6, 7), 9, np.int16)
    assert gr.resample(array, size=(1, 1, 1), interpolation=interpolation, anchor="edge").tolist() == [[[9]]]


@pytest.mark.parametrize("interpolation", naive.EVERY)
def test_low_res(read, interpolation):
    image = read("low_res.nii.gz")
    got = gr.resample(image, size=(14, 10, 6), anchor="edge", interpolation=interpolation)
    assert got.GetSize() == (14, 10, 6)
    array = sitk.GetArrayFromImage(image)
    source = naive.Geometry(image.GetSize())
    target = naive.Geometry((14, 10, 6), (0.5, 0.5, 0.5), (-0.25, -0.25, -0.25))
    x = naive.coordinates(source, target)
    if interpolation in naive.LINEAR:
        sums = np.clip(naive.interpolate(array, x, interpolation), 0, 255)
        assert np.abs(sitk.GetArrayFromImage(got) - sums).max() <= 0.5 + SINGLE * 255
    else:
        assert (sitk.GetArrayFromImage(got) == naive.choose(array, x, interpolation)).all()


# --- boundary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror", "constant", "grid-constant"])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 5])
def test_boundary_words_are_scipys(order, boundary):
    array = noise((13, 14, 15), "float64")
    name = {0: "nearest", 1: "linear"}.get(order, f"bspline{order}")
    # From seven voxels before the volume to seven after it; no coordinate is a tie.
    starts, steps, sizes = (-7.13, -7.21, -7.37), (1.91, 2.03, 2.11), (15, 14, 14)
    axes = [s + d * np.arange(n) for s, d, n in zip(starts, steps, sizes, strict=True)]
    like = gr.Grid(sizes[::-1], steps[::-1], starts[::-1], EYE)
    got = gr.resample(gr.Volume(array, (1, 1, 1)), like=like, interpolation=name, boundary=boundary, default_value=55)
    expected = ndimage.map_coordinates(array, np.meshgrid(*axes, indexing="ij"), order=order, mode=boundary, cval=55.0)
    # SciPy's "nearest" solves its spline on an image padded by 12 voxels only.
    slow = {2: 0.1716, 3: 0.2679, 4: 0.3613, 5: 0.4306}.get(order, 0.0)
    bound = 10 * slow**12 if boundary in ("nearest", "grid-constant") and order > 1 else 1e-9
    assert_close(got.array, expected, bound * np.ptp(array), f"order {order}, {boundary}")


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_without_boundary_words_outside_is_default(interpolation):
    like = gr.Grid((3, 1, 1), (1, 1, 1), (-1.0, 0.0, 0.0), EYE)
    volume = gr.Volume(np.ones((4, 4, 4), np.float32), (1, 1, 1))
    assert gr.resample(volume, like=like, interpolation=interpolation).array.ravel().tolist() == [0, 1, 1]
    for boundary in ("nearest", "reflect", "mirror"):
        got = gr.resample(volume, like=like, interpolation=interpolation, boundary=boundary).array
        np.testing.assert_allclose(got, 1, atol=1e-6)


# --- antialias ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "lanczos"])
def test_antialias_is_blur_then_sample(interpolation):
    array = noise((12, 11, 10), "float64")
    step = (3.1, 1.0, 2.3)
    got = gr.resample(array, spacing=step, antialias=True, interpolation=interpolation)
    target = naive.Geometry(got.shape[::-1], step[::-1])
    x = naive.coordinates(naive.Geometry((10, 11, 12)), target)
    sigma = tuple((s - 1) / 2 for s in step)
    expected = naive.interpolate(array, x, interpolation, sigma=sigma)
    assert_close(got, expected, 1e-9 * np.ptp(array))


def test_antialias_is_scipys_gaussian_away_from_the_border():
    array = noise((40, 1, 1), "float64")
    got = gr.resample(array, spacing=(2, 1, 1), antialias=1.25, interpolation="linear").ravel()
    expected = ndimage.gaussian_filter1d(array.ravel(), 1.25, truncate=4.0, mode="nearest")[::2]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_antialias_leaves_growing_axes_alone():
    array = noise((9, 10, 11))
    plain = gr.resample(array, spacing=(0.5, 1, 0.7))
    assert same_bits(gr.resample(array, spacing=(0.5, 1, 0.7), antialias=True), plain)


@pytest.mark.parametrize("off", [False, 0, 0.0, (0, 0, 0)], ids=str)
def test_antialias_off(off):
    array = noise((9, 10, 11))
    assert same_bits(gr.resample(array, spacing=2, antialias=off), gr.resample(array, spacing=2))


def test_antialias_sequences_follow_the_container():
    array = noise((9, 10, 11), "float64")
    a = gr.resample(array, spacing=2, antialias=(1.0, 0.0, 0.5))
    b = gr.resample(gr.Volume(array, (1, 1, 1)), spacing=2, antialias=(0.5, 0.0, 1.0)).array
    c = gr.resample(sitk.GetImageFromArray(array), spacing=2, antialias=(0.5, 0.0, 1.0))
    assert same_bits(a, b)
    assert same_bits(a, sitk.GetArrayFromImage(c))
    assert not same_bits(a, gr.resample(array, spacing=2, antialias=(0.5, 0.0, 1.0)))


def test_antialias_takes_what_aliases():
    # The finest checkerboard: sampled every second voxel it is all one, blurred it is grey.
    board = (np.indices((16, 16, 16)).sum(axis=0) % 2).astype(np.float32)
    plain = gr.resample(board, spacing=2, interpolation="linear")
    soft = gr.resample(board, spacing=2, interpolation="linear", antialias=1.0)
    assert set(np.unique(plain)) == {0.0}
    assert np.abs(soft[2:-2, 2:-2, 2:-2] - 0.5).max() < 1e-3


def test_antialias_of_an_oblique_grid():
    array = noise((12, 12, 12), "float64")
    turned = sitk.Euler3DTransform((5.5, 5.5, 5.5), 0.0, 0.0, 0.5)
    volume = gr.Volume(array, (1, 1, 1))
    got = gr.resample(volume, spacing=3, transform=turned, antialias=True).array
    # A footprint of 3 voxels in any direction: sigma 1 on every axis.
    expected = gr.resample(volume, spacing=3, transform=turned, antialias=1.0).array
    np.testing.assert_allclose(got, expected, atol=1e-9 * np.ptp(array))


# --- one answer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "nearest", "label_gaussian"])
def test_again_the_same_bits(interpolation):
    first = gr.resample(BASE, spacing=0.61, interpolation=interpolation)
    assert all(same_bits(gr.resample(BASE, spacing=0.61, interpolation=interpolation), first) for _ in range(3))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "lanczos"])
def test_flipped_image_gives_flipped_result(interpolation):
    got = gr.resample(BASE, size=(6, 15, 7), anchor="edge", interpolation=interpolation)
    for axes in itertools.chain.from_iterable(itertools.combinations(range(3), k) for k in (1, 2, 3)):
        flipped = gr.resample(np.flip(BASE, axes), size=(6, 15, 7), anchor="edge", interpolation=interpolation)
        assert_close(np.flip(flipped, axes), got, SINGLE * np.ptp(BASE))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_it_is_linear(interpolation):
    a, b = noise((7, 8, 9), "float64", 1), noise((7, 8, 9), "float64", 2)
    both = gr.resample(2 * a - 3 * b, spacing=0.7, interpolation=interpolation)
    apart = 2 * gr.resample(a, spacing=0.7, interpolation=interpolation) - 3 * gr.resample(
        b, spacing=0.7, interpolation=interpolation
    )
    assert_close(both, apart, 1e-9 * np.ptp(both))


def test_doubling_a_ramp_golden():
    row = np.array([[0, 10, 20, 30]], np.uint8)
    assert gr.resample(row, size=(1, 8), interpolation="linear", anchor="edge").tolist() == [
        [0, 2, 8, 12, 18, 22, 28, 30]  # 2.5, 7.5, 12.5, ... half to even
    ]
    assert gr.resample(row, size=(1, 8), interpolation="linear", rounding="truncate").tolist() == [
        [0, 5, 10, 15, 20, 25, 30, 0]  # the last lies on the outer face: outside
    ]
    assert gr.resample(row, size=(1, 2), interpolation="nearest").tolist() == [[0, 20]]
    assert gr.resample(row, size=(1, 7), interpolation="linear", anchor="center").tolist() == [
        [0, 5, 10, 15, 20, 25, 30]
    ]


def test_aligned_corners_keep_their_last_plane():
    # (m - 1) * ((n - 1) / (m - 1)) may round past n - 1; the plane is the volume's own, not outside.
    ones = np.ones((31, 40, 37))
    got = gr.resample(ones, size=(16, 50, 29), anchor="center", interpolation="linear", boundary="constant")
    assert (got == 1).all()


@pytest.mark.parametrize(
    "transform",
    [
        np.eye(4).tolist(),
        np.stack([np.eye(3, 4), np.eye(3, 4) + 0.25]),
        gr.DisplacementField(np.stack([np.zeros((3, 4, 5, 3)), np.full((3, 4, 5, 3), 0.5)])),
    ],
    ids=["nested lists", "matrices", "fields"],
)
def test_complex_voxels_go_through_the_transforms_that_real_ones_do(transform):
    rng = np.random.default_rng(3)
    both = (rng.standard_normal((2, 3, 4, 5)) + 1j * rng.standard_normal((2, 3, 4, 5))).astype(np.complex64)
    asked = {"transform": transform, "interpolation": "linear", "device": "cpu"}
    found = gr.resample(both, **asked)
    np.testing.assert_array_equal(found.real, gr.resample(np.ascontiguousarray(both.real), **asked))
    np.testing.assert_array_equal(found.imag, gr.resample(np.ascontiguousarray(both.imag), **asked))
