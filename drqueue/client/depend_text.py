"""Dependencies as people write them: for `--depend`, in job files, and where they are shown.

    12                 all frames of job 12 are DONE
    12:ended           all frames of job 12 are over, however they ended
    12/render          all frames of its layer `render`
    12:any  12:50%     any one of its frames, or half of them
    12:each  12/render:each-1:ended    frame n waits for frame n, or n - 1, of its first layer, or of `render`

In a layer of a job file `sim`, `sim:any`, `sim:each+1` are of a layer of the same job, and `previous` waits
for the frame before. A layer of the same job that is called 12, or `previous`, takes a table in its place.
"""

import re
from typing import Any, Final

from drqueue.proto.model import Depend, LayerDepend

_FORM: Final = "ID, ID/LAYER, and then :any, :50%, :each or :each-1, and :ended"
_LAYER_FORM: Final = "LAYER, ID or ID/LAYER, and then :any, :50%, :each or :each-1, and :ended"
_JOB: Final = re.compile(r"(?P<job>[0-9]{1,15})(?:/(?P<layer>[^/:]+))?")
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_EACH: Final = re.compile(r"each([-+][0-9]{1,15})?")


class DependTextError(ValueError):
    """A dependency that cannot be read; the text is one sentence."""


def parse_depend(text: str) -> Depend | LayerDepend:
    """What a job waits for; a LayerDepend where that is frame by frame. Raises DependTextError."""
    target, fields = _split(text, _FORM)
    match = _JOB.fullmatch(target)
    if match is None:
        raise DependTextError(f"{text[:60]!r} is no dependency: {_FORM}")
    job, layer = int(match["job"]), match["layer"] or ""
    if fields.get("frames") == "each":
        return LayerDepend(job=job, layer=layer, **fields)
    return Depend(job=job, layer=layer, **fields)


def parse_layer_depend(text: str) -> LayerDepend:
    """What the frames of a layer wait for. Raises DependTextError."""
    target, fields = _split(text, _LAYER_FORM)
    match = _JOB.fullmatch(target)
    if match is not None:
        return LayerDepend(job=int(match["job"]), layer=match["layer"] or "", **fields)
    if not target or "/" in target:
        raise DependTextError(f"{text[:60]!r} is no dependency: {_LAYER_FORM}")
    if target == "previous":
        if fields.keys() & {"frames"}:
            raise DependTextError(
                f"{text[:60]!r} is no dependency: previous frames are waited for one by one"
            )
        return LayerDepend(frames="previous", **fields)
    return LayerDepend(layer=target, **fields)


def depend_text(depend: Depend | LayerDepend) -> str:
    """A dependency as people write it."""
    target = depend.layer
    if depend.job is not None:
        target = f"{depend.job}/{depend.layer}" if depend.layer else str(depend.job)
    match depend.frames:
        case "previous":
            text = "previous"
        case "each":
            offset = depend.offset if isinstance(depend, LayerDepend) else 0
            text = f"{target}:each{offset:+d}" if offset else f"{target}:each"
        case "percent":
            text = f"{target}:{depend.percent:.6f}".rstrip("0").rstrip(".") + "%"
        case "any":
            text = f"{target}:any"
        case _:
            text = target
    return text if depend.until == "done" else f"{text}:{depend.until}"


def _split(text: str, form: str) -> tuple[str, dict[str, Any]]:
    """What is waited for, and the fields that the parts behind the colons mean."""
    target, *parts = text.strip().split(":")
    fields: dict[str, Any] = {}
    for part in parts:
        for name, value in _fields(part, text, form).items():
            if name in fields:
                raise DependTextError(
                    f"{text[:60]!r} is no dependency: it says twice which frames, or until when"
                )
            fields[name] = value
    return target, fields


def _fields(part: str, text: str, form: str) -> dict[str, Any]:
    if part in ("done", "ended"):
        return {"until": part}
    if part in ("all", "any"):
        return {"frames": part}
    if percent := _PERCENT.fullmatch(part):
        share = float(percent[1])
        if not 0 < share <= 100:
            raise DependTextError(f"{text[:60]!r} is no dependency: {part} is not within 0% and 100%")
        return {"frames": "percent", "percent": int(share) if share.is_integer() else share}
    if each := _EACH.fullmatch(part):
        return {"frames": "each", **({"offset": int(each[1])} if each[1] else {})}
    raise DependTextError(f"{text[:60]!r} is no dependency: {form}")
