"""`gpuresample.server`: the bits of `gr.resample`, in workers; what becomes of workers, server and parent when killed.

Whoever waits here has a limit, far above what the wait takes on a slow machine.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Listener, Pipe
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from support import ANISOTROPIC, labels, noise, same_bits, to_image

import gpuresample as gr
from gpuresample import server as served
from gpuresample.server import EndedError, ResampleServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a resample server needs Linux")
LIMIT = 120.0
HERE = Path(__file__).parent
SHAPE = ANISOTROPIC.size[::-1]


@pytest.fixture(scope="module")
def server():
    with ResampleServer("cpu", slots=2) as server:
        yield server


@pytest.fixture
def client(server):
    client = server.client()
    yield client
    client.close()


def within(act):
    """What a function returns or raises, in a thread that is waited for no longer than `LIMIT`."""
    found = []

    def run():
        try:
            found.append(act())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert found, "waited in vain"
    return found[0]


def wait_for(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_gone(pid):
    """Whether a process has ended, also one that nobody has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def voxels_of(image):
    array = getattr(image, "array", image)
    return np.asarray(sitk.GetArrayFromImage(array) if isinstance(array, sitk.Image) else array)


def assert_same(got, expected):
    assert type(got) is type(expected)
    if isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
        return
    assert same_bits(voxels_of(got), voxels_of(expected))
    if isinstance(expected, gr.Volume):
        assert got.grid == expected.grid
    if isinstance(expected, sitk.Image):
        for name in ("Size", "Spacing", "Origin", "Direction", "PixelID", "NumberOfComponentsPerPixel"):
            assert getattr(got, f"Get{name}")() == getattr(expected, f"Get{name}")()


def readonly(array):
    array.flags.writeable = False
    return array


FLOATS, CT = noise(SHAPE), noise(SHAPE, "int16")
IMAGE = to_image(CT, ANISOTROPIC)
VOLUME = gr.Volume(FLOATS, *ANISOTROPIC[1:3])
FIELD = noise((6, 7, 8, 3), seed=3) / 500
PATH = gr.Path([np.eye(4), gr.DisplacementField(FIELD, like=FIELD[..., 0])])
LINEAR = {"interpolation": "linear", "spacing": 1.7}
TURN = sitk.Euler3DTransform(IMAGE.GetOrigin(), 0.1, 0.2, 0.3)
ASKED = {
    "splines": (FLOATS, {"spacing": (2, 0.9, 1.1), "input_spacing": 1.3}),
    "a type and a window": (CT, {**LINEAR, "dtype": "float32", "clip": (-500, 500), "scale": 0.5, "offset": 1}),
    "gaps": (FLOATS[::2, ::-1, 1::3], LINEAR),
    "axes in another order": (FLOATS.T, LINEAR),
    "another byte order": (CT.astype(">i2"), LINEAR),
    "read-only": (readonly(FLOATS.copy()), LINEAR),
    "bool": (CT > 0, {"interpolation": "nearest", "spacing": 1.7}),
    "half floats": (FLOATS.astype("float16"), {"interpolation": "nearest", "spacing": 1.7}),
    "two axes": (FLOATS[0], LINEAR),
    "one voxel": (FLOATS[:1, :1, :1], {"interpolation": "linear", "size": (1, 2, 3)}),
    "a batch": (noise((2, 3, 5, 6, 7)), LINEAR),
    "complex": (FLOATS + 1j * FLOATS[::-1], LINEAR),
    "no data": (np.where(FLOATS > 0, FLOATS, np.nan), {**LINEAR, "ignore": np.nan}),
    "an image": (IMAGE, {"spacing": (1, 1, 2)}),
    "vectors": (to_image(noise((*SHAPE, 3)), ANISOTROPIC, vector=True), LINEAR),
    "a volume like an image": (VOLUME, {"like": IMAGE[2:9, 3:8, 1:7], "interpolation": "linear"}),
    "a region": (IMAGE, {**LINEAR, "region": (slice(2, 7), slice(1, 4), slice(3, 5))}),
    "image and labels": (
        [IMAGE, to_image(labels(SHAPE), ANISOTROPIC)], {"spacing": 1.7, "interpolation": ["linear", "nearest"]},
    ),
    "a transform of SimpleITK": (IMAGE, {"transform": TURN, "interpolation": "linear"}),
    "a path": (FLOATS, {"transform": PATH, "interpolation": "linear"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_the_bits_are_those_of_resample(client, name, monkeypatch):
    # All arrays of a plan go through shared memory, or none.
    image, keywords = ASKED[name]
    expected = gr.resample(image, **keywords)
    for large in (0, served.LARGE):
        monkeypatch.setattr(served, "LARGE", large)
        assert_same(within(lambda: client.resample(image, **keywords)), expected)


def test_plans_that_differ_in_large_arrays_only(client, monkeypatch):
    """The text of the first is the second's; what an engine has kept for it would be wrong."""
    monkeypatch.setattr(served, "LARGE", 0)
    asked = [{**LINEAR, "antialias": sigma} for sigma in (1.0, 1.01)]
    texts = [served._pickled([gr.plan(FLOATS, **keywords)])[0] for keywords in asked]
    assert texts[0] == texts[1]
    for keywords in asked:
        assert_same(
            within(lambda keywords=keywords: client.resample(FLOATS, **keywords)), gr.resample(FLOATS, **keywords)
        )


def test_a_result_goes_where_it_is_told(client):
    expected = gr.resample(FLOATS, **LINEAR)
    out = np.zeros_like(expected)
    assert within(lambda: client.resample(FLOATS, **LINEAR, out=out)) is out
    assert same_bits(out, expected)
    # It is the caller's: a later call leaves it alone.
    first = client.resample(FLOATS, **LINEAR)
    client.resample(-FLOATS, **LINEAR)
    assert same_bits(first, expected)


@pytest.mark.parametrize(
    ("image", "keywords"),
    [
        (FLOATS, {"spacing": -1}), (FLOATS, {"interpolation": "linaer"}), (FLOATS, {"transform": "turn"}),
        (FLOATS, {"out": FLOATS}), (FLOATS[:0], LINEAR), (FLOATS.astype(object), LINEAR), ("ct.nii", LINEAR),
        (IMAGE, {**LINEAR, "input_spacing": 2}), ([], LINEAR),
    ],
)  # fmt: skip
def test_errors_are_those_of_resample(client, image, keywords):
    with pytest.raises((ValueError, TypeError)) as expected:
        gr.resample(image, **keywords)
    with pytest.raises(expected.type) as caught:
        client.resample(image, **keywords)
    assert str(caught.value) == str(expected.value)


def test_what_a_server_does_not_take(client):
    with pytest.raises(TypeError, match="device is the server's, got device='cuda'"):
        client.resample(FLOATS, device="cuda")
    with pytest.raises(TypeError, match="unexpected keyword argument 'spacin'"):
        client.resample(FLOATS, spacin=2)
    dask = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="image must be in host memory for a resample server, got one of dask"):
        client.resample(dask.from_array(FLOATS), **LINEAR)


def test_outputs_of_a_list_lie_apart(client):
    a, out = np.zeros((4, 5, 6), np.float32), np.zeros((2, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"out\[0\] must not share memory with out\[1\]"):
        client.resample([a, a + 1], spacing=2, out=[out, out])
    assert (out == 0).all()


def test_errors_in_the_server_come_back_and_leave_it_alone(server, client):
    link = served._Link(client._address)
    plan = gr.plan(FLOATS, **LINEAR)
    out = np.empty(plan.output_shape, np.float32)
    error = within(lambda: link.call([plan], [FLOATS], [out[1:]]))
    assert type(error) is ValueError
    assert str(error) == f"out must have shape {out.shape}, got {out[1:].shape}"
    link.connection.send(1 << 60)
    error = within(link.connection.recv)
    assert type(error) is ValueError
    assert "GiB of memory are free" in str(error)
    # The same connection goes on.
    assert within(lambda: link.call([plan], [FLOATS], [out])) is None
    assert same_bits(out, gr.resample(FLOATS, **LINEAR))
    assert server._process.poll() is None


def test_warnings_of_the_server_are_the_callers(client):
    """As often as it is called, at the caller's line; a filter may make errors of them, and the next call is served."""
    field = np.zeros((*SHAPE, 3))
    field[2, 1, :2] = np.nan
    asked = {"transform": gr.DisplacementField(field, like=FLOATS), "interpolation": "linear"}
    with pytest.warns(RuntimeWarning, match="2 voxels to positions that are not finite") as expected:
        right = gr.resample(FLOATS, **asked)
    for _ in range(2):
        with pytest.warns(RuntimeWarning) as caught:
            assert same_bits(client.resample(FLOATS, **asked), right)
        assert [str(warning.message) for warning in caught] == [str(expected[0].message)]
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="2 voxels"):
            client.resample(FLOATS, **asked)
        assert same_bits(client.resample(FLOATS, **LINEAR), gr.resample(FLOATS, **LINEAR))


def test_a_warning_of_a_library_is_one_of_pythons():
    class ForeignWarning(FutureWarning):
        pass

    assert [served._builtin(kind) for kind in (ForeignWarning, RuntimeWarning)] == [FutureWarning, RuntimeWarning]


def test_an_error_of_a_library_is_told_by_its_text():
    class ForeignError(Exception):
        pass

    ForeignError.__module__ = "cupy.cuda.memory"
    for error, kind, text in (
        (ForeignError("out of memory"), RuntimeError, "ForeignError: out of memory"), (KeyError("x"), KeyError, "'x'"),
    ):  # fmt: skip
        try:
            raise error
        except Exception as raised:
            got = pickle.loads(pickle.dumps(served._portable(raised)))
        assert type(got) is kind
        assert str(got) == text
        assert "in test_an_error_of_a_library" in got.__notes__[0]


# --- slots ------------------------------------------------------------------------------------------------------------


def holding(client, n=1000):
    """A connection that has a slot, and keeps it."""
    link = served._Link(client._address)
    link.connection.send(n)
    assert within(link.connection.recv)[1] >= n
    return link


def test_workers_wait_while_all_slots_are_taken(server, client):
    first, second = holding(client), holding(client)
    done = []
    waiting = [
        threading.Thread(target=lambda: done.append(client.resample(FLOATS, **LINEAR)), daemon=True) for _ in range(5)
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)  # if nobody waits, somebody is done by then
    assert done == []
    first.connection.close()  # as when its worker is killed
    for thread in waiting:
        thread.join(LIMIT)
    assert len(done) == 5
    assert all(same_bits(one, gr.resample(FLOATS, **LINEAR)) for one in done)
    second.connection.close()
    # One memory for each slot, and none that has a name.
    lines = [line.split(maxsplit=5) for line in Path(f"/proc/{server.pid}/maps").read_text().splitlines()]
    written = [line for line in lines if line[1] == "rw-s"]
    assert {line[5] for line in written} == {"/memfd:gpuresample (deleted)"}
    assert len({line[4] for line in written}) == 2  # inodes


def test_a_larger_call_makes_a_slot_grow(client):
    for shape in ((20, 30, 40), (4, 5, 6), (40, 50, 60)):
        image = noise(shape)
        assert same_bits(within(lambda image=image: client.resample(image, **LINEAR)), gr.resample(image, **LINEAR))


KILLED = """
import os, pickle, signal, sys
from gpuresample.server import _Link
client = pickle.loads(bytes.fromhex(sys.argv[1]))
link = _Link(client._address)
link.connection.send(5000)
link.connection.recv()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_worker_gives_its_slot_back(server, client):
    for _ in range(3):  # more than there are slots
        done = subprocess.run([sys.executable, "-c", KILLED, pickle.dumps(client).hex()], timeout=LIMIT, check=False)
        assert done.returncode == -signal.SIGKILL
    both = [holding(client), holding(client)]
    for link in both:
        link.connection.close()


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_killed_server_is_told_and_nobody_waits():
    with ResampleServer("cpu", slots=1) as server:
        client = server.client()
        assert same_bits(within(lambda: client.resample(FLOATS, **LINEAR)), gr.resample(FLOATS, **LINEAR))
        link = holding(client)
        threading.Timer(0.2, os.kill, (server.pid, signal.SIGKILL)).start()
        for _ in range(2):  # waiting for a slot; then there is no server
            error = within(lambda: client.resample(FLOATS, **LINEAR))
            assert type(error) is EndedError
            assert str(error) == "the resample server has ended, or was closed; its standard error may say why"
        link.connection.close()
    assert not Path(server._folder).exists()


def test_a_closed_server():
    server = ResampleServer("cpu")
    client = server.client()
    within(lambda: client.resample(FLOATS, **LINEAR))
    client.close()  # and opens again
    within(lambda: client.resample(FLOATS, **LINEAR))
    assert same_bits(pickle.loads(pickle.dumps(client)).resample(FLOATS, **LINEAR), gr.resample(FLOATS, **LINEAR))
    folder = Path(server._folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    server.close()
    server.close()
    assert server._process.returncode == 0
    assert not folder.exists()
    for handle in (client, server.client()):
        with pytest.raises(EndedError):
            handle.resample(FLOATS, **LINEAR)


def test_threads_close_a_client_at_once():
    """Each sees one connection, and one of them comes too late."""
    meeting = threading.Barrier(2)

    class Idle(list):
        def __bool__(self):
            found = len(self) > 0
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.5)
            return found

        def pop(self):
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.5)
            return super().pop()

    client, (mine, other) = served.ResampleClient("nowhere"), Pipe()
    client._idle = Idle([SimpleNamespace(connection=mine)])
    with other, ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(client.close) for _ in range(2)]:
            ended.result(LIMIT)
    assert mine.closed
    assert client._idle == []


def test_what_a_server_is_refused_for(monkeypatch):
    with pytest.raises(ValueError, match="device must be 'auto'"):
        ResampleServer("gpu")
    with pytest.raises(ValueError, match="slots must be a whole number from 1 to 1024, got 0"):
        ResampleServer(slots=0)
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(RuntimeError, match="a resample server needs Linux"):
        ResampleServer()


def test_a_server_without_its_gpu_does_not_start(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('none here')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"device='cuda': CuPy cannot be imported \(none here\)"):
        within_or_raise(lambda: ResampleServer("cuda"))
    with pytest.warns(RuntimeWarning, match="resamples on the CPU"):
        ResampleServer().close()


def test_a_server_that_cannot_start_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(served.tempfile, "mkdtemp", lambda **_: str(tmp_path / "made"))
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EndedError, match=r"did not start: .*/nowhere/python"):
        ResampleServer("cpu")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_read_of_another_users_process(tmp_path, monkeypatch):
    """It may have made a folder of the name that a server's had."""
    address, me = str(tmp_path / "socket"), os.geteuid()
    with Listener(address, "AF_UNIX") as listener:
        assert served._user_of(served._Link(address).connection) == me
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        with pytest.raises(EndedError, match=r"another user's process answers at .*socket"):
            within_or_raise(lambda: served.ResampleClient(address).resample(FLOATS, **LINEAR))
        listener.accept().close()
        with listener.accept() as connection, pytest.raises(EOFError):
            connection.recv()


def within_or_raise(act):
    found = within(act)
    if isinstance(found, BaseException):
        raise found
    return found


def test_a_server_stays_in_its_process(server):
    with pytest.raises(TypeError, match=r"hand its client\(\) to workers"):
        pickle.dumps(server)


# --- processes --------------------------------------------------------------------------------------------------------

WORKERS = """
import itertools, multiprocessing, os, sys
import numpy as np
import gpuresample as gr
from gpuresample.server import ResampleServer

def work(client, first, device, again):
    asked = {"spacing": 0.9, "interpolation": "linear"}
    for round in itertools.count():
        for seed in range(first, 12, 3):
            image = np.random.default_rng(seed).standard_normal((9, 11 + seed % 3, 13)).astype(np.float32)
            got, expected = client.resample(image, **asked), gr.resample(image, **asked, device="cpu")
            assert np.abs(got - expected).max() < 1e-5 if device == "cuda" else got.tobytes() == expected.tobytes()
        if round == 0:
            # In one piece, though Python may be told to buffer nothing: others write there, too.
            os.write(1, f"served {os.getpid()}\\n".encode())
        if not again:
            break

if __name__ == "__main__":
    method, device, act = sys.argv[1:]
    context = multiprocessing.get_context(method)
    with ResampleServer(device, slots=2) as server:
        print("server", server.pid, server._folder, flush=True)
        client = server.client()
        work(client, 0, "cuda", False)  # a connection that children must not keep
        workers = []
        for first in range(3):
            given = client, first, device, act == "again"
            workers.append(context.Process(target=work, args=given, daemon=True))
            workers[-1].start()
        for worker in workers:
            worker.join()
    print("done", *[worker.exitcode for worker in workers])
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "workers.py"
    path.write_text(WORKERS)
    return path


def start(script, *arguments, **keywords):
    return subprocess.Popen(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        process_group=0, **keywords,
    )  # fmt: skip


def words(process, first):
    """The words behind the first of a line that a process writes; what it says of its end if there is none."""
    line = process.stdout.readline().split()
    if line[:1] != [first]:
        process.kill()  # it might work for ever
        pytest.fail(f"{line}, and then: {finish(process)}")
    return line[1:]


def finish(process):
    try:
        return process.communicate(timeout=LIMIT)
    finally:
        process.kill()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_are_served(script, method):
    process = start(script, method, "cpu", "")
    out, err = finish(process)
    assert process.returncode == 0, err
    pid, folder = out.split()[1:3]
    assert out.endswith("done 0 0 0\n")
    assert err == ""
    assert is_gone(pid)
    assert not Path(folder).exists()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_parent_that_is_ended_takes_the_server_along(script, how):
    """SIGINT as Ctrl-C: to the parent and its workers, but the server has a group of its own."""
    process, workers = start(script, "fork", "cpu", "again"), []
    try:
        pid, folder = words(process, "server")
        (parent,) = words(process, "served")
        for _ in range(3):
            workers += words(process, "served")
        assert int(parent) == process.pid
        assert not is_gone(pid)
        if how == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(getattr(signal, how))
            process.wait(LIMIT)
            assert process.returncode == -getattr(signal, how)
        # Workers of a parent that was killed are still there, and hold nothing that keeps the server.
        wait_for(lambda: is_gone(pid))
        wait_for(lambda: not Path(folder).exists())
    finally:
        for worker in workers:
            if not is_gone(worker):
                os.kill(int(worker), signal.SIGKILL)
        _, err = finish(process)
    if how == "SIGINT":
        assert "KeyboardInterrupt" in err
    for word in ("resource_tracker", "leaked", "Server", "EOFError"):
        assert word not in err, err


@pytest.mark.kernels
def test_only_the_server_touches_the_gpu(script, tmp_path):
    """CuPy's stand-in writes down who imports it; kernels run on the CPU."""
    (tmp_path / "cupy.py").write_text(
        f"import os, sys\nopen({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}} ')\n"
        "import fake_cupy\nsys.modules['cupy'] = fake_cupy.FAKE\n"
    )
    path = os.pathsep.join([str(tmp_path), str(HERE), str(HERE.parent)])
    process = start(script, "fork", "cuda", "", env=os.environ | {"PYTHONPATH": path})
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out.endswith("done 0 0 0\n")
    assert (tmp_path / "pids").read_text().split() == [out.split()[1]]
