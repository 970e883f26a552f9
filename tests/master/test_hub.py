"""Watchers: latest states, at most 4 a second, never an unbounded queue, whatever the sizes."""

import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from drqueue.channel import Channel
from drqueue.master.core.effects import Publish
from drqueue.master.hub import BURST, KEYS_MOST, WATCHES_MOST, Hub, TooManyWatches
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.ids import FrameKey
from drqueue.proto.link_messages import Welcome
from drqueue.proto.messages import Changed, Watch
from drqueue.proto.model import Depend
from drqueue.proto.views import FrameView
from tests.builders import CoreFarm, a_job


async def same(views: tuple[FrameView, ...]) -> tuple[FrameView, ...]:
    return views


def as_it_is(news: Changed) -> Changed:
    return news


class Watched:
    """A hub over a core, and one client's end of a link to it."""

    def __init__(self, farm: CoreFarm, near: Channel, far: Channel) -> None:
        self.farm = farm
        self.near = near
        self.far = far
        self.hub = Hub(lambda: farm.core.state, same)

    def publish(self) -> None:
        """Hand everything that the core published to the hub."""
        for news in self.farm.published:
            self.hub.publish(news)
        self.farm.published.clear()

    async def changed(self) -> Changed:
        """The next news."""
        message = await self.far.receive()
        assert isinstance(message, Changed)
        return message

    async def none_for(self, seconds: float) -> bool:
        """Whether nothing more comes within that (virtual) time."""
        with trio.move_on_after(seconds):
            await self.far.receive()
            return False
        return True


class Steps(trio.abc.Instrument):
    """Counts how often the hub is woken."""

    def __init__(self) -> None:
        self.of_the_hub = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of_the_hub += task.name.endswith("Hub.run")


@pytest.fixture
async def watched(nursery: trio.Nursery) -> AsyncIterator[Watched]:
    one, two = socket.socketpair()
    near, far = Channel(one), Channel(two)
    async with trio.open_nursery() as shaking:
        shaking.start_soon(near.answer, Answerer(Welcome(version=1), frozenset({"client"})))
        shaking.start_soon(far.dial, Dialler("client", "test"))
    made = Watched(CoreFarm(), near, far)
    nursery.start_soon(near.pump)
    nursery.start_soon(made.hub.run)
    yield made
    near.close()
    far.close()


async def test_a_watcher_of_jobs_hears_their_latest_state(watched: Watched) -> None:
    number = watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    job = watched.farm.submit(a_job("1-3"))
    watched.publish()
    news = await watched.changed()
    assert (news.watch, [view.id for view in news.jobs], news.frames) == (number, [job], ())


async def test_changes_are_coalesced_after_a_burst(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    """The first BURST pieces of news go out at once; then one each quarter of a second."""
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    start = trio.current_time()
    for _ in range(BURST):
        watched.farm.submit()
        watched.publish()
        await watched.changed()
    assert trio.current_time() == start
    for _ in range(50):
        watched.farm.submit()
        watched.publish()
        await trio.testing.wait_all_tasks_blocked()
    news = await watched.changed()
    assert trio.current_time() - start == pytest.approx(0.25, abs=0.1)
    assert len(news.jobs) == 50
    assert await watched.none_for(5)


async def test_nobody_is_looked_at_while_it_is_too_early_for_all(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    """A busy farm publishes hundreds of times a second: each time woken, the hub would do little else."""
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    for _ in range(BURST):
        watched.farm.submit()
        watched.publish()
        await watched.changed()
    watched.farm.submit()
    watched.publish()
    await trio.testing.wait_all_tasks_blocked()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for _ in range(50):
        watched.farm.submit()
        watched.publish()
        await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(steps)
    assert steps.of_the_hub == 0
    assert len((await watched.changed()).jobs) == 51


async def test_who_comes_meanwhile_does_not_wait_for_those_who_are_early(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    for _ in range(BURST):
        watched.farm.submit()
        watched.publish()
        await watched.changed()
    watched.farm.submit()
    watched.publish()
    await trio.testing.wait_all_tasks_blocked()
    start = trio.current_time()
    newcomer = watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    watched.farm.submit()
    watched.publish()
    assert (await watched.changed()).watch == newcomer
    assert trio.current_time() == start


async def test_a_deleted_job_is_gone(watched: Watched) -> None:
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    job = watched.farm.submit()
    watched.farm.published.clear()
    watched.farm.verb(job, "delete")
    watched.publish()
    assert (await watched.changed()).jobs_gone == (job,)


async def test_a_watcher_of_one_job_hears_of_its_frames_alone(watched: Watched) -> None:
    link = watched.farm.link()
    mine = watched.farm.submit(a_job("1-2"))
    other = watched.farm.submit(a_job("1-2"))
    watched.hub.watch(watched.near, Watch(rq=0, job=mine), as_it_is)
    watched.farm.published.clear()
    for order in watched.farm.orders(link):
        watched.farm.exited(link, order.key)
    watched.publish()
    news = await watched.changed()
    assert {view.job for view in news.frames} == {mine}
    assert [view.state for view in news.frames] == ["DONE", "DONE"]
    assert [view.id for view in news.jobs] == [mine] != [other]


async def test_too_many_changes_are_a_resync(watched: Watched) -> None:
    watched.hub.watch(watched.near, Watch(rq=0, job=0), as_it_is)
    watched.farm.submit(a_job(f"1-{2 * KEYS_MOST}"))
    keys = frozenset(FrameKey(0, 0, index) for index in range(KEYS_MOST + 1))
    watched.hub.publish(Publish(frozenset(), keys, frozenset()))
    news = await watched.changed()
    assert news.resync
    assert news.frames == ()


async def test_news_larger_than_a_packet_come_in_several(watched: Watched) -> None:
    """Jobs with a thousand dependencies each, all changed at once."""
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    watched.farm.check_every = 30  # the core is not what this is about, and looks at each dependency
    first = watched.farm.submit()
    depends = tuple(Depend(first) for _ in range(1000))
    jobs = {watched.farm.submit(a_job(depends=depends)) for _ in range(60)}
    watched.publish()
    found: list[set[int]] = []
    while not jobs <= set().union(*found):
        found.append({view.id for view in (await watched.changed()).jobs})
    assert len(found) > 1
    assert sum(map(len, found)) == len(set().union(*found))


async def test_a_link_that_is_gone_takes_its_watches_along(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    number = watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    watched.hub.drop(watched.near)
    assert not watched.hub.unwatch(number, watched.near)
    watched.farm.submit()
    watched.publish()
    assert await watched.none_for(2)


async def test_a_link_has_no_more_watches_than_it_may(watched: Watched) -> None:
    """One beyond is refused in a sentence; one that ends makes room, and another link has its own."""
    mine = [watched.hub.watch(watched.near, Watch(rq=0, job=n), as_it_is) for n in range(WATCHES_MOST)]
    assert len(set(mine)) == WATCHES_MOST
    with pytest.raises(TooManyWatches, match="may watch 100 things at once"):
        watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    watched.hub.watch(watched.far, Watch(rq=0, jobs=True), as_it_is)
    assert watched.hub.unwatch(mine[3], watched.near)
    assert not watched.hub.unwatch(mine[3], watched.near)
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    with pytest.raises(TooManyWatches):
        watched.hub.watch(watched.near, Watch(rq=0, slaves=True), as_it_is)
    watched.hub.drop(watched.near)
    watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)


async def test_nobody_ends_the_watch_of_another(watched: Watched) -> None:
    number = watched.hub.watch(watched.near, Watch(rq=0, jobs=True), as_it_is)
    assert not watched.hub.unwatch(number, watched.far)
    assert watched.hub.unwatch(number, watched.near)
