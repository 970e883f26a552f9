"""A kind of job: its parameters, and the layer that is made of them. PURE.

Most kinds are a `Command`: a template and how often it is called for a chunk. Rules: a command is right for
every chunk that a range can have, whatever is later made of the range (`drqueue set`): the step counts, and
where frames count down, too. It stops at the first call that fails, and ends with that call's exit status.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from drqueue.client.kinds.params import KindError, Param, Values, as_text, read_values
from drqueue.client.kinds.words import (
    Template,
    Var,
    Word,
    as_argv,
    as_output,
    as_shell,
    numbered,
    quoted,
    words_of,
)
from drqueue.proto.model import LayerSpec
from drqueue.proto.ranges import FrameRange, RangeError

#: How a renderer is called for a chunk: `once` for all its frames (the template has `frames`, or nothing of
#: them), `range` with first, last and step, `dots` with a list as 1..4 or 1,3,5; `span` with first and last,
#: for each frame alone where the step is not 1; `frame` for each frame. `strip`: the frames are strips of one
#: picture, numbered from 1 at its top, and it is called for each of them.
Calls = Literal["once", "range", "dots", "span", "frame", "strip"]

_PRELUDES: Mapping[Calls, str] = {
    "once": "",
    # Renderers count upwards; the last frame of a chunk is always one of its own.
    "range": """\
start={start} end={end} step={step}
if [ "$step" -lt 0 ]; then start={end} end={start} step=$((0 - step)); fi
""",
    "dots": """\
dots={frames}
if [ {step} -eq 1 ]; then dots={start}..{end}; fi
""",
}


class Command(NamedTuple):
    """A template and its calls.

    `folder` is the parameter that names where it runs, `output` the one with the declared output, `height`
    the one with the picture's height, of which the rows of a strip are calculated.
    """

    calls: Calls
    words: Template
    folder: str = ""
    output: str = ""
    height: str = ""


class Frames(NamedTuple):
    """Which frames were asked for, and how many at once; None where nobody said."""

    text: str | None = None
    chunk: int | None = None

    def range(self) -> FrameRange:
        """The range; raises KindError."""
        try:
            return FrameRange.parse(self.text or "1")
        except RangeError as error:
            raise KindError(str(error)) from None

    def layer(self, **fields: object) -> LayerSpec:
        """A layer over these frames."""
        asked = {"frames": self.text, "chunk": self.chunk}
        given = {name: value for name, value in asked.items() if value is not None}
        return LayerSpec(**{**given, **fields})  # type: ignore[arg-type]  # fields are LayerSpec's own


ANY_FRAMES = Frames()

#: Parameters that a job is named after, the first that was given.
_NAMED_BY = ("scene", "project", "script", "scriptfile", "output")
#: What stands for a number: hash signs, a placeholder, a format of C.
_NUMBER = re.compile(r"\[#+\]|#+|\{[^{}]*\}|%0?[0-9]*d")

Make = Callable[["Kind", Values, Frames], LayerSpec]
Complete = Callable[[Values], Values]


def _as_they_are(values: Values) -> Values:
    return values


@dataclass(frozen=True)
class Kind:
    """One kind of job. `title` is the renderer's name, `help` a sentence or a few.

    Either `command` says how it is rendered (by the values where that is a function), or `make`. `complete`
    sets values that follow from others; it raises KindError where they do not go together. `classic` are
    names that scripts of `drqueue.sg` may be given besides, which change nothing.
    """

    name: str
    title: str
    help: str
    params: tuple[Param, ...]
    command: Command | Callable[[Values], Command] | None = None
    make: Make | None = None
    complete: Complete = _as_they_are
    classic: tuple[str, ...] = ()

    def values(self, given: Mapping[str, object]) -> Values:
        """The values of what was given; raises KindError."""
        return self.complete(read_values(self.name, self.params, given))

    def command_of(self, values: Values) -> Command:
        """How it is rendered with these values; KindError for a kind that is no command of this form."""
        if self.command is None:
            raise KindError(f"the kind {self.name} has no script")
        return self.command(values) if callable(self.command) else self.command

    def build(self, given: Mapping[str, object], frames: Frames = ANY_FRAMES) -> LayerSpec:
        """The layer: command, frames, chunk, outputs, progress. Pure; raises KindError."""
        values = self.values(given)
        frames.range()
        if self.make is not None:
            return self.make(self, values, frames)
        return command_layer(self, values, frames)

    def texts(self, given: Mapping[str, object]) -> dict[str, str]:
        """What was given, as `JobSpec.params` keeps it; raises KindError."""
        values = read_values(self.name, self.params, given)
        return {
            name: as_text(values[name]) for name in given if name in values and given[name] not in (None, "")
        }

    def default_job_name(self, texts: Mapping[str, str]) -> str:
        """What a job is called that was given no name: its scene, else its output, else its kind."""
        paths = [param.name for param in self.params if param.type == "path"]
        names = (_file_name(texts[name]) for name in (*_NAMED_BY, *paths) if name in paths and name in texts)
        return next((name for name in names if name), self.name)

    def described(self) -> dict[str, Any]:
        """The declaration as plain data, for forms and other programs."""
        params = [
            {**asdict(param), "default": param.default or None, "wanted": param.wanted()}
            for param in self.params
        ]
        return {"name": self.name, "title": self.title, "help": self.help, "params": params}


def _file_name(path: str) -> str:
    """A path's last part, for people; of a pattern for many files what they have in common."""
    base = path.rstrip("/").rpartition("/")[2]
    if _NUMBER.search(base):
        base = _NUMBER.sub("", posixpath.splitext(base)[0]).strip(" ._-")
    return "".join(char for char in base if char.isprintable())[:127]


def command_layer(kind: Kind, values: Values, frames: Frames) -> LayerSpec:
    """The layer of a kind that is a `Command`."""
    command = kind.command_of(values)
    parts = parts_of(kind, values, frames) if command.calls == "strip" else 0
    if parts > int(values.get(command.height, parts)):
        raise KindError(f"the kind {kind.name}: {parts} strips are more than the picture has rows")
    words = words_of(command.words, values)
    outputs = _outputs(command, values)
    folder = str(values.get(command.folder, ""))
    if command.calls == "once" and not folder:
        return frames.layer(argv=as_argv(words), outputs=outputs)
    return frames.layer(shell=_script(command, words, values, folder, parts), outputs=outputs)


def parts_of(kind: Kind, values: Values, frames: Frames) -> int:
    """Into how many strips a picture is cut, whose numbers are the frames; raises KindError."""
    numbers = frames.range()
    parts = int(values.get("parts", numbers.max))
    if numbers.min < 1 or numbers.max > parts:
        raise KindError(f"the kind {kind.name}: the frames of one picture are its strips, from 1 to {parts}")
    return parts


def _outputs(command: Command, values: Values) -> tuple[str, ...]:
    return as_output(numbered(str(values[command.output]))) if command.output in values else ()


def _script(command: Command, words: list[Word], values: Values, folder: str, parts: int) -> str:
    """The shell's script of a command."""
    enter = f"cd -- {quoted(folder)} || exit\n" if folder else ""
    call = as_shell(words)
    if command.calls in ("once", "range", "dots"):
        used = {piece.name for word in words for piece in word if isinstance(piece, Var)}
        prelude = _PRELUDES[command.calls] if used - {"threads"} else ""
        return f"{enter}{prelude}exec {call}"
    if command.calls == "span":
        return enter + _loop(call, "start", ("end=$start", "if [ {step} -eq 1 ]; then end={end}; fi"), "end")
    if command.calls == "frame":
        return enter + _loop(call, "frame", (), "frame")
    rows = "part=$frame"
    if command.height:
        height = values[command.height]
        rows += f" low=$(({height} * ({parts} - frame) / {parts}))"
        rows += f" high=$(({height} * ({parts} - frame + 1) / {parts}))"
    return f"{enter}parts={parts}\n{_loop(call, 'frame', (rows,), 'frame')}"


def _loop(call: str, name: str, before: Iterable[str], reached: str) -> str:
    lines = [*before, f"{call} || exit", f'if [ "${reached}" -eq {{end}} ]; then break; fi']
    body = "".join(f"  {line}\n" for line in (*lines, f"{name}=$(({name} + {{step}}))"))
    return f"{name}={{start}}\nwhile :; do\n{body}done"
