"""The kind `general`: any command. Its placeholders are its user's business."""

from drqueue.client.kinds.kind import Frames, Kind
from drqueue.client.kinds.params import Param, Values
from drqueue.proto.model import LayerSpec


def _make(kind: Kind, values: Values, frames: Frames) -> LayerSpec:
    return frames.layer(shell=str(values["command"]))


GENERAL = Kind(
    "general",
    "Any command",
    "Any command, with placeholders; see also -- of submit.",
    (
        Param(
            "command",
            "text",
            "the command, for /bin/sh; {frame}, {start}, {end} and so on are filled in",
            required=True,
        ),
    ),
    make=_make,
    classic=("uid_owner", "gid_owner"),
)
