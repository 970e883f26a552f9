"""What clients ask that the core does not answer: tickets, the audit, how the master's machine does.

Rules: who may ask was looked at before; nothing is changed here. A Unix socket's path is told only to those
who are on this machine themselves, and only of slaves that are, too.
"""

from collections.abc import Awaitable, Callable

import trio
from msgspec import structs

from drqueue.master.core import queries
from drqueue.master.core.audit import audit_page
from drqueue.master.core.core import Core
from drqueue.master.core.rights import Refused
from drqueue.master.core.state import Slave
from drqueue.master.past import Reader
from drqueue.proto.messages import Audit, Examine, Findings, GetTicket, ListAudit, LogPlace, Ticket
from drqueue.proto.roles import Who
from drqueue.proto.tickets import LIFE_S, Claim, issue, slave_key
from drqueue.proto.views import Finding

#: Clients that may wait for news of the audit at once, and how long one request may (seconds).
_WAITING_MOST = 64
_WAIT_MOST_S = 60.0

Look = Callable[[], Awaitable[tuple[Finding, ...]]]


class Desk:
    """Answers of the shell's own. `look` examines the master and its machine."""

    def __init__(self, core: Core, history: Reader, look: Look) -> None:
        self._core = core
        self._history = history
        self._look = look
        self._news = trio.Event()
        self._waiting = 0

    # -- tickets ------------------------------------------------------------------------------------

    def ticket(self, who: Who, request: GetTicket) -> Ticket:
        """A ticket for the one slave meant, and where its port is. Raises Refused."""
        state, policy = self._core.state, self._core.turn.policy
        found = queries.find_slaves(state, request.slave)
        if not found:
            raise Refused("no-such-slave", f"there is no slave {request.slave!r:.80}")
        if len(found) > 1:
            names = ", ".join(slave.name for slave in found[:20])
            raise Refused("ambiguous-slave", f"{request.slave!r:.80} may be any of {names}: say which")
        (slave,) = found
        control, pin = self._reached(slave, who)
        if not pin:
            return Ticket(rq=request.rq, slave=slave.id, name=slave.name, control=control)
        claim = Claim(
            name=who.name,
            role=who.role,
            account=who.account,
            slave=slave.id,
            expires_at=state.wall(trio.current_time()) + LIFE_S,
        )
        key = slave_key(policy.ticket_seed, slave.id, slave.generation)
        return Ticket(
            rq=request.rq,
            slave=slave.id,
            name=slave.name,
            control=control,
            pin=pin,
            ticket=issue(claim, key),
        )

    def _reached(self, slave: Slave, who: Who) -> tuple[str, str]:
        """A slave's control address for somebody, and the pin of what it shows there; "" where none is."""
        if slave.control.startswith("unix:"):
            return control_for(slave, who), ""
        account = self._core.state.register.accounts.get(slave.account)
        # Without a generation it was told no key in this life of the master's.
        if account is None or not account.pin or not slave.control or not slave.generation:
            return "", ""
        return slave.control, account.pin

    def place_for(self, who: Who, place: LogPlace) -> LogPlace:
        """Where a log lies, as somebody may be told."""
        if not place.control:
            return place
        found = [slave for slave in self._core.state.slaves.values() if slave.name == place.slave]
        return structs.replace(place, control=control_for(found[0], who) if found else "")

    # -- the audit ------------------------------------------------------------------------------------

    def audited(self) -> None:
        """There are new rows."""
        self._news.set()
        self._news = trio.Event()

    async def audit(self, request: ListAudit) -> Audit:
        """Rows of the audit, waited for where there are none yet. Raises Refused."""
        deadline = trio.current_time() + min(request.wait_s, _WAIT_MOST_S)
        while True:
            # Before the look: what comes while it is under way is no less news.
            news = self._news
            answer = await self._rows(request)
            left = deadline - trio.current_time()
            if answer.rows or request.latest or left <= 0:
                return answer
            if self._waiting >= _WAITING_MOST:
                raise Refused("too-many", f"{_WAITING_MOST} others wait for news of the audit: ask later")
            self._waiting += 1
            try:
                with trio.move_on_after(left):
                    await news.wait()
            finally:
                self._waiting -= 1

    async def _rows(self, request: ListAudit) -> Audit:
        rows = await self._history.read(
            lambda storage: storage.audit(request.cursor, request.limit, request.latest)
        )
        return audit_page(rows, request.rq, request.cursor)

    # -- examination ----------------------------------------------------------------------------------

    async def examine(self, request: Examine) -> Findings:
        """How the master and its machine do."""
        return Findings(rq=request.rq, findings=await self._look())


def is_local(who: Who) -> bool:
    """Whether somebody is on the master's own machine, on its Unix socket."""
    return not who.account


def control_for(slave: Slave, who: Who) -> str:
    """A slave's control address for somebody: a path only where both are on this machine."""
    if slave.control.startswith("unix:") and not (is_local(who) and not slave.account):
        return ""
    return slave.control
