"""Which slave gets a frame: resources as vectors, best fit, alternatives, GPUs, tags and expressions."""

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue.master.core import rooms
from drqueue.master.core.amounts import milli, plain
from drqueue.master.core.demand import lacks
from drqueue.master.core.placement import why_not
from drqueue.proto.link_messages import Held
from drqueue.proto.model import Alternative, Gpu, MachineInfo, Needs, Offers, RunOrder
from tests.builders import CoreFarm, a_job


@pytest.fixture(params=[8, 0], ids=["looked at", "looked up"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slaves are looked at one by one, and looked up however few they are."""
    monkeypatch.setattr(rooms, "_FEW", request.param)


IN_BOTH_WAYS = pytest.mark.usefixtures("both_ways")


def a_machine(name: str, gpus: tuple[int, ...] = (), **fields: object) -> MachineInfo:
    """A Linux machine with GPUs of so many MB."""
    found = tuple(Gpu(index, f"RTX {memory}", memory) for index, memory in enumerate(gpus))
    return MachineInfo(hostname=name, os="linux", boot_id="b", gpus=found, **fields)  # type: ignore[arg-type]


def a_gpu_slave(farm: CoreFarm, name: str, *gpus: int, **fields: object) -> int:
    """A slave that offers all its GPUs."""
    offers = Offers(gpus=tuple(range(len(gpus))))
    return farm.link(name, machine=a_machine(name, gpus), offers=offers, **fields)


def ordered(farm: CoreFarm, links: dict[str, int]) -> list[str]:
    """Who was told to run something, as often as it was."""
    return [name for name, link in links.items() for _ in farm.orders(link)]


# -- best fit ----------------------------------------------------------------------------------------------


@IN_BOTH_WAYS
def test_big_holes_stay_for_big_frames() -> None:
    farm = CoreFarm()
    links = {"big": farm.link("big", cores=16), "small": farm.link("small", cores=4)}
    farm.submit(a_job("1-2", layer={"needs": Needs(cores=2)}))
    assert ordered(farm, links) == ["small", "small"]
    farm.submit(a_job("1", layer={"needs": Needs(cores=16)}))
    assert ordered(farm, links) == ["big"]


@IN_BOTH_WAYS
def test_a_slave_that_is_begun_is_filled_before_an_idle_one() -> None:
    farm = CoreFarm()
    links = {name: farm.link(name, cores=8) for name in ("a", "b", "c")}
    farm.submit(a_job("1-6", layer={"needs": Needs(cores=2)}))
    assert ordered(farm, links) == ["a"] * 4 + ["b"] * 2


@IN_BOTH_WAYS
def test_frames_that_need_no_gpu_keep_off_slaves_that_have_one() -> None:
    farm = CoreFarm()
    links = {"gpu": a_gpu_slave(farm, "gpu", 24_000, cores=4), "plain": farm.link("plain", cores=16)}
    farm.submit(a_job("1", layer={"needs": Needs(cores=2)}))
    assert ordered(farm, links) == ["plain"]


@IN_BOTH_WAYS
def test_among_equals_the_least_free_memory_then_the_lowest_id() -> None:
    farm = CoreFarm()
    links = {
        "a": farm.link("a", cores=2, memory_mb=9000),
        "b": farm.link("b", cores=2, memory_mb=8000),
        "c": farm.link("c", cores=2, memory_mb=8000),
    }
    farm.submit(a_job("1-3", layer={"needs": Needs(cores=2, memory_mb=1)}))
    assert [farm.orders(links[name])[0].start for name in ("b", "c", "a")] == [1, 2, 3]


@IN_BOTH_WAYS
def test_slaves_with_more_gpus_but_too_few_cores_or_too_little_memory_are_passed_over() -> None:
    farm = CoreFarm()
    links = {
        "gpu1": a_gpu_slave(farm, "gpu1", 24_000, cores=4, memory_mb=9000),
        "gpu2": a_gpu_slave(farm, "gpu2", 24_000, cores=4, memory_mb=9000),
        "gpu3": a_gpu_slave(farm, "gpu3", 24_000, 24_000, cores=4, memory_mb=9000),
    }
    farm.submit(a_job("1", layer={"needs": Needs(cores=3)}))
    farm.submit(a_job("1", layer={"needs": Needs(cores=1, memory_mb=8000)}, blocked=("gpu1", "gpu3")))
    assert ordered(farm, links) == ["gpu1", "gpu2"]
    farm.submit(a_job("1", layer={"needs": Needs(cores=2, memory_mb=2000)}))
    assert ordered(farm, links) == ["gpu3"]


def test_fractions_of_cores_add_up_exactly() -> None:
    farm = CoreFarm()
    link = farm.link(cores=1)
    farm.submit(a_job("1-20", layer={"needs": Needs(cores=0.1)}))
    orders = farm.orders(link)
    assert len(orders) == 10
    assert {order.cores for order in orders} == {0.1}
    assert farm.slave().cores_used == 1
    for order in orders[:3]:
        farm.exited(link, order.key)
    assert len(farm.orders(link)) == 3
    assert farm.render_all(link) == 0
    (slave,) = farm.core.state.slaves.values()
    for key in list(slave.live):
        farm.exited(link, key)
    assert len(farm.orders(link)) == 7


@given(st.integers(0, 10**9))
def test_thousandths_are_kept(amount: int) -> None:
    assert milli(plain(amount)) == amount


# -- GPUs --------------------------------------------------------------------------------------------------


def test_each_attempt_is_told_its_own_devices() -> None:
    farm = CoreFarm()
    link = a_gpu_slave(farm, "g", 8000, 8000, 8000, 8000, cores=8)
    farm.submit(a_job("1-3", layer={"needs": Needs(gpus=2)}))
    first, second = farm.orders(link)
    assert (first.gpus, second.gpus) == ((0, 1), (2, 3))
    assert farm.slave("g").gpus_used == (0, 1, 2, 3)
    farm.exited(link, first.key)
    assert farm.order(link).gpus == (0, 1)


def test_devices_are_given_again_after_a_restart_only_when_free() -> None:
    farm = CoreFarm()
    link = a_gpu_slave(farm, "g", 8000, 8000, cores=8)
    farm.submit(a_job("1-3", layer={"needs": Needs(gpus=1)}))
    first, second = farm.orders(link)
    farm.restart()
    assert farm.slave("g").gpus_used == (0, 1)
    assert {first.gpus, second.gpus} == {(0,), (1,)}


def test_the_smallest_devices_that_do_are_taken() -> None:
    farm = CoreFarm()
    link = a_gpu_slave(farm, "g", 48_000, 8000, 24_000, cores=8)
    farm.submit(a_job("1", layer={"needs": Needs(gpus=1, gpu_memory_mb=10_000)}))
    assert farm.order(link).gpus == (2,)
    farm.submit(a_job("1", layer={"needs": Needs(gpus=1)}))
    assert farm.order(link).gpus == (1,)


def test_devices_that_are_not_offered_are_nobodys() -> None:
    farm = CoreFarm()
    machine = a_machine("g", (8000, 8000))
    link = farm.link("g", machine=machine, offers=Offers(gpus=(1,)))
    farm.submit(a_job("1-2", layer={"needs": Needs(gpus=1)}))
    assert [order.gpus for order in farm.orders(link)] == [(1,)]
    assert farm.codes() == ["gpu"]


# -- disk, named amounts, tags, expressions ----------------------------------------------------------------


def test_disk_and_named_amounts_are_taken_and_come_back() -> None:
    farm = CoreFarm()
    link = farm.link(cores=8, offers=Offers(disk_mb=1000, amounts={"seats": 2.5}))
    farm.submit(a_job("1-9", layer={"needs": Needs(disk_mb=300, amounts={"seats": 1})}))
    orders = farm.orders(link)
    assert [(order.disk_mb, order.amounts) for order in orders] == [(300, {"seats": 1})] * 2
    view = farm.slave()
    assert (view.disk_used_mb, view.amounts_used) == (600, {"seats": 2})
    assert farm.codes() == ["amount"]
    farm.change(needs=Needs(disk_mb=401))
    assert farm.codes() == ["disk"]
    for order in orders:
        farm.exited(link, order.key)
    assert len(farm.orders(link)) == 2


def test_what_runs_gives_back_what_it_took_whatever_its_layer_needs_now() -> None:
    farm = CoreFarm()
    link = farm.link(cores=8, offers=Offers(amounts={"seats": 4}))
    farm.submit(a_job("1", layer={"needs": Needs(cores=4, amounts={"seats": 3})}))
    order = farm.order(link)
    farm.change(needs=Needs(cores=1))
    farm.restart()
    assert farm.slave().amounts_used == {"seats": 3}
    link = farm.link(cores=8, offers=Offers(amounts={"seats": 4}), held=[Held(order.key)])
    farm.exited(link, order.key)
    view = farm.slave()
    assert (view.cores_used, view.amounts_used) == (0, {})


def test_tags_and_expressions_choose_slaves() -> None:
    farm = CoreFarm()
    links = {
        "a": farm.link("a", offers=Offers(tags=("fast", "local"), attributes={"rack": "12"})),
        "b": farm.link("b", offers=Offers(tags=("fast",), attributes={"rack": "3"})),
    }
    farm.submit(a_job("1", layer={"needs": Needs(tags=("local", "fast"))}))
    assert ordered(farm, links) == ["a"]
    farm.submit(a_job("1", layer={"needs": Needs(where="rack < 5")}))
    assert ordered(farm, links) == ["b"]
    farm.submit(a_job("1", layer={"needs": Needs(where='rack == "7"')}))
    assert ordered(farm, links) == []
    assert farm.codes(2) == ["where"]


def test_a_slave_that_comes_back_as_another_is_looked_at_anew() -> None:
    farm = CoreFarm()
    link = farm.link("a")
    farm.submit(a_job("1", layer={"needs": Needs(tags=("new",))}))
    assert farm.orders(link) == []
    link = farm.relink(link, "a", offers=Offers(tags=("new",)))
    assert farm.order(link).start == 1


# -- alternatives ------------------------------------------------------------------------------------------


def gpu_or_cores() -> Needs:
    """One GPU, or 16 cores."""
    return Needs(cores=1, memory_mb=100, gpus=1, alternatives=(Alternative(cores=16),))


def test_an_alternative_is_taken_where_the_first_choice_is_not_to_be_had() -> None:
    farm = CoreFarm()
    gpu, big = a_gpu_slave(farm, "gpu", 8000, cores=4), farm.link("big", cores=16)
    farm.submit(a_job("1-3", layer={"needs": gpu_or_cores()}))
    first, second = farm.order(gpu), farm.order(big)
    assert (first.cores, first.gpus, first.memory_mb) == (1, (0,), 100)
    assert (second.cores, second.gpus, second.memory_mb) == (16, (), 100)
    assert set(farm.codes()) == {"slaves", "gpu", "cores"}
    farm.exited(gpu, first.key)
    assert farm.order(gpu).gpus == (0,)


def test_a_slave_that_can_do_neither_never_will() -> None:
    farm = CoreFarm()
    farm.link("s", cores=8)
    farm.submit(a_job("1", layer={"needs": gpu_or_cores()}))
    assert farm.codes() == ["gpu-never"]


# -- the index is the judge --------------------------------------------------------------------------------

_needs = st.builds(
    Needs,
    cores=st.sampled_from((0.5, 1, 2, 4)),
    memory_mb=st.sampled_from((0, 500, 2000)),
    gpus=st.sampled_from((0, 0, 1, 2)),
    disk_mb=st.sampled_from((0, 0, 100)),
    amounts=st.sampled_from(({}, {}, {"x": 1.5})),
    tags=st.sampled_from(((), (), ("t",))),
)
_slaves = st.tuples(
    st.sampled_from((1, 2, 4, 8)),
    st.sampled_from((500, 1000, 4000)),
    st.sampled_from((0, 0, 1, 3)),
    st.builds(
        Offers,
        disk_mb=st.sampled_from((0, 150)),
        amounts=st.sampled_from(({}, {"x": 3})),
        tags=st.sampled_from(((), ("t",), ("u",))),
    ),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(_slaves, min_size=1, max_size=14), st.lists(_needs, min_size=1, max_size=8), st.data())
def test_every_lookup_finds_the_tightest_fit_and_nothing_waits_in_vain(
    slaves: list[tuple[int, int, int, Offers]], needs: list[Needs], data: st.DataObject
) -> None:
    """Against a plain look at all slaves, at every placement, with frames ending in between."""
    farm = CoreFarm()
    links = []
    for number, (cores, memory_mb, gpus, offers) in enumerate(slaves):
        name = f"s{number}"
        offers = Offers(
            gpus=tuple(range(gpus)), disk_mb=offers.disk_mb, amounts=offers.amounts, tags=offers.tags
        )
        machine = a_machine(name, (8000,) * gpus)
        links.append(farm.link(name, cores=cores, memory_mb=memory_mb, machine=machine, offers=offers))
    state = farm.core.state
    running: list[tuple[int, RunOrder]] = []
    for need in needs:
        job = farm.submit(a_job("1-3", layer={"needs": need}))
        running += [(link, order) for link in links for order in farm.orders(link)]
        for _ in range(data.draw(st.integers(0, 2))):
            if running:
                link, order = running.pop(data.draw(st.integers(0, len(running) - 1)))
                farm.exited(link, order.key)
                running += [(one, more) for one in links for more in farm.orders(one)]
        layer = state.jobs[job].layers[0]
        ask = layer.demand.asks[0]
        fits = [s for s in state.slaves.values() if why_not(state, s, layer) is None]
        found = state.rooms.find(layer.demand, ask)
        with mock.patch.object(rooms, "_FEW", 0):
            layer.demand.groups = None
            assert state.rooms.find(layer.demand, ask) is found
        plain_choice = min(
            fits,
            key=lambda s: (
                (s.gpu_bits & ~s.used_gpus).bit_count(),
                s.free_cores,
                s.memory_mb - s.used_memory_mb,
                s.id,
            ),
            default=None,
        )
        assert found is plain_choice
        for waiting in (x for one in state.jobs.values() for x in one.layers if x.waiting):
            for slave in state.slaves.values():
                never = waiting.demand.never(slave)
                assert never is not None or lacks(slave, waiting.demand.asks[0]) is not None
