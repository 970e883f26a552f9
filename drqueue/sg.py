"""The original's script generators: `drqueue.sg.maya(scene=..., ...)` writes a job script, returns its path.

Each takes the parameters of its kind, in upper or lower case, `scriptdir` and `file_owner`, and raises
ScriptError; `drqueue.client.kinds.scripts` says what a script is.
"""

from collections.abc import Callable
from functools import partial

from drqueue.client.kinds import KINDS
from drqueue.client.kinds.scripts import ANY_SCRIPT, ScriptError, default_script_dir, write

__all__ = [
    "ScriptError",
    "aftereffects",
    "aqsis",
    "blender",
    "bmrt",
    "cinema4d",
    "default_script_dir",
    "general",
    "lightwave",
    "luxrender",
    "mantra",
    "maya",
    "mentalray",
    "nuke",
    "pixie",
    "shake",
    "terragen",
    "threedelight",
    "threedsmax",
    "turtle",
    "vray",
    "xsi",
]


def _generator(name: str) -> Callable[..., str]:
    return partial(write, KINDS[name])


Generator = Callable[..., str]

general: Generator = partial(write, ANY_SCRIPT)
maya = _generator("maya")
mentalray = _generator("mentalray")
blender = _generator("blender")
threedelight = _generator("3delight")
pixie = _generator("pixie")
aqsis = _generator("aqsis")
bmrt = _generator("bmrt")
mantra = _generator("mantra")
lightwave = _generator("lightwave")
nuke = _generator("nuke")
shake = _generator("shake")
aftereffects = _generator("aftereffects")
terragen = _generator("terragen")
turtle = _generator("turtle")
xsi = _generator("xsi")
luxrender = _generator("luxrender")
vray = _generator("vray")
threedsmax = _generator("3dsmax")
cinema4d = _generator("cinema4d")


def __getattr__(name: str) -> Generator:
    """The names that Python cannot write: `getattr(drqueue.sg, "3delight")`."""
    if name in ("3delight", "3dsmax"):
        return _generator(name)
    raise AttributeError(f"module 'drqueue.sg' has no attribute {name!r}")
