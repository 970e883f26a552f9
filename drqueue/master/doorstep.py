"""Who may stand before the gate, and what is told of those who failed there. No IO, no clock.

Rules: at most `MOST` links that have not proven anything. Where all places are taken and another waits, the
oldest goes that has been silent for `SILENT_S`, or has not come to its word in `SLOW_S`. An address with more
than `FAILURES` failures within `WINDOW_S` has `SHARE` places. A failure is told at once where it is the
address's first; those that follow are counted and told every `WINDOW_S`. At most `ADDRESSES` addresses are
told apart. Links that have proven who they are do not stand here: any number of them may come from anywhere.
"""

import math
from collections import deque
from typing import NamedTuple

MOST = 64
SHARE = 8
FAILURES = 10
WINDOW_S = 60.0
SILENT_S = 1.0
SLOW_S = 3.0
ADDRESSES = 1000
#: Takes the place of all addresses beyond those that are told apart.
ELSEWHERE = "elsewhere"


class Notice(NamedTuple):
    """What failed at an address (the latest of it), and how often since it was told last."""

    address: str
    what: str
    times: int


class _Visitor:
    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.came = self.heard = now

    @property
    def leaves_at(self) -> float:
        """When it has been too slow where others wait."""
        return math.inf if self.heard == math.inf else min(self.heard + SILENT_S, self.came + SLOW_S)


class _Culprit:
    def __init__(self, now: float) -> None:
        self.failures: deque[float] = deque(maxlen=FAILURES + 1)
        self.due = now + WINDOW_S
        #: Nothing was told of it yet.
        self.silent = True
        self.what = ""
        self.count = 0


class Doorstep:
    """The book of links that have proven nothing yet, and of addresses that failed. Times in seconds."""

    def __init__(self) -> None:
        # Oldest first.
        self._visitors: dict[int, _Visitor] = {}
        self._culprits: dict[str, _Culprit] = {}

    # -- places -----------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return len(self._visitors) >= MOST

    def crowded(self, address: str, now: float) -> bool:
        """Whether an address that failed too often has all the places that it gets."""
        culprit = self._culprits.get(address)
        if culprit is None or len(culprit.failures) <= FAILURES or now - culprit.failures[0] > WINDOW_S:
            return False
        return sum(visitor.address == address for visitor in self._visitors.values()) >= SHARE

    def came(self, link: int, address: str, now: float) -> None:
        """A link takes a place."""
        self._visitors[link] = _Visitor(address, now)

    def heard(self, link: int, now: float) -> None:
        """The last word of a link came then."""
        if link in self._visitors:
            self._visitors[link].heard = now

    def judged(self, link: int) -> None:
        """It has said its word: from now on it waits for this side."""
        self.heard(link, math.inf)

    def left(self, link: int) -> None:
        """Its place is free: it proved who it is, or went."""
        self._visitors.pop(link, None)

    def silent(self, now: float, address: str = "") -> int | None:
        """The oldest link, of all or of an address, that has been silent too long where others wait."""
        for link, visitor in self._visitors.items():
            if now >= visitor.leaves_at and address in ("", visitor.address):
                return link
        return None

    def silent_at(self) -> float:
        """When the next link will have been silent too long."""
        return min((visitor.leaves_at for visitor in self._visitors.values()), default=math.inf)

    # -- failures ---------------------------------------------------------------------------------

    def failed(
        self, address: str, what: str, now: float, *, counts: bool = True, told: bool = False
    ) -> Notice | None:
        """Note a failure; returns what is to be told at once.

        Unless it `counts`, it is only told; where it is `told` by others already, it only counts.
        """
        if address not in self._culprits and len(self._culprits) >= ADDRESSES:
            address = ELSEWHERE
        culprit = self._culprits.get(address)
        if culprit is None:
            culprit = self._culprits[address] = _Culprit(now)
        if counts:
            culprit.failures.append(now)
        if told:
            return None
        if culprit.silent:
            culprit.silent = False
            return Notice(address, what, 1)
        culprit.what = what
        culprit.count += 1
        return None

    def due(self, now: float) -> list[Notice]:
        """What is to be told now of failures that were only counted; who has none left is forgotten."""
        notices = []
        for address, culprit in list(self._culprits.items()):
            if culprit.due > now:
                continue
            if not culprit.count:
                if not culprit.failures or now - culprit.failures[-1] >= WINDOW_S:
                    del self._culprits[address]
                else:
                    culprit.silent, culprit.due = True, now + WINDOW_S
                continue
            notices.append(Notice(address, culprit.what, culprit.count))
            culprit.count = 0
            culprit.due = now + WINDOW_S
        return notices

    def due_at(self) -> float:
        """When `due` will have something to do."""
        return min((culprit.due for culprit in self._culprits.values()), default=math.inf)
