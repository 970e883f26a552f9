"""The kind `nuke`: the Write nodes of a Nuke script."""

from drqueue.client.kinds.kind import Command, Kind
from drqueue.client.kinds.params import path, switch, text
from drqueue.client.kinds.words import when

NUKE = Kind(
    "nuke",
    "Nuke",
    "The Write nodes of a script, or one of them.",
    (
        path("scene", "the script (.nk)", required=True),
        text("write", "the Write node to execute; default: all that are not disabled"),
        switch("proxy", "render at proxy size"),
        switch("interactive", "take an interactive licence in place of one for rendering"),
        switch("verbose", "print what it does"),
    ),
    Command(
        "range",
        (
            *("nuke", when("interactive", "-i"), when("proxy", "-p"), when("verbose", "-V")),
            *(when("write", "-X", "{write}"), when("!write", "-x"), "-m", "{threads}"),
            *("-F", "{start}-{end}x{step}", "{scene}"),
        ),
    ),
)
