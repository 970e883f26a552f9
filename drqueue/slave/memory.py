"""Memory that is free here, given back to the machine: what a slave does not hold is for frames."""

import ctypes
import gc
import linecache

_C = ctypes.CDLL(None)


def settle() -> None:
    """Drop what only the start needed, so that the work to come finds room; takes some 20 ms."""
    # The sources of methods that were made by the libraries while they were loaded.
    linecache.clearcache()
    gc.collect()
    give_back()


def give_back() -> None:
    """Hand back the C library's free memory, where it is one that can; takes well below a millisecond."""
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(0)
