"""What became of a batch, for people (HTML) and for programs (CSV)."""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from gpuresample import texts
from gpuresample.batch import items, records, thumbnails
from gpuresample.files import volumes as files
from gpuresample.pages import Cell, Page, Picture

# Beyond these, a page is no longer one that people read; the CSV file has all.
_ROWS = 2000
_PICTURES = 100
_NAMED = 10  # lost labels
_STATE = {"done": "good", "as before": "good", "failed": "bad", "not done": "warn"}
_STAGES = ("read", "resample", "write")
# A cell that begins so is a formula to spreadsheets; to some its wide and small forms are, too.
_FORMULA = tuple("=+-@|%\u2212")
# A cell: what spreadsheets skip at its start, and the rest. Where commas are in numbers, cells are parted at semicolons
# or tabs, and our quotes, which then do not begin a cell, hide no end of a line.
_CELL = re.compile(r"""(?:^|(?<=[;\t\r\n]))([\0-\x1f\s"\u200b-\u200f\u2060\ufeff]*)([^;\t\r\n]*)""")
COLUMNS = (
    "output", "state", "reason", "input", "size_before", "size", "spacing_before", "spacing", "origin_before", "origin",
    "direction_before", "direction", "type_before", "type", "range_before", "range", "not_finite_before", "not_finite",
    "in_range", "extent_kept", "labels", "labels_lost", "labels_shift", "warnings",
    "read_s", "resample_s", "write_s", "input_bytes", "output_bytes",
    "input_hash", "output_hash", "settings", "version", "at",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """Of a run.

    Attributes
    ----------
    root : str
        OUT_DIR.
    seconds : float
    workers : str
        Who did it.
    stopped : str
        Why not all volumes were tried.
    notes : list of str
        What the run has met.
    """

    root: str
    seconds: float
    workers: str
    stopped: str
    notes: list[str]


def write_csv(path: Path, made: Sequence[records.Record]) -> None:
    """A row for each volume; tuples are numbers with blanks between. What would be a formula has a ' before it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with files.replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for record in made:
            writer.writerow({name: _text(cell) for name, cell in _row(record).items()})


def _row(record: records.Record) -> dict[str, Any]:
    checks, seconds = record.get("checks", {}), record.get("seconds", {})
    row = {
        "output": record["name"], "state": record["kind"], "reason": record.get("reason", ""),
        "input": record["source"],
        "not_finite_before": checks.get("not_finite_before"), "not_finite": checks.get("not_finite"),
        "in_range": checks.get("in_range"), "extent_kept": checks.get("extent"),
        "warnings": "; ".join(record.get("warnings", [])), "version": record.get("version"), "at": record.get("at"),
        "settings": json.dumps(record["settings"]) if "settings" in record else "",
        "labels": checks.get("labels"), "labels_lost": _whole(checks.get("labels_lost")),
        "labels_shift": _spaced([checks["labels_shift"]]) if checks.get("labels_shift") is not None else "",
        "range_before": _spaced(checks.get("range_before")), "range": _spaced(checks.get("range")),
    }  # fmt: skip
    for key, suffix in (("before", "_before"), ("after", "")):
        geometry = record.get(key, {})
        row |= {f"{name}{suffix}": _spaced(geometry.get(name)) for name in ("size", "spacing", "origin", "direction")}
        row[f"type{suffix}"] = geometry.get("type")
    for key in ("input", "output"):
        file = record.get(key, {})
        row |= {f"{key}_bytes": file.get("stamp", [None])[0], f"{key}_hash": file.get("hash")}
    return row | {f"{name}_s": seconds.get(name) for name in _STAGES}


def _text(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, nor a part of it: names of files are other people's words."""
    return _CELL.sub(_defused, texts.printable(cell)) if isinstance(cell, str) else cell


def _defused(cell: re.Match[str]) -> str:
    skipped, rest = cell.groups()
    harmless = not unicodedata.normalize("NFKC", rest[:1]).startswith(_FORMULA) or texts.is_numbers(rest)
    return cell[0] if harmless else f"{skipped}'{rest}"


def _spaced(values: Sequence[float] | None) -> str:
    return "" if values is None else " ".join(f"{v:.10g}" for v in values)


def _whole(labels: Sequence[int] | None) -> str:
    return " ".join(map(str, labels or ()))


def write_html(path: Path, made: Sequence[records.Record], facts: Facts) -> None:
    """A page: figures, what failed, what deserves a look, pictures, times, all volumes.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    page = Page("Batch", facts.root)
    counts = Counter(r["kind"] for r in made)
    page.facts([(_LABELS[kind], _count(kind, n)) for kind, n in _in_order(counts)] + _figures(made, facts))
    for text in (f"Stopped: {facts.stopped}." if facts.stopped else "", facts.workers, *facts.notes):
        if text:
            page.text(text[0].upper() + text[1:] + ("" if text.endswith(".") else "."))
    _failed(page, made)
    _remarkable(page, made)
    _pictures(page, made)
    _times(page, [r for r in made if r["kind"] == "done"])
    _all(page, made)
    page.write(path)


_LABELS = {"done": "done", "as before": "done before", "failed": "failed", "not done": "not done"}


def _in_order(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    for kind in _LABELS:
        if counts[kind]:
            yield kind, counts[kind]


def _count(kind: str, n: int) -> Cell:
    return Cell(f"{n:,}", _STATE[kind])


def _figures(made: Sequence[records.Record], facts: Facts) -> list[tuple[str, str | Cell]]:
    done = [r for r in made if r["kind"] == "done"]
    if not done:
        return []
    voxels = sum(r.get("voxel_bytes", 0) for r in done)
    return [
        ("time", _duration(facts.seconds)),
        ("volumes per second", f"{len(done) / max(facts.seconds, 1e-9):.3g}"),
        ("voxels read per second", f"{voxels / 1e6 / max(facts.seconds, 1e-9):.3g} MB"),
    ]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.3g} s" if seconds < 100 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _failed(page: Page, made: Sequence[records.Record]) -> None:
    failed = [r for r in made if r["kind"] == "failed"]
    if not failed:
        return
    root = os.path.commonpath([os.path.dirname(r["source"]) for r in made])
    page.section("Failed")
    rows = [
        [Cell(os.path.relpath(r["source"], root), "bad"), r["reason"].removeprefix(f"{r['source']}: ")]
        for r in failed[:_ROWS]
    ]
    page.table(["input", "reason"], rows, _rest(len(failed), "Tried again by the next run."))


def _rest(count: int, text: str = "") -> str:
    more = f"{count - _ROWS:,} more are in report.csv." if count > _ROWS else ""
    return f"{text} {more}".strip()


def _remarkable(page: Page, made: Sequence[records.Record]) -> None:
    rows = [
        [r["name"], Cell(remark, "warn")] for r in made if r["kind"] in ("done", "as before") for remark in _remarks(r)
    ]
    if rows:
        page.section("Worth a look")
        page.table(["output", "remark"], rows[:_ROWS], _rest(len(rows)))


def _remarks(record: records.Record) -> Iterator[str]:
    checks = record["checks"]
    if checks["not_finite"] and not checks["not_finite_before"]:
        yield f"{checks['not_finite']:,} voxels are not finite, and all of the input's are"
    if not checks["in_range"]:
        yield f"values from {_range(checks['range'])}; the input's are from {_range(checks['range_before'])}"
    if checks["extent"] is False:
        yield "covers another length than the input"
    if lost := checks.get("labels_lost"):
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        yield f"of {checks['labels']} labels, lost {', '.join(map(str, lost[:_NAMED]))}{more}"
    yield from record.get("warnings", [])


def _range(pair: Sequence[float]) -> str:
    return f"{pair[0]:.6g} to {pair[1]:.6g}"


def _pictures(page: Page, made: Sequence[records.Record]) -> None:
    have = [r for r in made if "thumbnail" in r]
    if not have:
        return
    # Those that deserve a look come first.
    have.sort(key=lambda r: r["kind"] != "failed" and items.is_clean(r["checks"]))
    page.section("Pictures")
    page.text("Left a slice of the input, right the result at the same place, in the same grey values.")
    page.pictures([Picture.of(thumbnails.unpacked(r["thumbnail"]), r["name"]) for r in have[:_PICTURES]])


def _times(page: Page, done: Sequence[records.Record]) -> None:
    if len(done) < 10:
        return

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        values = [np.array([r["seconds"].get(stage, 0.0) for r in done]) * 1000 for stage in _STAGES]
        top = max(float(v.max()) for v in values)
        bins = np.geomspace(max(1.0, min(float(v.min()) for v in values)), max(top, 2.0) * 1.01, 40)
        for stage, v in zip(_STAGES, values, strict=True):
            axes.hist(np.maximum(v, bins[0]), bins, label=stage, histtype="step", linewidth=2)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds for a volume")
        axes.set_ylabel("volumes")
        axes.legend()

    page.section("Times")
    page.plot("How long volumes took to read, resample and write; several are under way at once.", draw, height=3.0)


def _all(page: Page, made: Sequence[records.Record]) -> None:
    page.section("Volumes")
    header = ["output", "state", "size", "spacing", "type", "labels", "checks", "ms"]
    text = "Labels are counted where they were chosen (nearest, label modes). Milliseconds: to read, resample, write."
    page.table(header, [_cells(r) for r in made[:_ROWS]], _rest(len(made), text))


def _cells(record: records.Record) -> list[str | Cell]:
    kind = record["kind"]
    first = [
        Cell(
            record["name"],
            link=quote(record["name"].encode("utf-8", "surrogateescape")) if kind in ("done", "as before") else "",
        )
    ]
    state = Cell(kind.split()[-1], _STATE[kind])
    if "after" not in record:
        return [*first, state, "", "", "", "", "", _milliseconds(record)]
    before, after = record["before"], record["after"]
    types = [_short(g["type"]) for g in (before, after)]
    clean = items.is_clean(record["checks"]) and not record.get("warnings")
    return [
        *first, state, f"{_times_sign(before['size'])} → {_times_sign(after['size'])}",
        f"{_times_sign(before['spacing'])} → {_times_sign(after['spacing'])}", " → ".join(dict.fromkeys(types)),
        _labels(record["checks"]),
        Cell("passed", "good") if clean else Cell("see above", "warn"), _milliseconds(record),
    ]  # fmt: skip


def _labels(checks: dict[str, Any]) -> str:
    """How many labels there were, and how many are left where that is not all."""
    if "labels" not in checks:
        return ""
    lost = len(checks["labels_lost"])
    return f"{checks['labels']}" if not lost else f"{checks['labels']} → {checks['labels'] - lost}"


def _short(pixel_type: str) -> str:
    """SimpleITK's "vector of 8-bit unsigned integer" as "uint8 vector"."""
    scalar = re.sub(
        r"^(\d+)-bit (unsigned |signed )?(integer|float)$",
        lambda m: {"unsigned ": "u"}.get(m[2], "") + {"integer": "int"}.get(m[3], m[3]) + m[1],
        pixel_type.removeprefix("vector of "),
    )
    return f"{scalar} vector" if pixel_type.startswith("vector") else scalar


def _times_sign(values: Sequence[float]) -> str:
    return " x ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


def _milliseconds(record: records.Record) -> str:
    seconds = record.get("seconds", {})
    return ", ".join(f"{seconds[stage] * 1000:.0f}" for stage in _STAGES if stage in seconds)
