"""Routes in the CUDA kernels, run on the CPU: where voxels lie, to the bit; batches, blocks, what is far."""

import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np
import path_oracle
import pytest
import SimpleITK as sitk
from cuda_support import Guarded, assert_seen, holds, identity, patched, run_twice, separable
from support import assert_close, flat, labels, noise, of_grid, reference, rotation, same_bits, to_image

import gpuresample as gr
from gpuresample.engines.cuda import gather as cuda_gather
from gpuresample.engines.cuda import routes as cuda_routes
from gpuresample.engines.cuda import runtime as cuda_runtime
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.footprint import footprint
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.cuda.runtime import Launch, Pointer, Types, Uploads
from gpuresample.engines.cuda.staging import Staged
from gpuresample.engines.interface import Store
from gpuresample.planning import planner
from gpuresample.planning.filters import FILTERS
from gpuresample.planning.works import RULES, Lattice, Linear, Majority, Route

pytestmark = pytest.mark.kernels

# The numeric contract's bound for float64, of the range.
DOUBLE = 1e-9
TURNED = flat(rotation(13, -7, 24))
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)
SOURCE = gr.Grid((19, 14, 11), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), flat(rotation(4, 9, -5)))
# Rows longer than the voxels that a block's row has.
TARGET = gr.Grid((141, 5, 7), (0.15, 2.2, 2.1), (2.0, -4.0, 0.5), TURNED)
SHAPE = TARGET.size[::-1]

READ_OUT = """
// v1
#include "path.cuh"
template <int PATH>
static __device__ __forceinline__ void read(
    const route_t *routes, const int many, const int n_z, const int n_y, const int n_x, double *out)
{
    DYNAMIC_SHARED(shared_t, shared);
    row_t row = begin_row(routes, many, n_z, n_y, n_x, shared);
    if (!row.exists) return;
    if (PATH == FIELD) begin_field(row);
    double *line = out + (((long long)row.volume * n_z + row.z) * n_y + row.y) * n_x * 3;
    for (int strip = 0, x = row.x; strip < STRIPS && x < n_x; strip++, x += LANES)
        locate<PATH>(row, x, line + x * 3);
}
extern "C" __global__ void read_lines(
    const route_t *routes, const int many, const int n_z, const int n_y, const int n_x, double *out)
{
    read<LINES>(routes, many, n_z, n_y, n_x, out);
}
extern "C" __global__ void read_lattice(
    const route_t *routes, const int many, const int n_z, const int n_y, const int n_x, double *out)
{
    read<ANY>(routes, many, n_z, n_y, n_x, out);
}
extern "C" __global__ void read_field(
    const route_t *routes, const int many, const int n_z, const int n_y, const int n_x, double *out)
{
    read<FIELD>(routes, many, n_z, n_y, n_x, out);
}
"""


def located(routes, n_dst, volumes=1, read=cuda_runtime.read, runtime=None):
    """The kernels' own coordinates [volume, z, y, x, 3]."""
    runtime = runtime or Guarded(read=lambda name: READ_OUT if name == "read_out.cu" else read(name))
    rows, keep = cuda_routes.packed(runtime, Uploads(runtime), routes, n_dst)
    packed = runtime.upload(rows.view(np.uint8))
    out = runtime.empty((volumes, *n_dst, 3), np.float64)
    function = "read" + (cuda_routes.kind_of(routes) or "_lines")
    arguments = [
        Pointer(runtime.address(packed), cuda_routes.ROUTE.itemsize, packed), np.int32(len(routes) > 1),
        *[np.int32(n) for n in n_dst], Pointer(runtime.address(out), 8, out),
    ]  # fmt: skip
    blocks = volumes * cuda_routes.blocks(n_dst)
    block = (cuda_routes.LANES, cuda_routes.ROWS)
    types = Types("int16", "float32")
    runtime.launch(Launch("read_out", function, types, blocks, block, arguments, cuda_routes.SHARED_BYTES))
    del keep
    return out.copy()


# --- routes of SimpleITK's transforms -------------------------------------------------------------------------------


def lattice_of(image, kind, order=1):
    """A stage of a vector image [z, y, x, 3]."""
    grid = gr.Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    vectors = sitk.GetArrayFromImage(image)
    return Lattice(vectors, grid.point_to_index, np.array(grid.origin), kind, order, None, direct=False)


def field_image(size, spacing, origin, direction, scale=2.0, seed=0):
    values = np.random.default_rng(seed).standard_normal((*size[::-1], 3)) * scale
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def field(kind="linear", direction=TURNED, origin=(1.0, -5.0, -1.0), seed=0):
    """A displacement field that covers part of the target: SimpleITK's transform, and the stage."""
    image = field_image((6, 7, 5), (3.1, 2.9, 3.3), origin, direction, seed=seed)
    stage = lattice_of(image, kind)
    transform = sitk.DisplacementFieldTransform(sitk.Image(image))
    if kind == "nearest":
        transform.SetInterpolator(sitk.sitkNearestNeighbor)
    return transform, stage


def bspline(order, direction=TURNED, origin=(1.0, -5.0, -1.0), seed=0):
    """A B-spline transform whose domain covers part of the target, and the stage."""
    transform = sitk.BSplineTransform(3, order)
    transform.SetTransformDomainOrigin(origin)
    transform.SetTransformDomainDirection(direction)
    transform.SetTransformDomainPhysicalDimensions((16.0, 13.0, 14.0))
    transform.SetTransformDomainMeshSize((5, 4, 6))
    transform.SetParameters(2 * np.random.default_rng(seed).standard_normal(len(transform.GetParameters())))
    fixed = transform.GetFixedParameters()
    size = tuple(int(n) for n in fixed[:3])
    grid = gr.Grid(size, fixed[6:9], fixed[3:6], fixed[9:])
    vectors = np.moveaxis(np.reshape(transform.GetParameters(), (3, *size[::-1])), 0, -1)
    return transform, Lattice(vectors, grid.point_to_index, np.array(grid.origin), "spline", order, None, direct=False)


def affine(seed=0):
    rng = np.random.default_rng(seed)
    matrix, offset = np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)), rng.uniform(-1, 1, 3)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix.ravel())
    transform.SetTranslation(offset)
    return transform, Linear(matrix, offset)


def route(*stages, target=TARGET, source=SOURCE, start=(0, 0, 0)):
    return Route(
        target.index_to_point, np.array(target.origin), stages or (Linear(np.eye(3), np.zeros(3)),),
        source.point_to_index, np.array(source.origin), target.size[0], start,
    )  # fmt: skip


CASES = {
    "affine": lambda: [affine()],
    "field": lambda: [field()],
    "nearest field": lambda: [field("nearest")],
    "flipped field": lambda: [field(direction=FLIPPED, origin=(12.0, -5.0, -1.0))],
    "spline 1": lambda: [bspline(1)],
    "spline 2": lambda: [bspline(2)],
    "spline 3": lambda: [bspline(3)],
    "flipped spline": lambda: [bspline(3, FLIPPED, (12.0, -5.0, -1.0))],
    "affine, field": lambda: [affine(), field()],
    "spline, affine, field, affine": lambda: [bspline(3), affine(), field(), affine(2)],
}


def of_case(name):
    """SimpleITK's transform and the route of it; the first pair acts first."""
    pairs = CASES[name]()
    transform = sitk.CompositeTransform([t for t, _ in reversed(pairs)]) if len(pairs) > 1 else pairs[0][0]
    return transform, route(*[stage for _, stage in pairs])


def by_simpleitk(transform, target=TARGET, source=SOURCE):
    """SimpleITK's index of every voxel, asked one by one."""
    out = np.empty((*target.size[::-1], 3))
    to, image = (to_image(np.zeros(g.size[::-1], "u1"), of_grid(g)) for g in (target, source))
    for k, j, i in np.ndindex(*target.size[::-1]):
        p = transform.TransformPoint(to.TransformIndexToPhysicalPoint((i, j, k)))
        out[k, j, i] = image.TransformPhysicalPointToContinuousIndex(p)
    return out


@pytest.mark.parametrize("name", CASES)
def test_voxels_lie_where_simpleitk_has_them(name):
    transform, way = of_case(name)
    got = located([way], SHAPE)[0]
    expected = path_oracle.coordinates(way, SHAPE)
    assert same_bits(got, expected)
    theirs = by_simpleitk(transform)
    # The oracle has the order of ITK's operations, but its own matrices.
    assert_close(got, theirs, 1e-11)
    plain = path_oracle.coordinates(route(), SHAPE)
    moved = np.abs(got - plain).max(axis=-1) > 1e-9
    assert moved.any()
    if name != "affine" and "affine" not in name:
        assert not moved.all(), "some voxels should lie outside the lattice"


def check_field(read=cuda_runtime.read):
    """Fields on the output's voxels, and on a block of them, along axes of either sense: the whole formula's bits."""
    size = (141, 5, 7)
    along = gr.Grid(size, (0.7, 1.25, 1.5), (3.0, -2.0, 1.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    source = gr.Grid((101, 14, 11), (1.0, 0.9, 1.1), (-3.0, 2.0, 1.5), (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    for dtype in ("float32", "float64"):
        vectors = np.random.default_rng(5).normal(0, 3, (*size[::-1], 3)).astype(dtype)
        vectors[2, 3, 40:43] = np.array([[np.nan, 0, 0], [0, np.inf, 0], [1e30, 0, -1e30]])
        stage = Lattice(vectors, along.point_to_index, np.array(along.origin), "linear", 1, None, direct=True)
        for start, n_dst in (((0, 0, 0), size[::-1]), ((5, 1, 2), (4, 3, 133))):
            way = route(stage, target=along, source=source, start=start)
            assert cuda_routes.kind_of([way]) == "_field"
            got = located([way], n_dst, read=read)[0]
            with np.errstate(invalid="ignore"):
                expected = path_oracle.coordinates(way, n_dst)
            # What is not finite is outside, whether it spreads to other axes or not.
            finite = np.isfinite(expected).all(axis=-1)
            assert (np.isfinite(got).all(axis=-1) == finite).all()
            assert same_bits(np.ascontiguousarray(got[finite] + 0.0), np.ascontiguousarray(expected[finite] + 0.0))


def test_fields_lie_where_the_whole_formula_has_them():
    check_field()


EYE = flat(rotation(0, 0, 0))
UNIT = gr.Grid((9, 9, 9), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE)


def check_faces(order, read=cuda_runtime.read):
    """Points on all faces of a spline's domain, and a few units of the last place around them."""
    size = (16.0, 13.0, 14.0)
    transform, stage = bspline(order, EYE, (0.0, 0.0, 0.0))
    for axis, upper in itertools.product(range(3), (0, 1)):
        face = upper * size[axis]
        # A row of voxels whose points are so close that a row's ends are the same ones.
        step = np.zeros((3, 3))
        step[axis, 0] = np.spacing(face) if upper else 1e-17
        origin = np.full(3, 5.0)
        origin[axis] = face - 20 * step[axis, 0]
        way = Route(step, origin, (stage,), np.eye(3), np.zeros(3), 41, (0, 0, 0))
        got = located([way], (1, 1, 41), read=read)[0, 0, 0]
        points = [np.where(np.arange(3) == axis, origin + step[:, 0] * i, origin) for i in range(41)]
        assert same_bits(got, np.array([transform.TransformPoint(p.tolist()) for p in points]))
        assert same_bits(got, path_oracle.coordinates(way, (1, 1, 41))[0, 0])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_faces_of_a_splines_domain_are_itks(order):
    check_faces(order)


def check_rims(read=cuda_runtime.read):
    """A field's outer half voxel, its faces, and points so close to a node that the others weigh nothing to ITK."""
    vectors = np.random.default_rng(5).standard_normal((3, 4, 5, 3))
    vectors[0, 0, :2] = [[1e-9] * 3, [1e9] * 3]
    transform = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    stage = Lattice(vectors, np.eye(3), np.zeros(3), "linear", 1, None, direct=False)
    for start, pace in (((-1.0, 1.1, 0.9), 0.125), ((-0.4, -0.5, -0.3), 0.25), ((0.0, 0.0, 0.0), 1e-17)):
        step = np.zeros((3, 3))
        step[0, 0] = pace
        way = Route(step, np.array(start), (stage,), np.eye(3), np.zeros(3), 55, (0, 0, 0))
        got = located([way], (1, 1, 55), read=read)[0, 0, 0]
        assert same_bits(got, path_oracle.coordinates(way, (1, 1, 55))[0, 0])
        points = [(np.array(start) + step[:, 0] * i).tolist() for i in range(55)]
        assert same_bits(got, np.array([transform.TransformPoint(p) for p in points]))


def test_the_rims_of_a_field_are_itks():
    check_rims()


def test_a_route_in_2d_is_padded():
    size = (6, 7)
    vectors = np.zeros((1, *size[::-1], 3))
    vectors[..., :2] = np.random.default_rng(1).standard_normal((1, *size[::-1], 2))
    inverse = np.eye(3)
    inverse[:2, :2] = [[0.5, 0.1], [-0.1, 0.4]]
    for kind, order in (("spline", 3), ("spline", 2), ("linear", 1), ("nearest", 1)):
        stage = Lattice(vectors, inverse, np.array([-1.0, -2.0, 0.0]), kind, order, None, direct=False)
        step = np.diag([0.3, 0.4, 1.0])
        way = Route(step, np.zeros(3), (stage,), np.eye(3), np.zeros(3), 33, (0, 0, 0))
        got = located([way], (1, 21, 33))[0]
        assert same_bits(got, path_oracle.coordinates(way, (1, 21, 33)))
        assert (got[..., 2] == 0).all()
        assert (np.abs(got[..., 0] - np.arange(33) * 0.3) > 1e-6).any()


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
def test_vectors_at_any_strides_and_types(dtype):
    class AsItIs(Guarded):
        """The device has the array already."""

        def upload(self, array):
            return array if array.dtype.kind == "f" else super().upload(array)

    _, stage = field()
    base = np.zeros((3, *stage.vectors.shape[:3]), dtype)
    base[...] = np.moveaxis(stage.vectors, -1, 0)
    strided = np.moveaxis(base[:, ::-1], 0, -1)[::-1]
    way = route(replace(stage, vectors=strided))
    runtime = AsItIs(read=lambda name: READ_OUT if name == "read_out.cu" else cuda_runtime.read(name))
    got = located([way], SHAPE, runtime=runtime)[0]
    assert same_bits(got, path_oracle.coordinates(way, SHAPE))


@pytest.mark.parametrize("name", ["affine", "spline, affine, field, affine", "direct"])
def test_a_block_has_the_bits_of_the_whole(name):
    if name == "direct":
        vectors = np.random.default_rng(4).standard_normal((*SHAPE, 3))
        stage = Lattice(vectors, TARGET.point_to_index, np.array(TARGET.origin), "linear", 1, None, direct=True)
        way = route(stage)
    else:
        way = of_case(name)[1]
    whole = located([way], SHAPE)[0]
    assert same_bits(whole, path_oracle.coordinates(way, SHAPE))
    for z, y, x, n in ((1, 2, 5, (3, 3, 130)), (6, 4, 140, (1, 1, 1)), (0, 0, 33, (7, 5, 31))):
        part = located([replace(way, start=(x, y, z))], n)[0]
        assert same_bits(part, np.ascontiguousarray(whole[z : z + n[0], y : y + n[1], x : x + n[2]]))


# --- whole gathers --------------------------------------------------------------------------------------------------


def gather(way, interpolation="linear", boundary=None, precision="double", n_dst=SHAPE, source=SOURCE):
    """The planner's gather onto a grid that is turned, with routes of our own."""
    work = planner.make_work(source, TARGET, (), interpolation, boundary, False, precision)
    ways = way if isinstance(way, tuple) else (way,)
    return replace(work, routes=ways, n_dst=n_dst)


def run(work, store=None):
    return lambda engine, src, dst: engine.run(work, src, dst, store or Store())


KERNELS = {
    "nearest": "gather_copy", "linear": "gather_linear", "bspline3": "gather_cubic", "hamming": "gather_any",
    "label_linear": "vote_linear", "label_gaussian": "vote_gaussian",
}  # fmt: skip


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("name", ["affine", "field", "spline 3", "spline, affine, field, affine"])
def test_gathers_along_routes_are_simpleitks(name, interpolation):
    transform, way = of_case(name)
    chosen = FILTERS[interpolation].method != "sum"
    src = labels(SOURCE.size[::-1], "int16") if chosen else noise(SOURCE.size[::-1], "float64")
    pixel = sitk.sitkInt16 if chosen else None
    expected = reference(to_image(src, of_grid(SOURCE)), TARGET, interpolation, transform, 9.0, pixel)
    out, runtimes = run_twice(run(gather(way, interpolation), Store(9)), src, SHAPE, src.dtype)
    kernel = KERNELS[interpolation] + ("" if name == "affine" else "_lattice")
    assert runtimes[0].launches[kernel] == 1
    inside = expected != 9
    assert inside.any()
    assert not inside.all()
    if chosen:
        assert same_bits(out, expected)
    else:
        assert ((out == 9) == ~inside).all()
        assert_close(out, expected, DOUBLE * np.ptp(src))


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "label_gaussian"])
@pytest.mark.parametrize("routes", ["one", "each"])
def test_a_batch_is_one_launch(interpolation, routes):
    ways = tuple(route(affine(seed)[1]) for seed in range(7))
    chosen = FILTERS[interpolation].method != "sum"
    dtype = "int16" if chosen else "float32"
    src = noise((7, *SOURCE.size[::-1]), dtype)
    work = gather(ways if routes == "each" else ways[0], interpolation, precision="single")
    out, runtimes = run_twice(run(work), src, (7, *SHAPE), dtype)
    alone = []
    for volume in range(7):
        one = replace(work, routes=(ways[volume if routes == "each" else 0],))
        single, lone = run_twice(run(one), src[volume], SHAPE, dtype)
        assert same_bits(single, np.ascontiguousarray(out[volume]))
        alone.append(lone[0].launches)
    assert all(launches == runtimes[0].launches for launches in alone)


def test_a_batch_of_leading_axes_that_do_not_merge():
    ways = tuple(route(affine(seed)[1]) for seed in range(6))
    src = noise((2, 3, *SOURCE.size[::-1]), "float32")
    padded = np.zeros((2, 4, *SOURCE.size[::-1]), "float32")
    padded[:, :3] = src
    work = gather(ways, precision="single")
    expected, _ = run_twice(run(work), src, (2, 3, *SHAPE), "float32")
    out = np.empty((2, 3, *SHAPE), np.float32)
    CudaEngine(Guarded()).run(work, padded[:, :3], out, Store())
    assert same_bits(out, expected)
    assert not same_bits(out[0, 0], out[1, 0])


def test_lines_and_lattices_in_one_batch():
    ways = (of_case("affine")[1], of_case("field")[1])
    src = noise((2, *SOURCE.size[::-1]), "float32")
    out, runtimes = run_twice(run(gather(ways)), src, (2, *SHAPE), "float32")
    assert runtimes[0].launches == {"gather_linear_lattice": 1}
    for volume in range(2):
        one, _ = run_twice(run(gather(ways[volume])), src[volume], SHAPE, "float32")
        assert same_bits(one, np.ascontiguousarray(out[volume]))


def test_large_batches_are_prefiltered_in_parts(monkeypatch):
    ways = tuple(route(affine(seed)[1]) for seed in range(5))
    src = noise((5, *SOURCE.size[::-1]), "float32")
    work = gather(ways, "bspline3", precision="single")
    whole, runtimes = run_twice(run(work), src, (5, *SHAPE), "float32")
    assert runtimes[0].launches["gather_cubic"] == 1
    monkeypatch.setattr(cuda_gather, "PREFILTER_BYTES", 2 * cuda_gather.coefficient_bytes(work))
    parts, runtimes = run_twice(run(work), src, (5, *SHAPE), "float32")
    assert runtimes[0].launches["gather_cubic"] == 3
    assert same_bits(whole, parts)


def test_the_number_of_routes_must_be_that_of_the_volumes():
    ways = tuple(route(affine(seed)[1]) for seed in range(2))
    with pytest.raises(ValueError, match="one for each of the volumes, got 2"):
        CudaEngine(Guarded()).run(gather(ways), np.zeros((3, *SOURCE.size[::-1])), np.empty((3, *SHAPE)), Store())


def test_staged_volumes_have_their_own_routes(monkeypatch):
    monkeypatch.setattr("gpuresample.engines.cuda.staging.OVERLAP_BYTES", 0)
    ways = tuple(route(affine(seed)[1]) for seed in range(3))
    src = noise((3, *SOURCE.size[::-1]), "float32")
    work = gather(ways, precision="single")
    expected, _ = run_twice(run(work), src, (3, *SHAPE), "float32")
    out = np.empty((3, *SHAPE), np.float32)
    Staged(CudaEngine(HostRuntime()), None).run(work, src, out, Store())
    assert same_bits(out, expected)


def test_the_footprint_counts_lattices():
    way = of_case("field")[1]
    types = (np.dtype("float32"), SHAPE, np.dtype("float32"), Store())
    with_, without = (footprint(gather(w), SOURCE.size[::-1], *types) for w in (way, of_case("affine")[1]))
    assert with_ - without == -(-way.stages[0].vectors.nbytes // 512) * 512


BATCHES = (1, 32, 1000)


def launched(work, n, back=False):
    """How many launches a batch of so many volumes takes; which kernels they are may depend on its size."""
    runtime = HostRuntime()
    engine = CudaEngine(runtime)
    src, dst = np.zeros((n, 3, 4, 5), np.float32), np.zeros((n, 2, 3, 4), np.float32)
    if back:
        engine.splat(work, dst, src)
    else:
        engine.run(work, src, dst, Store())
    return runtime.launches.total()


@pytest.mark.parametrize(
    "interpolation", ["nearest", "linear", "bspline3", "hamming", "label_linear", "label_gaussian"]
)
def test_launches_of_gathers_do_not_depend_on_the_batch(interpolation):
    source = gr.Grid((5, 4, 3), (1.0,) * 3, (0.0,) * 3, EYE)
    ways = tuple(route(affine(seed)[1], target=source, source=source) for seed in range(7)) * 143
    alone = gather(ways[0], interpolation, None, "single", (2, 3, 4), source)
    assert len({launched(replace(alone, routes=ways[:n]), n) for n in BATCHES}) == 1
    if interpolation in ("linear", "bspline3"):
        assert len({launched(replace(alone, routes=ways[:n]), n, back=True) for n in BATCHES}) == 1


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "hamming"])
def test_launches_of_tables_do_not_depend_on_the_batch(interpolation):
    source, target = gr.Grid.of_size((5, 4, 3)), gr.Grid((4, 3, 2), (1.2, 1.3, 1.4), (0.1,) * 3, EYE)
    work = planner.make_work(source, target, (), interpolation, None, False, "single")
    assert len({launched(work, n) for n in BATCHES}) == 1


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
def test_launches_do_not_depend_on_batches_that_do_not_merge(interpolation):
    """Two of three channels of every volume: one launch for all volumes of a channel, however many there are."""
    source, target = gr.Grid.of_size((5, 4, 3)), gr.Grid((4, 3, 2), (1.2, 1.3, 1.4), (0.1,) * 3, EYE)
    for work in (
        planner.make_work(source, target, (), interpolation, None, False, "single"),
        gather(route(affine(3)[1], target=source, source=source), interpolation, None, "single", (2, 3, 4), source),
    ):
        launches = set()
        for n in BATCHES:
            runtime = HostRuntime()
            src = noise((n, 3, 3, 4, 5), "float32")
            out, each = (np.zeros((n, 2, 2, 3, 4), np.float32) for _ in range(2))
            CudaEngine(runtime).run(work, src[:, :2], out, Store())
            if n == 32:
                for channel in range(2):
                    lone = np.ascontiguousarray(src[:, channel])
                    CudaEngine(HostRuntime()).run(work, lone, each[:, channel], Store())
                assert same_bits(out, each)
            if n > 1:
                launches.add(runtime.launches.total())
        assert len(launches) == 1


# A plane more than the source has: its voxels are the default.
BEYOND = separable([identity(3), identity(4), identity(5)], n_dst=(4, 4, 5))


@pytest.mark.parametrize(
    ("work", "store", "target", "launches"),
    [
        (Majority((1, 1, 2), (3, 4, 2)), Store(), "uint8", 1),
        (BEYOND, Store(exact=True), "float32", 2),
        (BEYOND, Store(divisor=2), "float32", 3),
    ],
    ids=["majority", "converted first", "divided last"],
)
def test_launches_of_what_surrounds_do_not_depend_on_the_batch(work, store, target, launches):
    """Modes of blocks, conversions before and after, the default outside: each is one launch for all volumes."""
    for n in BATCHES:
        runtime = HostRuntime()
        src, dst = np.ones((n, 3, 4, 5), np.uint8), np.full((n, *work.n_dst), 9, target)
        CudaEngine(runtime).run(work, src, dst, store)
        assert runtime.launches.total() == launches
        assert (dst[:, :3] == 1 / store.divisor).all()
        assert (dst[:, 3:] == 0).all()


# --- what is refused, far or no number ------------------------------------------------------------------------------


def broken(**changes):
    return lambda: route(replace(field()[1], **changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: route(*[affine(s)[1] for s in range(8)], field()[1]), "at most 8 stages on a GPU, got 9"),
        (broken(vectors=np.zeros((4, 5, 6, 2))), r"shape \(z, y, x, 3\), got \(4, 5, 6, 2\)"),
        (broken(vectors=np.zeros((4, 5, 6, 3), "float16")), "float32 or float64, got float16"),
        (broken(kind="cubic"), "'linear', 'nearest' or 'spline', got 'cubic'"),
        (broken(vectors=np.zeros((0, 5, 6, 3))), "must have a node"),
        (broken(kind="spline", order=4), "order of a spline's lattice must be 1, 2 or 3, got 4"),
        (broken(kind="spline", order=3, vectors=np.zeros((4, 3, 4, 3))), "needs 4 nodes along every axis"),
        (broken(direct=True), "on the output's voxels must have them all"),
    ],
)
def test_what_kernels_cannot_follow_is_refused(make, message):
    runtime = Guarded()
    with pytest.raises(ValueError, match=message):
        CudaEngine(runtime).run(gather(make()), np.zeros(SOURCE.size[::-1]), np.empty(SHAPE), Store())
    assert not runtime.launches


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("boundary", [None, "nearest", "mirror"])
@pytest.mark.parametrize("kind", ["linear", "spline"])
def test_vectors_that_are_no_numbers_give_the_default(value, boundary, kind):
    _, stage = field() if kind == "linear" else bspline(3)
    vectors = stage.vectors.copy()
    vectors[2, 3, 3, 1] = value
    way = route(replace(stage, vectors=vectors))
    src = noise(SOURCE.size[::-1], "float64")
    out, _ = run_twice(run(gather(way, boundary=boundary), Store(77)), src, SHAPE, "float64")
    with np.errstate(invalid="ignore"):
        touched = ~np.isfinite(path_oracle.coordinates(way, SHAPE)).all(axis=-1)
    assert touched.any()
    assert (out[touched] == 77).all()
    plain, _ = run_twice(run(gather(route(stage), boundary=boundary), Store(77)), src, SHAPE, "float64")
    assert same_bits(out[~touched], plain[~touched])


def test_nodes_that_weigh_nothing_are_not_read():
    """A field's node that a voxel lies on moves it, whatever its neighbours are."""
    eye = flat(rotation(0, 0, 0))
    grid = gr.Grid((6, 5, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), eye)
    vectors = np.full((4, 5, 6, 3), 0.25)
    vectors[2, 2, 2] = np.nan
    way = route(Lattice(vectors, np.eye(3), np.zeros(3), "linear", 1, None, False), target=grid, source=grid)
    got = located([way], (4, 5, 6))[0]
    assert np.isnan(got).any(axis=-1).sum() == 1
    assert same_bits(got, path_oracle.coordinates(way, (4, 5, 6)))


def far_route(distance, turned=True):
    shift = np.array([distance, -distance, 0.5 * distance])
    return route(Linear(affine()[1].matrix if turned else np.eye(3), shift))


DISTANCES = (1e3, 1e8, 1e9, 3e9, 1e12, 1e16, 1e20, 1e100, 1e300, -1e8, -1e10, -1e300)


@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror", "constant"])
@pytest.mark.parametrize("interpolation", [*KERNELS, "bspline1", "bspline2", "gaussian"])
def test_far_positions_are_read_inside(interpolation, boundary):
    """As far as float64 goes: what is read lies in the source, and where a line mirrors itself, the right voxel."""
    src = 1 + np.arange(np.prod(SOURCE.size)).reshape(SOURCE.size[::-1]) % 4
    dtype = "int16" if FILTERS[interpolation].method != "sum" else "float64"
    n_dst = (2, 3, 40)
    ways = tuple(far_route(distance) for distance in DISTANCES)
    work = gather(ways, interpolation, boundary, n_dst=n_dst)
    volumes = np.stack([src.astype(dtype)] * len(ways))
    out, _ = run_twice(run(work, Store(-7)), volumes, (len(ways), *n_dst), dtype)
    if boundary in (None, "constant"):
        assert (out == -7).all()
        return
    assert (out > -6).all(), out.min()
    assert (out < 10).all(), out.max()
    if interpolation == "nearest":
        for way, volume in zip(ways, out, strict=True):
            x = path_oracle.coordinates(way, n_dst)
            assert np.isfinite(x).all()
            assert (volume == picked(src, x, boundary)).all()


def picked(src, x, boundary):
    """The nearest voxels at positions [..., 3], by whole numbers without bounds."""
    out = np.empty(x.shape[:-1], src.dtype)
    for at in np.ndindex(out.shape):
        index = []
        for value, n in zip(x[at][::-1].tolist(), src.shape, strict=True):
            # Halves are added to what is below 2**52 alone: beyond, a float64 is whole.
            k = int(np.floor(value + 0.5)) if abs(value) < 2**52 else int(value)
            if boundary == "nearest":
                index.append(min(max(k, 0), n - 1))
            else:
                period = 2 * n if boundary == "reflect" else 2 * (n - 1)
                k %= period
                index.append(k if k < n else period - k - (boundary == "reflect"))
        out[at] = src[tuple(index)]
    return out


def test_a_vote_without_neighbours_is_the_default():
    """A box that is larger than the reach of the taps, on a line that ends."""
    work = gather(route(Linear(np.eye(3), np.array([40.0, 0.0, 0.0]))), "label_gaussian")
    assert work.rule == RULES["crop"]
    work = replace(work, box=((-1e6, 1e6),) * 3)
    out, _ = run_twice(run(work, Store(5)), np.ones(SOURCE.size[::-1], "uint8"), SHAPE, "uint8")
    assert (out == 5).any()
    assert set(np.unique(out)) <= {1, 5}


NEAR = [("bspline1", 0.0), ("bspline2", 0.5), ("bspline3", 0.0), ("bspline4", 0.5), ("bspline5", 0.0)]


@pytest.mark.parametrize(("interpolation", "knot"), NEAR)
def test_splines_are_itks_beside_their_knots(interpolation, knot):
    """ITK finds a spline's cell in float32. Just below a knot that is the next cell."""
    eye = flat(rotation(0, 0, 0))
    source = gr.Grid((1200, 3, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), eye)
    target = gr.Grid((290, 2, 2), (4.0, 1.0, 1.0), (3.0 + knot - 5.8e-5, 0.3, 0.2), eye)
    src, n_dst = noise((3, 3, 1200), "float64"), (2, 2, 290)
    nothing = sitk.TranslationTransform(3, (0, 0, 0))
    expected = reference(to_image(src, of_grid(source)), target, interpolation, nothing, 7.0)
    work = planner.make_work(source, replace(UNIT, direction=TURNED), (), interpolation, None, False, "double")
    work = replace(work, routes=(route(target=target, source=source),), n_dst=n_dst)
    out, _ = run_twice(run(work, Store(7)), src, n_dst, "float64")
    assert_close(out, expected, DOUBLE * np.ptp(src))
    if interpolation in ("bspline1", "bspline2"):
        change = "spline && fabs(t)", "false && fabs(t)"
        out, _ = run_twice(run(work, Store(7)), src, n_dst, "float64", read=patched("neighbours.cuh", *change))
        assert np.abs(out - expected).max() > 2 * DOUBLE * np.ptp(src), "the rule is not needed"


# --- these tests see mistakes ---------------------------------------------------------------------------------------


@lru_cache
def check_located(name, n_dst=SHAPE):
    def check(read):
        way = of_case(name)[1]
        assert same_bits(located([way], n_dst, read=read)[0], path_oracle.coordinates(way, n_dst))

    return check


def check_batch(read):
    ways = tuple(route(affine(seed)[1]) for seed in range(3))
    got = located(ways, SHAPE, 3, read=read)
    for volume in range(3):
        assert same_bits(got[volume], path_oracle.coordinates(ways[volume], SHAPE))


def check_direct(read):
    vectors = np.random.default_rng(4).standard_normal((*SHAPE, 3))
    way = route(Lattice(vectors, np.eye(3), np.zeros(3), "linear", 1, None, direct=True), start=(3, 1, 2))
    assert same_bits(located([way], (3, 2, 40), read=read)[0], path_oracle.coordinates(way, (3, 2, 40)))


def check_far(boundary):
    def check(read):
        src = 1 + np.arange(np.prod(SOURCE.size)).reshape(SOURCE.size[::-1]).astype("int16") % 4
        way = far_route(3e9)
        out, _ = run_twice(run(gather(way, "nearest", boundary, n_dst=(2, 3, 40))), src, (2, 3, 40), "int16", read=read)
        assert (out == picked(src, path_oracle.coordinates(way, (2, 3, 40)), boundary)).all()

    return check


def check_fold(read):
    """So far away that the bits of a cell begin anew: these voxels lie outside."""
    src = 1 + np.arange(np.prod(SOURCE.size)).reshape(SOURCE.size[::-1]).astype("int16") % 4
    eye = np.eye(3)
    for power in range(24, 62):
        at = np.array([1.5 * 2.0**power + 3 * 2.0 ** (power - 28), 4.0, 5.0])
        way = Route(np.diag([1.0, 0.0, 0.0]), at, (Linear(eye, np.zeros(3)),), eye, np.zeros(3), 8, (0, 0, 0))
        out, _ = run_twice(run(gather(way, "nearest", n_dst=(1, 1, 8))), src, (1, 1, 8), "int16", read=read)
        assert (out == 0).all()


def check_lower_face(read):
    check_faces(3, read)


def check_amid(read):
    """Where nothing folds, sums of float32 are those of float64, copies are of the nearest voxel, no NaN spreads."""
    src = noise((1, 11, 14, 19), "float32")
    # Towards the far corner, past it.
    way = route(Linear(np.diag([0.9, 0.8, 1.1]), np.array([0.5, 2.0, -0.3])))
    found = {}
    for precision in ("single", "double"):
        work = gather(way, "linear", None, precision)
        source = src.astype("float32" if precision == "single" else "float64")
        found[precision], _ = run_twice(run(work), source, (1, *SHAPE), source.dtype, read=read)
    assert_close(found["single"], found["double"], 5e-7 * np.ptp(src))
    inside = found["double"] != 0
    assert inside.any()
    assert not inside.all()
    nearest, _ = run_twice(run(gather(way, "nearest")), src, (1, *SHAPE), src.dtype, read=read)
    at = np.floor(path_oracle.coordinates(way, SHAPE) + 0.5).astype(int)[..., ::-1]
    known = ((at >= 0) & (at < src.shape[1:])).all(axis=-1)
    assert same_bits(np.ascontiguousarray(nearest[0][known]), src[0][tuple(at[known].T)])
    assert (nearest[0][~known] == 0).all()
    # Every voxel onto itself, and half of them onto others' middles.
    odd = noise((1, 7, 8, 9), "float32")
    odd[0, 3, 4, 5], odd[0, 2, 2, 2], odd[0, 6, 7, 8] = np.nan, np.inf, -np.inf
    unit = gr.Grid((9, 8, 7), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE)
    still = replace(gather(route(target=unit, source=unit), "linear", None, "single", (7, 8, 9), unit), n_src=(7, 8, 9))
    same, _ = run_twice(run(still), odd, odd.shape, odd.dtype, read=read)
    assert same_bits(same, odd)


def test_amid_the_source():
    check_amid(cuda_runtime.read)


OFFSET = "stage->offset[a]);\n#pragma unroll\n            for (int a = 0; a < 3; a++) index"
SIX, FOUR = (f"__dmul_rn(12.0, a)), __dmul_rn({n}.0, s)" for n in (6, 4))
MUTATIONS = [
    ("path.cuh", "(index[1] - stage->n[1]) * stage->stride[1] + ", "", check_field),
    ("path.cuh", "(double)(row.first + x)", "(double)x", check_field),
    ("path.cuh", "row.scale[a] = route->inverse[a * 4]", "row.scale[a] = route->inverse[a]", check_field),
    ("neighbours.cuh", "low >> FRACTION_BITS", "low >> (FRACTION_BITS + 1)", check_amid),
    ("neighbours.cuh", "__dadd_rd(p, PLACES)", "__dadd_rd(p + 0.01, PLACES)", check_amid),
    ("neighbours.cuh", "(high >> FAR_BITS == 0) & ", "", check_fold),
    ("gather.cu", "apart[axis] = lone ? 0 : stride[axis]", "apart[axis] = stride[axis]", check_amid),
    ("gather.cu", "lone ? (acc_t)0.5 :", "lone ? (acc_t)0 :", check_amid),
    ("gather.cu", "split(__dadd_rn(p[2 - axis], 0.5)", "split(__dadd_rn(p[2 - axis], 0.4)", check_amid),
    ("path.cuh", "t % 2 ? route->n0 : 0", "t % 2 ? route->n0 - 1 : 0", check_located("affine")),
    ("path.cuh", "route->start[0] + column + c)", "route->start[0] + c)", check_located("affine")),
    ("path.cuh", "    __syncthreads();\n", "", check_located("affine")),
    ("path.cuh", "first + t / 2 < n_rows", "first + t / 2 < n_rows - 1", check_located("affine")),
    ("path.cuh", "x[a] >= -0.5", "x[a] >= 0.0", check_rims),
    ("path.cuh", "total == 1.0) continue", "total == 2.0) continue", check_rims),
    ("path.cuh", "clamp_index(b + 1, stage->n[a])", "clamp_index(b + 1, stage->n[a] - 1)", check_located("field")),
    ("path.cuh", "__dadd_rn(__dmul_rn(2.0, x), 0.5)", "__dmul_rn(2.0, x)", check_located("nearest field")),
    ("path.cuh", "*x >= lower && *x < upper", "*x > lower && *x < upper", check_lower_face),
    ("path.cuh", SIX, FOUR, check_located("spline 3")),
    ("path.cuh", "row[2] = row[3]", "row[2] = row[2]", check_located("spline 3")),
    ("path.cuh", "weight[2][2] = weight[2][3]", "weight[2][2] = weight[2][2]", check_located("spline 3")),
    ("path.cuh", "__dmul_rn(4.0, s)), 0.125", "__dmul_rn(4.0, s)), 0.25", check_located("spline 2")),
    ("path.cuh", OFFSET, OFFSET.replace("stage->offset", "route->origin"), check_located("affine, field")),
    ("path.cuh", "many ? row.volume : 0", "0", check_batch),
    ("path.cuh", "(j - stage->n[1])", "j", check_direct),
    ("neighbours.cuh", "2.0 * (rule == RULE_REFLECT ? n : n - 1)", "2.0 * n", check_far("mirror")),
    ("neighbours.cuh", "return fabs(p) < FAR && rule < RULE_WRAP ? p", "return true ? p", check_far("reflect")),
    ("neighbours.cuh", "p < 0.0 ? -FAR : FAR", "FAR", check_far("nearest")),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m[0]}: {m[1]!r:.40}")
def test_a_mistake_in_a_route_is_seen(mutation):
    file, old, new, check = mutation
    holds(check)
    assert_seen(check, patched(file, old, new))


def test_launch_code_and_kernels_have_the_same_structs():
    text = cuda_runtime.read("path.cuh")
    for name in ("MAX_STAGES", "LANES", "ROWS", "STRIPS"):
        assert f"#define {name} {getattr(cuda_routes, name)} " in text.replace("\n", " ")
    for word, number in cuda_routes.KINDS.items():
        assert f"#define STAGE_{word.upper()} {number}\n" in text
    runtime = HostRuntime(lambda name: READ_OUT if name == "read_out.cu" else cuda_runtime.read(name))
    wrong = Launch("read_out", "read_lines", Types("int16", "float32"), 1, (32, 8), [np.int32(1)])
    with pytest.raises(TypeError, match=f"takes p{cuda_routes.ROUTE.itemsize} i4"):
        runtime.launch(wrong)
