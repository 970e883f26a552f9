"""One attempt's log, copied to where the original DrQueue has it: LOGS/<job>.<name>/<name>.<frame>.

Rules: all this runs in a thread, for the disk copied to may hang. Bytes are noted in a small local file
before they are appended, with the place in the target and how far the log is read then: whoever finds such a
note after kill -9, or after a full disk, appends what did not arrive, so that nothing is lost or doubled. The
note is there from before the command starts until the copy is complete, whatever became of the spool. The
root folder is never made: where it is missing, a shared disk is not mounted.
"""

import errno
import json
import os
import stat
import time
from enum import Enum

import msgspec
from msgspec import Struct

from drqueue.proto.ids import AttemptKey, parse_attempt
from drqueue.proto.model import RunOrder
from drqueue.slave import logs

#: Bytes that are noted and appended at a time, and copied of one log at one look.
CHUNK = 64 * 1024
LOOK_MAX = 1 << 20
#: Bytes of UTF-8 of a job's and a layer's name; with the numbers they fit into the name of a file.
JOB_NAME_MAX = 127
LAYER_NAME_MAX = 63
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Copied(Enum):
    """How a look at a log went."""

    WAITING = "waiting"  # all that is there is copied, more may come
    MORE = "more"  # more is there already
    COMPLETE = "complete"  # the attempt is over, and all of it is copied
    CUT_SHORT = "cut short"  # the log was deleted before all of it was copied


class _Note(Struct, array_like=True):
    """The first line of a note; `data` that goes to `at` follows it. `at` is -1 while nothing was written."""

    path: str
    started_at: float
    at: int = -1
    next: int = 0


def classic_path(root: str, order: RunOrder) -> str:
    """The file for an order's frame. Layers after the first put their name before the number."""
    name = safe_name(order.job_name, JOB_NAME_MAX)
    stem = f"{name}.{safe_name(order.layer_name, LAYER_NAME_MAX)}" if order.key.layer else name
    return os.path.join(root, f"{order.key.job:03d}.{name}", f"{stem}.{order.start:04d}")


def safe_name(text: str, most: int) -> str:
    """A name as part of a file's: "_" for slashes, control characters and a dot at the start, `most` bytes.

    What has no name is called DEFAULT.
    """
    text = "".join(["_" if char == "/" or ord(char) < 32 or ord(char) == 127 else char for char in text])
    if text.startswith("."):
        text = "_" + text[1:]
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore") or "DEFAULT"


class LogCopy:
    """A copy that is being made. `retry_at`: the time (monotonic) before which it is left alone, 0: none."""

    __slots__ = (
        "_log",
        "_next",
        "_note",
        "_noted",
        "_started_at",
        "_state_dir",
        "begun",
        "key",
        "path",
        "retry_at",
    )

    def __init__(self, state_dir: str, key: AttemptKey, path: str, started_at: float) -> None:
        self.key = key
        self.path = path
        self.retry_at = 0.0
        self.begun = False
        self._started_at = started_at
        self._state_dir = state_dir
        self._log = logs.log_path(state_dir, key)
        self._note = note_path(state_dir, key)
        self._next = 0
        #: What the note says was not yet seen to be in the target.
        self._noted = False

    @classmethod
    def begin(cls, state_dir: str, root: str, order: RunOrder) -> "LogCopy":
        """A new copy, noted; OSError where the state directory cannot be written."""
        copy = cls(state_dir, order.key, classic_path(root, order), time.time())
        try:
            copy._keep(-1, 0, b"")
        except FileNotFoundError:
            os.makedirs(os.path.join(state_dir, logs.COPIES), mode=0o700, exist_ok=True)
            copy._keep(-1, 0, b"")
        return copy

    @classmethod
    def resume(cls, state_dir: str, key: AttemptKey) -> "LogCopy | None":
        """The copy that a note tells of, None where it tells of none; OSError."""
        with open(note_path(state_dir, key), "rb") as file:
            note = _parse(file.readline())
        if note is None:
            return None
        copy = cls(state_dir, key, note.path, note.started_at)
        copy._noted = copy.begun = note.at >= 0
        return copy

    def advance(self, over: bool, umask: int) -> Copied:
        """Copy what is new; `over` was asked before. OSError where that cannot be done now: try it again."""
        if self._noted:
            self._append_rest(umask)
        left = LOOK_MAX
        while True:
            try:
                data, following, size = logs.read_slice(self._log, self._next, CHUNK)
            except FileNotFoundError:
                if not over:
                    return Copied.WAITING
                self.forget()
                return Copied.CUT_SHORT if self.begun else Copied.COMPLETE
            if data or not self.begun:
                self._append(data, following, umask)
            self._next = following
            left -= len(data)
            if following >= size:
                break
            if left <= 0:
                return Copied.MORE
        if not over:
            return Copied.WAITING
        self.forget()
        return Copied.COMPLETE

    def forget(self) -> None:
        """No more of it is copied."""
        os.unlink(self._note)

    def _append(self, data: bytes, following: int, umask: int) -> None:
        file = _open(self.path, umask)
        try:
            at = os.fstat(file).st_size
            if not self.begun:
                data = self._header(file, at) + data
            self._keep(at, following, data)
            self.begun = self._noted = True
            _write(file, data)
        finally:
            # A network file system may say only now that there is no room; then the note still stands.
            os.close(file)
        self._noted = False

    def _append_rest(self, umask: int) -> None:
        with open(self._note, "rb") as note_file:
            note, data = _parse(note_file.readline()), note_file.read()
        if note is not None and note.at >= 0:
            file = _open(self.path, umask)
            try:
                _write(file, data[_alike(data, os.pread(file, len(data), note.at)) :])
            finally:
                os.close(file)
            self._next = note.next
        self._noted = False

    def _header(self, file: int, at: int) -> bytes:
        """What stands before each run's output, on a line of its own."""
        lines = ["" if at and os.pread(file, 1, at - 1) != b"\n" else None]
        lines += [f"Log started at {time.ctime(self._started_at)}", f"Computer: {os.uname().nodename}"]
        lines += [f"Log filename: {self.path}", ""]
        text = "".join([f"{line}\n" for line in lines if line is not None])
        return text.encode("utf-8", "surrogateescape")

    def _keep(self, at: int, following: int, data: bytes) -> None:
        """Replace the note, whole or not at all. No fsync: it is for kill -9; a power cut ends the frame."""
        line = json.dumps((self.path, self._started_at, at, following)).encode()
        temporary = f"{self._note}.new"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _write(file, line + b"\n" + data)
        finally:
            os.close(file)
        os.rename(temporary, self._note)


def note_path(state_dir: str, key: AttemptKey) -> str:
    """Where the note on an attempt's copy lies."""
    return os.path.join(state_dir, logs.COPIES, f"{key.job}.{key.layer}.{key.frame}.{key.attempt}")


def unfinished(state_dir: str) -> list[LogCopy]:
    """The copies that a former daemon left unfinished, oldest first; OSError."""
    folder = os.path.join(state_dir, logs.COPIES)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            copy = LogCopy.resume(state_dir, parse_attempt(name.replace(".", "/")))
        except ValueError:
            copy = None  # one that was being written
        if copy is None:
            os.unlink(os.path.join(folder, name))
        else:
            found.append(copy)
    return sorted(found, key=lambda copy: copy._started_at)


def _parse(line: bytes) -> _Note | None:
    try:
        return msgspec.convert(json.loads(line), _Note)
    except ValueError:  # after a power cut
        return None


def _open(path: str, umask: int) -> int:
    """Open the target for appending; its folder is made, the folder above not. OSError."""
    folder, name = os.path.split(path)
    try:
        at = os.open(folder, _FOLDER_FLAGS)
    except FileNotFoundError:
        _make_folder(folder, umask)
        at = os.open(folder, _FOLDER_FLAGS)
    try:
        file = os.open(name, _FLAGS, 0o666 & ~umask, dir_fd=at)
    finally:
        os.close(at)
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a file", path)
    if info.st_size == 0 and info.st_uid == os.geteuid():
        _open_up(file, info, 0o666 & ~umask)
    return file


def _make_folder(folder: str, umask: int) -> None:
    wanted = 0o777 & ~umask
    try:
        os.mkdir(folder, wanted)
    except FileExistsError:  # another slave was faster
        return
    _open_up(folder, os.stat(folder), wanted)


def _open_up(what: str | int, info: os.stat_result, wanted: int) -> None:
    """Others may read it, whatever the daemon's own umask (a service's keeps all to itself)."""
    mode = stat.S_IMODE(info.st_mode)
    if mode & wanted != wanted:
        os.chmod(what, mode | wanted)


def _alike(data: bytes, there: bytes) -> int:
    """How many bytes at the beginning are the same."""
    if there == data:
        return len(data)
    differ = (number for number, (one, other) in enumerate(zip(data, there, strict=False)) if one != other)
    return next(differ, min(len(data), len(there)))


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
