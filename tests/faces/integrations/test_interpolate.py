"""`gpuresample.torch.interpolate` and "nearest" beside torch's own `interpolate`; `ResampleCollate` of arrays."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import gpuresample.torch as grt

FACTORS = [0.5, 0.75, 1.04, 2.04, 1.5, 2.0, 1 / 3, 2.3, 1.0]


def drawn(seed):
    """A call that torch knows: a tensor and arguments."""
    rng = np.random.default_rng(seed)
    dims = int(rng.choice([2, 3]))
    linear = "trilinear" if dims == 3 else "bilinear"
    n = rng.integers(3, 14, dims).tolist()
    x = torch.from_numpy(rng.standard_normal((2, 1, *n)).astype(str(rng.choice(["float32", "float64"]))))
    arguments = {"mode": str(rng.choice(["nearest", "nearest-exact", linear, "area"]))}
    if rng.random() < 0.5:
        # To a width of 1, antialiased, torch 2.13 repeats the first row: not a call to compare with.
        arguments["size"] = rng.integers(2, 20, dims).tolist()
    else:
        arguments["scale_factor"] = rng.choice(
            [f for f in FACTORS if f * 3 >= 2] if dims == 2 else FACTORS, dims
        ).tolist()
        arguments["recompute_scale_factor"] = [None, False, True][rng.integers(3)]
    if arguments["mode"] == linear:
        arguments["align_corners"] = [None, False, True][rng.integers(3)]
        arguments["antialias"] = dims == 2 and rng.random() < 0.5
    return x, arguments


@pytest.mark.parametrize("seed", range(200))
def test_interpolate_is_torchs(seed):
    x, arguments = drawn(seed)
    theirs, mine = interpolate(x, **arguments), grt.interpolate(x, **arguments)
    assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    if arguments["mode"].startswith("nearest"):
        assert torch.equal(mine, theirs)
    else:
        bound = 3e-6 if x.dtype == torch.float32 else 1e-13
        assert float((mine - theirs).abs().max()) <= bound * float(x.max() - x.min())


@pytest.mark.parametrize("size", [(4, 9, 5), (9, 3, 7), (2, 2, 2), (10, 12, 14), (5, 6, 30)])
def test_antialias_of_volumes_is_torchs_of_pictures_axis_by_axis(size):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, 10, 12, 14)))
    planes = interpolate(x[0], size[1:], mode="bilinear", antialias=True)
    turned = planes.permute(0, 2, 1, 3)
    columns = interpolate(turned, (size[0], size[2]), mode="bilinear", antialias=True).permute(0, 2, 1, 3)
    torch.testing.assert_close(
        grt.interpolate(x, size, mode="trilinear", antialias=True)[0], columns, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("arguments", [
    {"size": (4, 5, 6), "mode": "trilinear", "antialias": True},
    {"scale_factor": 1.3, "mode": "trilinear", "align_corners": True},
    {"scale_factor": (0.5, 2, 1), "mode": "area"},
    {"size": 5, "mode": "nearest"},
    {"size": 5, "mode": "nearest-exact"},
])  # fmt: skip
def test_interpolate_has_gradients(arguments):
    x = torch.rand(1, 2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: grt.interpolate(v, **arguments), x)


def test_interpolate_compiles_without_a_break():
    x = torch.rand(1, 2, 6, 7, 8)
    compiled = torch.compile(lambda v: grt.interpolate(v, (3, 9, 8), mode="trilinear"), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), interpolate(x, (3, 9, 8), mode="trilinear"), rtol=0, atol=3e-6)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_interpolate_sums_half_types_in_float32(half):
    x = torch.rand(1, 1, 6, 7, 8).to(half)
    whole = grt.interpolate(x.float(), (3, 9, 8), mode="trilinear").to(half)
    assert torch.equal(grt.interpolate(x, (3, 9, 8), mode="trilinear"), whole)


@pytest.mark.parametrize(("shape", "arguments", "error", "message"), [
    ((1, 1, 8, 8, 8), {"size": 4, "mode": "bicubic"}, ValueError, "mode must be"),
    ((1, 1, 8, 8, 8), {"size": 4, "mode": "bilinear"}, ValueError, "mode must be"),
    ((1, 1, 8), {"size": 4}, ValueError, "input must have shape"),
    ((1, 1, 8, 8, 8), {}, ValueError, "size or scale_factor"),
    ((1, 1, 8, 8, 8), {"size": 4, "scale_factor": 2.0}, ValueError, "size or scale_factor"),
    ((1, 1, 8, 8, 8), {"size": 4, "align_corners": True}, ValueError, "align_corners is for"),
    ((1, 1, 8, 8, 8), {"size": 4, "mode": "area", "antialias": True}, ValueError, "antialias is for"),
    ((1, 1, 8, 8, 8), {"scale_factor": 0.1}, ValueError, "scale_factor must leave"),
    ((1, 1, 8, 8, 8), {"scale_factor": (2.0, 2.0)}, ValueError, "scale_factor"),
    ((1, 1, 8, 8, 8), {"size": (4, 4)}, ValueError, "size"),
    ((1, 1, 8, 8, 8), {"size": 4, "recompute_scale_factor": True}, ValueError, "recompute_scale_factor"),
])  # fmt: skip
def test_interpolate_refuses_by_name(shape, arguments, error, message):
    with pytest.raises(error, match=message):
        grt.interpolate(torch.zeros(shape), **arguments)


def test_interpolate_sums_no_integers():
    with pytest.raises(TypeError, match="float voxels"):
        grt.interpolate(torch.zeros(1, 1, 4, 4, 4, dtype=torch.int16), size=2, mode="area")
    assert grt.interpolate(torch.ones(1, 1, 4, 4, 4, dtype=torch.int16), size=2).dtype == torch.int16


# --- samples halfway between voxels ---------------------------------------------------------------------------------

# 64 to 96 voxels: every third sample lies halfway.
HALFWAY = [((64,) * 3, (96,) * 3), ((10, 20, 30), (15, 30, 45)), ((9, 12, 15), (6, 8, 10)), ((8, 8, 8), (4, 4, 4)),
           ((7, 21, 35), (14, 14, 14)), ((50, 70, 90), (35, 49, 63))]  # fmt: skip


@pytest.mark.parametrize(("n", "m"), HALFWAY)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_nearest_from_face_to_face_is_torchs_halfway_too(n, m, dtype):
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (1, 1, *n)).astype(dtype))
    theirs = interpolate(labels, m, mode="nearest-exact")
    for mine in (
        grt.resample(labels, size=m, anchor="edge", interpolation="nearest"),
        grt.resample(labels, size=m, anchor="edge", interpolation="nearest", boundary="nearest"),
        grt.interpolate(labels, m, mode="nearest-exact"),
        grt.ResampleCollate(m, labels=["seg"])([{"seg": labels[0]}])["seg"],
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("n", "m"), [((8, 10), (12, 15)), ((9, 6), (6, 4))])
def test_nearest_of_pictures_is_torchs_halfway_too(n, m):
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (2, 1, *n)).astype(np.uint8))
    mine = grt.resample(labels, size=m, anchor="edge", interpolation="nearest", spatial_dims=2)
    assert torch.equal(mine, interpolate(labels, m, mode="nearest-exact"))


# --- ResampleCollate ------------------------------------------------------------------------------------------------


def volumes(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).integers(0, 90, shape).astype(dtype)


SAMPLES = {
    "array beside tensor": lambda f: {"image": f(1, 20, 30, 30), "seg": torch.from_numpy(f(1, 20, 30, 30))},
    "read-only": lambda f: {"image": np.broadcast_to(f(1, 1, 9, 8), (1, 7, 9, 8)), "seg": f(1, 7, 9, 8)},
    "turned": lambda f: {"image": f(8, 9, 7, 1).T[:, ::-1], "seg": f(1, 7, 9, 8)},
    "big-endian": lambda f: {"image": f(1, 7, 9, 8).astype(">f4"), "seg": f(1, 7, 9, 8).astype(">i2")},
    "integers": lambda f: {"image": f(2, 7, 9, 8).astype(np.int16), "seg": f(1, 7, 9, 8).astype(np.uint8)},
    "float64": lambda f: {"image": f(2, 7, 9, 8).astype(np.float64), "seg": f(1, 7, 9, 8).astype(np.int64)},
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_collate_takes_arrays_as_tensors(kind):
    sample = SAMPLES[kind](volumes)
    out = grt.ResampleCollate((5, 6, 7), labels=["seg"])([sample, sample])
    for name, interpolation in (("image", "linear"), ("seg", "nearest")):
        array = sample[name].numpy() if isinstance(sample[name], torch.Tensor) else sample[name]
        whole = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        expected = grt.resample(whole, size=(5, 6, 7), anchor="edge", interpolation=interpolation)
        assert out[name].shape == (2, *expected.shape)
        assert torch.equal(out[name][1], expected)


def test_collate_finds_volumes_within_a_samples_parts():
    collate = grt.ResampleCollate((5, 6, 7), labels=["seg"])
    sample = {"ct": {"image": volumes(1, 8, 9, 7), "seg": volumes(1, 8, 9, 7, dtype=np.uint8)}, "spacing": (1.0, 2.0),
              "pair": (volumes(1, 8, 9, 7), "name")}  # fmt: skip
    out = collate([sample, sample])
    assert out["ct"]["image"].shape == out["ct"]["seg"].shape == out["pair"][0].shape == (2, 1, 5, 6, 7)
    assert torch.equal(out["ct"]["seg"], collate([{"seg": sample["ct"]["seg"]}] * 2)["seg"])
    assert out["pair"][1] == ["name", "name"]
    assert [v.tolist() for v in out["spacing"]] == [[1.0, 1.0], [2.0, 2.0]]


def assert_covered(before, n, after, m):
    """Both affines put the outer faces of these many voxels to the same places."""
    for end in (-0.5, None):
        corners = [np.append(np.full(3, -0.5) if end else np.asarray(k) - 0.5, 1) for k in (n, m)]
        np.testing.assert_allclose(np.asarray(before) @ corners[0], np.asarray(after) @ corners[1], atol=1e-9)


TURNED = np.array([[0, -1.6, 0, 30], [1.2, 0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])


def test_collated_meta_tensors_have_the_affines_of_the_new_grid():
    from monai.data import MetaTensor, list_data_collate

    sizes = ((7, 9, 8), (12, 5, 6))
    images = [MetaTensor(torch.from_numpy(volumes(2, *n)), affine=torch.from_numpy(TURNED), meta={"p": k})
              for k, n in enumerate(sizes)]  # fmt: skip
    samples = [{"image": image, "seg": (image[:1] > 40).to(torch.uint8)} for image in images]
    out = grt.ResampleCollate((5, 6, 7), labels=["seg"])(samples)
    alone = [grt.resample(x, size=(5, 6, 7), anchor="edge", interpolation="linear") for x in images]
    theirs = list_data_collate([{"image": x} for x in alone])["image"]
    for name in ("image", "seg"):
        assert type(out[name]) is MetaTensor
        assert out[name].is_batch
        torch.testing.assert_close(out[name].affine, theirs.affine, rtol=0, atol=1e-12)
        for k, n in enumerate(sizes):
            assert_covered(TURNED, n, out[name].affine[k], (5, 6, 7))
    assert torch.equal(out["image"].as_tensor(), theirs.as_tensor())
    assert out["image"].meta["p"].tolist() == theirs.meta["p"].tolist() == [0, 1]
    assert set(out["seg"].unique().tolist()) <= {0, 1}


def test_collated_subjects_of_torchio_have_the_affines_of_the_new_grid_and_whole_labels():
    tio = pytest.importorskip("torchio")
    subjects = [
        tio.Subject(
            ct=tio.ScalarImage(tensor=volumes(1, *n), affine=TURNED),
            seg=tio.LabelMap(tensor=9 * (volumes(1, *n) > 40).astype(np.uint8), affine=TURNED),
        )
        for n in ((7, 9, 8), (12, 5, 6))
    ]
    out = grt.ResampleCollate((5, 6, 7))(subjects)
    assert set(out["seg"]["data"].unique().tolist()) == {0, 9}
    for name in ("ct", "seg"):
        assert out[name]["data"].shape == (2, 1, 5, 6, 7)
        for k, subject in enumerate(subjects):
            assert_covered(TURNED, subject[name].spatial_shape, out[name]["affine"][k], (5, 6, 7))


def test_labels_name_volumes_and_all_within():
    collate = grt.ResampleCollate((5, 6, 7), labels=["seg", 1])
    masks = 9 * (volumes(1, 8, 9, 7) > 40).astype(np.uint8)
    out = collate([{"seg": {"left": masks, "right": [masks, 3]}}] * 2)["seg"]
    assert [set(v.unique().tolist()) for v in (out["left"], out["right"][0])] == [{0, 9}] * 2
    for wrong in (masks[0], "liver", 3):
        with pytest.raises(ValueError, match=r"labels names .seg., which must be a volume of 4 axes, .* got"):
            collate([{"seg": wrong}] * 2)
    with pytest.raises(ValueError, match="labels names 1, which must be a volume"):
        collate([(masks, masks[0])] * 2)
