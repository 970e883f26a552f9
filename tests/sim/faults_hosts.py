"""Accidents of slaves and their machines: daemons, keepers, power, sleep, disks, clocks, clones."""

from typing import TYPE_CHECKING

from drqueue.proto.messages import SlaveVerb
from tests.sim.faults_net import unlink
from tests.sim.hosts import Host
from tests.sim.moments import a_while, some_host

if TYPE_CHECKING:
    from tests.sim.farm import Farm

CRASHES = ("before commit", "after commit", "mid effects")
HOSTS_MOST = 10
YEAR_S = 365 * 86400.0


def crash_slave(farm: "Farm") -> None:
    """The daemon alone; frames run on."""
    host = some_host(farm)
    if host.daemon is None or host.asleep:
        return
    farm.inject("slave crashes", host.name)
    if farm.rng.random() < 0.3:
        host.kill_daemon()
    else:
        host.daemon.crash_at = farm.rng.choice(CRASHES)
    _start_again(farm, host)


def _start_again(farm: "Farm", host: Host) -> None:
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
        farm.inject("slave stops", host.name)
        host.daemon.leave()


def reboot(farm: "Farm") -> None:
    """The power fails; it comes back, or an operator says that it will not."""
    host = some_host(farm)
    if host.gone:
        return
    farm.inject("power off", host.name)
    unlink(farm, host, silently=True)
    host.power_off()
    host.gone = True

    def on() -> None:
        if host.gone:
            host.gone = False
            host.power_on()

    farm.after(a_while(farm), on)
    if farm.rng.random() < 0.3:
        farm.after(35.0, lambda: _declare_dead(farm, host))


def _declare_dead(farm: "Farm", host: Host) -> None:
    """An operator vouches for it, rightly or not; refused where it is linked."""
    farm.ask(SlaveVerb(rq=1, slave=host.name, verb="declare-dead"), lambda answer: None)


def rash_operator(farm: "Farm") -> None:
    """Declares a slave dead without looking."""
    host = some_host(farm)
    farm.inject("declared dead", host.name)
    _declare_dead(farm, host)


def lose_keeper(farm: "Farm") -> None:
    """kill -9 of the keeper; frames run on as orphans."""
    host = some_host(farm)
    farm.inject("keeper dies", host.name)
    host.lose_keeper()
    if farm.rng.random() < 0.3 and not host.asleep:
        host.kill_daemon()
        _start_again(farm, host)


def hang_keeper(farm: "Farm") -> None:
    """It is stopped, and goes on after a while unless somebody killed it meanwhile."""
    host = some_host(farm)
    keeper = host.keeper
    if keeper is None or not keeper.alive:
        return
    farm.inject("keeper hangs", host.name)
    keeper.hang()
    farm.after(a_while(farm), lambda: host.when_awake(keeper.go_on))
    if farm.rng.random() < 0.3 and not host.asleep:
        host.kill_daemon()
        _start_again(farm, host)


def sleep(farm: "Farm") -> None:
    """The machine is suspended; often while an order is on its way to it."""
    host = some_host(farm)
    if farm.rng.random() < 0.5:
        host.sleeps_at_order = a_while(farm)
    else:
        host.fall_asleep(a_while(farm))


def full_disk(farm: "Farm") -> None:
    """A slave can write nothing down, or only slowly."""
    host = some_host(farm)
    if farm.rng.random() < 0.5:
        farm.inject("slave's disk full", host.name)
        host.disk_full = True
    else:
        farm.inject("slave's disk slow", host.name)
        host.disk_s = farm.rng.uniform(0.1, 3.0)
    farm.after(50.0, lambda: mend_disk(host))


def mend_disk(host: Host) -> None:
    """It has room again, and is fast."""
    host.disk_s = 0.0
    if host.disk_full:
        host.disk_full = False
        if host.daemon is not None:
            host.daemon.disk_has_room()


def a_jump(farm: "Farm") -> float:
    """By how much a clock is set: seconds, days, years, back or forth."""
    return farm.rng.choice((3.0, 1e5, YEAR_S, 10 * YEAR_S)) * farm.rng.choice((-1.0, 1.0))


def wall_jump(farm: "Farm") -> None:
    """Somebody sets a slave's clock."""
    host, by = some_host(farm), a_jump(farm)
    farm.inject("slave's clock jumps", host.name, by)
    host.wall_jump += by


def clone(farm: "Farm") -> None:
    """A slave's disk, or its state folder alone, is copied and a slave is started on the copy."""
    original = some_host(farm)
    if len(farm.hosts) >= HOSTS_MOST:
        return
    number = len(farm.hosts)
    host = Host(farm, number)
    there = farm.rng.random() < 0.5
    farm.inject("folder copied" if there else "disk cloned", original.name, host.name)
    fingerprint = original.folder.fingerprint if there else host.folder.fingerprint
    host.folder = original.folder.copied(number, fingerprint)
    farm.hosts.append(host)
    host.start_daemon()


ACCIDENTS = [
    crash_slave, crash_slave, crash_slave, stop_slave, reboot, rash_operator, lose_keeper, hang_keeper, sleep,
    sleep, full_disk, wall_jump, clone,
]  # fmt: skip
