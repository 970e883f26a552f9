"""`Portal`: a thread that runs trio with an `AsyncClient` in it, for who blocks; and streams out of it."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import trio

from drqueue.client.async_client import AsyncClient, connect
from drqueue.client.errors import DrQueueError

T = TypeVar("T")

#: How often it is looked whether a signal was missed.
_LOOK_S = 0.5


class Portal:
    """A thread that runs trio with a client in it. For this package's own modules.

    `env` and `lazily` are `connect`'s.
    """

    def __init__(
        self,
        address: str | None,
        patience_s: float,
        *,
        env: Mapping[str, str] | None = None,
        lazily: bool = False,
    ) -> None:
        self._ready: Future[AsyncClient] = Future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._leave = trio.Event()
        self._connect = partial(connect, address, patience_s=patience_s, env=env, lazily=lazily)
        self._thread = threading.Thread(target=self._run, name="drqueue client", daemon=True)
        self._thread.start()
        self.client = self._ready.result()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001  (handed to whoever waits for the thread)
            if not self._ready.done():
                self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with self._connect() as client, trio.open_nursery() as nursery:
            self._nursery = nursery
            self._ready.set_result(client)
            await self._leave.wait()
            nursery.cancel_scope.cancel()

    @property
    def ended(self) -> bool:
        """True once the thread is gone."""
        return not self._thread.is_alive()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` in the thread and wait for what comes of it."""
        future: Future[T] = Future()
        scope = trio.CancelScope()

        async def task() -> None:
            try:
                with scope:
                    future.set_result(await work())
            except Exception as error:  # noqa: BLE001  (raised again where the call was made)
                future.set_exception(error)
            finally:
                if not future.done():
                    future.set_exception(DrQueueError("the client was closed"))

        self._soon(lambda: self._start(task, future))
        try:
            return _result(future)
        except BaseException:
            # Not only Ctrl-C: a handler of an alarm may raise anything.
            if not future.done():
                self._soon(scope.cancel)
            raise

    def _start(self, task: Callable[[], Awaitable[None]], future: "Future[T]") -> None:
        assert self._nursery is not None
        try:
            self._nursery.start_soon(task)
        except RuntimeError:
            future.set_exception(DrQueueError("the client was closed"))

    def _soon(self, work: Callable[[], object]) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(work)
        except trio.RunFinishedError:
            raise DrQueueError("the client was closed") from None

    def close(self) -> None:
        """End the thread; calls that wait in it end with an error."""
        if self._thread.is_alive():
            try:
                self._soon(self._leave.set)
            except DrQueueError:
                pass  # it is ending already
            self._thread.join()


def _result(future: "Future[T]") -> T:
    # Python sees a signal that comes just before it waits for a lock only once it waits no more.
    while not wait((future,), _LOOK_S).done:
        pass
    return future.result()


class Stream(Generic[T]):
    """A blocking iterator over something that happens in the client's thread; `close` ends it."""

    def __init__(self, portal: Portal, source: AsyncIterator[T], end: Callable[[], Awaitable[None]]) -> None:
        self._portal = portal
        self._source = source
        self._end = end

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        done, item = self._portal.call(self._step)
        if done:
            raise StopIteration
        assert item is not None
        return item

    async def _step(self) -> tuple[bool, T | None]:
        try:
            return False, await anext(self._source)
        except StopAsyncIteration:
            return True, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Want no more of it."""
        self._portal.call(self._end)
