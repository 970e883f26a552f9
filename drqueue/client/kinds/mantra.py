"""The kind `mantra`: .ifd files of Houdini, one call a frame.

Rule: a parameter that is given has its option; there is no second one that switches it on.
"""

from drqueue.client.kinds.kind import Command, Kind
from drqueue.client.kinds.params import Values, choice, number, path, switch, text, whole
from drqueue.client.kinds.words import has_number, set_values, when


def _complete(values: Values) -> Values:
    scene, image = str(values["scene"]), str(values["renderdir"])
    return set_values(
        values,
        scene=scene if has_number(scene) else f"{scene}####.ifd",
        renderdir=image if has_number(image) else f"{image}####.{values['type']}",
    )


MANTRA = Kind(
    "mantra",
    "Mantra",
    "Houdini's .ifd files, one call a frame.",
    (
        path(
            "scene",
            "the .ifd files; #### stands for the frame's number, without it ####.ifd is added",
            required=True,
        ),
        path(
            "renderdir",
            "the pictures; #### stands for the frame's number, without it ####.TYPE is added",
            required=True,
        ),
        text("type", "ending of the pictures", default="pic"),
        switch("aaoff", "no antialiasing (-A)"),
        switch("raytrace", "no ray tracing (-r)"),
        whole("bucket", "edge of a bucket", 1, 4096, unit="pixels"),
        number("lod", "level of detail", 0, 1000),
        number("varyaa", "variance for antialiasing", 0, 1000),
        whole("bdepth", "bits of a colour", 1, 64),
        choice("zdepth", "how depth is stored: the average, or the nearest", ("average", "nearest")),
        whole("cracks", "prevention of cracks", 0, 1_000_000),
        number("quality", "shading quality", 0, 1_000_000),
        number("qfiner", "finer quality", 0, 1_000_000),
        number("smultiplier", "multiplier of shading", 0, 1_000_000),
        whole("mpcache", "cache of micropolygons (-G)", 0),
        whole("mcache", "cache of meshes (-g)", 0),
        whole("smpolygon", "polygons at which a mesh is split", 0),
        whole("width", "width of the picture", 1, 65536, unit="pixels"),
        whole("height", "height of the picture", 1, 65536, unit="pixels"),
    ),
    Command(
        "frame",
        (
            *("mantra", "-f", "{scene:#}", when("aaoff", "-A"), when("raytrace", "-r")),
            *(when("bucket", "-B", "{bucket}"), when("lod", "-L", "{lod}"), when("varyaa", "-v", "{varyaa}")),
            *(when("bdepth", "-b", "{bdepth}"), when("zdepth=average", "-z"), when("zdepth=nearest", "-Z")),
            *(when("cracks", "-c", "{cracks}"), when("quality", "-q", "{quality}")),
            *(when("qfiner", "-Q", "{qfiner}"), when("smultiplier", "-s", "{smultiplier}")),
            *(when("mpcache", "-G", "{mpcache}"), when("mcache", "-g", "{mcache}")),
            *(when("smpolygon", "-S", "{smpolygon}"), when("width", "-w", "{width}")),
            *(when("height", "-h", "{height}"), "{renderdir:#}"),
        ),
        output="renderdir",
    ),
    complete=_complete,
)
