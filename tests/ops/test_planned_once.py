"""What small images are asked for again is planned once: the same results, refusals and warnings as the first time."""

import gc
import importlib
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.testing import assert_array_equal
from support import noise

import gpuresample as gr
from gpuresample.caching import Recent, kept_bytes, n_bytes
from gpuresample.containers import images
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cpu import gather

ops = importlib.import_module("gpuresample.ops.resample")  # the package has a function of that name


@pytest.fixture
def plans(monkeypatch):
    """Requests that were planned, since nothing is kept any more."""
    gr.clear_caches()
    asked, plan = [], ops._plan
    monkeypatch.setattr(
        ops, "_plan", lambda container, r, *rest, **k: asked.append(r) or plan(container, r, *rest, **k)
    )
    yield asked
    gr.clear_caches()


def voxels(dtype=np.float32):
    return (np.arange(6 * 7 * 8) % 11 - 4).reshape(6, 7, 8).astype(dtype)


def image(origin=(0.0, 0.0, 0.0)):
    made = sitk.GetImageFromArray(voxels())
    made.SetOrigin(origin)
    return made


def test_a_call_that_comes_again_is_planned_once(plans):
    first, second = (gr.resample(voxels(), spacing=1.3, interpolation="linear") for _ in range(2))
    assert_array_equal(first, second)
    assert len(plans) == 1
    one, other = (gr.resample(image(), size=(5, 5, 5), interpolation="linear") for _ in range(2))
    assert_array_equal(sitk.GetArrayViewFromImage(one), sitk.GetArrayViewFromImage(other))
    assert len(plans) == 2
    gr.clear_caches()
    gr.resample(voxels(), spacing=1.3, interpolation="linear")
    assert len(plans) == 3


def test_what_is_kept_is_of_the_values_that_were_given(plans):
    spacing = [1.3, 1.3, 1.3]
    before = gr.resample(voxels(), spacing=spacing, interpolation="linear")
    spacing[0] = 2.0
    after = gr.resample(voxels(), spacing=spacing, interpolation="linear")
    assert (before.shape, after.shape) == ((5, 5, 6), (3, 5, 6))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"antialias": 1}, {"antialias": True}),
        ({"antialias": 0}, {"antialias": False}),
        ({"default_value": 0.0}, {"default_value": -0.0}),
        ({"dtype": "float32"}, {"dtype": "float64"}),
        ({"dtype": np.dtype(np.int16)}, {"dtype": np.uint8}),
        ({"input_spacing": 2}, {"input_spacing": 1}),
    ],
)
def test_words_that_are_equal_and_mean_another_thing_have_plans_of_their_own(plans, one, other):
    asked = {"spacing": 2.5, "interpolation": "linear", "boundary": "constant"}
    for words in (one, other, one, other):
        kept = gr.resample(voxels(), **asked, **words)
        assert_array_equal(kept, gr.plan(voxels(), **asked, **words).run(voxels()))
    # `plan` makes anew each time; of the four calls two were planned.
    assert len(plans) == 2 + 4


def test_grids_that_differ_in_the_sign_of_zero_have_plans_of_their_own(plans):
    for zero in (0.0, -0.0, 0.0, -0.0):
        made = gr.resample(image((zero, 1.0, 1.0)), size=(5, 5, 5), interpolation="linear")
        assert str(made.GetOrigin()[0]) == str(zero)
    assert len(plans) == 2


def test_voxels_kinds_and_batches_have_plans_of_their_own(plans):
    words = {"size": (4, 4, 4), "interpolation": "linear"}
    batch, volume = np.stack([voxels()] * 2), gr.Volume(voxels(), (1, 1, 1))
    for given in (voxels(), voxels(np.int16), batch, volume):
        first, second = (np.asarray(getattr(r, "array", r)) for r in [gr.resample(given, **words) for _ in range(2)])
        assert first.dtype == second.dtype == np.asarray(getattr(given, "array", given)).dtype
        assert_array_equal(first, second)
    assert len(plans) == 4


def test_a_call_is_refused_the_second_time_as_well(plans):
    words = {"size": (4, 4, 4), "interpolation": "linear"}
    gr.resample(voxels(), **words)
    for _ in range(2):
        with pytest.raises(ValueError, match="out must have"):
            gr.resample(voxels(), out=np.empty((4, 4, 5), np.float32), **words)
        with pytest.raises(ValueError, match="default_value"):
            gr.resample(voxels(np.int16), default_value=1e9, **words)
        with pytest.raises(ValueError, match="default_value"):
            gr.resample(voxels(), default_value=10**5000, **words)
    assert len(plans) == 1 + 4


def test_what_is_warned_of_is_warned_of_each_time(plans):
    far = sitk.TranslationTransform(3, (1e4, 0.0, 0.0))
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="leads nowhere"):
            gr.resample(image(), transform=far, interpolation="linear")
        with pytest.warns(RuntimeWarning, match="lies nowhere near"):
            gr.resample(image(), like=image((1e4, 0.0, 0.0)), interpolation="linear")
    assert len(plans) == 4


def test_memory_is_asked_for_each_time(plans, monkeypatch):
    """An output that may not fit is planned anew, so that it is refused when memory has become short."""
    monkeypatch.setattr(ops, "ALWAYS_FITS", 100)
    for _ in range(2):
        gr.resample(voxels(), size=(4, 4, 4), interpolation="linear")
    assert len(plans) == 2


def test_types_that_look_alike_are_told_apart(plans):
    def own(base):
        class Own(base):
            pass

        return Own

    marked = np.dtype(np.float32, metadata={"a": 1})
    for kind in (own(np.float64), own(np.int16), marked, np.dtype(np.float32)):
        out = gr.resample(voxels(), size=(4, 4, 4), interpolation="linear", dtype=kind)
        assert out.dtype == np.dtype(kind)
        assert out.dtype.metadata == np.dtype(kind).metadata
    assert len(plans) == 4


def turned(kind, angle):
    if kind == "matrix":
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, -s, 0, 0.5], [s, c, 0, 0], [0, 0, 1, -0.25]])
    if kind == "affine":
        return gr.Affine(turned("matrix", angle)[:, :3], 0.5, (3.0, 3.0, 2.0))
    made = sitk.Euler3DTransform((3.0, 3.0, 2.0), 0.0, 0.1, angle)
    return made if kind == "sitk" else sitk.CompositeTransform([made, sitk.TranslationTransform(3, (0.5, 0.0, -0.5))])


def turn_further(transform):
    """Change a transform in place."""
    if isinstance(transform, np.ndarray):
        transform[0, 3] += 0.5
    elif isinstance(transform, gr.Affine):
        transform.offset = (1.5, *transform.offset[1:])
    else:
        transform.SetParameters((*transform.GetParameters()[:-1], transform.GetParameters()[-1] + 0.5))


@pytest.mark.parametrize("kind", ["matrix", "affine", "sitk", "composite"])
@pytest.mark.parametrize("given", [voxels(np.int16), image()], ids=["array", "image"])
def test_along_a_transform_that_comes_again_and_one_that_has_changed(plans, kind, given):
    def both():
        made, fresh = gr.resample(given, transform=moved, **words), gr.plan(given, transform=moved, **words).run(given)
        plans.pop()  # of `plan`
        for one in (made, fresh):
            seen.append(np.asarray(one) if isinstance(one, np.ndarray) else sitk.GetArrayFromImage(one))
        assert_array_equal(*seen[-2:])
        if isinstance(made, sitk.Image):
            assert made.GetOrigin() == fresh.GetOrigin()

    seen = []
    moved, words = turned(kind, 0.3), {"interpolation": "linear", "spacing": (1.2, 1.0, 1.1)}
    both()
    both()
    assert len(plans) == 1
    words["default_value"] = 3
    both()
    assert len(plans) == 2
    turn_further(moved)
    both()
    assert len(plans) == 3
    assert (seen[-1] != seen[-3]).any()


def test_the_sign_of_a_zero_in_a_matrix_is_told_apart(plans):
    for zero in (0.0, -0.0):
        matrix = turned("matrix", 0.3)
        matrix[2, 0] = zero
        for moved in (matrix, gr.Affine(matrix)):
            for _ in range(2):
                gr.resample(image(), transform=moved, interpolation="linear")
    assert len(plans) == 4


def test_of_transforms_the_last_ones_are_kept(plans):
    for _ in range(2):
        for angle in np.linspace(0.1, 0.5, 40):
            gr.resample(voxels(), transform=turned("matrix", angle), interpolation="linear")
    assert len(plans) == 80
    gr.resample(voxels(), transform=turned("matrix", 0.5), interpolation="linear")
    assert len(plans) == 80
    gr.clear_caches()
    gr.resample(voxels(), transform=turned("matrix", 0.5), interpolation="linear")
    assert len(plans) == 81


def test_another_grid_is_read_each_time(plans):
    like = image((0.5, 0.0, 0.0))
    for x in (0.5, 0.5, 1.5):
        like.SetOrigin((x, 0.0, 0.0))
        made = gr.resample(image(), like=like, interpolation="linear")
        assert made.GetOrigin() == (x, 0.0, 0.0)
        fresh = gr.plan(image(), like=like, interpolation="linear").run(image())
        assert_array_equal(sitk.GetArrayFromImage(made), sitk.GetArrayFromImage(fresh))
    assert len(plans) == 2 + 3
    with pytest.raises(ValueError, match="like gives the whole grid"):
        gr.resample(image(), like=like, interpolation="linear", size=(4, 4, 4))


def test_numbers_of_an_affine_are_told_apart_where_its_text_is_not(plans):
    """An array's text has eight digits, a NumPy number's was once that of a Python number."""
    turn = gr.Affine(np.eye(3))
    for x in (0.3, 0.3 + 1e-9):
        turn.offset = np.array([x, 0.0, 0.0])
        made = gr.resample(voxels(), transform=turn, interpolation="linear")
        assert_array_equal(made, gr.plan(voxels(), transform=turn, interpolation="linear").run(voxels()))
    assert len(plans) == 4


def test_metadata_of_the_voxels_type_is_that_of_the_image(plans):
    marked = np.dtype(np.float32, metadata={"a": 1})
    for dtype in (marked, np.dtype(np.float32), marked):
        volume = gr.Volume(voxels().astype(dtype), (1, 1, 1))
        made = gr.resample(volume, size=(4, 4, 4), interpolation="linear").array
        assert made.dtype.metadata == volume.array.dtype.metadata


def test_warnings_name_the_callers_line():
    far = image((1e4, 0.0, 0.0))
    for asked in ({"transform": sitk.TranslationTransform(3, (1e4, 0.0, 0.0))}, {"like": far}):
        for call in (gr.resample, gr.plan, lambda i, **words: gr.resample([i], **words)):
            with pytest.warns(RuntimeWarning, match="nowhere") as caught:
                call(image(), interpolation="linear", **asked)
            assert [warning.filename for warning in caught] == [__file__]


def test_recent_things_are_bounded_whatever_other_threads_do():
    recent = Recent(4)

    def work(start):
        for k in range(2000):
            recent.put((start, k), k)
            assert recent.get((start, k)) in (k, None)
            if k % 50 == 0:
                gr.clear_caches()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for k in range(9):
        recent.put(k, k)
    assert [recent.get(k) for k in range(9)] == [None] * 5 + [5, 6, 7, 8]


def test_plans_along_transforms_with_large_tables_are_not_kept(plans, monkeypatch):
    stretch, turn = np.diag([1.1, 1, 1, 1]), turned("matrix", 0.3)
    for most, planned in ((300, 4), (1 << 20, 2)):
        monkeypatch.setattr(ops, "MOST_TABLES", most)
        plans.clear()
        for moved in (stretch, stretch, turn, turn):
            gr.resample(voxels(), transform=moved, interpolation="bspline")
        assert len(plans) == planned


def test_bytes_are_counted_while_another_thread_adds_a_property():
    class Part:
        def __init__(self):
            self.voxels = voxels()

        @property
        def __dict__(self):
            whole.late = None
            return {"voxels": self.voxels}

    whole = SimpleNamespace(first=Part(), second=Part())
    assert n_bytes(whole, set()) == 2 * voxels().nbytes


def alike(size):
    """The same voxels, laid out in every way: in C order, in another, with gaps, read-only, off whole elements."""
    dense = (np.arange(size**3) % 13 - 5).reshape((size,) * 3).astype(np.float32)
    wide = np.zeros((size, size, 2 * size), np.float32)
    wide[..., ::2] = dense
    fixed = dense.copy()
    fixed.flags.writeable = False
    odd = np.zeros(dense.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(dense.shape)
    odd[...] = dense
    return {"C": dense, "F": np.asfortranarray(dense), "gaps": wide[..., ::2], "read-only": fixed, "odd": odd}


@pytest.mark.parametrize(
    "words",
    [
        {"spacing": 0.8, "interpolation": "linear"},
        {"size": (5, 9, 6), "interpolation": "bspline", "boundary": "mirror", "anchor": "center"},
        {"transform": "turned", "interpolation": "linear", "default_value": -2},
        {"transform": "turned", "interpolation": "nearest"},
    ],
    ids=str,
)
def test_a_work_that_is_ready_gives_the_bits_of_a_first_call(words, monkeypatch):
    words = {k: turned("matrix", 0.3) if v == "turned" else v for k, v in words.items()}
    gr.clear_caches()
    given = alike(9)
    plan = gr.plan(given["C"], **words)
    first = plan.run(given["C"])
    for factor in (1, 1, 2, 3):
        for array in given.values():
            if array.flags.writeable:
                array[...] *= factor
            out = np.full((*first.shape[:2], 2 * first.shape[2]), 7, np.float32)
            made = plan.run(array)
            assert_array_equal(made, gr.plan(array, **words).run(array))
            plan.run(array, out=out[..., ::2])
            assert_array_equal(out[..., ::2], made)
            assert (out[..., 1::2] == 7).all()
    batch = given["read-only"][None, None]
    for _ in range(2):
        assert_array_equal(plan.run(batch)[0, 0], first)
    monkeypatch.setattr(gather, "run_gather", None)
    monkeypatch.setattr(cpu, "run_separable", None)
    assert_array_equal(plan.run(alike(9)["C"]), first)
    assert_array_equal(plan.run(given["read-only"]), first)
    assert_array_equal(plan.run(batch)[0, 0], first)


def test_what_is_ready_is_bounded_and_given_up(monkeypatch):
    gr.clear_caches()
    given = voxels()
    for angle in np.linspace(0.1, 0.5, 40):
        for _ in range(3):
            gr.resample(given, transform=turned("matrix", angle), interpolation="linear")
    assert len(cpu._gathers._held) == 32
    before = kept_bytes()
    for _ in range(3):
        gr.resample(given, size=(5, 5, 5), interpolation="linear")
    assert kept_bytes() > before
    gr.clear_caches()
    assert len(cpu._gathers._held) == kept_bytes() == 0
    made = []
    monkeypatch.setattr(cpu, "ready", lambda *rest: made.append(rest))
    for _ in range(4):
        gr.resample(given, size=(5, 5, 5), interpolation="linear")
    assert len(made) == 1  # what cannot be made ready is not tried again


@pytest.mark.parametrize(
    ("kind", "setter", "values"),
    [
        ("AffineTransform", "SetMatrix", [(1, 0.1, 0, 0, 1, 0, 0, 0, 1), (1, 0.2, 0, 0, 1, 0, 0, 0, 1)]),
        ("AffineTransform", "SetTranslation", [(0.5, 0, 0), (0.25, 0, 0)]),
        ("Euler3DTransform", "SetCenter", [(3, 3, 2), (0, 0, 0)]),
        ("Euler3DTransform", "SetComputeZYX", [False, True]),
        ("VersorRigid3DTransform", "SetFixedParameters", [(3, 3, 2), (0, 0, 0)]),
        ("Similarity3DTransform", "SetScale", [1.1, 1.2]),
        ("ScaleTransform", "SetCenter", [(3, 3, 2), (0, 0, 0)]),
        ("ScaleTransform", "SetScale", [(1.1, 1, 1), (1, 1.2, 1)]),
        ("TranslationTransform", "SetOffset", [(0.5, 0, 0), (0.25, 0, 0)]),
    ],
)
def test_a_transform_of_simpleitks_is_read_each_time(kind, setter, values):
    moved = getattr(sitk, kind)(*([3] if kind in ("AffineTransform", "ScaleTransform", "TranslationTransform") else []))
    if kind == "ScaleTransform":
        moved.SetScale((1.1, 1.2, 0.9))
    elif hasattr(moved, "SetRotation"):
        moved.SetRotation(*((0.1, 0.2, 0.3) if kind.startswith("Euler") else ((0, 0.6, 0.8), 0.2)))
    given, seen = image(), []
    for value in [*values, *values]:
        getattr(moved, setter)(value)
        for _ in range(3):
            made = sitk.GetArrayFromImage(gr.resample(given, transform=moved, interpolation="linear"))
            fresh = gr.plan(given, transform=moved, interpolation="linear").run(given)
            assert_array_equal(made, sitk.GetArrayFromImage(fresh))
        seen.append(made)
    assert (seen[0] != seen[1]).any()
    assert_array_equal(seen[0], seen[2])


def test_a_transform_of_another_dimension_is_refused_once_more():
    flat = sitk.Euler2DTransform((3.0, 3.0), 0.3)
    picture = sitk.GetImageFromArray(voxels()[0])
    for _ in range(2):
        gr.resample(picture, transform=flat, interpolation="linear")
        with pytest.raises(ValueError, match="dimension 3"):
            gr.resample(image(), transform=flat, interpolation="linear")


@pytest.mark.parametrize("components", [0, 1, 3])
def test_voxels_of_images_are_simpleitks_view_of_them(components, monkeypatch):
    array = voxels(np.int16) if not components else np.stack([voxels(np.int16)] * components, -1)
    given = sitk.GetImageFromArray(array, isVector=components > 0)
    for _ in range(2):
        copy = sitk.Image(given)
        seen, usual = images._view(copy), sitk.GetArrayViewFromImage(copy)
        assert (seen.dtype, seen.shape, seen.flags.writeable) == (usual.dtype, usual.shape, False)
        assert seen.__array_interface__["data"] == usual.__array_interface__["data"]
        assert_array_equal(seen, usual)
    fallback = "SimpleITK's own"
    monkeypatch.delattr(sitk.extra, "_GetMemoryViewFromImage")
    monkeypatch.setattr(sitk, "GetArrayViewFromImage", lambda image: SimpleNamespace(dtype=np.int16, told=fallback))
    assert images._view(given).told == fallback


def test_fields_are_not_kept_for_what_may_come_again():
    """A small image along a large field: whoever has it may give it up."""
    gr.clear_caches()
    field = np.zeros((24, 24, 24, 3))
    held = weakref.ref(field)
    given = gr.Volume(voxels(), (1.0, 1.0, 1.0))
    transform = gr.DisplacementField(field, like=gr.Grid.of_size((24, 24, 24)))
    plan = gr.plan(given, transform=transform, interpolation="linear", device="cpu")
    for _ in range(3):
        plan.run(given)
    del plan, transform, field
    gc.collect()
    assert held() is None


def test_an_axis_of_one_voxel_may_have_any_stride():
    array = noise((5, 6, 1), "float32")
    odd = np.lib.stride_tricks.as_strided(array, array.shape, (*array.strides[:2], 40))
    assert odd.flags.c_contiguous
    plan = gr.plan(array, spacing=0.7, interpolation="linear", device="cpu")
    for order in ((array, odd), (odd, array)):
        gr.clear_caches()
        made = {plan.run(one).tobytes() for one in order for _ in range(4)}
        assert len(made) == 1
