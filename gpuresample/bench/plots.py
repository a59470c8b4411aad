"""Plots of recorded benchmarks: each function gives what draws on a figure, for `Page.plot`."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gpuresample.bench.records import OURS, Record, by_case, yardstick
from gpuresample.bench.tables import duration, percent, times
from gpuresample.pages import COLOURS

Draw = Callable[[Any], None]

_JUDGE = "simpleitk"
_OTHERS = (*COLOURS[2:5], COLOURS[6])
_MARKERS = "^vPXd<>"  # 7 and 4 colours have no common divisor: the first 28 peers all differ
_INK = "#010203"  # the page's own, as `Page.plot` has it
# An answer that is not the case's: no bar of its colour, whatever its time.
_WRONG_STYLE = {"facecolor": "none", "edgecolor": COLOURS[6], "hatch": "////", "linewidth": 1.0}


class Look(NamedTuple):
    """How a peer is drawn in every plot of a page."""

    colour: str
    marker: str
    label: str


def looks(records: Iterable[Record]) -> dict[str, Look]:
    """A colour and a marker for every peer; ours and SimpleITK's are the same in every run."""
    labels: dict[str, str] = {}
    for r in records:
        labels.setdefault(r.peer, r.label)
    # In others' words last: those are many, and there are not as many markers.
    ours = sorted((p for p in labels if p.startswith(f"{OURS}-")), key=lambda p: p.startswith(f"{OURS}-as-"))
    others = [peer for peer in labels if peer not in (OURS, _JUDGE, *ours)]
    found = {OURS: Look(COLOURS[0], "o", labels.get(OURS, OURS)), _JUDGE: Look(COLOURS[1], "s", "SimpleITK")}
    found |= {peer: Look(COLOURS[5], "DpHv^<>dPX8"[k % 11], labels[peer]) for k, peer in enumerate(ours)}
    found |= {
        peer: Look(_OTHERS[k % len(_OTHERS)], _MARKERS[k % len(_MARKERS)], labels[peer])
        for k, peer in enumerate(others)
    }
    return {peer: look for peer, look in found.items() if peer in labels}


def _wrapped(text: str, width: int = 36) -> str:
    """Two lines at the most: a third would reach into the next row."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" ..."))


def _plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis as people write numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1000 else f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def _rows(axes: Any, names: Sequence[str]) -> None:
    """Names of rows from top to bottom."""
    axes.set_yticks(range(len(names)), [_wrapped(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _legend(figure: Any, axes: Any, look: Mapping[str, Look]) -> None:
    """One entry per label above the plot: ours, SimpleITK, the others."""
    entries: dict[str, Any] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    order = [entry.label for entry in look.values()]
    names = sorted(entries, key=lambda name: next((k for k, n in enumerate(order) if name.startswith(n)), len(order)))
    # The page's letters may be wider than those that matplotlib lays out with.
    columns = max(1, min(4, 116 // (max(map(len, names), default=1) + 8)))
    figure.legend([entries[n] for n in names], names, loc="outside upper left", ncols=columns, fontsize=9)


def _mark(axes: Any, x: float, y: float, r: Record, look: Mapping[str, Look]) -> None:
    """A peer's mark: ours larger, a star on a GPU; hollow where the copies from and to the host are in its time.

    Its label is the peer's usual one: what it was called in single cases would fill the legend.
    """
    colour, marker, usual = look[r.peer]
    if r.device != "cpu":
        marker = "*" if r.ours else "h"
    hollow = r.scope == "end-to-end"
    # A thin rim of the page's ink: marks stand on bars of any colour.
    rim = {"mfc": "none", "mec": colour, "mew": 2.0} if hollow else {"mfc": colour, "mec": _INK, "mew": 0.6}
    axes.plot(x, y, marker, ms=(9 if r.ours else 7) + 5 * (marker == "*"), label=replace(r, label=usual).doer, **rim)


def height(n_rows: int, n_labels: int = 0) -> float:
    """Inches for so many rows, under a legend of so many labels."""
    return 0.8 + 0.46 * n_rows + 0.2 * math.ceil(n_labels / 3)


def overview(records: Sequence[Record], look: Mapping[str, Look]) -> Draw:
    """Times as fast as SimpleITK, case by case: ours as bars, right peers as marks."""
    cases = {name: rows for name, rows in by_case(records).items() if any(yardstick(r, rows) for r in rows)}

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for y, rows in enumerate(cases.values()):
            judge = next(found for r in rows if (found := yardstick(r, rows)))
            # Ours in others' words is for those cases' own plots: here it would hide them.
            for r in (r for r in rows if not r.wrong and r.peer != _JUDGE and not r.peer.startswith(f"{OURS}-as-")):
                ratio = judge.median / r.median
                if r.peer == OURS and r.device == "cpu":
                    axes.barh(y, ratio - 1, 0.56, left=1, color=look[OURS].colour, label=look[OURS].label)
                    axes.annotate(times(ratio), (1, y), xycoords=("axes fraction", "data"), ha="right", va="center",
                                  fontweight="bold")  # fmt: skip
                else:
                    _mark(axes, ratio, y, r, look)
        axes.axvline(1, color=look[_JUDGE].colour, linewidth=2, label="SimpleITK")
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.12)
        _plain_log(axes.xaxis)
        axes.set_xlabel("times as fast as SimpleITK")
        _rows(axes, [rows[0].what for rows in cases.values()])
        _legend(figure, [axes], look)

    return draw


def bars(records: Sequence[Record], look: Mapping[str, Look]) -> Draw:
    """Seconds of everyone on one case, fastest first; the line reaches from the fastest round to the slowest."""
    rows = sorted(records, key=lambda r: r.median)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        low = min(min(r.seconds) for r in rows) * 1e3
        high = max(max(r.seconds) for r in rows) * 1e3
        start = low / 2
        for y, r in enumerate(rows):
            style = _WRONG_STYLE if r.wrong else {"color": look[r.peer].colour}
            axes.barh(y, r.median * 1e3 - start, 0.62, left=start, **style)
            axes.plot([min(r.seconds) * 1e3, max(r.seconds) * 1e3], [y, y], color=_INK, linewidth=1.4)
            said = duration(r.median)
            judge = yardstick(r, rows)
            if r.wrong:
                said += ", wrong answer"
            elif judge is not None and r.peer != _JUDGE:
                said += f", {times(judge.median / r.median)}"
            axes.annotate(said, (max(r.seconds) * 1e3, y), (6, 0), textcoords="offset points", va="center",
                          fontweight="bold" if r.ours else "normal")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(start, start * (high / start) ** 1.35)
        _plain_log(axes.xaxis)
        axes.set_xlabel("milliseconds, logarithmic")
        _rows(axes, [r.doer for r in rows])

    return draw


def roofline(records: Sequence[Record], look: Mapping[str, Look]) -> Draw:
    """Bytes that must be moved over time, under the bandwidth of a copy; a panel for every device."""
    known = [r for r in records if r.share is not None and not r.wrong]
    devices = list(dict.fromkeys(r.device for r in known))

    def draw(figure: Any) -> None:
        panels = [by_case(r for r in known if r.device == device) for device in devices]
        axes = figure.subplots(len(devices), squeeze=False, height_ratios=[len(p) + 1 for p in panels])[:, 0]
        for panel, device, each in zip(panels, devices, axes, strict=True):
            for y, rows in enumerate(panel.values()):
                roof = rows[0].copy_bandwidth / 1e9
                each.plot([roof, roof], [y - 0.42, y + 0.42], color=_INK, linewidth=3, label="a copy")
                for r in sorted(rows, key=lambda r: r.ours):
                    rate = r.bytes_moved / r.median / 1e9
                    _mark(each, rate, y, r, look)
                    if r.peer == OURS and r.share is not None and r.scope != "end-to-end":
                        each.annotate(percent(r.share), (1, y), xycoords=("axes fraction", "data"), ha="right",
                                      va="center", fontweight="bold")  # fmt: skip
            each.set_xscale("log")
            low, high = each.get_xlim()
            each.set_xlim(low, high * (high / low) ** 0.12)
            _plain_log(each.xaxis)
            if len(devices) > 1:
                each.set_title(device, loc="left", fontsize=10)
            _rows(each, [rows[0].what for rows in panel.values()])
        axes[-1].set_xlabel("GB/s of bytes that must be moved")
        _legend(figure, axes, look)

    return draw


def error_and_speed(records: Sequence[Record], look: Mapping[str, Look]) -> Draw:
    """Largest difference from the reference against output voxels per second; lower right is better."""
    known = [r for r in records if r.error is not None and r.voxels]
    above = [r.error for r in known if r.error]
    # Zero has no place on a logarithmic axis: it gets one below everything else.
    floor = 10.0 ** -(9 if not above else max(9, 1 + int(-math.log10(min(above)))))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for r in sorted(known, key=lambda r: r.ours):
            x, y = r.rate / 1e6, max(r.error or 0.0, floor)
            _mark(axes, x, y, r, look)
            if r.wrong:
                axes.plot(x, y, "o", mfc="none", mec=COLOURS[4], ms=15, mew=1.8, label="wrong answer")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(floor / 3, None)
        ticks = [t for t in axes.get_yticks() if floor < t <= axes.get_ylim()[1]]
        axes.set_yticks([floor, *ticks], ["0", *[f"{t:.0e}".replace("e-0", "e-").replace("e+00", "") for t in ticks]])
        axes.minorticks_off()
        _plain_log(axes.xaxis)
        axes.set_xlabel("million output voxels per second")
        axes.set_ylabel("largest error, of the input's range")
        _legend(figure, [axes], look)

    return draw


def by_size(records: Sequence[Record], look: Mapping[str, Look]) -> Draw:
    """Output voxels per second against the volume's edge."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        sizes = sorted({r.size for r in records if r.size})
        for name, rows in _lines(records).items():
            rows.sort(key=lambda r: r.size or 0)
            _line(axes, [r.size or 0 for r in rows], [[r.voxels / s / 1e6 for s in r.seconds] for r in rows],
                  look[rows[0].peer], name)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{n}" for n in sizes])
        axes.minorticks_off()
        _plain_log(axes.yaxis)
        axes.set_xlabel("voxels along an edge")
        axes.set_ylabel("million voxels per second")
        _legend(figure, [axes], look)

    return draw


def by_threads(records: Sequence[Record], look: Mapping[str, Look]) -> Draw:
    """How many times as fast as on the fewest threads."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        counts = sorted({r.threads for r in records if r.threads})
        axes.plot(counts, [n / counts[0] for n in counts], "--", color=_INK, linewidth=1, label="as many as threads")
        for name, rows in _lines(records).items():
            rows.sort(key=lambda r: r.threads or 0)
            first = rows[0].median
            _line(axes, [r.threads or 0 for r in rows], [[first / s for s in r.seconds] for r in rows],
                  look[rows[0].peer], name)  # fmt: skip
        axes.set_xticks(counts, [f"{n}" for n in counts])
        axes.set_ylim(0, None)
        axes.set_xlabel("threads")
        axes.set_ylabel(f"times as fast as on {counts[0]}")
        _legend(figure, [axes], look)

    return draw


def _lines(records: Iterable[Record]) -> dict[str, list[Record]]:
    """By who did it; ours last, and so on top."""
    found: dict[str, list[Record]] = {}
    for r in sorted(records, key=lambda r: r.ours):
        found.setdefault(r.doer, []).append(r)
    return found


def _line(axes: Any, x: Sequence[float], rounds: Sequence[Sequence[float]], look: Look, name: str) -> None:
    middle = [statistics.median(values) for values in rounds]
    reach = [
        [m - min(v) for m, v in zip(middle, rounds, strict=True)],
        [max(v) - m for m, v in zip(middle, rounds, strict=True)],
    ]
    axes.errorbar(x, middle, reach, color=look.colour, marker=look.marker, ms=7, linewidth=2, elinewidth=1.2, capsize=3,
                  label=name)  # fmt: skip
