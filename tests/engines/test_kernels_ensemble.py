"""The ensemble's CUDA kernels, run on the CPU between guard bands, against the CPU engine and plain NumPy."""

import numpy as np
import pytest
import SimpleITK as sitk
from cuda_support import FILLS, Guarded, assert_seen, holds, patched
from fake_cupy import Array
from support import flat, rotation, same_bits

import gpuresample as gr
from gpuresample.engines import interface
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import engine as cuda
from gpuresample.engines.cuda import runtime as cuda_runtime
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.ensemble import MEMBER
from gpuresample.ops import ensemble_walk

pytestmark = pytest.mark.kernels

STRAIGHT = flat(rotation(0, 0, 0))
TARGET = gr.Grid((23, 19, 11), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), STRAIGHT)
GRIDS = {
    "coarse": gr.Grid((12, 10, 7), (2.0, 2.5, 3.0), (2.0, -3.0, 0.0), STRAIGHT),
    "same": TARGET,
    "permuted": gr.Grid((7, 12, 10), (3.0, 2.0, 2.5), (2.0, -3.0, 0.0), (0, 1.0, 0, 0, 0, 1.0, 1.0, 0, 0)),
    "small": gr.Grid((5, 4, 3), (2.0, 2.5, 3.0), (9.0, 4.0, 5.0), STRAIGHT),
    "turned": gr.Grid((12, 10, 7), (2.0, 2.5, 3.0), (0.0, -4.0, 0.0), flat(rotation(5, -8, 15))),
}
ALL = ("labels", "probabilities", "confidence", "entropy")


def make(names, classes=5, activation="softmax", before=False, choose="largest", interpolation="linear"):
    """An ensemble with models on grids of these names, and their scores."""
    rng = np.random.default_rng(len(names) + classes)
    shares = rng.uniform(0.5, 1.5, len(names))
    members = tuple(
        ensemble_walk.member(GRIDS[name], TARGET, interpolation, float(share / shares.sum()))
        for name, share in zip(names, shares, strict=True)
    )
    thresholds = rng.uniform(0.2, 0.8, classes).astype(np.float32)
    values = {"largest": np.arange(3, classes + 4), "regions": np.r_[10 : 10 + classes, 0]}.get(
        choose, np.r_[1 << np.arange(classes), 0]
    )
    work = interface.Ensemble(
        members, classes, TARGET.size[::-1], activation, before, choose, thresholds, values.astype(np.uint64)
    )
    scores = [2 * rng.standard_normal((classes, *GRIDS[name].size[::-1])).astype(np.float32) for name in names]
    if activation == "none":
        scores = [np.exp(s) / np.exp(s).sum(axis=0) for s in scores]
    return work, scores


def places(empty, wanted, classes, label):
    """Outputs in new memory."""
    shape = TARGET.size[::-1]
    kinds = {
        "labels": (shape, label), "probabilities": ((classes, *shape), np.float32), "confidence": (shape, np.float32),
        "entropy": (shape, np.float32),
    }  # fmt: skip
    return interface.Outputs(**{name: empty(*kinds[name]) for name in wanted})


def by_cpu(work, scores, wanted, label=np.uint8):
    out = places(np.empty, wanted, work.classes, label)
    with cpu.combining(len(scores)) as combiner:
        combiner.combine(work, [s.astype(np.float32) for s in scores], out)
        return out, combiner.counts()


def by_kernels(work, scores, wanted, label=np.uint8, read=cuda_runtime.read):
    """What the kernels make of it, in memory of either pattern, which must be the same."""
    results = []
    for fill in FILLS:
        runtime = Guarded(fill, read)
        engine = CudaEngine(runtime)
        parts = [runtime.upload(s) for s in scores]
        out = places(runtime.empty, wanted, work.classes, label)
        with engine.combining(len(scores)) as combiner:
            combiner.combine(work, parts, out)
            counts = combiner.counts()
        runtime.check()
        assert all((a == b).all() or np.isnan(b).any() for a, b in zip(parts, scores, strict=True))
        assert runtime.launches["ensemble_decide"] == 1
        results.append((out, counts))
    for name in wanted:
        a, b = (getattr(out, name) for out, _ in results)
        assert a.tobytes() == b.tobytes(), "the result depends on memory that is not the kernel's"
    assert results[0][1] == results[1][1]
    return results[0]


def check(work, scores, wanted=ALL, label=np.uint8, read=cuda_runtime.read):
    """Both engines agree: floats to 1e-6, labels but for ties."""
    ours, our_counts = by_kernels(work, scores, wanted, label, read)
    theirs, their_counts = by_cpu(work, scores, wanted, label)
    assert our_counts == their_counts
    for name in set(wanted) - {"labels"}:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (np.isnan(a) == np.isnan(b)).all()
        bound = 1e-5 if name == "entropy" else 1e-6
        assert np.nanmax(np.abs(a - b)) <= bound, name
    if "labels" in wanted:
        assert ours.labels.dtype == label
        assert (ours.labels != theirs.labels).mean() < 1e-3
        if theirs.confidence is not None:
            bad = np.isnan(theirs.confidence)
            assert (ours.labels == theirs.labels)[bad].all()
    return ours


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("names", [("coarse",), ("coarse", "same", "small"), ("permuted", "turned")], ids="+".join)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
def test_both_engines_agree(names, activation, interpolation):
    check(*make(names, activation=activation, interpolation=interpolation))


@pytest.mark.parametrize("names", [("coarse",), ("coarse", "small")], ids="+".join)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_activation_before_resampling(names, activation):
    check(*make(names, activation=activation, before=True))


@pytest.mark.parametrize("choose", ["bits", "regions"])
@pytest.mark.parametrize("names", [("coarse",), ("coarse", "same")], ids="+".join)
def test_classes_that_overlap(names, choose):
    work, scores = make(names, activation="sigmoid", choose=choose)
    check(work, scores)
    check(work, scores, ("labels",))


@pytest.mark.parametrize("label", ["uint16", "uint32", "uint64"])
def test_every_type_of_label(label):
    work, scores = make(("coarse",))
    (small, _), (out, _) = (by_kernels(work, scores, ("labels",), np.dtype(name)) for name in ("uint8", label))
    assert out.labels.dtype == label
    assert (out.labels == small.labels).all()


@pytest.mark.parametrize("classes", [1, 2, 3, 40])
def test_any_number_of_classes(classes):
    check(*make(("coarse", "same"), classes))


def test_labels_alone_need_no_exponential():
    work, scores = make(("coarse",))
    runtime = Guarded()
    engine = CudaEngine(runtime)
    out = places(runtime.empty, ("labels",), 5, np.uint8)
    with engine.combining(1) as combiner:
        combiner.combine(work, [runtime.upload(s) for s in scores], out)
    assert runtime.launches == {"ensemble_decide": 1}
    check(work, scores, ("labels",))


def test_half_floats_are_read_as_they_are():
    work, scores = make(("coarse", "same"))
    halves = [s.astype(np.float16) for s in scores]
    ours = check(work, halves)
    whole = check(work, [h.astype(np.float32) for h in halves])
    assert ours.probabilities.tobytes() == whole.probabilities.tobytes()
    mixed = check(work, [halves[0], halves[1].astype(np.float32)])
    assert mixed.probabilities.tobytes() == whole.probabilities.tobytes()


def test_scores_of_any_strides():
    work, scores = make(("coarse", "same"))
    expected, _ = by_kernels(work, scores, ALL)
    runtime = Guarded()
    engine = CudaEngine(runtime)
    parts = []
    for s in scores:
        base = runtime.empty((*s.shape[1:], s.shape[0]), s.dtype)
        base[...] = np.moveaxis(s, 0, -1)
        parts.append(np.moveaxis(base, -1, 0))
    # Outputs as well: what the kernel cannot write in place is copied there.
    turned = places(lambda shape, dtype: runtime.empty(shape[::-1], dtype).T, ALL, 5, np.uint8)
    with engine.combining(2) as combiner:
        combiner.combine(work, parts, turned)
    for name in ALL:
        assert same_bits(np.ascontiguousarray(getattr(turned, name)), getattr(expected, name))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("names", [("same",), ("coarse", "same")], ids="+".join)
def test_scores_that_are_none_are_counted(names, activation, before):
    work, scores = make(names, activation=activation, before=before)
    scores[-1][2, 3, 4, 5] = np.nan
    scores[-1][1, 8, 7, 6] = np.nan
    check(work, scores)
    check(work, scores, ("labels",))


def test_a_member_is_laid_out_as_in_the_kernel():
    text = cuda_runtime.read("ensemble.cu").split("struct member_t {")[1].split("};")[0]
    assert text.count("unsigned long long ") == 9
    assert MEMBER.itemsize == 9 * 8 + 4 * 8 + 6 * 4 + 4 + 4
    assert MEMBER.itemsize % 8 == 0


# --- through the public call, on a stand-in for CuPy -----------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_host_arrays_go_there_block_by_block(cupy, device, interpolation):
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((4, 9, 12, 13)).astype(t) for t in (np.float32, np.float16)]
    options = {"size": (31, 20, 22), "anchor": "edge", "interpolation": interpolation, "output": "both"}
    labels, probabilities = gr.ensemble(arrays, device=device, **options)
    expected = gr.ensemble(arrays, device="cpu", **options)
    assert cuda._engine().runtime.launches["ensemble_decide"] > 1
    assert type(labels) is type(probabilities) is np.ndarray
    assert np.abs(probabilities - expected[1]).max() < 1e-6
    assert (labels != expected[0]).mean() < 1e-3


def test_scores_on_the_gpu_stay_there(cupy):
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((4, 9, 12, 13)).astype(np.float32) for _ in range(2)]
    options = {"size": (31, 20, 22), "anchor": "edge", "output": "both"}
    labels, probabilities = gr.ensemble([cupy.asarray(a) for a in arrays], **options)
    expected = gr.ensemble(arrays, device="cpu", **options)
    assert type(labels) is type(probabilities) is Array
    assert np.abs(np.asarray(probabilities) - expected[1]).max() < 1e-6
    assert (np.asarray(labels) != expected[0]).mean() < 1e-3
    with pytest.raises(ValueError, match="must all lie in one place, got model 0 on cuda:0 and model 1 on cpu"):
        gr.ensemble([cupy.asarray(arrays[0]), arrays[1]], **options)
    with pytest.raises(ValueError, match="device must be"):
        gr.ensemble([cupy.asarray(arrays[0])], device="cpu", **options)


def test_labels_of_scores_on_the_gpu_for_an_image_in_host_memory(cupy):
    array = np.random.default_rng(3).standard_normal((4, 9, 12, 13)).astype(np.float32)
    ct = sitk.Image([22, 20, 31], sitk.sitkInt16)
    expected = gr.ensemble([array], like=ct, anchor="edge", device="cpu", output=("labels", "confidence"))
    got = gr.ensemble([cupy.asarray(array)], like=ct, anchor="edge", output=("labels", "confidence"))
    for a, b in zip(got, expected, strict=True):
        assert a.GetPixelID() == b.GetPixelID()
        assert np.abs(sitk.GetArrayFromImage(a).astype(float) - sitk.GetArrayFromImage(b)).max() <= 1e-6
    volume = gr.Volume(np.zeros((31, 20, 22), np.int16), (1, 1, 1))
    labels = gr.ensemble([cupy.asarray(array)], like=volume, anchor="edge")
    assert isinstance(labels, gr.Volume)
    assert type(labels.array) is Array
    assert (np.asarray(labels.array) == sitk.GetArrayFromImage(expected[0])).all()


def test_little_device_memory_means_small_blocks_and_the_same_bits(cupy, monkeypatch):
    arrays = [np.random.default_rng(k).standard_normal((4, 9, 12, 13)).astype(np.float32) for k in range(2)]
    options = {"size": (31, 20, 22), "anchor": "edge", "device": "cuda", "output": "both"}
    whole = gr.ensemble(arrays, **options)
    few = cuda._engine().runtime.launches["ensemble_decide"]
    monkeypatch.setattr(ensemble_walk, "BLOCK_BYTES", (1 << 10, 1 << 10))
    parts = gr.ensemble(arrays, **options)
    assert cuda._engine().runtime.launches["ensemble_decide"] > 3 * few
    for a, b in zip(parts, whole, strict=True):
        assert same_bits(a, b)


# --- mistakes that the above must see --------------------------------------------------------------------------------


def check_all(read):
    for names in (("coarse", "same", "small"), ("permuted",)):
        work, scores = make(names)
        scores[0][2, 1, 1, 1] = np.nan
        check(work, scores, read=read)
        check(*make(names, activation="sigmoid", choose="bits"), read=read)
        work, scores = make(names, activation="none")
        scores[0][2, 1:3, 1, 1:5] = np.nan
        check(work, scores, read=read)


MUTATIONS = [
    ("z < m.z_hi", "z <= m.z_hi"),
    ("m.x_lo <= x", "m.x_lo < x"),
    ("iy[n_y + y]", "iy[n_y + y] + 1"),
    ("p.w10 * between(p, here + p.dz)", "p.w01 * between(p, here + p.dz)"),
    ("if (p.two_z) {", "if (p.two_z && p.two_y) {"),
    ("here = p.corner + c * p.dc", "here = p.corner + (c + 1) * p.dc"),
    ("c0 += CLASSES", "c0 += CLASSES + 1"),
    ("sum * expf(top - s) + 1.0f", "sum + 1.0f"),
    ("total > best", "total >= best - 1"),
    ("total > thresholds[c]", "total > thresholds[0]"),
    ("if (z >= n_z) return;\n    const idx_t voxels", "if (z >= n_z - 1) return;\n    const idx_t voxels"),
    ("if (mine) atomicAdd", "if (!mine) atomicAdd"),
    ("label = 0;\n        name", "name"),
]


@pytest.mark.parametrize(("old", "new"), MUTATIONS, ids=lambda v: f"{v!r:.30}")
def test_a_mistake_in_a_kernel_is_seen(old, new):
    holds(check_all)
    assert_seen(check_all, patched("ensemble.cu", old, new))
