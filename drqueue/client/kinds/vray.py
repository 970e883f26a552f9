"""The kind `vray`: .vrscene files with V-Ray standalone, one call a frame."""

from drqueue.client.kinds.kind import Command, Kind
from drqueue.client.kinds.params import path, whole
from drqueue.client.kinds.words import when

VRAY = Kind(
    "vray",
    "V-Ray",
    "A .vrscene file with V-Ray standalone, one call a frame.",
    (
        path("scene", "the .vrscene file", required=True),
        path("image", "the pictures, with their ending; V-Ray adds the number; default: the scene's"),
        whole("width", "width of the picture", 1, 65536, unit="pixels"),
        whole("height", "height of the picture", 1, 65536, unit="pixels"),
    ),
    Command(
        "frame",
        (
            *("vray", "-scenefile={scene}", when("image", "-imgFile={image}")),
            *(when("width", "-imgWidth={width}"), when("height", "-imgHeight={height}")),
            *("-numThreads={threads}", "-autoClose=1", "-frames={frame}", "-display=0"),
        ),
    ),
)
