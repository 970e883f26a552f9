"""Why no slave takes a frame: one situation for each cause, and that alone is told."""

from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.placement import why_not
from drqueue.master.core.reasons import CODES, listed, megabytes, span
from drqueue.master.core.turn import Policy
from drqueue.proto.link_messages import Status
from drqueue.proto.model import (
    Alternative,
    Gpu,
    MachineInfo,
    MachineLoad,
    Needs,
    Offers,
    SlaveLimits,
)
from drqueue.proto.views import Reason
from tests.builders import CoreFarm, a_hello, a_job, a_layer

GPUS = (Gpu(index=0, name="x", memory_mb=8192), Gpu(index=1, name="x", memory_mb=24576))
MACHINE = MachineInfo(hostname="s1", os="linux", boot_id="boot-1", gpus=GPUS)
OFFERS = Offers(gpus=(0, 1), disk_mb=1000, amounts={"volume": 2.5}, tags=("ssd",), attributes={"rack": "7"})
NEVER = ": as the farm stands, it will never run"


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm(Policy(farm="farm", epoch=1, software="test", backoff=Backoff(0.001, 0.001)))


def only(farm: CoreFarm, job: int = 0) -> Reason:
    """The one reason, which its first frame has, too."""
    (reason,) = farm.why(job)
    assert farm.codes(job, 1) == [reason.code]
    return reason


def linked(farm: CoreFarm, name: str = "s1", **fields: Any) -> int:
    """A slave with two GPUs, disk, 2.5 volumes, a tag and an attribute."""
    return farm.link(name, machine=MACHINE, offers=OFFERS, **fields)


def asks(farm: CoreFarm, **needs: Any) -> Reason:
    """Why a job that needs this waits."""
    job = farm.submit(a_job("1", layer={"needs": Needs(**needs)}))
    return only(farm, job)


def test_no_slave_at_all(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    assert only(farm) == Reason(code="no-slaves", text="no slave has ever linked to this master")


def test_no_slave_in_the_pool(farm: CoreFarm) -> None:
    linked(farm)
    farm.submit(a_job("1", pool="night"))
    text = "no slave is in pool night: the only one is in others"
    assert only(farm) == Reason(code="pool", text=text, count=1, name="night")


@pytest.mark.parametrize(
    ("needs", "code", "text", "name"),
    [
        ({"cores": 5}, "cores-never", "lacks cores (needs 5, the most offered is 4)", ""),
        ({"memory_mb": 9216}, "memory-never", "lacks memory (needs 9 GB, the largest offered is 8 GB)", ""),
        (
            {"machine_memory_mb": 9216},
            "memory-never",
            "lacks memory (needs 9 GB, the largest offered is 8 GB)",
            "",
        ),
        ({"gpus": 3}, "gpu-never", "lacks GPUs (needs 3 GPUs, the most offered is 2)", ""),
        (
            {"gpus": 2, "gpu_memory_mb": 16384},
            "gpu-never",
            "lacks GPUs (needs 2 GPUs of 16 GB, the most offered is 1)",
            "",
        ),
        ({"disk_mb": 1001}, "disk-never", "lacks disk (needs 1001 MB, the largest offered is 1000 MB)", ""),
        (
            {"amounts": {"volume": 3}},
            "amount-never",
            "lacks volume (needs 3, the most offered is 2.5)",
            "volume",
        ),
        ({"amounts": {"tape": 1}}, "amount-never", "lacks tape (needs 1, the most offered is 0)", "tape"),
        ({"os": ("darwin", "windows")}, "os", "is not running darwin or windows", ""),
        ({"tags": ("ssd", "fast")}, "tag", "is without tag fast", "fast"),
        ({"where": 'rack == "8"'}, "where", 'is not such that rack == "8"', ""),
    ],
)
def test_what_a_slave_could_never_give(
    farm: CoreFarm, needs: dict[str, Any], code: str, text: str, name: str
) -> None:
    linked(farm)
    reason = asks(farm, **needs)
    assert (reason.code, reason.count, reason.name) == (code, 1, name)
    assert reason.text == f"slave s1, the only one of pool Default, {text}{NEVER}"


@pytest.mark.parametrize(
    ("taken", "needs", "code", "text"),
    [
        ({"cores": 3}, {"cores": 2}, "cores", "lacks free cores (needs 2, the most free is 1)"),
        ({"cores": 3.5}, {"cores": 0.75}, "cores", "lacks free cores (needs 0.75, the most free is 0.5)"),
        (
            {"memory_mb": 6144},
            {"memory_mb": 3072},
            "memory",
            "lacks free memory (needs 3 GB, the largest free is 2 GB)",
        ),
        ({"gpus": 1}, {"gpus": 2}, "gpu", "lacks free GPUs (needs 2 GPUs, the most free is 1)"),
        (
            {"disk_mb": 600},
            {"disk_mb": 500},
            "disk",
            "lacks free disk (needs 500 MB, the largest free is 400 MB)",
        ),
        (
            {"amounts": {"volume": 2}},
            {"amounts": {"volume": 1}},
            "amount",
            "lacks volume (needs 1, the most free is 0.5)",
        ),
    ],
)
def test_what_a_slave_has_not_enough_of_left(
    farm: CoreFarm, taken: dict[str, Any], needs: dict[str, Any], code: str, text: str
) -> None:
    linked(farm)
    farm.submit(a_job("1", layer={"needs": Needs(**taken)}))
    reason = asks(farm, **needs)
    assert (reason.code, reason.count) == (code, 1)
    assert reason.text == f"slave s1, the only one of pool Default, {text}"


def test_who_goes_first_is_said_of_busy_slaves(farm: CoreFarm) -> None:
    linked(farm)
    farm.submit(a_job("1-9", priority=900))
    farm.submit(a_job("1"))
    assert only(farm, 1).text.endswith("; 1 job of higher priority (5 frames) goes before it")


@pytest.mark.parametrize(
    ("limits", "code", "text"),
    [
        ({"enabled": False}, "disabled", "is disabled"),
        ({"enabled": False, "autoenable": "20:00"}, "autoenable", "is disabled until 20:00"),
    ],
)
def test_disabled(farm: CoreFarm, limits: dict[str, Any], code: str, text: str) -> None:
    linked(farm, limits=SlaveLimits(**limits))
    farm.submit(a_job("1"))
    assert (only(farm).code, only(farm).text) == (code, f"slave s1, the only one of pool Default, {text}")


def test_unlinked_and_lost(farm: CoreFarm) -> None:
    farm.unlink(linked(farm))
    farm.submit(a_job("1"))
    assert only(farm).text == "slave s1, the only one of pool Default, is not linked"
    farm.slave_verb("s1", "declare-dead")
    assert (only(farm).code, only(farm).text.split(", ")[-1]) == ("lost", "is given up as lost")


def test_sick(farm: CoreFarm) -> None:
    linked(farm)
    slave = farm.core.state.slaves[0]
    slave.sick = "5 frames failed"
    farm.core.state.rooms.shrank(slave)
    farm.submit(a_job("1"))
    assert only(farm).code == "sick"
    assert only(farm).text.endswith("is sick: too many frames failed there in a row")


def test_blocked(farm: CoreFarm) -> None:
    linked(farm)
    farm.submit(a_job("1", blocked=("s1",)))
    assert (only(farm).code, only(farm).text.endswith(f"is blocked for this job{NEVER}")) == ("blocked", True)


def test_avoided_by_the_job(farm: CoreFarm) -> None:
    bad, _good = linked(farm, "bad", cores=1), linked(farm, "good", cores=1)
    farm.submit(a_job("1-9"))
    for _ in range(3):
        farm.fail_all(bad)
    farm.wait(1)
    reasons = farm.why()
    assert [reason.code for reason in reasons] == ["slaves", "avoided", "cores"]
    assert reasons[1].text == (
        "1 of 2 slaves (bad) is on the avoid list for 60 min: frames of the job failed there"
    )
    assert reasons[1].until_at == pytest.approx(farm.core.turn.wall + 3599)


def test_avoided_by_the_frame(farm: CoreFarm) -> None:
    bad, _good = linked(farm, "bad", cores=1), linked(farm, "good", cores=1)
    farm.submit(a_job("1-2"))
    farm.fail_all(bad)
    farm.wait(1)
    reasons = farm.why(0, 1)
    assert [reason.code for reason in reasons] == ["slaves", "avoided", "cores"]
    assert "it failed there, and tries others first" in reasons[1].text
    assert farm.codes() == ["slaves", "avoided", "cores"]


def test_a_frame_that_may_go_where_another_failed_is_what_a_job_is_explained_by(farm: CoreFarm) -> None:
    from drqueue.master.core.events import Stopping

    bad, _good = linked(farm, "bad", cores=1), linked(farm, "good", cores=1)
    farm.submit(a_job("1-3"))
    farm.step(Stopping(60))
    farm.fail_all(bad)
    farm.wait(1)
    assert farm.codes(0, 1) == ["slaves", "avoided", "cores"]
    assert farm.codes() == farm.codes(0, 3) == ["turn"]


def test_loaded_by_others(farm: CoreFarm) -> None:
    from drqueue.master.core.events import SlaveSaid

    link = linked(farm, limits=SlaveLimits(max_load=1.0))
    farm.step(SlaveSaid(link, Status(load=MachineLoad(load1=3.0))))
    reason = asks(farm, cores=2)
    assert reason.code == "load"
    assert reason.text.endswith("is loaded by others (needs 2 cores, they leave 1)")


def test_max_per_slave(farm: CoreFarm) -> None:
    linked(farm)
    farm.submit(a_job("1-3", max_per_slave=1))
    (reason,) = farm.why()
    assert reason.code == "max-per-slave"
    assert reason.text.endswith("is at the job's limit of 1 frame per slave")


# -- several causes ----------------------------------------------------------------------------------------


def test_slaves_are_counted_by_cause_in_one_line(farm: CoreFarm) -> None:
    for number in range(6):
        linked(farm, f"small{number}", memory_mb=(number + 1) * 1024)
    for number in range(2):
        linked(farm, f"off{number}", limits=SlaveLimits(enabled=False))
    linked(farm, "other", limits=SlaveLimits(pools=("x",)))
    farm.submit(a_job("1", layer={"needs": Needs(memory_mb=8000)}))
    reasons = farm.why()
    assert [(reason.code, reason.count) for reason in reasons] == [
        ("slaves", 8),
        ("memory-never", 6),
        ("disabled", 2),
    ]
    assert reasons[0].text == (
        "8 slaves of pool Default: 6 lack memory (needs 7.812 GB, the largest offered is 6 GB), 2 disabled"
    )
    assert reasons[1].text == ("6 of 8 slaves lack memory (needs 7.812 GB, the largest offered is 6 GB)")


def test_a_slave_out_of_service_that_could_not_run_it_either_counts_as_such(farm: CoreFarm) -> None:
    linked(farm, limits=SlaveLimits(enabled=False))
    farm.unlink(linked(farm, "s2"))
    assert asks(farm, cores=64).code == "cores-never"


def test_alternatives_are_told_each(farm: CoreFarm) -> None:
    linked(farm)
    farm.submit(a_job("1", layer={"needs": Needs(gpus=2)}))
    reason = asks(farm, gpus=1, alternatives=(Alternative(cores=4),))
    assert reason.code == "gpu"
    assert reason.text == (
        "slave s1, the only one of pool Default, lacks free GPUs (needs 1 GPU, the most free is 0); "
        "in place of that, 4 cores: not enough free cores (needs 4, the most free is 3)"
    )


def test_an_answer_about_thousands_of_slaves_takes_milliseconds(farm: CoreFarm) -> None:
    for number in range(5000):
        limits = SlaveLimits(enabled=number % 5 > 0)
        farm.link_unchecked(f"s{number}", cores=number % 7 + 1, limits=limits, offers=OFFERS)
    needs = Needs(cores=8, tags=("ssd",), where='rack == "7" and cores < 99')
    layers = tuple(a_layer("1-10", name=f"l{n}", needs=needs) for n in range(50))
    job = farm.submit_unchecked(a_job(layers=layers))
    from drqueue.master.core.explain import why

    turn, state = farm.core.turn, farm.core.state
    before = perf_counter()
    reasons = why(turn, state.jobs[job], None, None)
    assert perf_counter() - before < 0.5
    assert [(reason.code, reason.count) for reason in reasons] == [("cores-never", 5000)]


some_needs = st.builds(
    Needs,
    cores=st.sampled_from([1, 2, 0.5, 5]),
    memory_mb=st.sampled_from([0, 1000, 9000]),
    gpus=st.integers(0, 3),
    disk_mb=st.sampled_from([0, 700, 2000]),
    tags=st.sampled_from([(), ("ssd",), ("x",)]),
    where=st.sampled_from(["", 'rack == "7"', "has(nosuch)"]),
    amounts=st.sampled_from([{}, {"volume": 1}, {"volume": 9}]),
    alternatives=st.sampled_from([(), (Alternative(cores=1),), (Alternative(cores=9, gpus=1),)]),
)
some_slaves = st.lists(
    st.tuples(
        st.booleans(),
        st.booleans(),
        st.sampled_from([1, 4]),
        st.sampled_from([("Default",), ("x",), ("x", "Default")]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(some_slaves, st.lists(some_needs, min_size=1, max_size=4))
def test_causes_are_those_that_place_frames_and_their_counts_add_up(
    slaves: list[tuple[bool, bool, int, tuple[str, ...]]], jobs: list[Needs]
) -> None:
    farm = CoreFarm()
    for number, (enabled, stays, cores, pools) in enumerate(slaves):
        link = linked(farm, f"s{number}", cores=cores, limits=SlaveLimits(enabled=enabled, pools=pools))
        if not stays:
            farm.unlink(link)
    for needs in jobs:
        farm.submit(a_job("1-3", layer={"needs": needs}))
    state = farm.core.state
    for job in state.jobs.values():
        (layer,) = job.layers
        reasons = farm.why(job.id)
        assert all(reason.code in CODES for reason in reasons)
        if not layer.waiting:
            assert reasons == []
            continue
        members = [s for s in state.slaves.values() if "Default" in s.limits.pools]
        assert all(why_not(state, slave, layer) for slave in members)
        if not members:
            assert [reason.code for reason in reasons] == ["pool"]
            continue
        causes = [reason for reason in reasons if reason.code != "slaves"]
        assert sum(reason.count for reason in causes) == len(members)
        assert (len(causes) > 1) == (reasons[0].code == "slaves")
        closed = {"unlinked", "disabled"}
        codes = {why_not(state, slave, layer) for slave in members} - closed
        assert codes <= {reason.code for reason in causes}


# -- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (megabytes(0), "0 MB"),
        (megabytes(1023), "1023 MB"),
        (megabytes(1024), "1 GB"),
        (megabytes(1536), "1.5 GB"),
        (megabytes(9998 * 1024), "9998 GB"),
        (megabytes(100_000 * 1024), "97.7 TB"),
        (span(0.2), "1 s"),
        (span(-5), "0 s"),
        (span(119), "119 s"),
        (span(121), "3 min"),
        (span(7200), "2 h"),
        (span(95 * 3600), "95 h"),
        (span(97 * 3600), "5 days"),
        (listed(["a"]), "a"),
        (listed(["a", "b"], last="or"), "a or b"),
        (listed(["a", "b", "c", "d", "e"]), "a, b, c and 2 more"),
        (listed([]), ""),
    ],
)
def test_words(said: str, text: str) -> None:
    assert said == text


def test_hellos_of_tests_offer_nothing_unless_told() -> None:
    assert a_hello().offers == Offers()
