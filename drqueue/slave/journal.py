"""Where the core's records go: the spool, and the files of identity and limits.

Rules: what cannot be written (the disk is full) is kept in memory, in order, and tried again; until it is
written, `whole` is False and nobody may be told of it. Frames go on meanwhile.
"""

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import trio
from msgspec import structs

from drqueue import log
from drqueue.proto.model import SlaveLimits
from drqueue.slave.core.records import (
    Boot,
    FarmLeft,
    LimitsSet,
    MasterSeen,
    Record,
    SpoolRecord,
    from_plain,
    to_bytes,
    to_plain,
)
from drqueue.slave.identity import MAX_PREVIOUS, Identity, load_limits, load_or_create, save, save_limits
from drqueue.slave.spool import Spool
from drqueue.statefile import StateError

SPOOL = "spool"
_Special = FarmLeft | MasterSeen | LimitsSet
_SPECIAL = frozenset((FarmLeft, MasterSeen, LimitsSet))


class Journal:
    """One slave's records on disk. `snapshot` gives the fewest records for the state as it is."""

    def __init__(
        self,
        state_dir: str,
        name: str,
        pools: tuple[str, ...],
        boot_id: str,
        *,
        max_cpus: int | None = None,
        enabled: bool = True,
    ) -> None:
        """Open what is there; raises StateError or OSError.

        `pools` and `max_cpus` count where no limits were ever set; without `enabled` it is disabled anyway.
        """
        self._state_dir = state_dir
        self._boot_id = boot_id
        #: What is not written yet, in order.
        self.unwritten: deque[Record] = deque()
        self._failing = False
        self._draining = trio.Lock()
        self.snapshot: Callable[[], list[SpoolRecord]] | None = None
        self.identity = load_or_create(state_dir, name)
        self.limits = load_limits(state_dir)
        if not os.path.exists(os.path.join(state_dir, "limits.json")):
            self.limits = SlaveLimits(pools=pools, max_cpus=max_cpus)
        if not enabled:
            self.limits = structs.replace(self.limits, enabled=False)
        self._spool = Spool(os.path.join(state_dir, SPOOL))
        if self.identity.cloned:
            aside = self._spool.set_aside("cloned")
            log.warning("this disk or folder is a copy: a new identity was taken", spool=aside)
            self._keep_identity(structs.replace(self.identity, cloned=False))

    @property
    def whole(self) -> bool:
        """Whether everything is written."""
        return not self.unwritten

    def load(self) -> list[SpoolRecord]:
        """What the spool holds; raises StateError for what is not understood, or OSError."""
        records = self._spool.load()
        if self._spool.damaged is not None:
            log.error("the spool was damaged; what followed was kept aside", file=self._spool.damaged)
        try:
            return [from_plain(record) for record in records]
        except ValueError as error:
            path = self._spool.path
            raise StateError(f"{path} holds a record of another version: {error!s:.200}") from error

    def start(self, records: Sequence[SpoolRecord]) -> None:
        """Begin with these records alone. On a full disk the old ones stay, and are as good."""
        self._compact([to_plain(record) for record in records])

    async def commit(self, records: Sequence[Record]) -> None:
        """Write records, or keep them for `retry`."""
        self.unwritten.extend(records)
        try:
            await self._drain()
        except (OSError, StateError) as error:
            self._cannot(error)

    def commit_now(self, records: Sequence[Record]) -> bool:
        """The same for records that go to the spool, while nothing waits; False for all others."""
        if self.unwritten or not _SPECIAL.isdisjoint(map(type, records)):
            return False
        try:
            self._append(records)  # type: ignore[arg-type]
        except OSError as error:
            self.unwritten.extend(records)
            self._cannot(error)
        else:
            self._compact_if_wanted()
        return True

    async def retry(self) -> bool:
        """Try again to write what waits; whether all is written now."""
        try:
            await self._drain()
        except (OSError, StateError):
            return False
        # Else what waited was only being written just then.
        if self._failing:
            log.event("the state directory can be written again")
        self._failing = False
        return True

    def _cannot(self, error: OSError | StateError) -> None:
        if not self._failing:
            log.error(
                "the state directory cannot be written: frames go on, nothing is told", error=_why(error)
            )
        self._failing = True

    async def _drain(self) -> None:
        """Write what waits, in order; OSError or StateError, and the rest goes on waiting."""
        waiting = self.unwritten
        if _SPECIAL.isdisjoint(map(type, waiting)):
            self._append(waiting)  # type: ignore[arg-type]
            waiting.clear()
        else:
            async with self._draining:
                while waiting:
                    if isinstance(waiting[0], _Special):
                        await self._write_special(waiting[0])
                    else:
                        self._append([waiting[0]])
                    waiting.popleft()
        self._compact_if_wanted()

    def _compact_if_wanted(self) -> None:
        if self._spool.wants_compaction and self.snapshot is not None:
            self._compact([to_plain(record) for record in self.snapshot()])

    def _compact(self, plain: list[object]) -> None:
        try:
            self._spool.compact(plain)
        except OSError as error:
            log.error("the spool cannot be compacted", error=error.strerror)

    def _append(self, batch: Iterable[SpoolRecord]) -> None:
        self._spool.append_encoded(map(to_bytes, batch))

    async def _write_special(self, record: FarmLeft | MasterSeen | LimitsSet) -> None:
        match record:
            case LimitsSet(limits):
                await trio.to_thread.run_sync(save_limits, self._state_dir, limits)
                self.limits = limits
            case MasterSeen(farm, epoch, life):
                identity = structs.replace(self.identity, farm=farm, epoch=epoch, life=life)
                await trio.to_thread.run_sync(self._keep_identity, identity)
            case FarmLeft(old):
                await trio.to_thread.run_sync(self._leave_farm, old)

    def _leave_farm(self, old: str) -> None:
        """The identity first: with the new one, what the old spool holds is no longer this slave's."""
        former = self.identity
        previous = (former.id, *former.previous)[:MAX_PREVIOUS]
        fresh = structs.replace(
            former, id=secrets.token_hex(16), previous=previous, farm="", epoch=0, life=""
        )
        self._keep_identity(fresh)
        aside = self._spool.set_aside(f"farm-{old[:8]}")
        self._spool.append([to_plain(Boot(self._boot_id))])
        log.warning("this slave went over to another farm; its former spool was set aside", spool=aside)

    def _keep_identity(self, identity: Identity) -> None:
        save(self._state_dir, identity)
        self.identity = identity

    def close(self) -> None:
        """Close the spool."""
        self._spool.close()


def _why(error: OSError | StateError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
