"""The slave's lease is over before the master gives its frames away, however long words take (F5, F6, I3).

Both real cores stand at the ends of a link on which every word takes as long as is drawn, each direction may
be cut at any time, and the slave's clock goes a percent wrong. The slave never links again. Its frames ignore
TERM, and its own grace is an hour.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drqueue.master.core.events import SlaveUnlinked
from drqueue.master.core.turn import Policy
from drqueue.proto.link_messages import Beat, Message, Orders, Registered
from drqueue.proto.model import SlaveLimits
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import Send, Start
from drqueue.slave.core.events import Event, Heard, Linked, OrdersCame, RegisteredAs
from drqueue.slave.core.processes import ProcessStarted, SignalTree
from drqueue.slave.core.state import State
from tests.builders import CoreFarm, a_job

BEAT_S = 10.0
#: The slave's clock when the story begins.
BOOTED = 5000.0


class Way:
    """One direction: each word takes as long as the next of `delays` says, the last for ever, in order."""

    def __init__(self, delays: Sequence[float], cut_at: float) -> None:
        self._delays = [*reversed(delays)]
        self._cut_at = cut_at
        self._arrived = 0.0

    def arrives(self, now: float) -> float:
        """When a word that is said now arrives; `inf`: it is lost."""
        delay = self._delays.pop() if len(self._delays) > 1 else self._delays[0]
        self._arrived = max(self._arrived, now + delay)
        return self._arrived if self._arrived < self._cut_at else inf


class Story:
    """A master and a slave that runs one frame; times are seconds since it began.

    `tells`: both say which words came.
    """

    def __init__(
        self,
        up: Way,
        down: Way,
        *,
        unlinked_at: float,
        lease_s: float = 60.0,
        rate: float = 1.0,
        tells: bool = True,
    ) -> None:
        self.now = 0.0
        self.started_at = self.killed_at = self.given_up_at = inf
        self._up, self._down = up, down
        self._rate = rate
        self._tells = tells
        self._farm = CoreFarm(Policy(farm="farm", lease_s=lease_s), check_every=50)
        self._began = self._farm.now
        self._state = State(SlaveLimits())
        self._state.heard_at = BOOTED
        self._core = Core(self._state, cores=4, grace_s=3600.0)
        self._heap: list[tuple[float, int, object]] = []
        self._ties = count()
        self._heard = self._seen = 0.0
        self._link = 0
        self._linked = True
        self._out_of = 0
        self._at(unlinked_at, "unlinked")

    def _at(self, when: float, what: object) -> None:
        if when < inf:
            heappush(self._heap, (when, next(self._ties), what))

    # -- the slave --------------------------------------------------------------------------------------

    def _clock(self) -> float:
        return BOOTED + self.now * self._rate

    def _slave(self, *events: Event) -> None:
        for effect in self._core.step(events, self._clock()).do:
            match effect:
                case Send(message=message):
                    self._at(self._up.arrives(self.now), message)
                case Start(order):
                    self.started_at = self.now
                    self._slave(ProcessStarted(order.key, 100, 0, 5000.0))
                case SignalTree(kill=True):
                    self.killed_at = min(self.killed_at, self.now)

    def _slave_reads(self, message: Message) -> None:
        match message:
            case Beat(seen=seen):
                self._slave(Heard(seen))
            case Registered(seen=seen):
                self._slave(RegisteredAs(0, "s1", seen))
            case Orders():
                self._slave(OrdersCame(message))

    # -- the master -------------------------------------------------------------------------------------

    def _master(self) -> None:
        self._farm.now = self._began + self.now
        said = self._farm.said.get(self._link, [])
        for message in said[self._out_of :]:
            self._at(self._down.arrives(self.now), ("down", message))
        self._out_of = len(said)

    def _master_reads(self, message: Message) -> None:
        """As its shell does it."""
        if not self._linked:
            return
        self._heard = self.now
        if isinstance(message, Beat):
            self._seen = max(self._seen, message.at)
            if message.echo:
                self._at(self._down.arrives(self.now), ("down", Beat(seen=self._seen)))

    def _master_beats(self) -> None:
        if self._linked:
            self._at(self._down.arrives(self.now), ("down", Beat(seen=self._seen if self._tells else 0)))

    # -- both -------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Let it happen."""
        at = self._clock() if self._tells else 0.0
        self._seen = at
        self._link = self._farm.link(at=at)
        self._farm.submit(a_job("1"))
        self._slave(Linked(1, "farm", 1))
        self._master()
        for beat in range(int(until / BEAT_S)):
            self._at(beat * BEAT_S + 3.0, "slave beats")
            self._at(beat * BEAT_S + 7.0, "master beats")
        while self._heap and self.now < until:
            woken = self._core.next_wakeup()
            slave_at = inf if woken is None else max(self.now, (woken - BOOTED) / self._rate + 1e-6)
            woken = self._farm.core.next_wakeup()
            master_at = inf if woken is None else max(self.now, woken - self._began + 1e-6)
            self.now = min(self._heap[0][0], slave_at, master_at)
            if slave_at <= self.now:
                self._slave()
            if master_at <= self.now:
                self._master()
                self._farm.step()
            if self._heap[0][0] <= self.now:
                self._happens(heappop(self._heap)[2])
            if self.given_up_at == inf and not self._linked and not self._farm.core.state.attempts:
                self.given_up_at = self.now
                # What is on its way still comes.
                until = self.now + 310.0

    def _happens(self, what: object) -> None:
        match what:
            case "slave beats":
                self._at(self._up.arrives(self.now), Beat(at=self._clock() if self._tells else 0))
            case "master beats":
                self._master_beats()
            case "unlinked":
                self._linked = False
                self._master()
                self._farm.step(SlaveUnlinked(self._link, self._began + self._heard))
            case ("down", Message() as message):
                self._slave_reads(message)
            case Message() as message:
                self._master_reads(message)


def _ends_before_it_is_given_away(story: Story) -> None:
    story.run(4000.0)
    assert story.given_up_at < inf, "the story is too short"
    ran = story.started_at < inf
    assert not ran or story.killed_at < story.given_up_at, "another slave may start the frame while it runs"


_delays = st.lists(st.floats(0.0, 300.0), min_size=1, max_size=40)
_cuts = st.floats(5.0, 900.0)


@given(
    up=_delays,
    down=_delays,
    cut_up=_cuts | st.just(inf),
    cut_down=_cuts | st.just(inf),
    unlinked_at=st.floats(5.0, 1200.0),
    lease_s=st.sampled_from([30.0, 60.0, 600.0]),
    rate=st.floats(0.99, 1.01),
)
@example([0.1], [0.1], 400.0, 400.0, 430.0, 60.0, 0.99)
@settings(max_examples=100, deadline=None)
def test_i3_f6_the_slaves_lease_ends_first_whatever_either_way_takes(
    up: list[float],
    down: list[float],
    cut_up: float,
    cut_down: float,
    unlinked_at: float,
    lease_s: float,
    rate: float,
) -> None:
    """P4. The master hears of the link's end at any time, and knows when the last word came."""
    ways = Way(up, cut_up), Way(down, cut_down)
    _ends_before_it_is_given_away(Story(*ways, unlinked_at=unlinked_at, lease_s=lease_s, rate=rate))


def _a_queue_that_grows(*, tells: bool) -> Story:
    """Each word of the master comes 15 s later than the one before, up to 300 s; then nothing comes to it."""
    down = Way([0.05 + 15.0 * n for n in range(21)], inf)
    return Story(Way([0.05], 400.0), down, unlinked_at=430.0, lease_s=600.0, tells=tells)


def test_i3_f5_words_of_the_master_that_queue_up_do_not_keep_a_frame_beyond_its_lease() -> None:
    story = _a_queue_that_grows(tells=True)
    _ends_before_it_is_given_away(story)
    assert 400.0 - 20.0 + 600.0 < story.killed_at < 400.0 + 600.0 + 30.0 + 1.0


def test_an_older_master_is_believed_when_its_words_are_read() -> None:
    """It does not say what it heard: where words wait for minutes on their way, both may run a frame."""
    with pytest.raises(AssertionError, match="another slave"):
        _ends_before_it_is_given_away(_a_queue_that_grows(tells=False))


@pytest.mark.parametrize(("up_s", "down_s"), [(0.05, 0.05), (6.0, 1.0), (22.0, 22.0)])
def test_a_link_on_which_words_come_keeps_its_frames(up_s: float, down_s: float) -> None:
    """P5. With beats alone a lease of 60 s would end where words take 22 s: the slave asks in time."""
    story = Story(Way([up_s], inf), Way([down_s], inf), unlinked_at=990.0)
    story.run(990.0)
    assert story.started_at < 100.0
    assert (story.killed_at, story.given_up_at) == (inf, inf)
