"""What people did, and were refused, straight at this slave: told to the master, for its audit.

Rules: what happens while there is no link waits, at most WAITING_MAX entries; of more, the oldest go, and
how many is told in their place. The same refusal of the same person is told once within AGAIN_S. No value
that somebody sent in is quoted but limits.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import UNSET, structs

from drqueue.proto.link_messages import Acted, Message
from drqueue.proto.messages import Examine, GetSlave, KillAttempts, ReadLog, Request, SetLimits
from drqueue.proto.model import LimitsChange
from drqueue.proto.roles import Who

WAITING_MAX = 1000
AGAIN_S = 60.0
#: Refusals that are remembered for that.
_REMEMBERED = 1000
_VALUE_MAX = 40


class Acts:
    """Tells of acts in order.

    `send` returns False while there is no master to hear; `clock` is the master's wall clock.
    """

    def __init__(self, send: Callable[[Message], bool], clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._waiting: deque[Acted] = deque()
        self._dropped = 0
        self._refused: dict[tuple[str, ...], float] = {}

    def done(self, who: Who, request: Request) -> None:
        """Somebody changed something."""
        self._put(who, request, "done")

    def refused(self, who: Who, request: Request, code: str) -> None:
        """Somebody was refused."""
        key, now = (who.name, who.peer, described(request), code), self._clock()
        # Also where the clock went back: a master may be set right.
        if abs(now - self._refused.get(key, -AGAIN_S)) < AGAIN_S:
            return
        self._refused.pop(key, None)
        self._refused[key] = now
        if len(self._refused) > _REMEMBERED:
            del self._refused[next(iter(self._refused))]
        self._put(who, request, code)

    def _put(self, who: Who, request: Request, outcome: str) -> None:
        self._waiting.append(
            Acted(
                at=max(0.0, self._clock()),
                who=who.name,
                role=who.role,
                peer=who.peer,
                what=described(request),
                outcome=outcome,
            )
        )
        if len(self._waiting) > WAITING_MAX:
            self._waiting.popleft()
            self._dropped += 1
        self.tell()

    def tell(self) -> None:
        """Tell all that waits, where there is somebody to tell."""
        if self._dropped:
            what = f"{self._dropped} older entries were dropped: there was no link for too long"
            lost = Acted(at=max(0.0, self._clock()), who="", role="node", peer="", what=what, outcome="lost")
            if not self._send(lost):
                return
            self._dropped = 0
        while self._waiting and self._send(self._waiting[0]):
            self._waiting.popleft()


def described(request: Request) -> str:
    """A request in a few words."""
    match request:
        case SetLimits(change=change):
            return f"set {_changes(change)}"
        case KillAttempts(keys=(), job=job):
            return f"kill all frames of job {job}"
        case KillAttempts(keys=keys):
            jobs = {key.job for key in keys}
            frames = "1 frame" if len(keys) == 1 else f"{len(keys)} frames"
            return f"kill {frames}" + (f" of job {jobs.pop()}" if len(jobs) == 1 else "")
        case ReadLog(key=key):
            return f"read a log of job {key.job}"
        case GetSlave():
            return "look at the slave"
        case Examine():
            return "examine the slave"
        case _:
            return f"ask {type(request).__name__}"


def _changes(change: LimitsChange) -> str:
    fields = structs.asdict(change).items()
    parts = [f"{name}={_value(value)}" for name, value in fields if value is not UNSET and value != ()]
    return ", ".join(parts) or "nothing"


def _value(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "+".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= _VALUE_MAX else f"{text[: _VALUE_MAX - 1]}…"
