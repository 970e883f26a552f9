"""The files that an attempt promised: their names, and whether it really wrote them.

Rules: several renderers exit 0 without having rendered, so the files decide. A file counts as written
when it is there, not empty, and other than what lay there before the start (inode, size, mtime);
clocks are never compared. A PNG must be whole.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from drqueue.proto.placeholders import Place, parse_output

#: What is remembered of a file: inode, size, time of change in ns. None: there was none.
Stamp = tuple[int, int, int] | None


def expand_output(
    pattern: str, members: Sequence[int], fields: Mapping[str, object] | None = None, cwd: str = ""
) -> list[str]:
    """The files that a pattern stands for, each once, in the order of the frame numbers `members`.

    The number is `{frame}` or `{frame:04d}`, else `%04d` or `%d`, else the last run of `#` (as many
    digits); where none of them stands, all members share one file. `{name}` is a field, `{{` a brace.
    Relative names are of `cwd`. Raises ValueError with a sentence.
    """
    pieces = parse_output(pattern, fields or {})
    names = dict.fromkeys(
        os.path.join(cwd, "".join(_piece(piece, number) for piece in pieces)) for number in members
    )
    return list(names)


def _piece(piece: str | Place, number: int) -> str:
    return piece if isinstance(piece, str) else _padded(number, *piece)


def _padded(number: int, style: str, width: int) -> str:
    if style == "#":  # as Blender's: the digits are counted, a minus sign is not
        return f"{'-' if number < 0 else ''}{abs(number):0{width}d}"
    return f"{number:{style}{width or ''}d}"


def snapshot(paths: Iterable[str]) -> dict[str, Stamp]:
    """What lies at these places before the start; what cannot be looked at counts as not there."""
    return {path: _stamp(path) for path in paths}


def verify(paths: Sequence[str], before: Mapping[str, Stamp]) -> str | None:
    """One sentence on the first file that is not as it should be after exit 0, None when all are well."""
    for path in paths:
        wrong = _wrong(path, before.get(path))
        if wrong is not None:
            return f"output {path} {wrong}"
    return None


def _wrong(path: str, before: Stamp) -> str | None:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(info.st_mode):
        return "is not a file"
    if info.st_size == 0:
        return "is empty"
    if (info.st_ino, info.st_size, info.st_mtime_ns) == before:
        return "is the same file as before the start"
    if path.lower().endswith(".png"):
        from drqueue import png  # only pictures of this kind pay for it

        try:
            wrong = png.check(path)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if wrong is not None:
            return f"is not a whole PNG: {wrong}"
    return None


def _stamp(path: str) -> Stamp:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_ino, info.st_size, info.st_mtime_ns)
