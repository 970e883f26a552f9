"""What both daemons keep about themselves: small JSON files, and the lock on their state directory.

Rules: files are 0600 and directories 0700; a file is replaced whole (temporary file, fsync, rename,
fsync of the directory), so that a crash or a power cut leaves the old or the new one; what cannot be
read, written or understood is a StateError of one sentence, and is never replaced by a default.
"""

import fcntl
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from typing import Never

from drqueue import failpoints

#: A state file is some hundred bytes; anything larger is not one of ours.
MAX_BYTES = 1 << 20

#: Where flock, rename or mmap do not hold what a journal or SQLite needs of them.
REMOTE_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "fuse.sshfs"})

_LOCK_NAME = "lock"
_writing = threading.Lock()


class StateError(Exception):
    """Something in a state directory cannot be used; the text is one sentence for people."""


def read_json(path: str) -> dict[str, object] | None:
    """The object in a state file, None where there is no such file; raises StateError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StateError(f"cannot read {path}: it is not a file")
    with open(fd, "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise StateError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise StateError(f"{path} is damaged: larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is damaged: not JSON; restore it or move it away") from error
    if not isinstance(value, dict):
        raise StateError(f"{path} is damaged: not a JSON object; restore it or move it away")
    return value


def write_json_atomic(path: str, value: Mapping[str, object]) -> None:
    """Replace a state file and return once it is on the disk; raises StateError, the old file then stays."""
    data = json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"
    temporary = f"{path}.new"
    with _writing:
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                with open(fd, "wb") as file:
                    os.fchmod(fd, 0o600)
                    file.write(data)
                    file.flush()
                    os.fsync(fd)
                if failpoints.ACTIVE:
                    failpoints.hit("state-write")
                os.rename(temporary, path)
            except OSError:
                os.unlink(temporary)
                raise
            if failpoints.ACTIVE:
                failpoints.hit("state-renamed")
            sync_dir(os.path.dirname(path))
        except OSError as error:
            raise StateError(f"cannot write {path}: {error.strerror}") from error


def sync_dir(path: str) -> None:
    """Bring a directory's entries to the disk ("" is the working directory); raises OSError."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_state_dir(path: str, what: str) -> int:
    """Make a state directory where it is missing and lock it for a "master" or a "slave".

    Returns the descriptor that holds the lock until it is closed or the process ends. Raises
    StateError: in use (names the pid), remote file system, someone else's or a shared directory.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StateError(f"cannot use state directory {path}: {error.strerror}") from error
    try:
        kind = remote_filesystem(directory)
        if kind is not None:
            raise StateError(f"state directory {path} is on a network file system ({kind}); use a local disk")
        _make_private(path, directory)
        fd = os.open(_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    except OSError as error:
        raise StateError(f"cannot use state directory {path}: {error.strerror}") from error
    finally:
        os.close(directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{what} {os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = _holder(fd, what)
        os.close(fd)
        raise StateError(f"state directory {path} is in use by {holder}") from error
    except OSError as error:
        os.close(fd)
        raise StateError(f"cannot lock state directory {path}: {error.strerror}") from error
    return fd


def remote_filesystem(directory: int, read: Callable[[str], str] | None = None) -> str | None:
    """The type of the file system that an open directory lies on, where it is a network's; else None.

    The kernel names the mount of a descriptor, so no comparing of paths is needed. `read` returns
    a file's text (tests give their own). Unknown, as on a system without /proc, counts as local.
    """
    read = read or _read_text
    try:
        mount = re.search(r"^mnt_id:\s*(\d+)$", read(f"/proc/self/fdinfo/{directory}"), re.MULTILINE)
        mounts = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return None
    for line in mounts:
        fields = line.split(" ")
        if mount is not None and fields[0] == mount[1] and "-" in fields[6:]:
            kind = fields[fields.index("-", 6) + 1]
            return kind if kind in REMOTE_FILESYSTEMS else None
    return None


def _make_private(path: str, directory: int) -> None:
    """Tighten a new or own directory to 0700; a shared folder such as /tmp is refused, never tightened."""
    info = os.fstat(directory)
    if info.st_uid != os.geteuid() and os.geteuid() != 0:
        raise StateError(f"state directory {path} belongs to another user")
    if stat.S_IMODE(info.st_mode) == 0o700:
        return
    names = os.listdir(directory)
    if info.st_mode & stat.S_ISVTX or (names and _LOCK_NAME not in names):
        raise StateError(
            f"{path} holds other files and others may enter it; take an empty folder as state directory"
        )
    os.fchmod(directory, 0o700)


def _holder(fd: int, what: str) -> str:
    """Who holds the lock, as words: "another master, pid 123"."""
    words = os.pread(fd, 100, 0).decode("ascii", "replace").split()
    if len(words) != 2 or not words[1].isdigit():
        return f"another {what}"
    return f"{'another' if words[0] == what else 'a'} {words[0]}, pid {words[1]}"


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")
