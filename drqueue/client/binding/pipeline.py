"""Many questions under way at once: a list takes as long as its slowest answer, not as all of them in a row."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

I = TypeVar("I")  # noqa: E741  (an item)
T = TypeVar("T")

#: Questions of one call that wait for their answers at a time.
AT_ONCE = 64


async def each(items: Iterable[I], ask: Callable[[I], Awaitable[T]]) -> list[T]:
    """What `ask` returns for each of the items, in their order; the first error ends the others."""
    wanted = list(items)
    answers: dict[int, T] = {}
    failures: list[Exception] = []
    rest = iter(enumerate(wanted))

    async def work(nursery: trio.Nursery) -> None:
        for place, item in rest:
            try:
                answers[place] = await ask(item)
            except Exception as error:  # noqa: BLE001  (raised below, outside the nursery and its groups)
                failures.append(error)
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(wanted))):
            nursery.start_soon(work, nursery)
    if failures:
        raise failures[0]
    return [answers[place] for place in range(len(wanted))]
