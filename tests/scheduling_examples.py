"""The few words in which the examples of `docs/scheduling.md` are told, on a real core without processes.

Each example has a farm of its own, on which time stands still until it waits. What a word is given goes to
the struct that has a field of that name; a mistake in an example is an error, never passed over.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, structs

from drqueue.client.depend_text import parse_depend, parse_layer_depend
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.events import SlaveSaid
from drqueue.proto.link_messages import LimitsNow, Status
from drqueue.proto.messages import ChangeJob, Done, FrameVerb, JobVerb, Refusal, Request, SlaveVerb, Submit
from drqueue.proto.messages import Submitted as Taken
from drqueue.proto.model import (
    Alternative,
    Exit,
    Gpu,
    JobChange,
    JobSpec,
    LayerDepend,
    LayerSpec,
    MachineInfo,
    MachineLoad,
    Needs,
    Offers,
    Share,
    SlaveLimits,
)
from drqueue.proto.roles import Who
from drqueue.proto.sharing_messages import ListPools, Pools, PutLimit, PutPool, PutShare
from tests.builders import WALL, CoreFarm


def fields_of(kind: type[Struct], given: dict[str, Any]) -> dict[str, Any]:
    """What of `given` is a field of that struct, taken out of it."""
    names = {field.name for field in structs.fields(kind)}
    return {name: given.pop(name) for name in list(given) if name in names}


def needs_of(given: dict[str, Any]) -> dict[str, Any]:
    """What of `given` are needs, as the field of a layer; nothing where there are none."""
    found = fields_of(Needs, given)
    if "alternatives" in found:
        found["alternatives"] = tuple(Alternative(**each) for each in found["alternatives"])
    return {"needs": Needs(**found)} if found else {}


def layer(name: str, frames: str = "1-9", **given: Any) -> LayerSpec:
    """A layer of a job that has several."""
    depends = tuple(parse_layer_depend(text) for text in given.pop("depends", "").split())
    fields = needs_of(given)
    return LayerSpec(name=name, frames=frames, argv=("render",), depends=depends, **fields, **given)


class Told:
    """One farm, and the words that an example has for it."""

    def __init__(self) -> None:
        self._farm = CoreFarm()
        self._links: dict[str, int] = {}
        self._jobs: dict[str, int] = {}

    def words(self) -> dict[str, Callable[..., Any]]:
        """All words, by name."""
        own = {name: getattr(self, name) for name in vars(type(self)) if not name.startswith("_")}
        return {name: word for name, word in own.items() if name != "words"} | {"layer": layer}

    # -- what there is ----------------------------------------------------------------------------------

    def slave(self, name: str, *, gpus: Iterable[int] = (), **given: Any) -> None:
        """A slave links: 4 cores and 8192 MB where nothing else is said; `gpus`: memory of each in MB."""
        devices = tuple(Gpu(index, f"GPU {size}", size) for index, size in enumerate(gpus))
        own = {"cores": given.pop("cores", 4), "memory_mb": given.pop("memory_mb", 8192)}
        limits = SlaveLimits(**fields_of(SlaveLimits, given))
        offers = Offers(gpus=tuple(range(len(devices))), **fields_of(Offers, given))
        machine = MachineInfo(gpus=devices, **{"hostname": name, "os": "linux", "boot_id": "b"} | given)
        self._links[name] = self._farm.link(name, machine=machine, offers=offers, limits=limits, **own)

    def job(self, name: str, frames: str = "1-9", **given: Any) -> None:
        """Submit a job, of one layer where no `layers` are given; what the farm says to it is printed.

        Where there is no slave yet, it would say that of every job.
        """
        who = Who(name=given.pop("user", "anna"), role=given.pop("role", "artist"))
        waits = [self._depend(text) for text in given.pop("depends", "").split()]
        own = [each for each in waits if isinstance(each, LayerDepend)]
        if given.pop("previous", False):
            own.append(LayerDepend(frames="previous"))
        layers = given.pop("layers", ())
        whole = fields_of(JobSpec, given)
        if not layers:
            layers = (layer("main", frames, **given),)
            given = {}
        assert not given, f"nothing of a job is called {given.keys()}"
        layers = tuple(structs.replace(each, depends=(*each.depends, *own)) for each in layers)
        depends = tuple(each for each in waits if not isinstance(each, LayerDepend))
        spec = JobSpec(name=name, layers=layers, depends=depends, **whole)
        answer = self._farm.ask(Submit(rq=0, token=f"example-{name}", spec=spec), who)
        if isinstance(answer, Taken):
            self._jobs[name] = answer.job
            for text in answer.warnings if self._links else ():
                print(f"warning: {text}")
        else:
            self._say(answer)

    def limit(self, name: str, amount: float, scope: Any = None) -> None:
        """Set a limit."""
        self._say(self._farm.ask(PutLimit(rq=0, name=name, amount=amount, scope=scope)))

    def share(self, of: Any, name: str, **given: Any) -> None:
        """Give a project or a user a share."""
        self._say(self._farm.ask(PutShare(rq=0, share=Share(of=of, name=name, **given))))

    def pool(self, name: str, policy: Any) -> None:
        """Say who comes first in a pool."""
        self._say(self._farm.ask(PutPool(rq=0, name=name, policy=policy)))

    # -- what happens -----------------------------------------------------------------------------------

    def ends(self, *frames: str, seconds: float = 60.0) -> None:
        """Frames that run end well."""
        for frame in frames:
            attempt = self._attempt(frame)
            result = Exit(code=0, started_at=WALL, ended_at=WALL + seconds)
            self._farm.exited(self._links[attempt.slave.name], attempt.key, result)

    def fails(self, *frames: str) -> None:
        """Frames that run fail."""
        for frame in frames:
            attempt = self._attempt(frame)
            self._farm.exited(self._links[attempt.slave.name], attempt.key, Exit(code=1))

    def drain(self) -> None:
        """All that runs ends well, one frame after the other, until nothing is left; the order is printed."""
        order = []
        while running := [a for s in self._farm.core.state.slaves.values() for a in s.live.values()]:
            order.append(self._name(running[0]))
            self.ends(order[-1])
        print(told(order))

    def wait(self, *, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Time goes by."""
        self._farm.wait(hours * 3600 + minutes * 60 + seconds)

    def change(self, name: str, **given: Any) -> None:
        """Change a job that lives; `depends` takes the place of all that it waited for."""
        if "depends" in given:
            given["depends"] = tuple(self._depend(text) for text in given["depends"].split())
        self._say(
            self._farm.ask(
                ChangeJob(rq=0, job=self._jobs[name], change=JobChange(**given, **needs_of(given)))
            )
        )

    def verb(self, verb: Any, name: str) -> None:
        """stop, hard-stop, continue, rerun or delete a job."""
        self._say(self._farm.ask(JobVerb(rq=0, job=self._jobs[name], verb=verb)))

    def next(self, name: str, frames: str) -> None:
        """These frames go first."""
        self._say(self._farm.ask(FrameVerb(rq=0, job=self._jobs[name], verb="next", frames=frames)))

    def load(self, name: str, load1: float) -> None:
        """A slave tells how loaded its machine is."""
        self._farm.step(SlaveSaid(self._links[name], Status(load=MachineLoad(load1=load1))))

    def enable(self, name: str, enabled: bool = True) -> None:
        """Somebody enables a slave."""
        limits = structs.replace(self._of(name).limits, enabled=enabled)
        self._farm.step(SlaveSaid(self._links[name], LimitsNow(limits=limits)))

    def disable(self, name: str) -> None:
        """Somebody disables a slave."""
        self.enable(name, enabled=False)

    def heal(self, name: str) -> None:
        """Somebody heals a slave."""
        self._say(self._farm.ask(SlaveVerb(rq=0, slave=name, verb="heal")))

    # -- what is to be seen -----------------------------------------------------------------------------

    def runs(self) -> None:
        """What runs on each slave."""
        for slave in self._farm.core.state.slaves.values():
            attempts = list(slave.live.values())
            line = told([self._name(attempt) for attempt in attempts if not attempt.ahead]) or "-"
            sent = told([self._name(attempt) for attempt in attempts if attempt.ahead])
            print(f"{slave.name}: {line}{f' (then {sent})' if sent else ''}")

    def cores(self, of: str = "job") -> None:
        """How many cores each job, user, project or pool runs on."""
        found: Counter[str] = Counter()
        for attempt in self._farm.core.state.attempts.values():
            job = attempt.layer.job
            whose = {
                "job": job.spec.name,
                "user": job.user,
                "project": job.spec.project,
                "pool": job.spec.pool,
            }
            found[whose[of]] += attempt.cores  # type: ignore[assignment]
        print(", ".join(f"{name} {count:g}" for name, count in sorted(found.items())) or "nothing runs")

    def given(self, frame: str) -> None:
        """What a frame that runs was given."""
        attempt = self._attempt(frame)
        gpus = f", GPU {' '.join(map(str, attempt.gpus))}" if attempt.gpus else ""
        print(f"cores {attempt.cores:g}{gpus}")

    def state(self, name: str, layer: str = "") -> None:
        """The states of a job's frames."""
        found: dict[str, list[str]] = {}
        for number, one in self._farm.states(self._jobs[name], layer).items():
            found.setdefault(one, []).append(str(number))
        print(", ".join(f"{one} {' '.join(numbers)}" for one, numbers in found.items()))

    def job_state(self, name: str) -> None:
        """The state of a job."""
        print(self._farm.job(self._jobs[name]).state)

    def why(self, name: str, number: int | None = None, layer: str = "") -> None:
        """Why a job, or a frame of it, waits."""
        for reason in self._farm.why(self._jobs[name], number, layer):
            print(f"{reason.code}: {reason.text}")

    def waits(self, pool: str = "Default") -> None:
        """How long frames waited for a place in a pool."""
        answer = self._farm.ask(ListPools(rq=0))
        assert isinstance(answer, Pools)
        (found,) = [one.waits for one in answer.pools if one.name == pool]
        print(
            f"of {found.count}: half {found.p50_s:g} s, 90% {found.p90_s:g} s, the longest {found.most_s:g} s"
        )

    # -- within -----------------------------------------------------------------------------------------

    def _say(self, answer: Request) -> None:
        if isinstance(answer, Refusal):
            print(f"refused: {answer.text}")
        else:
            assert isinstance(answer, Done), answer

    def _of(self, name: str) -> Any:
        return next(s for s in self._farm.core.state.slaves.values() if s.name == name)

    def _depend(self, text: str) -> Any:
        """A dependency on a job's name: `render:50%`, `shot/sim:each`."""
        for at, char in enumerate(text):
            if char in ":/":
                return parse_depend(f"{self._jobs.get(text[:at], 999)}{text[at:]}")
        return parse_depend(str(self._jobs.get(text, 999)))

    def _name(self, attempt: Attempt) -> str:
        layer, members = attempt.layer, attempt.members
        many = len(layer.job.layers) > 1
        name = f"{layer.job.spec.name}/{layer.spec.name}" if many else layer.job.spec.name
        return f"{name} {members[0]}" if len(members) == 1 else f"{name} {members[0]}-{members[-1]}"

    def _attempt(self, frame: str) -> Attempt:
        running = {self._name(attempt): attempt for attempt in self._farm.core.state.attempts.values()}
        assert frame in running, f"{frame} does not run, but {sorted(running)}"
        return running[frame]


def told(frames: Iterable[str]) -> str:
    """`render 1 2 3, comp 1` for frames in their order."""
    found: list[list[str]] = []
    for frame in frames:
        name, number = frame.rsplit(" ", 1)
        if found and found[-1][0] == name:
            found[-1].append(number)
        else:
            found.append([name, number])
    return ", ".join(" ".join(words) for words in found)
