"""The slave daemon: wiring and lifetime.

Rules: frames outlive the daemon. It ends on SIGTERM or SIGINT and leaves them running, unless it was told
to take them along. It is ready once it knows who it is, what it holds and what became of it; a master is
not needed for that.
"""

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial

import trio

from drqueue import __version__, engine, log, sdnotify
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, Hello, Message
from drqueue.proto.views import Finding, SlaveView
from drqueue.settings import Address, SlaveSettings
from drqueue.slave import waking
from drqueue.slave.acts import Acts
from drqueue.slave.chores import (
    PURGE_S,
    SAMPLE_S,
    AutoEnable,
    LoadReports,
    LogSender,
    ProgressWatch,
    Purge,
    every,
)
from drqueue.slave.classic_logs import ClassicLogs
from drqueue.slave.control import SOCKET, Control
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import KeepLog
from drqueue.slave.core.events import Event, LeaveAsked, Ping
from drqueue.slave.core.restore import known, restore, snapshot
from drqueue.slave.core.state import Phase
from drqueue.slave.environment import Node
from drqueue.slave.identity import boot_id
from drqueue.slave.joining import Introduction, Joiner
from drqueue.slave.journal import Journal
from drqueue.slave.keeper_ends import KeeperEnds
from drqueue.slave.link import Link
from drqueue.slave.machine import disk_free_mb, has_gpu_driver, measure_hardware
from drqueue.slave.memory import settle
from drqueue.slave.nodes import Nodes
from drqueue.slave.offer import offer_of
from drqueue.slave.orphans import running_attempts
from drqueue.slave.performer import Performer, group_limits
from drqueue.slave.ports import NetworkPort
from drqueue.slave.privileges import User as UserIds
from drqueue.slave.requests import Requests
from drqueue.slave.routes import Routes
from drqueue.slave.run_as import RunAs, User
from drqueue.slave.scratch import Scratch, scratch_root
from drqueue.slave.supervisor import Supervisor
from drqueue.slave.ticketing import Tickets
from drqueue.slave.view import slave_view
from drqueue.statefile import lock_state_dir
from drqueue.unixpath import bind_unix

SOFTWARE = f"drqueue {__version__}"
#: The engine looks at CLOCK_BOOTTIME at least this often, should nobody notice a suspend (`waking`).
LONGEST_NAP_S = 30.0
#: Time for the last reports and the keeper when the daemon ends.
GOODBYE_S = 2.0
RETRY_S = 2.0


def now() -> float:
    """Seconds since boot, suspends included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Daemon:
    """One slave. Make it, then `serve`; StateError and OSError say why a start fails.

    Where nobody `named` it, it goes by its account's name once it joined a farm.
    """

    def __init__(
        self,
        settings: SlaveSettings,
        addresses: list[Address],
        *,
        named: bool = True,
        kill_frames_on_exit: bool = False,
    ) -> None:
        self._settings = settings
        self._named = named
        self._name = settings.name
        self._addresses = addresses
        self._kill_on_exit = kill_frames_on_exit
        self._state_dir = settings.state_dir
        self._run_as = RunAs(settings.run_as, settings.map_users)
        self._run_as.settle()
        self._lock = lock_state_dir(self._state_dir, "slave")
        try:
            room = disk_free_mb(scratch_root(settings.work_dir, self._state_dir, self._run_as.others))
            self._offer = offer_of(settings, measure_hardware(self._state_dir), room)
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
                life=identity.life,
            )
            self._journal.start(snapshot(state, boot))
            self._scratch = Scratch(
                settings.work_dir,
                self._state_dir,
                self._run_as,
                self._remove_as,
            )
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
        self._tickets = Tickets()
        self._acts = Acts(self._tell, self._master_clock)
        self._requests = Requests(
            self._state_dir,
            self._inbox,
            self.view,
            self._is_over,
            look=self._examine,
            acts=self._acts,
            wrote_nothing=self._wrote_nothing,
        )
        self._network = NetworkPort(
            settings.control_listen, self._requests, SOFTWARE, self._tickets, lambda: state.slave_id
        )
        self._joiner = Joiner(self._state_dir, self._introduction)
        self._link = Link(
            Routes(self._state_dir, addresses, named=bool(settings.master)),
            self._inbox,
            self._requests,
            self._hello,
            software=SOFTWARE,
            name=settings.name,
            on_registered=self._on_registered,
            on_ticket_key=self._tickets.take,
        )
        self._supervisor = Supervisor(self._state_dir, self._inbox.put, together=self._inbox)
        self._ends = KeeperEnds(self._state_dir)
        self._loads = LoadReports(self._state_dir, settings.report_s, self._tell)
        self._progress = ProgressWatch(self._state_dir, state, self._tell)
        self._log_sender = LogSender(self._state_dir, self._send_log, lambda: self._link.queued)
        self._nodes = Nodes(settings, self._run_as, self._offer.machine.os, self._scratch.root)
        self._frames_ended = trio.Event()
        self._engine_ended = trio.Event()
        self._stopping = trio.Event()

    # -- what others ask -------------------------------------------------------------------------

    def view(self) -> SlaveView:
        """This slave as clients see it."""
        heard_ago = now() - self._state.heard_at
        return slave_view(
            self._state,
            name=self._own_name(),
            offer=self._offer,
            load=self._loads.load,
            control=self._control_address(),
            last_heard_at=time.time() - heard_ago,
            trouble=self._supervisor.trouble,
        )

    def _own_name(self) -> str:
        """What it is called: as its settings say, else as the farm that it joined last linked calls it."""
        access = self._link.access
        if access is not None and not self._named:
            self._name = access.name
        return self._name

    def _control_address(self) -> str:
        if not self._settings.control:
            return ""
        if self._link.access is None:
            return f"unix:{self._control_path}"
        return self._network.address(self._link.access, self._link.own_host)

    def _master_clock(self) -> float:
        """The master's wall clock as far as it is known, else this machine's."""
        told = self._tickets.now
        return time.time() if told is None else told

    def _introduction(self) -> Introduction:
        identity = self._journal.identity
        return Introduction(identity.id, identity.fingerprint, self._settings.name, SOFTWARE)

    def _work_dir(self) -> str:
        """Where scratch directories are, "" for in the state directory."""
        folder = os.path.abspath(self._state_dir)
        return "" if self._scratch.root.startswith(folder + os.sep) else self._scratch.root

    async def _examine(self) -> tuple[Finding, ...]:
        # Late: what it looks with is wanted seldom.
        from drqueue.slave.examine import examine

        welcome, user, offers = self._link.welcome, self._run_as.default, self._offer.offers
        return await examine(
            self._settings,
            master=self._link.address,
            farm=self._state.farm,
            master_software="" if welcome is None else welcome.software,
            linked=self._state.registered,
            heard_ago_s=now() - self._state.heard_at,
            master_clock=self._tickets.now,
            control=self._control_address(),
            frames_as=None if user is None else user.name,
            work_dir=self._work_dir(),
            offers=offers,
            gpus=self._offer.machine.gpus,
            gpu_driver=has_gpu_driver(),
            disk_left_mb=max(0, offers.disk_mb - self.view().disk_used_mb),
            trouble=self._supervisor.trouble,
        )

    def _is_over(self, key: AttemptKey) -> bool:
        attempt = self._state.held.get(key)
        return attempt is None or attempt.phase in (Phase.ENDED, Phase.VERIFYING)

    def _is_kept(self, key: AttemptKey) -> bool:
        """Whether nobody has to say any more how it ended."""
        attempt = self._state.held.get(key)
        return attempt is None or attempt.phase is Phase.ENDED

    def _wrote_nothing(self, key: AttemptKey) -> bool:
        """Whether it ended without a word; the keeper may have given its log to another one."""
        attempt = self._state.held.get(key)
        return attempt is not None and attempt.exit is not None and not attempt.exit.log_bytes

    def _hello(self, held: tuple[Held, ...], more: bool) -> Hello:
        identity = self._journal.identity
        return Hello(
            identity=identity.id,
            name=self._own_name(),
            fingerprint=identity.fingerprint,
            machine=self._offer.machine,
            limits=self._state.limits,
            cores=self._offer.cores,
            memory_mb=self._offer.memory_mb,
            control=self._control_address(),
            held=held,
            more=more,
            offers=self._offer.offers,
        )

    def _node(self, user: User | None) -> Node:
        return self._nodes.of(user, self._link.address, self._state.slave_id)

    # -- what goes between the parts -------------------------------------------------------------

    def _tell(self, message: Message) -> bool:
        """Send news that need no spool; whether there is a master to hear them."""
        if not self._link.registered:
            return False
        self._link.send(self._link.number, message)
        self._link.flush()
        return True

    def _on_registered(self) -> None:
        self._loads.tell(force=True)
        self._acts.tell()

    def _send_log(self, link: int, message: Message) -> None:
        self._link.send(link, message)
        self._link.flush()

    def _remove_as(self, paths: list[str], user: UserIds) -> None:
        self._supervisor.remove_as(paths, user)

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
                # What the spool does not know (it was damaged) is found, too: the core ends it.
                strangers = dict.fromkeys(running_attempts(self._state_dir) - self._state.held.keys())
                await nursery.start(self._supervisor.run, {**strangers, **self._known})
                self._start_parts(nursery)
                log.event(
                    "slave is up",
                    name=self._settings.name,
                    cores=self._offer.cores,
                    memory_mb=self._offer.memory_mb,
                    gpus=",".join(map(str, self._offer.offers.gpus)) or "none",
                    held=len(self._state.held),
                    state_dir=self._state_dir,
                )
                sdnotify.notify("READY=1", f"STATUS=holds {len(self._state.held)} attempts")
                task_status.started()
                settle()
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
            node=self._node,
            run_as=self._run_as,
            scratch=self._scratch,
            umask=self._settings.umask,
            log_cap=self._settings.log_cap_mb << 20,
            group=partial(group_limits, self._settings),
            inbox=self._inbox,
            link=self._link,
            supervisor=self._supervisor,
            nursery=nursery,
            unwritten=self._journal.unwritten,
            keep_log=self._keep_log,
            alive=self._alive,
            all_ended=self._frames_ended.set,
            started=self._progress.wake,
            copy_log=self._classic_logs.begin,
            reuse_logs=not self._settings.logs,
        )
        nursery.start_soon(self._run_engine, performer)
        nursery.start_soon(self._link.run)
        if self._settings.control:
            listener = bind_unix(self._control_path, 0o600)
            nursery.start_soon(Control(listener, self._requests, SOFTWARE).run)
            nursery.start_soon(self._network.run)
        nursery.start_soon(self._joiner.run)
        nursery.start_soon(self._sample_load)
        nursery.start_soon(self._purge_logs)
        nursery.start_soon(self._progress.run)
        nursery.start_soon(self._log_sender.run)
        nursery.start_soon(self._classic_logs.run)
        nursery.start_soon(self._retry_journal, performer)
        nursery.start_soon(waking.watch, self._inbox.nudge)
        interval = sdnotify.watchdog_interval()
        if interval is not None:
            nursery.start_soon(every, interval, lambda: self._inbox.put(Ping()))
        if self._state.milli_used:
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
            commit_now=self._journal.commit_now,
        )
        self._engine_ended.set()

    def _alive(self) -> None:
        """A turn is done, and what all turns so far wanted saved is written, or waits to be."""
        if self._journal.whole:
            self._ends.drop(self._is_kept)
        sdnotify.notify("WATCHDOG=1", f"STATUS=holds {len(self._state.held)} attempts")

    async def _sample_load(self) -> None:
        nimby = AutoEnable(self._state, self._inbox)
        while True:
            await self._loads.sample()
            nimby.look()
            self._link.look()
            await trio.sleep(SAMPLE_S)

    async def _purge_logs(self) -> None:
        purge = Purge(self._state_dir, self._settings.logs_keep_mb, self._state, self._scratch)
        while True:
            await purge.purge()
            await trio.sleep(PURGE_S)

    async def _retry_journal(self, performer: Performer) -> None:
        while True:
            if self._ends:
                self._inbox.put(Ping())
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
