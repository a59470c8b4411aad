"""`make attack` in its short form, and what it must notice."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resource")

from benchmarks import attack, attacks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "cases"), [("guarded", 120), ("odd", 120), ("far", 120), ("words", 60)])
def test_a_few_attacks_find_nothing(kind, cases):
    if kind == "words":
        pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
    result = attack.attacked(kind, cases, seed=20)
    assert result.found == []
    assert result.counts["answered"] + result.counts["refused"] == cases
    assert result.counts["answered"] > 0


def test_a_case_is_the_same_every_time():
    for draw in attacks.KINDS.values():
        assert draw(random.Random("7 3"))[0] == draw(random.Random("7 3"))[0]


def test_who_touches_a_guard_ends():
    code = """
import numpy as np
from benchmarks.attacks import Guarded
array = Guarded(5000).array((50, 25), np.dtype("f4"), {at_end})
array[...] = 1
print(array.sum(), flush=True)
print(np.lib.stride_tricks.as_strided(array, (2000,), ({step},))[{index}])
"""
    for at_end, step, index in ((True, 4, 1300), (False, -4, 300)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(at_end=at_end, step=step, index=index)], capture_output=True, text=True,
            timeout=100, check=False, cwd=ROOT,
        )  # fmt: skip
        assert (done.stdout, done.returncode) == ("1250.0\n", -11)


def test_what_dies_and_what_errs_is_found_and_the_rest_goes_on(monkeypatch):
    """Cases of a kind that ends its process, errs and answers in turns."""
    script = """
import json, os, sys
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    print(json.dumps({"case": number, "text": f"case {number}"}), flush=True)
    if number == 2:
        os.kill(os.getpid(), 11)
    print(json.dumps({"end": "found" if number == 4 else "answered", "what": "it erred"}), flush=True)
"""
    popen = subprocess.Popen
    monkeypatch.setattr(
        attack.subprocess, "Popen", lambda command, **k: popen([sys.executable, "-c", script, *command[-2:]], **k)
    )
    result = attack.attacked("far", 6, seed=0)
    assert result.counts == {"answered": 4, "found": 2}
    assert [(number, text) for number, text, _ in result.found] == [(2, "case 2"), (4, "case 4")]
    assert "SIGSEGV" in result.found[0][2]
    assert attack.found([result])[1] == "far 4: case 4\n    it erred"
    assert attack.row(result).split()[:4] == ["far", "4", "0", "2"]


@pytest.mark.parametrize(("does", "found"), [
    (lambda out: sys.stdout.write("error: no\n"), "exit code 1, and says"),
    (lambda out: (out / ".out.partial").write_text("half"), "is left behind"),
    (lambda out: (out / "there.nrrd").write_text("gone"), "were made or changed"),
    (lambda out: sys.stderr.write("Traceback (most recent call last):\n"), "Traceback"),
    (lambda out: sys.stderr.write("error: one line\nand another\n"), "exit code 1, and says"),
    (lambda out: os.write(2, b"** ERROR of a C library\n"), "exit code 1, and says"),
])  # fmt: skip
def test_command_lines_that_go_wrong_are_found(monkeypatch, does, found):
    words = pytest.importorskip("benchmarks.attack_words", exc_type=ImportError)

    def main(line):
        does(next(Path(word).parent for word in line if "there.nrrd" in word))
        if found in ("is left behind", "were made or changed"):
            sys.stderr.write("error: this file is in the way\n")
        return 1

    monkeypatch.setattr(words, "main", main)
    monkeypatch.setattr(words, "drawn", lambda rng, out: ["info", str(out / "there.nrrd")])
    with pytest.raises(attacks.Found, match=found):
        words.command_lines(random.Random(0))[1]()


def test_refusals_without_a_name_are_found():
    def refuse():
        raise ValueError("something is wrong")

    with pytest.raises(attacks.Found, match="names none of sigma"):
        attacks.asked(refuse, ("sigma",))
    with pytest.raises(ZeroDivisionError):
        attacks.asked(lambda: 1 // 0, ("sigma",))
    assert attacks.asked(lambda: np.ones(1), ("sigma",)) == 1
