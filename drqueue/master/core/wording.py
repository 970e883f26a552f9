"""Requests in a few words, for the audit.

Rules: no value of a variable, no command, no token, no secret. What is told by a number or an id is called by
its name, too: by the one that it has before anything is done.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import UNSET, structs

from drqueue.proto.messages import (
    AccountKind,
    AccountVerb,
    AddLine,
    BackUp,
    ChangeJob,
    Examine,
    FarmInfo,
    FindLog,
    FrameVerb,
    GetJob,
    GetSlave,
    GetSpec,
    GetTicket,
    JobVerb,
    KillAttempts,
    ListAccounts,
    ListAttempts,
    ListAudit,
    ListFrames,
    ListJobs,
    ListSlaves,
    ReadLog,
    Request,
    ResumeFarm,
    SetLimits,
    SlaveVerb,
    Submit,
    Unwatch,
    Watch,
    WhoAmI,
    Why,
)
from drqueue.proto.model import JobChange, LimitsChange
from drqueue.proto.roles import Role
from drqueue.proto.sharing_messages import (
    DropLimit,
    DropShare,
    ListLimits,
    ListPools,
    ListShares,
    PutLimit,
    PutPool,
    PutShare,
)

#: Characters of a value.
_VALUE_MOST = 40


class Names(Protocol):
    """Who knows what things are called."""

    def job_name(self, number: int) -> str | None:
        """A job's name, None where there is no such job."""

    def account_name(self, kind: AccountKind, text: str) -> tuple[str, str]:
        """The name of whoever is told by a name or an id, and, told by an id, what has it: account, line."""


def described(request: Request, names: Names | None = None) -> str:
    """What is asked for."""
    match request:
        case Submit(spec=spec):
            return f"submit job {_short(spec.name)!r}"
        case JobVerb():
            return f"{request.verb} {_job(names, request.job)}"
        case FrameVerb():
            layer = f" layer {_short(request.layer)}" if request.layer else ""
            now = " now" if request.now else ""
            job = _job(names, request.job)
            return f"frames {_short(request.frames)} of {job}{layer}: {request.verb}{now}"
        case ChangeJob():
            return f"change {_job(names, request.job)}: {_changes(request.change)}"
        case KillAttempts():
            return f"slave {_short(request.slave)}: kill {_attempts(names, request)}"
        case SetLimits():
            return f"slave {_short(request.slave)}: set {_changes(request.change)}"
        case SlaveVerb():
            return f"slave {_short(request.slave)}: {request.verb}"
        case PutLimit() | DropLimit() | PutShare() | DropShare() | PutPool():
            return _sharing(request)
        case AddLine():
            whom = f" {_short(request.name)}" if request.name else ""
            role = f" as {with_article(request.role)}" if request.role and request.kind == "user" else ""
            uses = "" if request.uses == 1 else f", {request.uses} times"
            net = f", from {_short(request.net)}" if request.net else ""
            return f"{request.kind}{whom}: add a line{role} for {request.ttl_s:g} s{uses}{net}"
        case AccountVerb():
            role = f" {request.role}" if request.verb == "set-role" else ""
            name, which = _account(names, request)
            return f"{request.kind} {_short(name)}: {request.verb}{role}{which}"
        case _:
            return _look(request, names)


def _sharing(request: PutLimit | DropLimit | PutShare | DropShare | PutPool) -> str:
    """What is asked for about limits, shares and pools."""
    match request:
        case PutLimit():
            parts = [] if request.amount is None else [f"{request.amount:g}"]
            parts += [] if request.scope is None else [f"scope {request.scope}"]
            return f"limit {_short(request.name)}: set {', '.join(parts) or 'nothing'}"
        case DropLimit():
            return f"limit {_short(request.name)}: drop"
        case PutShare(share=share):
            parts = [f"weight {share.weight:g}"]
            parts += [f"minimum {share.minimum:g}"] if share.minimum else []
            parts += [] if share.burst is None else [f"burst {share.burst:g}"]
            whose = f"{share.of} {_short(share.name)}"
            return f"share of {whose} in {_short(share.pool) or 'all pools'}: {', '.join(parts)}"
        case DropShare():
            return (
                f"share of {request.of} {_short(request.name)} in {_short(request.pool) or 'all pools'}: drop"
            )
        case PutPool():
            return f"pool {_short(request.name)}: {request.policy}"


def with_article(role: Role | str) -> str:
    """A role in a sentence."""
    return f"{'an' if role[:1] in 'aeiou' else 'a'} {role}"


def _look(request: Request, names: Names | None) -> str:
    """What is asked for that changes nothing."""
    match request:
        case GetJob():
            return f"see {_job(names, request.job)}"
        case GetSpec():
            return f"see the commands of {_job(names, request.job)}"
        case ListFrames():
            return f"list frames of {_job(names, request.job)}"
        case ListAttempts():
            return f"list attempts of {_job(names, request.job)}"
        case Why():
            return f"ask why {_job(names, request.job)} waits"
        case FindLog():
            return f"read a log of {_job(names, request.job)}"
        case ReadLog():
            return f"read a log of {_job(names, request.key.job)}"
        case GetSlave():
            return f"see slave {_short(request.slave)}"
        case GetTicket():
            return f"reach slave {_short(request.slave)}"
        case Examine():
            return f"examine {f'slave {_short(request.slave)}' if request.slave else 'the master'}"
        case ListAccounts():
            who = "nodes" if request.kind == "node" else "people"
            return f"list {who}{' that wait' if request.pending else ''}"
        case _:
            return _LOOKS.get(type(request)) or type(request).__name__


_LOOKS: Mapping[type[Request], str] = {
    FarmInfo: "see the farm",
    ResumeFarm: "resume the farm",
    BackUp: "back up the master",
    ListAudit: "read the audit",
    ListJobs: "list jobs",
    ListLimits: "list limits",
    ListPools: "list pools",
    ListShares: "list shares",
    ListSlaves: "list slaves",
    Unwatch: "watch no longer",
    Watch: "watch the farm",
    WhoAmI: "ask who they are",
}


def _job(names: Names | None, number: int) -> str:
    name = None if names is None else names.job_name(number)
    return f"job {number}" + ("" if name is None else f" {_short(name)!r}")


def _attempts(names: Names | None, request: KillAttempts) -> str:
    if request.job is not None and not request.keys:
        return f"all frames of {_job(names, request.job)}"
    count = len(request.keys)
    of = f" of {_job(names, request.keys[0].job)}" if len({key.job for key in request.keys}) == 1 else ""
    return f"{count} frame{'' if count == 1 else 's'}{of}"


def _account(names: Names | None, request: AccountVerb) -> tuple[str, str]:
    """Whom a verb is about by name, and which of theirs, where it was told by its id."""
    if names is None:
        return request.name, ""
    name, what = names.account_name(request.kind, request.name)
    if what == "account" and request.kind == "user":
        what = "login"
    return name or "(any)", f" ({what} {_short(request.name)})" if what else ""


def _changes(change: JobChange | LimitsChange) -> str:
    parts = [
        f"{name}={_value(value)}"
        for name, value in structs.asdict(change).items()
        if value is not UNSET and value != ()
    ]
    return ", ".join(parts) or "nothing"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "off"
    if isinstance(value, tuple):
        return _short("+".join(_value(part) for part in value))
    if isinstance(value, float):
        return f"{value:g}"
    if hasattr(value, "__struct_fields__"):
        fields = structs.asdict(value).items()
        return _short("(" + " ".join(f"{name} {_value(part)}" for name, part in fields if part) + ")")
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_MOST else text[: _VALUE_MOST - 1] + "…"
