"""What happens to a farm, drawn from its seed, and how it all ends."""

from typing import TYPE_CHECKING

from tests.sim import faults_hosts, faults_masters, faults_net, jobs

if TYPE_CHECKING:
    from tests.sim.farm import Farm

LOOK_S = 23.0
BACKUPS_MOST = 5
#: After so long in a healed farm all machines have linked, and stopped what they should not run.
VOUCH_S = 900.0

ACCIDENTS = (*faults_net.ACCIDENTS, *faults_hosts.ACCIDENTS, *faults_masters.ACCIDENTS)


def plan(farm: "Farm") -> float:
    """Schedule everything; returns when the last of it has begun."""
    rng, mix = farm.rng, farm.mix
    jobs.put_limits(farm)
    for _ in range(mix.jobs):
        farm.after(rng.uniform(0.0, 0.5 * mix.length_s), lambda: farm.submit(jobs.a_job(farm)))
    for _ in range(mix.whims):
        farm.after(rng.uniform(0.1, 1.0) * mix.length_s, lambda: jobs.whim(farm))
    kinds = [kind for kind in ACCIDENTS if rng.random() < mix.share] or [rng.choice(ACCIDENTS)]
    for _ in range(mix.accidents):
        happens = rng.choice(kinds)
        farm.after(rng.uniform(0.0, mix.length_s), lambda happens=happens: happens(farm))  # type: ignore[misc]
    backs_up = faults_masters.restore in kinds

    def look() -> None:
        farm.oracle.reloaded()
        farm.oracle.disowned()
        farm.oracle.overdue()
        if backs_up and len(farm.sites) == 1:
            farm.backups = [*farm.backups[1 - BACKUPS_MOST :], farm.site.backup()]
        for host in farm.hosts:
            if host.daemon is not None and not host.asleep:
                host.daemon.tell_progress()
        if not farm.calm:
            farm.after(LOOK_S, look)

    farm.after(LOOK_S, look)
    return mix.length_s


def heal(farm: "Farm") -> None:
    """Everything is mended, and users let their jobs go on."""
    faults_masters.one_master(farm)
    farm.slow_disk = farm.slow_wires = False
    farm.wall_jump = 0.0
    farm.storage.refuse = None
    if farm.master is not None:
        farm.master.crash_at = ""
    farm.start_master()
    for host in farm.hosts:
        host.wake()
        host.sleeps_at_order = host.wall_jump = 0.0
        faults_hosts.mend_disk(host)
        faults_net.mend(host)
        host.network = True
        if host.gone:
            host.gone = False
            host.power_on()
        if host.daemon is not None:
            host.daemon.crash_at = ""
        if host.keeper is not None:
            host.keeper.go_on()
        host.start_daemon()
    farm.after(60.0, lambda: jobs.let_go_on(farm))
    farm.after(VOUCH_S, lambda: jobs.vouch(farm))
