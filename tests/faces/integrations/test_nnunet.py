"""`gpuresample.nnunet` through nnU-Net's own preprocessing and export, beside nnU-Net's own results."""

import itertools
import json
import math
import multiprocessing
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference import export_prediction
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling import default_resampling
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import SINGLE

import gpuresample as gr
import gpuresample.nnunet as grnn

DEFAULT = "resample_data_or_seg_to_shape"


def plans(spacing, resampling=DEFAULT, transpose=(0, 1, 2), **probabilities):
    """Plans as nnU-Net's planner writes them, of what preprocessing and export read."""
    common = {"force_separate_z": None, "order_z": 0}
    back = list(np.argsort(transpose))
    return PlansManager(
        {
            "dataset_name": "Dataset999_Test",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(transpose),
            "transpose_backward": [int(k) for k in back],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": {"mean": 100.0, "std": 50.0}},
            "configurations": {
                "3d_fullres": {
                    "architecture": {},
                    "preprocessor_name": "DefaultPreprocessor",
                    "spacing": list(spacing),
                    "normalization_schemes": ["ZScoreNormalization"],
                    "use_mask_for_norm": [False],
                    "resampling_fn_data": resampling,
                    "resampling_fn_seg": resampling,
                    "resampling_fn_probabilities": resampling,
                    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **common},
                    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **common},
                    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **common, **probabilities},
                }
            },
        }
    )


LABELS = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "dark": 1, "middle": 2, "bright": 3},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
REGIONS = {
    **LABELS,
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "hot": 3},
    "regions_class_order": [1, 2, 3],
}


@pytest.fixture(params=["isotropic", "anisotropic"])
def case(request, read, tmp_path):
    """Files of an image and its label map, and a spacing to bring them to."""
    if request.param == "isotropic":
        image, spacing = read("FLAIR.nii.gz", (40, 50, 40), (50, 56, 60)), (1.3, 0.8, 1.1)
    else:
        image, spacing = read("shear.nii.gz", (100, 180, 12), (72, 80, 22)), (3.1, 0.61, 0.7)
    image = sitk.Cast(image, sitk.sitkFloat32)
    values = sitk.GetArrayFromImage(image)
    steps = np.quantile(values, [0.5, 0.75, 0.9])
    label = sitk.GetImageFromArray(np.digitize(values, steps).astype(np.uint8))
    label.CopyInformation(image)
    paths = tmp_path / "case_0000.nii.gz", tmp_path / "case.nii.gz"
    for volume, path in zip((image, label), paths, strict=True):
        sitk.WriteImage(volume, str(path))
    return str(paths[0]), str(paths[1]), spacing


def preprocessed(case, manager):
    image, label, _ = case
    reader = manager.image_reader_writer_class()
    data, properties = reader.read_images([image])
    seg, _ = reader.read_seg(label)
    configuration = manager.get_configuration("3d_fullres")
    return DefaultPreprocessor(verbose=False).run_case_npy(data, seg, properties, manager, configuration, LABELS)


# --- preprocessing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_preprocessing_gives_nnunets_numbers(case, transpose):
    spacing = [case[2][k] for k in transpose]
    data, seg, properties = preprocessed(case, plans(spacing, transpose=transpose))
    with grnn.install():
        ours, our_seg, our_properties = preprocessed(case, plans(spacing, "resample_gpuresample", transpose))
    assert ours.dtype == data.dtype
    assert ours.shape == data.shape
    assert our_seg.dtype == seg.dtype
    # float32 sums against nnU-Net's float64 scikit-image.
    assert np.abs(ours - data).max() <= SINGLE * float(data.max() - data.min())
    assert (our_seg != seg).mean() <= 1e-4
    assert our_properties["shape_after_cropping_and_before_resampling"] == tuple(
        properties["shape_after_cropping_and_before_resampling"]
    )
    assert set(our_properties["class_locations"]) == set(properties["class_locations"])


def test_defaults_replaced_in_place_need_no_other_plans(case):
    data, seg, _ = preprocessed(case, plans(case[2]))
    with grnn.install(defaults=True):
        manager = plans(case[2])
        assert manager.get_configuration("3d_fullres").resampling_fn_data.func is grnn.resample_gpuresample
        ours, our_seg, _ = preprocessed(case, manager)
    assert 0 < np.abs(ours - data).max() <= SINGLE * float(data.max() - data.min())
    assert (our_seg != seg).mean() <= 1e-4


@pytest.mark.parametrize("is_seg", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(("separate", "order_z"), [(False, 0), (True, 0), (True, 1), (True, 3)])
def test_every_order_is_nnunets(read, is_seg, order, separate, order_z):
    values = sitk.GetArrayFromImage(read("MNI152_2009_template.nii.gz", (60, 90, 70), (32, 29, 18)))
    data = (np.digitize(values, [2000, 4000, 6000, 7000]) if is_seg else values)[None].astype(np.float32)
    data = np.concatenate([data, data[:, ::-1]])
    arguments = (data, (26, 40, 23), (3, 1, 1), (2, 0.8, 1.4), is_seg, order, order_z, separate)
    theirs = default_resampling.resample_data_or_seg_to_shape(*arguments)
    ours = grnn.resample_gpuresample(*arguments)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if is_seg or (order, order_z) == (0, 0):
        # Where two labels weigh the same but for the last bit, either may win.
        assert (ours != theirs).mean() <= (2e-4 if is_seg else 0)
    else:
        assert np.abs(ours - theirs).max() <= 2 * SINGLE * float(data.max() - data.min())


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16"])
def test_types_stay(read, dtype):
    values = sitk.GetArrayFromImage(read("MNI152_2009_template.nii.gz", (60, 90, 70), (20, 22, 18)))[None].astype(dtype)
    arguments = (values, (25, 20, 30), (1, 1, 1), (0.8, 1.1, 0.7))
    theirs = default_resampling.resample_data_or_seg_to_shape(*arguments).astype(np.float64)
    ours = grnn.resample_gpuresample(*arguments)
    assert ours.dtype == values.dtype
    span = float(values.max()) - float(values.min())
    bound = {"float16": 2e-3 * span, "float64": 1e-6 * span, "int16": 1}[dtype]
    difference = np.abs(ours.astype(np.float64) - theirs)
    assert difference.max() <= bound
    if dtype == "int16":
        assert (difference > 0).mean() <= 0.005


def test_tensors_and_shapes_that_stay():
    x = torch.arange(60.0).reshape(1, 3, 4, 5)
    same = grnn.resample_gpuresample(x, (3, 4, 5), (1, 1, 1), (1, 1, 1))
    assert isinstance(same, np.ndarray)
    assert np.shares_memory(same, x.numpy())
    assert grnn.resample_gpuresample(x, (6, 4, 5), (2, 1, 1), (1, 1, 1), order=1).shape == (1, 6, 4, 5)


def test_what_cannot_be_is_refused_by_name():
    x = np.zeros((1, 3, 4, 5), np.float32)
    with pytest.raises(ValueError, match=r"data must have four axes \(c, x, y, z\), got shape \(3, 4, 5\)"):
        grnn.resample_gpuresample(x[0], (3, 4, 5), (1, 1, 1), (1, 1, 1))
    with pytest.raises(ValueError, match=r"order_z must be 0, 1, 2, 3, 4 or 5, got 7"):
        grnn.resample_gpuresample(x, (4, 4, 5), (1, 1, 1), (1, 1, 1), order_z=7)
    with pytest.raises(ValueError, match=r"new_shape must be 3 whole numbers"):
        grnn.resample_gpuresample(x, (0, 4, 5), (1, 1, 1), (1, 1, 1))


def test_an_older_batchgenerators_gets_its_own_rule(monkeypatch):
    monkeypatch.setattr(grnn, "_largest_wins", lambda: False)
    labels = np.random.default_rng(0).integers(0, 4, (1, 6, 7, 8)).astype(np.float32)
    arguments = (labels, (9, 5, 8), (1, 1, 1), (1, 1, 1), True, 1)
    with pytest.warns(RuntimeWarning, match="another rule for label maps; nnU-Net's own function does it"):
        ours = grnn.resample_gpuresample(*arguments)
    np.testing.assert_array_equal(ours, default_resampling.resample_data_or_seg_to_shape(*arguments))


# --- installation ----------------------------------------------------------------------------------------------------


def state():
    import nnunetv2.inference.predict_from_raw_data as predict

    return [
        getattr(module, name, None)
        for module, name in (
            (default_resampling, DEFAULT),
            (default_resampling, "resample_gpuresample"),
            (export_prediction, "export_prediction_from_logits"),
            (export_prediction, "convert_predicted_logits_to_segmentation_with_correct_shape"),
            (predict, "export_prediction_from_logits"),
            (predict, "convert_predicted_logits_to_segmentation_with_correct_shape"),
        )
    ]


def test_install_is_found_by_name_and_reverts():
    before = state()
    with pytest.raises(RuntimeError, match="Unable to find resampling function named 'resample_gpuresample'"):
        recursive_find_resampling_fn_by_name("resample_gpuresample")
    done = grnn.install(defaults=True)
    assert recursive_find_resampling_fn_by_name("resample_gpuresample") is grnn.resample_gpuresample
    assert recursive_find_resampling_fn_by_name(DEFAULT) is grnn.resample_gpuresample
    assert all(a is not b for a, b in zip(state(), before, strict=True))
    with grnn.install():  # within another: changes nothing, and takes nothing away
        pass
    assert recursive_find_resampling_fn_by_name("resample_gpuresample") is grnn.resample_gpuresample
    done.revert()
    assert state() == before
    done.revert()
    assert state() == before


# --- export ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ensemble(monkeypatch):
    """`gr.ensemble` as the hook calls it, its calls counted."""
    calls = []

    def counted(logits, **keywords):
        calls.append(keywords)
        return gr.ensemble(logits, **keywords)

    monkeypatch.setattr(grnn, "ensemble", counted)
    return calls


def logits_for(case, manager, dataset, seed=0):
    """Scores on the network's grid that follow the image, and the properties that preprocessing leaves."""
    data, _, properties = preprocessed(case, manager)
    smooth = torch.from_numpy(data)
    channels = 3 if dataset is REGIONS else 4
    rng = np.random.default_rng(seed)
    centres = np.linspace(-1, 2, channels)
    scores = torch.cat([2 - 3 * (smooth - c) ** 2 for c in centres])
    return scores + 0.1 * torch.from_numpy(rng.standard_normal(scores.shape).astype(np.float32)), properties


def exported(manager, dataset, logits, properties, out, **keywords):
    configuration = manager.get_configuration("3d_fullres")
    export_prediction.export_prediction_from_logits(
        logits, properties, configuration, manager, dataset, str(out), num_threads_torch=1, **keywords
    )
    return sitk.ReadImage(str(out) + ".nii.gz")


@pytest.mark.parametrize("dataset", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_scores_become_the_label_file_that_nnunet_writes(case, ensemble, tmp_path, dataset, transpose):
    manager = plans([case[2][k] for k in transpose], transpose=transpose)
    logits, properties = logits_for(case, manager, dataset)
    theirs = exported(manager, dataset, logits, properties, tmp_path / "theirs")
    assert not ensemble
    with grnn.install():
        ours = exported(manager, dataset, logits, properties, tmp_path / "ours")
    assert len(ensemble) == 1
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelIDTypeAsString"):
        assert getattr(ours, name)() == getattr(theirs, name)()
    a, b = sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs)
    assert len(np.unique(b)) == 4
    # Where two classes weigh the same but for float32's last bits, either may win.
    assert (a != b).mean() <= 1e-5


def test_probabilities_come_along(case, ensemble, tmp_path):
    manager = plans(case[2])
    logits, properties = logits_for(case, manager, LABELS)
    theirs = exported(manager, LABELS, logits, properties, tmp_path / "theirs", save_probabilities=True)
    with grnn.install():
        ours = exported(manager, LABELS, logits, properties, tmp_path / "ours", save_probabilities=True)
    assert (sitk.GetArrayFromImage(ours) != sitk.GetArrayFromImage(theirs)).mean() <= 1e-5
    a, b = (np.load(tmp_path / f"{name}.npz")["probabilities"] for name in ("ours", "theirs"))
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_the_crop_is_undone(read, ensemble, tmp_path):
    values = np.zeros((40, 44, 36), np.float32)
    values[6:33, 9:40, 4:30] = sitk.GetArrayFromImage(read("MNI152_2009_template.nii.gz", (60, 90, 70), (26, 31, 27)))
    image = sitk.GetImageFromArray(values)
    label = sitk.GetImageFromArray((values > 5000).astype(np.uint8))
    paths = [str(tmp_path / name) for name in ("case_0000.nii.gz", "case.nii.gz")]
    sitk.WriteImage(image, paths[0])
    sitk.WriteImage(label, paths[1])
    case, manager = (*paths, (1.2, 1.2, 1.2)), plans((1.2, 1.2, 1.2))
    logits, properties = logits_for(case, manager, LABELS)
    assert tuple(properties["shape_after_cropping_and_before_resampling"]) != values.shape
    theirs = exported(manager, LABELS, logits, properties, tmp_path / "theirs")
    with grnn.install():
        ours = exported(manager, LABELS, logits, properties, tmp_path / "ours")
    assert (sitk.GetArrayFromImage(ours) != sitk.GetArrayFromImage(theirs)).mean() <= 1e-5


def test_plans_that_ask_for_more_than_linear_go_to_nnunet(case, ensemble, tmp_path):
    manager = plans(case[2], order=3)
    logits, properties = logits_for(case, manager, LABELS)
    theirs = exported(manager, LABELS, logits, properties, tmp_path / "theirs")
    with grnn.install(), pytest.warns(RuntimeWarning, match="do not interpolate scores linearly; nnU-Net's own"):
        ours = exported(manager, LABELS, logits, properties, tmp_path / "ours")
    assert not ensemble
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))


def where_it_is_from(_):
    return [grnn.export_prediction_from_logits.__module__, grnn._EXPORT.__module__]


def test_spawned_exporters_use_the_hook():
    """nnU-Net sends the export function to spawned processes by its name: ours arrives there, and brings the hook."""
    import pickle

    with grnn.install():
        sent = pickle.dumps(export_prediction.export_prediction_from_logits)
    assert b"gpuresample.nnunet" in sent
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(where_it_is_from, [0]) == [["gpuresample.nnunet", "nnunetv2.inference.export_prediction"]]


def test_the_plans_can_be_written_down():
    with grnn.install():
        manager = plans((1, 1, 1), "resample_gpuresample")
        again = PlansManager(json.loads(json.dumps(manager.plans)))
        assert again.get_configuration("3d_fullres").resampling_fn_seg.func is grnn.resample_gpuresample


# --- other calls, types and readers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize(
    ("order", "separate", "order_z"), [(1, False, 0), (0, False, 0), (1, True, 0), (1, True, 1), (3, False, 0)]
)
def test_label_maps_of_every_type(dtype, order, separate, order_z):
    labels = np.random.default_rng(0).integers(0, 5, (2, 6, 11, 12)).astype(dtype)
    arguments = (labels, (8, 13, 9), (3, 1, 1), (2, 0.8, 1.4), True, order, order_z, separate)
    theirs = default_resampling.resample_data_or_seg_to_shape(*arguments)
    ours = grnn.resample_gpuresample(*arguments)
    assert ours.dtype == theirs.dtype == labels.dtype
    assert (ours != theirs).mean() <= 2e-3


def weights_of(labels, size, at):
    """What every label weighs at a voxel of another size by linear interpolation: as fractions, without rounding."""
    near = []
    for n, m, k in zip(labels.shape, size, at, strict=True):
        x = Fraction(2 * int(k) + 1, 2) * Fraction(n, m) - Fraction(1, 2)
        low = math.floor(x)
        near.append([(min(max(low, 0), n - 1), low + 1 - x), (min(low + 1, n - 1), x - low)])
    total = Counter()
    for corner in itertools.product(*near):
        total[labels[tuple(k for k, _ in corner)]] += math.prod(w for _, w in corner)
    return total


@pytest.mark.parametrize(
    ("shape", "size"), [((9, 7, 3), (13, 12, 10)), ((4, 5, 6), (13, 7, 10)), ((8, 6, 8), (9, 8, 11))]
)
@pytest.mark.parametrize("dtype", [np.uint64, np.int64, np.uint32, np.uint8])
def test_labels_differ_at_exact_ties_alone(shape, size, dtype):
    labels = np.random.default_rng(9).integers(0, 5, shape).astype(dtype)
    words = ([1.0] * 3, [0.7] * 3, True, 1)
    ours = grnn.resample_gpuresample(labels[None], size, *words)[0]
    theirs = default_resampling.resample_data_or_seg_to_shape(labels[None], size, *words)[0]
    differ = np.argwhere(ours != theirs)
    assert len(differ) < 0.01 * ours.size
    for at in differ:
        total = weights_of(labels, size, at)
        assert total[ours[tuple(at)]] == total[theirs[tuple(at)]] == max(total.values())


def test_labels_beyond_floats_stay_themselves():
    labels = np.full((1, 4, 4, 4), 2**53 + 1, np.int64)
    labels[:, 2:] = 2**40 + 1
    assert set(np.unique(grnn.resample_gpuresample(labels, (6, 7, 8), (1, 1, 1), (1, 1, 1), True, 1))) == {
        2**53 + 1,
        2**40 + 1,
    }


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (2.0, 0.7, 1.3), (5.0, 1.0, 1.0), (1.0, 1.0, 6.0), (0.5, 0.5, 0.5), (3.0, 3.0, 1.0)]
)
@pytest.mark.parametrize("is_seg", [False, True])
def test_to_a_spacing_is_nnunets(spacing, is_seg):
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 4, (1, 7, 12, 11)) if is_seg else rng.standard_normal((1, 7, 12, 11))).astype(np.float32)
    arguments = (data, spacing, (1.1, 0.9, 1.2), is_seg, 1 if is_seg else 3, 0, None)
    theirs = default_resampling.resample_data_or_seg_to_spacing(*arguments)
    with grnn.install(defaults=True):
        ours = default_resampling.resample_data_or_seg_to_spacing(*arguments)
    assert ours.shape == theirs.shape
    if is_seg:
        assert (ours != theirs).mean() <= 0.01  # ties, of few voxels
    else:
        assert np.abs(ours - theirs).max() <= 2 * SINGLE * float(np.ptp(data))


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 6.0, 1.0), (1.0, 1.0, 6.0), (2.0, 2.0, 1.0), (0.5, 1.0, 1.0)]
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_by_torch_is_nnunets(spacing, kind):
    from nnunetv2.preprocessing.resampling import resample_torch

    data = kind(np.random.default_rng(0).standard_normal((2, 7, 12, 11)).astype(np.float32))
    arguments = (data, (9, 8, 17), spacing, (1.0, 1.0, 1.0))
    theirs = resample_torch.resample_torch_fornnunet(*arguments)
    with grnn.install(defaults=True):
        assert recursive_find_resampling_fn_by_name("resample_torch_fornnunet") is grnn.resample_torch_fornnunet
        ours = resample_torch.resample_torch_fornnunet(*arguments)
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    assert float(abs(ours - theirs).max()) <= 3e-6 * float(data.max() - data.min())


def test_label_maps_by_torch_are_nnunets_own():
    data = np.random.default_rng(0).integers(0, 3, (1, 5, 6, 7)).astype(np.float32)
    arguments = (data, (9, 8, 7), (1, 1, 1), (1, 1, 1), True)
    theirs = grnn._RESAMPLE_TORCH(*arguments)
    with pytest.warns(RuntimeWarning, match="label maps by torch; nnU-Net's own function does it"):
        np.testing.assert_array_equal(grnn.resample_torch_fornnunet(*arguments), theirs)


@pytest.mark.parametrize("turn", [(-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1), (1, 1, -1)])
@pytest.mark.parametrize("dataset", [LABELS, REGIONS], ids=["labels", "regions"])
def test_the_command_line_lays_exported_scores_where_nnunet_does(tmp_path, run, turn, dataset):
    """Through nnU-Net's own reader that turns images to RAS, its own export and its own label file."""
    values = np.random.default_rng(0).standard_normal((10, 12, 14)).astype(np.float32)
    image = sitk.GetImageFromArray(
        sitk.GetArrayFromImage(sitk.DiscreteGaussian(sitk.GetImageFromArray(values), 2.0)) * 8
    )
    image.SetSpacing((1.0, 1.2, 1.5))
    image.SetOrigin((7, -3, 11))
    image.SetDirection(np.diag(turn).astype(float).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "case_0000.nii.gz"))
    sitk.WriteImage(sitk.Cast(image > 0, sitk.sitkUInt8), str(tmp_path / "case.nii.gz"))
    manager = plans((1.2, 1.1, 1.3))
    manager.plans["image_reader_writer"] = "NibabelIOWithReorient"
    case = (str(tmp_path / "case_0000.nii.gz"), str(tmp_path / "case.nii.gz"), None)
    logits, properties = logits_for(case, manager, dataset)
    theirs = exported(manager, dataset, logits, properties, tmp_path / "theirs", save_probabilities=True)
    words = [
        "ensemble",
        str(tmp_path / "theirs.npz"),
        "--like",
        case[0],
        "-o",
        str(tmp_path / "ours.nii.gz"),
        "--no-picture",
    ]
    if dataset is REGIONS:
        words += ["--regions", *map(str, REGIONS["regions_class_order"])]
    assert run(*words)[0] == 0
    ours = sitk.ReadImage(str(tmp_path / "ours.nii.gz"))
    a, b = sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs)
    assert len(np.unique(b)) > 2
    assert (a != b).mean() <= 1e-3
