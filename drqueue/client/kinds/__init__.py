"""Kinds of job: declarations of parameters, of which the command of a layer is built.

`KINDS` has them by name; `find` takes what people write. What a kind is, is in `kind`; what its parameters
are, in `params`. Nothing here but `scripts` does IO.
"""

from drqueue.client.kinds.blender import BLENDER
from drqueue.client.kinds.ffmpeg import FFMPEG
from drqueue.client.kinds.general import GENERAL
from drqueue.client.kinds.kind import Frames, Kind
from drqueue.client.kinds.mantra import MANTRA
from drqueue.client.kinds.maya import MAYA
from drqueue.client.kinds.nuke import NUKE
from drqueue.client.kinds.params import KindError, Param, Values
from drqueue.client.kinds.povray import POVRAY
from drqueue.client.kinds.table import TABLE
from drqueue.client.kinds.tracer import TRACER
from drqueue.client.kinds.vray import VRAY

__all__ = ["KINDS", "Frames", "Kind", "KindError", "Param", "Values", "find"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (GENERAL, BLENDER, POVRAY, FFMPEG, MAYA, NUKE, MANTRA, VRAY, *TABLE, TRACER)
}


def find(name: str) -> Kind:
    """The kind of that name, in upper or lower case; raises KindError."""
    kind = KINDS.get(name.lower())
    if kind is None:
        import difflib  # only a mistake pays for it

        near = difflib.get_close_matches(name.lower(), KINDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        raise KindError(f"there is no kind {name!r}: {hint}")
    return kind
