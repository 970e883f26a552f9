"""What a role is shown of an answer: viewers see neither commands nor environments.

A frame's sentence and its latest word go, too: they quote commands and logs. So does what a job stopped for,
what a slave is sick of, and why that makes frames wait: of these, how the last frame ended goes.
"""

import re
from typing import TypeVar

from msgspec import structs

from drqueue.proto.link_messages import Message
from drqueue.proto.messages import Attempts, Changed, Frames, Job, Jobs, Reasons, SlaveInfo, Slaves
from drqueue.proto.roles import Role, reaches
from drqueue.proto.views import AttemptView, FrameView, JobView, Reason, SlaveView

M = TypeVar("M", bound=Message)


def shown(message: M, role: Role) -> M:
    """The message as somebody of this role may see it."""
    if reaches(role, "artist"):
        return message
    match message:
        case Job():
            layers = tuple(structs.replace(layer, command="") for layer in message.layers)
            return structs.replace(message, job=_job(message.job), layers=layers)
        case Jobs():
            return structs.replace(message, jobs=tuple(map(_job, message.jobs)))
        case Frames():
            return structs.replace(message, frames=tuple(map(_frame, message.frames)))
        case Changed():
            return structs.replace(
                message,
                jobs=tuple(map(_job, message.jobs)),
                frames=tuple(map(_frame, message.frames)),
                slaves=tuple(map(_slave, message.slaves)),
            )
        case Reasons():
            return structs.replace(message, reasons=tuple(map(_reason, message.reasons)))
        case Attempts():
            return structs.replace(message, attempts=tuple(_attempt(view) for view in message.attempts))
        case Slaves():
            return structs.replace(message, slaves=tuple(map(_slave, message.slaves)))
        case SlaveInfo():
            return structs.replace(message, slave=_slave(message.slave))
        case _:
            return message


def _frame(view: FrameView) -> FrameView:
    return structs.replace(view, text="", activity="")


def _attempt(view: AttemptView) -> AttemptView:
    return structs.replace(view, text="")


def _slave(view: SlaveView) -> SlaveView:
    return structs.replace(view, sick=_outline(view.sick), running=tuple(map(_frame, view.running)))


def _job(view: JobView) -> JobView:
    return structs.replace(view, stopped_for=_outline(view.stopped_for)) if view.stopped_for else view


def _reason(reason: Reason) -> Reason:
    return structs.replace(reason, text=_outline(reason.text))


def _outline(text: str) -> str:
    """How many failed, not how the last one did."""
    return re.split(r"[;,] the last\b", text, maxsplit=1)[0]
