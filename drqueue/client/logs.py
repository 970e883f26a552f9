"""Reading frames' logs, wherever they lie: at the slave itself, through the master, or what the master kept.

Rules: the whole log is preferred to the two ends that the master keeps; what is left out is said in a line of
its own in its place. A broken link, a slave daemon's restart and a master's restart are waited out.
"""

import zlib
from typing import TYPE_CHECKING, Self

from drqueue.client.errors import DrQueueError, NotFound, NotLinked, Refused
from drqueue.client.link import Link, LinkLost
from drqueue.client.streams import Changes
from drqueue.proto import messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.proto.views import FrameView

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient

#: How long the other side may hold a request for new bytes, in seconds.
LONG_POLL_S = 10.0
_PART = 64 * 1024
#: More than either end of a kept log unpacks to.
_END_LIMIT = 1024 * 1024
_OVER = frozenset({"DONE", "FAILED", "CANCELLED"})


def left_out(size: int) -> bytes:
    """The line that stands where bytes are missing."""
    return b"\n... %d bytes left out ...\n" % size


def unpack(kept: LogEnds) -> tuple[bytes, bytes]:
    """The two ends of a log as they were. Raises DrQueueError where they are damaged."""
    if not kept.packed:
        return kept.head, kept.tail
    return _inflate(kept.head), _inflate(kept.tail)


def kept_from(kept: LogEnds, offset: int) -> bytes:
    """What the ends of a log hold from `offset` on, with a line in place of what they do not."""
    head, tail = unpack(kept)
    tail_start = max(len(head), kept.size - len(tail))
    parts = [head[offset:]]
    missing = tail_start - max(offset, len(head))
    if missing > 0:
        parts.append(left_out(missing))
    parts.append(tail[max(0, offset - tail_start) :])
    return b"".join(parts)


def _inflate(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, _END_LIMIT)
    except zlib.error as error:
        raise DrQueueError(f"the kept log is damaged: {error}") from None
    if not unpacker.eof:
        raise DrQueueError("the kept log is damaged: it is cut off")
    return found


class LogStream:
    """The bytes of a frame's log, as an async iterator.

    With `follow` it goes on until the frame is over, from attempt to attempt (a line says where a new one
    begins), or until the one attempt asked for has ended.
    """

    def __init__(
        self,
        client: "AsyncClient",
        job: int,
        number: int,
        layer: str,
        attempt: int | None,
        *,
        follow: bool,
        patience_s: float,
    ) -> None:
        self._client = client
        self._job, self._number, self._layer = job, number, layer
        self._wanted = attempt
        self._follow = follow
        self._patience_s = patience_s
        self._changes: Changes | None = None
        self._key: AttemptKey | None = None
        self._offset = 0
        self._read_up_to = 0
        self._source: Link | None = None
        self._slave = ""
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            data = await (self._begin() if self._key is None else self._more(self._key))
            if data:
                return data
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop following."""
        self._ended = True
        if self._changes is not None:
            await self._changes.aclose()

    # -- which attempt --------------------------------------------------------------------------------

    async def _begin(self) -> bytes:
        """Choose the (next) attempt to read; returns the line that announces it, if any."""
        if self._follow and self._changes is None:
            # Before the first look, so that no change falls between looking and waiting.
            self._changes = self._client.watch(slaves=True, job=self._job, patience_s=self._patience_s)
            await self._changes.__aenter__()
        if not self._follow or self._wanted is not None:
            self._key = (await self._find(self._wanted)).key
            return b""
        request = messages.ListAttempts(rq=0, job=self._job, layer=self._layer, number=self._number)
        try:
            attempts = (await self._client.read(request, messages.Attempts, self._patience_s)).attempts
        except NotFound:
            if self._read_up_to:  # deleted while it was followed: that is its end
                self._ended = True
                return b""
            raise
        newer = [view for view in attempts if view.attempt > self._read_up_to]
        if newer:
            chosen = newer[0] if self._read_up_to else newer[-1]
            first = not self._read_up_to
            self._key = AttemptKey(chosen.job, chosen.layer, chosen.frame, chosen.attempt)
            self._offset = 0
            return b"" if first else f"\n... attempt {chosen.attempt} on {chosen.slave} ...\n".encode()
        if (await self._frame()).state in _OVER:
            self._ended = True
        else:
            await self._news()
        return b""

    def _attempt_over(self, key: AttemptKey) -> None:
        self._read_up_to = key.attempt
        self._key = self._source = None
        if not self._follow or self._wanted is not None:
            self._ended = True

    # -- its bytes ------------------------------------------------------------------------------------

    async def _more(self, key: AttemptKey) -> bytes:
        """The next bytes of this attempt's log, from the best place that answers."""
        if self._source is None:
            place = await self._find(key.attempt)
            self._source = await self._reach(place)
            self._slave = place.slave
            if self._source is None:
                return await self._unreachable(key, place, None)
        request = messages.ReadLog(
            rq=0,
            slave=self._slave,
            key=key,
            offset=self._offset,
            limit=_PART,
            wait_s=LONG_POLL_S if self._follow else 0,
        )
        try:
            part = await self._source.ask(request, messages.LogPart)
        except LinkLost:
            # A daemon was restarted: look anew where the log can be had.
            self._source = None
            return b""
        except Refused as refusal:
            self._source = None
            return await self._unreachable(key, await self._find(key.attempt), refusal)
        caught_up = part.next >= part.size
        self._offset = part.next
        if (part.over and caught_up) or (not self._follow and (caught_up or not part.data)):
            self._attempt_over(key)
        return part.data

    async def _reach(self, place: messages.LogPlace) -> Link | None:
        """A link to whoever can read this log: the slave, or the master where it can ask the slave."""
        try:
            link = await self._client.direct_at(place.slave, place.control)
        except NotFound:
            link = None  # forgotten, or called otherwise, just now
        if link is None and place.linked:
            link = await self._client.linked(self._patience_s)
        return link

    async def _unreachable(self, key: AttemptKey, place: messages.LogPlace, refusal: Refused | None) -> bytes:
        """Nobody reads this log out: what the master kept, or patience, or a sentence."""
        if place.kept is not None:
            self._attempt_over(key)
            return kept_from(place.kept, self._offset)
        if not place.over and self._follow:
            await self._news()
            return b""
        if self._follow and self._wanted is None:
            self._attempt_over(key)
            return f"\n... the rest lies on {place.slave}, which cannot be reached ...\n".encode()
        raise refusal or NotLinked(
            "not-linked",
            f"the log lies on {place.slave}, which cannot be reached, and no part of it was kept",
        )

    # -- asking the master ------------------------------------------------------------------------------

    async def _find(self, attempt: int | None) -> messages.LogPlace:
        request = messages.FindLog(
            rq=0, job=self._job, layer=self._layer, number=self._number, attempt=attempt
        )
        return await self._client.read(request, messages.LogPlace, self._patience_s)

    async def _frame(self) -> FrameView:
        """The frame's present state."""
        request = messages.GetJob(rq=0, job=self._job)
        layers = (await self._client.read(request, messages.Job, self._patience_s)).layers
        layer = next(view for view in layers if self._layer in ("", view.name))
        index = Chunks(FrameRange.parse(layer.frames), layer.chunk).chunk_of(self._number) or 0
        asked = messages.ListFrames(rq=0, job=self._job, layer=layer.name, cursor=index, limit=1)
        answer = await self._client.read(asked, messages.Frames, self._patience_s)
        for frame in answer.frames:
            if frame.index == index:
                return frame
        raise NotFound("no-such-frame", f"job {self._job} has no frame {self._number} any more")

    async def _news(self) -> None:
        assert self._changes is not None
        await anext(self._changes)
