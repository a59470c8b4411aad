"""The model of `benchmarks/scale.py`: which part is the limit, and that the page names every input."""

import json
import re

import pytest

from benchmarks import scale

STEPS = {
    "gzip": {"read": 0.1, "decompress": 0.6, "resample": 0.1, "compress": 2.0, "write": 0.2},
    "raw": {"read": 0.2, "decompress": 0.0, "resample": 0.1, "compress": 0.0, "write": 0.2},
}
SIZES = {"gzip": (80e6, 70e6), "raw": (130e6, 80e6)}
GPU = {"device": 3e-4, "host_pinned": 0.008, "host_pageable": 0.036, "cpu_engine": 0.012}


def modelled(network=3e9, gpu_network=25e9):
    return scale.ways(STEPS, SIZES, GPU, 2, network, gpu_network)


@pytest.mark.parametrize(
    ("changes", "nodes", "expected"),
    [
        ({"parts": {"cores": 0.5}}, 1, (2.0, "cores")),
        ({"parts": {"cores": 0.5}}, 3, (6.0, "cores")),
        ({"parts": {"cores": 0.01, "GPU": 0.25}}, 1, (4.0, "GPU")),
        ({"parts": {"cores": 0.01}, "network": 50.0}, 2, (1.0, "network")),
        ({"parts": {"cores": 0.01}}, 1000, (10.0, "storage")),
    ],
    ids=str,
)
def test_the_slowest_part_is_the_limit(changes, nodes, expected):
    way = scale.Way(**({"name": "a", "bytes_in": 60.0, "bytes_out": 40.0, "network": 1e6} | changes))
    rate, part = way.rate(nodes, 1000.0)
    assert (rate, part) == (pytest.approx(expected[0]), expected[1])


def test_nodes_that_saturate_the_storage():
    way = scale.Way("a", {"cores": 0.5}, 60.0, 40.0, 1e6)
    n = way.enough(1000.0)
    assert n == pytest.approx(5.0)
    assert way.rate(4, 1000.0)[1] == "cores"
    assert way.rate(6, 1000.0) == (pytest.approx(10.0), "storage")


def test_kinds_of_nodes():
    small, raw, large, gpu, pinned = modelled()
    assert small.parts == {"cores": pytest.approx(3.0)}
    assert raw.parts == {"cores": pytest.approx(0.5)}
    # Reading and writing by 16 cores instead of 2; resampling as it was recorded.
    assert large.parts == {"cores": pytest.approx(0.05 + 0.012)}
    assert gpu.parts == {"cores": pytest.approx(0.05), "GPU": 0.036}
    assert pinned.parts == {"cores": pytest.approx(0.05), "GPU": 0.008}
    assert (small.network, gpu.network) == (3e9, 25e9)
    assert (small.bytes_in, raw.bytes_in) == (80e6, 130e6)


def test_a_record_without_the_job_is_refused(tmp_path):
    record = json.loads(scale.RECORDED.read_text())
    _, whole = scale.recorded(scale.RECORDED)
    assert 0 < whole["device"] < whole["host_pinned"] < whole["host_pageable"]
    path = tmp_path / "kernels.json"
    path.write_text(json.dumps(record | {"jobs": record["jobs"][1:]}))
    with pytest.raises(ValueError, match="has no job 'bspline, int16 to float32'"):
        scale.recorded(path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3e-4, "300 us"), (0.0082, "8.2 ms"), (3.8, "3.8 s"), (90, "1.5 min"), (7200, "2 h"), (1e6, "11.6 days"),
     (1e9, "31.7 years")],
)  # fmt: skip
def test_durations(seconds, text):
    assert scale.duration(seconds) == text


def test_wrong_options_are_refused(capsys):
    with pytest.raises(SystemExit):
        scale.main(["--storage", "0"])
    assert "must be above zero" in capsys.readouterr().err


def test_the_page_says_where_every_input_is_from():
    text = scale.PAGE.read_text()
    section = text.split("## Inputs\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!---|input )(.*?) \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) >= 15
    assert all(re.search(r"measured|recorded|\*\*assumed\*\*", source) for _, _, source in rows)
    assumed = {name for name, _, source in rows if "assumed" in source}
    assert {name for name in assumed if "network" in name or "storage" in name} == {
        "network of a node without GPU", "network of a node with 16 cores",
        "storage that all nodes share, reading and writing",
    }  # fmt: skip
    # Every kind of node at every scale, with its limit.
    table = text.split("## Scales\n")[1]
    for way in modelled():
        found = re.findall(rf"^\| {re.escape(way.name)} \|.*\| (?:cores|GPU|network|storage) \|$", table, re.MULTILINE)
        assert len(found) == len(scale.NODES)
