"""The attempts' log files on the slave: where they lie, reading them while they grow, and making room.

Rules: one directory for each job, one file for each attempt. The middle of a large log may be punched
out at any moment (a hole); readers then see one line in its place. Nothing here holds more in
memory than it was asked for.
"""

import errno
import fcntl
import heapq
import os
import stat
import sys
import zlib
from collections.abc import Collection, Iterator

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from drqueue.proto.progress import check_progress_pattern
from drqueue.slave.progress import ProgressParser

#: ioctl numbers of FS_IOC_GETFLAGS and FS_IOC_SETFLAGS on 64 bits, and FS_TOPDIR_FL (linux/fs.h).
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_TOP_FLAG = 0x00020000

__all__ = [
    "ProgressParser",
    "check_progress_pattern",
    "ends",
    "log_path",
    "parse_log_name",
    "purge_logs",
    "read_slice",
    "unpack_ends",
]

LOGS = "logs"
#: Notes on copies of logs that are not complete (see `log_copy`).
COPIES = "copies"
#: What is kept of each end of a log, in bytes.
KEEP = 1 << 16
_PURGE_BATCH = 1000


def log_path(state_dir: str, key: AttemptKey, create: bool = False) -> str:
    """Where an attempt's log lies; `create` makes the directories (0700), not the file. Raises OSError."""
    folder = os.path.join(state_dir, LOGS, str(key.job))
    if create and not os.path.isdir(folder):
        logs = os.path.dirname(folder)
        if not os.path.isdir(logs):
            os.makedirs(logs, mode=0o700, exist_ok=True)
            _spread(logs)
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return os.path.join(folder, log_name(key))


def log_name(key: AttemptKey) -> str:
    """The file's name in its job's folder."""
    return f"{key.layer}.{key.frame}.{key.attempt}.log"


def _spread(folder: str) -> None:
    """Let each folder in this one lie in a part of the disk of its own, as chattr +T does.

    Where many files were removed lately, ext4 takes up to a millisecond to create one (it does not use
    an inode again for minutes, and looks at each); a new job's logs had better lie elsewhere.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        wanted = int.from_bytes(flags[:4], sys.byteorder) | _TOP_FLAG
        fcntl.ioctl(fd, _SET_FLAGS, wanted.to_bytes(4, sys.byteorder))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise
    finally:
        os.close(fd)


def parse_log_name(job: str, name: str) -> AttemptKey | None:
    """The attempt that a file JOB/NAME belongs to, None where it is no log of ours."""
    parts = name.split(".")
    numbers = [job, *parts[:3]]
    if (
        len(parts) != 4
        or parts[3] != "log"
        or not all(part.isdecimal() and part.isascii() for part in numbers)
    ):
        return None
    return AttemptKey(*map(int, numbers))


def read_slice(path: str, offset: int, limit: int) -> tuple[bytes, int, int]:
    """Bytes of a log from `offset` on, where to read on, and the file's size now.

    At most `limit` bytes are read from the file; a line "... N bytes left out ..." may stand before
    them. A negative offset counts from the end; one past the end (the log was cut) gives the end.
    Raises OSError.
    """
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        if offset < 0:
            offset = max(0, size + offset)
        if offset >= size:
            return b"", size, size
        data, following = _read(fd, offset, min(limit, size - offset), size)
        return data, following, size
    finally:
        os.close(fd)


def ends(path: str, keep: int = KEEP) -> LogEnds:
    """The first and last `keep` bytes of a log that has ended, compressed where that makes them smaller."""
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        head = _read_all(fd, 0, min(keep, size))
        tail = _read_all(fd, max(keep, size - keep), size)
    finally:
        os.close(fd)
    packed_head, packed_tail = zlib.compress(head), zlib.compress(tail)
    if len(packed_head) + len(packed_tail) < len(head) + len(tail):
        return LogEnds(size=size, head=packed_head, tail=packed_tail, packed=True)
    return LogEnds(size=size, head=head, tail=tail, packed=False)


def unpack_ends(kept: LogEnds, limit: int = 2 * KEEP) -> tuple[bytes, bytes]:
    """Head and tail as they were; raises ValueError for what does not unpack into `limit` bytes each."""
    if not kept.packed:
        return kept.head, kept.tail
    return _inflate(kept.head, limit), _inflate(kept.tail, limit)


def purge_logs(state_dir: str, keep_bytes: int, keep: Collection[AttemptKey] = frozenset()) -> int:
    """Delete the longest unchanged logs until at most `keep_bytes` of disk are used; bytes freed.

    `keep` names the attempts that are running, being started or not yet reported: their logs stay,
    and so do their jobs' directories. Raises OSError.
    """
    jobs = {str(key.job) for key in keep}
    freed = 0
    while True:
        total = 0
        oldest: list[tuple[int, int, str]] = []
        for changed, used, path, key in _logs(state_dir):
            total += used
            if key in keep:
                continue
            entry = (-changed, used, path)
            if len(oldest) < _PURGE_BATCH:
                heapq.heappush(oldest, entry)
            else:
                heapq.heappushpop(oldest, entry)
        if total <= keep_bytes or not oldest:
            return freed
        for _, used, path in sorted(oldest, reverse=True):
            if total <= keep_bytes:
                break
            os.unlink(path)
            total -= used
            freed += used
            folder = os.path.dirname(path)
            if os.path.basename(folder) not in jobs:
                _remove_if_empty(folder)


def _logs(state_dir: str) -> Iterator[tuple[int, int, str, AttemptKey]]:
    """Every log: when it last changed (ns), bytes of disk, path, attempt."""
    try:
        jobs = os.scandir(os.path.join(state_dir, LOGS))
    except FileNotFoundError:
        return
    with jobs:
        for job in jobs:
            if not job.is_dir(follow_symlinks=False):
                continue
            with os.scandir(job.path) as files:
                for file in files:
                    key = parse_log_name(job.name, file.name)
                    if key is not None:
                        info = file.stat(follow_symlinks=False)
                        yield info.st_mtime_ns, info.st_blocks * 512, file.path, key


def _remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def _open(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a file", path)
    return fd


def _read(fd: int, offset: int, limit: int, size: int) -> tuple[bytes, int]:
    """One piece from `offset` on, a line before it where a hole was skipped; and where to read on."""
    start = offset
    while True:
        start = min(size, _seek(fd, start, os.SEEK_DATA, size))
        data = os.pread(fd, min(limit, size - start), start) if start < size else b""
        if not data:
            break
        # Asked after reading: what was punched out until then is seen as a hole here, never as zeros.
        hole = _seek(fd, start, os.SEEK_HOLE, size)
        if hole > start:
            data = data[: hole - start]
            break
    line = b"\n... %d bytes left out ...\n" % (start - offset) if start > offset else b""
    return line + data, start + len(data)


def _seek(fd: int, offset: int, whence: int, size: int) -> int:
    """Where data or a hole begins at or after an offset, `size` where there is none."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise


def _read_all(fd: int, offset: int, end: int) -> bytes:
    parts = []
    while offset < end:
        data, following = _read(fd, offset, end - offset, end)
        if following == offset:  # the file was cut meanwhile
            break
        parts.append(data)
        offset = following
    return b"".join(parts)


def _inflate(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"a log does not unpack: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("a log does not unpack: it is cut off or too long")
    return found
