"""What a job of each kind tells about itself: `job.koji.MEMBER.FIELD`.

Rules of this file: names are the original's. There the members shared their memory; here each keeps its own,
and the one that belongs to `job.koj` counts. Nothing is run from them: the command is `job.cmd`.
"""
# ruff: noqa: N801, N815  (the original's names)

from typing import Final

from drqueue.client.binding import constants as c
from drqueue.client.binding.fields import PATH_MOST, Nested, Struct, Text, unsigned


class koji_general(Struct):
    """A command."""

    scriptdir = Text(PATH_MOST)


class koji_maya(Struct):
    """Maya."""

    scene = Text(PATH_MOST)
    renderdir = Text(PATH_MOST)
    projectdir = Text(PATH_MOST)
    precommand = Text(PATH_MOST)
    postcommand = Text(PATH_MOST)
    image = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_mentalray(Struct):
    """Mental Ray."""

    scene = Text(PATH_MOST)
    renderdir = Text(PATH_MOST)
    image = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_blender(Struct):
    """Blender."""

    scene = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_pixie(Struct):
    """Pixie."""

    scene = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_threedelight(Struct):
    """3Delight."""

    scene = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_nuke(Struct):
    """Nuke."""

    scene = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_aqsis(Struct):
    """Aqsis."""

    scene = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_lightwave(Struct):
    """Lightwave."""

    scene = Text(PATH_MOST)
    projectdir = Text(PATH_MOST)
    configdir = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_terragen(Struct):
    """Terragen."""

    scriptfile = Text(PATH_MOST)
    worldfile = Text(PATH_MOST)
    terrainfile = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_mantra(Struct):
    """Mantra."""

    scene = Text(PATH_MOST)
    renderdir = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_aftereffects(Struct):
    """After Effects."""

    project = Text(PATH_MOST)
    comp = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_shake(Struct):
    """Shake."""

    script = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_turtle(Struct):
    """Turtle."""

    scene = Text(PATH_MOST)
    renderdir = Text(PATH_MOST)
    projectdir = Text(PATH_MOST)
    camera = Text(PATH_MOST)
    resx = unsigned(32)
    resy = unsigned(32)
    image = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_xsi(Struct):
    """XSI."""

    scene = Text(PATH_MOST)
    xsipass = Text(PATH_MOST)
    renderdir = Text(PATH_MOST)
    image = Text(PATH_MOST)
    imageExt = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_luxrender(Struct):
    """Luxrender."""

    scene = Text(PATH_MOST)
    script = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_vray(Struct):
    """V-Ray."""

    script = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_threedsmax(Struct):
    """3ds Max."""

    scene = Text(PATH_MOST)
    script = Text(PATH_MOST)
    image = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)


class koji_bmrt(Struct):
    """BMRT, which the original dropped in 2010."""

    scene = Text(PATH_MOST)
    viewcmd = Text(PATH_MOST)
    custom_crop = unsigned(8)
    xmin = unsigned(32)
    xmax = unsigned(32)
    ymin = unsigned(32)
    ymax = unsigned(32)
    custom_samples = unsigned(8)
    xsamples = unsigned(32)
    ysamples = unsigned(32)
    disp_stats = unsigned(8)
    verbose = unsigned(8)
    custom_beep = unsigned(8)
    custom_radiosity = unsigned(8)
    radiosity_samples = unsigned(32)
    custom_raysamples = unsigned(8)
    raysamples = unsigned(32)


class koji(Struct):
    """A member for each kind of job."""

    general = Nested(koji_general)
    maya = Nested(koji_maya)
    mentalray = Nested(koji_mentalray)
    blender = Nested(koji_blender)
    pixie = Nested(koji_pixie)
    threedelight = Nested(koji_threedelight)
    nuke = Nested(koji_nuke)
    aqsis = Nested(koji_aqsis)
    lightwave = Nested(koji_lightwave)
    terragen = Nested(koji_terragen)
    mantra = Nested(koji_mantra)
    aftereffects = Nested(koji_aftereffects)
    shake = Nested(koji_shake)
    turtle = Nested(koji_turtle)
    xsi = Nested(koji_xsi)
    luxrender = Nested(koji_luxrender)
    vray = Nested(koji_vray)
    threedsmax = Nested(koji_threedsmax)
    bmrt = Nested(koji_bmrt)


MEMBERS: Final = {
    c.KOJ_GENERAL: "general",
    c.KOJ_MAYA: "maya",
    c.KOJ_BLENDER: "blender",
    c.KOJ_BMRT: "bmrt",
    c.KOJ_3DELIGHT: "threedelight",
    c.KOJ_PIXIE: "pixie",
    c.KOJ_MENTALRAY: "mentalray",
    c.KOJ_LIGHTWAVE: "lightwave",
    c.KOJ_AFTEREFFECTS: "aftereffects",
    c.KOJ_SHAKE: "shake",
    c.KOJ_AQSIS: "aqsis",
    c.KOJ_TERRAGEN: "terragen",
    c.KOJ_NUKE: "nuke",
    c.KOJ_TURTLE: "turtle",
    c.KOJ_MANTRA: "mantra",
    c.KOJ_XSI: "xsi",
    c.KOJ_LUXRENDER: "luxrender",
    c.KOJ_VRAY: "vray",
    c.KOJ_3DSMAX: "threedsmax",
}
"""Which member of `job.koji` belongs to which kind of job (KOJ_*)."""
