"""Kernels whose arguments are mostly put side by side once, and copies that become another type as they are made."""

import numpy as np
import pytest
from support import rotation

import gpuresample as gr
from gpuresample.engines.cpu import engine, gather
from gpuresample.engines.cpu import path_kernels as kernels
from gpuresample.engines.cpu.jit import VARIES, Prepared


def given():
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(n) for n in ((3, 3), (3,), (3, 3), (3,), (3, 3), (3,)))


def ends_of(call, z, y):
    ends = np.zeros((4, 2, 3))
    call(z, y, 2, ends)
    return ends


def test_a_prepared_call_gives_what_the_call_gives():
    fixed = (*given(), 7)
    prepared = Prepared(kernels.row_ends, (*fixed, *[VARIES] * 4))
    for z, y in ((0, 0), (3, 1), (5, 2), (0, 9)):  # the first two are usual calls
        np.testing.assert_array_equal(ends_of(prepared, z, y), ends_of(lambda *a: kernels.row_ends(*fixed, *a), z, y))
    assert prepared._quick[1] is not None


def test_what_varies_may_stand_first_last_and_alone():
    step, origin, matrix, offset, inverse, origin_in = given()
    first = Prepared(kernels.row_ends, (VARIES, origin, VARIES, offset, inverse, VARIES, 7, 1, 2, 2, VARIES))
    for _ in range(4):
        a, b = np.zeros((4, 2, 3)), np.zeros((4, 2, 3))
        first(step, matrix, origin_in, a)
        kernels.row_ends(step, origin, matrix, offset, inverse, origin_in, 7, 1, 2, 2, b)
        np.testing.assert_array_equal(a, b)
        step, matrix, origin_in = step + 1, matrix * 2, origin_in - 3


def test_a_prepared_kernel_takes_other_types_as_the_kernel_does():
    prepared = Prepared(kernels.row_ends, (*given(), 7, *[VARIES] * 4))
    wanted = ends_of(prepared, 1, 2)
    ends_of(prepared, 1, 2)
    np.testing.assert_array_equal(ends_of(prepared, np.int64(1), 2), wanted)
    wide = np.zeros((4, 2, 6))[:, :, ::2]  # not in C order
    prepared(1, 2, 2, wide)
    np.testing.assert_array_equal(wide, wanted)
    with pytest.raises(ValueError, match="argument"):
        prepared(1, 2)


@pytest.mark.parametrize("label", [np.uint8, np.int16])
@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror"])
def test_labels_become_floats_as_they_are_copied(monkeypatch, label, boundary):
    labels = np.random.default_rng(1).integers(0, 100, (9, 10, 11)).astype(label)
    turn = gr.Affine(np.reshape(rotation(17, 11, -23), (3, 3)), (1.5, -2.0, 0.7))
    asked = {"transform": turn, "interpolation": "nearest", "boundary": boundary, "size": (13, 12, 14)}
    wanted = gr.resample(labels, **asked, device="cpu")
    monkeypatch.setattr(engine, "converted", None)  # which would make a volume of floats first
    found = gr.resample(labels, **asked, dtype=np.float32, device="cpu")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "label_linear"])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_one_block_has_the_bits_of_many(monkeypatch, interpolation, channels):
    image = (np.random.default_rng(0).random((*channels, 13, 14, 15)) * 9).astype(np.int16)
    matrix = np.hstack([rotation(20, 15, 10), [[1.0], [2.0], [0.5]]])

    def result():
        return gr.resample(image, size=(23, 24, 25), transform=matrix,
                           interpolation=interpolation, dtype=np.float32)  # fmt: skip

    seen = {}
    for alone in (0, gather.ALONE, 1 << 40):
        monkeypatch.setattr(gather, "ALONE", alone)
        gr.clear_caches()
        for k in range(4):  # what comes again is made ready
            gr.set_num_threads(1 + k % 2)
            seen[alone, k] = result().tobytes()
    assert len(set(seen.values())) == 1
    gr.set_num_threads(None)
