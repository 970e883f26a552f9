r"""The kind `povray`: an animation with POV-Ray's clock.

Rules, each for a habit of POV-Ray (3.7):
* the clock runs over the range that was submitted (+KFI, +KFF), a chunk is a part of it (+SF, +EF,
  Frame_Step);
* a blank ends an option: names stand in quotes, which cannot be escaped; and `#` is no number's place;
* the number has as many digits as the range's end, at the end of the name; where `####` in the output says
  otherwise, the pictures are renamed once they are whole;
* with one frame in the range there is no number at all, and no clock;
* negative frames are no animation at all for it, so they are refused;
* what is declared (Declare=NAME=VALUE) and is no number is 0 for it, or ends it without a reason.
"""

import re

from drqueue.client.kinds.kind import Frames, Kind
from drqueue.client.kinds.params import KindError, MissingError, Values, number, path, switch, text, whole
from drqueue.client.kinds.words import (
    Piece,
    Var,
    Word,
    as_output,
    as_shell,
    has_number,
    numbered,
    shell_word,
)
from drqueue.proto.model import LayerSpec

_RANGE = """\
start={start} end={end} step={step}
if [ "$step" -lt 0 ]; then start={end} end={start} step=$((0 - step)); fi
"""


_DECLARED = re.compile(r"[A-Za-z_]\w*=[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _make(kind: Kind, values: Values, frames: Frames) -> LayerSpec:
    numbers = frames.range()
    # Of 1-240x10, a rough preview, 240 is the end of the clock and not 231.
    ends = numbers.single[:2] if numbers.single else (numbers.min, numbers.max)
    first, last = int(values.get("first", min(ends))), int(values.get("last", max(ends)))
    if not 0 <= first <= numbers.min or last < numbers.max:
        what = (
            "negative frames are no animation" if numbers.min < 0 else f"{first} to {last} are not all frames"
        )
        raise KindError(f"the kind povray: {what}")
    output = str(values["output"])
    if not output.lower().endswith(".png"):
        raise KindError("the kind povray: output is a .png file, as in frame_####.png")
    outputs: tuple[str | Var, ...]
    if first == last:
        outputs = numbered(output)
        script = f"frame={{start}}\nexec {as_shell(_words(values, _option('+O', *outputs)))}"
        return frames.layer(shell=script, outputs=as_output(outputs))

    digits = len(str(last))
    made = (_bare(output), Var("frame", digits), ".png")
    outputs = numbered(output) if has_number(output) else made
    animation: list[Word] = [
        *((f"+KFI{first}",), (f"+KFF{last}",), ("+SF", Var("start")), ("+EF", Var("end"))),
        ("Frame_Step=", Var("step")),
        *([("+KC",)] if values["cyclic"] else []),
        *[
            (f"+{option}{values[name]:g}",)
            for option, name in (("KI", "clock_start"), ("KF", "clock_end"))
            if name in values
        ],
    ]
    call = as_shell(_words(values, _option("+O", f"{_bare(output)}.png"), *animation))
    if outputs == made:
        return frames.layer(shell=f"{_RANGE}exec {call}", outputs=as_output(outputs))
    move = f"mv -f -- {shell_word(made)} {shell_word(outputs)} || exit"
    loop = f'frame=$start\nwhile [ "$frame" -le "$end" ]; do\n  {move}\n  frame=$((frame + step))\ndone'
    return frames.layer(shell=f"{_RANGE}{call} || exit\n{loop}", outputs=as_output(outputs))


def _bare(output: str) -> str:
    """The name without number and ending, to which POV-Ray adds both."""
    pieces = numbered(output[: -len(".png")])
    return "".join(piece for piece in pieces if isinstance(piece, str))


def _words(values: Values, output: Word, *animation: Word) -> list[Word]:
    words: list[Word] = [("povray",)]
    if "ini" in values:
        words.append(_option("", str(values["ini"])))
    # A scene may be named in the ini file.
    if "scene" in values:
        words.append(_option("+I", str(values["scene"])))
    words += [output, ("+FN",), ("-D",), ("+WT", Var("threads"))]
    words += [(f"+{letter}{values[name]}",) for letter, name in _SIZES if name in values]
    if "antialias" in values:
        words.append((f"+A{values['antialias']:g}",))
    words += [_option("+L", folder) for folder in str(values.get("include", "")).split(":") if folder]
    words += [(f"Declare={pair}",) for pair in str(values.get("declare", "")).split()]
    return [*words, *animation]


_SIZES = (("W", "width"), ("H", "height"), ("Q", "quality"))


def _option(name: str, *pieces: Piece) -> Word:
    """An option with a name in quotes."""
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    quote = "'" if '"' in text else '"'
    if quote in text:
        raise KindError(f"the kind povray: POV-Ray cannot take both kinds of quotes in one name: {text}")
    return (name + quote, *pieces, quote)


def _complete(values: Values) -> Values:
    if "scene" not in values and "ini" not in values:
        raise MissingError("the kind povray needs the parameter scene: the scene file")
    for pair in str(values.get("declare", "")).split():
        if not _DECLARED.fullmatch(pair):
            raise KindError(
                f"the kind povray: declare is NAME=NUMBER, several with blanks between, not {pair!r}"
            )
    return values


POVRAY = Kind(
    "povray",
    "POV-Ray",
    "An animation by the clock, over the frames submitted.",
    (
        path("scene", "the scene file (.pov); may stand in the .ini file"),
        path("output", "the pictures; #### stands for the frame's number", default="frame_####.png"),
        path("ini", "an .ini file, whose settings come before all others"),
        whole("width", "width of the picture", 1, 65536, unit="pixels"),
        whole("height", "height of the picture", 1, 65536, unit="pixels"),
        number("antialias", "threshold of antialiasing; default: none", 0, 3),
        whole("quality", "quality", 0, 11),
        text("include", "folders of include files, with colons between them"),
        text("declare", "numbers that the scene finds declared: NAME=NUMBER, several with blanks between"),
        whole("first", "first frame of the animation; default: the lowest submitted"),
        whole("last", "last frame of the animation; default: the highest submitted"),
        number("clock_start", "clock at the first frame; default 0", -1e9, 1e9),
        number("clock_end", "clock at the last frame; default 1", -1e9, 1e9),
        switch("cyclic", "end one step early, for a loop"),
    ),
    make=_make,
    complete=_complete,
)
