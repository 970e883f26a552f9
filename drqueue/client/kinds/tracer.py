"""The kind `tracer`: the ray tracer that ships with DrQueue, for trying out a farm."""

import sys
from pathlib import Path

from drqueue.client.kinds.kind import Frames, Kind
from drqueue.client.kinds.params import KindError, Values, number, path, whole
from drqueue.client.kinds.words import Ref, Var, Word, as_argv, as_output, has_number, numbered
from drqueue.proto.model import LayerSpec

TRACER_FILE = Path(__file__).resolve().parent.parent / "demo" / "tracer.py"


def _make(kind: Kind, values: Values, frames: Frames) -> LayerSpec:
    output = str(values["output"])
    if not has_number(output):
        raise KindError(f"the kind tracer: output needs #### for the frame's number, as in {output}_####.png")
    loop = int(values.get("loop", max(1, frames.range().max)))
    words: list[Word] = [
        (str(values.get("python", sys.executable)),),
        *(("-I",), ("-S",), (str(TRACER_FILE),)),
        # Its own hash signs are the frame's number.
        *(("-o",), (Ref("output", output),), ("-f",), (Var("frames"),)),
        *(("--frames",), (str(loop),), ("--size",), (f"{values['width']}x{values['height']}",)),
        *(("--samples",), (str(values["samples"]),)),
    ]
    if "sleep" in values:
        words += [("--sleep",), (f"{values['sleep']:g}",)]
    return frames.layer(argv=as_argv(words), outputs=as_output(numbered(output)))


TRACER = Kind(
    "tracer",
    "Bundled ray tracer",
    "Seven balls on a floor, for trying out a farm.",
    (
        path("output", "the pictures; #### is the number", default="frame_####.png"),
        whole("loop", "frames of the whole loop; default: the highest frame", 1, 1_000_000),
        whole("width", "width of the picture", 1, 16384, default="160", unit="pixels"),
        whole("height", "height of the picture", 1, 16384, default="90", unit="pixels"),
        whole("samples", "rays for each pixel", 1, 4096, default="1"),
        number("sleep", "seconds to wait before each frame", 0, 86400),
        path("python", "the Python to run it with; default: the one that submits"),
    ),
    make=_make,
)
