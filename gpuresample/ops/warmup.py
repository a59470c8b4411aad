"""Kernels compiled now, so that no later call waits for a compiler."""

from __future__ import annotations

from gpuresample.checks import whole
from gpuresample.engines.cpu import ahead
from gpuresample.engines.threads import MOST_THREADS, cores

PROCESSES = f"a whole number from 1 to {MOST_THREADS}"


def warmup(*, processes: int | None = None) -> int:
    """Compile the CPU engine's kernels for common voxel types, as far as this machine does not have them yet.

    What the package brought compiled for this processor is there; then nothing is left to do. Other kernels are
    compiled once for a machine and kept. Where one is not there when it is first called, that call waits for
    some seconds. So run this once: in the build of a container's image, say. It takes some minutes on 2 cores. Other
    voxel types still compile when they are first called. `gr.doctor()` tells what is there.

    Parameters
    ----------
    processes : int, optional
        So many compile at once, each with some 300 MB; as many as there are cores if not given.

    Returns
    -------
    int
        How many kernels were compiled now.

    Raises
    ------
    ValueError, TypeError
        If `processes` is not a whole number from 1 to 4096.
    RuntimeError
        If compiled code cannot be kept: then every process compiles for itself.

    Examples
    --------
    >>> import gpuresample as gr
    >>> gr.warmup()  # doctest: +SKIP
    147
    """
    n = cores() if processes is None else whole("processes", processes, PROCESSES, most=MOST_THREADS)
    left, done = ahead.build(n)
    if done < left:
        raise RuntimeError(
            f"{left - done} of {left} kernels could not be compiled or kept; gpuresample.doctor() says which folder is "
            f"written to"
        )
    return done
