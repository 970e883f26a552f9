"""In which order the frames of a layer go, as `LayerSpec.order` and `next` say it. PURE.

`order` is one of ORDERS, or a frame range: those frames first, in its order, then the others forward. The
frames of `next` go before all. Frames that the layer has not are passed over.
"""

from typing import Final

from drqueue.proto.ranges import FrameRange, RangeError

ORDERS: Final = ("forward", "reverse", "coarse")
#: Characters, and frames, of an order that is a frame range, and of `next`.
MAX_TEXT: Final = 8192
MAX_FRAMES: Final = 100_000
#: An order of so many frames at most must name one that the layer has: looking for more takes too long.
_LOOK_AT: Final = 1000


def check_order(text: str, frames: FrameRange | None) -> str | None:
    """One sentence on what is wrong with the order of a layer of these frames, or None."""
    if text in ORDERS:
        return None
    if not text.strip():
        return "the order is empty: forward, reverse, coarse, or the frames that come first"
    if text.strip().isalpha():
        return f"there is no order {text[:40]!r}: forward, reverse, coarse, or the frames that come first"
    problem = _check_frames("the order", text)
    if problem is None and frames is not None:
        first = FrameRange.parse(text)
        if len(first) <= _LOOK_AT and not any(number in frames for number in first):
            return f"the order names {first.text[:40]}, but the layer has none of these frames"
    return problem


def check_next(text: str) -> str | None:
    """One sentence on what is wrong with the frames that are to go next, or None."""
    return _check_frames("next", text) if text else None


def _check_frames(what: str, text: str) -> str | None:
    if len(text) > MAX_TEXT:
        return f"{what}: the frames are {len(text)} characters, {MAX_TEXT} are allowed"
    try:
        count = len(FrameRange.parse(text))
    except RangeError as error:
        return f"{what}: {error}"
    return f"{what}: {count:,} frames, {MAX_FRAMES:,} are allowed" if count > MAX_FRAMES else None
