"""Dependencies that change, that cannot be, that go: live edits, rings, deletion; and frames that go next."""

from typing import Any

import pytest

from drqueue.master.core import jobs
from drqueue.proto.messages import ChangeJob, Done, FrameVerb, JobVerb, Submit
from drqueue.proto.model import Depend, JobChange, JobSpec, LayerDepend
from tests.builders import CoreFarm, a_job, a_layer, badly


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def layered(*names: str, **depends: tuple[LayerDepend, ...]) -> JobSpec:
    """A job of layers over 1-4, with what they depend on."""
    return a_job(layers=tuple(a_layer("1-4", name=name, depends=depends.get(name, ())) for name in names))


def on(job: int | None, layer: str = "", frames: Any = "all", **fields: Any) -> LayerDepend:
    return LayerDepend(job=job, layer=layer, frames=frames, **fields)


def said(farm: CoreFarm, job: int, **fields: Any) -> tuple[str, str]:
    """The refusal of a change."""
    refusal = farm.refusal(ChangeJob(rq=0, job=job, change=JobChange(**fields)))
    return refusal.code, refusal.text


# -- what cannot be ---------------------------------------------------------------------------------------


def test_a_layer_of_another_job_that_it_does_not_have(farm: CoreFarm) -> None:
    farm.submit(layered("sim", "render"))
    text = "it depends on layer 'comp' of job 0, which has only sim, render"
    for spec in (a_job("1", depends=(Depend(0, layer="comp"),)), layered("a", a=(on(0, "comp"),))):
        refusal = farm.refusal(Submit(rq=0, token="token-yy", spec=spec))
        assert (refusal.code, refusal.text) == ("no-such-layer", text)
    other = farm.submit(a_job("1"))
    assert said(farm, other, layer_depends=(on(0, "comp", "each"),)) == ("no-such-layer", text)
    assert said(farm, other, layer_depends=(on(9),))[0] == "no-such-job"
    refusal = farm.refusal(Submit(rq=0, token="token-yy", spec=layered("a", a=(on(2),))))
    assert (refusal.code, refusal.text) == ("no-such-job", "it depends on job 2, which does not exist")


def test_rings_of_layers_and_jobs_are_named(farm: CoreFarm) -> None:
    ring = "these would wait for each other: "
    farm.submit(layered("sim", "render"))
    farm.submit(layered("comp", "encode", comp=(on(0, "render", "each"),)))
    for until in ("done", "ended"):
        found = said(farm, 0, layer="render", layer_depends=(on(1, "comp", "each", offset=-1, until=until),))
        assert found == ("bad-job", f"{ring}0/render -> 1/comp -> 0/render")
    assert said(farm, 0, depends=(Depend(1),)) == ("bad-job", f"{ring}0/render -> 1/comp -> 0/render")
    assert said(farm, 0, depends=(Depend(1, layer="comp"),))[1].startswith(ring)
    farm.change(0, layer="sim", layer_depends=(on(1, "encode"),))
    assert farm.states(0, "sim") == dict.fromkeys(range(1, 5), "BLOCKED")
    assert said(farm, 1, layer="encode", layer_depends=(on(0, "sim"),))[1] == (
        f"{ring}1/encode -> 0/sim -> 1/encode"
    )
    farm.submit(a_job("1", depends=(Depend(1),)))
    found = f"{ring}0/render -> 2 -> 1/comp -> 0/render"
    assert said(farm, 0, depends=(Depend(2),)) == ("bad-job", found)


def test_whoever_would_wait_for_itself(farm: CoreFarm) -> None:
    farm.submit(layered("sim", "render"))
    assert said(farm, 0, depends=(Depend(0, layer="render"),))[0] == "bad-job"
    assert said(farm, 0, depends=(Depend(0),)) == ("bad-job", "job 0 would wait for itself")
    text = "layer sim would wait for itself"
    assert said(farm, 0, layer="sim", layer_depends=(on(0, "sim", "each", offset=-1),)) == ("bad-job", text)
    farm.change(0, layer="sim", layer_depends=(on(None, frames="previous"),))
    assert farm.states(0, "sim") == {1: "WAITING", **dict.fromkeys((2, 3, 4), "BLOCKED")}


def test_what_was_refused_changed_nothing(farm: CoreFarm) -> None:
    farm.submit(layered("sim", "render"))
    farm.submit(layered("comp", comp=(on(0, "render"),)))
    before = farm.layers(0)
    said(farm, 0, layer="render", layer_depends=(on(1, "comp"),), priority=7)
    assert (farm.layers(0), farm.job(0).priority) == (before, 500)


def test_a_ladder_is_no_ring_and_is_looked_at_once(farm: CoreFarm) -> None:
    """2^40 paths lead through it."""
    farm.submit(a_job("1"))
    farm.submit(a_job("1", depends=(Depend(0),)))
    for job in range(40):
        farm.submit(a_job("1", depends=(Depend(job), Depend(job + 1))))
    farm.change(41, depends=(Depend(39), Depend(38)))
    assert said(farm, 0, depends=(Depend(41),))[0] == "bad-job"


# -- live changes -----------------------------------------------------------------------------------------


def test_frames_are_let_go_and_held_at_once(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(layered("sim", "comp"))
    assert farm.order(link).start == 1
    farm.change(0, layer="comp", layer_depends=(on(None, "sim", "each"),))
    assert farm.state_set(0, "comp") == {"BLOCKED"}
    farm.frame(0, "finish", "2", layer="sim")
    assert farm.states(0, "comp")[2] == "WAITING"
    farm.change(0, layer="comp", after=("sim",), layer_depends=())
    assert farm.state_set(0, "comp") == {"BLOCKED"}
    farm.restart()
    assert farm.state_set(0, "comp") == {"BLOCKED"}
    farm.change(0, layer="comp", after=())
    assert farm.state_set(0, "comp") == {"WAITING"}


def test_what_runs_goes_on(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    farm.submit(layered("comp"))
    farm.submit(layered("sim"))
    keys = farm.keys(link)
    farm.change(0, layer_depends=(on(1, "sim", "each"),))
    assert farm.states(0) == {1: "ASSIGNED", 2: "ASSIGNED", 3: "BLOCKED", 4: "BLOCKED"}
    assert farm.stops(link) == []
    farm.exited(link, keys[1])
    farm.exited(link, keys[2], badly())
    farm.wait(10)
    assert farm.states(0) == {1: "DONE", 2: "BLOCKED", 3: "BLOCKED", 4: "BLOCKED"}


# -- what goes --------------------------------------------------------------------------------------------


def test_only_frames_that_still_waited_are_cancelled(farm: CoreFarm) -> None:
    farm.submit(layered("sim"))
    layers = (
        a_layer("1-6", name="comp", depends=(on(0, "sim", "each"),)),
        a_layer("1-6", name="encode", depends=(on(None, "comp", "each"),)),
        a_layer("1-3", name="other"),
        a_layer("1", name="some", depends=(on(None, "comp", "percent", percent=50),)),
        a_layer("1", name="most", depends=(on(None, "comp", "percent", percent=80),)),
        a_layer("1", name="end", depends=(on(None, "comp", until="ended"),)),
    )
    child = farm.submit(a_job(layers=layers))
    third = farm.submit(a_job("1", depends=(Depend(child),)))
    fourth = farm.submit(a_job("1", depends=(Depend(child, "ended"),)))
    farm.frame(0, "finish", "2", layer="sim")
    answer = farm.ask(JobVerb(rq=0, job=0, verb="delete"))
    assert isinstance(answer, Done)
    assert answer.note == f"cancelled, because they waited for it: job {child}"
    gone = {1: "CANCELLED", 2: "WAITING", 3: "CANCELLED", 4: "CANCELLED", 5: "WAITING", 6: "WAITING"}
    for _ in range(2):
        assert farm.states(child, "comp") == gone
        assert farm.states(child, "encode") == {n: s.replace("WAITING", "BLOCKED") for n, s in gone.items()}
        assert farm.state_set(child, "other") == {"WAITING"}
        assert [farm.states(child, name)[1] for name in ("some", "most", "end")] == [
            "BLOCKED", "CANCELLED", "BLOCKED",
        ]  # fmt: skip
        assert (farm.states(third), farm.states(fourth)) == ({1: "CANCELLED"}, {1: "BLOCKED"})
        farm.restart()
    link = farm.link()
    farm.render_all(link)
    assert farm.states(child, "end") == {1: "DONE"}
    assert farm.states(child, "some") == {1: "DONE"}
    assert farm.job(fourth).state == "FINISHED"


def test_frames_one_after_the_other_are_cancelled_up_to_one_that_is_done(farm: CoreFarm) -> None:
    farm.submit(layered("sim"))
    depends = (on(0, "sim", "each"), on(None, frames="previous"))
    child = farm.submit(a_job("2-9", layer={"depends": depends}))
    farm.frame(child, "finish", "6")
    farm.frame(0, "finish", "2", layer="sim")
    farm.verb(0, "delete")
    assert farm.states(child) == {
        2: "WAITING", 3: "CANCELLED", 4: "CANCELLED", 5: "CANCELLED", 6: "DONE",
        7: "WAITING", 8: "BLOCKED", 9: "BLOCKED",
    }  # fmt: skip


def test_a_million_frames_one_after_the_other_are_cancelled_at_once(farm: CoreFarm) -> None:
    farm.submit(layered("sim"))
    spec = a_job("1-1000000", layer={"depends": (on(0, "sim", "each"), on(None, frames="previous"))})
    child = farm.submit_unchecked(spec)
    farm.storage.commit(farm.core.step([], farm.now).save)
    jobs.delete(farm.core.turn, farm.core.state.jobs[0])
    assert len(farm.core.state.jobs[child].layers[0].cancelled) == 1_000_000


def test_a_job_that_is_deleted_waits_no_more(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    child = farm.submit(layered("comp", "encode", encode=(on(None, "comp", "each"),)))
    farm.submit(layered("sim"))
    key = farm.order(link).key
    farm.change(child, layer="comp", layer_depends=(on(1, "sim", "each"),), depends=(Depend(1),))
    assert farm.job(1).dependents == (child,)
    farm.verb(child, "delete")
    farm.restart()
    assert farm.job(1).dependents == ()
    farm.verb(1, "delete")
    link = farm.link()
    farm.exited(link, key)
    assert not farm.core.state.jobs


# -- next -------------------------------------------------------------------------------------------------


def test_frames_that_go_next(farm: CoreFarm) -> None:
    farm.submit(layered("sim", "comp"))
    farm.change(0, layer="comp", frames="1-9")
    farm.frame(0, "finish", "6", layer="comp")
    assert farm.frame(0, "next", "5-7", layer="comp") == 2
    answer = farm.ask(FrameVerb(rq=0, job=0, verb="next", frames="8,20", layer="comp"))
    assert answer == Done(rq=answer.rq, count=1, note="1 of the numbers are not in the job's range")
    farm.restart()
    assert farm.layers(0)[1].next == "8,20,5-7"
    link = farm.link(cores=1)
    farm.frame(0, "finish", "1-4", layer="sim")
    order = []
    for found in iter(lambda: farm.orders(link), []):
        order += [o.start for o in found if o.layer_name == "comp"]
        for one in found:
            farm.exited(link, one.key)
    assert order == [8, 5, 7, 1, 2, 3, 4, 9]
    assert (
        farm.refusal(FrameVerb(rq=0, job=0, verb="next", frames="99", layer="comp")).code == "no-such-frame"
    )


def test_frames_that_go_next_and_are_too_many_together(farm: CoreFarm) -> None:
    """The latest are kept, those before them are forgotten."""
    farm.submit(a_job("1-99999"))
    old = ",".join(map(str, range(1, 40_000, 3)))
    assert farm.frame(0, "next", old) == 13_333
    new = ",".join(map(str, range(2, 60_000, 3)))
    farm.frame(0, "next", new)
    assert farm.layers(0)[0].next.startswith("2")


def test_a_layer_that_its_own_job_has_not_is_refused_also_where_the_job_is_named() -> None:
    farm = CoreFarm()
    job = farm.submit(a_job(layers=(a_layer("1-2", name="a"), a_layer("1-2", name="b"))))
    change = JobChange(layer="b", layer_depends=(LayerDepend(job=job, layer="typo"),))
    refusal = farm.refusal(ChangeJob(rq=0, job=job, change=change))
    assert refusal.code == "no-such-layer"
    assert refusal.text == f"it depends on layer 'typo' of job {job}, which has only a, b"
