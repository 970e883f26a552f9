"""How the binding's calls reach the farm: no call makes a connection of its own, none has to be closed.

Rules: what DRQUEUE_MASTER and its kin say is read anew at each call. A client is made when first needed and
kept, one for each place that they name; it dials when it must, so a master that restarts between two calls is
not noticed. A child after a fork makes its own. Any number of threads may call. Whatever goes wrong becomes a
`RequestError` with a text of the original's, and `done` turns that into 0.
"""

import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from drqueue.client.async_client import AsyncClient
from drqueue.client.binding.constants import (
    DRE_ANSWERNOTRIGHT,
    DRE_COMMPROBLEM,
    DRE_CONNMASTER,
    DRE_DIFVERSION,
    DRE_NOERROR,
    DRE_NOTREGISTERED,
    error_text,
)
from drqueue.client.errors import (
    DrQueueError,
    MasterUnreachable,
    NotFound,
    NotLoggedIn,
    Refused,
    VersionMismatch,
    WrongCertificate,
)
from drqueue.client.link import LinkLost
from drqueue.client.portal import Portal
from drqueue.settings import SettingsError

__all__ = [
    "RequestError",
    "last_error",
]

#: Seconds for which a call goes on trying while no master answers: the original tried three times, 2 s apart.
PATIENCE_S = 4.0
#: Clients that are kept; beyond that the one unused for longest is closed.
KEPT = 8
#: The variables that say where a master is.
_PLACES = (
    "DRQUEUE_MASTER", "DRQUEUE_STATE_DIR", "DRQUEUE_ACCESS", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME",
)  # fmt: skip

T = TypeVar("T")


class RequestError(OSError):
    """A request that was not done; its text begins with one of the original's.

    `more` follows it: after a colon, or as a sentence of its own where the original's text is one.
    """

    def __init__(self, text: str, more: str = "") -> None:
        if more and text.endswith("."):
            text = f"{text} {more[0].upper()}{more[1:]}"
        elif more:
            text = f"{text}: {more}"
        super().__init__(text)


@dataclass(eq=False)
class _Kept:
    portal: Portal
    callers: int = 0


class _Table:
    """The clients of this process, the one used last at the end."""

    def __init__(self) -> None:
        self._inherited: list[dict[tuple[str | None, ...], _Kept]] = []
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str | None, ...], _Kept] = {}

    def forked(self) -> None:
        """Begin anew in a child; what the parent has is kept, so that nothing of it is ended from here."""
        self._inherited.append(self._kept)
        self._begin()

    @contextmanager
    def portal(self) -> Iterator[Portal]:
        """The client of the places named now, for one call."""
        key = tuple(os.environ.get(name) for name in _PLACES)
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is None or kept.portal.ended:
                kept = _Kept(Portal(None, PATIENCE_S, env=dict(os.environ), lazily=True))
            self._kept[key] = kept
            kept.callers += 1
            idle = [name for name, other in self._kept.items() if not other.callers]
            surplus = [self._kept.pop(name) for name in idle[: max(0, len(self._kept) - KEPT)]]
        try:
            for other in surplus:
                other.portal.close()
            yield kept.portal
        finally:
            with self._lock:
                kept.callers -= 1

    def close(self) -> None:
        """End them all."""
        with self._lock:
            ended = list(self._kept.values())
            self._kept.clear()
        for kept in ended:
            kept.portal.close()


_table = _Table()
os.register_at_fork(after_in_child=_table.forked)
_thread = threading.local()


def ask(work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Run `work` with the farm's client and return what comes of it. Raises RequestError."""
    _thread.error = error_text(DRE_NOERROR)
    try:
        with _table.portal() as portal:
            return portal.call(lambda: work(portal.client))
    except RequestError as failed:
        _thread.error = str(failed)
        raise
    except (DrQueueError, LinkLost, SettingsError) as error:
        failure = _failure(error)
        _thread.error = str(failure)
        raise failure from error


def done(work: Callable[[AsyncClient], Awaitable[object]]) -> int:
    """The same for a plain function of the original: 1 once it is done, 0 where it failed."""
    try:
        ask(work)
    except RequestError:
        return 0
    return 1


def last_error() -> str:
    """Why this thread's latest request returned 0 or raised; "No error" where it did neither."""
    return getattr(_thread, "error", error_text(DRE_NOERROR))


def close() -> None:
    """Leave all farms; the next call links anew."""
    _table.close()


atexit.register(close)


def _failure(error: Exception) -> RequestError:
    match error:
        case MasterUnreachable() | NotLoggedIn() | WrongCertificate() | SettingsError():
            code = DRE_CONNMASTER
        case VersionMismatch():
            code = DRE_DIFVERSION
        case NotFound():
            code = DRE_NOTREGISTERED
        case Refused():
            code = DRE_ANSWERNOTRIGHT
        case _:
            code = DRE_COMMPROBLEM
    return RequestError(error_text(code), str(error))
