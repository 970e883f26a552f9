"""What a farm can be asked about who may use it: accounts, join lines, the audit, and an examination.

Rules: as in `asking`. An account goes by its name, its id, or the code under which it waits to be approved.
"""

from collections import deque
from typing import Self

from drqueue.client.asking import PAGE, RESTART_PATIENCE_S, Asking, Did
from drqueue.client.errors import DrQueueError
from drqueue.client.streams import Pages
from drqueue.proto import messages
from drqueue.proto.messages import AccountKind, AccountRole, AccountVerbName, Request
from drqueue.proto.views import AccountView, AuditView, Finding

#: How long the master may hold a request for new rows of the audit, in seconds.
LONG_POLL_S = 10.0


class AuditRows:
    """Rows of the audit as they are written, as an async iterator; goes on after a restart of the master."""

    def __init__(self, farm: "AccountCalls", latest: int, patience_s: float) -> None:
        self._farm = farm
        self._latest = latest
        self._patience_s = patience_s
        self._cursor: int | None = None
        self._rows: deque[AuditView] = deque()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AuditView:
        if not self._rows:
            self._rows.extend(await self.together())
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.popleft()

    async def together(self) -> tuple[AuditView, ...]:
        """All that is there once there is something; nothing only after `aclose`."""
        rows: tuple[AuditView, ...] = ()
        while not rows and not self._ended:
            rows = await self._fetch()
        return rows

    async def aclose(self) -> None:
        """Want no more of them."""
        self._ended = True
        self._rows.clear()

    async def _fetch(self) -> tuple[AuditView, ...]:
        if self._cursor is None:
            self._cursor = max(0, await self._farm.audit_end(self._patience_s) - self._latest)
        request = messages.ListAudit(rq=0, cursor=self._cursor, limit=PAGE, wait_s=LONG_POLL_S)
        page = await self._farm.read(request, messages.Audit, self._patience_s)
        self._cursor = page.next
        return page.rows


class AccountCalls(Asking):
    """The calls of `AsyncClient` that are about who may use the farm."""

    async def whoami(self) -> messages.You:
        """Who the master takes this client for."""
        return await self._read(messages.WhoAmI(rq=0), messages.You)

    async def add_line(
        self,
        kind: AccountKind,
        *,
        name: str = "",
        role: AccountRole | None = None,
        ttl_s: float = 3600,
        uses: int = 1,
        net: str = "",
    ) -> messages.TheLine:
        """A line that brings a node, or the person `name` in this role, to the farm.

        Without `role` they have the one that they have already, or are an artist. The line is good for
        `ttl_s` seconds and `uses` times, from the network `net` (CIDR) if that is given. It is never shown
        again.
        """
        request = messages.AddLine(rq=0, kind=kind, name=name, role=role, ttl_s=ttl_s, uses=uses, net=net)
        return await self._ask(request, messages.TheLine, again=False)

    async def accounts(self, kind: AccountKind, *, pending: bool = False) -> tuple[AccountView, ...]:
        """Accounts of nodes or of people, and lines not used up; with `pending` what waits for approval."""

        async def fetch(cursor: int) -> tuple[tuple[AccountView, ...], int | None]:
            request = messages.ListAccounts(rq=0, kind=kind, pending=pending, cursor=cursor, limit=PAGE)
            answer = await self._read(request, messages.Accounts)
            return answer.accounts, answer.next

        return await Pages(fetch).all()

    async def revoke_account(self, kind: AccountKind, name: str) -> Did:
        """Take an account away, and all its links and lines."""
        return await self._account_verb(kind, name, "revoke")

    async def rotate_account(self, kind: AccountKind, name: str) -> "Did | messages.TheLine":
        """Have an account get a new secret; a line where somebody has to paste one for that."""
        answer = await self._account_answer(kind, name, "rotate")
        return answer if isinstance(answer, messages.TheLine) else Did(answer.count, answer.note)

    async def approve_node(self, name: str) -> Did:
        """Let in a node that waits; `name` is the code that it shows, or its name."""
        return await self._account_verb("node", name, "approve")

    async def reject_node(self, name: str) -> Did:
        """Turn away a node that waits."""
        return await self._account_verb("node", name, "reject")

    async def set_role(self, name: str, role: AccountRole) -> Did:
        """Give a person another role."""
        return await self._account_verb("user", name, "set-role", role)

    async def audit(self, latest: int = 100) -> tuple[AuditView, ...]:
        """The last so many rows of what was done and refused, oldest first."""
        end = await self.audit_end(self._patience_s)
        cursor = max(0, end - latest)
        rows: list[AuditView] = []
        while cursor < end:
            request = messages.ListAudit(rq=0, cursor=cursor, limit=PAGE)
            page = await self._read(request, messages.Audit)
            if not page.rows:
                break
            rows += (row for row in page.rows if row.id < end)
            cursor = page.next
        return tuple(rows)

    def follow_audit(self, latest: int = 0, *, patience_s: float = RESTART_PATIENCE_S) -> AuditRows:
        """Rows of the audit as they are written, after the last so many that are there."""
        return AuditRows(self, latest, patience_s)

    async def examine(self, slave: str = "") -> tuple[Finding, ...]:
        """What is well and what is not with the master and its machine, or with the slave of that name."""
        if not slave:
            return (await self._read(messages.Examine(rq=0), messages.Findings)).findings
        directly, relayed = messages.Examine(rq=0), messages.Examine(rq=0, slave=slave)
        return (await self._read_slave(slave, directly, relayed, messages.Findings)).findings

    async def audit_end(self, patience_s: float) -> int:
        """Where the next row of the audit will come, for this package's own modules; rows have no gaps."""
        request = messages.ListAudit(rq=0, latest=1, limit=1)
        return (await self.read(request, messages.Audit, patience_s)).next

    async def _account_verb(
        self, kind: AccountKind, name: str, verb: AccountVerbName, role: AccountRole = "artist"
    ) -> Did:
        answer = await self._account_answer(kind, name, verb, role)
        return Did(answer.count if isinstance(answer, messages.Done) else 0, answer.note)

    async def _account_answer(
        self, kind: AccountKind, name: str, verb: AccountVerbName, role: AccountRole = "artist"
    ) -> messages.Done | messages.TheLine:
        request = messages.AccountVerb(rq=0, kind=kind, name=name, verb=verb, role=role)
        answer = await self._ask(request, Request, again=False)
        if isinstance(answer, messages.Done | messages.TheLine):
            return answer
        raise DrQueueError(f"the master answered {verb} with {type(answer).__name__}")
