"""The part of CuPy that the CUDA engine uses, on NumPy arrays: kernels run on the CPU, from the text CuPy is given.

For proving `CupyRuntime` where there is no GPU: what it passes on is checked as a GPU would not.
"""

import ctypes
import types
import weakref
from collections import Counter

import numpy as np

from gpuresample.engines.cuda import runtime
from gpuresample.engines.cuda.host import LINK, OPTIONS, SHIM, build
from gpuresample.engines.cuda.runtime import functions


class Pointer:
    """Where an array's memory is, and the copies that start there."""

    def __init__(self, array):
        self.ptr, self.nbytes = array.__array_interface__["data"][0], array.nbytes

    def copy_from_host_async(self, source, size, stream):
        FAKE.copy(self.ptr, source.value, size, source.value, stream)

    def copy_to_host_async(self, target, size, stream):
        FAKE.copy(target.value, self.ptr, size, target.value, stream)


class Array(np.ndarray):
    """An array "on the GPU"; views stay on its device."""

    def __new__(cls, shape, dtype, memory):
        return np.asarray(memory).view(dtype).reshape(shape).view(cls)

    def __array_finalize__(self, other):
        self.number = getattr(other, "number", FAKE.current)

    @property
    def device(self):
        return types.SimpleNamespace(id=self.number)

    @property
    def data(self):
        return Pointer(self)

    def get(self, out=None):
        FAKE.calls["get"] += 1
        if out is None:
            return np.array(self)
        assert out.flags.c_contiguous
        out[...] = np.asarray(self)
        return out

    def __dlpack__(self, *, stream=None, **_):
        raise AssertionError("a GPU's memory is no host's; libraries of these tests take it by `from_dlpack`")

    def __dlpack_device__(self):
        return 2, self.number

    @property
    def __cuda_array_interface__(self):
        return {**self.__array_interface__, "version": 3}


class Tensor:
    """An array of another library, with DLPack and nothing else; see `library`."""

    def __init__(self, memory, device=(2, 0)):
        self.memory, self.on = memory, device

    def __dlpack_device__(self):
        return self.on

    def __dlpack__(self, **options):
        return self.memory.__dlpack__(**options)


class Foreign:
    """An array with `__cuda_array_interface__` and nothing else."""

    def __init__(self, memory):
        self.memory = memory
        self.__cuda_array_interface__ = memory.__cuda_array_interface__


def library():
    """A module with a `from_dlpack`, for `Tensor`."""
    module = types.ModuleType("tensors")
    Tensor.__module__ = "tensors"

    def from_dlpack(array):
        FAKE.calls["handed over"] += 1
        return Tensor(array, array.__dlpack_device__())

    module.from_dlpack = from_dlpack
    return module


class Pool:
    """Memory of a device, in blocks of 512 bytes; what is let go is free again."""

    def __init__(self, total):
        self.total, self.used, self.peak = total, 0, 0

    def take(self, array):
        n = -(-array.nbytes // 512) * 512
        if self.used + n > self.total:
            raise MemoryError(f"out of memory allocating {n} bytes")
        self.used += n
        self.peak = max(self.peak, self.used)
        weakref.finalize(array, self.give, n)
        return array

    def give(self, n):
        self.used -= n

    def free_bytes(self):
        return 0

    def used_bytes(self):
        return self.used

    def get_limit(self):
        return 0


class RawModule:
    def __init__(self, code, options):
        FAKE.calls["RawModule"] += 1
        assert options == ("-std=c++17",)
        launchers = "".join(f"HOST_LAUNCHER({name})\n" for name in functions(code))
        self.library = ctypes.CDLL(str(build(runtime.read(SHIM) + code + launchers, (*OPTIONS, *LINK))))

    def get_function(self, name):
        run = getattr(self.library, f"launch_{name}")
        run.argtypes = [ctypes.c_uint] * 3 + [ctypes.c_size_t, ctypes.c_void_p]
        takes = getattr(self.library, f"parameters_{name}")
        takes.restype = ctypes.c_char_p

        def launch(grid, block, args, shared_mem=0):
            FAKE.calls["launch"] += 1
            assert len(grid) == 1
            assert shared_mem <= 48 << 10
            assert block[0] * block[1] <= 1024
            # As CuPy does: ints become 8 bytes, NumPy scalars keep their size, and arrays are structs, one each.
            assert all(a.size == 1 for a in args if isinstance(a, np.ndarray))
            cells = [np.array(np.int64(a) if isinstance(a, int) else a) for a in args]
            sizes = [8 if word[0] == "p" else int(word[1:]) for word in takes().decode().split()]
            assert [cell.itemsize for cell in cells] == sizes
            table = (ctypes.c_void_p * len(cells))(*[cell.ctypes.data for cell in cells])
            assert run(grid[0], *block, shared_mem, table) == 0

        return launch


class Device:
    def __init__(self, number):
        self.number = number

    def __enter__(self):
        self.before, FAKE.current = FAKE.current, self.number

    def __exit__(self, *_):
        FAKE.current = self.before


class Unowned:
    """Memory of somebody else's, as an array sees it."""

    def __init__(self, address, size, owner, device):
        self.owner = owner
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}


class Stream:
    def __init__(self, ptr=None, non_blocking=False):
        FAKE.streams += 1
        # The lowest numbers are CUDA's names for streams of its own.
        self.ptr, self.waited, self.non_blocking = FAKE.streams << 8 if ptr is None else ptr, [], non_blocking

    def record(self, event):
        FAKE.log.append(("record", self.ptr))
        return event

    def wait_event(self, event):
        self.waited.append(event)

    def __enter__(self):
        FAKE.stack.append(FAKE.stream)
        FAKE.stream = self

    def __exit__(self, *_):
        FAKE.stream = FAKE.stack.pop()


class Event:
    done = False  # until a test says so

    def __init__(self, disable_timing):
        FAKE.calls["event"] += 1

    def synchronize(self):
        FAKE.calls["synchronize"] += 1


SHARED = (
    "abs", "clip", "floor", "isnan", "maximum", "minimum", "rint", "sign", "trunc", "where",
    "zeros",
)  # fmt: skip


class Fake(types.ModuleType):
    """The module; `stream`, `current` and `pool` are set by tests."""

    __version__ = "14.2.0"

    def __init__(self):
        super().__init__("cupy")
        self.RawModule = RawModule
        self.ndarray = Array
        self.cuda = types.SimpleNamespace(
            Device=Device,
            Event=Event,
            Stream=Stream,
            UnownedMemory=Unowned,
            MemoryPointer=lambda memory, offset: memory,
            get_current_stream=lambda: self.stream,
            alloc_pinned_memory=self.pinned,
            runtime=types.SimpleNamespace(
                getDevice=lambda: self.current,
                getDeviceCount=lambda: 2,
                getDeviceProperties=lambda number: {"name": b"Fake H1", "major": self.major, "minor": 0},
                memGetInfo=lambda: (self.pool.total - self.pool.used, self.pool.total),
                pointerGetAttributes=lambda ptr: types.SimpleNamespace(type=int(ptr in self.pinned_memory)),
            ),
        )

    def reset(self):
        self.calls, self.log, self.streams, self.stack = Counter(), [], 0, []
        self.current, self.stream, self.major = 0, Stream(0), 9
        self.pool, self.pinned_memory = Pool(1 << 40), set()

    def get_default_memory_pool(self):
        return self.pool

    def pinned(self, n):
        memory = np.full(n, 77, np.uint8)
        self.pinned_memory.add(memory.__array_interface__["data"][0])
        return memory

    def copy(self, target, source, size, host, stream):
        """As a GPU would refuse to, or silently wait for: the host's side must be pinned."""
        assert host in self.pinned_memory
        assert stream is self.stream
        self.calls["async copies"] += 1
        self.log.append(("copy", stream.ptr))
        ctypes.memmove(target, source, size)

    def asarray(self, array):
        if isinstance(array, Foreign):
            return array.memory
        self.calls["asarray"] += 1
        return self.pool.take(np.array(array)).view(Array)

    def from_dlpack(self, array):
        assert array.__dlpack_device__()[0] == 2
        return array.memory

    def empty(self, shape, dtype):
        self.calls["empty"] += 1
        return self.pool.take(np.full(shape, 99, dtype)).view(Array)

    def __getattr__(self, name):
        """Functions that CuPy has in common with NumPy; what they give stays on the "GPU"."""
        if name not in SHARED:
            raise AttributeError(name)

        def act(*arguments, **keywords):
            assert all(isinstance(a, Array) for a in arguments if isinstance(a, np.ndarray)), "a host's array"
            FAKE.calls[name] += 1
            out = getattr(np, name)(*arguments, **keywords)
            return out.view(Array) if isinstance(out, np.ndarray) else out

        return act

    def ascontiguousarray(self, array):
        return np.ascontiguousarray(array).view(Array)


FAKE = Fake()
FAKE.reset()
