"""What happens to a farm, drawn from its seed: jobs, clients' whims, and accidents. And how it all ends."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, Request, SetLimits, SlaveVerb
from drqueue.proto.model import Depend, JobChange, JobSpec, LayerSpec, LimitsChange, Needs

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.hosts import Host

CRASHES = ("before commit", "after commit", "mid effects")
LOOK_S = 23.0


def plan(farm: "Farm") -> float:
    """Schedule everything; returns when the last of it has begun."""
    rng = farm.rng
    length = rng.uniform(60.0, 300.0)
    for _ in range(rng.randint(1, 5)):
        farm.after(rng.uniform(0.0, 0.5 * length), lambda: farm.submit(a_job(farm)))
    for _ in range(rng.randint(0, 12)):
        farm.after(rng.uniform(0.1, 1.0) * length, lambda: whim(farm))
    for _ in range(rng.randint(1, 12)):
        happens = rng.choice(ACCIDENTS)
        farm.after(rng.uniform(0.0, length), lambda happens=happens: happens(farm))  # type: ignore[misc]

    def look() -> None:
        farm.oracle.reloaded()
        farm.oracle.disowned()
        for host in farm.hosts:
            if host.daemon is not None and not host.asleep:
                host.daemon.tell_progress()
        if not farm.calm:
            farm.after(LOOK_S, look)

    farm.after(LOOK_S, look)
    return length


def heal(farm: "Farm") -> None:
    """Everything is mended, and users let their jobs go on."""
    farm.slow_disk = farm.slow_wires = False
    if farm.master is not None:
        farm.master.crash_at = ""
    farm.start_master()
    for host in farm.hosts:
        host.wake()
        host.sleeps_at_order = 0.0
        mend_disk(host)
        host.network = True
        if host.gone:
            host.gone = False
            host.power_on()
        if host.daemon is not None:
            host.daemon.crash_at = ""
        host.start_daemon()
    farm.after(60.0, lambda: _let_go_on(farm))


def _let_go_on(farm: "Farm") -> None:
    for host in farm.hosts:
        if host.daemon is not None:
            host.daemon.set_limits(SetLimits(rq=1, change=LimitsChange(enabled=True, max_cpus=None)))
    for job in farm.jobs:
        _insist(farm, JobVerb(rq=1, job=job, verb="continue"))
    if farm.pending_submits:
        farm.after(60.0, lambda: _let_go_on(farm))


def _insist(farm: "Farm", request: Request) -> None:
    farm.ask(request, lambda answer: _insist(farm, request) if answer is None else None)


# -- clients ------------------------------------------------------------------------------------------------


def a_job(farm: "Farm") -> JobSpec:
    """Some job."""
    rng = farm.rng
    blocked = ("s0",) if len(farm.hosts) > 1 and rng.random() < 0.1 else ()
    cores = rng.randint(1, max(host.cores for host in farm.hosts if host.name not in blocked))

    # Enough brief ones for the master to know it, and to send some ahead.
    brief = rng.random() < 0.15
    frames = ("1-30",) if brief else ("1", "1-4", "1-8", "1-9x2", "5-1", "1-3,7,9")

    def layer(name: str, **fields: Any) -> LayerSpec:
        return LayerSpec(
            name=name,
            argv=("render",),
            frames=rng.choice(frames),
            chunk=1 if brief else rng.choice((1, 1, 1, 3)),
            retries=rng.choice((0, 1, 3)),
            timeout_s=rng.choice((0, 0, 25)),
            outputs=rng.choice(((), (), ("out.png",))),
            needs=Needs(cores=rng.choice((1, 1, cores)), memory_mb=rng.choice((0, 0, 1500))),
            **fields,
        )

    layers = [layer("main")]
    if rng.random() < 0.25:
        layers.append(layer("comp", after=("main",)))
    depends: tuple[Depend, ...] = ()
    if farm.jobs and rng.random() < 0.3:
        depends = (Depend(rng.choice(farm.jobs), rng.choice(("done", "ended"))),)
    return JobSpec(
        name="brief" if brief else "job",
        priority=rng.choice((1, 500, 500, 900)),
        layers=tuple(layers),
        depends=depends,
        max_running=0 if brief else rng.choice((0, 0, 1, 2)),
        max_per_slave=0 if brief else rng.choice((0, 0, 1)),
        blocked=blocked,
        lease_s=rng.choice((0, 0, 90)),
        on_unreachable=rng.choice(("lease", "lease", "lease", "hold", "requeue-fast")),
        stopped=rng.random() < 0.05,
        delete_when_finished=rng.random() < 0.05,
    )


def whim(farm: "Farm") -> None:
    """A user does something to a job."""
    rng = farm.rng
    if not farm.jobs:
        return
    job = rng.choice(farm.jobs)
    frames = rng.choice(("1", "2", "1-3", "3-9", "1-100"))
    verb = rng.choice(
        ("stop", "hard-stop", "continue", "rerun", "delete", "kill", "requeue", "requeue", "now", "finish",
         "range", "retries", "at the slave", "limits")
    )  # fmt: skip
    farm.trace("whim", verb, job, frames)
    match verb:
        case "stop" | "hard-stop" | "continue" | "rerun" | "delete":
            request: Request = JobVerb(rq=1, job=job, verb=verb)
        case "kill" | "requeue" | "finish":
            request = FrameVerb(rq=1, job=job, frames=frames, verb=verb)
        case "now":
            request = FrameVerb(rq=1, job=job, frames=frames, verb="requeue", now=True)
        case "range":
            frames = rng.choice(("1-6", "1-4", "2-12x2", "9-1"))
            request = ChangeJob(rq=1, job=job, change=JobChange(frames=frames, chunk=rng.choice((1, 2))))
        case "retries":
            request = ChangeJob(rq=1, job=job, change=JobChange(retries=1, priority=rng.randint(0, 1000)))
        case _:
            host = rng.choice(farm.hosts)
            if host.daemon is None or host.asleep:
                return
            if verb == "limits":
                change = LimitsChange(enabled=rng.random() < 0.5, max_cpus=rng.choice((None, 1)))
                host.daemon.set_limits(SetLimits(rq=1, change=change))
            else:
                host.daemon.kill_job(job)
            return
    farm.ask(request, lambda answer: None)


# -- accidents ----------------------------------------------------------------------------------------------


def a_while(farm: "Farm") -> float:
    """A moment, a while, or longer than any lease lasts."""
    return farm.rng.choice((2.0, 30.0, farm.lease_s + 60.0, 2.0 * farm.lease_s + 200.0)) * farm.rng.uniform(
        0.5, 1.5
    )


def some_host(farm: "Farm") -> "Host":
    """One of them."""
    return farm.rng.choice(farm.hosts)


def unlink(farm: "Farm", host: "Host", *, silently: bool) -> None:
    """Its wire breaks."""
    wire = farm.wires.get(host.name)
    if wire is not None and wire.whole:
        noticed = (farm.rng.uniform(0.0, 2.0), farm.rng.uniform(0.0, 2.0))
        wire.cut(None if silently else noticed)


def cut(farm: "Farm") -> None:
    """A reset: what was in flight is lost."""
    host = some_host(farm)
    farm.trace("cut", host.name)
    unlink(farm, host, silently=False)


def no_network(farm: "Farm") -> None:
    """A black hole for a while."""
    host = some_host(farm)
    farm.trace("no network", host.name)
    unlink(farm, host, silently=True)
    host.network = False

    def back() -> None:
        host.network = True

    farm.after(a_while(farm), back)


def slow_wires(farm: "Farm") -> None:
    """Everything takes seconds."""
    farm.slow_wires = True
    farm.after(40.0, lambda: setattr(farm, "slow_wires", False))


def slow_disk(farm: "Farm") -> None:
    """The master's commits take seconds."""
    farm.slow_disk = True
    farm.after(60.0, lambda: setattr(farm, "slow_disk", False))


def crash_master(farm: "Farm") -> None:
    """Somewhere between two events, or at the worst moment of the next step."""
    if farm.master is not None:
        if farm.rng.random() < 0.3:
            farm.crash_master()
        else:
            farm.master.crash_at = farm.rng.choice(CRASHES)


def stop_master(farm: "Farm") -> None:
    """In good order."""
    if farm.master is not None:
        farm.master.leave(400.0)


def crash_slave(farm: "Farm") -> None:
    """The daemon alone; frames run on."""
    host = some_host(farm)
    if host.daemon is None or host.asleep:
        return
    if farm.rng.random() < 0.3:
        host.kill_daemon()
    else:
        host.daemon.crash_at = farm.rng.choice(CRASHES)
    _start_again(farm, host)


def _start_again(farm: "Farm", host: "Host") -> None:
    def again() -> None:
        if host.daemon is not None and host.daemon.crash_at:
            farm.after(5.0, again)
        else:
            host.start_daemon()

    farm.after(a_while(farm), again)


def stop_slave(farm: "Farm") -> None:
    """In good order, frames and all; it is started again a while after it has ended."""
    host = some_host(farm)
    if host.daemon is not None and not host.asleep:
        host.daemon.leave()


def reboot(farm: "Farm") -> None:
    """The power fails; it comes back, or an operator says that it will not."""
    host = some_host(farm)
    if host.gone:
        return
    farm.trace("power off", host.name)
    unlink(farm, host, silently=True)
    host.power_off()
    host.gone = True

    def on() -> None:
        if host.gone:
            host.gone = False
            host.power_on()

    farm.after(a_while(farm), on)
    if farm.rng.random() < 0.3:
        farm.after(35.0, lambda: declare_dead(farm, host))


def declare_dead(farm: "Farm", host: "Host") -> None:
    """An operator vouches for it, rightly or not; refused where it is linked."""
    farm.ask(SlaveVerb(rq=1, slave=host.name, verb="declare-dead"), lambda answer: None)


def rash_operator(farm: "Farm") -> None:
    """Declares a slave dead without looking."""
    declare_dead(farm, some_host(farm))


def lose_keeper(farm: "Farm") -> None:
    """kill -9 of the keeper; frames run on as orphans."""
    host = some_host(farm)
    farm.trace("keeper dies", host.name)
    host.lose_keeper()
    if farm.rng.random() < 0.3 and not host.asleep:
        host.kill_daemon()
        _start_again(farm, host)


def sleep(farm: "Farm") -> None:
    """The machine is suspended; often while an order is on its way to it."""
    host = some_host(farm)
    if farm.rng.random() < 0.5:
        host.sleeps_at_order = a_while(farm)
    else:
        fall_asleep(farm, host, a_while(farm))


def fall_asleep(farm: "Farm", host: "Host", seconds: float) -> None:
    """For so long."""
    if not host.gone:
        farm.trace("sleep", host.name)
        host.sleep()
        farm.after(seconds, host.wake)


def full_disk(farm: "Farm") -> None:
    """A slave can write nothing down, or only slowly."""
    host = some_host(farm)
    if farm.rng.random() < 0.5:
        host.disk_full = True
    else:
        host.disk_s = farm.rng.uniform(0.1, 3.0)
    farm.after(50.0, lambda: mend_disk(host))


def mend_disk(host: "Host") -> None:
    """It has room again, and is fast."""
    host.disk_s = 0.0
    if host.disk_full:
        host.disk_full = False
        if host.daemon is not None:
            host.daemon.disk_has_room()


def wall_jump(farm: "Farm") -> None:
    """Somebody sets the clock."""
    farm.wall_jump += farm.rng.choice((-1e5, -3.0, 3.0, 1e5))


ACCIDENTS: tuple[Callable[["Farm"], None], ...] = (
    cut, cut, cut, no_network, no_network, slow_wires, slow_disk, crash_master, crash_master, crash_master,
    stop_master, crash_slave, crash_slave, crash_slave, stop_slave, reboot, rash_operator, lose_keeper,
    lose_keeper, sleep, sleep, full_disk, wall_jump,
)  # fmt: skip
