"""Plans: made once, run often; blocks of the output with the bits of the whole."""

import itertools
import threading

import naive
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from support import flat, labels, noise, rotation, same_bits, to_image

import gpuresample as gr
from gpuresample.engines.cpu.path import Walk

EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SHAPE = (19, 22, 25)  # z, y, x of the input
SOURCE = gr.Grid(SHAPE[::-1], (0.8, 1.1, 2.3), (-12.7, 33.3, 5.1), EYE)
ALONG = gr.Grid((23, 17, 26), (0.93, 1.37, 1.71), (-12.2, 33.0, 4.3), EYE)
SWAPPED = gr.Grid((17, 21, 19), (1.4, 2.1, 0.9), (-11.7, 34.0, 7.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
TURNED = gr.Grid((21, 18, 23), (0.9, 1.2, 1.7), (-9.0, 31.0, 6.0), flat(rotation(9, 13, -17)))


def field():
    """A displacement field over the source."""
    values = np.random.default_rng(3).uniform(-1.5, 1.5, (7, 8, 9, 3))
    grid = naive.Geometry((9, 8, 7), (2.6, 3.4, 7.2), (-14.0, 31.0, 1.0))
    return sitk.DisplacementFieldTransform(to_image(values, grid, vector=True))


def volume(dtype="float32", interpolation="linear", shape=SHAPE):
    array = labels(shape, dtype) if interpolation.startswith("label") else noise(shape, dtype)
    return gr.Volume(array, SOURCE.spacing, SOURCE.origin, SOURCE.direction)


def part_of(image, region):
    """The block of an image's voxels as an image of its own, where it lies."""
    first = np.array([[s.start for s in region[::-1]]], float)
    return gr.Volume(image.array[(..., *region)], image.spacing, image.grid.points(first)[0], image.direction)


def tiles(shape, tile):
    """Blocks that cover `shape` without a seam."""
    edges = [range(0, n, t) for n, t in zip(shape, tile, strict=True)]
    for start in itertools.product(*edges):
        yield tuple(slice(a, min(a + t, n)) for a, t, n in zip(start, tile, shape, strict=True))


def assert_tiles_are_the_whole(image, plan, tile):
    whole = plan.run(image).array
    seen = np.zeros(plan.output_shape, int)
    for block in tiles(plan.output_shape, tile):
        part = plan.crop(block)
        got = part.run(part_of(image, plan.input_region(block)))
        assert same_bits(got.array, np.ascontiguousarray(whole[(..., *block)])), block
        first = np.array([[s.start for s in block[::-1]]], float)
        np.testing.assert_allclose(got.origin, plan.target.points(first)[0], atol=1e-12)
        seen[block] += 1
    assert (seen == 1).all()


# --- a plan is the resampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", naive.EVERY)
@pytest.mark.parametrize("target", [ALONG, TURNED], ids=["along", "turned"])
def test_plan_is_resample(target, interpolation):
    image = volume(interpolation=interpolation, shape=SHAPE)
    plan = gr.plan(image, like=target, interpolation=interpolation, default_value=-3)
    expected = gr.resample(image, like=target, interpolation=interpolation, default_value=-3)
    got = plan.run(image)
    assert same_bits(got.array, expected.array)
    assert got.origin == expected.origin


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": 1.3},
        {"size": (9, 8, 7), "anchor": "edge"},
        {"spacing": 2, "antialias": True},
        {"spacing": 0.8, "boundary": "mirror"},
        {"spacing": 0.7, "dtype": "int16", "rounding": "truncate", "default_value": -9},
        {"spacing": 0.7, "input_spacing": (1, 2, 0.5)},
    ],
    ids=", ".join,
)
def test_plan_takes_the_keywords_of_resample(options):
    array = noise(SHAPE)
    expected = gr.resample(array, **options)
    assert same_bits(gr.plan(array, **options).run(array), expected)
    if "dtype" not in options:
        # A shape's voxels are float32, or of the dtype that the output is to have.
        assert same_bits(gr.plan(SHAPE, **options).run(array), expected)


def test_plan_of_a_shape():
    plan = gr.plan((4, 5, 6), size=(8, 5, 3), dtype="int16")
    assert (plan.input_shape, plan.output_shape) == ((4, 5, 6), (8, 5, 3))
    assert plan.input_dtype == plan.dtype == np.int16
    assert gr.plan((4, 5, 6), spacing=2).dtype == np.float32
    assert gr.plan((3, 4, 5, 6), spacing=2).output_shape == (2, 2, 3)


def test_plan_runs_on_other_images_of_the_shape():
    plan = gr.plan(SHAPE, spacing=1.7)
    for seed in range(3):
        array = noise(SHAPE, seed=seed)
        assert same_bits(plan.run(array), gr.resample(array, spacing=1.7))


def test_plan_runs_on_any_batch():
    plan = gr.plan(SHAPE, spacing=1.7)
    batch = noise((2, *SHAPE))
    got = plan.run(batch)
    assert got.shape == (2, *plan.output_shape)
    assert same_bits(got[1], plan.run(batch[1]))


def test_plan_writes_to_out():
    plan = gr.plan(SHAPE, spacing=1.7)
    array, out = noise(SHAPE), np.empty(plan.output_shape, np.float32)
    assert plan.run(array, out=out) is out
    assert same_bits(out, plan.run(array))


def test_plan_of_an_image_runs_on_images():
    image = to_image(noise(SHAPE), naive.Geometry(SOURCE.size, SOURCE.spacing, SOURCE.origin))
    got = gr.plan(image, like=ALONG).run(image)
    assert isinstance(got, sitk.Image)
    assert same_bits(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(gr.resample(image, like=ALONG)))


def test_plan_is_read_only():
    plan = gr.plan(SHAPE, spacing=1.7)
    with pytest.raises(AttributeError):
        plan.dtype = np.dtype("float64")
    for table in plan.work.tables:
        with pytest.raises(ValueError, match="read-only"):
            table.weight[0, 0] = 2


def test_plans_of_one_geometry_share_their_work():
    a, b = gr.plan(SHAPE, spacing=1.7), gr.plan(SHAPE, spacing=(1.7, 1.7, 1.7))
    assert a.work is b.work
    assert gr.plan(SHAPE, spacing=1.7, interpolation="linear").work is not a.work
    assert gr.plan(SHAPE, spacing=1.7, default_value=3).work is a.work


@pytest.mark.parametrize("target", [ALONG, TURNED], ids=["along", "turned"])
def test_one_plan_serves_many_threads(target):
    image = volume()
    plan = gr.plan(image, like=target)
    expected = plan.run(image).array
    results, errors = [], []

    def call():
        try:
            results.extend(plan.run(image).array for _ in range(4))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert len(results) == 24
    assert all(same_bits(r, expected) for r in results)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((5, 6, 8), np.float32), ValueError, r"planned spatial shape \(5, 6, 7\).*got \(5, 6, 8\)"),
        (np.zeros((6, 7), np.float32), ValueError, r"planned spatial shape \(5, 6, 7\)"),
        (np.zeros((5, 6, 7), np.float64), TypeError, "voxels.*got float64"),
        (np.zeros((5, 6, 7), np.complex64), TypeError, "image must have integer, float or bool voxels"),
        ("a.nii", TypeError, "image must be .* got str"),
    ],
    ids=["shape", "dimension", "precision", "complex", "path"],
)
def test_plan_refuses_what_does_not_fit(image, error, message):
    with pytest.raises(error, match=message):
        gr.plan((5, 6, 7), spacing=2).run(image)


def test_plan_refuses_images_that_lie_elsewhere():
    image = volume()
    plan = gr.plan(image, like=ALONG)
    moved = gr.Volume(image.array, image.spacing, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="image must lie on the planned grid"):
        plan.run(moved)


# --- regions -----------------------------------------------------------------------------------------------------

BLOCK = (slice(6, 11), slice(4, 9), slice(7, 15))


@pytest.mark.parametrize("target", [ALONG, SWAPPED, TURNED], ids=["along", "swapped", "turned"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline2", "bspline3", "gaussian", "lanczos"])
def test_input_region_suffices(interpolation, target):
    image = volume(interpolation=interpolation)
    plan = gr.plan(image, like=target, interpolation=interpolation)
    region = plan.input_region(BLOCK)
    poisoned = np.full(SHAPE, np.nan, np.float32)
    poisoned[region] = image.array[region]
    whole = plan.run(image).array[BLOCK]
    got = plan.run(gr.Volume(poisoned, image.spacing, image.origin)).array[BLOCK]
    assert np.isfinite(whole).all()
    assert same_bits(np.ascontiguousarray(got), np.ascontiguousarray(whole))


@pytest.mark.parametrize("target", [ALONG, SWAPPED], ids=["along", "swapped"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "gaussian", "lanczos"])
def test_input_region_is_minimal(interpolation, target):
    """Every face of the region is needed: a NaN there shows."""
    plan = gr.plan(volume(), like=target, interpolation=interpolation)
    block = (slice(6, 8), slice(4, 7), slice(7, 9))
    region = plan.input_region(block)
    for axis, s in enumerate(region):
        for plane in (s.start, s.stop - 1):
            array = np.zeros(SHAPE, np.float32)
            index = list(region)
            index[axis] = plane
            array[tuple(index)] = np.nan
            got = plan.run(gr.Volume(array, SOURCE.spacing, SOURCE.origin)).array[block]
            assert np.isnan(got).any(), (axis, plane)


@pytest.mark.parametrize(("interpolation", "reach"), [("nearest", 1), ("linear", 2), ("lanczos", 6)])
def test_input_region_of_a_turned_grid_is_small(interpolation, reach):
    plan = gr.plan(volume(), like=TURNED, interpolation=interpolation)
    x = naive.coordinates(
        naive.Geometry(SOURCE.size, SOURCE.spacing, SOURCE.origin),
        naive.Geometry(TURNED.size, TURNED.spacing, TURNED.origin, rotation(9, 13, -17)),
    )[BLOCK].reshape(-1, 3)[:, ::-1]
    for s, lo, hi, n in zip(plan.input_region(BLOCK), x.min(axis=0), x.max(axis=0), SHAPE, strict=True):
        assert s.start >= max(0, np.floor(lo) - reach)
        assert s.stop <= min(n, np.ceil(hi) + reach + 1)


def test_input_region_golden():
    plan = gr.plan((10, 10, 10), size=(5, 10, 20), interpolation="linear", anchor="edge")
    # z: sample i at 2 i + .5; y: copies; x: sample i at i / 2 - .25.
    assert plan.input_region((slice(1, 2), slice(3, 5), slice(4, 6))) == (slice(2, 4), slice(3, 5), slice(1, 4))


def test_input_region_of_a_picture_has_two_slices():
    plan = gr.plan((10, 12), size=(5, 6), interpolation="nearest")
    assert plan.input_region((slice(1, 3), slice(None))) == (slice(2, 5), slice(0, 11))


# --- crops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "int16", "float64"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "gaussian"])
@pytest.mark.parametrize("tile", [(7, 5, 9), (26, 17, 3), (1, 17, 23)], ids=str)
def test_tiles_are_the_whole(tile, interpolation, dtype):
    image = volume(dtype, interpolation)
    plan = gr.plan(image, like=ALONG, interpolation=interpolation, default_value=-5)
    assert_tiles_are_the_whole(image, plan, tile)


@pytest.mark.parametrize("interpolation", ["bspline2", "bspline5", "hamming"])
def test_tiles_of_other_filters(interpolation):
    image = volume()
    assert_tiles_are_the_whole(image, gr.plan(image, like=ALONG, interpolation=interpolation), (7, 5, 9))


@pytest.mark.parametrize("interpolation", ["nearest", "bspline3"])
def test_tiles_of_swapped_axes(interpolation):
    image = volume()
    assert_tiles_are_the_whole(image, gr.plan(image, like=SWAPPED, interpolation=interpolation), (5, 7, 4))


@pytest.mark.parametrize(
    "interpolation", ["nearest", "linear", "bspline3", "bspline5", "label_linear", "label_gaussian"]
)
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_tiles_of_turned_grids(dtype, interpolation):
    image = volume(dtype, interpolation)
    plan = gr.plan(image, like=TURNED, interpolation=interpolation, default_value=-5)
    assert_tiles_are_the_whole(image, plan, (7, 11, 9))


@pytest.mark.parametrize("interpolation", ["gaussian", "lanczos"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_of_turned_grids_with_wide_filters(dtype, interpolation):
    image = volume(dtype)
    assert_tiles_are_the_whole(image, gr.plan(image, like=TURNED, interpolation=interpolation), (11, 9, 12))


@pytest.mark.parametrize("interpolation", ["label_linear", "label_gaussian"])
def test_tiles_of_label_votes_on_aligned_grids(interpolation):
    image = volume("uint8", interpolation)
    assert_tiles_are_the_whole(image, gr.plan(image, like=ALONG, interpolation=interpolation), (9, 7, 10))


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_of_a_displacement_field(dtype, interpolation):
    image = volume(dtype)
    plan = gr.plan(image, like=ALONG, transform=field(), interpolation=interpolation, default_value=-5)
    assert_tiles_are_the_whole(image, plan, (9, 7, 10))


def test_tiles_of_a_displacement_field_have_the_wholes_coordinates():
    """Float32 hides last bits: the coordinates themselves have to be the same."""
    image = volume()
    plan = gr.plan(image, like=ALONG, transform=field(), interpolation="linear")
    whole = positions(plan)
    for block in tiles(plan.output_shape, (9, 7, 10)):
        assert positions(plan.crop(block)).tobytes() == np.ascontiguousarray(whole[:, *block]).tobytes(), block


def positions(plan):
    """Where the engine has the voxels of a plan, [3, z, y, x]."""
    n = plan.output_shape
    return Walk.of(plan.work.routes[0]).block(0, 0, *n)[0].reshape(3, *n).copy()


@pytest.mark.parametrize("transform", ["euler", "composite"])
def test_tiles_through_transforms(transform):
    centre = (-3.0, 44.0, 25.0)
    euler = sitk.Euler3DTransform(centre, 0.1, -0.15, 0.2, (0.4, 0.9, -1.1))
    moved = {"euler": euler, "composite": sitk.CompositeTransform([euler, sitk.TranslationTransform(3, (1, 2, 3))])}
    image = volume()
    assert_tiles_are_the_whole(image, gr.plan(image, like=ALONG, transform=moved[transform]), (9, 7, 10))


@pytest.mark.parametrize("options", [{"boundary": "reflect"}, {"boundary": "nearest"}, {"antialias": True}], ids=str)
@pytest.mark.parametrize("target", [ALONG, TURNED], ids=["along", "turned"])
def test_tiles_with_options(target, options):
    image = volume()
    assert_tiles_are_the_whole(image, gr.plan(image, like=target, **options), (9, 7, 10))


@pytest.mark.parametrize(
    ("interpolation", "boundary"),
    [
        ("gaussian", None),
        ("gaussian", "nearest"),
        ("bspline2", "nearest"),
        ("bspline3", "nearest"),
        ("lanczos", "reflect"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_of_few_taps_are_summed_as_among_columns_of_many(dtype, interpolation, boundary):
    """In the rim and outside, rows fold to a few taps; an engine may take few taps another way than many."""
    image = volume(dtype)
    wide = gr.Grid((60, 5, 4), (0.51, 1.37, 1.71), (-14.9, 36.0, 14.3), EYE)
    plan = gr.plan(image, like=wide, interpolation=interpolation, boundary=boundary, default_value=-5)
    assert_tiles_are_the_whole(image, plan, (4, 5, 1))


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
def test_tiles_of_a_picture(turned, interpolation):
    c, s = (np.cos(0.3), np.sin(0.3)) if turned else (1.0, 0.0)
    image = gr.Volume(noise((25, 31)), (1.0, 1.3))
    plan = gr.plan(image, like=gr.Grid((27, 29), (1.1, 0.9), (0.4, 0.7), (c, -s, s, c)), interpolation=interpolation)
    assert_tiles_are_the_whole(image, plan, (8, 11))


def test_tiles_of_channels():
    image = volume(shape=(2, *SHAPE))
    assert_tiles_are_the_whole(image, gr.plan(image, like=ALONG), (9, 7, 10))


@pytest.mark.parametrize("target", [ALONG, TURNED], ids=["along", "turned"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "nearest"])
def test_a_crop_of_a_crop(interpolation, target):
    image = volume()
    plan = gr.plan(image, like=target, interpolation=interpolation)
    whole = plan.run(image).array
    outer, inner = (slice(4, 17), slice(3, 15), slice(2, 19)), (slice(3, 8), slice(1, 7), slice(5, 11))
    first = plan.crop(outer)
    image_1 = part_of(image, plan.input_region(outer))
    second = first.crop(inner)
    image_2 = part_of(image_1, first.input_region(inner))
    assert same_bits(first.run(image_1).array, np.ascontiguousarray(whole[outer]))
    assert same_bits(second.run(image_2).array, np.ascontiguousarray(whole[outer][inner]))
    # The same region, however it was reached.
    there = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(outer, inner, strict=True))
    direct, stepwise = plan.input_region(there), first.input_region(inner)
    shift = [s.start for s in plan.input_region(outer)]
    assert [(s.start, s.stop) for s in direct] == [
        (s.start + d, s.stop + d) for s, d in zip(stepwise, shift, strict=True)
    ]


def test_a_crop_of_arrays():
    array = noise(SHAPE)
    plan = gr.plan(array, spacing=(1.3, 0.7, 2.1))
    whole = plan.run(array)
    block = (slice(2, 9), slice(None), slice(0, 5))
    got = plan.crop(block).run(array[plan.input_region(block)])
    assert same_bits(got, np.ascontiguousarray(whole[block]))


def test_a_crop_of_the_whole_is_the_whole():
    image = volume()
    plan = gr.plan(image, like=ALONG)
    everything = (slice(None),) * 3
    part = plan.crop(everything)
    assert part.output_shape == plan.output_shape
    assert same_bits(part.run(part_of(image, plan.input_region(everything))).array, plan.run(image).array)


def test_a_crop_outside_is_default():
    far = gr.Grid((9, 9, 9), (1, 1, 1), (400.0, 33.0, 5.0), EYE)
    image = volume()
    with pytest.warns(RuntimeWarning, match="like lies nowhere near the image"):
        plan = gr.plan(image, like=far, default_value=-8)
    block = (slice(1, 3), slice(2, 5), slice(0, 9))
    got = plan.crop(block).run(part_of(image, plan.input_region(block)))
    assert got.array.shape == (2, 3, 9)
    assert (got.array == -8).all()


@settings(max_examples=40)
@given(data=st.data())
def test_any_block_of_any_plan(data):
    interpolation = data.draw(st.sampled_from(["nearest", "linear", "bspline3", "gaussian", "label_linear"]))
    target = data.draw(st.sampled_from([ALONG, SWAPPED, TURNED]))
    image = volume("float32", interpolation)
    plan = gr.plan(image, like=target, interpolation=interpolation, default_value=-5)
    block = []
    for n in plan.output_shape:
        start = data.draw(st.integers(0, n - 1))
        block.append(slice(start, data.draw(st.integers(start + 1, n))))
    got = plan.crop(block).run(part_of(image, plan.input_region(block))).array
    assert same_bits(got, np.ascontiguousarray(plan.run(image).array[tuple(block)]))


@pytest.mark.parametrize(
    ("slices", "error"),
    [
        (slice(0, 3), ValueError),
        ((slice(0, 3), slice(0, 3)), ValueError),
        ((slice(0, 3),) * 4, ValueError),
        ((slice(0, 3), slice(0, 3), slice(0, 4, 2)), ValueError),
        ((slice(0, 3), slice(0, 3), slice(3, 3)), ValueError),
        ((slice(0, 3), slice(0, 3), slice(4, 2)), ValueError),
        ((slice(0, 3), slice(0, 3), slice(0, 99)), ValueError),
        ((slice(0, 3), slice(0, 3), slice(-3, None)), ValueError),
        ((slice(0, 3), slice(0, 3), slice(99, None)), ValueError),
        ((slice(0, 3), slice(0, 3), slice(None, None, -1)), ValueError),
        ((0, slice(0, 3), slice(0, 3)), TypeError),
        ((slice(0, 3), slice(0, 3), slice(0, 2.5)), TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["crop", "input_region"])
def test_bad_slices_are_refused(method, slices, error):
    plan = gr.plan((8, 8, 8), size=(6, 6, 6))
    with pytest.raises(error, match=r"slices|slice indices"):
        getattr(plan, method)(slices)


NEAR = [[np.cos(0.1), -np.sin(0.1), 0, 0.6], [np.sin(0.1), np.cos(0.1), 0, -0.7], [0, 0, 1, 0.3]]
TILTED = [[1, 0, 0, -8.5], [0, np.cos(0.1), -np.sin(0.1), -30], [0, np.sin(0.1), np.cos(0.1), -10]]


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "bspline", "bspline1", "label_linear", "lanczos"])
@pytest.mark.parametrize("boundary", ["nearest", "mirror"])
def test_blocks_beyond_the_image_have_the_voxels_of_the_whole(interpolation, boundary):
    """There a block needs the last samples alone, and those beside them that weigh nothing."""
    image = noise((12, 40, 40), "uint8" if interpolation == "label_linear" else "float32")
    plan = gr.plan(
        image, transform=TILTED, size=(28, 90, 60), spacing=1, interpolation=interpolation, boundary=boundary
    )
    whole = plan.run(image)
    rng = np.random.default_rng(0)
    starts = [(0, 0, 0), (21, 75, 45), (0, 75, 0), (21, 0, 45), *rng.integers(0, (21, 75, 45), (12, 3)).tolist()]
    for start in starts:
        block = tuple(slice(k, k + n) for k, n in zip(start, (7, 15, 15), strict=True))
        part = np.ascontiguousarray(image[plan.input_region(block)])
        assert same_bits(plan.crop(block).run(part), whole[block])


@pytest.mark.parametrize("interpolation", ["linear", "bspline", "nearest"])
def test_layout_in_memory_leaves_the_bits_of_turned_grids(interpolation):
    image = noise((9, 12, 10), "float32")
    laid = {
        "turned": np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1],
        "Fortran": np.asfortranarray(image),
        "steps": np.repeat(image, 2, axis=2)[:, :, ::2],
    }
    expected = gr.resample(image, transform=NEAR, size=(11, 13, 17), spacing=0.8, interpolation=interpolation)
    for name, other in laid.items():
        found = gr.resample(other, transform=NEAR, size=(11, 13, 17), spacing=0.8, interpolation=interpolation)
        assert same_bits(found, expected), name
