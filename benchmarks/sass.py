"""Runs a kernel's machine code, instruction by instruction, and counts what it executes; no GPU is needed.

The code is what NVRTC makes of the kernels' text, as `cuobjdump` lists it. All threads of a launch are lanes of NumPy
arrays. Of the lanes that are not at the same instruction those at the earliest go on: they meet again where code does.
An instruction counts once for every warp that has a lane in it, as a GPU's own counters do. Memory is the process's
own: every access must lie in an array that the runtime knows. So a launch gives its result, too, and whoever counts
compares it with what g++ makes of the same text: a listing that is misread gives wrong voxels.

What it does not know is time: caches, waiting, how many instructions a cycle takes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.cuda.runtime import Launch, Pointer, Types, assemble

Array = npt.NDArray[Any]
Lanes = npt.NDArray[np.bool_]
Act = Callable[["Machine", Lanes], None]

ARCHITECTURE = 90
# Where a kernel's parameters begin in constant bank 0, by generation.
PARAMETERS = {75: 0x160, 80: 0x160, 86: 0x160, 90: 0x210}
WARP, BANKS = 32, 32
SECTOR = 32
# Bytes of shared memory that a generation keeps for itself before a kernel's.
START = 1024
# What instructions are counted as; all others are integers and control.
KINDS = {
    "sums": ("FFMA", "FADD", "FMUL", "DFMA", "DADD", "DMUL"),
    "conversions": ("I2F", "I2FP", "F2I", "F2F", "F2FP", "FRND", "MUFU"),
    "shared": ("LDS", "STS"),
    "global": ("LDG", "LD", "STG", "ST", "REDG", "ATOMG"),
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


# --- the listing -----------------------------------------------------------------------------------------------------


def compiled(text: str, architecture: int = ARCHITECTURE) -> bytes:
    """Machine code of a text, by NVRTC.

    Raises
    ------
    RuntimeError
        If NVRTC is not installed, or refuses the text.
    """
    from benchmarks.compile_table import nvrtc

    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    words = [f"--gpu-architecture=sm_{architecture}", "-std=c++17"]
    options = (ctypes.c_char_p * len(words))(*[word.encode() for word in words])
    library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    if library.nvrtcCompileProgram(program, len(words), options):
        raise RuntimeError("NVRTC does not compile the text")
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    library.nvrtcGetCUBIN(program, code)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw


def disassembler() -> str:
    """The program that lists machine code.

    Raises
    ------
    RuntimeError
        If it is not installed.
    """
    found = shutil.which("cuobjdump")
    if found:
        return found
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for program in Path(folder).glob("**/bin/cuobjdump"):
            return str(program)
    raise RuntimeError("cuobjdump is not installed: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")


def listing(code: bytes) -> dict[str, list[str]]:
    """The instructions of every kernel in machine code; the k-th lies at 16 k."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [disassembler(), "-sass", file.name]
        text = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace").stdout
    return parsed(text)


def parsed(text: str) -> dict[str, list[str]]:
    """The same, of the program's words."""
    out = {}
    for part in text.split("Function : ")[1:]:
        out[part.split()[0]] = [found[1].strip() for found in re.finditer(r"/\*[0-9a-f]{4,5}\*/\s+(\S.*?);", part)]
    return out


@lru_cache(maxsize=64)
def kernels(file: str, types: Types, architecture: int = ARCHITECTURE) -> dict[str, list[str]]:
    """A file of the kernels' folder, compiled and listed."""
    return listing(compiled(assemble(file, types), architecture))


# --- memory ----------------------------------------------------------------------------------------------------------


class Memory:
    """The arrays that kernels may touch."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._bases = np.zeros(0, np.uint64)
        self._views: list[Array] = []

    def add(self, array: Array) -> None:
        """Let kernels touch an array."""
        low, high = np.lib.array_utils.byte_bounds(array)
        if array.size and self._known.get(low, 0) < high - low:
            self._known[low] = high - low
            bases = sorted(self._known)
            self._bases = np.array(bases, np.uint64)
            self._views = [
                np.ctypeslib.as_array((ctypes.c_uint8 * self._known[base]).from_address(base)) for base in bases
            ]

    def at(self, address: Array, size: int, unit: int) -> list[tuple[Lanes, Array, Array]]:
        """For every array that addresses point into: which do, the array in words of `unit` bytes, their places there.

        Raises
        ------
        IndexError
            If `size` bytes from an address on are not all an array's, or not at a whole multiple of them.
        """
        if (address % np.uint64(size)).any():
            raise IndexError("a kernel touches memory at an address that is not aligned")
        place = np.searchsorted(self._bases, address, "right") - 1
        out = []
        for k in np.unique(place):
            mine = place == k
            offset = (address[mine] - self._bases[k]).astype(np.int64)
            view = self._views[k]
            if k < 0 or int(offset.max()) + size > view.size:
                raise IndexError("a kernel touches memory that is nobody's")
            words = view[: view.size // unit * unit].view(f"u{unit}")
            out.append((mine, words, offset // unit))
        return out


# --- the machine -----------------------------------------------------------------------------------------------------


class Machine:
    """All threads of a launch.

    Attributes
    ----------
    r, u : ndarray, uint32, shape (registers, lanes)
        Registers; uniform ones are kept lane by lane.
    p, q : ndarray, bool, shape (8, lanes)
        Predicates, and uniform ones; the last is true.
    counts : Counter
        Instructions of warps by kind; "wavefronts": turns that shared memory takes by its banks; "sectors": pieces of
        32 bytes of global memory that warps ask for; "instructions": all.
    """

    def __init__(self, code: Sequence[str], launch: Launch, memory: Memory, architecture: int) -> None:
        x, y = launch.block
        self.threads = -(-x * y // WARP) * WARP
        n = self.threads * launch.blocks
        self.memory, self.lanes = memory, n
        self.r, self.u = np.zeros((256, n), np.uint32), np.zeros((64, n), np.uint32)
        self.p, self.q = np.zeros((8, n), bool), np.zeros((8, n), bool)
        self.p[7] = self.q[7] = True
        within = np.tile(np.arange(self.threads), launch.blocks)
        self.block = np.repeat(np.arange(launch.blocks), self.threads)
        self.special = {
            "SR_TID.X": within % x, "SR_TID.Y": within // x, "SR_CTAID.X": self.block, "SR_LANEID": within % WARP,
            "SR_CgaCtaId": np.zeros(n, np.int64),
        }  # fmt: skip
        # The code's own bytes of shared memory come first.
        self.room = (launch.shared + 3) // 4 + START // 4
        self.shared = np.full((launch.blocks, self.room), 0xFFFFFFFF, np.uint32)
        self.bank = _bank(launch, PARAMETERS[architecture])
        self.live = within < x * y
        self.waits = np.zeros(n, bool)
        self.pc = np.zeros(n, np.int64)
        self.counts: Counter[str] = Counter()
        self.steps = [decoded(text) for text in code]

    def run(self) -> None:
        """All threads to their ends.

        Raises
        ------
        NotImplementedError
            If an instruction is executed that is not known here.
        IndexError
            If memory is touched that is none of the kernel's.
        """
        while self.live.any():
            ready = self.live & ~self.waits
            if not ready.any():
                # Blocks do not wait for each other, but nobody else has anything left to do.
                self.waits[:] = False
                continue
            at = int(self.pc[ready].min())
            lanes = ready & (self.pc == at)
            others = self.pc[ready & ~lanes]
            until = int(others.min()) if others.size else 1 << 40
            warps = int(lanes.reshape(-1, WARP).any(axis=1).sum())
            # Straight on until a jump, or where others are.
            while at < until:
                step = self.steps[at // 16]
                self.counts[step.counted] += warps
                self.counts["instructions"] += warps
                at += 16
                taken = lanes if step.guard is None else lanes & step.guard(self)
                if step.moves is None:
                    step.act(self, taken)
                else:
                    self.pc[lanes] = at
                    step.moves(self, taken)
                    break
            else:
                self.pc[lanes] = at

    def count_banks(self, lanes: Lanes, word: Array, words: int) -> None:
        """How many turns shared memory takes for `words` words of 32 bits from `word` on of every lane.

        Lanes that ask for the same word share it. Of wide words a half or a quarter of a warp is served at a time.
        """
        part = np.arange(self.lanes)[lanes] // (WARP // words)
        asked = (part[:, None] << 24) + word[:, None] + np.arange(words)
        keys, counts = np.unique((once := np.unique(asked)) // (1 << 24) * BANKS + once % BANKS, return_counts=True)
        if keys.size:
            _, first = np.unique(keys // BANKS, return_index=True)
            self.counts["wavefronts"] += int(np.maximum.reduceat(counts, first).sum())

    def count_sectors(self, lanes: Lanes, address: Array) -> None:
        """How many pieces of global memory warps ask for."""
        warp = (np.arange(self.lanes) // WARP)[lanes].astype(np.uint64)
        self.counts["sectors"] += np.unique(warp << np.uint64(43) ^ address // np.uint64(SECTOR)).size


def _bank(launch: Launch, start: int) -> Array:
    """Constant bank 0: sizes of blocks, and parameters where the compiler expects them."""
    bank = np.zeros(start + 4096, np.uint8)
    bank[:8].view(np.uint32)[:] = launch.block
    bank[12:16].view(np.uint32)[:] = launch.blocks
    at = start
    for argument in launch.arguments:
        value = np.array(argument.address if isinstance(argument, Pointer) else argument)
        value = value.astype(np.uint64) if isinstance(argument, Pointer) else value
        at = -(-at // value.dtype.alignment) * value.dtype.alignment
        bank[at : at + value.itemsize] = np.frombuffer(value.tobytes(), np.uint8)
        at += value.itemsize
    return bank


# --- operands --------------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?([eE][-+]?\d+)?|INF|QNAN|NAN)$")


def _name(text: str) -> str:
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0]


def _split(text: str) -> list[str]:
    return [part.strip().replace(".reuse", "") for part in text.split(",")] if text.strip() else []


def _register(word: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(UR|R)(\d+|Z)(\.64|\.U32|\.H1|\.H0_H0|\.B\d)?", word)
    if not found:
        return None
    return found[1], 255 if found[2] == "Z" and found[1] == "R" else 63 if found[2] == "Z" else int(found[2])


def _reads(word: str, kind: str) -> Callable[[Machine], Any]:
    """How an operand is read: "u", 32 bits; "q", 64 bits; "f", "d", floats."""
    word = word.strip()
    if word[0] in "-~!" and not NUMBER.match(word) and not word.startswith("-0x"):
        inner = _reads(word[1:], kind)
        if word[0] == "~":
            return lambda m: ~inner(m)
        if kind in "fd":
            return lambda m: -inner(m)
        return lambda m: np.zeros((), inner(m).dtype) - inner(m)
    if word[0] == "|":
        inner = _reads(word.strip("|"), kind)
        return lambda m: np.abs(inner(m))
    dtype = {"u": np.uint32, "q": np.uint64, "f": np.float32, "d": np.float64}[kind]
    register = _register(word)
    if register:
        file, k = register
        if kind in "uf":
            return lambda m: (m.r if file == "R" else m.u)[k].view(dtype)
        zero = k == (255 if file == "R" else 63)

        def pair(m: Machine) -> Any:
            rows = m.r if file == "R" else m.u
            low, high = (rows[k], rows[k]) if zero else (rows[k], rows[k + 1])
            return (low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)).view(dtype)

        return pair
    found = re.fullmatch(r"c\[0x0\]\[(RZ|0x[0-9a-f]+)\]", word)
    if found:
        at = 0 if found[1] == "RZ" else int(found[1], 16)
        return lambda m: m.bank[at : at + np.dtype(dtype).itemsize].view(dtype)[0]
    if re.fullmatch(r"-?0x[0-9a-f]+", word):
        number = int(word, 16)
        value = np.array(number & (0xFFFFFFFF if kind in "uf" else 0xFFFFFFFFFFFFFFFF))
        made = value.astype(np.uint32 if kind in "uf" else np.uint64).view(dtype)[()]
        return lambda m: made
    if NUMBER.match(word):
        given = float(word.replace("INF", "inf").replace("QNAN", "nan"))
        floating = np.array(given, np.float64 if kind in "dq" else np.float32)
        literal = floating.view(dtype)[()]
        return lambda m: literal
    raise NotImplementedError(f"an operand {word}")


def _predicate(word: str) -> Callable[[Machine], Lanes]:
    found = re.fullmatch(r"(!?)(U?)P(\d|T)", word.strip())
    if not found:
        raise NotImplementedError(f"a predicate {word}")
    k, uniform, inverted = 7 if found[3] == "T" else int(found[3]), found[2], found[1]

    def value(m: Machine) -> Lanes:
        it = (m.q if uniform else m.p)[k]
        return ~it if inverted else it

    return value


def _is_predicate(word: str) -> bool:
    return re.fullmatch(r"!?U?P(\d|T)", word.strip()) is not None


def _write(m: Machine, lanes: Lanes, word: str, value: Any, wide: bool = False) -> None:
    """Into a register, or two."""
    register = _register(word)
    assert register is not None
    file, k = register
    if k == (255 if file == "R" else 63):
        return
    rows = m.r if file == "R" else m.u
    value = np.asarray(value)
    if wide:
        both = value if value.dtype == np.uint64 else value.view(np.uint64)
        np.copyto(rows[k], (both & np.uint64(0xFFFFFFFF)).astype(np.uint32), where=lanes)
        np.copyto(rows[k + 1], (both >> np.uint64(32)).astype(np.uint32), where=lanes)
        return
    np.copyto(rows[k], value if value.dtype == np.uint32 else value.view(np.uint32), where=lanes)


def _set(m: Machine, lanes: Lanes, word: str, value: Any) -> None:
    """Into a predicate."""
    found = re.fullmatch(r"(U?)P(\d|T)", word)
    assert found is not None
    if found[2] != "T":
        np.copyto((m.q if found[1] else m.p)[int(found[2])], value, where=lanes)


# --- instructions ----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One instruction.

    Attributes
    ----------
    counted : str
        Its kind.
    guard : callable or None
        Which lanes it is for.
    act : callable
        What it does for lanes.
    moves : callable or None
        What moves lanes that are at the next instruction already.
    """

    counted: str
    guard: Callable[[Machine], Lanes] | None
    act: Act
    moves: Act | None


@cache
def decoded(text: str) -> Step:
    """An instruction; one that is not known fails when it is executed, not before."""
    guard, whole = None, text
    found = re.match(r"@(!?U?P\w+)\s+(.*)", text)
    if found:
        guard, text = _predicate(found[1]), found[2]
    name, _, rest = text.partition(" ")
    words, parts = name.split("."), _split(rest)
    counted = KIND_OF.get(words[0], "other")

    def fails(m: Machine, lanes: Lanes) -> None:
        if lanes.any():
            raise NotImplementedError(whole)

    try:
        if words[0] in ("BRA", "CALL", "RET", "EXIT", "BAR"):
            return Step(counted, guard, fails, _control(words[0], parts))
        return Step(counted, guard, _act(words[0], words[1:], parts), None)
    except (NotImplementedError, IndexError, KeyError, AssertionError, ValueError):
        return Step(counted, guard, fails, None)


def _act(op: str, flags: list[str], a: list[str]) -> Any:
    if op in ("NOP", "BSSY", "BSYNC", "BREAK", "WARPSYNC", "YIELD", "DEPBAR"):
        return lambda m, lanes: None
    if op in ("LDG", "LD", "STG", "ST", "LDS", "STS"):
        return _memory(op, flags, a)
    if op in ("LDC", "ULDC"):
        kind = "q" if "64" in flags else "u"
        if "U16" in flags or "U8" in flags:
            mask = np.uint32(0xFFFF if "U16" in flags else 0xFF)
            at = int(re.fullmatch(r"c\[0x0\]\[0x([0-9a-f]+)\]", a[1])[1], 16)  # type: ignore[index]
            return lambda m, lanes: _write(
                m, lanes, a[0], np.frombuffer(m.bank[at : at + 4].tobytes(), np.uint32)[0] & mask
            )
        value = _reads(a[1], kind)
        return lambda m, lanes: _write(m, lanes, a[0], value(m), kind == "q")
    if op in ("S2R", "S2UR"):
        return lambda m, lanes: _write(m, lanes, a[0], m.special[a[1]].astype(np.uint32))
    if op == "CS2R":
        return lambda m, lanes: _write(m, lanes, a[0], np.uint64(0), wide="32" not in flags)
    if op[0] == "U" and op[1:] in ("MOV", "IADD3", "IMAD", "LEA", "SHF", "LOP3", "ISETP", "SEL", "PRMT"):
        op = op[1:]
    if op in ("MOV", "R2UR"):
        value = _reads(a[1], "u")
        return lambda m, lanes: _write(m, lanes, a[0], value(m))
    if op == "HFMA2":
        high, low = (np.array(float(w), np.float16).view(np.uint16) for w in a[3:5])
        whole = np.uint32(int(high) << 16 | int(low))
        return lambda m, lanes: _write(m, lanes, a[0], whole)
    for group in (_integers, _shifts, _choices, _floats, _doubles, _conversions):
        act = group(op, flags, a)
        if act is not None:
            return act
    raise NotImplementedError("an instruction that is not known here")


def _control(op: str, a: list[str]) -> Act:
    if op == "EXIT":

        def leave(m: Machine, lanes: Lanes) -> None:
            m.live[lanes] = False

        return leave
    if op == "BAR":

        def wait(m: Machine, lanes: Lanes) -> None:
            m.waits[lanes] = True

        return wait
    if op == "RET":
        back = _reads(a[0].split()[0], "u")

        def return_(m: Machine, lanes: Lanes) -> None:
            m.pc[lanes] = back(m)[lanes]

        return return_
    target = int(a[-1], 16)
    also = _predicate(a[0]) if len(a) == 2 else None

    def jump(m: Machine, lanes: Lanes) -> None:
        m.pc[lanes if also is None else lanes & also(m)] = target

    return jump


def _memory(op: str, flags: list[str], a: list[str]) -> Act:
    shared, loads = op.endswith("S") and op != "LDG", op.startswith("L")
    place, register = (a[1], a[0]) if loads else (a[0], a[1])
    size = next(
        (n for flag, n in (("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)) if flag in flags), 4
    )
    found = re.search(r"\[(?:(U?R(?:\d+|Z))(?:\.64|\.U32)?)?(?:\+(UR\d+))?(?:\+?(-?0x[0-9a-f]+))?\]$", place)
    assert found is not None
    base = _reads(found[1] or "RZ", "u" if shared else "q")
    more = _reads(found[2], "u") if found[2] else None
    offset = int(found[3] or "0", 16)
    _, k = _register(register) or ("R", 255)
    words, unit, signed = max(1, size // 4), min(4, size), next((flag for flag in flags if flag in ("S16", "S8")), "")

    def act(m: Machine, lanes: Lanes) -> None:
        if not lanes.any():
            return
        at = (base(m).astype(np.int64) + offset)[lanes]
        if more is not None:
            at = at + more(m)[lanes]
        if shared:
            at = at & 0xFFFFFFFF
            word = at // 4
            if (at % size).any() or int(word.max()) + words > m.room:
                raise IndexError(f"a kernel touches byte {int(at.max())} of {4 * m.room} bytes of shared memory")
            m.count_banks(lanes, word, words)
            block = m.block[lanes]
            for c in range(words):
                if loads:
                    m.r[k + c][lanes] = m.shared[block, word + c]
                else:
                    m.shared[block, word + c] = m.r[k + c][lanes]
            return
        address = at.astype(np.uint64)
        m.count_sectors(lanes, address)
        where = np.flatnonzero(lanes)
        for mine, view, place in m.memory.at(address, size, unit):
            for c in range(words):
                if loads:
                    value = view[place + c]
                    value = (
                        value.view(f"i{unit}").astype(np.int32).view(np.uint32) if signed else value.astype(np.uint32)
                    )
                    if k != 255:
                        m.r[k + c][where[mine]] = value
                else:
                    view[place + c] = m.r[min(k + c, 255)][where[mine]].astype(view.dtype)

    return act


def _wide(value: Any) -> Any:
    return np.asarray(value).astype(np.uint64)


def _signed(value: Any) -> Any:
    return np.asarray(value, np.uint32).view(np.int32).astype(np.int64).view(np.uint64)


LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def _low(value: Any) -> Any:
    return (value & LOW).astype(np.uint32)


def _term(word: str) -> Callable[[Machine], Any]:
    """A summand in 64 bits; what is subtracted is inverted, and one added: carries are those of the hardware."""
    if word.startswith("-") and not word.startswith("-0x"):
        inner = _reads(word[1:], "u")
        return lambda m: _wide(~inner(m)) + np.uint64(1)
    inner = _reads(word, "u")
    return lambda m: _wide(inner(m))


def _operands(a: list[str], most: int) -> tuple[list[str], list[str], list[Callable[[Machine], Any]]]:
    """What sums take after the register: at most so many predicates for carries, the summands, and carries to add."""
    carries = [w for w in a[1 : 1 + most] if _is_predicate(w)]
    rest = a[1 + len(carries) :]
    return carries, [w for w in rest if not _is_predicate(w)], [_predicate(w) for w in rest if _is_predicate(w)]


def _carried(m: Machine, total: Any, ins: list[Callable[[Machine], Any]]) -> Any:
    """A sum for all lanes, with the carries that go into it."""
    for carry in ins:
        total = total + carry(m).astype(np.uint64)
    return np.broadcast_to(total, m.lanes)


def _integers(op: str, flags: list[str], a: list[str]) -> Any:
    if op in ("IADD3", "VIADD"):
        carries, terms, ins = _operands(a, 2)
        values = [_term(w) for w in terms]

        def add(m: Machine, lanes: Lanes) -> None:
            total = _carried(m, sum((v(m) for v in values), np.uint64(0)), ins)
            _write(m, lanes, a[0], _low(total))
            # Of three summands two may carry; only how many do matters to what takes them.
            for k, carried in enumerate(carries):
                _set(m, lanes, carried, total >> HALF > k)

        return add
    if op == "IMAD":
        wide, high = "WIDE" in flags, "HI" in flags
        carries, terms, ins = _operands(a, 1)
        x, y = _reads(terms[0], "u"), _reads(terms[1], "u")
        z = _reads(terms[2], "q" if wide or high else "u")
        extend = _wide if "U32" in flags else _signed

        def multiply(m: Machine, lanes: Lanes) -> None:
            total = _carried(m, extend(x(m)) * extend(y(m)) + _wide(z(m)), ins)
            _write(m, lanes, a[0], total if wide else _low(total >> HALF) if high else _low(total), wide)
            assert not carries

        return multiply
    if op == "IABS":
        value = _reads(a[1], "u")
        return lambda m, lanes: _write(m, lanes, a[0], np.abs(np.asarray(value(m)).view(np.int32)).view(np.uint32))
    if op == "LEA":
        carries, terms, ins = _operands(a, 1)
        x, y, by = _reads(terms[0], "u"), _reads(terms[1], "u"), np.uint64(int(terms[-1], 16))
        high = "HI" in flags
        top = _reads(terms[2], "u") if high and "SX32" not in flags else None

        def shifted(m: Machine, lanes: Lanes) -> None:
            low = _wide(x(m))
            if high:
                low = low | _wide(top(m)) << HALF if top is not None else _signed(x(m))
                low = (low << by) >> HALF
            else:
                low = low << by & LOW
            total = _carried(m, low + _wide(y(m)), ins)
            _write(m, lanes, a[0], _low(total))
            for carried in carries:
                _set(m, lanes, carried, total >> HALF != 0)

        return shifted
    return None


def _shifts(op: str, flags: list[str], a: list[str]) -> Any:
    if op == "SHF":
        x, by, y = _reads(a[1], "u"), _reads(a[2], "u"), _reads(a[3], "u")
        left, high, signed = "L" in flags, "HI" in flags, "S32" in flags or "S64" in flags
        most = np.uint64(63 if "U64" in flags or "S64" in flags else 32)

        def shift(m: Machine, lanes: Lanes) -> None:
            pair = _wide(x(m)) | _wide(y(m)) << HALF
            n = np.minimum(_wide(by(m)), most)
            moved = (
                pair << n
                if left
                else (pair.view(np.int64) >> n.astype(np.int64)).view(np.uint64)
                if signed
                else pair >> n
            )
            if not left and high and most == 32:
                top = _signed(y(m)).view(np.int64) >> n.astype(np.int64) if signed else _wide(y(m)) >> n
                _write(m, lanes, a[0], _low(np.asarray(top).view(np.uint64)))
                return
            _write(m, lanes, a[0], _low(moved >> HALF) if high else _low(moved))

        return shift
    if op == "LOP3":
        # Whether a bit is left, for those that ask; combined with none but what is always false.
        asked = [w for w in a[:1] if _is_predicate(w)]
        a = a[len(asked) :]
        values, table = [_reads(w, "u") for w in a[1:4]], int(a[4], 16)
        assert a[5] in ("!PT", "!UPT")

        def logic(m: Machine, lanes: Lanes) -> None:
            given = [np.asarray(v(m)) for v in values]
            total: Any = np.uint32(0)
            for k in range(8):
                if table >> k & 1:
                    x, y, z = (v if k >> (2 - j) & 1 else ~v for j, v in enumerate(given))
                    total = total | x & y & z
            _write(m, lanes, a[0], np.asarray(total, np.uint32))
            for predicate in asked:
                _set(m, lanes, predicate, np.asarray(total) != 0)

        return logic
    if op == "PRMT":
        x, selector, y = _reads(a[1], "u"), _reads(a[2], "u"), _reads(a[3], "u")

        def permute(m: Machine, lanes: Lanes) -> None:
            pair, chosen = _wide(x(m)) | _wide(y(m)) << HALF, _wide(selector(m))
            total: Any = np.uint64(0)
            for k in range(4):
                nibble = chosen >> np.uint64(4 * k) & np.uint64(15)
                byte = pair >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(255)
                byte = np.where(
                    nibble & np.uint64(8), np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0)), byte
                )
                total = total | byte << np.uint64(8 * k)
            _write(m, lanes, a[0], _low(np.broadcast_to(total, m.lanes)))

        return permute
    return None


COMPARISONS = {
    "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal, "NE": np.not_equal,
}  # fmt: skip


def _ordered(flag: str, x: Any, y: Any) -> Any:
    """A comparison by its word; those that end in U are true where a side is no number."""
    with np.errstate(invalid="ignore"):
        either = np.isnan(x) | np.isnan(y)
        if flag in ("NAN", "NUM"):
            return either if flag == "NAN" else ~either
        made = COMPARISONS[flag[:2]](x, y)
        return made | either if flag.endswith("U") else made & ~either


def _choices(op: str, flags: list[str], a: list[str]) -> Any:
    if op in ("ISETP", "FSETP", "DSETP"):
        kind = {"I": "u", "F": "f", "D": "d"}[op[0]]
        x, y, other = _reads(a[2], kind), _reads(a[3], kind), _predicate(a[4])
        low = _predicate(a[5]) if "EX" in flags else None
        both = np.logical_and if "AND" in flags else np.logical_or

        def compare(m: Machine, lanes: Lanes) -> None:
            p, q = np.asarray(x(m)), np.asarray(y(m))
            if kind == "u" and "U32" not in flags:
                p, q = p.view(np.int32), q.view(np.int32)
            made = _ordered(flags[0], p, q) if kind != "u" else COMPARISONS[flags[0]](p, q)
            if low is not None:
                equal = p == q
                strict = made & ~equal if flags[0] != "EQ" else equal & False
                made = (strict | equal & low(m)) if flags[0] != "NE" else made | low(m)
            _set(m, lanes, a[0], both(made, other(m)))
            if a[1] not in ("PT", "UPT"):
                _set(m, lanes, a[1], both(~np.asarray(made), other(m)))

        return compare
    if op == "PLOP3":
        values, table = [_predicate(w) for w in a[2:5]], int(a[5], 16)

        def logic(m: Machine, lanes: Lanes) -> None:
            index: Any = sum(np.asarray(v(m)).astype(np.int64) << (2 - j) for j, v in enumerate(values))
            _set(m, lanes, a[0], (table >> index & 1).astype(bool))

        return logic
    if op == "P2R" and len(flags) == 0:
        other, mask = _reads(a[2], "u"), int(a[3], 16)

        def pack(m: Machine, lanes: Lanes) -> None:
            bits = (m.p[:7].astype(np.uint32) << np.arange(7, dtype=np.uint32)[:, None]).sum(axis=0, dtype=np.uint32)
            _write(m, lanes, a[0], bits & np.uint32(mask) | other(m) & np.uint32(~mask & 0xFFFFFFFF))

        return pack
    if op == "R2P" and len(flags) == 0:
        bits, mask = _reads(a[1], "u"), int(a[2], 16)

        def unpack(m: Machine, lanes: Lanes) -> None:
            for k in range(7):
                if mask >> k & 1:
                    _set(m, lanes, f"P{k}", (bits(m) >> np.uint32(k) & np.uint32(1)).astype(bool))

        return unpack
    if op in ("SEL", "FSEL"):
        kind = "u" if op == "SEL" else "f"
        x, y, which = _reads(a[1], kind), _reads(a[2], kind), _predicate(a[3])
        return lambda m, lanes: _write(m, lanes, a[0], np.where(which(m), x(m), y(m)))
    if op in ("VIMNMX", "VIADDMNMX"):
        values, least = [_reads(w, "u") for w in a[1:-1]], _predicate(a[-1])
        whole = np.uint32 if "U32" in flags else np.int32

        def extreme(m: Machine, lanes: Lanes) -> None:
            given = [np.asarray(v(m)) for v in values]
            x = (given[0] + given[1] if len(given) == 3 else given[0]).view(whole)
            y = given[-1].view(whole)
            _write(m, lanes, a[0], np.where(least(m), np.minimum(x, y), np.maximum(x, y)))

        return extreme
    return None


def _floats(op: str, flags: list[str], a: list[str]) -> Any:
    if op in ("FADD", "FMUL", "FFMA"):
        values = [_reads(w, "f") for w in a[1:]]
        toward_zero, saturates = "RZ" in flags, "SAT" in flags

        def compute(m: Machine, lanes: Lanes) -> None:
            # A product of float32 is exact in float64, whose sums are rounded once more; twice is as good as once but
            # for ties of ties.
            with np.errstate(all="ignore"):
                given = [np.asarray(v(m), np.float64) for v in values]
                total = given[0] + given[1] if op == "FADD" else given[0] * given[1]
                total = total + given[2] if op == "FFMA" else total
                made = total.astype(np.float32)
                if toward_zero:
                    made = np.where(np.abs(made) > np.abs(total), np.nextafter(made, np.float32(0)), made)
                if saturates:
                    made = np.clip(made, np.float32(0), np.float32(1))
            _write(m, lanes, a[0], made.astype(np.float32))

        return compute
    if op == "FMNMX":
        x, y, least = _reads(a[1], "f"), _reads(a[2], "f"), _predicate(a[3])
        small, large = (np.minimum, np.maximum) if "NAN" in flags else (np.fmin, np.fmax)
        return lambda m, lanes: _write(
            m, lanes, a[0], np.where(least(m), small(x(m), y(m)), large(x(m), y(m))).astype(np.float32)
        )
    if op == "FCHK":
        x, y = _reads(a[1], "f"), _reads(a[2], "f")

        def check(m: Machine, lanes: Lanes) -> None:
            with np.errstate(all="ignore"):
                p, q = np.abs(np.asarray(x(m))), np.abs(np.asarray(y(m)))
                plain = (p > 1e-30) & (p < 1e30) & (q > 1e-6) & (q < 1e6)
            _set(m, lanes, a[0], ~plain)

        return check
    if op == "MUFU":
        x = _reads(a[1], "f")
        if flags[0] == "RCP64H":
            # Of a double's upper half, to the first guess of a division.
            half = _reads(a[1], "u")

            def guess(m: Machine, lanes: Lanes) -> None:
                with np.errstate(all="ignore"):
                    made = 1 / np.asarray(_wide(half(m)) << HALF).view(np.float64)
                _write(m, lanes, a[0], (made.view(np.uint64) >> HALF).astype(np.uint32))

            return guess
        functions: dict[str, Callable[[Any], Any]] = {
            "RCP": lambda v: 1 / v,
            "EX2": np.exp2,
            "RSQ": lambda v: 1 / np.sqrt(v),
            "LG2": np.log2,
        }
        function = functions[flags[0]]

        def special(m: Machine, lanes: Lanes) -> None:
            with np.errstate(all="ignore"):
                _write(m, lanes, a[0], function(np.asarray(x(m), np.float64)).astype(np.float32))

        return special
    return None


ROUNDINGS: dict[str, Callable[[Any], Any]] = {"TRUNC": np.trunc, "FLOOR": np.floor, "CEIL": np.ceil}


def _doubles(op: str, flags: list[str], a: list[str]) -> Any:
    """In float64; a fused sum is rounded by way of the widest type that there is, which may show in its last bit."""
    if op in ("DADD", "DMUL", "DFMA"):
        values = [_reads(w, "d") for w in a[1:]]
        toward = -np.inf if "RM" in flags else np.inf if "RP" in flags else None

        def compute(m: Machine, lanes: Lanes) -> None:
            with np.errstate(all="ignore"):
                given = [np.asarray(v(m), np.longdouble) for v in values]
                total = given[0] + given[1] if op == "DADD" else given[0] * given[1]
                total = total + given[2] if op == "DFMA" else total
                made = total.astype(np.float64)
                if toward is not None:
                    beyond = made > total if toward < 0 else made < total
                    made = np.where(beyond, np.nextafter(made, toward), made)
            _write(m, lanes, a[0], np.broadcast_to(made, m.lanes).copy(), wide=True)

        return compute
    wide = "F64" in flags
    if op == "F2F" and wide:
        x, out = _reads(a[1], "d" if flags[-1] == "F64" else "f"), np.float64 if flags[0] == "F64" else np.float32
        return lambda m, lanes: _write(m, lanes, a[0], np.asarray(x(m)).astype(out), wide=flags[0] == "F64")
    if op == "I2F" and wide:
        x, kind = _reads(a[1], "u"), np.uint32 if "U32" in flags else np.int32
        return lambda m, lanes: _write(m, lanes, a[0], np.asarray(x(m)).view(kind).astype(np.float64), wide=True)
    return None


def _conversions(op: str, flags: list[str], a: list[str]) -> Any:
    wide = "F64" in flags
    rounded = next((ROUNDINGS[flag] for flag in flags if flag in ROUNDINGS), np.rint)
    if op == "FRND":
        x, out = _reads(a[1], "d" if wide else "f"), np.float64 if wide else np.float32
        return lambda m, lanes: _write(m, lanes, a[0], np.asarray(rounded(x(m)), out), wide)
    if op == "F2I" and not {"S64", "U64"} & set(flags):
        x = _reads(a[1], "d" if wide else "f")
        low, high = (0, 2**32 - 1) if "U32" in flags else (-(2**31), 2**31 - 1)

        def whole(m: Machine, lanes: Lanes) -> None:
            with np.errstate(all="ignore"):
                value = np.nan_to_num(rounded(np.asarray(x(m), np.float64)), nan=0.0)
                _write(m, lanes, a[0], (np.clip(value, low, high).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32))

        return whole
    if op in ("I2F", "I2FP") and not {"F64", "S64", "U64", "F16"} & set(flags):
        part = re.search(r"\.(H1|B[1-3])$", a[1])
        by = {"H1": 16, "B1": 8, "B2": 16, "B3": 24}[part[1]] if part else 0
        x = _reads(a[1], "u")
        kind = {"S16": np.int16, "U16": np.uint16, "S8": np.int8, "U8": np.uint8, "U32": np.uint32}
        dtype = next((kind[flag] for flag in flags if flag in kind), np.int32)
        up = "RP" in flags

        def floating(m: Machine, lanes: Lanes) -> None:
            exact = (np.asarray(x(m)) >> np.uint32(by)).astype(dtype).astype(np.float64)
            made = exact.astype(np.float32)
            if up:
                made = np.where(made < exact, np.nextafter(made, np.float32(np.inf)), made)
            _write(m, lanes, a[0], made.astype(np.float32))

        return floating
    return None


# --- the runtime -----------------------------------------------------------------------------------------------------


class Counting(HostRuntime):
    """A runtime that executes machine code; `counted` has what every kernel executed so far."""

    def __init__(self, architecture: int = ARCHITECTURE) -> None:
        super().__init__()
        self._architecture = architecture
        self._memory = Memory()
        self._owners: list[Array] = []
        self.counted: dict[str, Counter[str]] = {}

    def _known(self, array: Array) -> Array:
        self._owners.append(array)
        self._memory.add(array)
        return array

    def address(self, array: Array) -> int:
        """See `Runtime`."""
        return super().address(self._known(array))

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """See `Runtime`."""
        return self._known(super().empty(shape, dtype))

    def upload(self, array: Array) -> Array:
        """See `Runtime`."""
        return self._known(super().upload(array))

    def launch(self, launch: Launch) -> None:
        """See `Runtime`."""
        code = kernels(launch.file, launch.types, self._architecture)[launch.function]
        machine = Machine(code, launch, self._memory, self._architecture)
        machine.run()
        self.counted[launch.function] = self.counted.get(launch.function, Counter()) + machine.counts
        self.launches[launch.function] += 1
