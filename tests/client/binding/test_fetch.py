"""What calls of the binding fetch in pages: all of it, in its place, and not all of it at once."""

import sys
from typing import Any, cast

from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import fetch, pipeline
from drqueue.proto import messages
from drqueue.proto.views import FrameView

PAGE = 500
#: Stands in every view, so that its references tell how many views there are.
MARK = f"frames of {PAGE}"


class Master:
    """Has a job of `size` frames in the first layer and ten in the second; answers with `most` at a time."""

    def __init__(self, size: int, most: int = PAGE) -> None:
        self.size, self.most = size, most

    async def read(self, request: messages.ListFrames, kind: type, patience_s: float) -> messages.Frames:
        end = min(request.cursor + min(request.limit, self.most), self.size + 10)
        views = tuple(self._view(place) for place in range(request.cursor, end))
        return messages.Frames(rq=0, frames=views, next=end if end < self.size + 10 else None)

    async def job(self, number: int) -> None:
        raise LookupError(number)

    def _view(self, place: int) -> FrameView:
        layer, index = (0, place) if place < self.size else (1, place - self.size)
        return FrameView(
            job=1, layer=layer, layer_name=MARK, index=index, number=index, last=index, count=1, state="DONE",
            attempt=1, requeued=0,
        )  # fmt: skip


async def got(master: Master, start: int, end: int) -> list[int]:
    found: list[int] = []
    await fetch.each_frame(cast(AsyncClient, master), 1, start, end, lambda view: found.append(view.index))
    assert len(set(found)) == len(found)
    return sorted(found)


async def test_every_frame_of_the_first_layer_is_fetched_and_none_of_another() -> None:
    for most in (1, 7, PAGE):
        assert await got(Master(1203, most), 0, 1203) == list(range(1203))
        assert await got(Master(1203, most), 1100, 2000) == list(range(1100, 1203))
    assert await got(Master(3), 1, 2) == [1]


async def test_of_many_frames_only_some_are_held_at_a_time() -> None:
    """A job may have ten million."""
    most = 0

    def take(view: FrameView) -> None:
        nonlocal most
        most = max(most, sys.getrefcount(MARK))

    frames = 3 * pipeline.AT_ONCE * PAGE
    await fetch.each_frame(cast(Any, Master(frames)), 1, 0, frames, take)
    assert PAGE <= most <= (pipeline.AT_ONCE + 1) * PAGE
