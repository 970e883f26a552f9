"""What a slave does at a calm rate besides running frames: load, progress, logs, disk, time of day.

Rules: measuring and reading happen in threads, each chore has one at a time; nothing here wakes more often
than it must, and progress is only looked for while something runs. What cannot be read now is left out.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

import trio

from drqueue import log
from drqueue.engine import Inbox
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import LogKept, Message, Progressed, Report, Status
from drqueue.proto.model import LogEnds, MachineLoad
from drqueue.slave import logs
from drqueue.slave.core.events import AutoEnableDue, Event
from drqueue.slave.core.state import Attempt, Phase, State
from drqueue.slave.machine import LoadMeter
from drqueue.slave.memory import give_back
from drqueue.slave.nimby import Mark, autoenable
from drqueue.slave.scratch import Scratch

SAMPLE_S = 5.0
PURGE_S = 600.0
PROGRESS_S = 1.0
#: What is read of one log at one look; of more, the beginning is skipped.
READ_MAX = 256 * 1024
#: Ended logs whose ends wait to be sent; beyond, the oldest are left out (they stay on the slave).
KEEP_WAITING = 2000
KEEP_BATCH = 16
#: No more logs are read while the master has so many bytes to take.
UNSENT_MAX = 1 << 20
PROGRESS_PART = 200


class LoadReports:
    """Samples the load; tells it every `report_s`, and at once where it changed notably."""

    def __init__(self, state_dir: str, report_s: float, send: Callable[[Message], bool]) -> None:
        self._meter = LoadMeter(state_dir)
        self._report_s = report_s
        self._send = send
        self._told = MachineLoad()
        self._told_at = -report_s
        self.load = MachineLoad()

    async def sample(self) -> None:
        """Look once, and tell what is worth telling."""
        self.load = await trio.to_thread.run_sync(self._meter.sample)
        self.tell(force=False)

    def tell(self, *, force: bool) -> None:
        """Tell the latest load; without `force` only where it is due."""
        now = trio.current_time()
        due = force or now - self._told_at >= self._report_s or notable(self._told, self.load)
        if due and self._send(Status(load=self.load)):
            self._told, self._told_at = self.load, now


def notable(old: MachineLoad, new: MachineLoad) -> bool:
    """Whether the farm should know at once."""
    return (
        abs(new.cpu_percent - old.cpu_percent) > 25
        or abs(new.load1 - old.load1) > max(1.0, 0.25 * old.load1)
        or abs(new.memory_free_mb - old.memory_free_mb) > max(512, old.memory_free_mb // 5)
        or (new.disk_free_mb < 1024) != (old.disk_free_mb < 1024)
    )


class AutoEnable:
    """Watches the time of day."""

    def __init__(self, state: State, inbox: Inbox[Event]) -> None:
        self._state = state
        self._inbox = inbox
        self._mark = Mark(datetime.now())

    def look(self) -> None:
        """Enable the slave where its time has come."""
        limits = self._state.limits
        due, self._mark = autoenable(limits.autoenable, limits.enabled, self._mark, datetime.now())
        if due:
            log.event("enabled, as set for this time of day", autoenable=limits.autoenable)
            self._inbox.put(AutoEnableDue())


class _Watched:
    """One running attempt's log, as far as it was read."""

    def __init__(self, attempt: Attempt, path: str) -> None:
        order = attempt.order
        try:
            self.parser = logs.ProgressParser(order.count, order.progress)
        except ValueError:
            # The pattern was checked when it was submitted; a newer master's may be foreign here.
            self.parser = logs.ProgressParser(order.count)
        self.key = attempt.key
        self._path = path
        self._offset = 0
        self._told: tuple[float, str] = (0.0, "")

    def look(self) -> Progressed | None:
        """Read what is new; the news worth telling."""
        try:
            size = os.stat(self._path).st_size
            if size <= self._offset:
                return None
            start = max(self._offset, size - READ_MAX)
            data, self._offset, _ = logs.read_slice(self._path, start, READ_MAX)
        except OSError:
            return None  # not there yet, or purged: there is nothing to tell of
        if not self.parser.feed(data):
            return None
        done, activity = self.parser.progress or 0.0, self.parser.activity
        if (
            activity == self._told[1]
            and abs(done - self._told[0]) < 0.01
            and (done < 1.0 or self._told[0] == 1.0)
        ):
            return None
        self._told = (done, activity)
        return Progressed(self.key, done, activity)


class ProgressWatch:
    """Reads running attempts' logs once a second and tells how far they are."""

    def __init__(self, state_dir: str, state: State, send: Callable[[Message], bool]) -> None:
        self._state_dir = state_dir
        self._state = state
        self._send = send
        self._watched: dict[AttemptKey, _Watched] = {}
        self._wanted = trio.Event()

    def wake(self) -> None:
        """Something was started."""
        self._wanted.set()

    async def run(self) -> None:
        """Look while something runs, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._state.milli_used:
                await trio.sleep(PROGRESS_S)
                await self.look()
            self._watched.clear()
            give_back()

    async def look(self) -> None:
        """Look once at all that run."""
        running = {
            key: attempt
            for key, attempt in self._state.held.items()
            if attempt.phase is Phase.RUNNING and not attempt.stop_reason
        }
        self._watched = {key: watched for key, watched in self._watched.items() if key in running}
        for key, attempt in running.items():
            if key not in self._watched:
                self._watched[key] = _Watched(attempt, logs.log_path(self._state_dir, key))
        if not self._watched:
            return
        news = await trio.to_thread.run_sync(_look_at, list(self._watched.values()))
        # What ended meanwhile is no news any more: its exit may have been told already.
        held = self._state.held
        news = [item for item in news if item.key in held and held[item.key].phase is Phase.RUNNING]
        for at in range(0, len(news), PROGRESS_PART):
            self._send(Report(progressed=tuple(news[at : at + PROGRESS_PART])))


def _look_at(watched: Iterable[_Watched]) -> list[Progressed]:
    return [news for item in watched if (news := item.look()) is not None]


class LogSender:
    """Sends the ends of ended attempts' logs, after their exits were told, one batch at a time."""

    def __init__(
        self, state_dir: str, send: Callable[[int, Message], None], queued: Callable[[], int]
    ) -> None:
        self._state_dir = state_dir
        self._send = send
        self._queued = queued
        self._waiting: deque[tuple[int, AttemptKey]] = deque(maxlen=KEEP_WAITING)
        self._wanted = trio.Event()

    def keep(self, link: int, key: AttemptKey) -> None:
        """Send this log's ends on that link."""
        self._waiting.append((link, key))
        self._wanted.set()

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._waiting:
                if self._queued() > UNSENT_MAX:
                    await trio.sleep(0.1)
                    continue
                batch = [self._waiting.popleft() for _ in range(min(KEEP_BATCH, len(self._waiting)))]
                found = await trio.to_thread.run_sync(self._read, batch)
                for link, key, ends in found:
                    self._send(link, LogKept(key=key, ends=ends))

    def _read(self, batch: list[tuple[int, AttemptKey]]) -> list[tuple[int, AttemptKey, LogEnds]]:
        found = []
        for link, key in batch:
            try:
                found.append((link, key, logs.ends(logs.log_path(self._state_dir, key))))
            except OSError as error:
                log.debug("a log cannot be kept", attempt=key, error=error.strerror)
        return found


class Purge:
    """Keeps the logs of ended attempts within their room, and scratch directories no longer than attempts."""

    def __init__(self, state_dir: str, room_mb: int, state: State, scratch: Scratch) -> None:
        self._state_dir = state_dir
        self._room = room_mb << 20
        self._state = state
        self._scratch = scratch

    async def purge(self) -> None:
        """Delete the oldest logs beyond the room, and scratch directories of attempts that are forgotten."""
        held = frozenset(self._state.held)
        try:
            freed = await trio.to_thread.run_sync(
                logs.purge_logs, self._state_dir, self._room, held, abandon_on_cancel=True
            )
        except OSError as error:
            log.warning("old files cannot be deleted", error=error.strerror)
        else:
            if freed:
                log.event("deleted old logs", mb=freed >> 20)
        await self._scratch.purge(self._state.held)


async def every(seconds: float, chore: Callable[[], object]) -> None:
    """Do a sync chore at once, and then again after every pause."""
    while True:
        chore()
        await trio.sleep(seconds)
