"""What is said at once of a job that cannot run as the farm stands: it is taken, with warnings."""

from typing import Any

import pytest

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.turn import Policy
from drqueue.proto.messages import Submit, Submitted
from drqueue.proto.model import (
    Alternative,
    Depend,
    Gpu,
    JobSpec,
    LayerSpec,
    Limit,
    MachineInfo,
    Needs,
    Offers,
    Share,
)
from drqueue.proto.sharing_messages import PutLimit, PutShare
from tests.builders import ADMIN, CoreFarm, a_job, a_layer, badly

MACHINE = MachineInfo(
    hostname="s1", os="linux", boot_id="boot-1", gpus=(Gpu(index=0, name="x", memory_mb=8192),)
)
OFFERS = Offers(gpus=(0,), disk_mb=1000, amounts={"volume": 2.5}, tags=("ssd",), attributes={"rack": "7"})


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm(Policy(farm="farm", epoch=1, software="test", backoff=Backoff(0.001, 0.001)))


def linked(farm: CoreFarm, name: str = "s1", **fields: Any) -> int:
    """A slave with a GPU, disk, 2.5 volumes, a tag and an attribute."""
    return farm.link(name, machine=MACHINE, offers=OFFERS, **fields)


def warned(farm: CoreFarm, spec: JobSpec) -> list[str]:
    """What is said when this is submitted."""
    answer = farm.ask(Submit(rq=0, token="a-token-of-its-own", spec=spec), ADMIN)
    assert isinstance(answer, Submitted)
    return list(answer.warnings)


def a_comp(**fields: Any) -> LayerSpec:
    return a_layer("1", name="comp", **fields)


@pytest.mark.parametrize(
    ("layer", "warning"),
    [
        (
            a_comp(needs=Needs(cores=64)),
            (
                "layer comp can run nowhere: the only slave of pool Default lacks cores "
                "(needs 64, the most offered is 4)"
            ),
        ),
        (
            a_comp(needs=Needs(tags=("x",))),
            "layer comp can run nowhere: the only slave of pool Default is without tag x",
        ),
        (
            a_comp(needs=Needs(where="has(shelf) or cores > 1")),
            "no slave has an attribute shelf, which layer comp asks for",
        ),
        (
            a_comp(needs=Needs(where="has(rac) or cores > 1")),
            "no slave has an attribute rac (did you mean rack?), which layer comp asks for",
        ),
        (
            a_comp(limits={"nuke": 1}),
            "limit nuke was never set: frames of layer comp wait until it is",
        ),
        (
            a_comp(limits={"clsed": 1}),
            "limit clsed was never set (did you mean closed?): frames of layer comp wait until it is",
        ),
        (a_comp(limits={"few": 3}), "limit few is 2, and one attempt of layer comp takes 3"),
        (
            a_comp(limits={"cores": 1}, needs=Needs(cores=4)),
            "limit cores is 3 cores, and one attempt of layer comp takes 4",
        ),
        (a_comp(limits={"closed": 1}), "limit closed is 0 machines, and one attempt of layer comp takes 1"),
    ],
)
def test_what_cannot_run_is_said_at_once(farm: CoreFarm, layer: LayerSpec, warning: str) -> None:
    linked(farm)
    for limit in (
        Limit(name="few", amount=2),
        Limit(name="cores", amount=3, scope="cores"),
        Limit(name="closed", amount=0, scope="slaves"),
    ):
        farm.ask(PutLimit(rq=0, name=limit.name, amount=limit.amount, scope=limit.scope))
    assert warned(farm, a_job(layers=(layer,))) == [warning]


def test_waiting_for_what_has_failed_is_said(farm: CoreFarm) -> None:
    link = linked(farm)
    farm.submit(a_job("1-9", layer={"retries": 0}))
    farm.fail_all(link, badly())
    assert warned(farm, a_job(depends=(Depend(0),))) == [
        "it waits for job 0, of which too much failed or was cancelled: requeue or finish it"
    ]
    assert warned(farm, a_job(depends=(Depend(0, until="ended"),))) == []


def test_jobs_without_a_project_have_a_burst_of_their_own(farm: CoreFarm) -> None:
    linked(farm)
    farm.ask(PutShare(rq=0, share=Share(of="project", name="", pool="Default", burst=0)))
    (warning,) = warned(farm, a_job())
    assert warning.startswith("jobs without a project may have 0 cores of pool Default at most, and one")
    assert farm.why()[0].text == (
        "jobs without a project run 0 of the 0 cores that they may have of pool Default: "
        "it is closed until somebody raises it"
    )


def test_a_pool_without_slaves_and_a_burst_of_nothing_are_said(farm: CoreFarm) -> None:
    linked(farm)
    farm.ask(PutShare(rq=0, share=Share(of="project", name="film", pool="Default", burst=0)))
    assert warned(farm, a_job(project="film")) == [
        "project film may have 0 cores of pool Default at most, and one attempt of layer main takes 1"
    ]


def test_causes_that_no_slave_is_rid_of_are_counted(farm: CoreFarm) -> None:
    linked(farm)
    linked(farm, "s2", cores=99)
    linked(farm, "s3", cores=2)
    needs = Needs(cores=64, tags=("ssd",))
    assert warned(farm, a_job(blocked=("s2",), layers=(a_comp(needs=needs),))) == [
        (
            "layer comp can run nowhere: of 3 slaves of pool Default, 2 lack cores "
            "(needs 64, the most offered is 4), 1 blocked for this job"
        )
    ]


def test_a_pool_that_no_slave_is_in_is_said_once(farm: CoreFarm) -> None:
    linked(farm)
    layers = tuple(a_layer("1", name=f"l{n}", needs=Needs(cores=n + 1)) for n in range(4))
    text = "no slave is in pool night: the only one is in others"
    assert warned(farm, a_job(pool="night", layers=layers)) == [text]


def test_warnings_are_bounded(farm: CoreFarm) -> None:
    linked(farm)
    layers = tuple(a_layer("1", name=f"l{n}", limits={f"x{n}": 1}) for n in range(100))
    assert len(warned(farm, a_job(layers=layers))) == 20


def test_of_a_job_that_can_run_nothing_is_said_though_all_is_taken(farm: CoreFarm) -> None:
    link = linked(farm)
    farm.submit(a_job("1-99"))
    needs = Needs(cores=4, gpus=1, tags=("ssd",), where='rack == "7"', alternatives=(Alternative(cores=1),))
    assert warned(farm, a_job(layers=(a_comp(needs=needs),))) == []
    farm.unlink(link)
    farm.fail_all(link, badly())
