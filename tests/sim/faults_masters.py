"""Accidents of the master: crashes, disks, clocks, old backups, and two masters on copies of one state."""

from typing import TYPE_CHECKING

from drqueue.master.storage import StorageFull
from tests.sim.faults_hosts import CRASHES, a_jump
from tests.sim.faults_net import unlink
from tests.sim.moments import a_while

if TYPE_CHECKING:
    from tests.sim.farm import Farm


def crash_master(farm: "Farm") -> None:
    """Somewhere between two events, or at the worst moment of the next step."""
    site = farm.rng.choice(farm.sites)
    if site.master is not None:
        farm.inject("master crashes")
        if farm.rng.random() < 0.3:
            farm.crash_master(site)
        else:
            site.master.crash_at = farm.rng.choice(CRASHES)


def stop_master(farm: "Farm") -> None:
    """In good order."""
    if farm.master is not None:
        farm.inject("master stops")
        farm.master.leave(400.0)


def slow_disk(farm: "Farm") -> None:
    """The master's commits take seconds."""
    farm.inject("master's disk slow")
    farm.slow_disk = True
    farm.after(60.0, lambda: setattr(farm, "slow_disk", False))


def full_disk(farm: "Farm") -> None:
    """The master can write nothing down; sometimes it is killed meanwhile."""
    farm.inject("master's disk full")
    site = farm.site
    site.storage.refuse = StorageFull("no space left on device")

    def room() -> None:
        site.storage.refuse = None

    farm.after(a_while(farm), room)


def wall_jump(farm: "Farm") -> None:
    """Somebody sets the master's clock."""
    by = a_jump(farm)
    farm.inject("master's clock jumps", by)
    farm.wall_jump += by


def restore(farm: "Farm") -> None:
    """An operator puts an older backup in the database's place."""
    if farm.backups and len(farm.sites) == 1:
        farm.inject("backup restored")
        farm.crash_master()
        farm.site.restore(farm.rng.choice(farm.backups))


def second_master(farm: "Farm") -> None:
    """Somebody starts a master on a copy of the state, and some slaves dial it, while the first runs on."""
    rng = farm.rng
    if len(farm.sites) > 1:
        return
    farm.inject("second master")
    farm.copies += 1
    copy = farm.site.copied(farm.copies)
    farm.sites.append(copy)
    if rng.random() < 0.5:
        # Both then have the same epoch.
        farm.crash_master()
    farm.after(rng.uniform(0.1, 20.0), lambda: copy.start() if copy in farm.sites else None)

    def wander() -> None:
        if copy in farm.sites:
            for host in farm.hosts:
                if rng.random() < 0.5:
                    host.dials = rng.randint(0, 1)
                    unlink(farm, host, silently=False)
            farm.after(rng.uniform(5.0, 30.0), wander)

    wander()
    farm.after(a_while(farm), lambda: one_master(farm))


def one_master(farm: "Farm") -> None:
    """An operator ends all but one, whose epoch they raise above any that was handed out."""
    if len(farm.sites) == 1:
        return
    epoch = max(site.epoch for site in farm.sites)
    keep = farm.rng.choice(farm.sites)
    farm.trace("one master stays", farm.sites.index(keep))
    for site in farm.sites:
        farm.crash_master(site)
    farm.sites = [keep]
    keep.epoch = epoch
    for host in farm.hosts:
        host.dials = 0


ACCIDENTS = [
    crash_master, crash_master, crash_master, stop_master, slow_disk, full_disk, wall_jump, restore,
    second_master,
]  # fmt: skip
