"""Watchers: who wants to hear of what, and their latest news at most 4 times a second.

A watcher that was quiet may hear up to 4 pieces of news at once, so that the end of a short job is
known without delay; in the long run it is 4 a second.

A watcher has a set of changed keys, at most one entry each, never a queue of changes: whoever reads
slowly gets fewer, later states, and above `KEYS_MOST` keys the advice to list anew. The core never
waits for anyone here. What a watcher may not see is taken out of its news as they leave.
"""

from collections.abc import Awaitable, Callable
from math import inf

import trio
from msgspec import structs

from drqueue.channel import Channel
from drqueue.master.core import queries
from drqueue.master.core.effects import Publish
from drqueue.master.core.state import FarmState
from drqueue.proto.errors import LocalProtocolError
from drqueue.proto.ids import FrameKey
from drqueue.proto.messages import Changed, Watch
from drqueue.proto.views import FrameView

INTERVAL_S = 0.25
BURST = 4
KEYS_MOST = 10_000
#: Watches of one link.
WATCHES_MOST = 100
#: What is left of a piece of news for whoever gets it.
See = Callable[[Changed], Changed]

#: Views in one message; a lagging watcher (this many bytes unsent) is given nothing more for now.
_PART = 100
_LAG_BYTES = 1024 * 1024


class TooManyWatches(Exception):  # noqa: N818  (an answer, not a fault)
    """A link has as many watches as it may have; the text is one sentence for its owner."""


class _Watcher:
    def __init__(self, number: int, channel: Channel, wants: Watch, see: See) -> None:
        self.number = number
        self.see = see
        self.channel = channel
        self.wants = wants
        self.jobs: set[int] = set()
        self.frames: set[FrameKey] = set()
        self.slaves: set[int] = set()
        self.resync = False
        #: When its credit was full, or will be: each piece of news costs one INTERVAL_S of it.
        self.full_at = 0.0
        #: It is not looked at before that, whatever comes.
        self.quiet_until = 0.0

    @property
    def due(self) -> float:
        return max(self.full_at - (BURST - 1) * INTERVAL_S, self.quiet_until)

    @property
    def dirty(self) -> bool:
        return bool(self.jobs or self.frames or self.slaves or self.resync)

    def hear(self, news: Publish) -> None:
        wants = self.wants
        if wants.jobs:
            self.jobs |= news.jobs
        if wants.slaves:
            self.slaves |= news.slaves
        if wants.job is not None:
            if wants.job in news.jobs:
                self.jobs.add(wants.job)
            self.frames.update(key for key in news.frames if key.job == wants.job)
        if len(self.jobs) + len(self.frames) + len(self.slaves) > KEYS_MOST:
            self.jobs, self.frames, self.slaves = set(), set(), set()
            self.resync = True


class Hub:
    """All watchers. `fill` adds what only the history knows to views of ended frames."""

    def __init__(
        self,
        state: Callable[[], FarmState],
        fill: Callable[[tuple[FrameView, ...]], Awaitable[tuple[FrameView, ...]]],
    ) -> None:
        self._state = state
        self._fill = fill
        self._watchers: dict[int, _Watcher] = {}
        self._of_link: dict[Channel, set[int]] = {}
        self._next = 1
        self._news = trio.Event()
        #: When watchers are looked at next, whatever comes.
        self._looks_at = inf

    def watch(self, channel: Channel, wants: Watch, see: See) -> int:
        """A new watch, whose news go through `see`; its number. Raises TooManyWatches."""
        mine = self._of_link.setdefault(channel, set())
        if len(mine) >= WATCHES_MOST:
            raise TooManyWatches(f"a client may watch {WATCHES_MOST} things at once: end a watch first")
        number = self._next
        self._next += 1
        self._watchers[number] = _Watcher(number, channel, wants, see)
        mine.add(number)
        return number

    def unwatch(self, number: int, channel: Channel) -> bool:
        """End a watch of this link's; False where it has no such one."""
        mine = self._of_link.get(channel, set())
        if number not in mine:
            return False
        mine.discard(number)
        del self._watchers[number]
        return True

    def drop(self, channel: Channel) -> None:
        """A link is gone, and its watches with it."""
        for number in self._of_link.pop(channel, ()):
            del self._watchers[number]

    def publish(self, news: Publish) -> None:
        """These changed."""
        for watcher in self._watchers.values():
            watcher.hear(news)
            if watcher.due < self._looks_at and watcher.dirty:
                self._news.set()

    async def run(self) -> None:
        """Bring watchers their news, each at most once in INTERVAL_S."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            now = trio.current_time()
            soonest = inf
            for watcher in list(self._watchers.values()):
                if not watcher.dirty:
                    continue
                if watcher.due <= now and watcher.channel.queued < _LAG_BYTES:
                    watcher.full_at = max(watcher.full_at, now) + INTERVAL_S
                    await self._bring(watcher)
                else:
                    watcher.quiet_until = max(watcher.due, now + INTERVAL_S / 4)
                    soonest = min(soonest, watcher.quiet_until)
            if soonest < inf:
                self._looks_at = soonest
                with trio.move_on_at(soonest):
                    await self._news.wait()
                self._looks_at = inf
                self._news.set()

    async def _bring(self, watcher: _Watcher) -> None:
        state = self._state()
        jobs, frames, slaves = watcher.jobs, watcher.frames, watcher.slaves
        resync, watcher.resync = watcher.resync, False
        watcher.jobs, watcher.frames, watcher.slaves = set(), set(), set()
        wall = state.wall(trio.current_time())
        found = [(number, queries.find_job(state, number)) for number in sorted(jobs)]
        job_views = [queries.job_view(job, wall) for _number, job in found if job is not None]
        jobs_gone = [number for number, job in found if job is None]
        frame_views: tuple[FrameView, ...] = ()
        if frames:
            frame_views = await self._fill(_frame_views(state, sorted(frames)))
        slave_views = [
            queries.slave_view(state.slaves[number]) for number in sorted(slaves) if number in state.slaves
        ]
        slaves_gone = [number for number in sorted(slaves) if number not in state.slaves]
        news = Changed(watch=watcher.number, resync=resync)
        lists = (job_views, jobs_gone, frame_views, slave_views, slaves_gone)
        parts = max(1, *(-(-len(one) // _PART) for one in lists))
        for part in range(parts):
            cut = slice(part * _PART, (part + 1) * _PART)
            one = structs.replace(
                news,
                jobs=tuple(job_views[cut]),
                jobs_gone=tuple(jobs_gone[cut]),
                frames=tuple(frame_views[cut]),
                slaves=tuple(slave_views[cut]),
                slaves_gone=tuple(slaves_gone[cut]),
            )
            _send(watcher.channel, watcher.see(one))


def _frame_views(state: FarmState, keys: list[FrameKey]) -> tuple[FrameView, ...]:
    views = []
    for key in keys:
        job = queries.find_job(state, key.job)
        if job is not None and key.frame < job.layers[key.layer].size:
            views.append(queries.frame_view(job.layers[key.layer], key.frame))
    return tuple(views)


def _send(channel: Channel, news: Changed) -> None:
    """In one packet where it fits, else in several; a single view that fits into none is listed anew."""
    try:
        channel.send(news)
        return
    except LocalProtocolError:
        longest = max(len(news.jobs), len(news.frames), len(news.slaves))
        if longest < 2:
            channel.send(Changed(watch=news.watch, resync=True))
            return
    half = (longest + 1) // 2
    for begin, end in ((0, half), (half, longest)):
        _send(
            channel,
            Changed(
                watch=news.watch,
                jobs=news.jobs[begin:end],
                jobs_gone=news.jobs_gone if begin == 0 else (),
                frames=news.frames[begin:end],
                slaves=news.slaves[begin:end],
                slaves_gone=news.slaves_gone if begin == 0 else (),
                resync=news.resync,
            ),
        )
