"""Paths: SimpleITK's transforms and ours as routes, against TransformPoint and an oracle; bounds, orders, refusals."""

import gc
import itertools
import math
import warnings

import nibabel as nib
import numpy as np
import pytest
import route_oracle
import SimpleITK as sitk
import transform_oracle as oracle
from support import flat, rotation

import gpuresample as gr
from gpuresample.containers.vectors import vectors_of
from gpuresample.ops.transforms import Affine, BSpline, DisplacementField, Path, control_points, resolve
from gpuresample.planning import maps
from gpuresample.planning import transforms as paths
from gpuresample.planning.works import Lattice, Linear

CLASSES_3D = (
    "identity", "translation", "scale", "scale_logarithmic", "euler", "euler_zyx", "similarity", "versor",
    "versor_rigid", "quaternion", "scale_versor", "scale_skew_versor", "compose_scale_skew_versor", "affine",
)  # fmt: skip
CLASSES_2D = ("identity", "translation", "scale", "euler", "similarity", "affine")
LATTICES = ("field", "field_nearest", "spline1", "spline2", "spline3")
# Read from parameters in another order of operations than the oracle's.
NOT_TO_THE_BIT = ("quaternion",)


def read_transform(tmp_path, name, d, parameters, fixed):
    """A transform of a class that SimpleITK only reads from files."""
    path = tmp_path / "transform.tfm"
    numbers = [" ".join(repr(float(v)) for v in values) for values in (parameters, fixed)]
    path.write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: {name}_double_{d}_{d}\n"
        f"Parameters: {numbers[0]}\nFixedParameters: {numbers[1]}\n"
    )
    # SimpleITK's own Python fails at casting what it has no class for.
    return sitk.SimpleITK._SimpleITK.ReadTransform(str(path))


def draw(name, d, rng, tmp_path):
    """A SimpleITK transform of a class, drawn."""
    centre, shift = rng.uniform(-20, 20, d).tolist(), rng.uniform(-5, 5, d).tolist()
    versor = rng.uniform(-0.4, 0.4, 3).tolist()
    angles, scale = rng.uniform(-1, 1, 3).tolist(), rng.uniform(0.5, 1.5, d).tolist()
    if name in LATTICES:
        return draw_lattice(name, random_grid(d, rng, (5, 9)), rng)
    if name == "identity":
        return sitk.Transform(d, sitk.sitkIdentity)
    if name == "translation":
        return sitk.TranslationTransform(d, shift)
    if name == "scale":
        t = sitk.ScaleTransform(d, scale)
        t.SetCenter(centre)
        return t
    if name == "affine":
        return sitk.AffineTransform((np.eye(d) + rng.uniform(-0.4, 0.4, (d, d))).ravel().tolist(), shift, centre)
    if d == 2:
        if name == "euler":
            return sitk.Euler2DTransform(centre, angles[0], shift)
        return sitk.Similarity2DTransform(scale[0], angles[0], shift, centre)
    if name.startswith("euler"):
        t = sitk.Euler3DTransform(centre, *angles, shift)
        t.SetComputeZYX(name == "euler_zyx")
        return t
    if name == "scale_logarithmic":
        return read_transform(tmp_path, "ScaleLogarithmicTransform", 3, rng.uniform(-0.4, 0.4, 3), centre)
    if name == "quaternion":
        q = np.array([*versor, 0.9])
        return read_transform(tmp_path, "QuaternionRigidTransform", 3, [*(q / np.linalg.norm(q)), *shift], centre)
    made, parameters = {
        "similarity": (sitk.Similarity3DTransform, [*versor, *shift, scale[0]]),
        "versor": (sitk.VersorTransform, versor),
        "versor_rigid": (sitk.VersorRigid3DTransform, [*versor, *shift]),
        "scale_versor": (sitk.ScaleVersor3DTransform, [*versor, *shift, *scale]),
        "scale_skew_versor": (
            sitk.ScaleSkewVersor3DTransform, [*versor, *shift, *scale, *rng.uniform(-0.2, 0.2, 6).tolist()]
        ),
        "compose_scale_skew_versor": (
            sitk.ComposeScaleSkewVersor3DTransform, [*versor, *shift, *scale, *rng.uniform(-0.2, 0.2, 3).tolist()]
        ),
    }[name]  # fmt: skip
    t = made()
    t.SetFixedParameters(centre)
    t.SetParameters(parameters)
    return t


def draw_lattice(name, grid, rng, size=3.0):
    """A field on a grid, or a B-spline whose control points are the grid's."""
    d = grid.dimension
    values = rng.uniform(-size, size, (*grid.size[::-1], d))
    if name.startswith("field"):
        image = to_field(values, grid)
        t = sitk.DisplacementFieldTransform(image)
        if name == "field_nearest":
            t.SetInterpolator(sitk.sitkNearestNeighbor)
        return t
    t = sitk.BSplineTransform(d, int(name[-1]))
    t.SetFixedParameters([*map(float, grid.size), *grid.origin, *grid.spacing, *grid.direction])
    t.SetParameters(np.moveaxis(values, -1, 0).ravel().tolist())
    return t


def to_field(values, grid):
    """A vector image, float64 or float32 as the values are."""
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def directions(d, rng):
    """The identity, a flip, a permutation with a flip, a rotation."""
    if d == 2:
        a = float(rng.uniform(-1, 1))
        turned = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        return [np.eye(2), np.diag([-1.0, 1.0]), np.array([[0.0, -1.0], [1.0, 0.0]]), turned]
    permuted = np.zeros((3, 3))
    permuted[[2, 0, 1], range(3)] = (1.0, -1.0, 1.0)
    return [np.eye(3), np.diag([-1.0, 1.0, -1.0]), permuted, np.array(rotation(*rng.uniform(-40, 40, 3)))]


def random_grid(d, rng, sizes=(4, 8), direction=None):
    """A grid about the origin."""
    size = rng.integers(*sizes, d)
    spacing = rng.uniform(2, 5, d)
    direction = directions(d, rng)[rng.integers(4)] if direction is None else direction
    origin = -direction @ (spacing * (size - 1) / 2) + rng.uniform(-2, 2, d)
    return gr.Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin.tolist()), flat(direction.tolist()))


def index_image(grid):
    image = sitk.Image(grid.size, sitk.sitkUInt8)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def sitk_coordinates(transform, target, source):
    """Continuous source indices of every voxel, [z, y, x, 3], as SimpleITK's Resample finds them."""
    d = target.dimension
    out = np.zeros((*(1,) * (3 - d), *target.size[::-1], 3))
    here, there = index_image(target), index_image(source)

    def at(index):
        # A line ends one past the image's last voxel, which its method does not mind.
        point = here.TransformIndexToPhysicalPoint(index)
        return np.array(there.TransformPhysicalPointToContinuousIndex(transform.TransformPoint(point)))

    for index in itertools.product(*map(range, target.size)):
        voxel = (0,) * (3 - d) + index[::-1]
        if transform.IsLinear():
            a, b = at((0, *index[1:])), at((target.size[0], *index[1:]))
            out[voxel][:d] = a + (index[0] / target.size[0]) * (b - a)
        else:
            out[voxel][:d] = at(index)
    return out


def n_dst(grid):
    return (1,) * (3 - grid.dimension) + grid.size[::-1]


def made(transform, target, source, turned=False):
    (path,) = resolve(transform, target, turned)
    return paths.route(target, source, path)


# --- the oracle, and SimpleITK's classes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "name"), [(3, n) for n in CLASSES_3D + LATTICES] + [(2, n) for n in CLASSES_2D + LATTICES]
)
def test_the_oracle_is_simpleitk_to_the_bit(d, name, tmp_path):
    rng = np.random.default_rng(7)
    for _ in range(4):
        t = draw(name, d, rng, tmp_path)
        p = rng.uniform(-25, 25, (200, d))
        expected = np.array([t.TransformPoint(q) for q in p.tolist()])
        actual = oracle.evaluate(t, p)
        if name in NOT_TO_THE_BIT:
            np.testing.assert_allclose(actual, expected, atol=1e-13)
        else:
            np.testing.assert_array_equal(actual, expected)
        if name in LATTICES:
            moved = (expected != p).any(axis=1)
            assert 0 < moved.sum() < len(p), "points inside and outside"


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_oracle_on_faces_and_knots(order):
    """Points on nodes, on both faces of the domain and a few units in the last place beside them."""
    rng = np.random.default_rng(order)
    for direction in directions(3, rng):
        grid = random_grid(3, rng, (5, 7), direction)
        t = draw_lattice(f"spline{order}", grid, rng)
        half = (order - 1) / 2
        ticks = [[half, half + 1.0, half + 0.5, n - 1.0 - half] for n in grid.size]
        p = grid.points(np.array(list(itertools.product(*ticks))))
        near = [p]
        for ulps in (1, 3, 5, 7, 20):
            near += [p + ulps * np.spacing(np.abs(p)), p - ulps * np.spacing(np.abs(p))]
        p = np.concatenate(near)
        expected = np.array([t.TransformPoint(q) for q in p.tolist()])
        np.testing.assert_array_equal(oracle.evaluate(t, p), expected)


@pytest.mark.parametrize(("d", "name"), [(3, n) for n in CLASSES_3D] + [(2, n) for n in CLASSES_2D])
def test_linear_classes_to_the_bit(d, name, tmp_path):
    rng = np.random.default_rng(3)
    for _ in range(4):
        t, target, source = draw(name, d, rng, tmp_path), random_grid(d, rng), random_grid(d, rng)
        route = made(t, target, source)
        assert route.lines
        assert len(route.stages) == 1
        (path,) = resolve(t, target)
        assert path.is_linear
        p = rng.uniform(-25, 25, (100, d))
        np.testing.assert_array_equal(path.points(p), [t.TransformPoint(q) for q in p.tolist()])
        expected = sitk_coordinates(t, target, source)
        actual = route_oracle.coordinates(route, n_dst(target))
        if name in ("scale", "scale_logarithmic"):
            # (p - c) * s + c is one matrix and offset here: lines differ by rounding.
            np.testing.assert_allclose(actual, expected, atol=1e-13)
        else:
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("d", "name"), list(itertools.product((2, 3), LATTICES)))
def test_lattices_to_the_bit(d, name, tmp_path):
    rng = np.random.default_rng(5)
    for _ in range(4):
        t, target, source = draw(name, d, rng, tmp_path), random_grid(d, rng), random_grid(d, rng)
        route = made(t, target, source)
        assert not route.lines
        (lattice,) = route.stages
        assert lattice.vectors.shape[-1] == 3
        expected = sitk_coordinates(t, target, source)
        actual = route_oracle.coordinates(route, n_dst(target))
        if d == 3:
            np.testing.assert_array_equal(actual, expected)
        else:
            # A spline of one control point along z has weight 1; sums over x and y are ITK's.
            np.testing.assert_array_equal(actual[..., :2], expected[..., :2])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("d", [2, 3])
def test_composites_last_member_first(d, seed, tmp_path):
    """Nested, up to four deep, of drawn classes."""
    rng = np.random.default_rng(100 * d + seed)
    names = CLASSES_3D if d == 3 else CLASSES_2D

    def compose(depth):
        count = int(rng.integers(1, 3))
        members = [compose(depth - 1) if depth > 1 else None for _ in range(count)]
        drawn = [draw(str(rng.choice(names + LATTICES)), d, rng, tmp_path) for _ in range(2)]
        members = [m for m in members if m is not None] + [t for t in drawn if t.GetDimension() == d]
        rng.shuffle(members)
        return sitk.CompositeTransform(members) if members else draw("translation", d, rng, tmp_path)

    t = compose(1 + seed % 4)
    target, source = random_grid(d, rng), random_grid(d, rng)
    (path,) = resolve(t, target)
    route = paths.route(target, source, path)
    assert route.lines == path.is_linear == t.IsLinear()
    expected = sitk_coordinates(t, target, source)
    actual = route_oracle.coordinates(route, n_dst(target))
    if not path.is_linear and len(route.stages) == len([s for s in path.steps if not hasattr(s, "is_identity")
                                                        or not s.is_identity]):  # fmt: skip
        np.testing.assert_array_equal(actual, expected)
    else:
        # Folded: rounding, but for a point on a face of a lattice, of which random ones have none.
        np.testing.assert_allclose(actual, expected, atol=1e-9)
    assert len(route.stages) <= paths.MOST_STAGES or sum(isinstance(s, Lattice) for s in route.stages) > 3


def test_a_long_path_is_folded_between_its_lattices():
    grid = gr.Grid.of_size((4, 5, 6))
    rng = np.random.default_rng(1)
    moves = [Affine(np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3)), (0.1, 0.2, 0.3)) for _ in range(20)]
    field = DisplacementField(rng.uniform(-1, 1, (6, 5, 4, 3)))
    route = made(Path([*moves, field, *moves]), grid, grid)
    assert [type(s) for s in route.stages] == [Linear, Lattice, Linear]
    assert len(made(Path([*moves[:3], field]), grid, grid).stages) == 4


def test_a_composite_of_linear_members_is_applied_one_by_one(tmp_path):
    """Rows of aligned grids take points through the members, as ITK does: the last bit decides ties."""
    rng = np.random.default_rng(11)
    t = sitk.CompositeTransform([draw(n, 3, rng, tmp_path) for n in ("scale", "translation", "affine", "euler")])
    (path,) = resolve(t, random_grid(3, rng))
    p = rng.uniform(-25, 25, (300, 3))
    np.testing.assert_array_equal(path.points(p), [t.TransformPoint(q) for q in p.tolist()])
    matrix, offset = path.affine
    np.testing.assert_allclose(p @ matrix.T + offset, path.points(p), atol=1e-12)


def test_classes_that_python_cannot_cast_work_within_composites(tmp_path):
    rng = np.random.default_rng(2)
    t = draw("compose_scale_skew_versor", 3, rng, tmp_path)
    target, source = random_grid(3, rng), random_grid(3, rng)
    field = draw_lattice("field", random_grid(3, rng), rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        route = made(sitk.CompositeTransform([t, field]), target, source)
    assert [type(s) for s in route.stages] == [Lattice, Linear]
    (path,) = resolve(sitk.CompositeTransform([t, field]), target)
    np.testing.assert_array_equal(path.steps[1].matrix, np.reshape(t.GetMatrix(), (3, 3)))


def test_a_matrix_offset_base_reads_as_what_it_is(tmp_path):
    t = read_transform(tmp_path, "MatrixOffsetTransformBase", 3, [1, 0.1, 0, 0, 1, 0, 0, 0, 1, 5, 6, 7], [1, 2, 3])
    (path,) = resolve(t, gr.Grid.of_size((2, 2, 2)))
    np.testing.assert_array_equal(path.points(np.array([[1.0, 2.0, 3.0]])), [t.TransformPoint((1.0, 2.0, 3.0))])
    shift = sitk.TranslationTransform(3, (1.0, 2.0, 3.0))
    (path,) = resolve(sitk.CompositeTransform([shift, t]), gr.Grid.of_size((2, 2, 2)))
    assert len(path.steps) == 2


def test_what_is_not_native_is_evaluated_by_simpleitk_once(tmp_path):
    t = read_transform(
        tmp_path, "AzimuthElevationToCartesianTransform", 3, [1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 6, 7], [1, 2, 3]
    )
    rng = np.random.default_rng(0)
    target, source = random_grid(3, rng), random_grid(3, rng)
    with pytest.warns(RuntimeWarning, match="no native form") as record:
        route = made(sitk.CompositeTransform([sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), t]), target, source)
    assert len(record) == 1
    (lattice,) = route.stages
    assert lattice.direct
    expected = sitk_coordinates(
        sitk.CompositeTransform([sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), t]), target, source
    )
    actual = route_oracle.coordinates(route, n_dst(target), tables=True)
    np.testing.assert_allclose(actual, expected, atol=1e-11)


def test_order_0_moves_nothing():
    t = sitk.BSplineTransform(3, 0)
    (path,) = resolve(t, gr.Grid.of_size((3, 3, 3)))
    assert path.steps == ()


def test_a_fields_memory_is_seen_not_copied_and_kept_alive():
    rng = np.random.default_rng(4)
    grid = random_grid(3, rng)
    values = rng.uniform(-1, 1, (*grid.size[::-1], 3))
    (path,) = resolve(sitk.DisplacementFieldTransform(to_field(values, grid)), grid)
    gc.collect()
    filler = [np.full(values.shape, 7.0) for _ in range(50)]
    np.testing.assert_array_equal(path.steps[0].vectors, values)
    assert len(filler) == 50
    t = sitk.DisplacementFieldTransform(to_field(values, grid))
    a, b = (resolve(t, grid)[0].steps[0].vectors.__array_interface__["data"][0] for _ in range(2))
    assert a == b


@pytest.mark.parametrize("seed", range(60))
def test_voxels_are_those_that_resample_takes(seed, tmp_path):
    """Every voxel of an image has a number of its own: SimpleITK's nearest voxel, and what lies outside, one by one.

    A coordinate within 1e-9 of a face between two voxels is a tie and may fall either way.
    """
    rng = np.random.default_rng(500 + seed)
    d = 2 + seed % 2
    names = (CLASSES_3D if d == 3 else CLASSES_2D) + LATTICES
    members = [draw(str(rng.choice(names)), d, rng, tmp_path) for _ in range(1 + seed % 4)]
    t = sitk.CompositeTransform(members) if len(members) > 1 else members[0]
    target, source = random_grid(d, rng, (8, 13)), random_grid(d, rng, (6, 12))
    image = sitk.GetImageFromArray(np.arange(1.0, source.voxels + 1).reshape(source.size[::-1]))
    image.CopyInformation(index_image(source))
    there = sitk.Resample(
        image, target.size, t, sitk.sitkNearestNeighbor, target.origin, target.spacing, target.direction, 0.0
    )
    expected = sitk.GetArrayFromImage(there).reshape(n_dst(target))
    x = route_oracle.coordinates(made(t, target, source), n_dst(target))
    n = np.array((*source.size, 1)[:3])
    inside = ((x >= -0.5) & (x < n - 0.5)).all(axis=-1)
    i, j, k = np.moveaxis(np.clip(np.floor(x + 0.5).astype(int), 0, n - 1), -1, 0)
    actual = np.where(inside, 1.0 + i + n[0] * (j + n[1] * k), 0.0)
    ties = (np.abs(x + 0.5 - np.rint(x + 0.5)) < 1e-9).any(axis=-1)
    np.testing.assert_array_equal(actual[~ties], expected[~ties])
    assert ties.mean() < 0.01, "ties are few on drawn grids"
    assert len(np.unique(actual)) > 1, "inside and outside, or many voxels"


@pytest.mark.parametrize("name", CLASSES_3D)
def test_aligned_grids_map_as_by_simpleitks_own_points(name, tmp_path):
    """`map_indices` takes a path as it takes a SimpleITK transform, and finds the same bits."""
    rng = np.random.default_rng(21)
    for direction in directions(3, rng)[:3]:
        target, source = random_grid(3, rng, direction=direction), random_grid(3, rng, direction=direction)
        t = draw(name, 3, rng, tmp_path)
        (path,) = resolve(t, target)
        old = None if name == "identity" else _AsBefore(t)
        a, b = (maps.map_indices(target, source, m) for m in (old, path))
        assert type(a) is type(b)
        if a is not None:
            assert a.source_axis == b.source_axis
            for x, y in zip(a.x, b.x, strict=True):
                np.testing.assert_array_equal(x, y)
    assert name not in ("translation", "scale") or a is not None


class _AsBefore:
    """A linear transform that asks SimpleITK for every point."""

    is_linear = True

    def __init__(self, transform):
        zero = [0.0] * 3
        self.sitk = transform
        columns = [transform.TransformVector(e, zero) for e in np.eye(3).tolist()]
        self.affine = np.array(columns).T, np.array(transform.TransformPoint(zero))

    def points(self, p):
        return np.array([self.sitk.TransformPoint(q) for q in p.tolist()])


# --- lattices parallel to the output ---------------------------------------------------------------------------------


def parallel_grid(target, rng, kind):
    """A lattice whose axes are the output's, permuted and flipped, over about its extent."""
    d = target.dimension
    direction = np.reshape(target.direction, (d, d))
    axes = rng.permutation(d)
    direction = direction[:, axes] * rng.choice([-1.0, 1.0], d)
    size = rng.integers(5, 8, d)
    extent = (np.array(target.size) * np.array(target.spacing))[axes]
    spacing = extent / (size - rng.uniform(0, 4, d))
    centre = target.points((np.array(target.size)[None] - 1) / 2)[0]
    origin = centre - direction @ (spacing * (size - 1) / 2) + rng.uniform(-1, 1, d)
    return gr.Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin.tolist()), flat(direction.tolist()))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", LATTICES)
@pytest.mark.parametrize("d", [2, 3])
def test_tables_are_the_lattice_to_rounding(d, name, seed):
    rng = np.random.default_rng(1000 * d + seed)
    target, source = random_grid(d, rng, (6, 10)), random_grid(d, rng)
    grid = parallel_grid(target, rng, name)
    lattice = draw_lattice(name, grid, rng)
    route = made(lattice, target, source)
    (stage,) = route.stages
    assert stage.table is not None
    assert sorted(stage.table.dst_axis) == [0, 1, 2]
    exact, by_table = (route_oracle.coordinates(route, n_dst(target), tables=t) for t in (False, True))
    np.testing.assert_allclose(by_table, exact, atol=1e-12)
    # With linear stages before it; a shift alone keeps the axes, a rotation does not.
    shifted = made(Path([Affine(np.eye(d), rng.uniform(-1, 1, d).tolist()), lattice]), target, source)
    assert shifted.stages[1].table is not None
    exact, by_table = (route_oracle.coordinates(shifted, n_dst(target), tables=t) for t in (False, True))
    np.testing.assert_allclose(by_table, exact, atol=1e-12)
    turn = draw("euler", d, rng, None)
    assert made(Path([turn, lattice]), target, source).stages[1].table is None
    assert made(Path([lattice, lattice]), target, source).stages[1].table is None
    # A turned grid whose turn is undone before the lattice.
    turned = sitk.CompositeTransform([lattice, turn, turn.GetInverse()])
    assert made(turned, target, source).stages[-1].table is not None


@pytest.mark.parametrize("order", [1, 2, 3])
def test_rows_on_the_faces_of_a_splines_domain(order):
    """In or out and weights, from a few units in the last place below a face to a few above."""
    n = 7
    half = (order - 1) / 2
    for face in (half, n - 1.0 - half):
        around = [face]
        for _ in range(9):
            around = [math.nextafter(around[0], -1.0), *around, math.nextafter(around[-1], 100.0)]
        expected = [oracle._spline_axis(x, n, order) for x in around]
        start, table = paths._spline_table(np.array(around), n, order)
        inside = [start <= i < start + table.n_dst for i in range(len(around))]
        assert inside == [e is not None for e in expected]
        assert any(inside)
        assert not all(inside)
        dense = table.dense()
        for row, (first, weights) in zip(dense, [e for e in expected if e is not None], strict=True):
            np.testing.assert_array_equal(row[first : first + order + 1], weights)
            assert np.count_nonzero(row) == np.count_nonzero(weights)


def test_rows_outside_the_domain_are_outside():
    target = gr.Grid.of_size((20, 3, 3))
    field = np.ones((3, 3, 4, 3))
    route = made(
        DisplacementField(field, like=gr.Grid((4, 3, 3), (2, 1, 1), (6, 0, 0), target.direction)), target, target
    )
    table = route.stages[0].table
    # Domain from 5 (in) to 13 (out).
    assert table.inside[2] == (5, 13)
    assert table.n_dst == (3, 3, 20)
    np.testing.assert_array_equal(table.tables[2].dense().sum(axis=1), np.ones(8))
    x = route_oracle.coordinates(route, (3, 3, 20), tables=True)[1, 1, :, 0]
    np.testing.assert_array_equal(x, [*range(5), *range(6, 14), *range(13, 20)])
    nowhere = made(
        DisplacementField(field, like=gr.Grid((4, 3, 3), (2, 1, 1), (60, 0, 0), target.direction)), target, target
    )
    assert nowhere.stages[0].table.tables[2].n_dst == 0


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_a_field_on_the_outputs_voxels_is_direct(interpolation):
    rng = np.random.default_rng(6)
    for d in (2, 3):
        target, source = random_grid(d, rng), random_grid(d, rng)
        values = rng.uniform(-3, 3, (*target.size[::-1], d))
        route = made(DisplacementField(values, interpolation=interpolation), target, source)
        (stage,) = route.stages
        assert stage.direct
        assert stage.table is None
        exact, direct = (route_oracle.coordinates(route, n_dst(target), tables=t) for t in (False, True))
        np.testing.assert_allclose(direct, exact, atol=1e-12)
        t = draw_lattice("field", target, rng)
        assert made(t, target, source).stages[0].direct
        spline = made(BSpline(values, like=target, order=1), target, source)
        assert not spline.stages[0].direct
        assert spline.stages[0].table is not None
        assert (
            not made(sitk.CompositeTransform([t, sitk.TranslationTransform(d, (1e-3,) * d)]), target, source)
            .stages[-1]
            .direct
        )
        moved = gr.Grid(target.size, target.spacing, tuple(o + 1e-6 for o in target.origin), target.direction)
        assert not made(t, moved, source).stages[0].direct
        back = flat((-np.reshape(target.direction, (d, d))).tolist())
        turned = gr.Grid(target.size, target.spacing, target.origin, back)
        flipped = made(draw_lattice("field", turned, rng), target, source)
        assert not flipped.stages[0].direct


# --- orders ----------------------------------------------------------------------------------------------------------


def test_numbers_beside_bare_arrays_are_in_axis_order():
    """What is said in axis order is the same path as what is said in x, y, z."""
    rng = np.random.default_rng(8)
    target = gr.Grid.of_size((5, 6, 7), (1.5, 2.0, 3.0))
    m, t, c = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)), rng.uniform(-2, 2, 3), rng.uniform(-5, 5, 3)
    vectors, points = rng.uniform(-2, 2, (7, 6, 5, 3)), rng.uniform(-2, 2, (5, 6, 7, 3))
    physical = [Affine(m, t, c), DisplacementField(vectors), BSpline(points)]
    turned = [
        Affine(m[::-1, ::-1], t[::-1], c[::-1]), DisplacementField(vectors[..., ::-1]), BSpline(points[..., ::-1])
    ]  # fmt: skip
    for xyz, zyx in zip([*physical, Path(physical)], [*turned, Path(turned)], strict=True):
        a, b = (
            route_oracle.coordinates(made(k, target, target, turned=t), (7, 6, 5))
            for k, t in ((xyz, False), (zyx, True))
        )
        np.testing.assert_array_equal(a, b)
    # A matrix that shifts by one voxel along the first axis of an array moves z.
    shift = np.array([[1.0, 0, 0, 3.0], [0, 1, 0, 0], [0, 0, 1, 0]])
    x = route_oracle.coordinates(made(shift, target, target, turned=True), (7, 6, 5))
    np.testing.assert_array_equal(x[0, 0, 0], [0.0, 0.0, 1.0])


def test_what_has_a_geometry_of_its_own_is_x_y_z_beside_arrays_too():
    rng = np.random.default_rng(9)
    target = gr.Grid.of_size((4, 5, 6))
    values = rng.uniform(-1, 1, (6, 5, 4, 3))
    image = to_field(values, target)
    volume = gr.Volume(np.ascontiguousarray(np.moveaxis(values, -1, 0)), (1, 1, 1))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    given = [image, volume]
    for intent, signs in ((1007, (1, 1, 1)), (1006, (-1, -1, 1))):
        stored = np.moveaxis((values * signs).T, 0, -1)
        for shape in (stored.shape, (*stored.shape[:3], 1, 3)):
            warp = nib.Nifti1Image(stored.reshape(shape), affine)
            warp.header.set_intent(intent)
            given.append(warp)
    transform = sitk.DisplacementFieldTransform(sitk.Image(image))
    expected = route_oracle.coordinates(made(transform, target, target), (6, 5, 4))
    for vectors in given:
        for turned in (False, True):
            actual = route_oracle.coordinates(made(DisplacementField(vectors), target, target, turned), (6, 5, 4))
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("form", ["3x4", "4x4", "lists", "Affine", "AffineTransform"])
@pytest.mark.parametrize("d", [2, 3])
def test_forms_of_a_matrix(d, form):
    rng = np.random.default_rng(10)
    m, t = np.eye(d) + rng.uniform(-0.3, 0.3, (d, d)), rng.uniform(-2, 2, d)
    rows = np.column_stack([m, t])
    whole = np.vstack([rows, [*[0] * d, 1]])
    given = {
        "3x4": rows, "4x4": whole, "lists": rows.tolist(), "Affine": Affine(rows),
        "AffineTransform": sitk.AffineTransform(m.ravel().tolist(), t.tolist()),
    }[form]  # fmt: skip
    grid = random_grid(d, rng)
    (path,) = resolve(given, grid)
    assert path == resolve(Affine(m, t.tolist()), grid)[0]
    assert hash(path) == hash(resolve(Affine(m, t.tolist()), grid)[0])
    np.testing.assert_array_equal(path.affine[0], m)


def test_a_centre_stays_and_is_itks():
    rng = np.random.default_rng(12)
    m, t, c = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)), rng.uniform(-2, 2, 3), rng.uniform(-50, 50, 3)
    grid = random_grid(3, rng)
    (path,) = resolve(Affine(m, t.tolist(), c.tolist()), grid)
    assert path == resolve(sitk.AffineTransform(m.ravel().tolist(), t.tolist(), c.tolist()), grid)[0]
    np.testing.assert_allclose(path.points(c[None])[0], c + t, atol=1e-13)


def test_inverses():
    rng = np.random.default_rng(13)
    m, t, c = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)), rng.uniform(-2, 2, 3), rng.uniform(-50, 50, 3)
    grid = random_grid(3, rng)
    p = rng.uniform(-20, 20, (50, 3))
    compose = sitk.ComposeScaleSkewVersor3DTransform()
    compose.SetParameters((0.1, 0.2, 0.3, 1.0, 2.0, 3.0, 1.1, 0.9, 1.2, 0.1, 0.2, 0.3))
    there = Path([Affine(m, t.tolist(), c.tolist()), compose, np.column_stack([m, t]), sitk.Euler3DTransform()])
    for transform in (there, Affine(m, t.tolist(), c.tolist()), Path([there])):
        (round_trip,) = resolve(Path([transform, transform.inverse()]), grid)
        np.testing.assert_allclose(round_trip.points(p), p, atol=1e-11)
    field = DisplacementField(np.zeros((*grid.size[::-1], 3)))
    spline = sitk.BSplineTransform(3, 3)
    singular = Affine(np.ones((3, 3)))
    cases = (Path([field]), "DisplacementField"), (Path([spline]), "BSpline"), (singular, "matrix must have")
    for bad, what in cases:
        with pytest.raises(ValueError, match=what):
            bad.inverse()
    flat_ = sitk.ComposeScaleSkewVersor3DTransform()
    flat_.SetParameters((0.1, 0.2, 0.3, 1.0, 2.0, 3.0, 0.0, 0.9, 1.2, 0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match="must have an inverse"):
        Path([flat_]).inverse()
    # Where no inverse is needed a flat matrix serves.
    assert made(np.zeros((3, 4)), grid, grid).lines


# --- ours on their grids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 3])
def test_fields_and_splines_with_like_are_simpleitks(d):
    rng = np.random.default_rng(14)
    for _ in range(4):
        target, source, grid = random_grid(d, rng), random_grid(d, rng), random_grid(d, rng, (5, 9))
        values = rng.uniform(-3, 3, (*grid.size[::-1], d))
        like = index_image(grid)
        forms = [(DisplacementField(values, like), "field"), (DisplacementField(values, grid), "field")]
        forms += [
            (DisplacementField(to_field(values, grid)), "field"),
            (DisplacementField(values, grid, "nearest"), "field_nearest"),
        ]
        forms += [(BSpline(values, k, order), f"spline{order}") for k in (like, grid) for order in (1, 2, 3)]
        for ours, name in forms:
            theirs = draw_lattice(name, grid, rng)
            if name.startswith("field"):
                theirs = sitk.DisplacementFieldTransform(to_field(values, grid))
                if name == "field_nearest":
                    theirs.SetInterpolator(sitk.sitkNearestNeighbor)
            else:
                theirs.SetParameters(np.moveaxis(values, -1, 0).ravel().tolist())
            a, b = (route_oracle.coordinates(made(t, target, source), n_dst(target)) for t in (ours, theirs))
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_splines_domain_is_the_outputs_extent(order):
    """As SimpleITK builds a lattice from domain and mesh."""
    rng = np.random.default_rng(15)
    target, source = random_grid(3, rng), random_grid(3, rng)
    mesh = (3, 4, 5)
    values = rng.uniform(-3, 3, (*[m + order for m in mesh[::-1]], 3))
    t = sitk.BSplineTransform(3, order)
    corner = target.points(np.full((1, 3), -0.5))[0]
    t.SetTransformDomainDirection(target.direction)
    t.SetTransformDomainOrigin(corner.tolist())
    t.SetTransformDomainPhysicalDimensions([n * s for n, s in zip(target.size, target.spacing, strict=True)])
    t.SetTransformDomainMeshSize(mesh)
    t.SetParameters(np.moveaxis(values, -1, 0).ravel().tolist())
    grid = control_points(target, tuple(m + order for m in mesh), order)
    fixed = np.array(t.GetFixedParameters())
    np.testing.assert_allclose([*grid.size, *grid.origin, *grid.spacing, *grid.direction], fixed, atol=1e-12)
    expected = route_oracle.coordinates(made(t, target, source), n_dst(target))
    for ours in (BSpline(values, order=order), BSpline.over(values, target, order)):
        route = made(ours, target, source)
        assert route.stages[0].table is not None
        np.testing.assert_allclose(route_oracle.coordinates(route, n_dst(target)), expected, atol=1e-11)
    # Every voxel moves: none lies on a face.
    still = route_oracle.coordinates(made(None, target, target), n_dst(target))
    moved = route_oracle.coordinates(made(BSpline(values, order=order), target, target), n_dst(target))
    assert (np.abs(moved - still).max(axis=-1) > 0).all()


def test_an_array_as_like_says_how_many_nodes():
    target = gr.Grid((8, 6, 4), (1, 2, 3), (5, 6, 7), tuple(np.eye(3).ravel().tolist()))
    values = np.zeros((2, 3, 4, 3), np.float32)
    (path,) = resolve(DisplacementField(values, like=np.empty((2, 3, 4))), target)
    assert path.steps[0].grid == gr.Grid((4, 3, 2), (2, 4, 6), (5, 6, 7), target.direction)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", ">f4", "float16"])
def test_vectors_are_not_copied_unless_they_must(dtype):
    values = np.arange(4 * 5 * 6 * 3).reshape(4, 5, 6, 3).astype(dtype)
    field = DisplacementField(values)
    (path,) = resolve(field, gr.Grid.of_size((6, 5, 4)), turned=True)
    (lattice,) = paths.route(gr.Grid.of_size((6, 5, 4)), gr.Grid.of_size((6, 5, 4)), path).stages
    np.testing.assert_array_equal(lattice.vectors, values[..., ::-1])
    kept = dtype in ("float32", "float64")
    assert np.shares_memory(lattice.vectors, values) == kept
    assert lattice.vectors.dtype == (dtype if kept else "float64")


def test_a_batch_has_a_path_for_each_volume():
    rng = np.random.default_rng(16)
    grid = gr.Grid.of_size((6, 5, 4))
    fields = rng.uniform(-1, 1, (2, 3, 4, 5, 6, 3))
    each = resolve(DisplacementField(fields), grid, volumes=6)
    assert len(each) == 6
    np.testing.assert_array_equal(each[4].steps[0].vectors, fields[1, 1])
    assert np.shares_memory(each[4].steps[0].vectors, fields)
    matrices = np.tile(np.eye(3, 4), (6, 1, 1)) + rng.uniform(-0.1, 0.1, (6, 3, 4))
    for given in (matrices, list(matrices), [m.tolist() for m in matrices], [Affine(m) for m in matrices]):
        made_ = resolve(given, grid, volumes=6)
        np.testing.assert_array_equal([p.affine[0] for p in made_], matrices[:, :, :3])
    both = resolve(Path([Affine(matrices[0]), DisplacementField(fields)]), grid, volumes=6)
    assert [len(p.steps) for p in both] == [2] * 6
    assert resolve(matrices[0], grid, volumes=6) == resolve(Affine(matrices[0]), grid)
    with pytest.raises(ValueError, match="one member for each of 5 volumes, got 6"):
        resolve(DisplacementField(fields), grid, volumes=5)
    with pytest.raises(ValueError, match="one member for each of 5 volumes, got 6"):
        resolve(matrices, grid, volumes=5)
    with pytest.raises(ValueError, match="one member for each of 2 volumes, got 1"):
        resolve([Affine(matrices[0])], grid, volumes=2)
    with pytest.raises(ValueError, match="as many volumes"):
        resolve(Path([DisplacementField(fields), DisplacementField(fields[0])]), grid, volumes=6)
    with pytest.raises(ValueError, match="leading axes within a list"):
        resolve([DisplacementField(fields), None], grid, volumes=2)


def test_hashing_reads_no_vector_and_tells_arrays_apart():
    grid = gr.Grid.of_size((6, 5, 4))
    values = np.full((4, 5, 6, 3), np.nan)
    a, b = (resolve(DisplacementField(values), grid)[0] for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    other = resolve(DisplacementField(values.copy()), grid)[0]
    nearest = resolve(DisplacementField(values, interpolation="nearest"), grid)[0]
    flipped = resolve(DisplacementField(values[::-1]), grid)[0]
    spline = resolve(BSpline(values, like=grid), grid)[0]
    assert len({a, other, nearest, flipped, spline}) == 5
    cube = np.zeros((4, 4, 4, 3))
    straight, turned = (
        resolve(DisplacementField(v), gr.Grid.of_size((4, 4, 4)))[0] for v in (cube, cube.swapaxes(0, 1))
    )
    assert straight != turned


def test_simpleitk_is_asked_once_for_a_spacing_and_direction(monkeypatch):
    rng = np.random.default_rng(17)
    grid = random_grid(3, rng, direction=np.array(rotation(11, 12, 13)))
    first = gr.Grid(grid.size, grid.spacing, grid.origin, grid.direction).point_to_index
    monkeypatch.setattr(sitk, "Image", None)
    again = gr.Grid((9, 9, 9), grid.spacing, (1.0, 2.0, 3.0), grid.direction).point_to_index
    assert again is first
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 1.0


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_blocks_lie_within_their_bounds(seed, tmp_path):
    rng = np.random.default_rng(seed)
    d = 2 + seed % 2
    names = CLASSES_3D if d == 3 else CLASSES_2D
    drawn = [draw(str(rng.choice(names)), d, rng, tmp_path) for _ in range(2)]
    drawn += [draw(str(rng.choice(LATTICES)), d, rng, tmp_path) for _ in range(seed % 3)]
    rng.shuffle(drawn)
    drawn = [t for t in drawn if t.GetDimension() == d]
    target, source = random_grid(d, rng, (5, 10)), random_grid(d, rng)
    route = made(Path(drawn), target, source)
    whole = route_oracle.coordinates(route, n_dst(target))
    loose = []
    for _ in range(20):
        block = tuple(tuple(sorted(rng.choice(n + 1, 2, replace=False).tolist())) for n in n_dst(target))
        (z0, z1), (y0, y1), (x0, x1) = block
        part = whole[z0:z1, y0:y1, x0:x1].reshape(-1, 3)
        bounds = paths.source_box(route, block)
        for (lo, hi), x in zip(bounds[::-1], part.T, strict=True):
            assert lo <= x.min()
            assert x.max() <= hi
            loose.append((hi - lo) - (x.max() - x.min()))
    if route.lines:
        # Of a line's block the corners are the bounds.
        assert max(loose) < 1e-9


def test_bounds_are_as_tight_as_the_vectors_near():
    """A field that is large at one end does not widen the bounds of the other; bricks of large lattices too."""
    target = gr.Grid.of_size((200, 40, 40))
    values = np.zeros((40, 40, 200, 3), np.float32)
    values[..., 150:, 0] = 30.0
    values[..., 150:, 1] = -7.0
    values[39, 39, 199] = (45.0, -7.0, 8.0)  # in bricks that the lattice's ends cut short
    route = made(DisplacementField(values), target, target)
    (z, y, x) = paths.source_box(route, ((0, 40), (0, 40), (0, 100)))
    assert [np.round(k, 6).tolist() for k in (z, y, x)] == [[0, 39], [0, 39], [0, 99]]
    (z, y, x) = paths.source_box(route, ((0, 40), (0, 40), (170, 200)))
    assert [np.round(k, 6).tolist() for k in (z, y, x)] == [[0, 47], [-7, 32], [200, 244]]
    (z, y, x) = paths.source_box(route, ((0, 2), (3, 5), (20, 25)))
    assert [np.round(k, 6).tolist() for k in (z, y, x)] == [[0, 1], [3, 4], [20, 24]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [6, 40])
def test_bounds_leave_out_vectors_that_are_not_finite(size, bad):
    target = gr.Grid.of_size((size, size, size))
    values = np.zeros((size, size, size, 3))
    values[2, 2, 2] = bad
    values[3, 3, 3] = (1.0, 2.0, -3.0)
    route = made(DisplacementField(values), target, target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z, y, x = paths.source_box(route, ((0, size),) * 3)
    last = size - 1
    assert [np.round(k, 6).tolist() for k in (z, y, x)] == [[-3, last], [0, last + 2], [0, last + 1]]
    values[...] = bad
    route = made(DisplacementField(values), target, target)
    assert np.round(paths.source_box(route, ((0, size),) * 3), 6).tolist() == [[0, last]] * 3


def test_the_bounds_of_a_block_count_from_its_start():
    rng = np.random.default_rng(18)
    target, source = random_grid(3, rng, (6, 9)), random_grid(3, rng)
    field = rng.uniform(-2, 2, (*target.size[::-1], 3))
    for transform in (draw("affine", 3, rng, None), DisplacementField(field)):
        route = made(transform, target, source)
        part = paths.Route(route.step, route.origin, route.stages, route.inverse, route.origin_in, route.n0, (2, 1, 3))
        block = ((1, 2), (2, 4), (0, 3))
        there = ((4, 5), (3, 5), (2, 5))
        assert paths.source_box(part, block) == paths.source_box(route, there)
        x = route_oracle.coordinates(part, (2, 3, 3))
        whole = route_oracle.coordinates(route, n_dst(target))
        np.testing.assert_array_equal(x, whole[3:5, 1:4, 2:5])


def test_a_path_that_leads_nowhere_near_the_image_is_warned_of():
    image, field = np.zeros((4, 5, 6), np.float32), np.zeros((4, 5, 6, 3))
    near = [Affine(np.eye(3), (0, 0, 5.4)), DisplacementField(field), Affine(np.eye(3), (0, 0, -5.5))]
    # What is brought back by its vectors reaches it.
    near.append(Path([DisplacementField(field + 100.0), Affine(np.eye(3), (-100.0, -100.0, -100.0))]))
    far = [Affine(np.eye(3), (0, 0, 6.1)), DisplacementField(field + 9.0), Affine(np.eye(3), (0, -5.6, 0))]
    far.append(Affine([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]], (0, 0, 90)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for transform in near:
            gr.plan(image, transform=transform)
    for transform in far:
        with pytest.warns(RuntimeWarning, match="nowhere near the image"):
            assert not gr.resample(image + 1.0, transform=transform, interpolation="linear").any()


# --- refusals --------------------------------------------------------------------------------------------------------


GRID = gr.Grid.of_size((6, 5, 4))


def inf_transform():
    t = sitk.AffineTransform(3)
    t.SetTranslation((math.inf, 0.0, 0.0))
    return t


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Affine(np.eye(5)), ValueError, r"matrix must have shape .*, got shape \(5, 5\)"),
        (lambda: Affine([[1, 0], [0, "x"]]), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine([[1, 0], [0]]), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine([[1, 0], [0, 10**400]]), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine(range(10**12)), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine([range(10**12)] * 3), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine(itertools.count()), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine([[1, 0], [0, 1j]]), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine({1, 2}), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine(object()), TypeError, "matrix must be an array of numbers"),
        (lambda: Affine(np.eye(2), (range(10**12),)), ValueError, "offset must have 2 values"),
        (lambda: Affine(np.eye(2), range(10**12)), ValueError, "offset must have 2 values"),
        (lambda: Affine(np.eye(2), [1, np.zeros((2, 2))]), TypeError, "offset must be 2 finite numbers"),
        (lambda: Affine(np.eye(2), 10**400), ValueError, "offset must be 2 finite numbers"),
        (lambda: Affine(np.eye(2), 0, itertools.count()), ValueError, "center must have 2 values"),
        (lambda: Affine(np.diag([1, np.nan, 1])), ValueError, "matrix must be of finite numbers"),
        (lambda: Affine(np.eye(3), np.inf), ValueError, "offset must be 3 finite numbers"),
        (lambda: Affine(np.eye(3), (1, 2)), ValueError, "offset must have 3 values"),
        (lambda: Affine(np.eye(3), 0, (1, np.nan, 2)), ValueError, "center must be 3 finite numbers"),
        (lambda: Affine(np.eye(3, 4), 2), ValueError, "offset must be 0 with a matrix that has one"),
        (lambda: Affine(np.ones((4, 4))), ValueError, "as its last row"),
        (lambda: DisplacementField(np.zeros((4, 5, 6))), ValueError, "components last"),
        (lambda: DisplacementField(np.zeros((4, 5, 6, 4))), ValueError, "components last"),
        (lambda: DisplacementField(np.zeros((6, 3))), ValueError, "components last"),
        (lambda: DisplacementField(np.zeros((0, 5, 6, 3))), ValueError, "must not be empty"),
        (lambda: DisplacementField(np.zeros((4, 5, 6, 3), complex)), TypeError, "real numbers"),
        (lambda: DisplacementField("field"), TypeError, "vectors must be"),
        (lambda: DisplacementField(np.zeros((4, 5, 6, 3)), interpolation="cubic"), ValueError, "interpolation must be"),
        (lambda: DisplacementField(np.zeros((4, 5, 6, 3)), like=GRID), None, None),
        (lambda: DisplacementField(np.zeros((4, 5, 7, 3)), like=GRID), ValueError, "shape of like"),
        (lambda: DisplacementField(np.zeros((4, 5, 7, 3)), like=np.zeros((4, 5, 6))), ValueError, "shape of like"),
        (lambda: DisplacementField(np.zeros((5, 6, 2)), like=GRID), ValueError, "2 dimensions"),
        (lambda: DisplacementField(sitk.Image([3, 3, 3], sitk.sitkFloat64)), ValueError, "3 components"),
        (lambda: DisplacementField(sitk.Image([3, 3, 3], sitk.sitkVectorFloat64, 2)), ValueError, "3 components"),
        (lambda: DisplacementField(sitk.Image([3, 3, 3], sitk.sitkVectorFloat64, 3), GRID), ValueError, "of their own"),
        (lambda: DisplacementField(gr.Volume(np.zeros((4, 5, 6)), (1, 1, 1))), ValueError, "in a Volume"),
        (lambda: DisplacementField(nib.Nifti1Image(np.zeros((4, 5, 6, 3)), np.eye(4))), ValueError, "intent"),
        (lambda: DisplacementField(nib.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4))), ValueError, "must have shape"),
        (lambda: BSpline(np.zeros((4, 4, 3, 3))), ValueError, "at least 4 control points"),
        (lambda: BSpline(np.zeros((4, 4, 3, 3)), order=2), None, None),
        (lambda: BSpline(np.zeros((4, 4, 4, 3)), order=4), ValueError, "order must be 1, 2 or 3"),
        (lambda: BSpline(np.zeros((4, 4, 4, 3)), order=0), ValueError, "order must be 1, 2 or 3"),
        (lambda: BSpline(np.zeros((4, 4, 4, 3)), order=np.array([3, 3])), TypeError, "order must be 1, 2 or 3"),
        (lambda: BSpline(np.zeros((4, 4, 4, 3)), order=sitk.Image(2, 2, 13)), TypeError, "order must be 1, 2 or 3"),
        (lambda: BSpline.over(np.zeros((4, 4, 4, 3)), np.zeros((4, 4, 4))), TypeError, "domain must be"),
        (lambda: Path(Affine(np.eye(3))), TypeError, "must be a list of transforms"),
        (lambda: Path(["a"]), TypeError, "transform must be a SimpleITK.Transform"),
        (lambda: Path([[Affine(np.eye(3))]]), TypeError, "transform must be a SimpleITK.Transform"),
    ],
)
def test_what_makes_no_transform_is_refused(make, error, match):
    if error is None:
        make()
        return
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("transform", "error", "match"),
    [
        (np.eye(3), ValueError, r"got shape \(3, 3\); Affine\(matrix, center=...\)"),
        (np.eye(2, 3), ValueError, r"got shape \(2, 3\)"),
        (np.full((3, 4), np.nan), ValueError, "finite"),
        (np.ones((4, 4)), ValueError, "last row"),
        (Affine(np.eye(2)), ValueError, "dimension 3, got a 2-D Affine"),
        (DisplacementField(np.zeros((5, 6, 2))), ValueError, "dimension 3, got a 2-D DisplacementField"),
        (BSpline(np.zeros((5, 6, 2))), ValueError, "dimension 3, got a 2-D BSpline"),
        (sitk.Euler2DTransform(), ValueError, "dimension 3, got a 2-D Euler2DTransform"),
        (Path([Affine(np.eye(2))]), ValueError, "dimension 3"),
        (DisplacementField(np.zeros((4, 5, 7, 3))), ValueError, r"output's shape \(4, 5, 6\) unless like"),
        (inf_transform(), ValueError, "finite parameters"),
        (sitk.CompositeTransform([inf_transform()]), ValueError, "finite parameters"),
        ("rotate", TypeError, "transform must be a SimpleITK.Transform"),
        (3.0, TypeError, "transform must be a SimpleITK.Transform"),
        ([], ValueError, "one member for each"),
        (["a"], TypeError, "transform must be a SimpleITK.Transform"),
    ],
)
def test_what_does_not_fit_a_call_is_refused(transform, error, match):
    with pytest.raises(error, match=match):
        resolve(transform, GRID)


def test_a_3x3_is_homogeneous_in_2d():
    m = np.array([[1.0, 0.1, 3.0], [0.0, 1.0, 4.0], [0.0, 0.0, 1.0]])
    (path,) = resolve(m, gr.Grid.of_size((5, 6)))
    np.testing.assert_array_equal(path.affine[1], [3.0, 4.0])


FAR = [1e16, 1e17, 1e100, 1e300]


@pytest.mark.parametrize("far", FAR)
def test_grids_where_float64_cannot_tell_voxels_apart_are_refused(far):
    away = gr.Grid((6, 5, 4), (1, 1, 1), (0, far, 0), GRID.direction)
    for target, source in ((away, GRID), (GRID, away), (away, away)):
        with pytest.raises(ValueError, match="float64 can tell neighbouring voxels apart"):
            paths.route(target, source)
    with pytest.raises(ValueError, match="float64 can tell neighbouring voxels apart"):
        made(Affine(np.eye(3), (far, 0, 0)), GRID, GRID)
    # Farther apart than they are far, voxels can be told.
    assert made(Affine(np.diag([1, 1e100, 1])), GRID, GRID).lines


@pytest.mark.parametrize("far", [1e3, 1e9, 1e14])
def test_grids_that_float64_tells_apart_are_not(far):
    away = gr.Grid((6, 5, 4), (1, 1, 1), (0, far, 0), GRID.direction)
    for target, source in ((away, GRID), (GRID, away), (away, away)):
        x = route_oracle.coordinates(paths.route(target, source), (4, 5, 6))
        assert (np.diff(x[0, :, 0, 1]) > 0.5).all()
    assert made(Affine(np.eye(3), (far, 0, 0)), GRID, GRID).lines


def test_huge_voxels_are_told_apart():
    huge = gr.Grid((1, 1, 1), (1e20, 1e20, 1e20), (5e19, 5e19, 5e19), GRID.direction)
    x = route_oracle.coordinates(paths.route(huge, GRID), (1, 1, 1))
    np.testing.assert_array_equal(x, np.full((1, 1, 1, 3), 5e19))


def test_vectors_on_a_gpu_are_refused_by_name(monkeypatch):
    class Held:
        where = "cuda:0"

    monkeypatch.setattr("gpuresample.containers.vectors.hold", lambda given, name: Held())
    with pytest.raises(TypeError, match="vectors must be in host memory, got an array on cuda:0"):
        vectors_of("vectors", np.zeros((4, 4, 4, 3)))


# --- traps -----------------------------------------------------------------------------------------------------------


def moved(transform, point, grid=GRID):
    """Where a point goes, by way of a route between grids with that point as their only voxel."""
    d = len(point)
    one = gr.Grid((1,) * d, (1.0,) * d, tuple(map(float, point)), tuple(np.eye(d).ravel().tolist()))
    still = gr.Grid((1,) * d, (1.0,) * d, (0.0,) * d, tuple(np.eye(d).ravel().tolist()))
    return route_oracle.coordinates(made(transform, one, still), (1, 1, 1))[0, 0, 0, :d]


def test_trap_the_last_member_of_a_composite_acts_first():
    shift, scale = sitk.TranslationTransform(3, (1.0, 0, 0)), sitk.ScaleTransform(3, (2.0, 2, 2))
    assert moved(sitk.CompositeTransform([shift, scale]), (1, 0, 0))[0] == 3
    assert moved(Path([scale, shift]), (1, 0, 0))[0] == 3
    assert moved(Path([shift, scale]), (1, 0, 0))[0] == 4


def test_trap_a_path_inverts_nothing_by_itself():
    """Unlike antspyx, which inverts a matrix that stands before a warp."""
    warp = DisplacementField(np.zeros((4, 5, 6, 3)), like=GRID)
    affine = Affine(np.eye(3), (1, 2, 3))
    np.testing.assert_array_equal(moved(Path([affine, warp]), (0, 0, 0)), [1, 2, 3])
    np.testing.assert_array_equal(moved(Path([affine.inverse(), warp]), (0, 0, 0)), [-1, -2, -3])


def test_trap_a_fields_outer_half_voxel_has_the_edges_value():
    field = np.zeros((4, 5, 6, 3))
    field[:, :, 5, 0] = 2.0
    for x, d in ((5.0, 2.0), (5.49, 2.0), (5.5, 0.0), (4.5, 1.0)):
        assert moved(DisplacementField(field, like=GRID), (x, 1, 1))[0] == x + d


def test_trap_the_faces_of_a_splines_domain():
    t = sitk.BSplineTransform(1 + 1, 3)
    t.SetTransformDomainOrigin((0.0, 0.0))
    t.SetTransformDomainPhysicalDimensions((10.0, 10.0))
    t.SetTransformDomainMeshSize((5, 5))
    t.SetParameters([1.0] * t.GetNumberOfParameters())
    for x, d in ((10.0, 1.0), (10.0 + 1e-14, 0.0), (-1e-16, 1.0), (-1e-12, 0.0)):
        expected = t.TransformPoint((x, 5.0))
        assert abs(expected[0] - (x + d)) < 1e-9
        np.testing.assert_array_equal(moved(t, (x, 5.0)), expected)


def test_trap_components_are_not_turned_with_the_lattice():
    grid = gr.Grid((6, 6, 6), (1, 1, 1), (0, 0, 0), flat(rotation(0, 0, 90)))
    point = grid.points(np.array([[2.5, 2.5, 2.5]]))[0]
    values = np.zeros((6, 6, 6, 3))
    values[..., 0] = 1.0
    np.testing.assert_allclose(moved(BSpline(values, like=grid), point) - point, [1, 0, 0], atol=1e-14)


def test_trap_a_scale_versor_adds_its_scales():
    t = sitk.ScaleVersor3DTransform()
    t.SetParameters((0, 0, math.sqrt(0.5), 0, 0, 0, 2, 2, 2))
    np.testing.assert_allclose(moved(t, (1, 0, 0)), (1, 1, 0), atol=1e-15)


def test_trap_the_order_of_euler_angles():
    t = sitk.Euler3DTransform((0, 0, 0), math.pi / 2, math.pi / 2, 0)
    np.testing.assert_allclose(moved(t, (1, 0, 0)), (0, 1, 0), atol=1e-15)
    t.SetComputeZYX(True)
    np.testing.assert_allclose(moved(t, (1, 0, 0)), (0, 0, -1), atol=1e-15)


def test_trap_a_vector_image_is_not_emptied():
    image = to_field(np.ones((4, 5, 6, 3)), GRID)
    field = DisplacementField(image)
    assert image.GetSize() == (6, 5, 4)
    assert np.shares_memory(field.vectors, sitk.GetArrayViewFromImage(image))
    sitk.DisplacementFieldTransform(image)
    assert not any(image.GetSize())


def test_trap_the_initializers_lattice_on_a_flipped_image():
    image = sitk.Image([20, 20, 20], sitk.sitkUInt8)
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    t = sitk.BSplineTransformInitializer(image, (4, 4, 4))
    rng = np.random.default_rng(0)
    t.SetParameters(rng.uniform(-1, 1, t.GetNumberOfParameters()).tolist())
    np.testing.assert_allclose(image.TransformPhysicalPointToContinuousIndex(t.GetTransformDomainOrigin())[0], 19.625)
    target = gr.Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    route = made(t, target, target)
    (stage,) = route.stages
    assert stage.table is not None
    actual = route_oracle.coordinates(route, (20, 20, 20), tables=True)[::7, ::7, ::3]
    for (z, y, x), there in zip(np.ndindex(actual.shape[:3]), actual.reshape(-1, 3), strict=True):
        point = t.TransformPoint(image.TransformIndexToPhysicalPoint((3 * x, 7 * y, 7 * z)))
        np.testing.assert_allclose(there, image.TransformPhysicalPointToContinuousIndex(point), atol=1e-12)
