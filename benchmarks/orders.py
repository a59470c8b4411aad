"""The order of passes: what each possible order costs, what the cost rule says, and the constants that would fit.

    python -m benchmarks.orders [--runs N] [--geometry NAME]

Every geometry's work is run with its tables in each order that the engine knows. The rule is `planner.pass_order`; it
has done well where the order it picks takes at most 15 % longer than the best. At the end `TAP_COST`, `TOUCH_COST` and
`X_TOUCH_COST` are fitted to the times by least squares, with the tap's cost as the unit.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gpuresample import Grid
from gpuresample.bench import cases, measure, tables
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.interface import Store
from gpuresample.engines.threads import cores
from gpuresample.planning import planner
from gpuresample.planning.works import Separable

CLOSE = 1.15

# Source size and spacing, target size and spacing (x, y, z), interpolation.
JOBS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], str]] = {
    "coarser, cubic": (((400, 400, 160), (0.78125, 0.78125, 1.0)), ((312, 312, 80), (1.0, 1.0, 2.0)), "bspline"),
    "coarser, linear": (((400, 400, 160), (0.78125, 0.78125, 1.0)), ((312, 312, 80), (1.0, 1.0, 2.0)), "linear"),
    "finer, cubic": (((160, 160, 60), (1.5, 1.5, 3.0)), ((300, 300, 150), (0.8, 0.8, 1.2)), "bspline"),
    "finer, linear": (((160, 160, 60), (1.5, 1.5, 3.0)), ((300, 300, 150), (0.8, 0.8, 1.2)), "linear"),
    "thick slices, cubic": (((256, 256, 40), (0.8, 0.8, 5.0)), ((204, 204, 200), (1.0, 1.0, 1.0)), "bspline"),
    "x finer, z coarser, cubic": (((150, 256, 200), (2.0, 1.0, 1.0)), ((300, 230, 66), (1.0, 1.1, 3.0)), "bspline"),
    "x coarser, z finer, cubic": (((400, 256, 50), (0.5, 1.0, 4.0)), ((133, 230, 180), (1.5, 1.1, 1.1)), "bspline"),
    "x and y, cubic": (((320, 320, 100), (1.0, 1.0, 1.0)), ((246, 246, 100), (1.3, 1.3, 1.0)), "bspline"),
    "x and z, cubic": (((320, 200, 120), (1.0, 1.0, 1.0)), ((246, 200, 60), (1.3, 1.0, 2.0)), "bspline"),
    "y and z, linear": (((300, 256, 150), (1.0, 1.0, 1.0)), ((300, 190, 70), (1.0, 1.35, 2.1)), "linear"),
    "coarser, lanczos": (((300, 300, 150), (1.0, 1.0, 1.0)), ((111, 111, 56), (2.7, 2.7, 2.7)), "lanczos"),
}  # fmt: skip


def orders_of(order: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every order that the engine runs as such: x is never first of three."""
    return [o for o in itertools.permutations(order) if len(o) < 3 or o[0] != 2]


def terms(job: Separable, order: tuple[int, ...]) -> tuple[float, float, float]:
    """What the three constants are multiplied with: taps, samples touched, samples touched along a wide x."""
    size = [t.n_src for t in job.tables]
    taps = touched = touched_x = 0.0
    for axis in order:
        t = job.tables[axis]
        size[axis] = t.n_dst
        n = math.prod(size)
        taps += n * float(t.count.mean())
        if axis == 2 and t.n_taps > 1:
            touched_x += n
        else:
            touched += n
    return taps, touched, touched_x


def main(arguments: Sequence[str] | None = None) -> int:
    """Time all orders, print them beside the rule's costs, fit the constants."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of every order (default 7)")
    parser.add_argument("--geometry", choices=list(JOBS), action="append", help="only this one; may be repeated")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--json", metavar="FILE", help="write all times to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    measure.set_threads(options.threads)
    info = measure.machine(options.threads)
    print(measure.about(info))

    design: list[tuple[float, float, float]] = []
    seconds: list[float] = []
    rows: list[dict[str, Any]] = []
    good = 0
    names = options.geometry or list(JOBS)
    for name in names:
        (n_in, s_in), (n_out, s_out), interpolation = JOBS[name]
        source, target = Grid.of_size(n_in, s_in), Grid.of_size(n_out, s_out)
        filter_name = "bspline3" if interpolation == "bspline" else interpolation
        job = planner.make_work(source, target, (), filter_name, None, False, "single")
        assert isinstance(job, Separable)
        src = cases.ct_like(n_in[::-1], np.int16)
        dst = np.empty(n_out[::-1], np.int16)

        def run(order: tuple[int, ...], job: Separable = job, src: Any = src, dst: Any = dst) -> None:
            cpu.run(replace(job, order=order), src, dst, Store())

        orders = orders_of(job.order)
        for order in orders:
            run(order)
        times = measure.interleaved({str(o): partial(run, o) for o in orders}, options.runs, 20.0)
        # The fastest run, not the middle one: the model knows no other tenants of the machine.
        best_of = {o: min(times[str(o)]) for o in orders}
        cost = {o: planner.pass_cost(job.tables, o) for o in orders}
        best, cheapest = min(best_of.values()), min(cost.values())
        picked = best_of[job.order] <= CLOSE * best
        good += picked
        lines = []
        for o in sorted(orders, key=best_of.__getitem__):
            mark = "" if o != job.order else "picked: " + ("ok" if picked else f"{best_of[o] / best - 1:.0%} off")
            words = " ".join("zyx"[axis] for axis in o)
            lines.append(
                [words, tables.duration(best_of[o]), f"{best_of[o] / best:.2f}", f"{cost[o] / cheapest:.2f}", mark]
            )
            rows.append({"geometry": name, "order": o, "seconds": times[str(o)], "cost": cost[o]})
            design.append(terms(job, o))
            seconds.append(best_of[o])
        tables.table(name, ("order", "fastest run", "measured / best", "cost / cheapest", "rule"), lines)

    print(f"the rule picked within {CLOSE - 1:.0%} of the best in {good} of {len(names)} geometries")
    if names == list(JOBS):  # a few orders do not tell three constants apart
        # Relative errors, so that short jobs count as much as long ones.
        matrix, measured = np.array(design), np.array(seconds)
        fit = np.linalg.lstsq(matrix / measured[:, None], np.ones(measured.size), rcond=None)[0]
        error = np.abs(matrix @ fit / measured - 1)
        print(
            f"fitted: TAP_COST = 1 ({1e9 * fit[0]:.3f} ns), TOUCH_COST = {fit[1] / fit[0]:.2f}, "
            f"X_TOUCH_COST = {fit[2] / fit[0]:.2f}; "
            f"error {np.median(error):.0%} (median), {error.max():.0%} (largest). "
            f"Now: {planner.TAP_COST:g}, {planner.TOUCH_COST:g}, {planner.X_TOUCH_COST:g}"
        )
    measure.save(options.json, "orders", given, {"machine": info, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
