"""The keeper's loop: it serves the daemon's requests and tells it what becomes of them.

Standard library only, without `typing`; keeper.py, which describes the protocol, imports it by path.
"""

import json
import os
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from drqueue.slave import frames, spawning
else:  # keeper.py, the only importer, made this folder importable
    import frames
    import spawning

VERSION = 1
MAX_LINE = 8 << 20  # more than the kernel takes as arguments and environment
MAX_UNREAD = 32 << 20  # a daemon that reads nothing is dropped; it learns all of it when it comes back
MAX_HELD = 100_000
MAX_CALLERS = 8
SPARE_FDS = 48
DEAF_S = 0.25

Message = dict[str, object]
_encode = json.JSONEncoder(separators=(",", ":")).encode


class BadMessageError(Exception):
    """The daemon's fault: its connection is closed."""


class Caller:
    """A connection; it becomes the daemon's by greeting."""

    __slots__ = ("out", "received", "sock", "watched")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.out = bytearray()
        self.watched = False  # for room to write


class Keeper:
    """The loop and the connections; `run` returns when it may end."""

    def __init__(self, linger_s: float, listener: socket.socket, wake: socket.socket) -> None:
        self.linger_s = linger_s
        self.attempts: dict[frames.Key, frames.Attempt] = {}
        self.frames = frames.Frames(self.ended)
        self.callers: dict[int, Caller] = {}
        self.daemon: Caller | None = None
        self.idle_since = time.monotonic()
        self.stop_at: float | None = None  # once shutting down: when the killing begins
        self.deaf = False
        self.room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS
        self.wake = wake
        self.listener = listener
        self.epoll = select.epoll()
        self.epoll.register(self.wake.fileno(), select.EPOLLIN)
        self.epoll.register(listener.fileno(), select.EPOLLIN)

    # --- the loop

    def run(self) -> None:
        while True:
            for fd, event in self.epoll.poll(self.patience()):
                if fd == self.wake.fileno():
                    if signal.SIGTERM in self.wake.recv(4096):
                        self.shutdown(0.0)
                    self.frames.reap()
                elif fd == self.listener.fileno():
                    self.accept()
                elif fd in self.callers:
                    self.serve(self.callers[fd], event)
            if self.frames:
                if time.monotonic() >= self.frames.next_tick:
                    self.tick()
            elif self.patience() == 0.0:
                break
            elif self.deaf:
                self.listen()
            if self.daemon is not None and self.daemon.out:
                self.flush(self.daemon)
        if self.daemon is not None:
            self.daemon.sock.settimeout(1.0)
            self.flush(self.daemon)

    def patience(self) -> float:
        """Seconds until something has to be done unasked; -1 for never."""
        if self.frames:
            return max(0.0, self.frames.next_tick - time.monotonic())
        if self.stop_at is not None:
            return 0.0
        if self.daemon is None:
            return max(0.0, self.idle_since + self.linger_s - time.monotonic())
        return DEAF_S if self.deaf else -1.0

    def tick(self) -> None:
        if self.stop_at is not None and time.monotonic() >= self.stop_at:
            for attempt in self.frames.leaders.values():
                attempt.killing = True
        self.frames.tick()
        if not self.frames:
            self.idle_since = time.monotonic()
        if self.deaf:
            self.listen()

    # --- connections

    def listen(self) -> None:
        self.deaf = False
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        except OSError:  # out of descriptors or memory: it would be told again at once, so look away a while
            self.epoll.unregister(self.listener.fileno())
            self.deaf = True
            return
        self.welcome(sock)

    def welcome(self, sock: socket.socket) -> None:
        if len(self.callers) >= MAX_CALLERS:
            self.drop(next(caller for caller in self.callers.values() if caller is not self.daemon))
        sock.setblocking(False)
        self.callers[sock.fileno()] = Caller(sock)
        self.epoll.register(sock.fileno(), select.EPOLLIN)

    def drop(self, caller: Caller) -> None:
        fd = caller.sock.fileno()
        if self.callers.pop(fd, None) is None:
            return
        self.epoll.unregister(fd)
        caller.sock.close()
        if caller is self.daemon:
            self.daemon = None
            self.idle_since = time.monotonic()

    def serve(self, caller: Caller, event: int) -> None:
        if event & select.EPOLLOUT:
            self.flush(caller)
        try:
            data = caller.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, caller.received = (caller.received + data).split(b"\n")
        if not data or len(caller.received) > MAX_LINE:
            self.drop(caller)
            return
        try:
            for line in lines:
                self.obey(caller, line)
        except BadMessageError as error:
            print(f"connection closed: {error}", file=sys.stderr, flush=True)
            self.drop(caller)

    def obey(self, caller: Caller, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadMessageError(f"not JSON: {error}") from None
        if type(message) is not dict:
            raise BadMessageError("not an object")
        if caller is not self.daemon:
            if message.get("v") != VERSION:
                raise BadMessageError(f"no greeting of version {VERSION}")
            self.attach(caller)
            return
        do = message.get("do")
        if do == "launch":
            self.launch(message)
        elif do == "signal":
            self.signal(key_of(message), message.get("kill") is True)
        elif do == "forget":
            self.forget(key_of(message))
        elif do == "shutdown":
            grace = message.get("grace", 0)
            if not isinstance(grace, (int, float)) or not 0 <= grace <= 86400:
                raise BadMessageError("bad grace")
            self.shutdown(float(grace))
        else:
            raise BadMessageError("unknown request")

    def attach(self, caller: Caller) -> None:
        if self.daemon is not None:
            self.drop(self.daemon)
        self.daemon = caller
        self.tell(_encode({"is": "keeper", "v": VERSION, "pid": os.getpid()}))
        for attempt in self.attempts.values():
            self.tell(attempt.line)
        self.tell('{"is":"held"}')

    def tell(self, line: str) -> None:
        if self.daemon is not None:
            self.daemon.out += line.encode() + b"\n"

    def flush(self, caller: Caller) -> None:
        try:
            sent = caller.sock.send(caller.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop(caller)
            return
        del caller.out[:sent]
        if len(caller.out) > MAX_UNREAD:
            self.drop(caller)
        elif bool(caller.out) != caller.watched:
            caller.watched = bool(caller.out)
            mask = select.EPOLLIN | select.EPOLLOUT if caller.watched else select.EPOLLIN
            self.epoll.modify(caller.sock.fileno(), mask)

    # --- requests

    def launch(self, message: Message) -> None:
        key = key_of(message)
        known = self.attempts.get(key)
        if known is not None:
            self.tell(known.line)
            return
        argv, env, cwd, log, cap, umask = launch_fields(message)
        attempt = self.attempts[key] = frames.Attempt(key, cap)
        try:
            if self.stop_at is not None:
                raise spawning.LaunchError(spawning.SPAWN_FAILED, "the keeper is shutting down")
            if len(self.frames) >= self.room or len(self.attempts) > MAX_HELD:
                raise spawning.LaunchError(spawning.SPAWN_FAILED, "the keeper holds too many frames")
            attempt.log = spawning.open_log(log)
            attempt.start = time.time()
            scratch = message.get("scratch") is True
            attempt.pid, attempt.birth = spawning.spawn(argv, env, cwd, attempt.log, umask, scratch)
        except spawning.LaunchError as error:
            if attempt.log >= 0:
                os.close(attempt.log)
                attempt.log = -1
            attempt.line = _encode({"is": "failed", "key": key, "reason": error.reason, "text": error.text})
        else:
            self.frames.add(attempt)
            attempt.line = (
                f'{{"is":"started","key":{[*key]},"pid":{attempt.pid},"birth":{attempt.birth},'
                f'"at":{attempt.start!r}}}'
            )
        self.tell(attempt.line)

    def ended(self, attempt: frames.Attempt, log_size: int) -> None:
        code = os.waitstatus_to_exitcode(attempt.status)
        status = f'"code":{code},"signal":null' if code >= 0 else f'"code":null,"signal":{-code}'
        # All numbers and one fixed word: an encoder would cost ten times as much.
        attempt.line = (
            f'{{"is":"ended","key":{[*attempt.key]},{status},"cpu":{attempt.cpu!r},"peak":{attempt.peak},'
            f'"start":{attempt.start!r},"end":{attempt.end!r},"log":{log_size},"reason":"{attempt.reason}"}}'
        )
        self.tell(attempt.line)
        self.idle_since = time.monotonic()

    def signal(self, key: frames.Key, kill: bool) -> None:
        attempt = self.attempts.get(key)
        if attempt is None or attempt.pid not in self.frames.leaders:
            return  # it ended, or is being ended
        if kill:
            self.frames.kill(attempt)
        else:
            self.frames.terminate(attempt)

    def forget(self, key: frames.Key) -> None:
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.log < 0:
            del self.attempts[key]

    def shutdown(self, grace_s: float) -> None:
        if self.stop_at is None and grace_s:
            for attempt in self.frames.leaders.values():
                self.frames.terminate(attempt)
        self.stop_at = time.monotonic() + grace_s
        self.frames.next_tick = min(self.frames.next_tick, self.stop_at)


def key_of(message: Message) -> frames.Key:
    key = message.get("key")
    if not isinstance(key, list) or len(key) != 4 or any(type(part) is not int for part in key):
        raise BadMessageError("bad key")
    return (key[0], key[1], key[2], key[3])


def launch_fields(message: Message) -> tuple[list[str], dict[str, str], str, str, int, int]:
    argv, env = message.get("argv"), message.get("env")
    cwd, log, cap, umask = (message.get(name) for name in ("cwd", "log", "cap", "umask"))
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise BadMessageError("bad argv")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise BadMessageError("bad env")
    if not isinstance(cwd, str) or not isinstance(log, str):
        raise BadMessageError("bad path")
    if not isinstance(cap, int) or not isinstance(umask, int) or cap <= 0 or not 0 <= umask <= 0o777:
        raise BadMessageError("bad cap or umask")
    return argv, env, cwd, log, cap, umask
