"""How long accidents last, and whom they befall."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.hosts import Host


def a_while(farm: "Farm") -> float:
    """A moment, a while, or longer than any lease lasts."""
    long = (farm.lease_s + 60.0, 2.0 * farm.lease_s + 200.0)
    return farm.rng.choice(long if farm.mix.long else (2.0, 30.0, *long)) * farm.rng.uniform(0.5, 1.5)


def some_host(farm: "Farm") -> "Host":
    """One of them."""
    return farm.rng.choice(farm.hosts)
