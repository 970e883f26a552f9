"""The slave's core by hand: what has room. Fractions of cores, GPUs that are one attempt's alone."""

from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drqueue.proto.link_messages import Stop
from drqueue.proto.model import MachineInfo, MachineLoad, Offers, RunOrder
from drqueue.proto.views import SlaveView
from drqueue.slave.core.amounts import milli, plain, total
from drqueue.slave.core.effects import Start
from drqueue.slave.offer import Offer
from drqueue.slave.view import slave_view
from tests.slave.core_bench import BOOT, Bench, an_order, ended, key, orders, started

OFFERS = Offers(gpus=(0, 1), disk_mb=1000, amounts={"seats": 2}, tags=("ssd",), attributes={"rack": "1"})


@pytest.fixture
def bench() -> Bench:
    """A registered slave of four cores."""
    made = Bench()
    made.register()
    return made


def begun(bench: Bench) -> list[int]:
    """The frames that were told to start in the last step."""
    return [effect.order.key.frame for effect in bench.done(Start)]


def shown(bench: Bench) -> SlaveView:
    """The slave as clients see it."""
    offer = Offer(MachineInfo(hostname="h", os="linux"), 4, 8000, OFFERS)
    return slave_view(bench.state, name="s", offer=offer, load=MachineLoad(), control="", last_heard_at=0.0)


def test_fractions_add_up_exactly(bench: Bench) -> None:
    """Forty tenths are four cores, in whatever order they come and go; floats would drift."""
    bench.step(orders(*[an_order(n, cores=0.1) for n in range(41)]))
    assert begun(bench) == list(range(40))
    assert bench.state.cores_used == 4
    bench.step(*[started(n) for n in range(40)])
    bench.step(*[ended(n) for n in range(40)])
    assert begun(bench) == [40]
    bench.step(started(40), ended(40))
    assert bench.state.cores_used == 0


def test_what_asks_for_next_to_nothing_still_counts(bench: Bench) -> None:
    bench.step(orders(an_order(0, cores=1e-9), an_order(1, cores=4)))
    assert begun(bench) == [0]
    assert bench.state.cores_used == 0.001


def test_one_that_waits_for_its_gpus_lets_others_pass(bench: Bench) -> None:
    """But none that would take those GPUs, though one of them is free: else it might wait forever."""
    bench.step(orders(an_order(0, gpus=(0,)), an_order(1, gpus=(0, 1)), an_order(2, gpus=(1,)), an_order(3)))
    assert begun(bench) == [0, 3]
    bench.step(started(0), ended(0))
    assert begun(bench) == [1]
    bench.step(started(1), ended(1))
    assert begun(bench) == [2]


def test_what_waits_for_cores_is_not_passed(bench: Bench) -> None:
    bench.step(orders(an_order(0, cores=2), an_order(1, cores=4), an_order(2, gpus=(0,))))
    assert begun(bench) == [0]


def test_a_gpu_is_taken_until_all_processes_are_gone(bench: Bench) -> None:
    bench.step(orders(an_order(0, gpus=(1,)), an_order(1, gpus=(1,))))
    bench.step(started(0))
    bench.step(orders(stop=(Stop(key(0), "enough"),)))
    assert begun(bench) == []
    bench.step(ended(0, code=None, signal=15))
    assert begun(bench) == [1]


def test_a_gpu_is_free_while_outputs_are_looked_at(bench: Bench) -> None:
    bench.step(orders(an_order(0, gpus=(1,)), an_order(1, gpus=(1,)), an_order(2, gpus=(1,))))
    bench.step(orders(stop=(Stop(key(1), "enough"),)))
    bench.step(started(0), ended(0))
    assert begun(bench) == [2]


def test_what_is_in_use_is_shown(bench: Bench) -> None:
    bench.step(
        orders(
            an_order(0, cores=0.5, gpus=(1,), disk_mb=100, amounts={"seats": 0.1, "ram": 1}),
            an_order(1, cores=1, gpus=(0,), disk_mb=10, amounts={"seats": 0.2}),
            an_order(2, cores=4, gpus=(1,), disk_mb=1, amounts={"seats": 1}),
        )
    )
    view = shown(bench)
    assert (view.offers, view.cores, view.memory_mb) == (OFFERS, 4, 8000)
    assert (view.cores_used, view.gpus_used, view.disk_used_mb) == (1.5, (0, 1), 110)
    assert view.amounts_used == {"ram": 1, "seats": 0.3}
    bench.step(started(0), started(1))
    bench.step(ended(0), ended(1))
    assert (shown(bench).gpus_used, shown(bench).amounts_used) == ((1,), {"seats": 1})


def test_a_former_daemons_attempts_keep_their_gpus(bench: Bench) -> None:
    bench.runs(an_order(0, gpus=(0,), cores=0.3))
    again = Bench(state=bench.restored(BOOT))
    again.kept = list(bench.kept)
    again.register()
    assert (again.state.gpus_used, again.state.cores_used) == ({0: 1}, 0.3)
    again.step(orders(an_order(1, gpus=(0,))))
    assert begun(again) == []
    again.step(ended(0))
    assert begun(again) == [1]


_ORDERS = st.lists(
    st.tuples(st.sampled_from([0.1, 0.5, 1, 3, 9]), st.sets(st.integers(0, 2)).map(sorted).map(tuple)),
    min_size=1,
    max_size=12,
)


@given(_ORDERS, st.randoms(use_true_random=False))
def test_no_gpu_is_ever_shared_and_everything_runs(asked: list, random) -> None:  # type: ignore[no-untyped-def,type-arg]
    """However attempts end, all come to run, each with its devices to itself."""
    bench = Bench()
    bench.register()
    run: list[RunOrder] = [an_order(n, cores=cores, gpus=gpus) for n, (cores, gpus) in enumerate(asked)]
    bench.step(orders(*run))
    left = len(run)
    while left:
        using = [attempt.order for attempt in bench.state.in_use()]
        assert using, "nothing runs, though something waits"
        for one, other in combinations(using, 2):
            assert not set(one.gpus) & set(other.gpus)
        frame = random.choice(using).key.frame
        bench.step(started(frame), ended(frame))
        left -= 1
    assert not bench.state.queued


@given(st.lists(st.integers(0, 10**6).map(lambda thousandths: thousandths / 1000)))
@example([1.001, 1.005, 0.1, 0.2])
def test_amounts_are_what_people_wrote(amounts: list[float]) -> None:
    assert [plain(milli(amount)) for amount in amounts] == amounts
    summed = total([{"a": amount} for amount in amounts]).get("a", 0)
    assert milli(summed) == sum(map(milli, amounts))
