"""A folder in memory for targets that read files, emptied by them and gone with the process."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def folder() -> Path:
    """The folder of this process."""
    shared = "/dev/shm"
    made = tempfile.mkdtemp(prefix="drqueue-fuzz-", dir=shared if os.access(shared, os.W_OK) else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def emptied() -> Path:
    """The folder, with nothing in it."""
    path = folder()
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    return path
