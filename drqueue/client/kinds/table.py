"""Kinds that are no more than a row: parameters, and the command of which they are the options.

Rule: an option stands here only where the renderer is known to have it. What a chunk's step needs is the
matter of `Command.calls`.
"""

from drqueue.client.kinds.kind import Command, Kind
from drqueue.client.kinds.params import (
    MissingError,
    Param,
    Values,
    choice,
    number,
    path,
    switch,
    text,
    whole,
)
from drqueue.client.kinds.words import set_values, when

SCENE = path("scene", "the scene file", required=True)
RES_X = whole("res_x", "width of the picture", 1, 65536, unit="pixels")
RES_Y = whole("res_y", "height of the picture", 1, 65536, unit="pixels")
CAMERA = text("camera", "the camera to render; default: the scene's")
IMAGE = text("image", "name of the pictures, without number and ending")
RENDER_TYPE = choice(
    "render_type",
    "the frames of an animation, or strips of a single picture",
    ("animation", "single"),
    default="animation",
    codes=(("1", "animation"), ("2", "single")),
)
PARTS = whole("parts", "strips of a single picture; default: the highest frame", 1, 10000)
_CROP = (
    switch("custom_crop", "render a part of the picture only"),
    *(number(name, "edge of that part", 0, 1) for name in ("xmin", "xmax", "ymin", "ymax")),
)
_CROP_WORDS = when("custom_crop", "-crop", "{xmin}", "{xmax}", "{ymin}", "{ymax}")


def given_together(kind: str, values: Values, switch_name: str, *names: str) -> None:
    """Raise MissingError where a switch is on and not everything that it is about is given."""
    missing = [name for name in names if name not in values]
    if values.get(switch_name) and missing:
        raise MissingError(f"the kind {kind}: {switch_name} needs {', '.join(missing)}, too")


def _mentalray(values: Values) -> Values:
    if values["render_type"] != "single":
        return values
    missing = [name for name in ("image", "res_x", "res_y") if name not in values]
    if missing:
        raise MissingError(f"the kind mentalray: a single picture needs {', '.join(missing)}, too")
    return set_values(values, format=values.get("format", "iff"))


def _mentalray_command(values: Values) -> Command:
    if values["render_type"] == "single":
        window = ("-window", "0", "{low}", "{res_x}", "{high}")
        name = ("-file_name", "{image}_{frame:04d}.{format}")
        return Command("strip", ("ray", "{scene}", *window, *name), "renderdir", height="res_y")
    size = when("res_x", when("res_y", "-resolution", "{res_x}", "{res_y}"))
    return Command("span", ("ray", "{scene}", size, "-render", "{start}", "{end}"), "renderdir")


def _aqsis(values: Values) -> Values:
    given_together("aqsis", values, "custom_crop", "xmin", "xmax", "ymin", "ymax")
    return values


def _bmrt(values: Values) -> Values:
    given_together("bmrt", values, "custom_crop", "xmin", "xmax", "ymin", "ymax")
    given_together("bmrt", values, "custom_samples", "xsamples", "ysamples")
    given_together("bmrt", values, "custom_radiosity", "radiosity_samples")
    given_together("bmrt", values, "custom_raysamples", "raysamples")
    return values


def _aftereffects(values: Values) -> Values:
    folder, slash, _ = str(values["project"]).rpartition("/")
    return set_values(values, output=values.get("output", f"{folder}{slash}frame_[####].psd"))


def _cinema4d(values: Values) -> Values:
    if not values["wine"]:
        return values
    # Wine calls the root of this machine Z:.
    windows = {
        name: "Z:" + str(values[name]).replace("/", "\\")
        for name in ("scene", "renderdir")
        if str(values[name]).startswith("/")
    }
    return set_values(values, **windows)


def _row(
    name: str,
    title: str,
    help_: str,
    params: tuple[Param, ...],
    command: Command,
    classic: tuple[str, ...] = (),
) -> Kind:
    return Kind(name, title, help_, params, command, classic=classic)


TABLE = (
    Kind(
        "mentalray",
        "mental ray",
        "An animation in .mi files with `ray`, or one picture in strips.",
        (
            path(
                "scene", "the .mi file; an absolute name, or one seen from the render folder", required=True
            ),
            path("renderdir", "folder that the pictures go to", required=True),
            text("image", "name of a single picture's strips, without number and ending"),
            RES_X,
            RES_Y,
            text("format", "ending of a single picture's strips; default iff"),
            RENDER_TYPE,
            PARTS,
        ),
        _mentalray_command,
        complete=_mentalray,
        classic=("camera", "kind"),
    ),
    _row(
        "3delight",
        "3Delight",
        "A RIB file of several frames with `renderdl`.",
        (SCENE,),
        Command("span", ("renderdl", "-frames", "{start}", "{end}", "{scene}")),
    ),
    _row(
        "pixie",
        "Pixie",
        "A RIB file of several frames with `rndr`, one call a frame.",
        (SCENE,),
        Command("frame", ("rndr", "-f", "{frame}", "{scene}")),
    ),
    Kind(
        "aqsis",
        "Aqsis",
        "A RIB file of several frames with `aqsis`.",
        (SCENE, *_CROP),
        Command("span", ("aqsis", "-frames", "{start}", "{end}", _CROP_WORDS, "{scene}")),
        complete=_aqsis,
        classic=("custom_samples", "xsamples", "ysamples", "disp_stats", "verbose", "custom_beep"),
    ),
    Kind(
        "bmrt",
        "BMRT",
        "A RIB file of several frames with `rendrib`.",
        (
            SCENE,
            *_CROP,
            switch("custom_samples", "set the samples of a pixel"),
            whole("xsamples", "samples of a pixel across", 1, 1024),
            whole("ysamples", "samples of a pixel down", 1, 1024),
            switch("disp_stats", "print statistics"),
            switch("verbose", "print what it does"),
            switch("custom_radiosity", "calculate radiosity"),
            whole("radiosity_samples", "samples of radiosity", 1, 1_000_000),
            switch("custom_raysamples", "set the samples of area lights"),
            whole("raysamples", "samples of area lights", 1, 1_000_000),
            switch("custom_beep", "beep at the end"),
        ),
        Command(
            "span",
            (
                *("rendrib", "-frames", "{start}", "{end}", _CROP_WORDS),
                when("custom_samples", "-samples", "{xsamples}", "{ysamples}"),
                when("disp_stats", "-stats"),
                when("verbose", "-v"),
                when("custom_radiosity", "-radio", "{radiosity_samples}"),
                when("custom_raysamples", "-rsamples", "{raysamples}"),
                when("custom_beep", "-beep"),
                "{scene}",
            ),
        ),
        complete=_bmrt,
    ),
    _row(
        "lightwave",
        "LightWave",
        "A scene with the screamernet `lwsn`.",
        (SCENE, path("projectdir", "the content folder"), path("configdir", "folder of the settings")),
        Command(
            "range",
            (
                *("lwsn", "-3", when("configdir", "-c", "{configdir}")),
                when("projectdir", "-d", "{projectdir}"),
                *("-q", "{scene}", "{start}", "{end}", "{step}"),
            ),
        ),
    ),
    _row(
        "shake",
        "Shake",
        "A compositing script.",
        (path("script", "the script", required=True),),
        Command("range", ("shake", "-v", "-t", "{start}-{end}x{step}", "-exec", "{script}")),
    ),
    Kind(
        "aftereffects",
        "After Effects",
        "A composition with `aerender`.",
        (
            path("project", "the project file", required=True),
            text("comp", "the composition", required=True),
            path("output", "where the pictures go; default: frame_[####].psd beside the project"),
        ),
        Command(
            "range",
            (
                *("aerender", "-project", "{project}", "-comp", "{comp}"),
                *("-OMtemplate", "Multi-Machine Sequence", "-RStemplate", "Multi-Machine Settings"),
                *("-s", "{start}", "-e", "{end}", "-i", "{step}", "-output", "{output}"),
            ),
        ),
        complete=_aftereffects,
    ),
    _row(
        "terragen",
        "Terragen",
        "A script with `terragenCLI`.",
        (
            path("scriptfile", "the script", required=True),
            path("worldfile", "the world"),
            path("terrainfile", "the terrain"),
        ),
        Command(
            "range",
            (
                *("terragenCLI", "-hide", "-exit", when("worldfile", "-w{worldfile}")),
                *(when("terrainfile", "-t{terrainfile}"), "-s{scriptfile}"),
                # The first one is what the script's own count begins with.
                *("{start}", "{start}", "{end}", "{step}"),
            ),
        ),
    ),
    _row(
        "turtle",
        "Turtle",
        "A Maya scene with Turtle.",
        (
            SCENE,
            path("renderdir", "folder that the pictures go to", required=True),
            path("projectdir", "the project's folder", required=True),
            IMAGE,
            CAMERA,
            RES_X,
            RES_Y,
            switch("usemaya70", "use the program for Maya 7.0 in place of that for 6.5", default="yes"),
        ),
        Command(
            "span",
            (
                *(when("usemaya70", "Turtle70"), when("!usemaya70", "Turtle65")),
                *("-geometry", "{scene}", "-imageOutputPath", "{renderdir}", "-projectPath", "{projectdir}"),
                *("-renderThreads", "{threads}", "-display", "off"),
                *("-startframe", "{start}", "-endframe", "{end}"),
                *(when("image", "-imageName", "{image}"), when("camera", "-camera", "{camera}")),
                when("res_x", when("res_y", "-resolution", "{res_x}", "{res_y}")),
            ),
        ),
    ),
    _row(
        "xsi",
        "Softimage XSI",
        "A scene with `xsibatch`.",
        (
            path("scene", "the scene; an absolute name, or one seen from the render folder", required=True),
            path("renderdir", "folder to render in", required=True),
            path("xsidir", "folder of the program xsibatch", required=True),
            text("xsipass", "the pass"),
            RES_X,
            RES_Y,
            switch("skipframes", "leave out pictures that are there already"),
        ),
        Command(
            "span",
            (
                *("{xsidir}/xsibatch", "-r", "-scene", "{scene}", "-verbose", "prog"),
                *("-startframe", "{start}", "-endframe", "{end}", when("xsipass", "-pass", "{xsipass}")),
                when("res_x", when("res_y", "-resolutionX", "{res_x}", "-resolutionY", "{res_y}")),
                *("-skip", when("skipframes", "on"), when("!skipframes", "off")),
            ),
            "renderdir",
        ),
        classic=("image", "imageext", "runscript", "scriptrun"),
    ),
    _row(
        "luxrender",
        "LuxRender",
        "Scenes with `luxconsole`, one call a frame.",
        (path("scene", "the .lxs file; #### stands for the frame's number", required=True),),
        Command("frame", ("luxconsole", "{scene:#}")),
        classic=("kind",),
    ),
    _row(
        "3dsmax",
        "3ds Max",
        "A scene with `3dsmaxcmd.exe`.",
        (SCENE, path("image", "where the pictures go; 3ds Max adds the number")),
        Command(
            "once", ("3dsmaxcmd.exe", "-rfw:0", "-frames:{frames}", when("image", "-o", "{image}"), "{scene}")
        ),
    ),
    Kind(
        "cinema4d",
        "CINEMA 4D",
        "A scene with CINEMA 4D, one call a frame.",
        (
            SCENE,
            path("renderdir", "where the pictures go: folder, and name without number", required=True),
            path("program", "the program", default="CINEMA 4D"),
            switch("wine", "the program is one for Windows: run it with wine"),
        ),
        Command(
            "frame",
            (
                *(
                    when("wine", "wine"),
                    "{program}",
                    "-nogui",
                    "-render",
                    "{scene}",
                    "-oimage",
                    "{renderdir}",
                ),
                *("-frame", "{frame}", "-omultipass", "{renderdir}", "-threads", "{threads}"),
            ),
        ),
        complete=_cinema4d,
        classic=("kind",),
    ),
)
