"""A recorded run as tables: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpuresample.bench import measure
from gpuresample.bench.records import OURS, Record, Run, by_case, ratio
from gpuresample.bench.tables import duration, megabytes, millions, percent, times
from gpuresample.bench.targets import verdicts

HEADER = ("", "median", "spread", "runs", "vs SimpleITK", "MVoxel/s", "of a copy", "peak memory", "error", "check")
TARGETS = ("case", "who", "against", "measured", "target", "verdict")


@dataclass(frozen=True)
class Table:
    """A table: its title, header and rows, and what is to be said below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def markdown(self) -> str:
        """As Markdown."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"## {self.title}\n\n{text}\n" + (f"\n{self.note}\n" if self.note else "")


def _cells(r: Record, among: Sequence[Record]) -> list[str]:
    found = ratio(r, among)
    return [
        f"{r.doer} {r.version}".strip() if not r.ours else r.doer, duration(r.median), r.spread, str(len(r.seconds)),
        "" if found is None else times(found), millions(r.rate),
        "" if r.share is None else percent(r.share), peak(r),
        "" if r.error is None else f"{r.error:.0e}", r.check,
    ]  # fmt: skip


def peak(r: Record) -> str:
    """Peak memory: of the device, where the work is done on one."""
    if r.device != "cpu":
        return "not measured" if r.peak_device is None else f"{megabytes(r.peak_device)} on the device"
    return "not measured" if r.peak_host is None else megabytes(r.peak_host)


def scaled(run: Run) -> str:
    """What is to be said of targets in a run that is not of the whole jobs."""
    profile = run.machine.get("profile")
    return "" if profile == "full" else f"The targets are those of the whole jobs; this is profile {profile}."


def targets(run: Run) -> Table | None:
    """Figures against what they are meant to be."""
    rows = [[v.what, v.who, v.against, v.shown, v.target.wanted, v.said] for v in verdicts(run)]
    return Table("Targets", TARGETS, rows, scaled(run)) if rows else None


def copied(run: Run, case: str) -> str:
    """What a bare copy of a case's bytes takes."""
    copy = next((r for r in run.of("copy") if r.case == case), None)
    rate = "" if copy is None else f"{copy.bytes_moved / copy.median / 1e9:.1f} GB/s"
    return "" if copy is None else f", which a copy does in {duration(copy.median)} ({rate})"


def tables(run: Run) -> Iterator[Table]:
    """All tables of a run."""
    for name, rows in by_case(run.of("case")).items():
        first = rows[0]
        shapes = " to ".join("x".join(map(str, s)) for s in (first.input_shape, first.output_shape))
        note = f"{first.case}: {shapes} (array order); {megabytes(first.bytes_moved)} must be moved{copied(run, name)}."
        yield Table(first.what, HEADER, [_cells(r, rows) for r in sorted(rows, key=lambda r: r.median)], note)
    for kind, title in (("threads", "By threads"), ("size", "By size")):
        for rows in by_case(run.of(kind)).values():
            header: Sequence[str] = ("who", kind, "median", "spread", "vs SimpleITK", "MVoxel/s")
            yield Table(f"{title}: {rows[0].what}", header, [
                [r.doer, str(getattr(r, kind)), duration(r.median), r.spread,
                 "" if (found := ratio(r, rows)) is None else times(found), millions(r.rate)] for r in rows
            ])  # fmt: skip
    if cold := run.of("cold"):
        header = ("40x64x64 int16, cubic B-spline; new processes", "median", "runs")
        yield Table("First calls", header, [[r.what, duration(r.median), str(len(r.seconds))] for r in cold])
    if (aims := targets(run)) is not None:
        yield aims


def about(run: Run) -> str:
    """The run in a few lines: profile, machine, what was not here."""
    m = run.machine
    lines = [
        f"Profile {m.get('profile', 'unknown')}; {run.date}" + (f"; commit {run.commit}" if run.commit else ""),
        measure.about(m) + (f"; {m['gpu']}" if m.get("gpu") else "; no GPU"),
    ]
    if m.get("sittings", 1) > 1:
        lines.append(f"Stopped and continued: {m['sittings']} processes measured it, each case in one")
    if m.get("image"):
        lines.append(f"Volume: {m['image']}")
    if m.get("absent"):
        lines.append(f"Not installed: {', '.join(m['absent'])}")
    return "\n\n".join(lines)


def markdown(run: Run) -> str:
    """The whole run."""
    parts = [f"# gpuresample against its peers\n\n{about(run)}\n", *(t.markdown for t in tables(run))]
    return "\n".join(parts)


def wrong(run: Run) -> list[str]:
    """Our own wrong answers."""
    return [f"{r.case}: {r.doer}" for r in run.records if r.wrong and (r.peer == OURS or r.ours)]
