"""The slave daemon: wiring and lifetime.

Rules: frames outlive the daemon. It ends on SIGTERM or SIGINT and leaves them running, unless it was told
to take them along. It is ready once it knows who it is, what it holds and what became of it; a master is
not needed for that.
"""

import contextlib
import os
import pwd
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import trio

from drqueue import __version__, engine, log, sdnotify
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, Hello, Message
from drqueue.proto.model import MachineInfo
from drqueue.proto.views import SlaveView
from drqueue.settings import Address, SlaveSettings
from drqueue.slave.chores import (
    PURGE_S,
    SAMPLE_S,
    AutoEnable,
    LoadReports,
    LogSender,
    ProgressWatch,
    Purge,
    every,
    scratch_folder,
)
from drqueue.slave.classic_logs import ClassicLogs
from drqueue.slave.control import SOCKET, Control
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import KeepLog
from drqueue.slave.core.events import Event, LeaveAsked, Ping
from drqueue.slave.core.processes import ProcessEvent
from drqueue.slave.core.restore import known, restore, snapshot
from drqueue.slave.core.state import Phase
from drqueue.slave.environment import Node, node_basis
from drqueue.slave.identity import boot_id
from drqueue.slave.journal import Journal
from drqueue.slave.link import Link
from drqueue.slave.machine import measure_hardware
from drqueue.slave.performer import Performer
from drqueue.slave.requests import Requests
from drqueue.slave.supervisor import Supervisor
from drqueue.slave.view import slave_view
from drqueue.statefile import lock_state_dir
from drqueue.unixpath import bind_unix

SOFTWARE = f"drqueue {__version__}"
#: The engine looks at CLOCK_BOOTTIME at least this often: trio's clock stands still in a suspend.
LONGEST_NAP_S = 30.0
#: Time for the last reports and the keeper when the daemon ends.
GOODBYE_S = 2.0
RETRY_S = 2.0


def now() -> float:
    """Seconds since boot, suspends included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Offer:
    """What this slave brings to the farm."""

    machine: MachineInfo
    cores: int
    memory_mb: int


class Daemon:
    """One slave. Make it, then `serve`; StateError and OSError say why a start fails."""

    def __init__(
        self, settings: SlaveSettings, addresses: list[Address], *, kill_frames_on_exit: bool = False
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._kill_on_exit = kill_frames_on_exit
        self._state_dir = settings.state_dir
        self._lock = lock_state_dir(self._state_dir, "slave")
        try:
            machine = measure_hardware(self._state_dir)
            self._offer = Offer(
                machine,
                settings.cores or max(1, machine.cores_logical),
                settings.memory_mb or machine.memory_mb,
            )
            boot = boot_id()
            self._journal = Journal(
                self._state_dir,
                settings.name,
                settings.pools,
                boot,
                max_cpus=settings.max_cpus,
                enabled=settings.enabled,
            )
            identity = self._journal.identity
            state = restore(
                self._journal.load(),
                boot_id=boot,
                now=now(),
                limits=self._journal.limits,
                farm=identity.farm,
                epoch=identity.epoch,
            )
            self._journal.start(snapshot(state, boot))
            self._classic_logs = ClassicLogs(
                self._state_dir, _folder(settings.logs), settings.umask, self._is_over
            )
        except BaseException:
            os.close(self._lock)
            raise
        self._known = known(state)
        self._journal.snapshot = partial(snapshot, state, boot)
        self._state = state
        self._core = Core(
            state,
            cores=self._offer.cores,
            grace_s=settings.grace_s,
            clock_ticks=os.sysconf("SC_CLK_TCK"),
        )
        self._inbox: engine.Inbox[Event] = engine.Inbox()
        self._control_path = os.path.join(os.path.abspath(self._state_dir), SOCKET)
        self._requests = Requests(self._state_dir, self._inbox, self.view, self._is_over)
        self._link = Link(
            addresses,
            self._inbox,
            self._requests,
            self._hello,
            software=SOFTWARE,
            name=settings.name,
            on_registered=lambda: self._loads.tell(force=True),
        )
        self._supervisor = Supervisor(self._state_dir, self._deliver)
        self._loads = LoadReports(self._state_dir, settings.report_s, self._tell)
        self._progress = ProgressWatch(self._state_dir, state, self._tell)
        self._log_sender = LogSender(self._state_dir, self._send_log, lambda: self._link.queued)
        self._node: Node | None = None
        self._node_for: tuple[str, int | None] = ("", None)
        self._frames_ended = trio.Event()
        self._engine_ended = trio.Event()
        self._stopping = trio.Event()

    # -- what others ask -------------------------------------------------------------------------

    def view(self) -> SlaveView:
        """This slave as clients see it."""
        heard_ago = now() - self._state.heard_at
        return slave_view(
            self._state,
            name=self._settings.name,
            cores=self._offer.cores,
            memory_mb=self._offer.memory_mb,
            machine=self._offer.machine,
            load=self._loads.load,
            control=self._control_address(),
            last_heard_at=time.time() - heard_ago,
        )

    def _control_address(self) -> str:
        return f"unix:{self._control_path}" if self._settings.control else ""

    def _is_over(self, key: AttemptKey) -> bool:
        attempt = self._state.held.get(key)
        return attempt is None or attempt.phase in (Phase.ENDED, Phase.VERIFYING)

    def _hello(self, held: tuple[Held, ...], more: bool) -> Hello:
        identity = self._journal.identity
        return Hello(
            identity=identity.id,
            name=identity.name,
            fingerprint=identity.fingerprint,
            machine=self._offer.machine,
            limits=self._state.limits,
            cores=self._offer.cores,
            memory_mb=self._offer.memory_mb,
            control=self._control_address(),
            held=held,
            more=more,
        )

    def _node_now(self) -> Node:
        wanted = (self._link.address, self._state.slave_id)
        if self._node is None or wanted != self._node_for:
            self._node, self._node_for = self._make_node(), wanted
        return self._node

    def _make_node(self) -> Node:
        settings, (address, slave) = self._settings, (self._link.address, self._state.slave_id)
        try:
            user = pwd.getpwuid(os.getuid())
            name, home = user.pw_name, settings.home or user.pw_dir
        except KeyError:  # a user id without an entry, as in containers
            name, home = str(os.getuid()), settings.home or "/"
        basis = node_basis(
            path=settings.path,
            home=home,
            user=name,
            lang=settings.lang,
            tz=settings.tz,
            os_name=self._offer.machine.os,
            handed_on={
                "DRQUEUE_ROOT": settings.root,
                "DRQUEUE_TMP": settings.tmp,
                "DRQUEUE_ETC": settings.etc,
                "DRQUEUE_BIN": settings.bin,
                "DRQUEUE_LOGS": settings.logs,
                "DRQUEUE_DB": settings.db,
            },
        )
        basis["DRQUEUE_MASTER"] = address
        if slave is not None:
            basis["DRQUEUE_COMPID"] = str(slave)
        return Node(basis, home, scratch_folder(self._state_dir))

    # -- what goes between the parts -------------------------------------------------------------

    def _deliver(self, event: ProcessEvent) -> None:
        self._inbox.put(event)

    def _tell(self, message: Message) -> bool:
        """Send news that need no spool; whether there is a master to hear them."""
        if not self._link.registered:
            return False
        self._link.send(self._link.number, message)
        self._link.flush()
        return True

    def _send_log(self, link: int, message: Message) -> None:
        self._link.send(link, message)
        self._link.flush()

    def _keep_log(self, effect: KeepLog) -> None:
        self._log_sender.keep(effect.link, effect.key)

    # -- lifetime --------------------------------------------------------------------------------

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`; everything is closed on return."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(os.close, self._lock)
                stack.callback(self._journal.close)
                nursery = await stack.enter_async_context(trio.open_nursery())
                await nursery.start(self._supervisor.run, self._known)
                self._start_parts(nursery)
                log.event(
                    "slave is up",
                    name=self._settings.name,
                    cores=self._offer.cores,
                    memory_mb=self._offer.memory_mb,
                    held=len(self._state.held),
                    state_dir=self._state_dir,
                )
                sdnotify.notify("READY=1", f"STATUS=holds {len(self._state.held)} attempts")
                task_status.started()
                await self._stopping.wait()
                sdnotify.notify("STOPPING=1")
                await self._say_goodbye()
                nursery.cancel_scope.cancel()
        finally:
            if self._settings.control:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._control_path)
        log.event("slave ended", frames_left_running=len(self._state.alive()))

    def stop(self) -> None:
        """End the daemon in good order."""
        self._stopping.set()

    async def hurry(self) -> None:
        """Somebody asked again: where frames are to end with the daemon, they are killed at once."""
        if self._kill_on_exit:
            await self._supervisor.shutdown(0.0)

    def _start_parts(self, nursery: trio.Nursery) -> None:
        performer = Performer(
            state_dir=self._state_dir,
            node=self._node_now,
            umask=self._settings.umask,
            log_cap=self._settings.log_cap_mb << 20,
            inbox=self._inbox,
            link=self._link,
            supervisor=self._supervisor,
            nursery=nursery,
            whole=lambda: self._journal.whole,
            keep_log=self._keep_log,
            alive=self._watchdog,
            all_ended=self._frames_ended.set,
            started=self._progress.wake,
            copy_log=self._classic_logs.begin,
        )
        nursery.start_soon(self._run_engine, performer)
        nursery.start_soon(self._link.run)
        if self._settings.control:
            listener = bind_unix(self._control_path, 0o600)
            nursery.start_soon(Control(listener, self._requests, SOFTWARE).run)
        nursery.start_soon(self._sample_load)
        nursery.start_soon(self._purge_logs)
        nursery.start_soon(self._progress.run)
        nursery.start_soon(self._log_sender.run)
        nursery.start_soon(self._classic_logs.run)
        nursery.start_soon(self._retry_journal, performer)
        interval = sdnotify.watchdog_interval()
        if interval is not None:
            nursery.start_soon(every, interval, lambda: self._inbox.put(Ping()))
        if self._state.cores_used:
            self._progress.wake()

    async def _run_engine(self, performer: Performer) -> None:
        await engine.run(
            self._core,
            self._inbox,
            self._journal.commit,
            performer.perform,
            clock=now,
            flush=performer.flush,
            longest_nap_s=LONGEST_NAP_S,
        )
        self._engine_ended.set()

    def _watchdog(self) -> None:
        sdnotify.notify("WATCHDOG=1", f"STATUS=holds {len(self._state.held)} attempts")

    async def _sample_load(self) -> None:
        nimby = AutoEnable(self._state, self._inbox)
        while True:
            await self._loads.sample()
            nimby.look()
            await trio.sleep(SAMPLE_S)

    async def _purge_logs(self) -> None:
        purge = Purge(self._state_dir, self._settings.logs_keep_mb, self._state)
        while True:
            await purge.purge()
            await trio.sleep(PURGE_S)

    async def _retry_journal(self, performer: Performer) -> None:
        while True:
            await trio.sleep(RETRY_S)
            if not self._journal.whole and await self._journal.retry():
                performer.flush()

    async def _say_goodbye(self) -> None:
        """Take the frames along where that was asked for; let what is under way come to its end."""
        if self._kill_on_exit:
            self._inbox.put(LeaveAsked())
            await self._frames_ended.wait()
            await self._supervisor.shutdown(0.0)
        self._inbox.close()
        with trio.move_on_after(GOODBYE_S):
            await self._engine_ended.wait()
        with trio.move_on_after(GOODBYE_S):
            while await self._classic_logs.look():
                pass


def _folder(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else ""


async def main(daemon: Daemon) -> None:
    """Serve until a signal says stop; a second one kills the frames at once where they are to end too."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed, daemon, signals, nursery)
            await daemon.serve()
            nursery.cancel_scope.cancel()


async def _heed(daemon: Daemon, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
    asked = False
    async for number in signals:
        if number == signal.SIGHUP:
            log.event("nothing to reload: settings are read at the start")
            continue
        log.event("stopping", signal=signal.Signals(number).name)
        if asked:
            nursery.start_soon(daemon.hurry)
        asked = True
        daemon.stop()
