"""Ending in good order when a signal says so."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from drqueue.client.cli.common import say

if TYPE_CHECKING:
    import trio


class Ending:
    """Cancels a scope at the first INT, TERM or HUP; later ones change nothing. `by` is that signal."""

    def __init__(self, scope: "trio.CancelScope", text: str) -> None:
        self.by: int | None = None
        self._scope = scope
        self._text = text

    async def watch(self, *, task_status: "trio.TaskStatus[None]") -> None:
        """The task that does it; started once signals are caught."""
        import trio

        ending = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means what it says
            ending.append(signal.SIGHUP)
        with trio.open_signal_receiver(*ending) as signals:
            task_status.started()
            async for number in signals:
                if self.by is None:
                    self.by = number
                    say(self._text)
                self._scope.cancel()


@asynccontextmanager
async def ended_by_signals(text: str) -> "AsyncIterator[Ending]":
    """The body ends at the first INT, TERM or HUP, after saying `text`; what it raises comes out bare."""
    import trio

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            ending = Ending(scope, text)
            await nursery.start(ending.watch)
            try:
                yield ending
            except Exception as error:  # noqa: BLE001  (raised again below)
                # Raised outside the nursery, so that callers meet it bare and not in a group.
                failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
