"""Compiled code kept on disk, for the processes to come. It only ever helps: no call fails for it, or waits for it.

Numba's own cache has an index for each function, which many processes rewrite, and trusts what it reads. Here every
compiled version of a function is a file of its own, named by what it was compiled for, put there whole or not at all:
writers need no lock. A checksum stands before the content. What is damaged, old or in another form counts as not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import uuid
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.serialize import dumps

DIGEST_BYTES = 32


class _Said:
    unsaved = False  # that code cannot be kept, by this process


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


class CodeCache(FunctionCache):  # type: ignore[misc]  # a type checker does not see Numba
    """The cache of one compiled function, where Numba puts it (`NUMBA_CACHE_DIR`, `__pycache__` or the home)."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.reason = ""  # why nothing can be kept
        try:
            super().__init__(function)
        except RuntimeError:  # Numba's, which names one function and one file of many
            self.reason = "there is no folder for it that may be written"
        except Exception as error:  # no source file, no home
            self.reason = str(error)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The function compiled for these types, if a former process kept it; None if not."""
        if self.reason:
            return None
        target_context.refresh()
        try:
            key = self._index_key(sig, target_context.codegen())
            content = self.path(key).read_bytes()
            if _digest(content[DIGEST_BYTES:]) != content[:DIGEST_BYTES]:
                return None
            made_of, made_for, code = pickle.loads(content[DIGEST_BYTES:])
            return self._impl.rebuild(target_context, code) if (made_of, made_for) == (self.stamp, key) else None
        except Exception:  # not there, not ours, not readable: it is compiled anew
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; where that fails, say so once and go on."""
        try:
            if self.reason:
                raise OSError(self.reason)
            if not self._impl.check_cachable(data):
                return
            self._impl.locator.ensure_cache_path()
            key = self._index_key(sig, data.codegen)
            content = dumps((self.stamp, key, self._impl.reduce(data)))
            self._write(self.path(key), _digest(content) + content)
        except Exception as error:  # a full disk, a folder gone, no right to write
            _say_unsaved(error)

    def flush(self) -> None:
        """Forget nothing: what is stale is not loaded, and the next save replaces it."""

    def path(self, key: Any) -> Path:
        """Where the version for a key is kept."""
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return Path(self.cache_path, f"{self._impl.filename_base}.{name}.nbc")

    @cached_property
    def stamp(self) -> tuple[str, str]:
        """What compiled code is made of: Numba, and the files of all functions that went into it."""
        files, seen, left = {__file__}, set(), [self.function]
        while left:
            function = left.pop()
            seen.add(function)
            files.add(function.__code__.co_filename)
            for name in function.__code__.co_names:
                called = function.__globals__.get(name)
                if isinstance(called, _Intrinsic):
                    files.add(called._defn.__code__.co_filename)
                elif isinstance(called, Dispatcher) and called.py_func not in seen:
                    left.append(called.py_func)
        contents = [_digest(Path(file).read_bytes()).hex() for file in sorted(files)]
        return numba.__version__, "".join(contents)

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            part.write_bytes(content)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def _say_unsaved(error: Exception) -> None:
    if not _Said.unsaved:
        _Said.unsaved = True
        warnings.warn(
            f"compiled code cannot be kept ({error}): each new process compiles again, some seconds for a kernel. "
            "Set NUMBA_CACHE_DIR to a folder that you may write",
            RuntimeWarning,
            stacklevel=2,
        )
