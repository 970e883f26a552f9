"""Storage in its one worker thread: commits for the engine, look-ups for clients' links; backups beside.

A full disk is waited out, and so is a want of descriptors: the commit under way is tried again until it
works, nothing that depends on it is said meanwhile, and `alarm` holds a sentence for whoever asks. Any other
failure ends the master.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from drqueue import log
from drqueue.master.core.records import AnyRecord
from drqueue.master.storage import Storage, StorageFull
from drqueue.master.worker import Worker

T = TypeVar("T")

_RETRY_S = 1.0


class History:
    """All access to storage while the master runs; one call at a time, in order."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._worker = Worker("storage")
        self._beside = trio.CapacityLimiter(1)
        self.alarm = ""

    async def commit(self, records: Sequence[AnyRecord]) -> None:
        """Return once the records are durable, however long it takes until there is room."""
        while True:
            try:
                await self._worker.run(partial(self._storage.commit, records))
            except StorageFull as error:
                if not self.alarm:
                    self.alarm = f"the master cannot write: {error}"
                    log.error("cannot write, and waits", why=error)
                await trio.sleep(_RETRY_S)
            else:
                if self.alarm:
                    self.alarm = ""
                    log.event("can write again")
                return

    async def read(self, ask: Callable[[Storage], T]) -> T:
        """What `ask` returns, called with the storage in its thread."""
        return await self._worker.run(partial(ask, self._storage))

    async def beside(self, ask: Callable[[Storage], T]) -> T:
        """The same while commits go on: for what takes long, and may run beside them (a backup).

        A cancelled one is left to itself; it ends when the storage is closed.
        """
        return await trio.to_thread.run_sync(ask, self._storage, limiter=self._beside, abandon_on_cancel=True)
