"""Requests in a few words, for the audit. Rule: no value of a variable, no command, no token, no secret."""

from typing import Any

from msgspec import UNSET, structs

from drqueue.proto.messages import (
    AccountVerb,
    AddLine,
    ChangeJob,
    FrameVerb,
    JobVerb,
    KillAttempts,
    Request,
    SetLimits,
    SlaveVerb,
    Submit,
)
from drqueue.proto.model import JobChange, LimitsChange
from drqueue.proto.roles import Role

#: Characters of a value.
_VALUE_MOST = 40


def described(request: Request) -> str:
    """What is asked for."""
    match request:
        case Submit(spec=spec):
            return f"submit job {_short(spec.name)!r}"
        case JobVerb():
            return f"{request.verb} job {request.job}"
        case FrameVerb():
            layer = f" layer {_short(request.layer)}" if request.layer else ""
            now = " now" if request.now else ""
            return f"frames {_short(request.frames)} of job {request.job}{layer}: {request.verb}{now}"
        case ChangeJob():
            return f"change job {request.job}: {_changes(request.change)}"
        case KillAttempts():
            which = f"all frames of job {request.job}"
            if request.keys or request.job is None:
                which = f"{len(request.keys)} frames"
                if len({key.job for key in request.keys}) == 1:
                    which += f" of job {request.keys[0].job}"
            return f"slave {_short(request.slave)}: kill {which}"
        case SetLimits():
            return f"slave {_short(request.slave)}: set {_changes(request.change)}"
        case SlaveVerb():
            return f"slave {_short(request.slave)}: {request.verb}"
        case AddLine():
            whom = f" {_short(request.name)}" if request.name else ""
            role = f" as {with_article(request.role)}" if request.kind == "user" else ""
            uses = "" if request.uses == 1 else f", {request.uses} times"
            net = f", from {_short(request.net)}" if request.net else ""
            return f"{request.kind}{whom}: add a line{role} for {request.ttl_s:g} s{uses}{net}"
        case AccountVerb():
            role = f" {request.role}" if request.verb == "set-role" else ""
            return f"{request.kind} {_short(request.name)}: {request.verb}{role}"
        case _:
            return _read(request)


def with_article(role: Role | str) -> str:
    """A role in a sentence."""
    return f"{'an' if role[:1] in 'aeiou' else 'a'} {role}"


def _read(request: Request) -> str:
    what = type(request).__name__
    for name in ("job", "slave"):
        value = getattr(request, name, None)
        if value is not None and value != "":
            what += f" of {name} {_short(str(value))}"
    return what


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
