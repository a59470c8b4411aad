"""A recorded run as one HTML page, for people: plots, tables, targets, the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpuresample.bench import listing, plots, records, targets
from gpuresample.bench.records import OURS, Record, Run, by_case, ratio, yardstick
from gpuresample.bench.tables import duration, megabytes, millions, percent, times
from gpuresample.pages import Cell, Page

HEADER = ("", "median", "spread", "vs SimpleITK", "MVoxel/s", "of a copy", "peak memory", "error", "answer")
# Of up to so many the page's contents show every one.
FEW_CASES = 6


def write_report(json_path: Path | str, html_path: Path | str) -> None:
    """Write a recorded run as one self-contained HTML file, in a light and a dark theme.

    Parameters
    ----------
    json_path : Path or str
        The run, as the benchmarks' suite records it (`records.read`).
    html_path : Path or str
        Appears whole or not at all.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    ValueError
        If `json_path` is no recorded run, or one without rows.
    """
    run = records.read(Path(json_path))
    if not run.records:
        raise ValueError(f"{json_path} has no benchmarks in it")
    page(run).write(Path(html_path))


def page(run: Run) -> Page:
    """The page of a run."""
    look = plots.looks(run.records)
    cases = run.of("case")
    commit = f", commit {run.commit}" if run.commit else ""
    made = Page("gpuresample against its peers", f"{run.machine.get('cpu', 'unknown CPU')}; {run.date}{commit}")
    made.facts(_facts(run))
    if any(yardstick(r, cases) for r in cases):
        made.section("At a glance")
        n_cases = len(by_case(cases))
        made.plot(
            "How many times as fast as SimpleITK on the same case, by median. Bars: gpuresample, arrays in and out. "
            "Marks: others whose answer was right.",
            plots.overview(cases, look), height=plots.height(n_cases, len(look) + 3),
        )  # fmt: skip
    _targets(made, run)
    found = by_case(cases)
    for name, rows in found.items():
        made.section(rows[0].what, group="cases" if len(found) > FEW_CASES else "")
        _case(made, name, rows, look)
    _bandwidth(made, cases, look)
    if any(r.error is not None for r in cases):
        made.section("Error against speed")
        made.plot(
            "Lower and further right is better. Error: largest difference from a float64 reference over the input's "
            "range; on integer results that includes their rounding. Rings mark answers that are not the case's.",
            plots.error_and_speed(cases, look), height=5.2,
        )  # fmt: skip
    _scaling(made, run, look)
    _others(made, run)
    _machine(made, run)
    return made


# -- parts of the page -----------------------------------------------------------------------------------------------


def _facts(run: Run) -> list[tuple[str, str | Cell]]:
    cases = run.of("case")
    facts: list[tuple[str, str | Cell]] = []
    ratios = [
        (j.median / r.median, r) for r in cases if r.peer == OURS and r.device == "cpu" and (j := yardstick(r, cases))
    ]
    if ratios:
        best, row = max(ratios, key=lambda pair: pair[0])
        facts.append((f"against SimpleITK: {row.case}", times(best)))
        least, row = min(ratios, key=lambda pair: pair[0])
        if len(ratios) > 1:
            facts.append((f"the least: {row.case}", times(least)))
    verdicts = [v.reached for v in targets.verdicts(run)]
    if verdicts:
        n, measured = verdicts.count(True), len(verdicts) - verdicts.count(None)
        facts.append((
            "targets reached, of those measured",
            Cell(f"{n} of {measured}", "good" if n == len(verdicts) else "warn"),
        ))  # fmt: skip
    wrong = sum(r.wrong for r in cases if r.ours)
    if cases:
        facts.append(("our wrong answers", Cell(str(wrong), "bad" if wrong else "good")))
    bandwidth = {r.device: r.copy_bandwidth for r in run.records if r.copy_bandwidth}
    facts += [
        (f"a copy, {device}", f"{b / 1e9:,.0f} GB/s" if b > 1e11 else f"{b / 1e9:.1f} GB/s")
        for device, b in bandwidth.items()
    ]
    return facts


def _targets(made: Page, run: Run) -> None:
    found = targets.verdicts(run)
    if not found:
        return
    colours = {None: "warn", True: "good", False: "bad"}
    made.section("Targets")
    made.table(
        ("case", "who", "against", "meant to be", "measured", "verdict"),
        [[v.what, v.who, v.against, v.target.wanted, v.shown, Cell(v.said, colours[v.reached])] for v in found],
        f"Ratios of medians in one run. {listing.scaled(run)}".strip(),
    )


def _case(made: Page, name: str, rows: Sequence[Record], look: dict[str, plots.Look]) -> None:
    r = rows[0]
    shape = " to ".join("x".join(map(str, s)) for s in (r.input_shape, r.output_shape) if s)
    kinds = " to ".join(dict.fromkeys(k for k in (r.input_dtype, r.output_dtype) if k))
    moved = f"; {megabytes(r.bytes_moved)} to be read and written" if r.bytes_moved else ""
    made.text(f"{name}: {shape} (last axes z, y, x), {kinds}{moved}.")
    made.plot(
        f"{r.what}: medians; the line spans fastest to slowest round. Hatched: wrong answers.",
        plots.bars(rows, look), height=plots.height(len(rows)),
    )  # fmt: skip
    notes = [f"{r.doer}: {r.check}." for r in rows if r.check.partition(":")[2]]
    made.table(HEADER, [table_row(r, rows) for r in sorted(rows, key=lambda r: r.median)], " ".join(notes))


def table_row(r: Record, among: Sequence[Record]) -> list[str | Cell]:
    """A row under `HEADER`."""
    found = ratio(r, among)
    return [
        " ".join([r.doer, r.version] if r.version and not r.ours else [r.doer]),
        duration(r.median),
        r.spread,
        "-" if found is None else times(found),
        millions(r.rate),
        "-" if r.share is None else percent(r.share),
        listing.peak(r),
        "-" if r.error is None else "0" if r.error == 0 else f"{r.error:.0e}".replace("e-0", "e-"),
        answer(r),
    ]


def answer(r: Record) -> str | Cell:
    """What the check of the row's answer found."""
    if r.wrong:
        return Cell("WRONG", "bad")
    if r.unchecked:
        return Cell("unchecked", "warn")
    return "the\u00a0judge" if r.check == "judge" else Cell("right", "good") if r.check == "ok" else r.check


def _bandwidth(made: Page, cases: Sequence[Record], look: dict[str, plots.Look]) -> None:
    known = [r for r in cases if r.share is not None and not r.wrong]
    if not known:
        return
    made.section("Roofline")
    made.text(
        "Resampling has little arithmetic per byte once it is done by tables, so memory sets the limit: the input must "
        "be read once and the output written once, and no one does that faster than a copy of as many bytes."
    )
    n_rows = len({(r.device, r.case) for r in known})
    made.plot(
        "Bytes that must be moved over the median time. The upright stroke is a copy's bandwidth on that device in the "
        "same run, in bytes read and written; percentages are gpuresample's share of it.",
        plots.roofline(cases, look), height=plots.height(n_rows + 1, len(look) + 3),
    )  # fmt: skip


def _scaling(made: Page, run: Run, look: dict[str, plots.Look]) -> None:
    for kind, title, draw, caption in (
        ("size", "By size", plots.by_size, "Voxels per second; bars span all rounds."),
        ("threads", "By threads", plots.by_threads, "Gain from threads, each against itself; bars span all rounds."),
    ):
        for name, rows in by_case(run.of(kind)).items():
            made.section(f"{title}: {rows[0].what}")
            made.plot(f"{name}. {caption}", draw(rows, look), height=3.8)
            points = sorted(rows, key=lambda r: (r.size or 0, r.threads or 0, r.median))
            made.table(
                ("who", kind, "median", "vs SimpleITK", "MVoxel/s"),
                [[r.doer, str(getattr(r, kind)), duration(r.median),
                  "-" if (found := ratio(r, rows)) is None else times(found), millions(r.rate)]
                 for r in points],
            )  # fmt: skip


def _others(made: Page, run: Run) -> None:
    rows = [*run.of("cold"), *run.of("copy")]
    if not rows:
        return
    made.section("First calls and copies")
    made.table(
        ("what", "who", "median", "spread", "GB/s"),
        [[r.what, r.doer, *[str(c) for c in table_row(r, rows)[1:3]],
          f"{r.bytes_moved / r.median / 1e9:,.1f}" if r.bytes_moved and r.kind == "copy" else "-"] for r in rows],
    )  # fmt: skip


def _machine(made: Page, run: Run) -> None:
    m = run.machine
    names = {
        "cpu": "CPU", "cores": "cores of this process", "threads": "threads of every library", "gpu": "GPU",
        "driver": "GPU driver", "load_before": "load before", "system": "system", "python": "Python",
        "profile": "profile", "sittings": "processes that measured, each case in one", "absent": "not installed",
    }  # fmt: skip
    rows: list[list[str | Cell]] = [
        [said, _said(m[key])] for key, said in names.items() if m.get(key) not in (None, "", [])
    ]
    rows += [[name, version] for name, version in m.get("versions", {}).items()]
    rows += [["date", run.date], ["commit", run.commit or "not known"]]
    made.section("The machine")
    made.table(("", "value"), rows)
    made.section("How it was measured")
    for paragraph in (
        "All libraries ran in one process on the same threads, round by round, so that a busy moment hits all alike. "
        "Figures are medians over the rounds; the spread is the fastest and the slowest round in percent of it.",
        "Each library starts from its own container and ends with its own; conversions are not timed. Every answer was "
        "compared before anything was timed; a wrong one is marked, and counts for no ratio.",
        "Peak memory is what the call takes at its peak on top of what was held before, input included. A ratio to "
        "SimpleITK is its median over the row's, on the same case.",
    ):
        made.text(paragraph)


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
