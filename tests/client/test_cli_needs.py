"""What `submit` and `set` say of needs, limits, orders and dependencies, and what they refuse."""

import shlex
from typing import Any

import msgspec
import pytest

from drqueue.proto import messages
from drqueue.proto.link_messages import Message
from drqueue.proto.model import Alternative, Depend, JobChange, JobSpec, LayerDepend, LayerSpec, Needs
from tests.client.conftest import LAYER, Command, Said
from tests.client.peer import Peer, job_view


def submitted(master: Peer, drqueue: Command, options: str) -> tuple[JobSpec, LayerSpec]:
    """The job, and its layer, that a command line makes."""
    assert drqueue("submit", *shlex.split(options), "--", "true") == Said(0, "42\n", "")
    (asked,) = [message for message in master.heard if isinstance(message, messages.Submit)]
    return asked.spec, asked.spec.layers[0]


def test_needs(master: Peer, drqueue: Command) -> None:
    _, layer = submitted(
        master,
        drqueue,
        "--cores 0.5 --memory 4G --gpus 2 --gpu-memory 8G --disk 50G --need bandwidth=0.25 --need slots=2"
        " --tag ssd --tag fast --os linux --where 'cpu ~ \"*EPYC*\"'"
        " --or cores=16,memory=32G,disk=0 --or 'gpus=1, gpu-memory=500, slots=1.5'",
    )
    assert layer.needs == Needs(
        cores=0.5,
        memory_mb=4096,
        gpus=2,
        gpu_memory_mb=8192,
        disk_mb=51200,
        amounts={"bandwidth": 0.25, "slots": 2},
        tags=("ssd", "fast"),
        os=("linux",),
        where='cpu ~ "*EPYC*"',
        alternatives=(
            Alternative(cores=16, memory_mb=32768, disk_mb=0),
            Alternative(gpus=1, gpu_memory_mb=500, amounts={"slots": 1.5}),
        ),
    )


def test_limits_orders_and_dependencies(master: Peer, drqueue: Command) -> None:
    spec, layer = submitted(
        master,
        drqueue,
        "--frames 1-9 --limit nuke --limit arnold=2 --limit nuke --order coarse --next 5-6 --max-failures 7"
        " --project film --depend 12:ended --depend 12/sim:50% --depend 13:each+1 --previous",
    )
    assert (layer.limits, layer.order, layer.next) == ({"nuke": 2, "arnold": 2}, "coarse", "5-6")
    assert (spec.max_failures, spec.project) == (7, "film")
    assert spec.depends == (Depend(12, "ended"), Depend(12, layer="sim", frames="percent", percent=50))
    assert layer.depends == (
        LayerDepend(job=13, frames="each", offset=1),
        LayerDepend(frames="previous"),
    )


def test_whole_cores_stay_whole_numbers(master: Peer, drqueue: Command) -> None:
    assert isinstance(submitted(master, drqueue, "--cores 4")[1].needs.cores, int)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--cores 0", "'0' is no number of cores: write for example 4 or 0.5"),
        ("--cores -1", "'-1' is no number of cores"),
        ("--cores 1e3", "'1e3' is no number of cores"),
        ("--cores 0.0001", "layer 'main': cores: 0.0001 is finer than a thousandth"),
        ("--need bandwidth", "'bandwidth' is not of the form NAME=AMOUNT"),
        ("--need =2", "'=2' is not of the form NAME=AMOUNT"),
        ("--need a=b", "'a=b' is not of the form NAME=AMOUNT"),
        ("--need memory=2", "no amount may be called 'memory'"),
        ("--limit nuke=0.5", "'nuke=0.5' is not of the form NAME or NAME=N"),
        ("--limit nuke=0", "--limit nuke=0 takes nothing: leave it out"),
        ("--limit user:ann", "the limit 'user:ann' counts by itself"),
        ("--or cores", "'' is no number of cores"),
        ("--or cores=2,cores=3", "says cores twice"),
        ("--or colour", "'colour' is not of the form NAME=AMOUNT"),
        ("--where 'os = 1'", "column 4: '==' is expected in place of '='"),
        ("--gpu-memory 4G", "asks for memory of GPUs, but for no GPU"),
        ("--tag a --tag a", "has the tag 'a' twice"),
        ("--order sideways", "there is no order 'sideways'"),
        ("--next 1-", "next: '1-' is no frame range"),
        ("--depend render", "'render' is no dependency: ID, ID/LAYER"),
        ("--depend 12:half", "'12:half' is no dependency"),
        ("--file x.toml --gpus 1", "--gpus is a layer's: write it into a [[layer]] of x.toml"),
        ("--file x.toml --or gpus=1", "--or is a layer's"),
        ("--file x.toml --previous", "--previous is a layer's"),
        ("--file x.toml --depend 12:each", "--depend ID:each is a layer's"),
    ],
)
def test_what_is_refused(master: Peer, drqueue: Command, options: str, sentence: str) -> None:
    command = () if "--file" in options else ("--", "true")
    said = drqueue("submit", *shlex.split(options), *command)
    assert (said.status, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.startswith("drqueue: ")
    assert said.err.count("\n") == 1
    assert "Submit" not in master.kinds()


def test_warnings_of_the_master_go_to_stderr(master: Peer, drqueue: Command) -> None:
    """One a line, after its note; the id stays alone on stdout."""
    master.on[messages.Submit] = lambda _, asked: messages.Submitted(
        rq=asked.rq, job=1, note="take care", warnings=("no slave has so much memory", "limit x is not set")
    )
    warned = (
        "take care\ndrqueue: warning: no slave has so much memory\ndrqueue: warning: limit x is not set\n"
    )
    assert drqueue("submit", "--", "true") == Said(0, "1\n", warned)


# -- set ------------------------------------------------------------------------------------------------

DEPENDS = (Depend(3, "ended"), Depend(4, layer="sim"), Depend(5))
LAYER_DEPENDS = (
    LayerDepend(layer="sim", frames="each"),
    LayerDepend(job=4, frames="each"),
    LayerDepend(frames="previous"),
)


@pytest.fixture
def changed(master: Peer, drqueue: Command) -> Any:
    """What `drqueue set` asks for of a job with needs, limits and dependencies of all sorts."""
    layer = msgspec.structs.replace(
        LAYER,
        needs=Needs(cores=2, amounts={"a": 1, "b": 2}, tags=("ssd",), where="cores > 1"),
        limits={"nuke": 1, "big": 2},
        depends=LAYER_DEPENDS,
        after=("sim", "fx"),
    )

    def job(_: Any, asked: messages.GetJob) -> Message:
        return messages.Job(rq=asked.rq, job=job_view(asked.job, depends=DEPENDS), layers=(layer,))

    master.on[messages.GetJob] = job

    def of(options: str) -> JobChange:
        master.heard.clear()
        assert drqueue("set", "3", *shlex.split(options)) == Said(0, "", "")
        (asked,) = [message for message in master.heard if isinstance(message, messages.ChangeJob)]
        return asked.change

    return of


def test_set_job(changed: Any) -> None:
    assert changed("--project p --max-failures 0 --order reverse --next ''") == JobChange(
        project="p", max_failures=0, order="reverse", next=""
    )


def test_set_needs(changed: Any) -> None:
    """What is not named of them stays."""
    needs = Needs(cores=2, amounts={"a": 1, "b": 2}, tags=("ssd",), where="cores > 1")
    for options, fields in (
        ("--cores 0.5 --gpus 1", {"cores": 0.5, "gpus": 1}),
        ("--need b=0 --need c=0.5", {"amounts": {"a": 1, "c": 0.5}}),
        ("--tag '' --where ''", {"tags": (), "where": ""}),
        ("--tag x --tag y --or gpus=1", {"tags": ("x", "y"), "alternatives": (Alternative(gpus=1),)}),
        ("--or ''", {"alternatives": ()}),
    ):
        assert changed(options) == JobChange(needs=msgspec.structs.replace(needs, **fields))


def test_set_limits(changed: Any) -> None:
    assert changed("--limit big=0 --limit new") == JobChange(limits={"nuke": 1, "new": 1})
    assert changed("--limit nuke=3") == JobChange(limits={"nuke": 3, "big": 2})


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ("--depend 7", JobChange(depends=(*DEPENDS, Depend(7)))),
        ("--depend 5 --depend 6:any", JobChange(depends=(*DEPENDS, Depend(6, frames="any")))),
        ("--undepend 3", JobChange(depends=DEPENDS[1:])),
        ("--undepend 4/sim --undepend 5", JobChange(depends=DEPENDS[:1])),
        ("--undepend 4:each", JobChange(layer_depends=(LAYER_DEPENDS[0], LAYER_DEPENDS[2]))),
        ("--undepend sim:each", JobChange(layer_depends=LAYER_DEPENDS[1:])),
        ("--undepend sim", JobChange(layer_depends=LAYER_DEPENDS[1:], after=("fx",))),
        ("--undepend previous", JobChange(layer_depends=LAYER_DEPENDS[:2])),
        (
            "--depend fx:each-1",
            JobChange(layer_depends=(*LAYER_DEPENDS, LayerDepend(layer="fx", frames="each", offset=-1))),
        ),
        ("--no-depend", JobChange(depends=(), layer_depends=(LAYER_DEPENDS[0], LAYER_DEPENDS[2]))),
        (
            "--no-depend --depend 9",
            JobChange(depends=(Depend(9),), layer_depends=(LAYER_DEPENDS[0], LAYER_DEPENDS[2])),
        ),
    ],
)
def test_set_dependencies(changed: Any, options: str, change: JobChange) -> None:
    assert changed(options) == change


@pytest.mark.usefixtures("changed")
def test_what_a_job_does_not_wait_for_cannot_be_taken_away(master: Peer, drqueue: Command) -> None:
    said = drqueue("set", "3", "--undepend", "77:each")
    assert (said.status, said.out) == (2, "")
    assert "it does not wait for 77:each" in said.err
    assert "ChangeJob" not in master.kinds()


# -- help -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["submit", "set"])
def test_the_help_has_every_option_once_below_a_heading(drqueue: Command, command: str) -> None:
    from drqueue.client.cli.options import Grouped
    from drqueue.client.cli.set_job import set_job
    from drqueue.client.cli.submit import submit

    said = drqueue(command, "--help").out
    lines = said.splitlines()
    found = {"submit": submit, "set": set_job}[command]
    assert isinstance(found, Grouped)
    assert set(found.headings) <= {param.name for param in found.params} | {"json"}
    for heading in found.headings.values():
        assert f"{heading}:" in lines
    options = lines[lines.index(f"{next(iter(found.headings.values()))}:") :]
    heads = [line.split("  ")[1].replace(",", " ").split() for line in options if line.startswith("  -")]
    for param in found.params:
        for flag in param.opts if param.param_type_name == "option" else ():
            assert sum(flag in head for head in heads) == 1, flag
