"""Requests in a few words, for the audit.

Rules: no value of a variable, no command, no token, no secret. What is told by a number or an id is called by
its name, too: by the one that it has before anything is done.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, structs

from drqueue.master.core.state import FarmState
from drqueue.proto.messages import (
    AccountVerb,
    AddLine,
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

#: Characters of a value.
_VALUE_MOST = 40
#: Characters of a line's hash that name it.
LINE_ID = 16


def described(request: Request, state: FarmState | None = None) -> str:
    """What is asked for; with `state`, by which names."""
    match request:
        case Submit(spec=spec):
            return f"submit job {_short(spec.name)!r}"
        case JobVerb():
            return f"{request.verb} {_job(state, request.job)}"
        case FrameVerb():
            layer = f" layer {_short(request.layer)}" if request.layer else ""
            now = " now" if request.now else ""
            job = _job(state, request.job)
            return f"frames {_short(request.frames)} of {job}{layer}: {request.verb}{now}"
        case ChangeJob():
            return f"change {_job(state, request.job)}: {_changes(request.change)}"
        case KillAttempts():
            return f"slave {_short(request.slave)}: kill {_attempts(state, request)}"
        case SetLimits():
            return f"slave {_short(request.slave)}: set {_changes(request.change)}"
        case SlaveVerb():
            return f"slave {_short(request.slave)}: {request.verb}"
        case AddLine():
            whom = f" {_short(request.name)}" if request.name else ""
            role = f" as {with_article(request.role)}" if request.role and request.kind == "user" else ""
            uses = "" if request.uses == 1 else f", {request.uses} times"
            net = f", from {_short(request.net)}" if request.net else ""
            return f"{request.kind}{whom}: add a line{role} for {request.ttl_s:g} s{uses}{net}"
        case AccountVerb():
            role = f" {request.role}" if request.verb == "set-role" else ""
            name, which = _account(state, request)
            return f"{request.kind} {_short(name)}: {request.verb}{role}{which}"
        case _:
            return _look(request, state)


def with_article(role: Role | str) -> str:
    """A role in a sentence."""
    return f"{'an' if role[:1] in 'aeiou' else 'a'} {role}"


def _look(request: Request, state: FarmState | None) -> str:
    """What is asked for that changes nothing."""
    match request:
        case GetJob():
            return f"see {_job(state, request.job)}"
        case GetSpec():
            return f"see the commands of {_job(state, request.job)}"
        case ListFrames():
            return f"list frames of {_job(state, request.job)}"
        case ListAttempts():
            return f"list attempts of {_job(state, request.job)}"
        case Why():
            return f"ask why {_job(state, request.job)} waits"
        case FindLog():
            return f"read a log of {_job(state, request.job)}"
        case ReadLog():
            return f"read a log of {_job(state, request.key.job)}"
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
    ListAudit: "read the audit",
    ListJobs: "list jobs",
    ListSlaves: "list slaves",
    Unwatch: "watch no longer",
    Watch: "watch the farm",
    WhoAmI: "ask who they are",
}


def _job(state: FarmState | None, number: int) -> str:
    job = None if state is None else state.jobs.get(number)
    return f"job {number}" + ("" if job is None else f" {_short(job.spec.name)!r}")


def _attempts(state: FarmState | None, request: KillAttempts) -> str:
    if request.job is not None and not request.keys:
        return f"all frames of {_job(state, request.job)}"
    count = len(request.keys)
    of = f" of {_job(state, request.keys[0].job)}" if len({key.job for key in request.keys}) == 1 else ""
    return f"{count} frame{'' if count == 1 else 's'}{of}"


def _account(state: FarmState | None, request: AccountVerb) -> tuple[str, str]:
    """Whom a verb is about by name, and which of theirs, where it was told by its id."""
    number = request.name
    if state is None or state.register.named(request.kind, number):
        return number, ""
    account = state.register.accounts.get(number)
    if account is not None and account.kind == request.kind:
        return account.name, f" ({'login' if account.kind == 'user' else 'account'} {number})"
    if request.verb == "revoke":
        for line in state.register.lines.values():
            if line.kind == request.kind and line.token_hash[:LINE_ID] == number:
                return line.name or "(any)", f" (line {number})"
    return number, ""


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
