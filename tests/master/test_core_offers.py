"""What slaves say that they offer: what cannot be so is refused, what shrinks under what runs is borne."""

import pytest

from drqueue.proto.link_messages import Held
from drqueue.proto.model import Gpu, MachineInfo, Needs, Offers
from tests.builders import CoreFarm, a_job


def machine(*indexes: int, memory_mb: int = 1000) -> MachineInfo:
    """A machine with these GPUs."""
    return MachineInfo(hostname="s1", os="linux", gpus=tuple(Gpu(i, "gpu", memory_mb) for i in indexes))


@pytest.mark.parametrize(
    ("offers", "words"),
    [
        (Offers(gpus=(2**50,)), "GPU 1,125,899,906,842,624 is offered"),
        (Offers(gpus=(1, 1)), "twice"),
        (Offers(disk_mb=2**50), "disk"),
        (Offers(amounts={"seats": 1e12}), "seats"),
        (Offers(amounts={"a b": 1}), "a b"),
        (Offers(tags=("x", "x")), "twice"),
        (Offers(attributes={"cores": "1"}), "cores"),
    ],
)
def test_an_offer_that_cannot_be_so_is_refused_with_a_sentence(offers: Offers, words: str) -> None:
    farm = CoreFarm()
    link = farm.link(offers=offers)
    assert farm.unlinked[link].code == "bad-offers"
    assert words in farm.unlinked[link].text
    assert not farm.core.state.slaves


def test_a_slave_that_comes_back_with_a_bad_offer_keeps_what_it_runs_until_its_lease_ends() -> None:
    farm = CoreFarm()
    link = farm.link(cores=1)
    farm.submit(a_job("1"))
    held = [Held(farm.order_first(link))]
    farm.unlink(link)
    again = farm.link(cores=1, held=held, offers=Offers(gpus=(5000,)))
    assert farm.unlinked[again].code == "bad-offers"
    assert farm.states() == {1: "ASSIGNED"}


def test_a_device_that_is_named_twice_is_one() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1", layer={"needs": Needs(gpus=2)}))
    link = farm.link(machine=machine(0, 0), offers=Offers(gpus=(0,)))
    assert not farm.orders(link)
    assert farm.codes() == ["gpu-never"]


def test_no_device_is_given_twice_when_a_slave_comes_back_with_others() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1-9", layer={"needs": Needs(gpus=1)}))
    link = farm.link(machine=machine(0, 1), offers=Offers(gpus=(0, 1)))
    held = [Held(order.key) for order in farm.orders(link)]
    assert len(held) == 2
    link = farm.relink(link, machine=machine(1, 2), offers=Offers(gpus=(1, 2)), held=held)
    assert farm.order(link).gpus == (2,)
    farm.restart()
    attempts = farm.core.state.attempts.values()
    assert sorted(a.gpus for a in attempts) == [(0,), (1,), (2,)]


def test_what_is_taken_beyond_what_is_offered_now_keeps_all_else_away_until_it_ends() -> None:
    farm = CoreFarm()
    needs = Needs(memory_mb=4000, disk_mb=3000, amounts={"seats": 2})
    farm.submit(a_job("1-9", layer={"needs": needs}))
    much = Offers(disk_mb=6000, amounts={"seats": 4})
    link = farm.link(offers=much)
    orders = farm.orders(link)
    assert len(orders) == 2
    little = Offers(disk_mb=3000, amounts={"seats": 2})
    held = [Held(order.key) for order in orders]
    link = farm.relink(link, memory_mb=4000, offers=little, held=held)
    farm.exited(link, orders[0].key)
    assert not farm.orders(link)
    farm.exited(link, orders[1].key)
    assert len(farm.orders(link)) == 1
