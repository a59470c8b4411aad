"""From grids to work: which kind, in what order, what is kept."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from support import flat, path_of, rotation

import gpuresample as gr
from gpuresample.planning import planner
from gpuresample.planning.filters import FILTERS
from gpuresample.planning.works import Gather, Separable

SOURCE = gr.Grid((20, 18, 16), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), flat(rotation(0, 0, 0)))
COARSE = gr.Grid((10, 12, 8), (2.0, 1.5, 2.0), (0.0, 0.0, 0.0), SOURCE.direction)
TURNED = gr.Grid((10, 12, 8), (2.0, 1.5, 2.0), (3.0, 0.0, 1.0), flat(rotation(10, 5, 3)))


def make(target=COARSE, interpolation="bspline3", transform=None, boundary=None, antialias=False, precision="single"):
    moved = () if transform is None else (path_of(transform),)
    return planner.make_work(SOURCE, target, moved, interpolation, boundary, antialias, precision)


@pytest.mark.parametrize("name", FILTERS)
def test_aligned_grids_are_tables_unless_labels_vote(name):
    assert isinstance(make(interpolation=name), Gather if FILTERS[name].method == "vote" else Separable)


@pytest.mark.parametrize("name", FILTERS)
def test_turned_grids_gather(name):
    assert isinstance(make(TURNED, name), Gather)


def test_deforming_transforms_gather():
    field = sitk.DisplacementFieldTransform(sitk.Image((20, 18, 16), sitk.sitkVectorFloat64))
    assert isinstance(make(transform=field), Gather)


def test_axes_that_stay_are_left_out():
    same = gr.Grid((20, 9, 16), (1.0, 2.0, 1.0), (0.0, 0.0, 0.0), SOURCE.direction)
    assert make(same).order == (1,)
    assert make(SOURCE).order == ()
    assert make(SOURCE).copies


def test_nearest_copies():
    assert make(interpolation="nearest").copies
    assert not make(interpolation="linear").copies


@pytest.mark.parametrize("target", [COARSE, gr.Grid((40, 30, 50), (0.5, 0.6, 0.32), (0.0,) * 3, SOURCE.direction)])
def test_no_allowed_order_is_cheaper(target):
    work = make(target)
    best = planner.pass_cost(work.tables, work.order)
    for order in itertools.permutations(range(3)):
        if order[0] != 2:
            assert best <= planner.pass_cost(work.tables, order)
    assert set(work.order) == {0, 1, 2}


def test_shrinking_axes_come_before_growing_ones():
    target = gr.Grid((20, 72, 4), (1.0, 0.25, 4.0), (0.0,) * 3, SOURCE.direction)
    assert make(target).order == (0, 1)


def test_same_arguments_same_work():
    assert make() is make()
    assert make() is not make(interpolation="bspline2")
    assert make() is not make(boundary="mirror")
    assert make() is not make(antialias=True)
    assert make() is not make(precision="double")


def test_equal_transforms_share_their_work():
    a, b = (sitk.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3, (1.0, 2.0, 3.0)) for _ in range(2))
    assert make(transform=a) is make(transform=b)
    b.SetTranslation((1.0, 2.0, 4.0))
    assert make(transform=a) is not make(transform=b)


def test_a_transform_that_changed_after_planning_is_planned_anew():
    transform = sitk.TranslationTransform(3, (0.0, 0.0, 0.0))
    before = make(transform=transform)
    transform.SetOffset((0.25, 0.0, 0.0))
    assert make(transform=transform) is not before


@pytest.mark.parametrize(
    ("name", "prefilters"), [("linear", False), ("bspline1", False), ("bspline2", True), ("lanczos", False)]
)
def test_gathers_prefilter_what_needs_it(name, prefilters):
    assert (make(TURNED, name).prefilter is not None) is prefilters


def test_gathers_prefilter_for_a_blur():
    assert make(TURNED, "linear", antialias=True).prefilter is not None


@pytest.mark.parametrize(
    ("name", "precision"), [("bspline3", "single"), ("bspline4", "double"), ("bspline5", "double")]
)
def test_high_orders_gather_in_double(name, precision):
    # Their coefficients swing 20 to 60 times as far as the voxels.
    assert make(TURNED, name).precision == precision


@pytest.mark.parametrize(("step", "sigma"), [(0.5, 0.0), (1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (4.5, 1.75)])
def test_antialias_sigma(step, sigma):
    target = gr.Grid((4, 18, 16), (step, 1.0, 1.0), (0.0,) * 3, SOURCE.direction)
    explicit = make(target, antialias=(sigma, 0.0, 0.0))
    automatic = make(target, antialias=True)
    for a, b in zip(explicit.tables, automatic.tables, strict=True):
        np.testing.assert_allclose(a.dense(), b.dense(), atol=1e-12)


def test_antialias_of_a_permuted_grid_blurs_the_source_axis_that_shrinks():
    direction = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # output x runs along input y
    target = gr.Grid((6, 20, 16), (3.0, 1.0, 1.0), (0.0,) * 3, direction)
    z, y, x = make(target, "linear", antialias=True).tables
    assert z.is_identity
    assert x.is_identity
    assert y.n_taps > 2


@pytest.mark.parametrize(("name", "reach"), [("linear", 0), ("bspline3", 1), ("nearest", 0)])
def test_input_region_holds_the_support(name, reach):
    work = make(interpolation=name)
    (z0, z1), (y0, y1), (x0, x1) = planner.input_region(work, ((2, 3), (4, 5), (5, 6)))
    # Voxel (2, 4, 5) samples (4, 6, 10), all on voxels: a copy.
    assert (z0, z1, y0, y1, x0, x1) == (4, 5, 6, 7, 10, 11)
    off = gr.Grid((10, 12, 8), (2.0, 1.5, 2.0), (0.5, 0.5, 0.5), SOURCE.direction)
    region = planner.input_region(make(off, name), ((2, 3), (4, 5), (5, 6)))
    for (lo, hi), x in zip(region, (4.5, 6.5, 10.5), strict=True):
        if name == "nearest":
            assert (lo, hi) == (x + 0.5, x + 1.5)
        else:
            assert lo <= np.floor(x) - reach
            assert hi >= np.floor(x) + 2 + reach


def test_blocks_outside_need_one_voxel():
    far = gr.Grid((10, 12, 8), (2.0, 1.5, 2.0), (500.0, 0.0, 0.0), SOURCE.direction)
    for lo, hi in planner.input_region(make(far), ((0, 8), (0, 12), (0, 10))):
        assert hi > lo


def test_work_is_read_only():
    work = make()
    with pytest.raises(AttributeError):
        work.order = ()
    assert not any(t.weight.flags.writeable for t in work.tables)


def test_a_2d_work_has_a_z_of_one():
    source = gr.Grid((20, 18), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    target = gr.Grid((10, 9), (2.0, 2.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    work = planner.make_work(source, target, (), "linear", None, False, "single")
    assert work.n_dst == (1, 9, 10)
    assert work.tables[0].is_identity


@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("distance", [1e3, 1e7, 1e12])
def test_the_region_of_a_far_turned_grid_is_found_at_once(boundary, distance):
    far = gr.Grid((10, 12, 8), (2.0, 1.5, 2.0), (distance, -distance, 0.0), TURNED.direction)
    work = make(far, "bspline3", boundary=boundary)
    for lo_hi, n in zip(planner.input_region(work, ((0, 4), (2, 9), (1, 10))), (16, 18, 20), strict=True):
        assert 0 <= lo_hi[0] < lo_hi[1] <= n


@pytest.mark.parametrize("name", ["label_linear", "label_gaussian"])
@pytest.mark.parametrize("boundary", [None, "nearest", "mirror", "constant"])
@pytest.mark.parametrize("distance", [1e16, -1e30, 1e200])
def test_votes_too_far_to_tell_voxels_apart_are_refused(name, boundary, distance):
    with pytest.raises(ValueError, match="float64 can tell neighbouring voxels apart"):
        make(COARSE, name, sitk.TranslationTransform(3, [distance, 0, 0]), boundary)
