"""So many at a time: places that are taken in the order in which they were asked for."""

from collections import deque
from collections.abc import Callable

import trio


class Places:
    """So many places. Who waits for one looks now and then whether it is worth waiting."""

    def __init__(self, most: int, look_s: float = 1.0) -> None:
        self._free = most
        self._look_s = look_s
        self._waiting: deque[trio.Event] = deque()

    async def take(self, vain: Callable[[], bool]) -> bool:
        """Return once there is a place, which is to be given back; False: it is waited for in vain."""
        await trio.lowlevel.checkpoint()
        if self._free and not self._waiting:
            self._free -= 1
            return True
        mine = trio.Event()
        self._waiting.append(mine)
        try:
            while not mine.is_set() and not vain():
                with trio.move_on_after(self._look_s):
                    await mine.wait()
        except BaseException:
            if mine.is_set():
                self.give_back()
            raise
        finally:
            if not mine.is_set():
                self._waiting.remove(mine)
        return mine.is_set()

    def give_back(self) -> None:
        """A place is free; whoever waits longest has it."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
