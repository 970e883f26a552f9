"""The daemon's side of the keeper: it starts one, speaks with it, and finds the frames again without one.

Rules of this file: `launch`, `signal_tree`, `forget` and `flush` never wait; whoever issues them calls
`flush` once after the batch, or nothing leaves. Events go to `deliver`, which must not call back into the
supervisor. What a keeper holds outlives this object: cancelling `run` ends no frame, only `shutdown` does.

A keeper of an earlier start may not be able to change users. Frames that need that wait until all that it
runs has ended; then it is sent away, and another is started.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter

import msgspec
import trio

from drqueue import failpoints
from drqueue.proto.ids import AttemptKey
from drqueue.slave import keeper_health
from drqueue.slave.core.processes import (
    SPAWN_FAILED,
    Launch,
    LaunchFailed,
    ProcessEnded,
    ProcessEvent,
    ProcessStarted,
)
from drqueue.slave.keeper_ends import KeeperEnds
from drqueue.slave.keeper_link import Link, connect, is_locked, last_words, reap, start
from drqueue.slave.orphanage import Orphanage
from drqueue.slave.orphans import Orphan, find_orphans, is_kept, unborn

log = logging.getLogger(__name__)

VERSION = 1
MAX_UNSENT = 64 << 20  # what a keeper that reads nothing may owe; beyond, launches fail
FORGET_AT_ONCE = 64  # so many ends are forgotten in a message of their own, fewer with the next order
RECV_SIZE = 1 << 16  # a larger buffer is mapped and unmapped anew for each read
ATTACH_PATIENCE_S = 15.0
POLL_S = 0.05
UNBORN_S = 15.0  # how long a dead keeper's child may take to become a command
STUCK = "no frame can be started: the keeper, or a start of its, hangs in the kernel, and nothing ends it"

Where = tuple[int, int] | None  # process id and birth; None while nothing but the key is known


class _Greeting(msgspec.Struct, tag="keeper", tag_field="is"):
    v: int
    pid: int
    users: bool = False
    bases: bool = False
    pings: bool = False


class _Held(msgspec.Struct, tag="held", tag_field="is"):
    pass


class _Pong(msgspec.Struct, tag="pong", tag_field="is"):
    pass


#: What launches of one layer have in common, or most of it, as the keeper and as `Launch` call it.
COMMON = ("argv", "cwd", "umask", "cap", "scratch", "again", "group")
_common = attrgetter("argv", "cwd", "umask", "log_cap", "scratch", "reuse_log", "group")
_Report = _Greeting | _Held | _Pong | ProcessStarted | LaunchFailed | ProcessEnded
_decoder: msgspec.json.Decoder[_Report] = msgspec.json.Decoder(_Report)
_encoder = msgspec.json.Encoder()


class Supervisor:
    """One slave's frames, whoever holds them: the keeper, or nobody any more.

    `linger_s` is how long a keeper outlives its last frame without a daemon. Events that came together are
    delivered within `together`.
    """

    def __init__(
        self,
        state_dir: str,
        deliver: Callable[[ProcessEvent], None],
        *,
        linger_s: float = 60.0,
        together: AbstractContextManager[None] | None = None,
    ) -> None:
        self._state_dir = os.path.abspath(state_dir)
        self._deliver = deliver
        self._together = nullcontext() if together is None else together
        self._linger_s = linger_s
        self._sock: socket.socket | None = None
        self._out = bytearray()
        self._forgotten: list[AttemptKey] = []
        self._draining = False
        self._held: dict[AttemptKey, Where] = {}  # running under the keeper, or on its way there
        self._lost: dict[AttemptKey, Where] = {}  # believed to run, not yet found
        self._late: dict[AttemptKey, bool] = {}  # signals for the lost
        self._sent: dict[AttemptKey, bool] = {}  # signals that the keeper was to hand on
        self._orphans = Orphanage(deliver)
        self._ends = KeeperEnds(self._state_dir)
        self._greeted = False
        self._health = keeper_health.Health("", 0)
        self._stuck = False  # behind a keeper that no KILL ends
        self._reaping = trio.CancelScope()
        self._changes_users = True  # whether the keeper does, as far as it said anything
        self._keeps_bases = False  # whether it is known to understand what keepers of earlier versions do not
        self._base_env: Mapping[str, str] = {}  # what it has as the base of launches
        self._base: tuple[object, ...] = ()
        self._waiting: deque[Launch] = deque()  # for a keeper that does
        self._stop: float | None = None  # grace in seconds, once stopping
        self._wanted = trio.Event()
        self._ready = trio.Event()
        self._over = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(
        self,
        known: Mapping[AttemptKey, Where],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled or shut down; `started` once all of `known` is accounted for.

        `known` are the attempts that the spool believes to run: process id and birth, or None for one
        that was accepted and not yet seen running.
        """
        self._lost = dict(known)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = self._orphans.nursery = nursery
                nursery.start_soon(self._tell_ready, task_status)
                while True:
                    link = await self._find_keeper() or await self._keeper_when_wanted()
                    if link is not None:
                        await self._serve(link)
                    elif self._stop is not None:
                        break
        finally:
            self._nursery = self._orphans.nursery = None
            self._over.set()

    @property
    def trouble(self) -> str:
        """Why no frame can be started, "" where nothing is known to prevent it."""
        return STUCK if self._stuck else ""

    async def _tell_ready(self, task_status: trio.TaskStatus[None]) -> None:
        await self._ready.wait()
        task_status.started()

    # --- what the engine asks for

    def launch(self, order: Launch) -> None:
        """Start an attempt; ProcessStarted or LaunchFailed follows."""
        if self._stop is not None:
            self._deliver(LaunchFailed(order.key, SPAWN_FAILED, "the slave is shutting down"))
            return
        if self._stuck:
            self._deliver(LaunchFailed(order.key, SPAWN_FAILED, STUCK))
            return
        if len(self._out) > MAX_UNSENT:
            self._deliver(LaunchFailed(order.key, SPAWN_FAILED, "the keeper does not read its orders"))
            return
        if order.user is not None and not self._changes_users:
            if not self._waiting:
                log.warning("frames wait for those of an earlier start to end: its keeper changes no users")
            self._waiting.append(order)
            self._send_away()
            return
        self._held[order.key] = None
        common = _common(order)
        message: dict[str, object] = {
            "do": "launch",
            "key": order.key,
            "env": order.env,
            "log": order.log_path,
        }
        if self._keeps_bases:
            if order.base_env is not self._base_env:
                self._base_env, self._base = order.base_env, common
                self._order({"do": "base", "env": order.base_env} | dict(zip(COMMON, common, strict=True)))
            elif common != self._base:
                both = zip(COMMON, common, self._base, strict=True)
                message |= [(name, value) for name, value, its in both if value != its]
        else:
            message |= zip(COMMON, common, strict=True)
            message["env"] = {**order.base_env, **order.env}
        if order.user is not None:
            message |= {"do": "launch-as", "as": order.user}
        self._order(message)

    def remove_as(self, paths: list[str], user: tuple[int, int, tuple[int, ...]]) -> None:
        """Have trees removed as another user, sometime; nothing tells when, or whether that worked."""
        if self._stop is None and self._changes_users and not self._stuck:
            self._order({"do": "remove-as", "paths": paths, "as": user})
            self.flush()

    def signal_tree(self, key: AttemptKey, kill: bool) -> None:
        """Send TERM, or KILL until nothing is left, to all of an attempt's processes."""
        if key in self._orphans:
            self._orphans.signal(key, kill)
        elif key in self._lost:
            self._late[key] = kill
        elif key in self._held:
            self._sent[key] = kill or self._sent.get(key, False)
            self._order({"do": "signal", "key": key, "kill": kill})
        else:
            self._fail_waiting("stopped before it was started", key)

    def forget(self, key: AttemptKey) -> None:
        """An attempt's end is noted for good."""
        if self._sock is not None:
            self._forgotten.append(key)

    def flush(self) -> None:
        """Send what was asked for since the last flush; what it may forget, a busy keeper hears later."""
        if self._sock is None:
            if self._out:
                self._wanted.set()
            return
        if self._forgotten and (self._out or not self._held or len(self._forgotten) >= FORGET_AT_ONCE):
            if self._keeps_bases:
                self._order({"do": "forget", "keys": self._forgotten})
            else:
                for key in self._forgotten:
                    self._order({"do": "forget", "key": key})
            self._forgotten.clear()
        if self._draining or not self._out:
            return
        self._send(self._sock)
        if self._out and self._nursery is not None:
            self._draining = True
            self._nursery.start_soon(self._drain, self._sock)

    async def shutdown(self, grace_s: float = 0.0) -> None:
        """End all frames (TERM, and KILL after `grace_s`; orphans KILL at once) and the keeper."""
        self._stop = grace_s
        self._wanted.set()
        self._fail_waiting("the slave is shutting down")
        self._orphans.kill_all()
        if self._sock is not None:
            self._order({"do": "shutdown", "grace": grace_s})
            self.flush()
        if self._nursery is not None:
            await self._over.wait()

    # --- the connection

    def _order(self, message: Mapping[str, object]) -> None:
        try:
            line = _encoder.encode(message)
        except UnicodeEncodeError:  # a name that is no UTF-8: json escapes its bytes, msgspec refuses them
            import json

            line = json.dumps(message).encode()
        self._out += line
        self._out += b"\n"

    def _send(self, sock: socket.socket) -> None:
        try:
            if failpoints.ACTIVE:
                failpoints.hit("order-before")
            sent = sock.send(self._out)
            if failpoints.ACTIVE:
                failpoints.hit("order-after")
        except BlockingIOError:
            return
        except OSError:  # the reader sees the end too, and acts on it
            self._out.clear()
            return
        del self._out[:sent]

    async def _drain(self, sock: socket.socket) -> None:
        try:
            while self._out and sock is self._sock:
                await trio.lowlevel.wait_writable(sock)
                self._send(sock)
        except trio.ClosedResourceError:
            return
        finally:
            self._draining = False

    async def _find_keeper(self) -> Link | None:
        """Connect to a living keeper; wait for one that is starting or ending, end one that hangs."""
        if not self._health.hung:
            with trio.move_on_after(ATTACH_PATIENCE_S):
                while True:
                    sock = connect(self._state_dir)
                    if sock is not None:
                        return Link(sock, 0)
                    if not is_locked(self._state_dir):
                        return None
                    await trio.sleep(POLL_S)
            self._health.hung = True
            keeper_health.end_keeper(self._state_dir)
        await self._outlast()
        return None

    async def _outlast(self) -> None:
        """Wait until a killed keeper is gone; where that takes long, look after its frames meanwhile."""
        patience = trio.current_time() + keeper_health.GONE_S
        while is_locked(self._state_dir):
            over = trio.current_time() - patience
            if not self._stuck and over > 0 and (over > UNBORN_S or not unborn(self._state_dir)):
                self._stuck = True
                self._fail_waiting(STUCK)
                self._fail_launches(STUCK)
                self._adopt_lost()
                self._ready.set()
            if self._stuck and self._stop is not None:
                self._reaping.cancel()
                return
            await trio.sleep(POLL_S)
        if self._stuck:
            log.warning("the keeper that hung is gone")
        self._health.hung = self._stuck = False

    async def _keeper_when_wanted(self) -> Link | None:
        """Without a keeper: look after its orphans, and start another when there is something to launch."""
        self._adopt_lost()
        self._ready.set()
        if not self._out:
            self._wanted = trio.Event()
            if self._stop is None:
                await self._wanted.wait()
        if self._stop is not None:
            return None
        try:
            return start(self._state_dir, self._linger_s)
        except OSError as error:
            self._fail_launches(f"the keeper cannot be started: {error.strerror or error}")
            return None

    async def _serve(self, link: Link) -> None:
        """Speak with one keeper until the connection ends."""
        self._sock = link.sock
        self._greeted = False
        self._out[:0] = b'{"v":%d}\n' % VERSION
        if self._stop is not None:
            self._order({"do": "shutdown", "grace": self._stop})
        self.flush()
        self._health = keeper_health.Health(self._state_dir, link.child)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._health.watch, self._ping, nursery.cancel_scope)
                await self._read(link.sock)
                nursery.cancel_scope.cancel()
        finally:
            self._sock = None
            self._out.clear()
            self._forgotten.clear()
            trio.lowlevel.notify_closing(link.sock)
            link.sock.close()
        if link.child and self._nursery is not None:
            self._nursery.start_soon(self._reap, link.child)
        self._late |= self._sent  # whether it obeyed is not known
        self._sent = {}
        if link.child and not self._greeted:
            self._fail_launches(f"the keeper cannot be started: {last_words(self._state_dir)}")
            return
        self._lost |= self._held
        self._held = {}
        self._changes_users, self._keeps_bases, self._base_env = True, False, {}
        waiting, self._waiting = self._waiting, deque()
        for order in waiting:
            self.launch(order)

    async def _reap(self, child: int) -> None:
        with trio.CancelScope() as self._reaping:
            await reap(child)

    def _ping(self) -> bool:
        """Ask the keeper for a word; not one that holds nothing, or that would not understand it."""
        if not self._health.pings or not self._held:
            return False
        self._order({"do": "ping"})
        self.flush()
        return True

    async def _read(self, sock: socket.socket) -> None:
        received = b""
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                data = sock.recv(RECV_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            self._health.hear()
            *lines, received = (received + data).split(b"\n")
            with self._together:
                for line in lines:
                    try:
                        report = _decoder.decode(line)
                    except (ValueError, RecursionError) as error:
                        log.error("the keeper said something unknown: %s", error)
                        continue
                    self._report(report)

    def _report(self, report: _Report) -> None:
        match report:
            case ProcessEnded() | LaunchFailed():
                self._lost.pop(report.key, None)
                self._held.pop(report.key, None)
                self._sent.pop(report.key, None)
                self._late.pop(report.key, None)
                self._deliver(report)
                self._send_away()
            case ProcessStarted():
                key = report.key
                self._lost.pop(key, None)
                self._held[key] = (report.pid, report.birth)
                self._deliver(report)
                if key in self._late:
                    self.signal_tree(key, self._late.pop(key))
                    self.flush()
            case _Held():
                self._adopt_lost()
                self._ready.set()
                self._send_away()
            case _Pong():
                pass
            case _Greeting():
                self._greeted = True
                self._changes_users = report.users
                self._keeps_bases = report.bases
                self._health.pings = report.pings

    def _send_away(self) -> None:
        """End a keeper that frames wait to be rid of, once it runs nothing."""
        if self._waiting and not self._held and self._sock is not None:
            self._order({"do": "shutdown", "grace": 0})
            self.flush()

    def _fail_waiting(self, text: str, key: AttemptKey | None = None) -> None:
        """Tell that waiting frames, or the one of that key, were never started."""
        failed = [order for order in self._waiting if key in (None, order.key)]
        for order in failed:
            self._waiting.remove(order)
            self._deliver(LaunchFailed(order.key, SPAWN_FAILED, text))

    def _fail_launches(self, text: str) -> None:
        """Tell that what was sent to a keeper was never started; what runs all the same is watched."""
        log.error("%s", text)
        sent, self._held = self._held, {}
        self._out.clear()
        found = find_orphans(sent, self._state_dir)
        for key in sent:
            if key in found:
                self._adopt(found[key], known=False)
            else:
                self._late.pop(key, None)
                self._deliver(LaunchFailed(key, SPAWN_FAILED, text))

    # --- frames without a keeper

    def _adopt_lost(self) -> None:
        for end in self._ends.of(self._lost):
            self._report(end)
        lost, self._lost = self._lost, {}
        found = find_orphans((key for key, where in lost.items() if where is None), self._state_dir)
        for key, where in lost.items():
            if key in found:
                self._adopt(found[key], known=False)
            else:
                pid, birth = where if where is not None and not is_kept(where[0], self._state_dir) else (0, 0)
                self._adopt(Orphan(key, pid, birth, self._state_dir), known=True)

    def _adopt(self, orphan: Orphan, known: bool) -> None:
        key = orphan.key
        self._orphans.adopt(orphan, known)
        late = self._late.pop(key, None)
        if self._stop is not None or late is not None:
            self._orphans.signal(key, kill=self._stop is not None or late is True)
