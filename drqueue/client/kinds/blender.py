"""The kind `blender`: an animation, or one picture in strips.

Rules, each for something that Blender answers with exit status 0:
* it obeys its options in their order: the file, what changes it, the order to render last;
* a scene or camera that does not exist must stop it, or it renders another one (`_PREPARE` looks);
* a Python error ends it, but only where --python-exit-code stands before the script;
* pictures that are there already are rendered again, whatever the file says: one may be half written;
* `-s 10 -e 7 -a` renders nothing, so frames are named by `-f`, in any order;
* negative frames count from the scene's end there, so they are refused;
* a movie cannot be rendered in parts, so a file that would write one is refused.
"""

import posixpath

import msgspec

from drqueue.client.kinds.kind import Command, Frames, Kind, command_layer
from drqueue.client.kinds.params import KindError, MissingError, Values, choice, path, switch, text, whole
from drqueue.client.kinds.table import PARTS, RENDER_TYPE
from drqueue.client.kinds.words import as_output, has_number, numbered, set_values, when
from drqueue.proto.model import LayerSpec

#: Formats of pictures, and the endings that Blender takes for theirs; the first one it adds by itself.
ENDINGS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "OPEN_EXR": (".exr",),
    "OPEN_EXR_MULTILAYER": (".exr",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "TGA": (".tga",),
    "HDR": (".hdr",),
    "WEBP": (".webp",),
}
_BY_ENDING = {ending: name for name, endings in reversed(ENDINGS.items()) for ending in endings}

# Runs inside Blender, after the file and all options, before the order to render.
_PREPARE = """\
import bpy, sys
told = dict(word.split("=", 1) for word in sys.argv[sys.argv.index("--") + 2:])
scene = bpy.context.scene
render = scene.render
if told.get("scene", scene.name) != scene.name:
    raise SystemExit("drqueue: there is no scene %r in this file" % told["scene"])
if "camera" in told:
    camera = scene.objects.get(told["camera"])
    if camera is None or camera.type != "CAMERA":
        raise SystemExit("drqueue: there is no camera %r in scene %r" % (told["camera"], scene.name))
    scene.camera = camera
    for marker in scene.timeline_markers:
        marker.camera = None
if render.is_movie_format:
    raise SystemExit("drqueue: this file writes a movie; name a format of single pictures")
render.use_overwrite, render.use_placeholder = True, False
if "width" in told:
    render.resolution_x, render.resolution_percentage = int(told["width"]), 100
if "height" in told:
    render.resolution_y, render.resolution_percentage = int(told["height"]), 100
if "percentage" in told:
    render.resolution_percentage = int(told["percentage"])
"""
_STRIP = """\
rows = render.resolution_y * render.resolution_percentage // 100
part, parts = int(told["part"]), int(told["parts"])
low, high = rows * (parts - part) // parts, rows * (parts - part + 1) // parts
if parts > rows:
    raise SystemExit("drqueue: %d strips are more than the picture's %d rows" % (parts, rows))
render.use_border = render.use_crop_to_border = True
render.border_min_x, render.border_max_x = 0, 1
# Blender cuts fractions of a row off.
render.border_min_y, render.border_max_y = (low + 0.25) / rows, min(1, (high + 0.25) / rows)
scene.frame_set(int(told["frame"]))
bpy.ops.render.render(write_still=True)
"""

_OPEN = (
    *("blender", "-b", when("factory_startup", "--factory-startup"), when("autoexec", "--enable-autoexec")),
    *("--python-exit-code", "3", "{scene}", when("scene_name", "-S", "{scene_name}")),
    *(when("engine", "-E", "{engine}"), when("format", "-F", "{format}", "-x", "1"), "-t", "{threads}"),
    when("python", "--python", "{python}"),
)
_TO = when("output", "-o", "{output}")
_TOLD = (
    *("--", "drqueue", when("scene_name", "scene={scene_name}"), when("camera", "camera={camera}")),
    *(when("width", "width={width}"), when("height", "height={height}")),
    when("percentage", "percentage={percentage}"),
)
_ANIMATION = Command("dots", (*_OPEN, _TO, "--python-expr", _PREPARE, "-f", "{dots}", *_TOLD))
# The number in its names is that of the strip, which Blender does not know.
_SINGLE = Command(
    "strip",
    (
        *(*_OPEN, "-o", "{output:#}", "--python-expr", _PREPARE + _STRIP),
        *(*_TOLD, "part={part}", "parts={parts}", "frame={still}"),
    ),
)


def _complete(values: Values) -> Values:
    single = values["render_type"] == "single"
    output = str(values.get("output", ""))
    if not output:
        if single:
            raise MissingError("the kind blender: strips of a single picture need an output")
        return values
    stem, ending = posixpath.splitext(output)
    name = str(values.get("format", "")) or _BY_ENDING.get(ending.lower(), "")
    if ending.lower() in _BY_ENDING:
        if ending.lower() not in ENDINGS[name]:
            raise KindError(f"the kind blender: {name} pictures do not end with {ending}")
    else:
        stem, ending = output, ENDINGS[name][0] if name else ""
    stem = stem if has_number(stem) else f"{stem}####"
    if single and not name:
        raise MissingError("the kind blender: strips of a single picture need a format")
    return set_values(values, output=stem + ending, format=name)


def _make(kind: Kind, values: Values, frames: Frames) -> LayerSpec:
    if frames.range().min < 0:
        raise KindError(
            "the kind blender: Blender takes a negative frame for one counted from the scene's end"
        )
    layer = command_layer(kind, values, frames)
    if "output" not in values or "format" not in values:
        return layer
    output = str(values["output"])
    if output.startswith("//"):  # seen from the file
        output = posixpath.join(posixpath.dirname(str(values["scene"])), output[2:])
    return msgspec.structs.replace(layer, outputs=as_output(numbered(output)))


def _command(values: Values) -> Command:
    return _SINGLE if values["render_type"] == "single" else _ANIMATION


BLENDER = Kind(
    "blender",
    "Blender",
    "A scene: an animation, or one picture in strips.",
    (
        path("scene", "the .blend file", required=True),
        path(
            "output",
            "the pictures; #### stands for the frame's number, // for the scene's folder; default: as in the "
            "scene, and then nobody can tell whether they were made",
        ),
        choice(
            "format", "format of the pictures; default: by the output's ending, else the scene's", ENDINGS
        ),
        text("engine", "the engine, as CYCLES or BLENDER_EEVEE; default: the scene's"),
        text("scene_name", "the scene inside the file; default: the one it was saved with"),
        text("camera", "the camera; default: the scene's"),
        whole("width", "width of the picture", 4, 65536, unit="pixels"),
        whole("height", "height of the picture", 4, 65536, unit="pixels"),
        whole("percentage", "size in parts of the full one", 1, 32767, unit="%"),
        path("python", "script to run in Blender before rendering"),
        RENDER_TYPE,
        PARTS,
        whole("still", "which frame the single picture shows", 0, 1_048_574, default="1"),
        switch("autoexec", "let the file's own scripts and drivers run"),
        switch("factory_startup", "leave the node's preferences and add-ons aside"),
    ),
    _command,
    _make,
    _complete,
    classic=("kind",),
)
