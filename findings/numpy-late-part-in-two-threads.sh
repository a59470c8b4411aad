#!/usr/bin/env bash
# numpy 2.4.6: numpy loads numpy.fft (and random, ma, polynomial, ...) when its name is first asked for. A thread that asks for np.fft just
# after another one has loaded it, before numpy has the attribute, gets "RecursionError: maximum recursion depth exceeded", for numpy's
# __getattr__ runs "import numpy.fft as fft", which asks for the same attribute again. "from numpy.fft import rfft" is safe.
# A guess would be that attributes of an imported module can be read from any thread. Seen at first calls from two threads, in one run of
# some ten, without anything that slows numpy down; here the moment is made long, so that it is met every time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6
cd "$folder"
for way in "np.fft.rfft([1.0, 2.0])" "exec('from numpy.fft import rfft; rfft([1.0, 2.0])')"; do
    "$folder/venv/bin/python" - "$way" <<'PYTHON'
import sys
import threading
import time
import types

import numpy as np


class Slow(types.ModuleType):
    def __setattr__(self, name, value):
        if name == "fft":
            loaded.set()
            time.sleep(0.5)
        super().__setattr__(name, value)


def ask():
    try:
        eval(sys.argv[1])
        answers.append("fine")
    except RecursionError as error:
        answers.append(f"RecursionError: {error}"[:52])


loaded, answers = threading.Event(), []
np.__class__ = Slow
first = threading.Thread(target=ask)
first.start()
assert loaded.wait(60)
ask()
first.join()
print(f"numpy {np.__version__}: {sys.argv[1]} in a second thread: {answers[0]}; in the first: {answers[1]}")
late = "RecursionError: maximum recursion depth exceeded"
expected = {late, "fine"} if sys.argv[1].startswith("np.") else {"fine"}
assert {a[: len(late)] for a in answers} == expected and answers[1] == "fine", answers
PYTHON
done
