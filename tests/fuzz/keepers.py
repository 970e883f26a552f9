"""A keeper, and a daemon's end of its line, that start and kill nothing: what they read is of interest.

Rules: the keeper's files are loaded as a keeper loads them, by path, and forgotten again; what they would
do to the system is looked at (so that a bad path or argument fails as it would) and left undone.
"""

import os
import socket
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import drqueue.slave

_FOLDER = str(Path(drqueue.slave.__path__[0]))
_NAMES = (
    "asking",
    "failpoints",
    "frames",
    "keeper_loop",
    "notes",
    "privileges",
    "proctree",
    "spawning",
    "unheard",
)
#: Where no program is.
_NOWHERE = "/nonexistent/drqueue"


class _System:
    """`os`, but for what changes something."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, *_: object) -> int:
        self.chdir(path)
        return os.open(os.devnull, os.O_WRONLY)

    def chdir(self, path: str) -> None:
        os.path.lexists(path)  # a NUL is no error to it
        if b"\0" in os.fsencode(path):
            raise ValueError("embedded null byte")
        if len(os.fsencode(path)) > 4095:
            raise OSError(36, "File name too long")

    def makedirs(self, path: str, *_: object, **__: object) -> None:
        self.chdir(path)

    def rename(self, old: str, new: str) -> None:
        self.chdir(old)
        self.chdir(new)

    def umask(self, mask: int) -> int:
        assert 0 <= mask <= 0o777
        return 0o022

    def fork(self) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    def posix_spawn(self, program: str, argv: list[str], env: dict[bytes, bytes], **_: object) -> int:
        """Arguments are converted, and the program is not found."""
        self.chdir(program)
        if not argv or b"\0" in b"".join(map(os.fsencode, argv)):
            raise ValueError("embedded null byte")
        for name, value in env.items():
            if not name or b"=" in name or b"\0" in name + value:
                raise ValueError("illegal environment variable name")
        return 4242


class _Nothing:
    """Frames that never were."""

    def __init__(self, _ended: Callable[..., None], _state_dir: str) -> None:
        self.leaders: dict[int, Any] = {}
        self.helpers: set[int] = set()
        self.next_tick = 0.0
        self.signalled = 0

    def __len__(self) -> int:
        return len(self.leaders)

    def add(self, attempt: Any) -> None:
        self.leaders[id(attempt)] = attempt
        attempt.pid = id(attempt)

    def ungroup(self, _attempt: Any) -> None:
        pass

    def help(self, pid: int) -> None:
        self.helpers.add(pid)

    def terminate(self, _attempt: Any) -> None:
        self.signalled += 1

    kill = terminate


@cache
def _loop() -> ModuleType:
    """The keeper's loop, of this process alone."""
    with patch.dict(sys.modules), patch.object(sys, "path", [*sys.path, _FOLDER, os.path.dirname(_FOLDER)]):
        for name in _NAMES:
            sys.modules.pop(name, None)
        import keeper_loop

        loop: ModuleType = keeper_loop
    loop.privileges.keep_to_self = lambda: None
    loop.frames.Frames = _Nothing
    loop.spawning.os = _System()
    loop.spawning.proctree.birth = lambda _pid: 99
    vars(loop)["print"] = lambda *_, **__: None  # its log
    return loop


class Peer:
    """A keeper with one caller; `say` gives what it answers."""

    def __init__(self, state_dir: str) -> None:
        self._loop = _loop()
        self._listener = socket.socket(socket.AF_UNIX)
        self._wake, self._waking = os.pipe()
        self.keeper = self._loop.Keeper(1.0, self._listener, self._wake, state_dir)
        self._ends: list[socket.socket] = []

    def say(self, data: bytes) -> bytes:
        """What a new caller is told for these bytes, in all."""
        near, far = socket.socketpair()
        self._ends.append(near)
        self.keeper.welcome(far)
        fd = far.fileno()
        heard = bytearray()
        near.setblocking(False)
        for at in range(0, len(data), 20_000):
            if fd not in self.keeper.callers:
                break  # it hung up
            near.send(data[at : at + 20_000])
            while fd in self.keeper.callers and self._waits(far):
                self.keeper.serve(self.keeper.callers[fd], 0)
            self._hear(near, heard)
        for attempt in list(self.keeper.frames.leaders.values()):
            attempt.status = 0
            del self.keeper.frames.leaders[attempt.pid]
            self.keeper.ended(attempt, 0)
        self._hear(near, heard)
        return bytes(heard)

    def _waits(self, sock: socket.socket) -> bool:
        try:
            return bool(sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def _hear(self, near: socket.socket, heard: bytearray) -> None:
        while self.keeper.daemon is not None and self.keeper.daemon.out:
            self.keeper.flush(self.keeper.daemon)
            try:
                heard += near.recv(1 << 20)
            except (BlockingIOError, ConnectionError):
                return

    def close(self) -> None:
        """Leave no descriptor behind."""
        keeper = self.keeper
        for caller in list(keeper.callers.values()):
            keeper.drop(caller)
        for attempt in keeper.attempts.values():
            if attempt.log >= 0:
                os.close(attempt.log)
        for fd in keeper.logs._spare.values():
            os.close(fd)
        for fd in (keeper.notes._fd, keeper.unheard._fd):
            if fd >= 0:
                os.close(fd)
        keeper.epoll.close()
        for end in self._ends:
            end.close()
        self._listener.close()
        os.close(self._wake)
        os.close(self._waking)
