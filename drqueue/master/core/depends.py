"""What jobs and layers wait for as wholes; `gates` sees to single frames.

Rules of this file:
1. A Goal is so much of a job, or of one of its layers, that must be over; all that wait for the same share
   it. Goals are looked at when frames of their job ended or came back; only where one is met then, or is met
   no more, are those looked at that wait for it. So a job that nobody waits for costs nothing.
2. All of it is derived: `wire` makes it from a job's spec and where frames stand.
3. A job that is gone was met, or took along what still waited for it (see `cancelling`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from drqueue.master.core.gates import Gate, Link, Stretch
from drqueue.master.core.layer import Layer
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.model import Depend, JobSpec, LayerDepend
from drqueue.proto.rules import frames_wanted

#: What a job waits for that waits for no other job.
START_TIME = "its start time"
#: What jobs of a backup wait for, after a restore from it.
RESTORED = "the end of leases given before the restore"


#: Which of a job's layers (None: all of them), and what of it.
Scope = tuple[int | None, str, float, str]


class Goal:
    """So many frames of some layers of a job, over well or (`ended`) anyhow."""

    __slots__ = ("ended", "frames", "job", "layers", "met", "percent", "waiters")

    def __init__(self, job: Job, layers: tuple[Layer, ...], frames: str, percent: float, ended: bool) -> None:
        self.job = job
        self.layers = layers
        self.frames = frames
        self.percent = percent
        self.ended = ended
        #: Jobs that wait for it, themselves or with one of their layers.
        self.waiters: set[int] = set()
        self.met = self.reached()

    @property
    def total(self) -> int:
        """How many frames it is about."""
        return sum(layer.size for layer in self.layers)

    @property
    def wanted(self) -> int:
        """How many of them must be over."""
        return frames_wanted(self.total, self.frames, self.percent)

    @property
    def over(self) -> int:
        """How many are over, as it asks."""
        over = 0
        for layer in self.layers:
            over += len(layer.done)
            if self.ended:
                over += len(layer.failed) + len(layer.cancelled)
        return over

    @property
    def lost(self) -> int:
        """How many will not be over by themselves."""
        if self.ended:
            return 0
        return sum(len(layer.failed) + len(layer.cancelled) for layer in self.layers)

    def reached(self) -> bool:
        """Whether it is met now; `met` is what those know that wait for it."""
        return self.over >= self.wanted


class Wait(NamedTuple):
    """A goal, and what people are told of it: `render`, `12/render (50%)`, `job 12`."""

    goal: Goal
    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one dependency is. `never`: so many failed or were cancelled that it is not met by itself."""

    name: str
    layers: tuple[Layer, ...]
    over: int
    wanted: int
    total: int
    lost: int
    ended: bool

    @property
    def met(self) -> bool:
        """Whether nothing waits for it any more."""
        return self.over >= self.wanted

    @property
    def never(self) -> bool:
        """Whether it takes a requeue, or a finish, to meet it."""
        return self.total - self.lost < self.wanted


def progress(waits: Iterable[Wait]) -> list[Progress]:
    """How far each of `Job.waits` or `Layer.waits` is, in their order."""
    return [
        Progress(name, goal.layers, goal.over, goal.wanted, goal.total, goal.lost, goal.ended)
        for goal, name in waits
    ]


def frame_waits(layer: Layer, index: int) -> list[tuple[Layer, list[Stretch]]]:
    """The frames, as positions of their layers, that the frame at this position itself still waits for."""
    links = layer.gate.links if layer.gate is not None else []
    found = [(link.other, link.unmet(index)) for link in links]
    return [(other, pieces) for other, pieces in found if pieces]


# -- derived ----------------------------------------------------------------------------------------------


def parents(spec: JobSpec) -> set[int]:
    """The other jobs that a job depends on, itself or with one of its layers."""
    jobs = {depend.job for depend in spec.depends}
    return jobs | {d.job for layer in spec.layers for d in layer.depends if d.job is not None}


def wire(state: FarmState, job: Job) -> None:
    """Make anew whom a job and its layers wait for. Each of its parents has all its frames by now."""
    _loosen(state, job)
    for number in parents(job.spec):
        state.dependents.setdefault(number, set()).add(job.id)
    job.waits = tuple([wait for depend in job.spec.depends if (wait := _wait(state, job, depend))])
    for layer in job.layers:
        whole = [LayerDepend(layer=name) for name in layer.spec.after]
        whole += [d for d in layer.spec.depends if d.frames not in ("each", "previous")]
        layer.waits = tuple([wait for depend in whole if (wait := _wait(state, job, depend))])
        for depend in layer.spec.depends:
            other = layer if depend.frames == "previous" else _layer(state, job, depend)
            if depend.frames in ("each", "previous") and other is not None:
                layer.gate = layer.gate or Gate(layer)
                link = Link(layer.gate, other, depend)
                layer.gate.links.append(link)
                other.watchers.append(link)
        _sort_all(layer)


def unwire(state: FarmState, job: Job) -> None:
    """A job goes: it waits for nobody any more."""
    _loosen(state, job)
    job.waits_for = ""
    for layer in job.layers:
        layer.blocked = ""
        _sort_all(layer)


def _loosen(state: FarmState, job: Job) -> None:
    waits = [*job.waits, *(wait for layer in job.layers for wait in layer.waits)]
    for goal in dict.fromkeys([wait.goal for wait in waits]):
        goal.waiters.discard(job.id)
        if not goal.waiters:
            goal.job.goals = {key: one for key, one in goal.job.goals.items() if one is not goal}
    job.waits = ()
    for layer in job.layers:
        layer.waits = ()
        for link in layer.gate.links if layer.gate is not None else ():
            link.other.watchers.remove(link)
        layer.gate = None
    for others in [state.dependents[n] for n in parents(job.spec) if n in state.dependents]:
        others.discard(job.id)


def _sort_all(layer: Layer) -> None:
    if layer.gate is not None or layer.held:
        (layer.gate or Gate(layer)).sort(0, layer.size)


def _wait(state: FarmState, job: Job, depend: Depend | LayerDepend) -> Wait | None:
    """None where the job that it depends on is gone."""
    number = job.id if depend.job is None else depend.job
    parent = state.jobs.get(number)
    if parent is None or parent.deleted:
        return None
    layer = None
    if depend.layer or isinstance(depend, LayerDepend):
        layer = parent.layer_named(depend.layer)
    key: Scope = (None if layer is None else layer.index, depend.frames, depend.percent, depend.until)
    goal = parent.goals.get(key)
    if goal is None:
        layers = tuple(parent.layers) if layer is None else (layer,)
        goal = Goal(parent, layers, depend.frames, depend.percent, depend.until == "ended")
        parent.goals[key] = goal
    goal.waiters.add(job.id)
    name = "" if layer is None else layer.spec.name
    if isinstance(depend, Depend):
        name = f"job {number}/{name}" if name else f"job {number}"
    elif parent is not job:
        name = f"{number}/{name}"
    part = {"any": " (any frame)", "percent": f" ({depend.percent:g}%)"}.get(depend.frames, "")
    return Wait(goal, name + part)


def _layer(state: FarmState, job: Job, depend: LayerDepend) -> Layer | None:
    parent = job if depend.job is None else state.jobs.get(depend.job)
    return None if parent is None or parent.deleted else parent.layer_named(depend.layer)


def take_spec(state: FarmState, job: Job, spec: JobSpec) -> None:
    """A job has this spec from now on, which was checked; its ranges are as they were."""
    anew = asked(spec) != asked(job.spec)
    if anew:
        # What it waited for so far is found by the former spec.
        _loosen(state, job)
    job.take_spec(spec)
    if anew:
        wire(state, job)
    state.save.append(job.record())
    state.want_schedule = True


def asked(spec: JobSpec) -> object:
    """All that a job's waiting is made from."""
    return spec.depends, [(layer.after, layer.depends) for layer in spec.layers]


def relaid(layer: Layer) -> None:
    """A layer has other frames, or other chunks."""
    links = layer.gate.links if layer.gate is not None else []
    for link in (*links, *layer.watchers):
        link.fit()
    for gate in dict.fromkeys([link.gate for link in (*links, *layer.watchers)]):
        gate.sort(0, gate.layer.size)


def derive(state: FarmState, job: Job, wall: float) -> None:
    """What a job, and each of its layers, waits for by what is known of its goals, and by the time."""
    waits = next((name for goal, name in job.waits if not goal.met), "")
    if not waits and state.holdback is not None and job.id in state.holdback.dues:
        waits = RESTORED
    if not waits and job.spec.not_before > wall:
        waits = START_TIME
        state.timed.add(job.id)
    else:
        state.timed.discard(job.id)
    changed = waits != job.waits_for
    job.waits_for = waits
    for layer in job.layers:
        blocked = next((name for goal, name in layer.waits if not goal.met), "")
        changed = changed or blocked != layer.blocked
        layer.blocked = blocked
        layer.look_open(wall)
    if changed:
        state.changed_jobs.add(job.id)
        job.note_waiting()
    state.want_schedule = True


def recheck(turn: Turn, job: Job) -> None:
    """As `derive`; what was sent ahead of frames that wait again is asked back."""
    derive(turn.state, job, turn.wall)
    for layer in job.layers:
        if layer.blocked or (job.waits_for and job.waits_for != START_TIME):
            _ask_back(turn, layer, whole=True)


def look(turn: Turn, job: Job) -> None:
    """After frames of a job ended or came back: see to the jobs whose waiting this changes."""
    flipped: set[int] = set()
    for goal in job.goals.values():
        if goal.reached() != goal.met:
            goal.met = not goal.met
            flipped |= goal.waiters
    for number in sorted(flipped):
        recheck(turn, turn.state.jobs[number])


def came_back(turn: Turn, job: Job) -> None:
    """Frames of a job were sent back: what waits for them one by one, but is at its slave, is asked back."""
    for gate in dict.fromkeys([link.gate for layer in job.layers for link in layer.watchers]):
        _ask_back(turn, gate.layer, whole=False)


def _ask_back(turn: Turn, layer: Layer, *, whole: bool) -> None:
    for attempt in [attempt for attempt in layer.live.values() if attempt.ahead]:
        at = attempt.index
        if whole or (layer.gate is not None and layer.gate.shut(at, at + 1)):
            turn.take_back(attempt)
