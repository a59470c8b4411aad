"""Sums of a voxel's neighbours, written in LLVM's instructions: compilers do not find these vectors by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gpuresample.engines.cpu.gather_kernels import TOGETHER


@intrinsic  # type: ignore[untyped-decorator]
def cubic_sum(
    typing_context: Any, src: Any, place: Any, sz: Any, sy: Any, fz: Any, fy: Any, fx: Any, powers: Any
) -> Any:
    """4 x 4 x 4 neighbours of `src` from flat offset `place` on, weighed by polynomials in the fractions along z, y, x.

    `src` is flat and contiguous along x, `sz` and `sy` are its other strides; `powers[d, k]` is what the d-th power of
    a fraction adds to tap k's weight. Four taps fill a vector: compilers find the loads, but not that the sums of four
    neighbouring columns are one, and multiply each number by itself.
    """
    number = src.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, place, sz, sy, fz, fy, fx, powers = arguments
        four = ir.VectorType(context.get_value_type(number), 4)
        lanes = ir.VectorType(ir.IntType(32), 4)
        aligned = number.bitwidth // 8
        nothing = ir.Constant(four, ir.Undefined)
        memory = context.make_array(signature.args[0])(context, builder, source).data
        table = context.make_array(signature.args[7])(context, builder, powers).data

        def load(pointer: Any) -> Any:
            return builder.load(builder.bitcast(pointer, four.as_pointer()), align=aligned)

        def times(a: Any, b: Any) -> Any:
            return builder.fmul(a, b, flags=("contract",))

        def plus(a: Any, b: Any) -> Any:
            return builder.fadd(a, b, flags=("contract",))

        def lane(vector: Any, k: int) -> Any:
            return builder.shuffle_vector(vector, nothing, ir.Constant(lanes, [k] * 4))

        power = [load(builder.gep(table, [ir.IntType(64)(4 * d)])) for d in range(4)]

        def weights(fraction: Any) -> Any:
            u = lane(builder.insert_element(nothing, fraction, ir.IntType(32)(0)), 0)
            return plus(times(plus(times(plus(times(power[3], u), power[2]), u), power[1]), u), power[0])

        wz, wy, wx = weights(fz), weights(fy), weights(fx)
        columns = [lane(wy, k) for k in range(4)]
        total = None
        plane = builder.gep(memory, [place])
        for a in range(4):
            row, part = plane, None
            for b in range(4):
                term = times(columns[b], load(row))
                part = term if part is None else plus(term, part)
                row = builder.gep(row, [sy])
            term = times(lane(wz, a), part)
            total = term if total is None else plus(term, total)
            plane = builder.gep(plane, [sz])
        total = times(total, wx)
        parts = [builder.extract_element(total, ir.IntType(32)(k)) for k in range(4)]
        return plus(plus(parts[0], parts[1]), plus(parts[2], parts[3]))

    index = types.uint64
    return number(src, index, index, index, number, number, number, powers), generate


LANE = ir.IntType(32)


class _Linear:
    """2 x 2 x 2 neighbours of several voxels, as vectors: what `linear_sums` and `linear_slopes` are made of.

    Two neighbours along x are one load where they lie side by side (`contiguous`), and a vector holds those of all
    voxels: compilers make eight loads of it, or slower gathers. Nothing fuses: so a voxel has the same bits whatever
    other voxels it goes through with.
    """

    n = TOGETHER

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, contiguous: bool) -> None:
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        self.number, self.acc = signature.args[0].dtype, signature.args[7].dtype
        self.kind = context.get_value_type(self.acc)
        self.i, move, sz, sy, sx = arguments[2:7]
        voxel = context.get_value_type(self.number)
        memory, places = self.data(0), builder.gep(self.data(1), [self.i])

        def pair(pointer: Any) -> Any:
            two = ir.VectorType(voxel, 2)
            if contiguous:
                return builder.load(builder.bitcast(pointer, two.as_pointer()), align=self.number.bitwidth // 8)
            both = builder.insert_element(ir.Constant(two, ir.Undefined), builder.load(pointer), LANE(0))
            return builder.insert_element(both, builder.load(builder.gep(pointer, [sx])), LANE(1))

        corners: list[list[Any]] = [[], [], [], []]
        for m in range(self.n):
            at = builder.add(builder.load(builder.gep(places, [LANE(m)])), move)
            here = builder.gep(memory, [at])
            below = builder.gep(here, [sz])
            for corner, pointer in enumerate((here, builder.gep(here, [sy]), below, builder.gep(below, [sy]))):
                corners[corner].append(pair(pointer))
        # Along z and y: (0, 0), (0, 1), (1, 0), (1, 1).
        self.corners = [self.converted(self.joined(parts)) for parts in corners]
        self.z, self.y, self.x = self.fractions(7, 2), self.fractions(8, 2), self.fractions(9, 1)

    def data(self, k: int) -> Any:
        """Where argument `k`, an array, begins."""
        return self.context.make_array(self.signature.args[k])(self.context, self.builder, self.arguments[k]).data

    def shuffled(self, a: Any, b: Any, order: Any) -> Any:
        """Lanes of two vectors."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(LANE, len(order)), list(order)))

    def joined(self, parts: list[Any]) -> Any:
        """Vectors one behind the other."""
        while len(parts) > 1:
            width = 2 * parts[0].type.count
            parts = [self.shuffled(a, b, range(width)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def converted(self, values: Any) -> Any:
        """Voxels in the sums' type."""
        form = ir.VectorType(self.kind, 2 * self.n)
        if self.number == self.acc:
            return values
        if isinstance(self.number, types.Integer):
            signed = self.number.signed  # type: ignore[attr-defined]
            return (self.builder.sitofp if signed else self.builder.uitofp)(values, form)
        wider = self.number.bitwidth < self.acc.bitwidth
        return (self.builder.fpext if wider else self.builder.fptrunc)(values, form)

    def fractions(self, k: int, each: int) -> Any:
        """The voxels' numbers in argument `k`, each so often."""
        form = ir.VectorType(self.kind, self.n)
        pointer = self.builder.bitcast(self.builder.gep(self.data(k), [self.i]), form.as_pointer())
        values = self.builder.load(pointer, align=self.acc.bitwidth // 8)
        return values if each == 1 else self.shuffled(values, values, [m // each for m in range(each * self.n)])

    def blend(self, a: Any, b: Any, f: Any) -> Any:
        """`(1 - f) * a + f * b`."""
        rest = self.builder.fsub(ir.Constant(f.type, [1.0] * f.type.count), f)
        return self.builder.fadd(self.builder.fmul(rest, a), self.builder.fmul(f, b))

    def halves(self, line: Any) -> tuple[Any, Any]:
        """The first and the second neighbours along x."""
        return self.shuffled(line, line, range(0, 2 * self.n, 2)), self.shuffled(line, line, range(1, 2 * self.n, 2))

    def store(self, values: Any, k: int) -> None:
        """The voxels' results to argument `k`."""
        pointer = self.builder.bitcast(self.builder.gep(self.data(k), [self.i]), values.type.as_pointer())
        self.builder.store(values, pointer, align=self.acc.bitwidth // 8)


def _linear_sums(contiguous: bool) -> Callable[..., Any]:
    """`sums(src, place, i, move, sz, sy, sx, fz, fy, fx, out)`: `TOGETHER` voxels, interpolated linearly.

    Neighbours of voxel `i` begin at `place[i] + move`; `fz[i]` and kin are its fractions, of the sums' type, and its
    sum goes to `out[i]`. Weighed along z, then y, then x.
    """

    def linear_sums(
        typing_context: Any, src: Any, place: Any, i: Any, move: Any, sz: Any, sy: Any, sx: Any, fz: Any, fy: Any,
        fx: Any, out: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = _Linear(context, builder, signature, arguments, contiguous)
            a, b, c, d = v.corners
            even, odd = v.halves(v.blend(v.blend(a, c, v.z), v.blend(b, d, v.z), v.y))
            v.store(v.blend(even, odd, v.x), 10)
            return context.get_dummy_value()

        u = types.uint64
        return types.void(src, place, u, u, u, u, u, fz, fy, fx, out), generate

    found: Callable[..., Any] = intrinsic(linear_sums)
    return found


def _linear_slopes(contiguous: bool) -> Callable[..., Any]:
    """`slopes(src, place, i, move, sz, sy, sx, fz, fy, fx, dx, dy, dz)`: derivatives of sums along x, y, z at `i`."""

    def linear_slopes(
        typing_context: Any, src: Any, place: Any, i: Any, move: Any, sz: Any, sy: Any, sx: Any, fz: Any, fy: Any,
        fx: Any, dx: Any, dy: Any, dz: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = _Linear(context, builder, signature, arguments, contiguous)
            a, b, c, d = v.corners
            near, far = v.blend(a, c, v.z), v.blend(b, d, v.z)
            even, odd = v.halves(v.blend(near, far, v.y))
            v.store(builder.fsub(odd, even), 10)
            v.store(v.blend(*v.halves(builder.fsub(far, near)), v.x), 11)
            across = v.blend(builder.fsub(c, a), builder.fsub(d, b), v.y)
            v.store(v.blend(*v.halves(across), v.x), 12)
            return context.get_dummy_value()

        u = types.uint64
        return types.void(src, place, u, u, u, u, u, fz, fy, fx, dx, dy, dz), generate

    found: Callable[..., Any] = intrinsic(linear_slopes)
    return found


linear_sums, linear_sums_apart = _linear_sums(True), _linear_sums(False)
linear_slopes, linear_slopes_apart = _linear_slopes(True), _linear_slopes(False)


def _prefetching(write: int) -> Callable[..., Any]:
    """A Numba intrinsic of LLVM's `prefetch`, on every CPU; data, into the closest cache."""

    def prefetching(typing_context: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
            form = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
            function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0i8")
            place = builder.bitcast(builder.gep(memory, [arguments[1]]), pointer)
            builder.call(function, [place, flag(write), flag(3), flag(1)])
            return context.get_dummy_value()

        return types.void(array, types.uint64), generate

    found: Callable[..., Any] = intrinsic(prefetching)
    return found


# Have the line of memory with `array[index]` brought closer, to be read or written soon. `array` is flat and
# contiguous, `index` unsigned. What lies outside the array is not touched, and no fault.
prefetch = _prefetching(0)
prefetch_to_write = _prefetching(1)
