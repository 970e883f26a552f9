"""Reading logs: directly, through the master, from what was kept; following over attempts and restarts."""

import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client import DrQueueError, NotLinked, connect
from drqueue.client.logs import kept_from, left_out
from drqueue.proto import messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds, Needs
from drqueue.proto.views import AttemptView, Counts, LayerView
from tests.client.peer import Peer, frame_view, job_view, serving, soon

LAYER = LayerView(
    index=0,
    name="main",
    command="x",
    frames="1-10",
    chunk=1,
    needs=Needs(),
    retries=3,
    timeout_s=0,
    cwd="",
    outputs=(),
    after=(),
    counts=Counts(),
    chunk_counts=Counts(),
)


class Story:
    """A frame's attempts as a master and a slave tell them: (attempt, its log, whether it is over)."""

    def __init__(self, folder: Path) -> None:
        self.master = Peer(str(folder / "master.sock"))
        self.slave = Peer(str(folder / "control.sock"), "slave")
        self.logs: dict[int, tuple[bytes, bool]] = {1: (b"one\n", False)}
        self.state = "RUNNING"
        self.control = self.slave.address
        self.linked = True
        self.kept: LogEnds | None = None
        self.master.on = {
            messages.Watch: lambda _, asked: messages.Watching(rq=asked.rq, watch=7),
            messages.FindLog: self._place,
            messages.GetJob: lambda _, asked: messages.Job(rq=asked.rq, job=job_view(1), layers=(LAYER,)),
            messages.ListFrames: self._frames,
            messages.ListAttempts: self._attempts,
            messages.ReadLog: self._part,
        }
        self.slave.on = {messages.ReadLog: self._part}

    def _key(self, attempt: int) -> AttemptKey:
        return AttemptKey(1, 0, 2, attempt)

    def _place(self, _: Any, asked: messages.FindLog) -> messages.Request:
        attempt = max(self.logs) if asked.attempt is None else asked.attempt
        return messages.LogPlace(
            rq=asked.rq,
            key=self._key(attempt),
            number=3,
            slave="s1",
            control=self.control,
            linked=self.linked,
            over=self.logs[attempt][1],
            kept=self.kept,
        )

    def _frames(self, _: Any, asked: messages.ListFrames) -> messages.Request:
        assert (asked.cursor, asked.limit, asked.layer) == (2, 1, "main")
        return messages.Frames(rq=asked.rq, frames=(frame_view(3, self.state),))

    def _attempts(self, _: Any, asked: messages.ListAttempts) -> messages.Request:
        views = tuple(
            AttemptView(
                job=1,
                layer=0,
                frame=2,
                number=3,
                attempt=attempt,
                slave="s1",
                slave_id=0,
                assigned_at=0,
                started_at=0,
                ended_at=0,
                outcome="",
            )
            for attempt in self.logs
        )
        return messages.Attempts(rq=asked.rq, attempts=views)

    def _part(self, _: Any, asked: messages.ReadLog) -> messages.Request:
        log, over = self.logs[asked.key.attempt]
        data = log[asked.offset : asked.offset + min(asked.limit, 100)]
        following = asked.offset + len(data)
        return messages.LogPart(
            rq=asked.rq, data=data, next=following, size=len(log), over=over and following == len(log)
        )

    def changed(self) -> None:
        """The master tells its watchers that something happened."""
        for link in self.master.links:
            link.send(messages.Changed(watch=7, frames=(frame_view(3, self.state),)))


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


# -- reading ----------------------------------------------------------------


async def test_a_log_is_read_whole_from_the_slave_itself(story: Story) -> None:
    whole = bytes(range(256)) * 5
    story.logs = {1: (b"old", True), 2: (whole, False)}
    async with serving(story.master, story.slave), connect(story.master.address) as farm:
        assert await soon(farm.read_log(1, 3)) == whole
        assert await soon(farm.read_log(1, 3, attempt=1)) == b"old"
    assert "ReadLog" not in story.master.kinds()


async def test_an_empty_log_is_empty(story: Story) -> None:
    story.logs = {1: (b"", False)}
    async with serving(story.master, story.slave), connect(story.master.address) as farm:
        assert await soon(farm.read_log(1, 3)) == b""


async def test_a_log_is_relayed_where_the_slave_is_out_of_reach(story: Story) -> None:
    story.logs = {1: (b"x" * 250, True)}
    async with serving(story.master), connect(story.master.address) as farm:
        assert await soon(farm.read_log(1, 3)) == b"x" * 250
    relayed = [message for message in story.master.heard if isinstance(message, messages.ReadLog)]
    assert {message.slave for message in relayed} == {"s1"}
    assert len(relayed) == 3


async def test_what_the_master_kept_is_shown_where_the_slave_is_gone(story: Story) -> None:
    story.linked, story.logs = False, {1: (b"", True)}
    story.kept = LogEnds(size=1000, head=zlib.compress(b"begin"), tail=zlib.compress(b"end"), packed=True)
    async with serving(story.master), connect(story.master.address) as farm:
        assert await soon(farm.read_log(1, 3)) == b"begin\n... 992 bytes left out ...\nend"


async def test_what_the_master_kept_is_shown_where_the_slave_purged_it(story: Story) -> None:
    story.logs = {1: (b"", True)}
    story.kept = LogEnds(size=3, head=b"all")
    story.slave.on[messages.ReadLog] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="no-log", text="purged"
    )
    async with serving(story.master, story.slave), connect(story.master.address) as farm:
        assert await soon(farm.read_log(1, 3)) == b"all"


async def test_a_log_that_nobody_can_reach_is_told_as_such(story: Story) -> None:
    story.linked, story.logs = False, {1: (b"", True)}
    async with serving(story.master), connect(story.master.address) as farm:
        with pytest.raises(NotLinked, match="lies on s1"):
            await soon(farm.read_log(1, 3))


async def test_damaged_kept_logs_are_told_as_such(story: Story) -> None:
    story.linked, story.logs = False, {1: (b"", True)}
    story.kept = LogEnds(size=3, head=b"no zlib", packed=True)
    async with serving(story.master), connect(story.master.address) as farm:
        with pytest.raises(DrQueueError, match="damaged"):
            await soon(farm.read_log(1, 3))


# -- following ----------------------------------------------------------------


async def test_following_goes_from_attempt_to_attempt_until_the_frame_is_over(story: Story) -> None:
    got = b""
    async with serving(story.master, story.slave), connect(story.master.address) as farm:
        async for data in farm.follow_log(1, 3):
            got += data
            if got == b"one\n":  # it fails ...
                story.logs[1] = (b"one\nfailed\n", True)
                story.state = "WAITING"
            elif got.endswith(b"failed\n"):  # ... and is tried again
                story.logs[2] = (b"two\n", False)
                story.state = "RUNNING"
                story.changed()
            elif got.endswith(b"two\n"):
                story.logs[2] = (b"two\ndone\n", True)
                story.state = "DONE"
    assert got == b"one\nfailed\n\n... attempt 2 on s1 ...\ntwo\ndone\n"


async def test_following_waits_for_the_first_attempt(story: Story) -> None:
    story.logs, story.state = {}, "WAITING"

    async with serving(story.master, story.slave) as nursery, connect(story.master.address) as farm:

        async def start() -> None:
            await story.master.until(lambda: "ListFrames" in story.master.kinds())
            story.logs, story.state = {1: (b"at last", True)}, "DONE"
            story.changed()

        nursery.start_soon(start)
        assert await soon(anext(farm.follow_log(1, 3))) == b"at last"


async def test_following_one_attempt_ends_with_it(story: Story) -> None:
    story.logs = {1: (b"one\n", True), 2: (b"two\n", False)}
    async with serving(story.master, story.slave), connect(story.master.address) as farm:
        assert [data async for data in farm.follow_log(1, 3, attempt=1)] == [b"one\n"]


async def test_following_goes_on_where_it_was_after_both_daemons_were_restarted(story: Story) -> None:
    got = b""
    async with serving(story.master, story.slave) as nursery, connect(story.master.address) as farm:
        async for data in farm.follow_log(1, 3):
            got += data
            if got == b"one\n":
                for peer in (story.master, story.slave):
                    peer.stop()
                    await soon(peer.stopped.wait())
                story.logs[1], story.state = (b"one\ntwo\n", True), "DONE"
                for peer in (story.slave, story.master):
                    await nursery.start(peer.serve)
    assert got == b"one\ntwo\n"


async def test_following_outlives_a_slave_daemon_that_is_away_for_a_while(story: Story) -> None:
    """Neither the slave nor the master can read the log for now; a change says when to try again."""
    story.control, story.linked = "", False
    async with serving(story.master, story.slave) as nursery, connect(story.master.address) as farm:

        async def come_back() -> None:
            await story.master.until(lambda: "FindLog" in story.master.kinds())
            story.control, story.linked = story.slave.address, True
            story.changed()

        nursery.start_soon(come_back)
        assert await soon(anext(farm.follow_log(1, 3))) == b"one\n"


# -- kept ends ----------------------------------------------------------------


@given(
    log=st.binary(max_size=300), keep=st.integers(1, 120), offset=st.integers(0, 320), packed=st.booleans()
)
def test_kept_ends_say_what_they_hold_from_any_offset(
    log: bytes, keep: int, offset: int, packed: bool
) -> None:
    """Nothing is said twice; what is missing is said in one line, with its exact size."""
    head, tail = log[:keep], log[max(keep, len(log) - keep) :]
    pack = zlib.compress if packed else bytes
    shown = kept_from(LogEnds(size=len(log), head=pack(head), tail=pack(tail), packed=packed), offset)
    gap_start, gap_end = max(len(head), offset), len(log) - len(tail)
    if gap_end > gap_start:
        assert shown == head[offset:] + left_out(gap_end - gap_start) + tail
    else:
        assert shown == log[offset:]
