"""What a role is shown of an answer: viewers see neither commands nor environments.

A frame's sentence and its latest word go, too: they quote commands and logs.
"""

from typing import TypeVar

from msgspec import structs

from drqueue.proto.link_messages import Message
from drqueue.proto.messages import Attempts, Changed, Frames, Job, SlaveInfo, Slaves
from drqueue.proto.roles import Role, reaches
from drqueue.proto.views import AttemptView, FrameView, SlaveView

M = TypeVar("M", bound=Message)


def shown(message: M, role: Role) -> M:
    """The message as somebody of this role may see it."""
    if reaches(role, "artist"):
        return message
    match message:
        case Job():
            layers = tuple(structs.replace(layer, command="") for layer in message.layers)
            return structs.replace(message, layers=layers)
        case Frames() | Changed():
            frames = tuple(_frame(view) for view in message.frames)
            if isinstance(message, Changed):
                return structs.replace(message, frames=frames, slaves=tuple(map(_slave, message.slaves)))
            return structs.replace(message, frames=frames)
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
    return structs.replace(view, running=tuple(_frame(frame) for frame in view.running))
