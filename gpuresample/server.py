"""One process with the GPU that resamples for a data loader's workers, through shared memory.

    with ResampleServer(device="cuda") as server:
        client = server.client()  # goes to workers, forked or spawned
        thin = client.resample(ct, spacing=(1, 1, 2))  # in any of them; what gr.resample gives in the server

A worker checks the arguments and makes the plan; the server runs it. So no worker needs CUDA.

A call holds one of a few slots of shared memory, from before its input is copied there until its output is copied from
there. While all slots are taken, workers wait: the memory is bounded, however many workers there are. Nobody who may be
killed has anything to free: a slot's memory has no name (`memfd_create`) and is gone with the last process that maps
it; and each process learns that another one is gone by the end of the connection to it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import mmap
import os
import pickle
import queue
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Client, Connection, Listener, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpuresample import checks, engines
from gpuresample.caching import Remembered
from gpuresample.checks import shown
from gpuresample.containers import Container, LazyContainer, unwrap
from gpuresample.containers.arrays import volume_on
from gpuresample.engines.threads import get_num_threads, set_num_threads
from gpuresample.installation import callers_level
from gpuresample.memory import check_room
from gpuresample.ops.resample import Request, carried_out, resample
from gpuresample.plans import Plan, check_outs_apart, execute_all

__all__ = ["EndedError", "ResampleClient", "ResampleServer"]

# Where pieces begin in a slot: whatever the voxel type, none is cut in two by a cache line.
ALIGNED = 64
# Arrays of a plan from so many bytes on (fields of vectors) go through shared memory; smaller ones (tables) make the
# text by which the server knows a plan again.
LARGE = 1 << 20
# Seconds that `close` waits before it kills.
GRACE = 10.0
# In a folder that only this user can enter.
SOCKET = "/socket"

# `-P`: no module of the folder that the parent runs in is taken for Python's own.
START = (
    "import sys; from multiprocessing.connection import Connection; control = Connection(int(sys.argv[1])); "
    "sys.path[:] = control.recv(); from gpuresample.server import serve; serve(control)"
)
ENDED = "the resample server has ended, or was closed; its standard error may say why"

Array = npt.NDArray[Any]
# Where something lies in a slot; an array's shape, type and start there.
Span = tuple[int, int]
Piece = tuple[tuple[int, ...], np.dtype[Any], int]
# What a call came to in the server: its error, and what it warned of.
Answer = tuple[Exception | None, list[tuple[type[Warning], str]]]


class EndedError(RuntimeError):
    """The server is not there, or went away during a call."""


class ResampleServer:
    """A process of its own that resamples for others; it owns the GPU.

    Start it in the main process and hand `client()` to the workers. It ends with the `with` block, by `close`, and when
    the process that started it ends, however that happens. Ctrl-C does not reach it.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where it computes, as for `gpuresample.resample`.
    slots : int
        Calls that may have voxels in shared memory at the same time, from 1 to 1024; others wait. Each slot keeps the
        memory of its largest call, input and output together, until the server ends.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range.
    RuntimeError
        For a CUDA device that cannot be used, where the process does not start, and on systems other than Linux.

    Notes
    -----
    Calls run one after the other, with as many threads as the process that starts the server has. No other user can
    reach it.
    """

    def __init__(self, device: str = "auto", *, slots: int = 4) -> None:
        engines.check_device(device)
        checks.whole("slots", slots, "a whole number from 1 to 1024", 1, 1024)
        if not hasattr(os, "memfd_create"):
            raise RuntimeError(f"a resample server needs Linux, got {sys.platform}; resample in the workers instead")
        # The path of a socket has 107 bytes at most.
        self._folder = tempfile.mkdtemp(prefix="gpuresample-", dir="/tmp" if len(tempfile.gettempdir()) > 60 else None)
        self._control, theirs = Pipe()
        _ours.update((self._control, theirs))
        try:
            with theirs:
                # Not `multiprocessing`: that would import the user's main module once more. A group of its own: a
                # terminal sends Ctrl-C to the parent's.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0,
                )  # fmt: skip
        except BaseException as error:
            self._control.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise EndedError(f"the resample server did not start: {error}") from None
            raise
        try:
            self._control.send(sys.path)
            self._control.send((self._folder, device, slots, get_num_threads()))
            started = self._control.recv()
        except BaseException as error:
            self.close()
            if isinstance(error, (EOFError, OSError)):
                raise EndedError("the resample server did not start; its standard error says why") from None
            raise
        if isinstance(started, Exception):
            self.close()
            raise started
        for text in started:
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def client(self) -> ResampleClient:
        """What workers call the server by; it can be pickled.

        Returns
        -------
        ResampleClient
        """
        return ResampleClient(self._folder + SOCKET)

    def close(self) -> None:
        """End the process and free the shared memory. Calls under way raise `EndedError` in their workers."""
        if self._control.closed:  # before, or by the fork that made this process a child
            return
        with contextlib.suppress(OSError):
            self._control.send(None)
        self._control.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a ResampleServer stays in its process; hand its client() to workers")


class ResampleClient:
    """How a worker calls a `ResampleServer`: `client()` makes it, and pickling and forking keep it.

    Threads of a process may share it; each call under way has a connection of its own.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[_Link] = []

    def resample(self, image: Any, **keywords: Any) -> Any:
        """Do what `gpuresample.resample` does, in the server's process: the same bits.

        Parameters
        ----------
        image : SimpleITK.Image, Volume, nibabel image or array; or a list of them
            As for `gpuresample.resample`, in host memory.
        **keywords
            Those of `gpuresample.resample`, but `device`, which is the server's.

        Returns
        -------
        same kind as `image`
            In memory of its own.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As `gpuresample.resample`; for images that are not in host memory; for errors of the server's libraries.
        EndedError
            Where the server has ended, also during the call.
        """
        if "device" in keywords:
            raise TypeError(f"device is the server's, got device={shown(keywords['device'])}")
        given = _KEYWORDS.bind(image, **keywords)
        given.apply_defaults()
        values = given.arguments
        image, spacing, region, out = (values.pop(name) for name in ("image", "input_spacing", "region", "out"))
        return carried_out(image, Request(**values), spacing, region, out, self._run)

    def close(self) -> None:
        """Close the connections of this process that no call uses; a later call opens another one."""
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().connection.close()

    def __reduce__(self) -> Any:
        return ResampleClient, (self._address,)

    def _run(self, calls: Sequence[tuple[Plan, Container, Any]]) -> list[Any]:
        """What `plans.execute_all` does, by the server."""
        for _, container, _ in calls:
            if isinstance(container, LazyContainer) or container.where != "cpu":
                what = getattr(container, "library", "") or container.where
                raise TypeError(f"image must be in host memory for a resample server, got one of {what}")
        sources: list[Any] = [container.array for _, container, _ in calls]
        made = [c.new(p.target, p.dtype) if o is None else c.adopt(o, p.target, p.dtype) for p, c, o in calls]
        check_outs_apart(sources, [None if out is None else t for (_, _, out), (_, t) in zip(calls, made, strict=True)])
        link = None
        try:
            # A child has closed its parent's connections. Another thread may take the last one.
            with contextlib.suppress(IndexError):
                while link is None or link.connection.closed:
                    link = self._idle.pop()
            link = link if link is not None and not link.connection.closed else _Link(self._address)
            error = link.call([plan for plan, _, _ in calls], sources, [voxels for _, voxels in made])
        except BaseException as problem:
            # In the middle of a call: what the server says next would be taken for the answer to another one.
            if link is not None:
                link.connection.close()
            if isinstance(problem, (EOFError, ConnectionError, FileNotFoundError)):
                raise EndedError(ENDED) from None
            raise
        self._idle.append(link)
        if error is not None:
            raise error
        for (_, container, _), (_, voxels) in zip(calls, made, strict=True):
            container.written(voxels)
        return [image for image, _ in made]


class _Link:
    """A connection to the server, for one call at a time, and the slots' memory as this process sees it."""

    def __init__(self, address: str) -> None:
        self.connection = Client(address, "AF_UNIX")
        self.memory: dict[int, mmap.mmap] = {}
        _ours.add(self.connection)
        # Once the server has ended, its folder's name is free, and anybody may make one in a folder like /tmp. Nothing
        # of theirs is read: a pickle is a program.
        if _user_of(self.connection) != os.geteuid():
            self.connection.close()
            raise EndedError(f"{ENDED}; another user's process answers at {address}")

    def call(self, plans: list[Plan], sources: list[Array], targets: list[Array]) -> Exception | None:
        """Have plans run from `sources` to `targets`; gives the server's warnings, and returns its error."""
        pickled, large = _pickled(plans)
        arrays = sources + targets
        starts = _starts([piece.nbytes for piece in large] + [array.nbytes for array in arrays])
        self.connection.send(starts[-1])
        granted = self.connection.recv()  # once a slot is free
        if isinstance(granted, Exception):
            return granted
        number, size, is_new = granted
        if is_new:
            fd = recv_handle(self.connection)
            try:
                self.memory[number] = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        memory = self.memory[number]
        spans = [(start, start + piece.nbytes) for start, piece in zip(starts, large, strict=False)]
        for (start, end), piece in zip(spans, large, strict=True):
            memory[start:end] = piece
        pieces = [(a.shape, a.dtype, start) for a, start in zip(arrays, starts[len(large) : -1], strict=True)]
        views = [_view(memory, piece) for piece in pieces]
        for source, view in zip(sources, views, strict=False):
            np.copyto(view, source)
        self.connection.send((pickled, spans, pieces))
        error, warned = self.connection.recv()
        if error is None:
            for target, view in zip(targets, views[len(sources) :], strict=True):
                np.copyto(target, view)
        self.connection.send(None)  # the slot may have another call
        for kind, text in warned:  # at the end: a caller's filter may make an error of it
            warnings.warn(text, kind, stacklevel=callers_level())
        return error


def _user_of(connection: Connection[Any, Any]) -> int:
    """The user whose process has the other end of a connection."""
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end:
        _, user, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)


_KEYWORDS = inspect.signature(resample)


class _Pickler(pickle.Pickler):
    """Arrays with gaps are packed first: only those without leave the pickle."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.nbytes >= LARGE and not value.flags.forc:
            return np.ascontiguousarray(value).__reduce_ex__(5)
        return NotImplemented


def _pickled(plans: list[Plan]) -> tuple[bytes, list[memoryview]]:
    """Plans as bytes, and the large arrays that these do without."""
    large: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes >= LARGE:
            large.append(buffer.raw())
            return False
        return True

    file = io.BytesIO()
    _Pickler(file, 5, buffer_callback=stays).dump(plans)
    return file.getvalue(), large


def _starts(sizes: Sequence[int]) -> list[int]:
    """Where pieces of so many bytes begin in a slot, and where the last one ends."""
    return [0, *itertools.accumulate(-(-n // ALIGNED) * ALIGNED for n in sizes)]


def _view(memory: Any, piece: Piece) -> Array:
    shape, dtype, start = piece
    return np.ndarray(shape, dtype, memory, start)


# A process is gone when its connections end. So a forked child must not have them, too.
_ours: weakref.WeakSet[Connection[Any, Any]] = weakref.WeakSet()


def _in_child() -> None:
    for connection in list(_ours):
        connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


# --- in the server's process -----------------------------------------------------------------------------------------


def serve(control: Connection[Any, Any]) -> None:
    """Be the process of a `ResampleServer`, which has the other end of `control`."""
    folder, device, slots, threads = control.recv()
    set_num_threads(threads)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engines.select(device, voxels=sys.maxsize, gathers=True)
        listener = Listener(folder + SOCKET, "AF_UNIX", backlog=128)
    except Exception as error:
        control.send(_portable(error))
        return
    server = _Server(device, slots)
    threading.Thread(target=_watch, args=(control, folder), daemon=True).start()
    threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
    control.send([str(warning.message) for warning in caught])
    server.run()


def _watch(control: Connection[Any, Any], folder: str) -> None:
    """End this process once its parent says so or is gone, whatever it does at that moment."""
    with contextlib.suppress(EOFError, OSError):
        control.recv()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


class _Slot:
    """Memory of one call at a time, without a name; it grows with the largest call."""

    def __init__(self, number: int) -> None:
        self.number, self.size = number, 0
        self.fd = os.memfd_create("gpuresample")
        self.memory: Any = None

    def grow(self, n: int) -> None:
        """Have room for `n` bytes; a ValueError where the system has no such memory left."""
        if n > self.size:
            check_room(n - self.size, f"a call with {n} bytes of voxels, input and output")
            os.ftruncate(self.fd, n)
            self.memory, self.size = mmap.mmap(self.fd, n), n


class _Server:
    """A thread for every connection, and the main thread for all calls."""

    def __init__(self, device: str, slots: int) -> None:
        self.device = device
        self.free: queue.LifoQueue[_Slot] = queue.LifoQueue()  # the last one's memory is the warmest
        for number in range(slots):
            self.free.put(_Slot(number))
        self.jobs: queue.SimpleQueue[tuple[Any, Any, queue.SimpleQueue[Answer]]] = queue.SimpleQueue()
        # By their pickles: what an engine keeps for a plan, it keeps for the object.
        self.plans: Remembered[list[Plan]] = Remembered()

    def run(self) -> None:
        """Run calls, one after the other: they share one thread's scratch, and one stream of the GPU."""
        while True:
            request, memory, answer = self.jobs.get()
            answer.put(self.result(memory, request))

    def accept(self, listener: Listener) -> None:
        """Give every connection its thread."""
        while True:
            threading.Thread(target=self.attend, args=(listener.accept(),), daemon=True).start()

    def attend(self, connection: Connection[Any, Any]) -> None:
        """Serve a worker until its connection ends, as it does when the worker is killed."""
        seen: dict[int, int] = {}  # how much of every slot's memory the worker has
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                n = connection.recv()
                slot = self.free.get()
                try:
                    self.call(connection, slot, n, seen)
                finally:
                    self.free.put(slot)

    def call(self, connection: Connection[Any, Any], slot: _Slot, n: int, seen: dict[int, int]) -> None:
        """The other side of `_Link.call`, for `n` bytes."""
        try:
            slot.grow(n)
        except (ValueError, OSError) as error:
            connection.send(_portable(error))
            return
        is_new = seen.get(slot.number, 0) < slot.size
        connection.send((slot.number, slot.size, is_new))
        if is_new:
            send_handle(connection, slot.fd, None)
            seen[slot.number] = slot.size
        answer: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.jobs.put((connection.recv(), slot.memory, answer))
        connection.send(answer.get())
        connection.recv()

    def result(self, memory: Any, request: tuple[bytes, list[Span], list[Piece]]) -> Answer:
        """Run plans from the first half of the pieces to the second."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # the caller's filters decide
            error = self.executed(memory, request)
        return error, [(_builtin(warning.category), str(warning.message)) for warning in caught]

    def executed(self, memory: Any, request: tuple[bytes, list[Span], list[Piece]]) -> Exception | None:
        """The same; returns the error."""
        try:
            pickled, spans, pieces = request
            plans = self.plans.get(pickled)
            if plans is None:
                whole = memoryview(memory)
                made = pickle.loads(pickled, buffers=[whole[start:end] for start, end in spans])
                plans = [replace(plan, device=self.device) for plan in made]
                if not spans:  # else a part of them is in the slot, and the next call's
                    self.plans.put(pickled, plans, len(pickled))
            arrays = [_view(memory, piece) for piece in pieces]
            sources = [unwrap(volume_on(a, p.source)) for a, p in zip(arrays, plans, strict=False)]
            execute_all(list(zip(plans, sources, arrays[len(plans) :], strict=True)))
        except Exception as error:
            return _portable(error)
        return None


def _builtin(kind: type[Warning]) -> type[Warning]:
    """A kind of warning as any worker can read it: Python's own that is closest."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _portable(error: Exception) -> Exception:
    """An error as a worker can read it: Python's own and ours as they are, others by their text."""
    if isinstance(error, (ValueError, TypeError)) and type(error).__module__ == "builtins":
        return error
    note = "In the resample server:\n" + "".join(traceback.format_exception(error))
    if type(error).__module__.split(".")[0] not in ("builtins", "gpuresample"):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
