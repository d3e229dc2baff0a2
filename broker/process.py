"""What a process that serves many clients sets up for itself, once: open files, garbage collection."""

import gc
import logging

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


def raise_open_files_limit(wanted: int) -> None:
    """Allow as many open files as the system lets us; say so when that is less than `wanted`.

    Every connection is one, and what a shell allows at first is often 1,024.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard not in (resource.RLIM_INFINITY, -1) and hard < wanted:
        logger.info("%d files may be open, at most %d could be: raise `ulimit -n` for so many clients", hard, wanted)


def calm_collector() -> None:
    """Make garbage collections fewer and shorter; call it once everything is started.

    A full one looks at everything alive: beside 10,000 connections it took 55 to 72 ms, in which nobody is served, and
    at Python's thresholds it comes often. What is there at the start stays to the end and need not be looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
