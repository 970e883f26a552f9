"""The kind `ffmpeg`: numbered pictures become a movie, in one frame of its own.

Rules, each for a habit of ffmpeg:
* a sequence ends for it where a number is missing, with exit status 0: where `last` is given, all pictures
  up to it must be there;
* it looks for the first number by itself, unless told: it is always told;
* it reads the terminal, and asks before it overwrites: it may not;
* a name with a colon is an address for it, and % a number: both are escaped;
* most players take only 4:2:0 with even sides: a row or column of black is added where a side is odd.
"""

from drqueue.client.kinds.kind import Frames, Kind
from drqueue.client.kinds.params import KindError, Values, choice, number, path, whole
from drqueue.client.kinds.words import (
    Var,
    Word,
    as_argv,
    as_output,
    as_shell,
    has_number,
    numbered,
    shell_word,
)
from drqueue.proto.model import LayerSpec

#: Codecs: encoder, format of the pixels, whether a quality (crf) can be given, more options.
_CODECS: dict[str, tuple[str, str, bool, tuple[str, ...]]] = {
    "h264": ("libx264", "yuv420p", True, ()),
    "h265": ("libx265", "yuv420p", True, ()),
    "vp9": ("libvpx-vp9", "yuv420p", True, ("-b:v", "0")),
    "av1": ("libsvtav1", "yuv420p", True, ()),
    "prores": ("prores_ks", "yuv422p10le", False, ()),
    "ffv1": ("ffv1", "", False, ()),
}
_CHECK = """\
frame={first}
while [ "$frame" -le {last} ]; do
  if ! [ -s {picture} ]; then printf 'ffmpeg: %s is missing or empty\\n' {picture} >&2; exit 1; fi
  frame=$((frame + 1))
done
exec """


def _make(kind: Kind, values: Values, frames: Frames) -> LayerSpec:
    if frames.text is not None or frames.chunk not in (None, 1):
        raise KindError("the kind ffmpeg has one frame: say with first and last which pictures it takes")
    pictures, output = str(values["input"]), str(values["output"])
    if not has_number(pictures):
        raise KindError("the kind ffmpeg: input needs #### for the pictures' number, as in frame_####.png")
    first, last = int(values["first"]), int(values.get("last", -1))
    if 0 <= last < first:
        raise KindError(f"the kind ffmpeg: last ({last}) is before first ({first})")
    sequence = "".join(
        f"%0{piece.width}d" if isinstance(piece, Var) else piece.replace("%", "%%")
        for piece in numbered(pictures)
    )
    words: list[Word] = [
        *_plain("ffmpeg", "-nostdin", "-hide_banner", "-y", "-f", "image2", "-pattern_type", "sequence"),
        *_plain("-framerate", f"{values['fps']:g}", "-start_number", str(first), "-i", _name(sequence)),
    ]
    if "audio" in values:
        words += _plain("-i", _name(str(values["audio"])), "-map", "0:v", "-map", "1:a", "-shortest")
    if last >= 0:
        words += _plain("-frames:v", str(last - first + 1))
    words += [*_codec(values), ("-threads",), (Var("threads"),), (_name(output),)]
    outputs = as_output((output,))
    if last < 0:
        return LayerSpec(argv=as_argv(words), outputs=outputs)
    check = _CHECK.replace("{picture}", shell_word(numbered(pictures)))
    check = check.replace("{first}", str(first)).replace("{last}", str(last))
    return LayerSpec(shell=check + as_shell(words), outputs=outputs)


def _plain(*words: str) -> list[Word]:
    return [(word,) for word in words]


def _name(path_: str) -> str:
    return f"file:{path_}" if ":" in path_ else path_


def _codec(values: Values) -> list[Word]:
    encoder, pixels, graded, more = _CODECS[str(values["codec"])]
    words = ["-c:v", encoder, *more]
    if "crf" in values:
        if not graded:
            raise KindError(f"the kind ffmpeg: the codec {values['codec']} takes no crf")
        words += ["-crf", str(values["crf"])]
    filters = [f"scale={values['width']}:-2"] if "width" in values else []
    if pixels:
        words += ["-pix_fmt", pixels]
        filters.append("pad=ceil(iw/2)*2:ceil(ih/2)*2")
    if filters:
        words += ["-vf", ",".join(filters)]
    if str(values["output"]).lower().endswith((".mp4", ".mov", ".m4v")):
        words += ["-movflags", "+faststart"]
    return _plain(*words)


FFMPEG = Kind(
    "ffmpeg",
    "ffmpeg",
    "Makes a movie of numbered pictures, in one frame.",
    (
        path("input", "the pictures; #### stands for their number", required=True),
        path("output", "the movie", required=True),
        whole("first", "number of the first picture", default="1"),
        whole("last", "number of the last picture; default: all up to the first that is missing"),
        number("fps", "pictures a second", 0.01, 1000, default="24"),
        choice("codec", "the codec", _CODECS, default="h264"),
        whole("crf", "quality, lower is better (h264, h265: about 18; vp9, av1: about 30)", 0, 63),
        whole(
            "width",
            "width of the movie; the height follows; default: as the pictures",
            2,
            16384,
            unit="pixels",
        ),
        path("audio", "sound to put beside; the shorter of both ends the movie"),
    ),
    make=_make,
)
