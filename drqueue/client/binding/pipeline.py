"""Many questions under way at once: a list takes as long as its slowest answer, not as all in a row."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

T = TypeVar("T")
U = TypeVar("U")

#: Questions of one call that wait for their answers at a time.
AT_ONCE = 64


async def each(items: Iterable[U], ask: Callable[[U], Awaitable[T]]) -> list[T]:
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


async def both(one: Callable[[], Awaitable[T]], other: Callable[[], Awaitable[U]]) -> tuple[T, U]:
    """What the two return, asked at the same time."""
    first: list[T] = []
    second: list[U] = []

    async def ask_one() -> None:
        first.append(await one())

    async def ask_other() -> None:
        second.append(await other())

    await each((ask_one, ask_other), lambda ask: ask())
    return first[0], second[0]
