"""Recorded runs: read, and shown as a page."""

import json
import re
import statistics
from dataclasses import replace

import pytest
import recorded

from gpuresample.bench import peers, plots, records, targets
from gpuresample.bench.report import HEADER, page, write_report


@pytest.fixture(scope="module")
def content():
    return recorded.synthetic(gpu=True)


@pytest.fixture(scope="module")
def run(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "benchmark.json"
    path.write_text(json.dumps(content))
    return records.read(path)


@pytest.fixture(scope="module")
def html(run):
    return page(run).html()


def infos(content, **wanted):
    """Every `extra_info` with these values."""
    found = [b["extra_info"] for b in content["benchmarks"]]
    return [i for i in found if all(i[key] == value for key, value in wanted.items())]


def row_of(html, *words):
    """Cells of the first table row that begins with these words."""
    for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL):
        cells = [re.sub(r"<[^>]*>|\s+", " ", c).strip() for c in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        if tuple(cells[: len(words)]) == words:
            return cells
    raise AssertionError(f"no row {words}")


# -- reading ----------------------------------------------------------------------------------------------------------


def test_every_benchmark_is_a_row(run, content):
    assert len(run.records) == len(content["benchmarks"])
    for record, benchmark in zip(run.records, content["benchmarks"], strict=True):
        info = benchmark["extra_info"]
        assert (record.kind, record.case, record.peer) == (info["kind"], info["case"], info["peer"])
        assert record.median == statistics.median(info["seconds"])
        assert record.wrong == (info["check"] == "WRONG")
    assert run.machine["cpu"] == recorded.MACHINE["cpu"]
    assert run.commit == "0123456789"


def test_a_share_is_bytes_over_time_over_bandwidth(run, content):
    record = next(r for r in run.of("case") if r.peer == "scipy")
    info = infos(content, kind="case", case=record.case, peer="scipy")[0]
    assert record.share == pytest.approx(info["bytes"] / statistics.median(info["seconds"]) / info["copy_bandwidth"])


def test_a_wrong_answer_is_no_yardstick(run):
    rows = [r for r in run.of("case") if r.case == "ct-recipe-linear"]
    ours = next(r for r in rows if r.peer == "gpuresample")
    assert records.yardstick(ours, rows).peer == "simpleitk"
    assert records.yardstick(ours, rows, "torch") is None


def test_threads_are_compared_with_the_same_number(run):
    rows = run.of("threads")
    for ours in (r for r in rows if r.peer == "gpuresample"):
        assert records.yardstick(ours, rows).threads == ours.threads


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("benchmarks"), "not a JSON file of pytest-benchmark"),
        (lambda c: c["benchmarks"][0]["extra_info"].pop("peer"), "has no peer"),
        (lambda c: c["benchmarks"][0].update(extra_info={}, stats={}), "has no kind, case, peer"),
        (lambda c: c["benchmarks"][0]["extra_info"].update(seconds=[0.0, 1.0]), "not above 0"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, change, said):
    content = recorded.synthetic()
    change(content)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        records.read(path)


def test_a_text_is_no_run(tmp_path):
    (tmp_path / "run.json").write_text("seconds: 3")
    with pytest.raises(ValueError, match=r"run\.json is not a JSON file"):
        records.read(tmp_path / "run.json")


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing(html):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert not re.search(r"url\((?!#)|@import|<link|<script", html)


def test_every_case_has_a_plot_and_a_row_for_everyone(html, content):
    for info in infos(content, kind="case"):
        assert f">{info['what']}</h2>" in html
    for case in recorded.CASES:
        what = recorded.CASES[case][0]
        part = html[html.index(f">{what}</h2>") :]
        part = part[: part.index("<h2", 5)]
        assert "<svg" in part
        assert part.count("<tr>") == 1 + len(infos(content, kind="case", case=case))


def test_a_row_says_what_was_measured(html, content):
    part = html[html.index(">CT recipe, cubic B-spline, int16</h2>") :]
    ours, judge = (infos(content, kind="case", case="ct-recipe-bspline", peer=p, device="cpu")[0]
                   for p in ("gpuresample", "simpleitk"))  # fmt: skip
    cells = dict(zip(HEADER, row_of(part, "gpuresample"), strict=True))
    seconds = statistics.median(ours["seconds"])
    assert float(cells["median"].removesuffix(" ms")) == pytest.approx(seconds * 1e3, rel=0.01)
    assert float(cells["vs SimpleITK"].rstrip("x")) == pytest.approx(
        statistics.median(judge["seconds"]) / seconds, rel=0.01
    )
    assert float(cells["MVoxel/s"]) == pytest.approx(ours["voxels"] / seconds / 1e6, rel=0.01)
    assert float(cells["of a copy"].rstrip(" %")) == pytest.approx(
        100 * ours["bytes"] / seconds / ours["copy_bandwidth"], abs=0.6
    )
    assert cells["peak memory"] == f"{ours['peak_host'] / 1e6:,.0f} MB"
    assert float(cells["error"]) == pytest.approx(ours["error"], rel=0.5)
    assert "right" in cells["answer"]


def test_wrong_and_unchecked_answers_are_marked(html):
    part = html[html.index(">CT recipe, linear, int16</h2>") :]
    torch = row_of(part, "torch interpolate 1.2.3")
    assert "WRONG" in torch[-1]
    assert torch[HEADER.index("vs SimpleITK")] == "-"
    part = html[html.index(">32 patches of 64x64x64 to 48x48x48, linear, float32</h2>") :]
    assert "unchecked" in row_of(part, "torch interpolate 1.2.3")[-1]
    assert "no bound is stated for it" in part


def test_targets_say_whether_they_are_reached(html, run):
    found = targets.verdicts(run)
    assert {v.reached for v in found} == {True, False, None}
    part = html[html.index(">Targets</h2>") :]
    part = part[: part.index("<h2", 5)]
    assert part.count("<tr>") == 1 + len(found)
    for v in found:
        assert v.said in row_of(part, v.what, v.who, v.against, v.target.wanted)[-1]
    reached = [v.reached for v in found]
    assert f"{reached.count(True)} of {len(reached) - reached.count(None)}<" in html


def test_a_target_whose_peer_was_not_run_is_not_measured():
    content = recorded.synthetic()
    content["benchmarks"] = infos_of(content, lambda i: (i["case"], i["peer"]) == ("ct-recipe-linear", "gpuresample"))
    html = page_of(content)
    assert row_of(html, "CT recipe, linear, int16", "gpuresample")[-1].endswith("not measured: SimpleITK has no row")
    assert "0 of 0" in html


def infos_of(content, keep):
    return [b for b in content["benchmarks"] if keep(b["extra_info"])]


def page_of(content):
    made = tuple(records._record(b, "run") for b in content["benchmarks"])
    return page(records.Run(content["machine_info"]["gpuresample"], "2026-01-01", "", made)).html()


@pytest.mark.parametrize("kind", records.KINDS)
def test_a_part_of_a_run_makes_a_page(kind):
    content = recorded.synthetic()
    content["benchmarks"] = infos_of(content, lambda i: i["kind"] == kind and i["case"] != "ct-recipe-bspline")[:3]
    if kind == "threads":
        content["benchmarks"] = infos_of(recorded.synthetic(), lambda i: i["kind"] == kind)
    html = page_of(content)
    assert ">The machine</h2>" in html
    assert recorded.MACHINE["cpu"] in html


def test_the_machine_is_named(html):
    assert row_of(html, "GPU")[1] == "Made-up GPU"
    assert row_of(html, "numba")[1] == recorded.MACHINE["versions"]["numba"]
    assert row_of(html, "load before")[1] == str(recorded.MACHINE["load_before"])


def test_a_peer_may_be_called_otherwise_in_one_case():
    content = recorded.synthetic()
    few = {(case, peer) for case in ("ct-recipe-bspline", "batch-32") for peer in ("gpuresample", "simpleitk")}
    content["benchmarks"] = infos_of(content, lambda i: i["kind"] == "case" and (i["case"], i["peer"]) in few)
    for info in (b["extra_info"] for b in content["benchmarks"]):
        if info["peer"] == "simpleitk" and info["case"] == "batch-32":
            info["label"] = "SimpleITK, one by one"
    content["machine_info"]["gpuresample"] = {**recorded.MACHINE, "absent": ["MONAI", "TorchIO"]}
    html = page_of(content)
    assert row_of(html, "CT recipe, cubic B-spline, int16", "gpuresample")[2] == "SimpleITK"
    assert row_of(html, "SimpleITK, one by one 1.2.3")
    assert row_of(html, "not installed")[1] == "MONAI, TorchIO"


def test_no_two_libraries_look_alike(run):
    """Every peer of the suite in one run, as on a GPU runner with all of them installed."""
    known = {**peers.PEERS, **peers.GPU_PEERS}
    everyone = [*known, *(f"gpuresample-as-{peer}" for peer in known if peer not in peers.OURS), "copy", "numpy"]
    found = plots.looks(replace(run.records[0], peer=peer, label=peer) for peer in everyone)
    assert set(found) == set(everyone)
    marks = [(look.colour, look.marker) for peer, look in found.items() if not peer.startswith("gpuresample-as-")]
    assert len(set(marks)) == len(marks)


def test_a_report_is_written_whole(tmp_path):
    content = recorded.synthetic()
    content["benchmarks"] = content["benchmarks"][:2]
    (tmp_path / "run.json").write_text(json.dumps(content))
    write_report(tmp_path / "run.json", tmp_path / "report.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "run.json"]
    assert (tmp_path / "report.html").read_text().endswith("</html>")


def test_an_empty_run_has_no_report(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({**recorded.synthetic(), "benchmarks": []}))
    with pytest.raises(ValueError, match="no benchmarks in it"):
        write_report(tmp_path / "run.json", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
