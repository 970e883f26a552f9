"""The daemon's care for frames without a keeper: it tells of them, signals them and reports their ends."""

import time
from collections.abc import Callable

import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave.core.processes import KEEPER_DIED, ProcessEnded, ProcessEvent, ProcessStarted
from drqueue.slave.orphans import Orphan


class Orphanage:
    """All orphans of a slave; `nursery` is there while the supervisor runs."""

    def __init__(self, deliver: Callable[[ProcessEvent], None]) -> None:
        self._deliver = deliver
        self._orphans: dict[AttemptKey, Orphan] = {}
        self.nursery: trio.Nursery | None = None

    def __contains__(self, key: AttemptKey) -> bool:
        return key in self._orphans

    def adopt(self, orphan: Orphan, known: bool) -> None:
        """Watch a frame until it ends; `known`: where it runs was told before."""
        if not known:
            self._deliver(ProcessStarted(orphan.key, orphan.pid, orphan.birth, orphan.started_at))
        self._orphans[orphan.key] = orphan
        if self.nursery is not None:
            self.nursery.start_soon(self._watch, orphan)

    def signal(self, key: AttemptKey, kill: bool) -> None:
        """Send TERM, or KILL until nothing is left, to all processes of one of these."""
        orphan = self._orphans[key]
        if not kill:
            orphan.terminate()
        elif self.nursery is not None:
            self.nursery.start_soon(orphan.kill)

    def kill_all(self) -> None:
        """Kill all of them until nothing is left."""
        for key in self._orphans:
            self.signal(key, kill=True)

    async def _watch(self, orphan: Orphan) -> None:
        await orphan.ended()
        del self._orphans[orphan.key]
        now = time.time()
        self._deliver(ProcessEnded(orphan.key, None, None, 0.0, 0, orphan.started_at, now, 0, KEEPER_DIED))
