"""The table of calls, walked over the master's core: what each call asks for, and what comes of that.

The binding runs as it is; only the link to a master is replaced by the core itself. So every row of the table
is walked with the very requests that the call sends, and with no process.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast, get_args

import msgspec
import pytest

import drqueue
from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import pipeline, session
from drqueue.client.errors import refused
from drqueue.master.core.events import SlaveSaid
from drqueue.master.core.on_look import READS
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import LimitsNow
from drqueue.proto.messages import FrameVerbName, JobVerbName, Refusal, Request
from drqueue.proto.model import Exit, SlaveLimits
from drqueue.proto.tags import BY_TAG
from tests.binding.verbs import STATES, State, Verb, load, make
from tests.binding.walk import walk
from tests.builders import CoreFarm

T = TypeVar("T")
U = TypeVar("U")
VERBS = load()


class CoreClient(AsyncClient):
    """The client of a core in this process; `changes` are the requests that were more than questions."""

    def __init__(self, farm: CoreFarm) -> None:
        self._farm = farm
        self.changes: list[Request] = []

    async def _ask(self, request: Request, kind: type[Any], **_: object) -> Any:
        if not isinstance(request, READS):
            self.changes.append(request)
        answer = self._farm.ask(request)
        if isinstance(answer, Refusal):
            raise refused(answer.code, answer.text)
        assert isinstance(answer, kind)
        return answer


class CorePortal:
    """Runs calls with that client; stands where the binding keeps its links."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    @contextmanager
    def portal(self) -> Iterator["CorePortal"]:
        yield self

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        # The core answers at once: nothing is ever waited for, and no loop is needed that would wait.
        try:
            work().__await__().send(None)
        except StopIteration as end:
            return cast(T, end.value)
        raise AssertionError("a call waits for something")


async def one_by_one(items: Iterable[U], ask: Callable[[U], Awaitable[T]]) -> list[T]:
    """What stands for asking many things at a time."""
    return [await ask(item) for item in items]


class CoreWorld:
    """A core with one slave that does as it is told, and nothing before a test says so."""

    still = True
    first_slave = "s1"

    def __init__(self) -> None:
        self.farm = CoreFarm()
        self.link = self.farm.link("s1", cores=100)
        self.client = CoreClient(self.farm)
        self._runs: dict[tuple[int, int], AttemptKey] = {}

    def send(self) -> drqueue.job:
        job = drqueue.job()
        job.name, job.cmd, job.frame_end = "job", "true", 2
        assert job.send_to_queue() == 1
        return job

    def hold(self) -> None:
        self.farm.step(SlaveSaid(self.link, LimitsNow(limits=SlaveLimits(enabled=False))))

    def end(self, job: drqueue.job, number: int) -> None:
        self.farm.exited(self.link, self._runs.pop((job.id, number)))

    def end_killed(self, job: drqueue.job, number: int) -> None:
        assert self.killed(job, number), f"nobody killed frame {number} of job {job.id}"
        key = self._runs.pop((job.id, number))
        self.farm.exited(self.link, key, Exit(signal=15, reason="stopped"))

    def killed(self, job: drqueue.job, number: int) -> bool:
        return self._runs.get((job.id, number)) in [key for key, _ in self.farm.stops(self.link)]

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        for order in self.farm.orders(self.link):
            self._runs[order.key.job, order.start] = order.key
            self.farm.started(self.link, order.key)
        assert holds(), what


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> CoreWorld:
    made = CoreWorld()
    monkeypatch.setattr(session, "_table", CorePortal(made.client))
    monkeypatch.setattr(pipeline, "each", one_by_one)
    return made


def by_name(verb: Verb) -> str:
    return verb.name


@pytest.mark.parametrize("verb", VERBS, ids=by_name)
def test_a_call_does_what_the_table_says(world: CoreWorld, verb: Verb) -> None:
    walk(world, [verb])


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.method], ids=by_name)
def test_the_method_of_a_job_does_the_same(world: CoreWorld, verb: Verb) -> None:
    walk(world, [verb], by_method=True)


@pytest.mark.parametrize("verb", VERBS, ids=by_name)
def test_a_call_sends_what_the_table_says(world: CoreWorld, verb: Verb) -> None:
    """One request, with exactly these fields beside the job's id."""
    for call in filter(None, (verb.call, verb.method)):
        job = world.send()
        if verb.first:
            assert make(verb.first, job, world.first_slave) == 1
        world.client.changes.clear()
        assert make(call, job, world.first_slave) == 1
        fields = {"rq": 0, "job": job.id, **{k: v for k, v in verb.request.items() if k != "t"}}
        wanted = msgspec.convert(fields, BY_TAG[verb.request["t"].lower()])
        assert world.client.changes == [wanted]


def test_every_state_stands_once_in_the_rows_of_every_verb() -> None:
    """What a job and a frame can be together, the table says of each verb; and it names each request once."""
    for verb in VERBS:
        found = [f"{row.before.job} {row.before.frame} {row.before.requeued}" for row in verb.rows]
        assert tuple(found) == STATES, verb.name
        for row in verb.rows:
            assert (row.then is None) == (row.before.frame != "ASSIGNED"), f"{verb.name}: {row}"
            assert not row.after.killed or row.before.frame == "ASSIGNED", f"{verb.name}: {row}"


def test_every_verb_that_a_client_can_send_is_in_the_table() -> None:
    sent = {(verb.request["t"], verb.request.get("verb", "")) for verb in VERBS}
    assert {name for kind, name in sent if kind == "JobVerb"} == set(get_args(JobVerbName))
    # The original had no word for an order of frames.
    assert {name for kind, name in sent if kind == "FrameVerb"} == set(get_args(FrameVerbName)) - {"next"}


def test_what_is_no_state_is_refused() -> None:
    for text in ("", "ACTIVE", "ACTIVE RUNNING 1", "BUSY ASSIGNED 1", "ACTIVE ASSIGNED", "ACTIVE ASSIGNED x"):
        with pytest.raises(ValueError):  # noqa: PT011  (from int as well)
            State.parse(text)
