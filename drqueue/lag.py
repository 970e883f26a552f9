"""Loop lag: how late a sleeper in a daemon's loop wakes, over the last minute.

Whatever holds the loop up (a long step, a blocking call, a machine without a free core) holds everybody up
who talks to the daemon, and shows here first. The sleeper naps for NAP_S: a stall as long is met for
certain, a shorter one as often as its length is to that.
"""

from collections import deque
from typing import Final, NoReturn

import trio

from drqueue.proto.views import LoopLag

NAP_S: Final = 0.25
#: As many naps as a minute has.
_KEPT: Final = int(60 / NAP_S)


class LagProbe:
    """Naps in a loop and remembers by how much it overslept."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=_KEPT)

    async def run(self) -> NoReturn:
        """Nap for ever."""
        while True:
            due = trio.current_time() + NAP_S
            await trio.sleep_until(due)
            self._late_s.append(trio.current_time() - due)

    def seen(self) -> LoopLag | None:
        """What the last minute was like; None: nothing yet."""
        late = sorted(self._late_s)
        if not late:
            return None
        return LoopLag(
            median_ms=_ms(late[len(late) // 2]),
            p99_ms=_ms(late[min(len(late) - 1, int(0.99 * len(late)))]),
            most_ms=_ms(late[-1]),
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
