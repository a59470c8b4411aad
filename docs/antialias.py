"""Measures what `antialias=True` does, and writes docs/antialias.md with its two pictures.

    python docs/antialias.py [FOLDER]

Every figure and every curve is measured on what `gpuresample.resample` answers; nothing is taken from a formula.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import gpuresample as gr

Array = npt.NDArray[np.float64]

INK, MUTED, OFF, ON = "#1f2328", "#59636e", "#c2410c", "#1d4ed8"
FILTERS = (
    "linear", "bspline", "bspline1", "bspline2", "bspline4", "bspline5", "gaussian", "hamming", "cosine",
    "welch", "lanczos", "blackman",
)  # fmt: skip
# The frequency response: an axis of N voxels of size 1 becomes one of voxels of size STEP.
N, STEP = 800, 3.2
# The chirp: rings ever closer together, on a volume of this shape (z, y, x).
SHAPE = (24, 288, 288)


def response(interpolation: str, antialias: bool) -> tuple[Array, Array]:
    """Amplitude of the output's wave for a wave of amplitude 1 of every frequency, in cycles per input voxel.

    One call: every frequency is two rows of the input, its cosine and its sine, which make up one turning wave. The
    middle of a row is looked at, far from its ends; its samples fall on all fifths of a voxel.
    """
    frequency = np.arange(1, N // 2) / N
    turn = 2 * np.pi * frequency[:, None]
    waves = np.stack([np.cos(turn * np.arange(N)), np.sin(turn * np.arange(N))])
    # Every wave is a volume of its own: the Gaussian would blend neighbours.
    volumes = waves[:, :, None, None, :]
    rows = gr.resample(volumes, spacing=(1, 1, STEP), interpolation=interpolation, antialias=antialias)[:, :, 0, 0]
    n_out = rows.shape[-1]
    middle = slice(n_out // 4, n_out // 4 + 5 * (n_out // 10))
    wave = (rows[0] + 1j * rows[1])[:, middle]
    amplitude = np.abs((wave * np.exp(-1j * turn * np.arange(n_out)[middle] * STEP)).mean(axis=1))
    return frequency, amplitude


def chirp() -> tuple[Array, Array]:
    """Rings from no frequency at the centre to half a cycle per voxel at the rim; and the frequency at every voxel."""
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    radius = np.sqrt(x * x + y * y + z * z)
    rim = SHAPE[2] / 2
    frequency = 0.5 * radius / rim
    return np.where(radius < rim, np.cos(np.pi * 0.5 * radius**2 / rim), 0.0), frequency


def energy(small: Array, frequency: Array) -> tuple[float, float]:
    """Mean square of the output where the input's frequency can be held, and where it lies above."""
    step = (1, STEP, STEP)
    at = gr.resample(frequency, spacing=step, interpolation="nearest")
    nyquist = 0.5 / STEP
    # Away from the borderline, which no filter meets exactly; within the rings.
    below, above = at < 0.5 * nyquist, (at > 1.25 * nyquist) & (at < 0.5)
    return float((small[below] ** 2).mean()), float((small[above] ** 2).mean())


def draw_responses(curves: dict[tuple[str, bool], tuple[Array, Array]]) -> Figure:
    """A panel per filter."""
    figure = Figure(figsize=(11, 7.2), facecolor="white", layout="constrained")
    axes = figure.subplots(3, 4, sharex=True, sharey=True).ravel()
    nyquist = 0.5 / STEP
    for ax, name in zip(axes, FILTERS, strict=True):
        for antialias, colour in ((False, OFF), (True, ON)):
            frequency, amplitude = curves[name, antialias]
            ax.plot(frequency, amplitude, color=colour, linewidth=1.6)
        ax.axvline(nyquist, color=MUTED, linewidth=1.0, linestyle="--")
        ax.set_title(name, fontsize=11, color=INK)
        ax.set(xlim=(0, 0.5), ylim=(-0.04, 1.18))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8.5)
    handles = [
        axes[0].plot([], [], color=colour, linestyle=style, label=text)[0]
        for colour, style, text in (
            (OFF, "-", "antialias=False"),
            (ON, "-", "antialias=True"),
            (MUTED, "--", "highest frequency of the output"),
        )
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=11)
    figure.supxlabel("cycles per input voxel", fontsize=11)
    figure.supylabel("amplitude", fontsize=11)
    return figure


def draw_chirp(source: Array, small: dict[bool, Array]) -> Figure:
    """The middle slice of the chirp and of what becomes of it."""
    figure = Figure(figsize=(11, 3.95), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 3)
    titles = ("input", "antialias=False", "antialias=True")
    for ax, array, title in zip(axes, (source, small[False], small[True]), titles, strict=True):
        ax.imshow(array[SHAPE[0] // 2], cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        size = " x ".join(str(n) for n in array.shape[:0:-1])
        ax.set_title(f"{title}, {size}", fontsize=12, color=INK)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure


def share(curve: tuple[Array, Array], above: bool) -> float:
    """Mean square of a response above (or up to) the output's highest frequency."""
    frequency, amplitude = curve
    part = frequency > 0.5 / STEP if above else frequency <= 0.5 / STEP
    return float((amplitude[part] ** 2).mean())


TEXT = """\
# What `antialias=True` does

<!-- Written by docs/antialias.py: every figure here was measured on what gr.resample answers. -->

A coarser grid cannot hold a pattern that is finer than two of its voxels. An interpolation does not know that: it
looks at a few input voxels around every new sample, and a fine pattern comes back as a coarse one that was never
there. `antialias=True` blurs before it samples, along the axes that get fewer voxels, by a Gaussian of sigma
`(step - 1) / 2` input voxels. The blur is part of the same table as the interpolation. So it needs no second pass
over the volume, and is computed only at the samples that are kept. A number in place of True is a sigma in input
voxels.

## Every filter's frequency response

An axis of {n} voxels is resampled to {step} times the spacing. Rows of the input are waves of amplitude 1;
the curve is the amplitude with which they arrive. Right of the dashed line a wave is too fine for the output:
what arrives is false.

![Amplitude against frequency, a panel per filter](antialias-response.svg)

| filter | power kept below, without | with | false power above, without | with | less by |
| --- | ---: | ---: | ---: | ---: | ---: |
{rows}

Power is the mean square of the amplitude, below the dashed line and above it. "nearest" and the label modes refuse
`antialias`, because they copy voxels or vote on labels.

## A chirp

A volume of {shape} voxels with rings that grow finer from the centre to the rim, where half a cycle falls on
a voxel, resampled to {step} times the spacing along x and y, by the default B-spline. The outer rings are too
fine for the new grid.

![The chirp and what becomes of it](antialias-chirp.png)

| mean square of the result | `antialias=False` | `antialias=True` |
| --- | ---: | ---: |
| where the rings are up to half as fine as the grid can hold | {low_off:.3f} | {low_on:.3f} |
| where they are more than 1.25 times as fine as it can hold: false | {high_off:.3f} | {high_on:.5f} |

Without antialiasing, the false rings have {false:.0f} % of the true rings' energy. With it, they have \
{less:.0f} times less than before.
The price is the blur: {left:.0f} % of the true rings' energy is left.
"""


def page(curves: dict[tuple[str, bool], tuple[Array, Array]], energies: dict[bool, tuple[float, float]]) -> str:
    """The text, with what was measured in it."""
    rows = []
    for name in FILTERS:
        off, on = curves[name, False], curves[name, True]
        rows.append(
            f'| `"{name}"` | {share(off, False):.2f} | {share(on, False):.2f} | {share(off, True):.3f} '
            f"| {share(on, True):.4f} | {share(off, True) / share(on, True):.0f}x |"
        )
    (low_off, high_off), (low_on, high_on) = energies[False], energies[True]
    return TEXT.format(
        n=N, step=STEP, rows="\n".join(rows), shape=" x ".join(map(str, SHAPE[::-1])), low_off=low_off, low_on=low_on,
        high_off=high_off, high_on=high_on, false=100 * high_off / low_off, less=high_off / high_on,
        left=100 * low_on / low_off,
    )  # fmt: skip


def main() -> None:
    """Measure, draw, write."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent
    mpl.rcParams.update({"svg.fonttype": "path", "font.family": "DejaVu Sans", "svg.hashsalt": "antialias"})
    curves = {(name, on): response(name, on) for name in FILTERS for on in (False, True)}
    source, frequency = chirp()
    small: dict[bool, Any] = {on: gr.resample(source, spacing=(1, STEP, STEP), antialias=on) for on in (False, True)}
    energies = {on: energy(small[on], frequency) for on in (False, True)}
    draw_responses(curves).savefig(folder / "antialias-response.svg", metadata={"Date": None})
    draw_chirp(source, small).savefig(folder / "antialias-chirp.png", dpi=110, metadata={"Software": None})
    (folder / "antialias.md").write_text(page(curves, energies), encoding="utf-8")


if __name__ == "__main__":
    main()
