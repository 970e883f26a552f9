"""Memory that is free here, given back to the machine: what a slave does not hold is for frames."""

import ctypes

_C = ctypes.CDLL(None)


def give_back() -> None:
    """Hand back the C library's free memory, where it is one that can; takes well below a millisecond."""
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(0)
