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
    from drqueue import failpoints
    from drqueue.slave import cgroups, frames, notes, privileges, spawning, unheard
else:  # keeper.py, the only importer, made this folder and its parent importable
    import cgroups
    import failpoints
    import frames
    import notes
    import privileges
    import spawning
    import unheard

VERSION = 1
MAX_LINE = 8 << 20  # more than the kernel takes as arguments and environment
MAX_UNREAD = 32 << 20  # a daemon that reads nothing is dropped; it learns all of it when it comes back
MAX_HELD = 100_000
MAX_CALLERS = 8
MAX_HELPERS = 64
SPARE_FDS = 48
DEAF_S = 0.25
KEEP_AGAIN_S = 2.0  # between tries to write down results that would be lost with the keeper
# A start is told after this time, with those that came meanwhile. Of what ended before only the end is told.
STARTED_AFTER_S = 0.05
# While frames run whose starts are not told, ends are held back for so long, and for this share of what the
# first of them took: to wake the daemon, and a master after it, costs several times what an end does.
MORE_AFTER_S, MORE_SHARE = 0.002, 0.25
# Larger buffers are mapped and unmapped anew for each read.
READ_SIZE = 1 << 16
SIGNAL_SIZE = 128  # of one signalfd_siginfo, which begins with the number

Message = dict[str, object]
Common = tuple[list[str], str, int, int, bool, bool, cgroups.Limits | None]
BRIEF = {"do", "key", "env", "log"}  # all that a launch says where the base says the rest
FS_ENCODING, FS_ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_encode = json.JSONEncoder(separators=(",", ":")).encode
# Without `decode`, which looks for white space around a value with two regular expressions.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class BadMessageError(Exception):
    """The daemon's fault: its connection is closed."""


class Caller:
    """A connection; it becomes the daemon's by greeting."""

    __slots__ = ("base", "base_bytes", "base_env", "common", "out", "received", "sock", "watched")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.out = bytearray()
        self.base: Message = {}  # what launches leave out
        self.base_env: dict[str, str] = {}  # under their environments, as text and encoded
        self.base_bytes: dict[bytes, bytes] = {}
        self.common: Common | None = None  # of the base, once it was looked at
        self.watched = False  # for room to write


class Keeper:
    """The loop and the connections; `run` returns when it may end."""

    def __init__(self, linger_s: float, listener: socket.socket, wake: int, state_dir: str) -> None:
        self.linger_s = linger_s
        self.changes_users = privileges.may_change_users()
        privileges.keep_to_self()
        self.notes = notes.Notes(state_dir)
        self.unheard = unheard.Unheard(state_dir)
        self.attempts: dict[frames.Key, frames.Attempt] = {}
        self.frames = frames.Frames(self.ended, state_dir)
        self.logs = spawning.Logs()
        self.untold: dict[frames.Key, float] = {}  # starts in their order, and when they are to be told
        self.flush_at = 0.0  # what is to be told need not leave before, where it is of ends alone
        self.tell_at = 0.0  # not after the first of them
        self.callers: dict[int, Caller] = {}
        self.daemon: Caller | None = None
        self.idle_since = time.monotonic()
        self.stop_at: float | None = None  # once shutting down: when the killing begins
        self.deaf = False
        self.room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS
        self.wake = wake
        self.listener = listener
        self.epoll = select.epoll()
        self.epoll.register(wake, select.EPOLLIN)
        self.epoll.register(listener.fileno(), select.EPOLLIN)

    # --- the loop

    def run(self) -> None:
        while True:
            for fd, event in self.epoll.poll(self.patience()):
                if fd == self.wake:
                    numbers = memoryview(os.read(fd, 64 * SIGNAL_SIZE)).cast("I")[:: SIGNAL_SIZE // 4]
                    if signal.SIGTERM in numbers:
                        self.shutdown(0.0)
                    self.frames.reap()
                elif fd == self.listener.fileno():
                    self.accept()
                elif fd in self.callers:
                    self.serve(self.callers[fd], event)
            if self.frames:
                now = time.monotonic()
                if now >= self.frames.next_tick:
                    self.tick()
                if self.untold and now >= self.tell_at:
                    self.tell_starts(now)
            elif self.patience() == 0.0:
                if self.stop_at is not None or self.keep():
                    break
                self.idle_since = time.monotonic() + KEEP_AGAIN_S - self.linger_s
            elif self.deaf:
                self.listen()
            if self.daemon is not None and self.daemon.out and not self.awaits_more():
                self.flush(self.daemon)
        if self.daemon is not None:
            self.daemon.sock.settimeout(1.0)
            self.flush(self.daemon)
        self.frames.close()

    def patience(self) -> float:
        """Seconds until something has to be done unasked; -1 for never."""
        if self.frames:
            at = self.frames.next_tick
            if self.untold:
                held_back = self.daemon is not None and self.daemon.out
                at = min(at, self.tell_at, self.flush_at if held_back else at)
            return max(0.0, at - time.monotonic())
        if self.stop_at is not None:
            return 0.0
        if self.daemon is None:
            return max(0.0, self.idle_since + self.linger_s - time.monotonic())
        return DEAF_S if self.deaf else -1.0

    def awaits_more(self) -> bool:
        """Whether what is to be told are ends alone, and others are likely to follow at once."""
        return bool(self.untold) and time.monotonic() < self.flush_at

    def tick(self) -> None:
        if self.stop_at is not None and time.monotonic() >= self.stop_at:
            for attempt in self.frames.leaders.values():
                attempt.killing = True
            for pid in self.frames.helpers:
                os.kill(pid, signal.SIGKILL)  # not reaped yet: the number is still its own
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
            self.keep()

    def keep(self) -> bool:
        """Leave what is held to a daemon that comes later; False where it would be lost with this keeper."""
        held, stopping = self.attempts.values(), self.stop_at is not None
        # How a frame ends that is killed with the keeper is not its own doing.
        return self.unheard.keep([a.line for a in held if a.line and not (stopping and a.killing)])

    def serve(self, caller: Caller, event: int) -> None:
        if event & select.EPOLLOUT:
            self.flush(caller)
        try:
            data = caller.sock.recv(READ_SIZE)
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
            text = line.decode()
            message, end = _scan(text, 0)
        except (ValueError, RecursionError, StopIteration) as error:
            raise BadMessageError(f"not JSON: {error}") from None
        if end != len(text):
            raise BadMessageError("more than one value in a line")
        if type(message) is not dict:
            raise BadMessageError("not an object")
        if caller is not self.daemon:
            if message.get("v") != VERSION:
                raise BadMessageError(f"no greeting of version {VERSION}")
            self.attach(caller)
            return
        do = message.get("do")
        if do == "launch":
            self.launch(caller, message, None)
        elif do == "launch-as":
            self.launch(caller, message, user_of(message))
        elif do == "base":
            caller.base, caller.base_env, caller.common = message, environment_of(message), None
            caller.base_bytes = encoded(caller.base_env)
        elif do == "remove-as":
            self.remove(message, user_of(message))
        elif do == "signal":
            self.signal(key_of(message), message.get("kill") is True)
        elif do == "forget":
            keys = message.get("keys")
            for each in [message] if not isinstance(keys, list) else [{"key": key} for key in keys]:
                self.forget(key_of(each))
        elif do == "shutdown":
            grace = message.get("grace", 0)
            if not isinstance(grace, (int, float)) or not 0 <= grace <= 86400:
                raise BadMessageError("bad grace")
            self.shutdown(float(grace))
        elif do == "ping":
            self.tell('{"is":"pong"}')
        else:
            raise BadMessageError("unknown request")

    def attach(self, caller: Caller) -> None:
        if self.daemon is not None:
            self.drop(self.daemon)
        self.daemon = caller
        greeting = {
            "is": "keeper",
            "v": VERSION,
            "pid": os.getpid(),
            "users": self.changes_users,
            "bases": True,
            "pings": True,
        }
        self.tell(_encode(greeting))
        # Before anything is started: a keeper that is killed later is known to have been one.
        self.flush(caller)
        for attempt in self.attempts.values():
            self.tell(line_of(attempt))
        self.untold.clear()
        self.tell('{"is":"held"}')

    def tell_starts(self, now: float) -> None:
        while self.untold:
            key, self.tell_at = next(iter(self.untold.items()))
            if self.tell_at > now:
                break
            del self.untold[key]
            self.tell(line_of(self.attempts[key]))

    def tell(self, line: str) -> None:
        if self.daemon is not None:
            self.daemon.out += line.encode() + b"\n"
            self.flush_at = 0.0

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

    def launch(self, caller: Caller, message: Message, user: privileges.User | None) -> None:
        key = key_of(message)
        known = self.attempts.get(key)
        if known is not None:
            self.tell(line_of(known))
            return
        env, log = environment_of(message if "env" in message else caller.base), message.get("log")
        if not isinstance(log, str):
            raise BadMessageError("bad path")
        if user is None and len(message) == len(BRIEF) and message.keys() == BRIEF:
            if caller.common is None:
                caller.common = common_of(caller.base)
            common = caller.common
        else:
            common = common_of({**caller.base, **message})
        argv, cwd, cap, umask, scratch, again, limits = common
        whole = caller.base_bytes | encoded(env) if user is None else {}
        attempt = self.attempts[key] = frames.Attempt(key, cap, user)
        try:
            if self.stop_at is not None:
                raise spawning.LaunchError(spawning.SPAWN_FAILED, "the keeper is shutting down")
            if len(self.frames) >= self.room or len(self.attempts) > MAX_HELD:
                raise spawning.LaunchError(spawning.SPAWN_FAILED, "the keeper holds too many frames")
            attempt.log, attempt.path = self.logs.open(log), log
            # Another user's frame may have handed its log to somebody who is still there.
            attempt.again = user is None and again
            attempt.start = time.time()
            if limits is not None:
                self.frames.group(attempt, limits)
            if user is None and attempt.group is None:
                attempt.pid, attempt.birth = spawning.spawn(argv, whole, cwd, attempt.log, umask, scratch)
            else:
                note = None if user is None else (self.notes.ready(), attempt.mark)
                whole_env, group = caller.base_env | env, attempt.group
                attempt.pid, attempt.birth = spawning.spawn_as(
                    user, argv, whole_env, cwd, attempt.log, umask, scratch, note, group
                )
        except spawning.LaunchError as error:
            self.frames.ungroup(attempt)
            if attempt.log >= 0:
                os.close(attempt.log)
                attempt.log = -1
            attempt.line = _encode({"is": "failed", "key": key, "reason": error.reason, "text": error.text})
            self.tell(attempt.line)
        else:
            if failpoints.ACTIVE:
                failpoints.hit("frame-spawned")
            self.frames.add(attempt)
            tell_at = self.untold[key] = time.monotonic() + STARTED_AFTER_S
            if len(self.untold) == 1:
                self.tell_at = tell_at

    def remove(self, message: Message, user: privileges.User) -> None:
        """Have trees removed; whoever asked looks again later, so that a failure needs no answer."""
        paths = message.get("paths")
        if not isinstance(paths, list) or not all(
            isinstance(path, str) and path[:1] == "/" for path in paths
        ):
            raise BadMessageError("bad paths")
        if self.stop_at is not None or len(self.frames.helpers) >= MAX_HELPERS or not paths:
            return
        try:
            self.frames.help(spawning.remove_as(user, paths))
        except spawning.LaunchError as error:
            print(f"nothing can be removed: {error.text}", file=sys.stderr, flush=True)

    def ended(self, attempt: frames.Attempt, log_size: int) -> None:
        if failpoints.ACTIVE:
            failpoints.hit("frame-reaped")
        self.logs.close(attempt.path, attempt.log, attempt.again and not log_size)
        attempt.log = -1
        self.untold.pop(attempt.key, None)
        code = os.waitstatus_to_exitcode(attempt.status)
        status = f'"code":{code},"signal":null' if code >= 0 else f'"code":null,"signal":{-code}'
        # All numbers and one fixed word: an encoder would cost ten times as much.
        attempt.line = (
            f'{{"is":"ended","key":{[*attempt.key]},{status},"cpu":{attempt.cpu!r},"peak":{attempt.peak},'
            f'"start":{attempt.start!r},"end":{attempt.end!r},"log":{log_size},"reason":"{attempt.reason}"}}'
        )
        now = time.monotonic()
        if self.daemon is None or self.daemon.out:
            due = self.flush_at
        else:
            due = now + min(MORE_AFTER_S, MORE_SHARE * max(0.0, attempt.end - attempt.start))
        self.tell(attempt.line)
        if self.daemon is None:
            self.keep()
        self.flush_at = due
        self.idle_since = now

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
            if failpoints.ACTIVE:
                failpoints.hit("frame-forgotten")
            del self.attempts[key]

    def shutdown(self, grace_s: float) -> None:
        if self.stop_at is None and grace_s:
            for attempt in self.frames.leaders.values():
                self.frames.terminate(attempt)
        self.stop_at = time.monotonic() + grace_s
        self.frames.next_tick = min(self.frames.next_tick, self.stop_at)


def line_of(attempt: frames.Attempt) -> str:
    """What a daemon is told of an attempt now."""
    return attempt.line or (
        f'{{"is":"started","key":{[*attempt.key]},"pid":{attempt.pid},"birth":{attempt.birth},'
        f'"at":{attempt.start!r}}}'
    )


def key_of(message: Message) -> frames.Key:
    key = message.get("key")
    if type(key) is not list or len(key) != 4 or [*map(type, key)] != [int] * 4:
        raise BadMessageError("bad key")
    return (key[0], key[1], key[2], key[3])


def user_of(message: Message) -> privileges.User:
    user = message.get("as")
    if not isinstance(user, list) or len(user) != 3 or not isinstance(user[2], list):
        raise BadMessageError("bad user")
    uid, gid, groups = user
    if any(type(number) is not int or not 0 <= number < 0xFFFFFFFF for number in (uid, gid, *groups)):
        raise BadMessageError("bad user")
    return uid, gid, tuple(groups)


def environment_of(message: Message) -> dict[str, str]:
    env = message.get("env")
    if not isinstance(env, dict) or not set(map(type, env.values())) <= {str}:
        raise BadMessageError("bad env")
    return env


def encoded(env: dict[str, str]) -> dict[bytes, bytes]:
    """As the system takes it, which is as os.fsencode has it; text would be encoded anew at each start."""
    try:
        return {
            name.encode(FS_ENCODING, FS_ERRORS): value.encode(FS_ENCODING, FS_ERRORS)
            for name, value in env.items()
        }
    except UnicodeEncodeError:
        raise BadMessageError("bad env") from None


def common_of(message: Message) -> Common:
    """What launches of one layer have in common: argv, cwd, cap, umask, scratch, again, limits."""
    argv = message.get("argv")
    cwd, cap, umask = (message.get(name) for name in ("cwd", "cap", "umask"))
    if not isinstance(argv, list) or set(map(type, argv)) != {str}:
        raise BadMessageError("bad argv")
    if not isinstance(cwd, str):
        raise BadMessageError("bad path")
    if not isinstance(cap, int) or not isinstance(umask, int) or cap <= 0 or not 0 <= umask <= 0o777:
        raise BadMessageError("bad cap or umask")
    scratch, again = message.get("scratch") is True, message.get("again") is True
    return argv, cwd, cap, umask, scratch, again, limits_of(message.get("group"))


def limits_of(given: object) -> cgroups.Limits | None:
    """Of the cgroup that is wanted; None where none is."""
    if given is None:
        return None
    if type(given) is not list or [*map(type, given)] != [int, int] or min(given) < 0:
        raise BadMessageError("bad group")
    return given[0], given[1]
