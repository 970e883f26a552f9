"""Names of things on the wire.

Job and slave ids are small ints counted up from 0 and never reused. A frame is named by its index
in its layer (0 is the first frame, or chunk, of the layer's range), an attempt by all four parts.
"""

from typing import Annotated, NamedTuple

from msgspec import Meta

#: Every number on the wire is bounded: what comes in must fit into a database and back.
BIG = 2**53
Natural = Annotated[int, Meta(ge=0, le=BIG)]


class FrameKey(NamedTuple):
    """One frame (or chunk of frames) of one layer of one job."""

    job: Natural
    layer: Natural
    frame: Natural


class AttemptKey(NamedTuple):
    """One try at one frame. `attempt` only ever grows within a layer's frame, also over reruns."""

    job: Natural
    layer: Natural
    frame: Natural
    attempt: Natural

    def __str__(self) -> str:
        return f"{self.job}/{self.layer}/{self.frame}/{self.attempt}"

    @property
    def frame_key(self) -> FrameKey:
        return FrameKey(self.job, self.layer, self.frame)


def parse_attempt(text: str) -> AttemptKey:
    """Read what `str(AttemptKey)` wrote; raises ValueError on anything else."""
    parts = text.split("/")
    if len(parts) != 4:
        raise ValueError(f"not an attempt: {text!r:.80}")
    return AttemptKey(*(int(part) for part in parts))
