"""Ends of frames that no daemon heard, in a file that outlives the keeper.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
While no daemon is attached, the keeper appends to `keeper.ended` what it would tell one: the results that it
holds, and each that comes, in one write. A line is a checksum, the id of this boot and the result; it begins
with an end of line, for the former may have been cut short. A daemon that comes when the keeper is gone reads
them, and removes the file once its own spool holds all that it says. As with the spool nothing is flushed to
the disk: lines survive kill -9, and after a power cut the boot is another.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterable

NAME = "keeper.ended"
MOST = 64 << 20  # bytes: a keeper holds about half as much at most
_PRIME = (1 << 61) - 1


class Unheard:
    """The keeper's side."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, NAME)
        self._boot = boot()
        self._fd = -1
        self._kept: set[str] = set()
        self._failing = False

    def keep(self, results: Iterable[str]) -> bool:
        """Append what is not there yet, all or none; whether all is there, or there is no place any more.

        A failure is logged once, until it is over.
        """
        try:
            self._append(results)
        except FileNotFoundError:  # the state directory is gone, and with it who would read this
            return True
        except OSError as error:
            if not self._failing:
                text = f"results are held until {NAME} can be written or a daemon comes: {error.strerror}"
                print(text, file=sys.stderr, flush=True)
            self._failing = True
            return False
        self._failing = False
        return True

    def _append(self, results: Iterable[str]) -> None:
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink:  # a daemon has it all
            os.close(self._fd)
            self._fd = -1
        fresh = [line for line in results if self._fd < 0 or line not in self._kept]
        if not fresh:
            return
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
            self._kept.clear()
        data = b"".join([_framed(self._boot, line) for line in fresh])
        size = os.fstat(self._fd).st_size
        if size + len(data) > MOST:
            raise OSError(errno.EFBIG, f"it has grown to {size >> 20} MB")
        try:
            if os.write(self._fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        self._kept.update(fresh)


def _framed(boot_id: str, line: str) -> bytes:
    body = f"{boot_id} {line}".encode()
    return b"\n%016x %s\n" % (_checksum(body), body)


def _checksum(body: bytes) -> int:
    """Sees what a CRC does, flipped bits and bursts, and needs no module in the keeper."""
    return int.from_bytes(body, "big") % _PRIME


def boot() -> str:
    """The kernel's id of this boot; - where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or "-"
    except OSError:
        return "-"


def read(state_dir: str) -> tuple[list[bytes], int]:
    """The results that stand there, of this boot, and the number of damaged lines; raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(os.path.join(state_dir, NAME), flags)
    except FileNotFoundError:
        return [], 0
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        data = file.read(MOST + 1)
    found, damaged, here = [], 0, boot().encode()
    for line in data.split(b"\n"):
        if line:
            checksum, _, body = line.partition(b" ")
            if checksum != b"%016x" % _checksum(body):
                damaged += 1
                continue
            boot_id, _, result = body.partition(b" ")
            if boot_id == here:
                found.append(result)
    return found, damaged


def remove(state_dir: str) -> None:
    """Remove the file, if it is there; raises OSError."""
    try:
        os.unlink(os.path.join(state_dir, NAME))
    except FileNotFoundError:
        return
