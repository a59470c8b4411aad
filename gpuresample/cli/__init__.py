"""Commands, `resample` and more: `app.py` has them all.

Exit codes, of all commands:

- 0: done.
- 1: failed: a file that is missing, unreadable, damaged or in the way, no usable device, no memory, a result
  outside the numeric contract (`demo`, `verify`), or a volume of a `batch` that failed.
- 2: bad arguments: the command as it was typed cannot work. Nothing was read beyond headers, nothing computed.
- 130: interrupted by Ctrl-C.

Whatever the code, an output file is there whole or not at all. Errors are one line on stderr; `--debug`, anywhere
on the line, adds the traceback; `--data-anywhere` lets headers name data files outside their folder.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence

# Nothing that takes time to load: a Ctrl-C before `main` listens is a traceback.
from gpuresample import texts

_EXTRA = ("typer", "click", "rich", "matplotlib", "jinja2")
_INSTALL = 'pip install "gpuresample[cli]"'
_ANYWHERE = "--data-anywhere"
# New objects after which Python looks for cycles: more than all that is imported for one volume.
_OBJECTS = 200_000
_BATCH = ("dask", "distributed", "cryptography")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of this process unless given.

    Returns
    -------
    int
        The exit code.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    anywhere = _ANYWHERE in args
    # With nothing to do, say what could be done.
    args = [a for a in args if a not in ("--debug", _ANYWHERE)] or ["--help"]
    try:
        with _any_text(), _rare_collections():
            if anywhere:
                from gpuresample.files import detached

                os.environ[detached.ANYWHERE] = "1"  # workers of a batch on this machine see it, too
            return _run(args)
    except KeyboardInterrupt:
        return _stopped(130, "interrupted")
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _stopped(*_explained(error))


@contextlib.contextmanager
def _any_text() -> Iterator[None]:
    """Text that the output has no letters for, such as a file's name, is shown by numbers: it is no error."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper) and s.errors == "strict"]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in streams:
            stream.reconfigure(errors="strict")


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Python looks for cycles less often: modules, SimpleITK's above all, make very many objects."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(args: list[str]) -> int:
    """The exit code of a command; warnings are shown after it, as stderr may be put aside while it reads."""
    from gpuresample.cli.app import app

    with warnings.catch_warnings(record=True) as caught:
        try:
            code = app(args)(args, prog_name="gpuresample", standalone_mode=False)
        finally:
            # A job looks at headers before it reads, and what it warns of then it may warn of again.
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                _say(f"warning: {message}")
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> tuple[int, str]:
    """Exit code and message of an exception."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] in _EXTRA + _BATCH:
        missing = error.name.split(".")[0]
        what, extra = ("batches need", "batch") if missing in _BATCH else ("the command line needs", "cli")
        return 2, f'{what} {missing}: pip install "gpuresample[{extra}]"'
    if type(error).__name__ == "Abort":
        return 130, "interrupted"
    # Usage errors are click's in older releases of typer and typer's own in newer ones; both can do this.
    if hasattr(error, "format_message"):
        return 2, str(error.format_message())
    if isinstance(error, (ValueError, TypeError, ModuleNotFoundError)):
        return 2, str(error)
    if isinstance(error, MemoryError):
        return 1, f"not enough memory: {error}" if str(error) else "not enough memory"
    if isinstance(error, OSError) and str(error).startswith("[Errno") and error.filename is not None:
        return 1, f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, (OSError, RuntimeError)):
        return 1, str(error)
    return 1, f"unexpected {type(error).__name__}: {error} (please report it, with what --debug adds)"


def _stopped(code: int, message: str) -> int:
    _say(f"error: {message}")
    return code


def _say(message: str) -> None:
    """One line on stderr, without rich: that may be what is missing."""
    print(texts.printable(" ".join(message.split())), file=sys.stderr)  # noqa: T201
