"""What a client iterates over: pages of a long list, and changes as they happen.

They are plain objects, not generators: leaving a loop early needs no clean-up ceremony.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from drqueue.client.link import ChangeQueue, Link, LinkLost
from drqueue.proto.messages import Changed, Watch

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient

T = TypeVar("T")


class Pages(Generic[T]):
    """A list answer, fetched page by page while it is iterated over."""

    def __init__(self, fetch: Callable[[int], Awaitable[tuple[tuple[T, ...], int | None]]]) -> None:
        self._fetch = fetch
        self._cursor: int | None = 0
        self._items: deque[T] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._cursor is None:
                raise StopAsyncIteration
            page, self._cursor = await self._fetch(self._cursor)
            self._items.extend(page)
        return self._items.popleft()

    async def all(self) -> tuple[T, ...]:
        """Everything that is left, in one tuple."""
        return tuple([item async for item in self])


class Changes:
    """Changes as they happen; after a reconnect (and for slow readers) one says `resync`: list anew.

    Iterate over it, or use `async with` first to be sure that the watch stands before anything else is asked.
    """

    def __init__(self, client: "AsyncClient", request: Watch, patience_s: float) -> None:
        self._client = client
        self._request = request
        self._patience_s = patience_s
        self._link: Link | None = None
        self._queue: ChangeQueue | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        await self._stand()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the watch."""
        self._ended = True
        if self._link is not None and self._queue is not None:
            self._link.unwatch(self._queue)
        self._link = self._queue = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changed:
        while not self._ended:
            queue = await self._stand()
            try:
                return await queue.get()
            except LinkLost:
                # What changed meanwhile was said to nobody: stand anew and have everything listed.
                self._queue = None
                await self._stand()
                return Changed(watch=0, resync=True)
        raise StopAsyncIteration

    async def _stand(self) -> ChangeQueue:
        if self._queue is None:
            self._link, self._queue = await self._client.stand_watch(self._request, self._patience_s)
        return self._queue
