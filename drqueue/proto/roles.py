"""Who may ask what: one table from request to the least role that it takes.

Rules: a request that is not in the table may be asked by nobody (a test holds the table complete). A node is
no lesser user: it has a link of its own kind and asks nothing. What is somebody's own (OWN) an artist may do
to what he submitted himself, and a supervisor to everything. The same table holds on a slave's control port.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from drqueue.proto import messages, sharing_messages
from drqueue.proto.messages import Request

Role = Literal["viewer", "artist", "supervisor", "admin", "node"]

#: Roles of people, each of which may do all that the former may.
PEOPLE: tuple[Role, ...] = ("viewer", "artist", "supervisor", "admin")


class Who(Struct, frozen=True, kw_only=True):
    """Whom this side is talking to, as it was proven, not as it was said.

    `name` is the person's (whose jobs are whose goes by it) or the node's. `account` is the id of the account
    whose secret was shown, "" on a Unix socket. `peer` is an address, or "uid 1000" on a Unix socket.
    """

    name: str
    role: Role
    account: str = ""
    peer: str = ""


LEAST: Mapping[type[Request], Role] = {
    messages.FarmInfo: "viewer",
    messages.WhoAmI: "viewer",
    messages.ListJobs: "viewer",
    messages.GetJob: "viewer",
    messages.ListFrames: "viewer",
    messages.ListAttempts: "viewer",
    messages.ListSlaves: "viewer",
    messages.GetSlave: "viewer",
    messages.Why: "viewer",
    sharing_messages.ListLimits: "viewer",
    sharing_messages.ListShares: "viewer",
    sharing_messages.ListPools: "viewer",
    messages.Watch: "viewer",
    messages.Unwatch: "viewer",
    messages.GetTicket: "viewer",
    messages.GetSpec: "artist",
    messages.FindLog: "artist",
    messages.ReadLog: "artist",
    messages.Submit: "artist",
    messages.JobVerb: "artist",
    messages.FrameVerb: "artist",
    messages.ChangeJob: "artist",
    messages.KillAttempts: "artist",
    messages.SetLimits: "supervisor",
    messages.SlaveVerb: "supervisor",
    messages.ResumeFarm: "supervisor",
    sharing_messages.PutLimit: "admin",
    sharing_messages.DropLimit: "admin",
    sharing_messages.PutShare: "admin",
    sharing_messages.DropShare: "admin",
    sharing_messages.PutPool: "admin",
    messages.AddLine: "admin",
    messages.ListAccounts: "admin",
    messages.AccountVerb: "admin",
    messages.ListAudit: "admin",
    messages.Examine: "admin",
    messages.BackUp: "admin",
}

#: Requests that an artist may make about what he submitted himself only.
OWN: frozenset[type[Request]] = frozenset(
    {messages.JobVerb, messages.FrameVerb, messages.ChangeJob, messages.KillAttempts}
)


def reaches(role: Role | str, least: Role) -> bool:
    """Whether a role may do what takes at least that role; a node reaches only its own."""
    if role not in PEOPLE or least not in PEOPLE:
        return role == least
    return PEOPLE.index(role) >= PEOPLE.index(least)


def may_ask(role: Role | str, request: Request) -> bool:
    """Whether a role may make a request at all; whose things it touches is not asked here."""
    least = LEAST.get(type(request))
    return least is not None and reaches(role, least)


#: What is told of a variable whose name says that its value is nobody else's business.
HIDDEN_VALUE = "(hidden)"
_TELLING = ("secret", "token", "password", "passwd", "passphrase", "key", "credential")


def is_secret(variable: str) -> bool:
    """Whether a variable's name says that its value is a secret."""
    name = variable.lower()
    return any(word in name for word in _TELLING)


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """An environment as it may be shown: the values of telling names are replaced."""
    return {name: HIDDEN_VALUE if is_secret(name) else value for name, value in env.items()}
