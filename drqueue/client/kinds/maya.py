"""The kind `maya`: Maya's `Render`.

Rules: `-b` is its step; each renderer has an option of its own for the number of threads, and the one that
the scene names may not know any.
"""

from drqueue.client.kinds.kind import Command, Kind
from drqueue.client.kinds.params import choice, path, text
from drqueue.client.kinds.table import CAMERA, RES_X, RES_Y, SCENE
from drqueue.client.kinds.words import when

MAYA = Kind(
    "maya",
    "Maya",
    "A scene with Maya's command `Render`.",
    (
        SCENE,
        path("renderdir", "folder that the pictures go to", required=True),
        path("projectdir", "the project's folder", required=True),
        text("image", "name of the pictures, without number and ending"),
        CAMERA,
        RES_X,
        RES_Y,
        text("format", "format of the pictures, as Maya calls it"),
        choice(
            "renderer",
            "the renderer; file is the one that the scene names",
            ("sw", "mr", "rman", "file", "arnold", "redshift", "vray", "hw2"),
            default="file",
            codes=(("0", "sw"), ("1", "mr"), ("2", "rman"), ("3", "file")),
        ),
        text("precommand", "MEL to run before a call"),
        text("postcommand", "MEL to run after a call"),
    ),
    Command(
        "range",
        (
            *("Render", when("precommand", "-preRender", "{precommand}")),
            when("postcommand", "-postRender", "{postcommand}"),
            *(when("renderer=mr", "-rt", "{threads}"), when("renderer=sw", "-n", "{threads}")),
            *("-s", "{start}", "-e", "{end}", "-b", "{step}"),
            *(when("res_x", "-x", "{res_x}"), when("res_y", "-y", "{res_y}")),
            *(when("format", "-of", "{format}"), "-rd", "{renderdir}", "-proj", "{projectdir}"),
            *("-r", "{renderer}", when("image", "-im", "{image}"), when("camera", "-cam", "{camera}")),
            "{scene}",
        ),
    ),
)
