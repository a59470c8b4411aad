"""The part of CuPy that the CUDA engine uses, on NumPy arrays: kernels run on the CPU, from the text CuPy is given.

For proving `CupyRuntime` where there is no GPU: what it passes on is checked as a GPU would not.
"""

import ctypes
import types
from collections import Counter

import numpy as np

from gpuresample.engines import cuda_runtime
from gpuresample.engines.cuda_host import OPTIONS, SHIM, build
from gpuresample.engines.cuda_runtime import functions


class Array(np.ndarray):
    """An array "on the GPU"."""

    @property
    def device(self):
        return types.SimpleNamespace(id=FAKE.current)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])

    def get(self, out=None):
        FAKE.calls["get"] += 1
        if out is None:
            return np.array(self)
        assert out.flags.c_contiguous
        out[...] = np.asarray(self)
        return out


class RawModule:
    def __init__(self, code, options):
        FAKE.calls["RawModule"] += 1
        assert options == ("-std=c++17",)
        launchers = "".join(f"HOST_LAUNCHER({name})\n" for name in functions(code))
        self.library = ctypes.CDLL(str(build(cuda_runtime.read(SHIM) + code + launchers, OPTIONS)))

    def get_function(self, name):
        run = getattr(self.library, f"launch_{name}")
        run.argtypes = [ctypes.c_uint] * 3 + [ctypes.c_size_t, ctypes.c_void_p]
        takes = getattr(self.library, f"parameters_{name}")
        takes.restype = ctypes.c_char_p

        def launch(grid, block, args, shared_mem=0):
            assert len(grid) == 1
            assert shared_mem <= 48 << 10
            assert block[0] * block[1] <= 1024
            # As CuPy does: ints become 8 bytes, NumPy scalars keep their size.
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


class Stream:
    def __init__(self, ptr):
        self.ptr, self.waited = ptr, []

    def record(self, event):
        return event

    def wait_event(self, event):
        self.waited.append(event)


class Fake(types.ModuleType):
    """The module; `stream` and `current` are set by tests."""

    def __init__(self):
        super().__init__("cupy")
        self.reset()
        self.RawModule = RawModule
        self.cuda = types.SimpleNamespace(
            Device=Device,
            Event=lambda disable_timing: object(),
            get_current_stream=lambda: self.stream,
            runtime=types.SimpleNamespace(getDevice=lambda: self.current, getDeviceCount=lambda: 2),
        )

    def reset(self):
        self.calls, self.current, self.stream = Counter(), 0, Stream(0)

    def asarray(self, array):
        self.calls["asarray"] += 1
        return np.array(array).view(Array)

    def empty(self, shape, dtype):
        return np.full(shape, 99, dtype).view(Array)

    def ascontiguousarray(self, array):
        return np.ascontiguousarray(array).view(Array)


FAKE = Fake()
