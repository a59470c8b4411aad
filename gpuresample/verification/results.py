"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gpuresample.bench import measure, tables
from gpuresample.verification.views import Views

HEADER = ("", "engine", "voxels/sums", "error / range", "bound", "differ", "verdict", "ours", "SimpleITK", "ratio")


@dataclass(frozen=True)
class Row:
    """One interpolation or filter on one engine, next to SimpleITK's.

    Attributes
    ----------
    name : str
        "linear", ..., "gaussian_discrete", "gaussian_recursive", "shrink", "bin_shrink".
    engine : str
        "cpu", "cuda", "cuda:N".
    path : str
        Voxel type of image and result, and of the sums.
    state : {"ok", "broken", "not run"}
        "broken" is outside the numeric contract.
    error : float or None
        Largest error of the sums, in units of the image's range. None for voxels that are copied or chosen.
    difference : float or None
        The same in intensity units; for copied voxels the largest difference.
    bound : float
        What `error` must not exceed; 0 where voxels must be equal.
    differ : float or None
        Share of voxels that differ, of integers and of copied voxels.
    seconds, sitk_seconds : float or None
        Medians of the timed calls.
    note : str
        What else there is to know.
    views : Views or None
        Pictures, where anything differs.
    """

    name: str
    engine: str
    path: str = ""
    state: str = "ok"
    error: float | None = None
    difference: float | None = None
    bound: float = 0.0
    differ: float | None = None
    seconds: float | None = None
    sitk_seconds: float | None = None
    note: str = ""
    views: Views | None = field(default=None, repr=False, compare=False)

    @property
    def ratio(self) -> float | None:
        """How many times faster than SimpleITK."""
        return None if not self.seconds or self.sitk_seconds is None else self.sitk_seconds / self.seconds

    def cells(self) -> tuple[str, ...]:
        """The row as text, under `HEADER`."""
        if self.state == "not run":
            return (self.name, self.engine, self.path, "", "", "", "not run", "", "", "")
        exact = self.bound == 0
        return (
            self.name,
            self.engine,
            self.path,
            ("0" if not self.differ else "") if self.error is None else f"{self.error:.1e}",
            "equal" if exact else f"{self.bound:.0e}",
            "" if self.differ is None else f"{100 * self.differ:.2g} %",
            "ok" if self.state == "ok" else "BROKEN",
            "" if self.seconds is None else tables.duration(self.seconds),
            "" if self.sitk_seconds is None else tables.duration(self.sitk_seconds),
            "" if self.ratio is None else f"{self.ratio:.1f}x",
        )


@dataclass(frozen=True)
class Verification:
    """What `verify` found: `print` it, or `write` it as an HTML page.

    Attributes
    ----------
    rows : tuple of Row
    image : dict
        What was compared: sizes, spacings, type, range.
    machine : dict
        Processor, threads, versions.
    rounding : str
        How integers were rounded.
    notes : tuple of str
        What holds for all rows.
    """

    rows: tuple[Row, ...]
    image: Mapping[str, Any]
    machine: Mapping[str, Any]
    rounding: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing is outside the numeric contract."""
        return not self.broken and any(r.state == "ok" for r in self.rows)

    @property
    def broken(self) -> tuple[Row, ...]:
        """Rows outside the numeric contract."""
        return tuple(r for r in self.rows if r.state == "broken")

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        done = [r for r in self.rows if r.state != "not run"]
        if not done:
            return "Nothing was compared."
        if self.broken:
            names = ", ".join(f"{r.name} ({r.engine})" for r in self.broken)
            return f"{len(self.broken)} of {len(done)} comparisons break the numeric contract: {names}."
        return f"All {len(done)} comparisons are within the numeric contract."

    def remarks(self) -> list[str]:
        """Notes of the rows, then those that hold for all; rows with the same note share a line."""
        of: dict[str, list[str]] = {}
        several = len({r.engine for r in self.rows}) > 1
        for r in self.rows:
            if r.note:
                of.setdefault(r.note, []).append(f"{r.name} ({r.engine})" if several else r.name)
        return [f"{', '.join(names)}: {note}" for note, names in of.items()] + list(self.notes)

    def about_image(self) -> str:
        """What was compared, in one line."""
        return "; ".join(f"{what} {value}" for what, value in self.image.items())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [{**asdict(replace(r, views=None)), "ratio": r.ratio} for r in self.rows]
        for row in rows:
            del row["views"]
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "image": dict(self.image),
            "machine": dict(self.machine),
            "rounding": self.rounding,
            "rows": rows,
            "notes": list(self.notes),
        }

    def write(self, path: str | Path) -> None:
        """Write an HTML page with plots and pictures of the differences; what was there is replaced.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib or jinja2, which `gpuresample[cli]` brings.
        OSError
            If it cannot be written.
        """
        from gpuresample.verification import report

        report.page(self).write(Path(path))

    def __str__(self) -> str:
        rows = [r.cells() for r in self.rows]
        lines = [
            f"gpuresample against SimpleITK: {self.verdict}",
            "",
            self.about_image(),
            measure.about(self.machine),
            "",
        ]
        lines += _aligned(HEADER, rows)
        remarks = self.remarks()
        return "\n".join(lines + ([""] if remarks else []) + remarks)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text, figures to the right."""
    width = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = (0, 1, 2, 6)
    return [
        "  ".join(f"{c:<{w}}" if k in left else f"{c:>{w}}" for k, (c, w) in enumerate(zip(row, width, strict=True)))
        .rstrip()
        for row in (header, *rows)
    ]  # fmt: skip
