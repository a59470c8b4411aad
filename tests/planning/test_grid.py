"""Geometry: sizes, anchors, and where voxels lie, to the bit."""

import itertools

import naive
import numpy as np
import pytest
import route_oracle
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from support import flat, of_grid, path_of, rotation, to_image

import gpuresample as gr
from gpuresample.planning import grid as grids
from gpuresample.planning import maps, taps
from gpuresample.planning.transforms import route

EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
OBLIQUE = rotation(11, -7, 23)


def grid(size, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=EYE):
    return gr.Grid(size, spacing, origin, direction)


def signed_permutations():
    """The 48 directions along the axes."""
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            yield axes, signs, matrix


# --- size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "old", "new", "expected"),
    [
        (245, 1.0, 2.0, 122),  # 122.5 to the even one
        (247, 1.0, 2.0, 124),  # 123.5 to the even one
        (512, 0.78125, 1.0, 400),
        (1, 1.0, 2.0, 1),  # 0.5 would be 0: at least 1
        (3, 1.0, 100.0, 1),
        (5, 1.0, 2.0, 2),  # 2.5
        (7, 1.0, 2.0, 4),  # 3.5
        (10, 1.0, 0.3, 33),
    ],
)
def test_size_rounds_half_to_even(n, old, new, expected):
    g = grids.resized(grid((n, 1, 1), (old, 1.0, 1.0)), spacing=(new, 1.0, 1.0))
    assert g.size == (expected, 1, 1)
    assert g.spacing == (new, 1.0, 1.0)


@given(st.integers(1, 700), st.floats(0.1, 8), st.floats(0.1, 8))
def test_size_is_the_recipes(n, old, new):
    g = grids.resized(grid((n, 4, 4), (old, 1.0, 1.0)), spacing=(new, 1.0, 1.0))
    assert g.size[0] == max(1, int(np.round(n * old / new)))


# --- anchors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2**21 - 1, 2**21 + 1, 2**24 + 3, 2**30 + 1])
def test_long_axes_keep_their_voxels(n):
    """Near a half is never near a whole number."""
    g = grids.resized(grid((n, 1, 1), (0.7, 1.0, 1.0)), spacing=(0.7, 1.0, 1.0))
    assert g.size[0] == n


@pytest.mark.parametrize("direction", [EYE, flat(OBLIQUE)], ids=["along", "oblique"])
def test_first_keeps_the_first_voxel(direction):
    g = grid((10, 11, 12), (1, 2, 3), (-5, 6, 7), direction)
    h = grids.resized(g, size=(5, 20, 7), anchor="first")
    assert h.origin == g.origin
    assert h.direction == g.direction
    assert h.spacing == (10 * 1 / 5, 11 * 2 / 20, 12 * 3 / 7)


@pytest.mark.parametrize("direction", [EYE, flat(OBLIQUE)], ids=["along", "oblique"])
def test_edge_keeps_the_outer_faces(direction):
    g = grid((10, 11, 12), (1, 2, 3), (-5, 6, 7), direction)
    h = grids.resized(g, size=(5, 20, 7), anchor="edge")
    for corner in itertools.product((0, 1), repeat=3):
        ends = [np.array([[c * n - 0.5 for c, n in zip(corner, k.size, strict=True)]]) for k in (g, h)]
        np.testing.assert_allclose(g.points(ends[0]), h.points(ends[1]), atol=1e-12)


@pytest.mark.parametrize("direction", [EYE, flat(OBLIQUE)], ids=["along", "oblique"])
def test_center_keeps_the_corner_voxels(direction):
    g = grid((10, 11, 12), (1, 2, 3), (-5, 6, 7), direction)
    h = grids.resized(g, size=(5, 20, 7), anchor="center")
    for corner in itertools.product((0, 1), repeat=3):
        ends = [np.array([[c * (n - 1.0) for c, n in zip(corner, k.size, strict=True)]]) for k in (g, h)]
        np.testing.assert_allclose(g.points(ends[0]), h.points(ends[1]), atol=1e-12)


def test_edge_with_spacing_keeps_the_first_face():
    g = grid((10, 10, 10), (1, 1, 1), (0, 0, 0))
    h = grids.resized(g, spacing=(2, 0.5, 3), anchor="edge")
    assert h.size == (5, 20, 3)
    assert h.spacing == (2.0, 0.5, 3.0)
    assert h.origin == (0.5, -0.25, 1.0)


def test_center_with_spacing_takes_only_the_size_from_it():
    h = grids.resized(grid((11, 11, 11)), spacing=(2, 0.5, 1), anchor="center")
    assert h.size == (6, 22, 11)  # 5.5 to the even one
    assert h.spacing == (10 / 5, 10 / 21, 1.0)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1), (2, 2)])
@pytest.mark.parametrize("anchor", grids.ANCHORS)
def test_axes_of_one_voxel_stay_sound(anchor, n, m):
    g = grid((n, 4, 4), (2.0, 1.0, 1.0))
    h = grids.resized(g, size=(m, 4, 4), anchor=anchor)
    assert h.size == (m, 4, 4)
    assert h.spacing[0] > 0
    x = maps.map_indices(h, g).x[0]
    # Every sample of an axis that keeps its extent lies inside, but for "first" and its last voxels.
    if anchor != "first":
        assert taps.inside(x, n, None).all()


@pytest.mark.parametrize(("n", "m"), [(10, 20), (20, 7), (9, 9), (6, 35)])
def test_edge_is_the_half_pixel_rule(n, m):
    g = grid((n, 1, 1), (0.7, 1.0, 1.0))
    x = maps.map_indices(grids.resized(g, size=(m, 1, 1), anchor="edge"), g).x[0]
    np.testing.assert_allclose(x, (np.arange(m) + 0.5) * n / m - 0.5, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(10, 20), (20, 7), (9, 9), (6, 35)])
def test_center_is_scipys_zoom(n, m):
    # SciPy's zoom of a ramp, order 1, tells its coordinates.
    expected = ndimage.zoom(np.arange(n, dtype=float), m / n, order=1)
    assert expected.size == m
    g = grid((n, 1, 1))
    x = maps.map_indices(grids.resized(g, size=(m, 1, 1), anchor="center"), g).x[0]
    np.testing.assert_allclose(x, expected, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(10, 20), (20, 8)])
def test_edge_is_scipys_zoom_in_grid_mode(n, m):
    expected = ndimage.zoom(np.arange(n, dtype=float), m / n, order=1, grid_mode=True, mode="nearest")
    g = grid((n, 1, 1))
    x = maps.map_indices(grids.resized(g, size=(m, 1, 1), anchor="edge"), g).x[0]
    np.testing.assert_allclose(np.clip(x, 0, n - 1), expected, atol=1e-12)


@given(
    n=st.tuples(*[st.integers(1, 60)] * 3),
    m=st.tuples(*[st.integers(1, 60)] * 3),
    spacing=st.tuples(*[st.floats(0.05, 9)] * 3),
    angle=st.tuples(*[st.integers(-180, 180)] * 3),
)
def test_edge_keeps_extent_and_centre(n, m, spacing, angle):
    g = grid(n, spacing, (1.0, -20.0, 300.0), flat(rotation(*angle)))
    h = grids.resized(g, size=m, anchor="edge")
    np.testing.assert_allclose(grids.extent(h), grids.extent(g), rtol=1e-12)
    centre = [k.points((np.array([k.size]) - 1) / 2) for k in (g, h)]
    np.testing.assert_allclose(centre[0], centre[1], atol=1e-9)


# --- coordinates -------------------------------------------------------------------------------------------------


@given(
    spacing=st.tuples(*[st.floats(0.05, 9)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    angle=st.tuples(*[st.integers(-180, 180)] * 3),
    index=st.tuples(*[st.floats(-50, 500)] * 3),
)
def test_index_and_point_are_inverse(spacing, origin, angle, index):
    g = grid((5, 6, 7), spacing, origin, flat(rotation(*angle)))
    there = g.points(np.array([index]))
    np.testing.assert_allclose(g.indices(there)[0], index, atol=1e-8)


@pytest.mark.parametrize("direction", [EYE, flat(OBLIQUE)], ids=["along", "oblique"])
def test_points_and_indices_are_simpleitks_to_the_bit(direction):
    g = grid((9, 8, 7), (0.7, 0.9, 1.3), (-120.7, 33.3, 17.17), direction)
    image = sitk.Image(g.size, sitk.sitkUInt8)
    image.SetSpacing(g.spacing)
    image.SetOrigin(g.origin)
    image.SetDirection(g.direction)
    for index in [(0, 0, 0), (8, 7, 6), (3, 1, 5)]:
        point = image.TransformIndexToPhysicalPoint(index)
        assert tuple(g.points(np.array([index], dtype=float))[0]) == point
        assert tuple(g.indices(np.array([point]))[0]) == image.TransformPhysicalPointToContinuousIndex(point)


def read_out(source, target, transform=None):
    """SimpleITK's own coordinates: ramps resampled linearly give x back to the bit; NaN outside."""
    n_x, n_y, n_z = source.size
    ramps = np.meshgrid(np.arange(n_z), np.arange(n_y), np.arange(n_x), indexing="ij")[::-1]
    out = []
    for ramp in ramps:
        image = to_image(ramp.astype(np.float64), of_grid(source))
        filter_ = sitk.ResampleImageFilter()
        filter_.SetSize(target.size)
        filter_.SetOutputSpacing(target.spacing)
        filter_.SetOutputOrigin(target.origin)
        filter_.SetOutputDirection(target.direction)
        filter_.SetDefaultPixelValue(np.nan)
        if transform is not None:
            filter_.SetTransform(transform)
        out.append(sitk.GetArrayFromImage(filter_.Execute(image)))
    return np.stack(out, axis=-1)


def ours(source, target, transform=None):
    """Our coordinates of every voxel, [z, y, x, 3]."""
    moved = None if transform is None else path_of(transform)
    where = maps.map_indices(target, source, moved)
    n_x, n_y, n_z = target.size
    if where is None:
        return route_oracle.coordinates(route(target, source, moved), (n_z, n_y, n_x))
    out = np.empty((n_z, n_y, n_x, 3))
    for axis, x in enumerate(where.x):
        shape = [1, 1, 1]
        shape[2 - axis] = x.size
        out[..., where.source_axis[axis]] = x.reshape(shape)
    return out


def assert_same_coordinates(source, target, bound, transform=None):
    expected, got = read_out(source, target, transform), ours(source, target, transform)
    inside = ~np.isnan(expected)
    # In the rim linear interpolation clamps, so there the ramp does not tell the coordinate.
    told = inside.all(axis=-1) & (got >= 0).all(axis=-1) & (got <= np.array(source.size) - 1).all(axis=-1)
    assert told.sum() > 20
    error = np.abs(expected - got)[told]
    assert error.max() <= bound
    # The inside mask is exact in any case.
    assert (inside[..., 0] == np.all((got >= -0.5) & (got < np.array(source.size) - 0.5), axis=-1)).all()


def scale_about(centre, factors):
    transform = sitk.ScaleTransform(3, factors)
    transform.SetCenter(centre)
    return transform


SOURCE = grid((11, 9, 10), (0.7, 0.9, 1.3), (-120.7, 33.3, 17.17))


@pytest.mark.parametrize(
    "target",
    [
        grid((23, 12, 9), (0.35, 0.7, 1.5), (-120.7, 33.3, 17.17)),
        grid((7, 8, 12), (1.1, 1.3, 0.77), (-121.3, 32.1, 16.0)),
        grid((12, 9, 10), (0.6, 0.9, 1.3), (-113.9, 41.0, 17.17), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)),
    ],
    ids=["finer", "shifted", "flipped"],
)
def test_coordinates_along_the_axes_are_simpleitks_to_the_bit(target):
    assert maps.map_indices(target, SOURCE) is not None
    assert_same_coordinates(SOURCE, target, 0.0)


@pytest.mark.parametrize(
    "transform",
    [
        sitk.TranslationTransform(3, (0.31, -0.77, 1.13)),
        scale_about((-117.0, 36.0, 22.0), (1.1, 0.93, 1.07)),
        sitk.CompositeTransform(
            [sitk.TranslationTransform(3, (0.1, 0.2, 0.3)), sitk.TranslationTransform(3, (0.21, -0.4, 0.05))]
        ),
    ],
    ids=["translation", "scale", "composite"],
)
def test_coordinates_through_transforms_along_the_axes_are_simpleitks_to_the_bit(transform):
    target = grid((19, 12, 9), (0.41, 0.7, 1.2), (-120.7, 33.3, 17.17))
    assert maps.map_indices(target, SOURCE, path_of(transform)) is not None
    assert_same_coordinates(SOURCE, target, 0.0, transform)


def test_coordinates_of_oblique_grids_are_simpleitks_to_rounding():
    source = grid((11, 9, 10), (0.7, 0.9, 1.3), (-120.7, 33.3, 17.17), flat(rotation(-3, 5, 8)))
    target = grid((13, 12, 11), (0.6, 0.7, 1.1), (-120.0, 33.9, 18.0), flat(OBLIQUE))
    assert maps.map_indices(target, source) is None
    assert_same_coordinates(source, target, 1e-13)


def test_coordinates_through_an_euler_transform_are_simpleitks_to_rounding():
    transform = sitk.Euler3DTransform((-117.0, 36.0, 22.0), 0.1, -0.2, 0.15, (0.4, -0.3, 1.0))
    assert_same_coordinates(SOURCE, SOURCE, 1e-13, transform)


def test_coordinates_through_a_displacement_field_are_simpleitks_to_rounding():
    field = np.random.default_rng(5).uniform(-1, 1, (10, 9, 11, 3))
    transform = sitk.DisplacementFieldTransform(to_image(field, of_grid(SOURCE), vector=True))
    target = grid((13, 8, 9), (0.5, 0.8, 1.2), (-120.5, 33.6, 17.9))
    assert_same_coordinates(SOURCE, target, 1e-12, transform)


@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
def test_ties_at_half_the_spacing_fall_as_in_simpleitk(axis):
    """At half the spacing the last plane lies on the very face; round-off decides whether it is outside."""
    planes = {0: 0, 1: 0}
    rng = np.random.default_rng(8)
    cases = [(33, 0.7, -120.3)] + [
        (int(rng.integers(5, 80)), round(float(rng.uniform(0.3, 3)), 2), round(float(rng.uniform(-150, 150)), 1))
        for _ in range(60)
    ]
    for n, s, o in cases:
        size, spacing, origin, half = [2, 2, 2], [1.0] * 3, [0.0] * 3, [1.0] * 3
        size[axis], spacing[axis], origin[axis] = n, s, o
        half[axis] = s / 2
        g = grid(tuple(size), tuple(spacing), tuple(origin))
        h = grids.resized(g, spacing=tuple(half))
        image = to_image(np.ones(size[::-1], np.uint8), of_grid(g))
        expected = sitk.Resample(image, h.size, sitk.Transform(), sitk.sitkNearestNeighbor, h.origin, h.spacing)
        expected = sitk.GetArrayFromImage(expected).any(axis=tuple(k for k in range(3) if k != 2 - axis))
        x = maps.map_indices(h, g).x[axis]
        assert taps.inside(x, n, None).tolist() == expected.tolist(), (n, s, o)
        planes[int((~expected).sum())] += 1
    # Both ways of falling have been met, so the comparison is not idle.
    assert min(planes.values()) > 0


@pytest.mark.parametrize(
    ("n", "r", "planes"),
    [(32, 2.0, 0), (64, 1.28, 0), (31, 1.0, 0), (16, 0.5, 1), (16, 0.25, 2), (15, 0.2, 2), (11, 0.7, 1), (10, 0.9, 0)],
)
def test_default_planes_at_the_high_end(n, r, planes):
    g = grid((n, 2, 2))
    h = grids.resized(g, spacing=(r, 1, 1))
    x = maps.map_indices(h, g).x[0]
    assert (~taps.inside(x, n, None)).sum() == planes


@pytest.mark.parametrize(
    ("axes", "signs", "matrix"), list(signed_permutations()), ids=[f"{a}{s}" for a, s, _ in signed_permutations()]
)
def test_axes_that_are_swapped_or_flipped_stay_separable(axes, signs, matrix):
    source = grid((7, 8, 9), (0.7, 0.8, 0.9), (5.0, 6.0, 7.0), flat(OBLIQUE))
    # Both grids are oblique in space, but along each other's axes.
    target = grid((6, 5, 4), (1, 1.1, 1.2), (5.0, 6.0, 7.0), tuple((np.array(OBLIQUE) @ matrix).ravel().tolist()))
    where = maps.map_indices(target, source)
    assert where is not None
    assert where.source_axis == axes
    for j in range(3):
        step = target.spacing[j] / source.spacing[axes[j]] * signs[j]
        np.testing.assert_allclose(where.x[j], step * np.arange(target.size[j]), atol=1e-9)


@pytest.mark.parametrize("angles", [(1e-3, 0, 0), (0, 0, 0.05), (30, 0, 0), (45, 45, 45)])
def test_rotations_are_not_separable(angles):
    target = grid((20, 20, 20), direction=flat(rotation(*angles)))
    assert maps.map_indices(target, grid((20, 20, 20))) is None


def test_shears_are_not_separable():
    target = grid((20, 20, 20), direction=(1.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    assert maps.map_indices(target, grid((20, 20, 20))) is None


def test_a_transform_that_undoes_the_rotation_is_separable():
    direction = flat(rotation(0, 0, 90))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(direction)
    where = maps.map_indices(grid((9, 9, 9)), grid((9, 9, 9)), path_of(transform))
    assert where is not None
    assert where.source_axis == (1, 0, 2)


def test_linear_transforms_compare_by_what_they_do():
    a, b = (path_of(sitk.TranslationTransform(3, (1.0, 2.0, 3.0))) for _ in range(2))
    c = path_of(sitk.TranslationTransform(3, (1.0, 2.0, 3.5)))
    assert a == b
    assert hash(a) == hash(b)
    assert a != c


def test_the_centre_of_rotation_counts():
    a = path_of(sitk.Euler3DTransform((0, 0, 0), 0.1, 0, 0))
    b = path_of(sitk.Euler3DTransform((0, 5, 0), 0.1, 0, 0))
    assert a != b


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_identity_transform_has_no_steps(dimension):
    assert path_of(sitk.Transform(), dimension).steps == ()


def test_2d():
    g = gr.Grid((5, 4), (1.0, 2.0), (3.0, 4.0), (0.0, -1.0, 1.0, 0.0))
    assert g.dimension == 2
    np.testing.assert_allclose(g.points(np.array([[1.0, 2.0]])), [[3.0 - 4.0, 4.0 + 1.0]])


def test_of_size_is_the_unit_grid():
    g = gr.Grid.of_size((4, 5, 6))
    assert (g.spacing, g.origin, g.direction) == ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE)


def test_naive_coordinates_agree():
    """The oracle's coordinates are those that SimpleITK tells, so that it may judge the rest."""
    target = grid((7, 8, 12), (1.1, 1.3, 0.77), (-121.3, 32.1, 16.0))
    oracle = naive.coordinates(of_grid(SOURCE), of_grid(target))
    assert oracle.tobytes() == np.ascontiguousarray(ours(SOURCE, target)).tobytes()


# --- grids that float64 cannot count on ------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [EYE, flat(OBLIQUE)], ids=["straight", "turned"])
@pytest.mark.parametrize("which", ["input", "output"])
@pytest.mark.parametrize(
    ("origin", "spacing"),
    [(1e20, 1.0), (-1e17, 1.0), (2.0**54, 1.0), (1e16, 0.5), (1e3, 1e-14), (1e300, 1.0), (1e308, 1e308), (7e15, 0.1)],
)
def test_grids_whose_voxels_float64_cannot_tell_apart_are_refused(origin, spacing, which, direction):
    far = grid((5, 4, 3), (spacing,) * 3, (0.0, origin, 0.0), direction)
    near = grid((5, 4, 3), direction=direction)
    target, source = (near, far) if which == "input" else (far, near)
    with pytest.raises(ValueError, match=rf"the {which} grid must have an origin and spacing .* tell neighbouring"):
        maps.map_indices(target, source)


@pytest.mark.parametrize(("origin", "spacing"), [(1e15, 1.0), (1e20, 1e6), (1e-300, 1.0), (1e6, 1e-9), (0.0, 1e300)])
def test_grids_that_are_only_far_are_mapped(origin, spacing):
    far = grid((5, 4, 3), (spacing,) * 3, (origin,) * 3)
    x = maps.map_indices(far, far).x
    np.testing.assert_allclose(x[0], np.arange(5), atol=0.5)


@pytest.mark.parametrize("spacing", [1e-303, 1e-300, 1e-297])
def test_indices_that_are_not_finite_are_refused(spacing):
    with pytest.raises(ValueError, match="the output grid must lie where the input's voxels can be counted to"):
        maps.map_indices(grid((3, 3, 3), origin=(1e12, 0.0, 0.0)), grid((3, 3, 3), (spacing, 1.0, 1.0)))


def test_a_translation_beyond_all_numbers_is_refused():
    far = path_of(sitk.TranslationTransform(3, [1e308, 0, 0]))
    with pytest.raises(ValueError, match=r"can be counted to.*through a transform"):
        maps.map_indices(grid((3, 3, 3)), grid((3, 3, 3), (1e-3, 1.0, 1.0)), far)


@pytest.mark.parametrize("value", [1e200, 1e308])
def test_directions_without_a_finite_determinant_are_refused(value):
    with pytest.raises(ValueError, match="direction must have an inverse"):
        grid((3, 3, 3), direction=(value, 0, 0, 0, value, 0, 0, 0, value))
