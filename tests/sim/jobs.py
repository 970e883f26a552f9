"""Clients of the farm: what they submit, and what they change their minds about. Drawn from its seed."""

from typing import TYPE_CHECKING, Any

from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, Request, ResumeFarm, SetLimits
from drqueue.proto.model import Depend, JobChange, JobSpec, LayerDepend, LayerSpec, LimitsChange, Needs
from drqueue.proto.sharing_messages import PutLimit

if TYPE_CHECKING:
    from tests.sim.farm import Farm

LICENCE = "licence"


def insist(farm: "Farm", request: Request) -> None:
    """Ask until there is an answer."""
    farm.ask(request, lambda answer: insist(farm, request) if answer is None else None)


def put_limits(farm: "Farm") -> None:
    """How much there is of the licence, where there is one."""
    if farm.mix.licences:
        insist(farm, PutLimit(rq=1, name=LICENCE, amount=farm.mix.licences))


def a_job(farm: "Farm") -> JobSpec:
    """Some job."""
    rng, mix = farm.rng, farm.mix
    blocked = ("s0",) if len(farm.hosts) > 1 and rng.random() < 0.1 else ()
    cores = rng.randint(1, max(host.cores for host in farm.hosts if host.name not in blocked))

    # Enough brief ones for the master to know it, and to send some ahead.
    brief = rng.random() < 0.15
    frames = ("1-30",) if brief else mix.frames

    def layer(name: str, **fields: Any) -> LayerSpec:
        return LayerSpec(
            name=name,
            argv=("render",),
            frames=rng.choice(frames),
            chunk=1 if brief else rng.choice(mix.chunks),
            retries=rng.choice(mix.retries),
            timeout_s=rng.choice((0, 0, 25)),
            outputs=rng.choice(((), (), ("out.png",))),
            needs=Needs(cores=rng.choice((1, 1, cores)), memory_mb=rng.choice((0, 0, 1500))),
            limits={LICENCE: 1} if mix.licences and rng.random() < 0.4 else {},
            **fields,
        )

    layers = [layer("main")]
    if rng.random() < mix.depends:
        each = LayerDepend(layer="main", frames="each", offset=rng.choice((-1, 0, 0, 1)))
        layers.append(layer("comp", **rng.choice(({"after": ("main",)}, {"depends": (each,)}))))
    depends: tuple[Depend, ...] = ()
    if farm.jobs and rng.random() < mix.depends:
        depends = (Depend(rng.choice(farm.jobs), rng.choice(("done", "ended"))),)
    return JobSpec(
        name="brief" if brief else "job",
        priority=rng.choice((1, 500, 500, 900)),
        layers=tuple(layers),
        depends=depends,
        max_running=0 if brief else rng.choice((0, 0, 1, 2)),
        max_per_slave=0 if brief else rng.choice((0, 0, 1)),
        blocked=blocked,
        lease_s=rng.choice(mix.leases),
        on_unreachable=rng.choice(mix.unreachable),
        not_before=farm.true_wall() + rng.uniform(0.0, 100.0) if rng.random() < mix.timed else 0,
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


def let_go_on(farm: "Farm") -> None:
    """Users let their jobs go on, and slaves' owners their slaves."""
    for host in farm.hosts:
        if host.daemon is not None:
            host.daemon.set_limits(SetLimits(rq=1, change=LimitsChange(enabled=True, max_cpus=None)))
    put_limits(farm)
    for job in farm.jobs:
        insist(farm, JobVerb(rq=1, job=job, verb="continue"))
    if farm.pending_submits:
        farm.after(60.0, lambda: let_go_on(farm))


def vouch(farm: "Farm") -> None:
    """An operator vouches for what may have begun since the backup: every machine is in reach, and well."""
    insist(farm, ResumeFarm(rq=1))
