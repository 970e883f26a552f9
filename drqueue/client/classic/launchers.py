"""A folder of small launchers, for people who want the tools under their bare names on their PATH.

Rule: only what is one of ours is ever written over; nobody's own `requeue` is lost.
"""

import os
import shlex
import sys

from drqueue.client.classic import TOOLS

_MARK = "# A launcher that `drqueue classic install` wrote; the next one may replace it."


class NotOurs(Exception):  # noqa: N818  (reads as what it says)
    """A file by a tool's name is somebody else's; the text says which."""


def install(folder: str) -> list[str]:
    """Write a launcher for each tool into the folder, which is made; returns their paths.

    NotOurs, before anything is written, where one would replace a file that is none; OSError.
    """
    os.makedirs(folder, exist_ok=True)
    paths = {tool: os.path.join(folder, tool) for tool in TOOLS}
    for path in paths.values():
        if os.path.lexists(path) and not _is_ours(path):
            raise NotOurs(f"{path} is there and was not written by this command: move it away first")
    for tool, path in paths.items():
        _write(path, _launcher(tool))
    return list(paths.values())


def _launcher(tool: str) -> str:
    # Not a #! line of Python's: those can neither be long nor hold blanks. -P: a drqueue.py that lies in the
    # current folder is not meant.
    return f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(sys.executable)} -P -m drqueue classic {tool} "$@"\n'


def _is_ours(path: str) -> bool:
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return _MARK.encode() in file.read(4096).splitlines()[:3]


def _write(path: str, text: str) -> None:
    # Renamed into place: a launcher that runs just now is read to its end.
    draft = f"{path}.{os.getpid()}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
