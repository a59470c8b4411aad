"""Numba's half of `jit`: a kernel's machine code for a signature. Importing this module loads Numba."""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import re
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils, config
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import from_dtype

from gpuresample.engines.cpu import store
from gpuresample.engines.cpu.declarations import Declared, Instructions
from gpuresample.engines.cpu.store import FINE, NOT_C

types: Any = numba_types  # a type checker sees half of them
log = logging.getLogger("gpuresample")

WORD, BYTE = ir.IntType(64), ir.IntType(8)
POINTER = BYTE.as_pointer()


# --- functions as Numba takes them ---------------------------------------------------------------------------------

_modules: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
_dispatchers: dict[Declared, Any] = {}


def dispatcher(kernel: Declared) -> Any:
    """Numba's own of a kernel: the same function, for which kernels that it calls are Numba's, too."""
    made = _dispatchers.get(kernel)
    if made is None:
        # A third of the time that compiling takes goes into wrappers, for Python and C, which nobody calls here.
        made = _dispatchers[kernel] = numba.njit(
            no_cfunc_wrapper=True, no_cpython_wrapper=True, **kernel.targetoptions
        )(_twin(kernel))
    return made


def callable_by_python(kernel: Declared) -> Any:
    """A kernel as Numba calls it, or as Python does where Numba is told to compile nothing.

    Raises
    ------
    RuntimeError
        If Numba is told to compile nothing, and the kernel has instructions that Python cannot run.
    """
    if store.interpreted() and any(isinstance(one, Instructions) for one in kernel.calls()):
        raise RuntimeError(
            f"NUMBA_DISABLE_JIT is set, and {kernel.name} has instructions of the processor's own, which only a "
            "compiler can write: unset it"
        )
    return numba.njit(no_cfunc_wrapper=True, **kernel.targetoptions)(_twin(kernel))


def _twin(kernel: Declared) -> FunctionType:
    function = kernel.py_func
    names = _seen(function.__globals__)
    twin = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    twin.__module__, twin.__qualname__, twin.__doc__ = function.__module__, function.__qualname__, function.__doc__
    return twin


def _seen(names: dict[str, Any]) -> dict[str, Any]:
    """A module's names, kernels being Numba's."""
    if id(names) not in _modules:
        own = dict(names)
        _modules[id(names)] = names, own
        for name, value in names.items():
            if isinstance(value, Declared):
                own[name] = dispatcher(value)
            elif isinstance(value, Instructions):
                own[name] = getattr(importlib.import_module(value.module), value.name)
    return _modules[id(names)][1]


# --- signatures ----------------------------------------------------------------------------------------------------


def types_of(signature: str) -> tuple[Any, ...]:
    """Numba's types of a signature's arguments."""
    stack: list[tuple[list[str], list[Any]]] = [([], [])]
    for word in re.findall(r"\w+=|[()]|[^\s()=]+", signature):
        names, kinds = stack[-1]
        if word == "(":
            stack.append(([], []))
        elif word == ")":
            stack.pop()
            whole = types.BaseTuple.from_types(kinds, _named(*names)) if names else types.Tuple(kinds)
            stack[-1][1].append(whole)
        elif word.endswith("="):
            names.append(word[:-1])
        else:
            kinds.append(_type_of(word))
    return tuple(stack[0][1])


@cache
def _named(*names: str) -> Any:
    """A class of tuples with these names: all that a kernel reads of its argument's own class."""
    return namedtuple("Named", names)


def _type_of(word: str) -> Any:
    number, _, rest = word.partition("[")
    scalar = from_dtype(_dtype(number))
    return types.Array(scalar, int(rest[0]), "A" if "A" in rest else "C") if rest else scalar


def _dtype(code: str) -> Any:
    import numpy as np

    return np.dtype(code)


def _spelt(kind: Any) -> str:
    """A type that a kernel returns, in a signature's words; "" for none."""
    if isinstance(kind, types.NoneType):
        return ""
    if isinstance(kind, types.BaseTuple):
        return f"({' '.join(_spelt(k) for k in kind.types)})"
    if isinstance(kind, types.Boolean):
        return "b1"
    if isinstance(kind, types.Integer):
        return f"{'i' if kind.signed else 'u'}{kind.bitwidth // 8}"
    if isinstance(kind, types.Float):
        return f"f{kind.bitwidth // 8}"
    raise TypeError(f"a kernel returns numbers, not {kind}")


# --- machine code --------------------------------------------------------------------------------------------------


def code_for(kernel: Declared, signature: str) -> store.Code:
    """Compile a kernel and keep the code; what another thread did meanwhile is not done again."""
    with global_compiler_lock:
        found = store.load(kernel, signature)
        if found is not None:
            return found
        log.info("compiling %s for (%s): its machine code is not kept for this machine yet", kernel.name, signature)
        made, returns, asked = object_of(kernel, signature, shared=store.linker() is not None)
        if asked:  # of Numba, which is not there when the code is loaded
            log.warning("the machine code of %s cannot be kept: it needs %s", kernel.name, ", ".join(asked))
            return store.in_memory(made, returns)
        return store.keep(kernel, signature, made, returns)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A third of a compiler's time would go into looking for garbage among millions of objects that are none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def for_disk_alone() -> None:
    """Have Numba's own machine code never made in this process, which will run nothing that it compiles."""
    codegen = cpu_target.target_context.codegen()
    codegen._library_class._finalize_specific = lambda library: None
    codegen._add_module = lambda module: None
    codegen.set_env = lambda name, environment: None


@global_compiler_lock  # type: ignore[untyped-decorator]
def object_of(
    kernel: Declared, signature: str, *, shared: bool, symbol: str = store.SYMBOL
) -> tuple[bytes, str, list[str]]:
    """An object file with a kernel's machine code and the way in, `symbol`; the types of what it returns.

    And what it needs that no process has but one that has loaded Numba: nothing, or it cannot be kept. `shared` is
    whether a linker will make a shared library of it.
    """
    own = dispatcher(kernel)
    kinds = types_of(signature)
    with _no_collection():
        own.compile(kinds)
    compiled = own.overloads[kinds]
    library = compiled.library
    codegen = library.codegen
    module = llvm.parse_bitcode(library._final_module.as_bitcode())
    returned = compiled.signature.return_type
    module.link_in(llvm.parse_assembly(_way_in(own.targetctx, compiled.fndesc, kinds, returned, module, symbol)))
    for part in (*module.functions, *module.global_variables):
        if not part.is_declaration and part.name != symbol:
            part.linkage = "internal"
    options = {"reloc": "pic", "codemodel": "default"} if shared else {"reloc": "static", "jit": True}
    machine = llvm.Target.from_triple(module.triple).create_target_machine(
        cpu=codegen._get_host_cpu_name(), features=codegen._tm_features, opt=config.OPT, **options
    )
    program = ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt
    declared = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    asked = [name for name in declared if not hasattr(program, name)]
    return machine.emit_object(module), _spelt(returned), asked


class _In:
    """Arguments as they are read from slots of eight bytes."""

    def __init__(self, context: Any, builder: Any, slots: Any, head: Any) -> None:
        self.context, self.builder, self.head = context, builder, head
        self.slots = builder.bitcast(slots, WORD.as_pointer())
        self.n = 0
        self.askew: list[Any] = []  # whether an array is not as its type says

    def next(self) -> Any:
        """The address of the next slot."""
        self.n += 1
        return self.builder.gep(self.slots, [WORD(self.n - 1)])

    def value(self, kind: Any) -> Any:
        """The next argument."""
        builder = self.builder
        if isinstance(kind, types.BaseTuple):
            return self.context.make_tuple(builder, kind, [self.value(k) for k in kind.types])
        if isinstance(kind, types.Array):
            return self.array(kind)
        form = self.context.get_data_type(kind)
        data = builder.load(builder.bitcast(self.next(), form.as_pointer()))
        return self.context.data_model_manager[kind].from_data(builder, data)

    def array(self, kind: Any) -> Any:
        """The next argument, an array: NumPy's fields of it are data, number of axes, sizes, strides."""
        context, builder = self.context, self.builder
        fields = builder.add(builder.load(self.next()), self.head)

        def field(at: int, form: Any) -> Any:
            return builder.load(builder.inttoptr(builder.add(fields, WORD(at)), form.as_pointer()))

        sizes, steps = field(16, WORD.as_pointer()), field(24, WORD.as_pointer())
        shape = [builder.load(builder.gep(sizes, [WORD(k)])) for k in range(kind.ndim)]
        strides = [builder.load(builder.gep(steps, [WORD(k)])) for k in range(kind.ndim)]
        item = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        if kind.layout == "C":
            # Strides of an axis of one element, and of an array of none, say nothing.
            expected = WORD(item)
            empty = ir.Constant(ir.IntType(1), 0)
            wrong = []
            for n, step in zip(reversed(shape), reversed(strides), strict=True):
                differs = builder.icmp_signed("!=", step, expected)
                wrong.append(builder.and_(differs, builder.icmp_signed(">", n, WORD(1))))
                empty = builder.or_(empty, builder.icmp_signed("==", n, WORD(0)))
                expected = builder.mul(expected, n)
            self.askew += [builder.and_(w, builder.not_(empty)) for w in wrong]
            tidy: list[Any] = []
            expected = WORD(item)
            for n in reversed(shape):
                tidy.insert(0, expected)
                expected = builder.mul(expected, n)
            strides = tidy
        made = context.make_array(kind)(context, builder)
        data = field(0, made.data.type)
        # Sizes of numbers are powers of two.
        rest = builder.and_(builder.ptrtoint(data, WORD), WORD(item - 1))
        self.askew.append(builder.icmp_unsigned("!=", rest, WORD(0)))
        populate_array(made, data, shape, strides, WORD(item), meminfo=None)
        return made._getvalue()


def _way_in(context: Any, described: Any, kinds: tuple[Any, ...], returned: Any, beside: Any, symbol: str) -> str:
    """A function that reads arguments from slots, calls a kernel and writes down what it returns."""
    module = ir.Module("way_in")
    module.triple, module.data_layout = beside.triple, beside.data_layout
    form = ir.FunctionType(WORD, [POINTER, WORD, POINTER])
    function = ir.Function(module, form, symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    slots, head, out = function.args
    read = _In(context, builder, slots, head)
    arguments = [read.value(kind) for kind in kinds]
    askew = ir.Constant(ir.IntType(1), 0)
    for wrong in read.askew:
        askew = builder.or_(askew, wrong)
    with builder.if_then(askew, likely=False):
        builder.ret(WORD(NOT_C))
    kernel = context.declare_function(module, described)
    status, value = context.call_conv.call_function(builder, kernel, returned, kinds, arguments)
    with builder.if_then(status.is_error, likely=False):
        builder.ret(builder.ptrtoint(status.excinfoptr, WORD))
    at = [0]

    def write(kind: Any, value: Any) -> None:
        if isinstance(kind, types.BaseTuple):
            for k, part in enumerate(kind.types):
                write(part, builder.extract_value(value, k))
        elif not isinstance(kind, types.NoneType):
            data = context.data_model_manager[kind].as_data(builder, value)
            place = builder.gep(out, [WORD(8 * at[0])])
            builder.store(data, builder.bitcast(place, data.type.as_pointer()))
            at[0] += 1

    write(returned, value)
    builder.ret(WORD(FINE))
    _runtime(module, beside)
    return str(module)


def _runtime(module: Any, beside: Any) -> None:
    """What a kernel asks of Numba's runtime: memory that counts its references (`numba.core.runtime.nrtdynmod`)."""
    asked = {f.name for f in beside.functions if f.is_declaration}
    memory = ir.LiteralStructType([WORD, POINTER, POINTER, POINTER, WORD])
    size = 64
    if "NRT_MemInfo_alloc_aligned" in asked:
        allocate = ir.Function(module, ir.FunctionType(POINTER, [WORD]), "malloc")
        function = ir.Function(module, ir.FunctionType(POINTER, [WORD, ir.IntType(32)]), "NRT_MemInfo_alloc_aligned")
        builder = ir.IRBuilder(function.append_basic_block())
        n, align = function.args[0], builder.zext(function.args[1], WORD)
        whole = builder.call(allocate, [builder.add(builder.add(n, align), WORD(size))])
        with builder.if_then(cgutils.is_null(builder, whole), likely=False):
            builder.ret(whole)
        # Up to the next address that is a multiple of the alignment, which is a power of two.
        start = builder.add(builder.ptrtoint(whole, WORD), builder.add(align, WORD(size - 1)))
        start = builder.and_(start, builder.neg(align))
        fields = builder.bitcast(whole, memory.as_pointer())
        nothing = ir.Constant(POINTER, None)
        for k, value in enumerate([WORD(1), nothing, nothing, builder.inttoptr(start, POINTER), n]):
            builder.store(value, cgutils.gep_inbounds(builder, fields, 0, k))
        builder.ret(whole)
    if "NRT_MemInfo_call_dtor" in asked:
        release = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "free")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "NRT_MemInfo_call_dtor")
        builder = ir.IRBuilder(function.append_basic_block())
        builder.call(release, [function.args[0]])
        builder.ret_void()
    if "numba_attempt_nocopy_reshape" in asked:
        _reshape(module)


def _reshape(module: Any) -> None:
    """Strides of an array in C order in another shape; of others, 0 says that there are none."""
    form = [
        WORD,
        WORD.as_pointer(),
        WORD.as_pointer(),
        WORD,
        WORD.as_pointer(),
        WORD.as_pointer(),
        WORD,
        ir.IntType(32),
    ]
    answer = ir.IntType(32)
    function = ir.Function(module, ir.FunctionType(answer, form), "numba_attempt_nocopy_reshape")
    builder = ir.IRBuilder(function.append_basic_block())
    n, sizes, steps, new_n, new_sizes, new_steps, item, fortran = function.args
    expected = cgutils.alloca_once_value(builder, item)
    askew = cgutils.alloca_once_value(builder, builder.icmp_unsigned("!=", fortran, answer(0)))
    with cgutils.for_range(builder, n) as loop:
        k = builder.sub(builder.sub(n, WORD(1)), loop.index)
        size, step = builder.load(builder.gep(sizes, [k])), builder.load(builder.gep(steps, [k]))
        wrong = builder.icmp_signed("!=", step, builder.load(expected))
        wrong = builder.and_(wrong, builder.icmp_signed("!=", size, WORD(1)))
        builder.store(builder.or_(wrong, builder.load(askew)), askew)
        builder.store(builder.mul(builder.load(expected), size), expected)
    with builder.if_then(builder.load(askew)):
        builder.ret(answer(0))
    builder.store(item, expected)
    with cgutils.for_range(builder, new_n) as loop:
        k = builder.sub(builder.sub(new_n, WORD(1)), loop.index)
        builder.store(builder.load(expected), builder.gep(new_steps, [k]))
        builder.store(builder.mul(builder.load(expected), builder.load(builder.gep(new_sizes, [k]))), expected)
    builder.ret(answer(1))
