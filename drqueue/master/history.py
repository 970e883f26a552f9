"""Storage in its one worker thread: commits for the engine, look-ups for clients' links; backups beside.

A full disk is waited out: the commit under way is tried again until it works, nothing that depends on
it is said meanwhile, and `alarm` holds a sentence for whoever asks. Any other failure ends the master.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from drqueue import log
from drqueue.master.core.records import AnyRecord
from drqueue.master.storage import Storage, StorageFull

T = TypeVar("T")

_RETRY_S = 1.0


class History:
    """All access to storage while the master runs; one call at a time, in order."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turns = trio.CapacityLimiter(1)
        self._beside = trio.CapacityLimiter(1)
        self.alarm = ""

    async def commit(self, records: Sequence[AnyRecord]) -> None:
        """Return once the records are durable, however long a full disk takes to be mended."""
        while True:
            try:
                await trio.to_thread.run_sync(self._storage.commit, records, limiter=self._turns)
            except StorageFull as error:
                if not self.alarm:
                    self.alarm = f"the master cannot write: {error}"
                    log.error("disk full", why=error)
                await trio.sleep(_RETRY_S)
            else:
                if self.alarm:
                    self.alarm = ""
                    log.event("disk has room again")
                return

    async def read(self, ask: Callable[[Storage], T]) -> T:
        """What `ask` returns, called with the storage in its thread."""
        return await trio.to_thread.run_sync(ask, self._storage, limiter=self._turns)

    async def beside(self, ask: Callable[[Storage], T]) -> T:
        """The same while commits go on: for what takes long, and may run beside them (a backup).

        A cancelled one is left to itself; it ends when the storage is closed.
        """
        return await trio.to_thread.run_sync(ask, self._storage, limiter=self._beside, abandon_on_cancel=True)
