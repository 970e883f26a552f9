"""Layered jobs that depend on each other in every way, and everything that may happen to their frames.

`CoreFarm` reckons after each step, frame by frame, who must wait, and compares that with who does; it also
sees that a restart changes nothing. This adds that no frame was ever ordered before what it waited for was
over, and that nothing is stuck when all goes well.
"""

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drqueue.master.core.layer import Layer
from drqueue.proto.link_messages import Held
from drqueue.proto.messages import ChangeJob, FrameVerb, Refusal
from drqueue.proto.model import Depend, JobChange, JobSpec, LayerDepend, LayerSpec, RunOrder
from tests.builders import CoreFarm, a_layer, badly, well

RANGES = ("1-6", "3-9", "1-9x2", "6-1", "2,7,3", "1-12", "0-11x3", "-3-4")
NAMES = ("sim", "render", "comp", "check")
some = st.integers(0, 50)
untils = st.sampled_from(["done", "done", "ended"])


@st.composite
def waits(draw: st.DrawFn, layer: str, job: int | None) -> LayerDepend:
    """What a layer may wait for of that one."""
    frames = draw(st.sampled_from(["all", "any", "percent", "each", "each", "each"]))
    return LayerDepend(
        layer=layer,
        job=job,
        frames=frames,
        offset=draw(st.sampled_from([0, 0, 0, -1, 1, 3, -4])) if frames == "each" else 0,
        percent=draw(st.sampled_from([1, 33.4, 50, 70])) if frames == "percent" else 100,
        until=draw(untils),
    )


@st.composite
def layers(draw: st.DrawFn, known: list[tuple[int, tuple[str, ...]]]) -> tuple[LayerSpec, ...]:
    """Layers of a job, each of which may wait for earlier ones of it, and for layers of other jobs."""
    found: list[LayerSpec] = []
    for at in range(draw(st.integers(1, 3))):
        depends = [draw(waits(before.name, None)) for before in found if draw(st.booleans())]
        if known and draw(st.booleans()):
            job, names = draw(st.sampled_from(known))
            depends.append(draw(waits(draw(st.sampled_from(["", *names])), job)))
        if not draw(st.integers(0, 3)):
            depends.append(LayerDepend(frames="previous", until=draw(untils)))
        after = (found[-1].name,) if found and not draw(st.integers(0, 4)) else ()
        found.append(
            a_layer(
                draw(st.sampled_from(RANGES)),
                name=NAMES[at],
                chunk=draw(st.sampled_from([1, 1, 1, 2, 3])),
                retries=draw(st.integers(0, 1)),
                depends=tuple(depends),
                after=after,
            )
        )
    return tuple(found)


class Depending(RuleBasedStateMachine):
    """A farm of one big slave, and jobs that wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.farm = CoreFarm()
        self.link = self.farm.link(cores=5)
        self.running: list[RunOrder] = []

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.submit(data)
        self.submit(data)

    def known(self) -> list[tuple[int, tuple[str, ...]]]:
        jobs = [job for job in self.farm.core.state.jobs.values() if not job.deleted]
        return [(job.id, tuple(layer.spec.name for layer in job.layers)) for job in jobs]

    def layer(self, number: int) -> Layer | None:
        every = [x for job, _ in self.known() for x in self.farm.core.state.jobs[job].layers]
        return every[number % len(every)] if every else None

    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        known = self.known()
        if len(known) > 5:
            return
        depends = ()
        if known and not data.draw(st.integers(0, 2)):
            job, names = data.draw(st.sampled_from(known))
            frames = data.draw(st.sampled_from(["all", "any", "percent"]))
            layer = data.draw(st.sampled_from(["", *names]))
            percent = data.draw(st.sampled_from([20, 50.5])) if frames == "percent" else 100
            depends = (Depend(job, data.draw(untils), layer, frames, percent),)
        spec = JobSpec(name="job", layers=data.draw(layers(known)), depends=depends)
        self.farm.submit(spec)

    @rule(number=some, verb=st.sampled_from(["requeue", "requeue", "finish", "kill"]), frames=some)
    def frame_verb(self, number: int, verb: Any, frames: int) -> None:
        layer = self.layer(number)
        if layer is not None:
            text = RANGES[frames % len(RANGES)] if frames % 2 else str(frames % 9)
            self.farm.ask(FrameVerb(rq=0, job=layer.job.id, layer=layer.spec.name, verb=verb, frames=text))

    @rule(
        number=some, verb=st.sampled_from(["rerun", "delete", "stop", "hard-stop", "continue"]), chance=some
    )
    def job_verb(self, number: int, verb: Any, chance: int) -> None:
        layer = self.layer(number)
        if layer is not None and chance % 3 == 0:
            self.farm.verb(layer.job.id, verb)

    @rule(number=some, frames=st.sampled_from(RANGES), chunk=st.integers(1, 3))
    def rerange(self, number: int, frames: str, chunk: int) -> None:
        layer = self.layer(number)
        if layer is not None:
            self.farm.change(layer.job.id, layer=layer.spec.name, frames=frames, chunk=chunk)

    @rule(number=some, other=some, data=st.data())
    def depend(self, number: int, other: int, data: st.DataObject) -> None:
        """Some of these would go round in a circle, and are refused."""
        layer, parent = self.layer(number), self.layer(other)
        if layer is None or parent is None:
            return
        depend = data.draw(waits(parent.spec.name, parent.job.id))
        depends = data.draw(st.sampled_from([(), (depend,), (depend, LayerDepend(frames="previous"))]))
        change = JobChange(layer=layer.spec.name, layer_depends=depends)
        answer = self.farm.ask(ChangeJob(rq=0, job=layer.job.id, change=change))
        assert not isinstance(answer, Refusal) or "would wait for" in answer.text, answer

    @rule(count=st.integers(1, 4), result=st.sampled_from([well(), well(), well(), badly()]))
    def end(self, count: int, result: Any) -> None:
        """Some of what runs is over."""
        self.take()
        for order in self.running[:count]:
            self.farm.exited(self.link, order.key, result)
        del self.running[:count]

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.farm.wait(seconds)

    @rule()
    def restart(self) -> None:
        self.take()
        self.farm.restart()
        self.link = self.farm.link(cores=5, held=[Held(order.key) for order in self.running])
        self.take()

    def take(self) -> None:
        """What it was told to run; what it was told to stop is over at once."""
        self.running += self.farm.orders(self.link)
        stopped = {key for key, _why in self.farm.stops(self.link)}
        for order in [order for order in self.running if order.key in stopped]:
            self.running.remove(order)
            self.farm.exited(self.link, order.key, badly(reason="stopped"))

    @invariant()
    def what_was_just_ordered_waited_for_nothing(self) -> None:
        state = self.farm.core.state
        for order in self.farm.orders(self.link):
            self.running.append(order)
            attempt = state.attempts[order.key]
            layer = attempt.layer
            assert not layer.blocked, f"{order.key} was ordered too early"
            assert not layer.job.waits_for, f"{order.key} was ordered too early"
            assert layer.gate is None or not layer.gate.shut(attempt.index, attempt.index + 1), order.key

    def teardown(self) -> None:
        """All goes well from now on: then only that is left that waits for what failed or was cancelled."""
        self.take()
        for job, _names in self.known():
            self.farm.verb(job, "continue")
            for layer in self.farm.core.state.jobs[job].layers:
                again = [layer.chunks.first(i) for found in (layer.failed, layer.cancelled) for i in found]
                if again:
                    frames = ",".join(map(str, again))
                    self.farm.frame(job, "requeue", frames, layer=layer.spec.name)
        for _ in range(500):
            self.take()
            if not self.running:
                wake = self.farm.core.next_wakeup()
                if wake is None:
                    break
                self.farm.wait(max(0.0, wake - self.farm.now) + 0.001)
                continue
            for order in self.running:
                self.farm.exited(self.link, order.key)
            self.running.clear()
        for job in self.farm.core.state.jobs.values():
            assert job.all_done, f"job {job.id} is stuck: {job.waits_for} {[x.blocked for x in job.layers]}"


Depending.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestDepending = Depending.TestCase
