"""The files of the classic tool `sendjob`: one value on a line, in an order that its type gives. PURE.

`FORMATS` is the whole of it. Names of the job (owner, start and so on) are `SendJob`'s, the others are
parameters of the kind, by the names that scripts of `drqueue.sg` take.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: Fields of `SendJob`; `pad` and `max_cpus` stand in files of XSI alone.
_TEXTS = frozenset({"owner", "name"})
_NUMBERS = frozenset({"start", "end", "step", "block_size", "priority", "max_cpus", "pad"})


class Format(NamedTuple):
    """The lines of a file. `optional` of them, the last ones, may be missing.

    `block_is_step`: the number called step is the block size, too.
    """

    lines: tuple[str, ...]
    optional: int = 0
    block_is_step: bool = False


_SIMPLE = ("owner", "name", "start", "end", "step")

FORMATS: Mapping[str, Format] = {
    "maya": Format(
        (
            *("owner", "name", "camera", "renderer", "start", "end", "step", "res_x", "res_y"),
            *("scene", "renderdir", "projectdir", "format", "image"),
        )
    ),
    "mentalray": Format(
        (
            *("owner", "name", "camera", "start", "end", "step", "res_x", "res_y"),
            *("scene", "renderdir", "format", "image"),
        )
    ),
    "blender": Format(("name", "start", "end", "step", "render_type", "scene"), block_is_step=True),
    "lightwave": Format((*_SIMPLE, "scene", "configdir", "projectdir")),
    "terragen": Format((*_SIMPLE, "scriptfile", "worldfile", "terrainfile")),
    "shake": Format((*_SIMPLE, "script")),
    "nuke": Format((*_SIMPLE, "scene")),
    "3delight": Format((*_SIMPLE, "scene")),
    "pixie": Format((*_SIMPLE, "scene")),
    "aqsis": Format((*_SIMPLE, "scene")),
    "mantra": Format((*_SIMPLE, "scene")),
    "aftereffects": Format((*_SIMPLE, "project", "comp")),
    "xsi": Format(
        (
            *("owner", "name", "xsidir", "priority", "max_cpus", "start", "end", "pad", "step", "block_size"),
            *("res_x", "res_y", "skipframes", "scene", "xsipass", "renderdir", "image", "imageext"),
            *("runscript", "scriptrun"),
        ),
        optional=1,
    ),
    "luxrender": Format(("name", "start", "end", "step", "scene"), block_is_step=True),
}


class SendJobError(ValueError):
    """A file that cannot be used; the text is one sentence that names the line."""


@dataclass(frozen=True)
class SendJob:
    """What a file says. `owner` is "" where the format has none: the user is meant.

    `params` are the kind's, as text, without those that are empty.
    """

    kind: str
    name: str
    start: int
    end: int
    step: int = 1
    block_size: int = 1
    owner: str = ""
    priority: int = 500
    max_cpus: int = 0
    pad: int = 4
    params: Mapping[str, str] = field(default_factory=dict)


def read_sendjob(kind: str, text: str) -> SendJob:
    """The job that a file of type `kind` describes; raises SendJobError.

    `general` has no such format (the file itself is the command), and turtle, vray, 3dsmax and cinema4d never
    had one. A line may end with blanks; a step or block size of 0 counts as 1, as for the original's master.
    Mantra's format has no line for the pictures' folder: they go beside the scene.
    """
    form = FORMATS.get(kind.lower())
    if form is None:
        if kind.lower() == "general":
            raise SendJobError("a file of type general has no lines of its own: it is the command itself")
        raise SendJobError(f"sendjob has no type {kind!r}; it has general, {', '.join(FORMATS)}")
    given = _values(kind, form, text)
    numbers = {name: int(value) for name, value in given.items() if name in _NUMBERS}
    for name in ("step", "block_size"):
        if name in numbers:
            numbers[name] = max(1, numbers[name])
    if form.block_is_step:
        numbers["block_size"] = numbers["step"]
    if numbers["end"] < numbers["start"]:
        line = form.lines.index("end") + 1
        raise SendJobError(f"line {line} (end): {numbers['end']} is before the start, {numbers['start']}")
    params = {name: value for name, value in given.items() if name not in _TEXTS | _NUMBERS and value}
    if kind.lower() == "mantra":
        folder, slash, base = params["scene"].rpartition("/")
        params["renderdir"] = f"{folder}{slash}{base}"
    texts = {name: given[name] for name in _TEXTS if name in given}
    return SendJob(kind=kind.lower(), params=params, **texts, **numbers)  # type: ignore[arg-type]


def _values(kind: str, form: Format, text: str) -> dict[str, str]:
    """The lines by name; raises SendJobError."""
    lines = [line.strip() for line in text.splitlines()]
    given: dict[str, str] = {}
    for number, name in enumerate(form.lines, 1):
        missing = number > len(lines)
        if missing and number > len(form.lines) - form.optional:
            break
        if missing:
            raise SendJobError(f"line {number} ({name}) is missing: type {kind} has {len(form.lines)} lines")
        value = lines[number - 1]
        if name in _NUMBERS:
            if not (value.isascii() and value.isdigit() and len(value) <= 10):
                raise SendJobError(f"line {number} ({name}): {value!r} is no whole number from 0 on")
        elif not value and name in ("name", "scene", "script", "scriptfile", "project"):
            raise SendJobError(f"line {number} ({name}) is empty")
        given[name] = value
    return given
