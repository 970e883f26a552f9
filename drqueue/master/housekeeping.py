"""What the master does beside its work: old history, audit and logs go, backups are made.

Rules: none of it may end the master or make it wait; what fails is said and tried again later; what is old
goes by the date that the core believes, for the wall clock may be wrong by years.
"""

import os
from collections.abc import Callable
from functools import partial
from math import inf
from time import time

import trio

from drqueue import log
from drqueue.master.history import History
from drqueue.master.storage import Storage, StorageError, StorageFull
from drqueue.master.storage.backups import age_s, make_asked, make_backup
from drqueue.master.storage.statedir import DATABASE
from drqueue.settings import MasterSettings

LOGS_S = 60.0
HISTORY_S = 3600.0
#: The first backup of a farm that has none, or an old one, is not made in the rush of a start.
FIRST_BACKUP_S = 60.0
#: After a backup that failed.
AGAIN_S = 600.0
#: Attempts looked at, and logs dropped, in one transaction.
_BATCH = 2000
_LOGS_BATCH = 200


class Housekeeping:
    """Two tasks: `purge` and `backups`."""

    def __init__(self, settings: MasterSettings, history: History, today: Callable[[], float]) -> None:
        """`today` gives the date, in seconds since 1970, by which something is old."""
        self._today = today
        self._settings = settings
        self._history = history
        self._database = os.path.join(settings.state_dir, DATABASE)
        self._wanted = trio.Event()

    async def purge(self) -> None:
        """Drop history and audit past their ages every hour, and logs beyond their room every minute."""
        keep_bytes = self._settings.logs_keep_mb << 20
        history_due = -inf
        while True:
            try:
                await self._in_batches(lambda storage: storage.purge_logs(keep_bytes, _LOGS_BATCH))
                if trio.current_time() >= history_due:
                    before = self._today() - self._settings.history_days * 86400.0
                    await self._in_batches(partial(_purge_history, before))
                    before = self._today() - self._settings.audit_days * 86400.0
                    await self._in_batches(partial(_purge_audit, before))
                    history_due = trio.current_time() + HISTORY_S
            except StorageFull as error:
                log.warning("nothing old can be dropped now", why=error)
            await trio.sleep(LOGS_S)

    async def _in_batches(self, batch: Callable[[Storage], int]) -> None:
        while await self._history.read(batch):
            # Between batches commits have their turn.
            await trio.lowlevel.checkpoint()

    def back_up_now(self) -> None:
        """Make a backup at once, or after the one that is under way."""
        self._wanted.set()

    async def backups(self) -> None:
        """Make backups, when the newest is too old and whenever they are asked for."""
        every_s = self._settings.backup_hours * 3600.0 or inf
        age = age_s(self._database, time())
        wait_s = every_s
        if every_s < inf:
            wait_s = max(0.0 if age is None else every_s - age, FIRST_BACKUP_S)
        while True:
            with trio.move_on_after(wait_s):
                await self._wanted.wait()
            self._wanted = trio.Event()
            wait_s = every_s if await self._back_up() else min(every_s, AGAIN_S)

    async def back_up_for_somebody(self) -> tuple[str, int]:
        """A backup that is fetched and removed by whoever asks: its name and bytes. Raises StorageError."""
        made = await self._history.beside(lambda storage: make_asked(storage, self._database, time()))
        log.event("backup made for somebody", name=made[0])
        return made

    async def _back_up(self) -> bool:
        begun = trio.current_time()
        try:
            path = await self._history.beside(
                lambda storage: make_backup(storage, self._database, self._settings.backups_keep, time())
            )
        except StorageError as error:
            log.error("backup failed", why=error)
            return False
        log.event("backup made", path=path, seconds=round(trio.current_time() - begun, 1))
        return True


def _purge_audit(before: float, storage: Storage) -> int:
    return storage.purge_audit(before, _BATCH)


def _purge_history(before: float, storage: Storage) -> int:
    return storage.purge(before, _BATCH)
