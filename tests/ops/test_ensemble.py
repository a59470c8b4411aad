"""Ensembles: scores of several models to one label map, against SimpleITK and plain NumPy."""

import itertools
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from support import SITK, flat, rotation, same_bits

import gpuresample as gr
from gpuresample.engines.cpu import ensemble, ensemble_kernels
from gpuresample.ops import ensemble_walk
from gpuresample.planning.grid import resized

# Labels may differ from the reference only where the best two averages are this close, and hardly ever.
CLOSE, SHARE = 1e-5, 1e-5
STRAIGHT = flat(rotation(0, 0, 0))


def scores(classes, shape, seed=0, dtype="float32"):
    """Scores of smooth regions with noise on top, as a network gives them."""
    rng = np.random.default_rng(seed)
    coarse = 1.5 * rng.standard_normal((classes, *[-(-n // 4) for n in shape]))
    for axis, n in enumerate(shape, start=1):
        coarse = np.repeat(coarse, 4, axis=axis).take(range(n), axis=axis)
    return (coarse + 0.5 * rng.standard_normal((classes, *shape))).astype(dtype)


def volume(array, grid):
    return gr.Volume(array, grid.spacing, grid.origin, grid.direction)


def image(array, grid):
    """A SimpleITK image of one class."""
    out = sitk.GetImageFromArray(np.asarray(array, np.float64))
    out.SetSpacing(grid.spacing)
    out.SetOrigin(grid.origin)
    out.SetDirection(grid.direction)
    return out


def resampled(array, source, target, interpolation="linear"):
    """Scores of one model on the target by SimpleITK, class by class, in float64; NaN outside its grid."""
    out = []
    for one in array:
        answer = sitk.Resample(
            image(one, source), target.size, sitk.Transform(), {**SITK, "bspline": sitk.sitkBSpline}[interpolation],
            target.origin, target.spacing, target.direction, float("nan"), sitk.sitkFloat64,
        )  # fmt: skip
        out.append(sitk.GetArrayFromImage(answer))
    return np.array(out)


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def average(arrays, activation=softmax, weights=None):
    weights = np.ones(len(arrays)) if weights is None else np.asarray(weights, float)
    return sum(w * activation(a) for w, a in zip(weights / weights.sum(), arrays, strict=True))


def assert_labels(labels, averages):
    """The classes of the largest averages, ties aside."""
    expected = averages.argmax(axis=0)
    wrong = labels != expected
    best, second = np.partition(averages, -2, axis=0)[-1], np.partition(averages, -2, axis=0)[-2]
    assert wrong.mean() <= max(SHARE, 1.5 / wrong.size), f"{wrong.sum()} of {wrong.size}"
    assert (best - second)[wrong].max(initial=0) <= CLOSE


SOURCE = gr.Grid((21, 18, 13), (2.0, 1.5, 3.0), (-10.0, 5.0, 2.0), STRAIGHT)
FINE = gr.resample(volume(np.zeros((13, 18, 21), np.uint8), SOURCE), size=(43, 31, 36), anchor="edge").grid
FEW = resized(FINE, size=(22, 16, 19), anchor="edge")


CASES = [
    *itertools.product([2, 12], [1, 2, 5], ["linear", "bspline"]),
    (118, 1, "bspline"), (118, 1, "linear"), (118, 2, "linear"), (118, 5, "linear"),
]  # fmt: skip


@pytest.mark.parametrize(("classes", "models", "interpolation"), CASES)
def test_labels_are_the_classes_of_the_largest_mean_probability(classes, models, interpolation):
    arrays = [scores(classes, (13, 18, 21), seed) for seed in range(models)]
    target = FINE if classes < 100 else FEW
    labels = gr.ensemble([volume(a, SOURCE) for a in arrays], like=target, interpolation=interpolation)
    assert isinstance(labels, gr.Volume)
    assert labels.grid == target
    assert labels.array.dtype == np.uint8
    assert_labels(labels.array, average([resampled(a, SOURCE, target, interpolation) for a in arrays]))
    assert len(np.unique(labels.array)) > 1


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "bspline5", "gaussian"])
def test_probabilities_confidence_and_entropy(interpolation):
    arrays = [scores(5, (13, 18, 21), seed) for seed in range(2)]
    models = [volume(a, SOURCE) for a in arrays]
    names = ("probabilities", "labels", "confidence", "entropy")
    got = gr.ensemble(models, like=FINE, interpolation=interpolation, weights=(1, 3), output=names)
    probabilities, labels, confidence, entropy = [out.array for out in got]
    expected = average([resampled(a, SOURCE, FINE, interpolation) for a in arrays], weights=(1, 3))
    assert np.abs(probabilities - expected).max() < 2e-6
    assert_labels(labels, expected)
    assert np.abs(confidence - expected.max(axis=0)).max() < 2e-6
    assert np.abs(entropy + (expected * np.log(expected + 1e-300)).sum(axis=0)).max() < 1e-4
    assert probabilities.dtype == confidence.dtype == entropy.dtype == np.float32
    assert np.abs(probabilities.sum(axis=0) - 1).max() < 1e-6


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_probabilities_may_be_resampled_instead_of_scores(activation, interpolation):
    act = softmax if activation == "softmax" else sigmoid
    arrays = [scores(4, (13, 18, 21), seed) for seed in range(2)]
    models = [volume(a, SOURCE) for a in arrays]
    options = {"like": FINE, "activation": activation, "interpolation": interpolation, "resample_after": True}
    got = gr.ensemble(models, output=("probabilities", "entropy"), **options)
    expected = average([resampled(act(a.astype(float)), SOURCE, FINE, interpolation) for a in arrays], lambda x: x)
    assert np.abs(got[0].array - expected).max() < 2e-6
    p = np.clip(expected, 1e-30, 1 - 1e-16)
    terms = p * np.log(p) + ((1 - p) * np.log(1 - p) if activation == "sigmoid" else 0)
    assert np.abs(got[1].array + terms.sum(axis=0)).max() < 1e-3
    if activation == "softmax":
        assert_labels(gr.ensemble(models, **options).array, expected)
        one = resampled(softmax(arrays[0].astype(float)), SOURCE, FINE, interpolation)
        assert_labels(gr.ensemble(models[:1], **options).array, one)


def test_probabilities_are_taken_as_they_are():
    arrays = [softmax(scores(4, (13, 18, 21), seed).astype(float)).astype(np.float32) for seed in range(3)]
    got = gr.ensemble([volume(a, SOURCE) for a in arrays], like=FINE, activation=None, output="both")
    expected = average([resampled(a, SOURCE, FINE) for a in arrays], lambda x: x)
    assert np.abs(got[1].array - expected).max() < 1e-6
    assert_labels(got[0].array, expected)


@pytest.mark.parametrize("anchor", ["first", "edge", "center"])
def test_bare_arrays_cover_the_target(anchor):
    array = scores(3, (13, 18, 21))
    labels, probabilities = gr.ensemble([array], size=(36, 31, 43), anchor=anchor, output="both")
    assert type(labels) is np.ndarray
    expected = softmax(gr.resample(array, size=(36, 31, 43), anchor=anchor, interpolation="linear", boundary="nearest"))
    assert np.abs(probabilities - expected).max() < 1e-5
    assert_labels(labels, expected)


def test_bare_arrays_of_a_spacing():
    ct = volume(np.zeros((31, 40, 50), np.int16), gr.Grid((50, 40, 31), (0.8, 0.8, 1.0), (3, 4, 5), STRAIGHT))
    network = gr.resample(ct, spacing=(1, 1, 2))
    array = scores(3, network.array.shape)
    labels = gr.ensemble([array], like=ct, input_spacing=(2, 1, 1))
    assert labels.grid == ct.grid
    assert same_bits(labels.array, gr.ensemble([volume(array, network.grid)], like=ct).array)


def test_without_a_target_the_grid_stays():
    arrays = [scores(3, (6, 7, 8), seed) for seed in range(2)]
    labels = gr.ensemble(arrays)
    assert (labels == average([a.astype(float) for a in arrays]).argmax(axis=0)).all()
    assert gr.ensemble([volume(a, gr.Grid.of_size((8, 7, 6))) for a in arrays]).grid.size == (8, 7, 6)


def test_two_dimensions():
    array = scores(3, (18, 21))
    labels = gr.ensemble([array], size=(31, 43), anchor="edge")
    expected = gr.resample(array[:, None], size=(1, 31, 43), anchor="edge", interpolation="linear")[:, 0]
    assert labels.shape == (31, 43)
    assert_labels(labels, softmax(expected.astype(float)))


# --- sigmoids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("threshold", [0.5, (0.2, 0.5, 0.9)])
def test_classes_that_overlap_are_bits(models, threshold):
    arrays = [scores(3, (13, 18, 21), seed) for seed in range(models)]
    options = {"like": FINE, "activation": "sigmoid", "threshold": threshold}
    bits = gr.ensemble([volume(a, SOURCE) for a in arrays], **options).array
    expected = average([resampled(a, SOURCE, FINE) for a in arrays], sigmoid)
    least = np.broadcast_to(threshold, 3)
    for c in range(3):
        wrong = (bits >> c & 1) != (expected[c] > least[c])
        assert np.abs(expected[c] - least[c])[wrong].max(initial=0) < CLOSE
        assert wrong.mean() < 1e-4
    assert bits.dtype == np.uint8
    assert bits.max() == 7


def test_regions_are_written_in_order():
    arrays = [scores(3, (13, 18, 21), seed) for seed in range(2)]
    models = [volume(a, SOURCE) for a in arrays]
    labels = gr.ensemble(models, like=FINE, activation="sigmoid", regions=(300, 2, 40)).array
    expected = average([resampled(a, SOURCE, FINE) for a in arrays], sigmoid)
    whole = np.zeros(labels.shape, np.uint16)
    for c, name in enumerate((300, 2, 40)):
        whole[expected[c] > 0.5] = name
    assert labels.dtype == np.uint16
    assert (labels != whole).mean() < 1e-4


def test_bits_of_many_classes():
    labels = gr.ensemble([scores(40, (5, 6, 7))], activation="sigmoid")
    assert labels.dtype == np.uint64
    assert (labels == (scores(40, (5, 6, 7)) > 0).astype(np.uint64).T.dot(1 << np.arange(40, dtype=np.uint64)).T).all()


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "dtype"), [((0, 7, 255), "uint8"), ((0, 7, 256), "uint16"), ((5, 2**32, 2**64 - 1), "uint64")]
)
def test_labels_have_their_original_numbers_in_the_smallest_type(names, dtype):
    array = scores(3, (9, 8, 7))
    labels = gr.ensemble([array], labels=names)
    assert labels.dtype == dtype
    assert (labels == np.array(names, dtype)[array.argmax(axis=0)]).all()


def test_of_equal_averages_the_lowest_class_wins():
    array = np.zeros((9, 4, 5, 6), np.float32)
    array[3] = array[7] = 2.5
    assert (gr.ensemble([array, array]) == 3).all()
    assert (gr.ensemble([array], size=(8, 9, 10)) == 3).all()


# --- grids -----------------------------------------------------------------------------------------------------------


TURNED = flat(rotation(10, -5, 20))
GRIDS = {
    "permuted": gr.Grid((13, 21, 18), (3.0, 2.0, 1.5), (-10.0, 5.0, 2.0), (0, 1.0, 0, 0, 0, 1.0, 1.0, 0, 0)),
    "flipped": gr.Grid((21, 18, 13), (2.0, 1.5, 3.0), (30.0, 5.0, 38.0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)),
    "turned": gr.Grid((21, 18, 13), (2.0, 1.5, 3.0), (-12.0, 3.0, 0.0), TURNED),
    "small": gr.Grid((9, 8, 6), (2.0, 1.5, 3.0), (0.0, 10.0, 9.0), STRAIGHT),
}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_model_has_its_own_grid(name, interpolation, activation):
    grids = [SOURCE, GRIDS[name]]
    arrays = [scores(4, g.size[::-1], seed) for seed, g in enumerate(grids)]
    if activation is None:
        arrays = [softmax(a) for a in arrays]
    act = {"softmax": softmax, "sigmoid": sigmoid, None: lambda x: x}[activation]
    got = gr.ensemble(
        [volume(a, g) for a, g in zip(arrays, grids, strict=True)], like=FINE, activation=activation,
        interpolation=interpolation, output="probabilities",
    ).array  # fmt: skip
    parts = [act(resampled(a, g, FINE, interpolation)) for a, g in zip(arrays, grids, strict=True)]
    outside = np.isnan(parts[1][0])
    certain = np.zeros((4, 1))
    certain[0] = 0 if activation == "sigmoid" else 1
    parts[1][:, outside] = certain
    expected = sum(parts) / 2
    # Where SimpleITK is outside, ours goes on for one voxel; farther out it is class 0 as well.
    far = np.isnan(resampled(np.pad(arrays[1], [(0, 0), *[(1, 1)] * 3]), _grown(grids[1], 1), FINE)[0])
    assert np.abs(got - expected)[:, ~outside].max() < 2e-6
    assert np.abs(got - expected)[:, far].max(initial=0) < 2e-6
    assert outside.any() == (name in ("turned", "small"))


def _grown(grid, by):
    """A grid with more voxels on every side."""
    first = grid.points(np.full((1, 3), -float(by)))[0]
    return gr.Grid(tuple(n + 2 * by for n in grid.size), grid.spacing, tuple(first), grid.direction)


def test_the_last_slices_are_kept_where_sizes_were_rounded():
    # 245 slices of 1 mm became 122 of 2 mm: the recipe's last centre lies 2 mm before the volume's.
    grid = gr.Grid((4, 4, 122), (1, 1, 2), (0, 0, 0), STRAIGHT)
    array = np.zeros((2, 122, 4, 4), np.float32)
    array[1] = 1
    labels = gr.ensemble([volume(array, grid)], like=gr.Grid((4, 4, 245), (1, 1, 1), (0, 0, 0), STRAIGHT)).array
    assert (labels == 1).all()
    farther = gr.ensemble([volume(array, grid)], like=gr.Grid((4, 4, 260), (1, 1, 1), (0, 0, 0), STRAIGHT)).array
    assert (farther[:245] == 1).all()
    assert (farther[246:] == 0).all()


# --- containers ------------------------------------------------------------------------------------------------------


def test_images_in_and_out():
    arrays = [scores(3, (13, 18, 21), seed) for seed in range(2)]
    vectors = []
    for a in arrays:
        one = sitk.GetImageFromArray(np.moveaxis(a, 0, -1), isVector=True)
        one.CopyInformation(image(a[0], SOURCE))
        vectors.append(one)
    like = image(np.zeros(FINE.size[::-1]), FINE)
    labels, probabilities = gr.ensemble(vectors, like=like, output="both")
    assert labels.GetPixelID() == sitk.sitkUInt8
    assert probabilities.GetNumberOfComponentsPerPixel() == 3
    for out in (labels, probabilities):
        assert (out.GetSize(), out.GetSpacing()) == (like.GetSize(), like.GetSpacing())
        assert (out.GetOrigin(), out.GetDirection()) == (like.GetOrigin(), like.GetDirection())
    expected = gr.ensemble([volume(a, SOURCE) for a in arrays], like=FINE, output="both")
    assert same_bits(sitk.GetArrayFromImage(labels), expected[0].array)
    assert same_bits(np.moveaxis(sitk.GetArrayFromImage(probabilities), -1, 0), expected[1].array)
    # The fourth axis of an image is its classes, too.
    series = sitk.JoinSeries([image(one, SOURCE) for one in arrays[0]])
    assert same_bits(
        sitk.GetArrayFromImage(gr.ensemble(series, like=like)),
        gr.ensemble([volume(arrays[0], SOURCE)], like=FINE).array,
    )


def test_nibabel_images_in_and_out():
    array = scores(3, (13, 18, 21))
    # nibabel counts in RAS, x and y to the other side.
    source = nibabel.Nifti1Image(array.T, np.diag([-2.0, -1.5, 3.0, 1.0]))
    like = nibabel.Nifti1Image(np.zeros((42, 18, 26), np.int16), np.diag([-1.0, -1.5, 1.5, 1.0]))
    labels, probabilities = gr.ensemble(source, like=like, output="both")
    assert type(labels) is nibabel.Nifti1Image
    assert (labels.shape, labels.get_data_dtype()) == ((42, 18, 26), np.uint8)
    assert probabilities.shape == (42, 18, 26, 3)
    assert np.allclose(labels.affine, like.affine)
    grid = gr.Grid((42, 18, 26), (1.0, 1.5, 1.5), (0, 0, 0), STRAIGHT)
    plain = gr.ensemble([volume(array, gr.Grid((21, 18, 13), (2, 1.5, 3), (0, 0, 0), STRAIGHT))], like=grid)
    assert same_bits(np.asarray(labels.dataobj).T, plain.array)


class Lazy:
    """An array that is read piece by piece, as zarr's are."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.largest = array, array.shape, array.dtype, 0

    def __getitem__(self, key):
        part = self.array[key]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_whatever_holds_the_scores_the_bits_are_the_same(tmp_path, interpolation, monkeypatch):
    monkeypatch.setattr(ensemble_walk, "BLOCK_BYTES", (1 << 14, 1 << 14))
    arrays = [scores(3, (40, 9, 11), seed, "float16").astype(np.float32) for seed in range(2)]

    def run(models):
        options = {"size": (80, 13, 17), "anchor": "edge", "interpolation": interpolation, "output": "probabilities"}
        return gr.ensemble(models, **options)

    expected = run(arrays)
    assert same_bits(run([a.astype(np.float16) for a in arrays]), expected)
    assert same_bits(run([a.astype(np.float64) for a in arrays]), expected)
    assert same_bits(run([a.astype(">f4") for a in arrays]), expected)
    assert same_bits(run([np.asfortranarray(a) for a in arrays]), expected)
    assert same_bits(run([np.repeat(a, 2, axis=0)[::2, ::1, ::-1][:, :, ::-1] for a in arrays]), expected)
    assert same_bits(run(iter(arrays)), expected)
    lazy = [Lazy(a) for a in arrays]
    assert same_bits(run(lazy), expected)
    assert 0 < lazy[0].largest < (1.0 if interpolation == "bspline" else 0.5) * arrays[0].size + 1
    for k, a in enumerate(arrays):
        np.save(tmp_path / f"{k}.npy", a)
    assert same_bits(run([np.load(tmp_path / f"{k}.npy", mmap_mode="r") for k in range(2)]), expected)


def test_an_iterator_may_use_its_memory_again():
    arrays = [scores(3, (9, 8, 7), seed) for seed in range(3)]

    def models():
        memory = np.empty_like(arrays[0])
        for a in arrays:
            memory[...] = a
            yield memory
            memory[...] = np.nan

    assert same_bits(gr.ensemble(models(), size=(12, 13, 14)), gr.ensemble(arrays, size=(12, 13, 14)))


# --- blocks, threads, memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_threads_and_blocks_do_not_change_the_bits(threads, monkeypatch, interpolation):
    arrays = [scores(4, (13, 18, 21), 0), scores(4, (9, 8, 6), 1)]
    models = [volume(a, g) for a, g in zip(arrays, (SOURCE, GRIDS["small"]), strict=True)]

    def run():
        got = gr.ensemble(models, like=FEW, interpolation=interpolation, output=("labels", "probabilities", "entropy"))
        return [out.array for out in got]

    threads(1)
    expected = run()
    few, many = (1, 1, 1, 1 << 10, 1), (3, 50, 5, 1 << 20, 16)
    for count, steps, planes, held, least in [few, many, (3, *few[1:]), (1, *many[1:]), (*many[:3], *few[3:])]:
        threads(count)
        monkeypatch.setattr(ensemble_walk, "STEPS", steps)
        monkeypatch.setattr(ensemble_walk, "BLOCK_BYTES", (held, held))
        monkeypatch.setattr(ensemble, "PLANES", planes)
        monkeypatch.setattr(ensemble, "HELD_BYTES", held)
        monkeypatch.setattr(ensemble, "LEAST_RUN", least)
        for a, b in zip(run(), expected, strict=True):
            assert same_bits(a, b)


def test_no_volume_per_class_is_made(threads):
    threads(1)
    array = scores(30, (40, 48, 48))
    gr.ensemble([array[:, :5, :6, :7]], size=(10, 11, 12))
    tracemalloc.start()
    labels = gr.ensemble([array], size=(80, 96, 96))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.2 * labels.nbytes + 0.2 * array.nbytes


def test_progress_goes_up_to_one():
    said = []
    gr.ensemble([scores(2, (40, 9, 8))], size=(400, 9, 8), progress=said.append)
    assert len(said) > 5
    assert said == sorted(said)
    assert said[-1] == 1.0


# --- scores that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("interpolation", ["nearest", "bspline"])
def test_nan_is_counted_and_never_a_class(activation, models, interpolation):
    arrays = [scores(3, (6, 7, 8), seed) for seed in range(models)]
    arrays[-1][2, 3, 4, 5] = np.nan
    with pytest.warns(RuntimeWarning, match=rf"[\d,]+ of logits\[{models - 1}\]"):
        labels = gr.ensemble(arrays, activation=activation, interpolation=interpolation, labels=None)
    with pytest.warns(RuntimeWarning):
        got = gr.ensemble(arrays, activation=activation, interpolation=interpolation, output=("both"))
    assert labels[3, 4, 5] == 0
    assert same_bits(got[0], labels)
    assert np.isnan(got[1][:, 3, 4, 5]).all()
    clean = gr.ensemble([np.nan_to_num(a) for a in arrays], activation=activation)
    assert (labels != clean).sum() <= 1


def test_infinite_scores():
    array = np.zeros((3, 1, 1, 4), np.float32)
    array[:, 0, 0, 0] = -np.inf, -np.inf, 1
    array[:, 0, 0, 1] = -np.inf, -np.inf, -np.inf
    array[:, 0, 0, 2] = 0, np.inf, 1
    with pytest.warns(RuntimeWarning, match=r"2 of logits\[0\], 2 of logits\[1\]"):
        labels, probabilities = gr.ensemble([array, array], output="both")
    assert labels[0, 0, 0] == 2
    assert probabilities[:, 0, 0, 0].tolist() == [0, 0, 1]
    assert labels[0, 0, 1] == labels[0, 0, 2] == 0
    assert probabilities[:, 0, 0, 3] == pytest.approx(1 / 3)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_the_exponential():
    x = np.concatenate([-np.logspace(-10, np.log10(200), 20001), [0, -87.0, -87.1, -np.inf, np.nan]]).astype(np.float32)
    total = np.zeros(2 * x.size, np.float32)
    pair = np.stack([np.zeros_like(x), x]).ravel()
    rows = ensemble_kernels.new_rows.py_func(x.size)
    ensemble_kernels.softmax_row(
        pair, 0, x.size, x.size, 2, np.float32(1), total, 0, x.size, True, rows[0], rows[1], rows[2]
    )
    got, exact = total[x.size :], np.exp(x.astype(np.float64)) / (1 + np.exp(x.astype(np.float64)))
    usable = x >= -87
    assert np.abs(got[usable] / exact[usable] - 1).max() < 5e-7
    assert (got[x < -87] == 0).all()
    assert np.isnan(got[-1])


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**31))
def test_any_number_of_classes_and_models(classes, models, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 8, 3))
    size = tuple(int(n) for n in rng.integers(1, 20, 3))
    arrays = [rng.standard_normal((classes, *shape)).astype(np.float32) for _ in range(models)]
    labels, probabilities = gr.ensemble(arrays, size=size, anchor="edge", output="both")
    options = {"size": size, "anchor": "edge", "interpolation": "linear", "boundary": "nearest"}
    expected = average([gr.resample(a.astype(np.float64), **options) for a in arrays])
    assert np.abs(probabilities - expected).max() < 2e-6
    wrong = labels != expected.argmax(axis=0)
    assert (expected.max(axis=0) - np.take_along_axis(expected, labels[None].astype(int), 0)[0])[wrong].max(
        initial=0
    ) < CLOSE


# --- refusals --------------------------------------------------------------------------------------------------------


A = np.zeros((3, 4, 5, 6), np.float32)
FAR = gr.Grid((4, 4, 4), (1, 1, 1), (500, 0, 0), STRAIGHT)
REFUSED = [
    ({"logits": []}, ValueError, "logits must have at least one model"),
    ({"logits": iter(())}, ValueError, "logits must have at least one model"),
    ({"logits": A}, TypeError, r"for one model: \[logits\]"),
    ({"logits": 5}, TypeError, "logits must be a sequence or an iterator"),
    ({"logits": "scores"}, TypeError, "logits must be a sequence or an iterator"),
    ({"logits": [A, "x"]}, TypeError, r"logits\[1\] must be a SimpleITK.Image, .* or an array"),
    ({"logits": [A, A[:2]]}, ValueError, "3 of model 0 and 2 of model 1"),
    ({"logits": [A[0, 0]]}, ValueError, r"logits\[0\] must be \(class, z, y, x\)"),
    ({"logits": [A[:, :0]]}, ValueError, r"logits\[0\] must not be empty"),
    ({"logits": [A.astype(complex)]}, TypeError, "integer or float"),
    ({"logits": [gr.Volume(A[0], (1, 1, 1))]}, ValueError, "one axis of classes"),
    ({"logits": [A, A[:, 0]]}, ValueError, r"logits\[1\] must have the target's 3 axes"),
    ({"logits": [gr.Volume(A, (1, 1, 1))], "like": FAR}, ValueError, r"logits\[0\] must overlap the target"),
    (
        {"logits": [gr.Volume(A, (1, 1, 1), direction=TURNED)], "like": FAR}, ValueError,
        r"logits\[0\] must overlap the target",
    ),
    ({"logits": [gr.Volume(A, (1, 1, 1))], "input_spacing": 1}, ValueError, "input_spacing is for bare arrays"),
    ({"size": (4, 5)}, ValueError, "size must have 3 values"),
    ({"size": (4, 5, 6), "like": A}, ValueError, "cannot be combined with size"),
    ({"like": "x"}, TypeError, "like must be"),
    ({"input_spacing": (1, 0, 1)}, ValueError, "input_spacing must be above zero"),
    ({"anchor": "corner"}, ValueError, "anchor must be one of"),
    ({"activation": "relu"}, ValueError, "activation must be one of"),
    ({"interpolation": "label_linear"}, ValueError, "interpolation must be one of"),
    ({"interpolation": "cubicc"}, ValueError, "interpolation must be one of"),
    ({"output": "lables"}, ValueError, "did you mean 'labels'"),
    ({"output": ()}, ValueError, "output must name at least one"),
    ({"output": ("labels", "both")}, ValueError, "output must be one of"),
    ({"device": "gpu"}, ValueError, "device must be"),
    ({"weights": (1, 2)}, ValueError, "weights must have one number for each of the 1 models"),
    ({"logits": iter([A]), "weights": (1, 2)}, ValueError, "weights must have one number for each of the 1 models"),
    ({"weights": (-1,)}, ValueError, "weights must be .*finite and at least 0"),
    ({"weights": (float("nan"),)}, ValueError, "weights must be .*finite and at least 0"),
    ({"weights": (0,)}, ValueError, "weights must not all be zero"),
    ({"weights": 1}, TypeError, "weights must be a sequence"),
    ({"weights": ("1",)}, TypeError, "weights must be numbers"),
    ({"labels": (0, 1)}, ValueError, "labels must have one number for each of the 3 classes"),
    ({"labels": (0, 1, -1)}, ValueError, "labels must be whole numbers from 0"),
    ({"labels": (0, 1, 1.5)}, TypeError, "labels must be whole numbers"),
    ({"labels": 3}, TypeError, "labels must be 3 whole numbers"),
    ({"regions": (1, 2, 3)}, ValueError, "regions are for classes that may overlap"),
    ({"activation": "sigmoid", "regions": (1, 2)}, ValueError, "regions must have one number"),
    ({"activation": "sigmoid", "labels": (1, 2, 3)}, ValueError, "use regions"),
    ({"threshold": 0.4}, ValueError, "threshold is for"),
    ({"activation": "sigmoid", "threshold": 1.0}, ValueError, "threshold must lie between 0 and 1"),
    ({"activation": "sigmoid", "threshold": (0.5, 0.5)}, ValueError, "threshold must have one number"),
    ({"activation": "sigmoid", "threshold": "high"}, TypeError, "threshold must be a number"),
    ({"logits": [np.zeros((65, 2, 2, 2))], "activation": "sigmoid"}, ValueError, "at most 64 classes"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_input_is_refused_by_name(arguments, error, message):
    arguments = {"logits": [A], **arguments}
    with pytest.raises(error, match=message):
        gr.ensemble(arguments.pop("logits"), **arguments)
