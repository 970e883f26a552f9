"""Accidents of the network: cut, late, clogged, and with mischief in it."""

from typing import TYPE_CHECKING

from tests.sim.moments import a_while, some_host

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.hosts import Host


def unlink(farm: "Farm", host: "Host", *, silently: bool) -> None:
    """Its wire breaks."""
    wire = farm.wires.get(host.name)
    if wire is not None and wire.whole:
        noticed = (farm.rng.uniform(0.0, 2.0), farm.rng.uniform(0.0, 2.0))
        wire.cut(None if silently else noticed)


def cut(farm: "Farm") -> None:
    """A reset: what was in flight is lost."""
    host = some_host(farm)
    farm.inject("cut", host.name)
    unlink(farm, host, silently=False)


def no_network(farm: "Farm") -> None:
    """A black hole for a while."""
    host = some_host(farm)
    farm.inject("no network", host.name)
    unlink(farm, host, silently=True)
    host.network = False

    def back() -> None:
        host.network = True

    farm.after(a_while(farm), back)


def slow_wires(farm: "Farm") -> None:
    """Everything takes seconds."""
    farm.inject("slow wires")
    farm.slow_wires = True
    farm.after(40.0, lambda: setattr(farm, "slow_wires", False))


def swizzle(farm: "Farm") -> None:
    """Some machines' networks are clogged one after the other, and freed in another order."""
    rng = farm.rng
    some = rng.sample(farm.hosts, rng.randint(1, len(farm.hosts)))
    step = rng.uniform(0.5, 20.0)
    farm.inject("swizzle", [host.name for host in some])
    for at, host in enumerate(some):
        farm.after(at * step, lambda host=host: _clog(farm, host))  # type: ignore[misc]
    stands = len(some) * step + a_while(farm)
    for at, host in enumerate(rng.sample(some, len(some))):
        farm.after(stands + at * step, lambda host=host: mend(host))  # type: ignore[misc]


def _clog(farm: "Farm", host: "Host") -> None:
    if not farm.calm:
        host.up.clog()
        host.down.clog()


def one_way(farm: "Farm") -> None:
    """Nothing comes through in one direction; all that waited does, later, or is lost."""
    host = some_host(farm)
    farm.inject("one way", host.name)
    way = farm.rng.choice((host.up, host.down))
    way.clog()

    def free() -> None:
        if farm.rng.random() < 0.5:
            unlink(farm, host, silently=False)
        way.mend()

    farm.after(a_while(farm), free)


def slower(farm: "Farm") -> None:
    """A queue that grows: each word takes a little longer than the one before, up to five minutes; then,
    perhaps, the other direction is cut."""
    host = some_host(farm)
    farm.inject("slower", host.name)
    ways = farm.rng.sample((host.up, host.down), 2)
    ways[0].grow_slower(farm.rng.uniform(0.1, 1.9), 300.0)
    if farm.rng.random() < 0.5:
        farm.after(farm.rng.uniform(30.0, 400.0), lambda: None if farm.calm else ways[1].clog())
    farm.after(farm.rng.uniform(100.0, 900.0), lambda: mend(host))


def mischief(farm: "Farm") -> None:
    """Messages are dropped, doubled, and overtake each other, inside of a link."""
    host = some_host(farm)
    farm.inject("mischief", host.name)
    for way in (host.up, host.down):
        way.mischief = farm.rng.choice((0.0, 0.05, 0.3))

    def ends() -> None:
        unlink(farm, host, silently=False)
        mend(host)

    farm.after(farm.rng.uniform(5.0, 60.0), ends)


def mend(host: "Host") -> None:
    """Its network is as it should be."""
    host.up.mend()
    host.down.mend()


ACCIDENTS = [cut, cut, no_network, slow_wires, swizzle, one_way, slower, mischief]
