"""`drqueue job`: what was given is shown where it says something, and nothing of it fills the screen."""

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.cli import output
from drqueue.client.kinds import Frames, find
from drqueue.proto import messages
from drqueue.proto.model import Depend, JobSpec, LayerSpec, Needs
from tests.client.conftest import LAYER, Command
from tests.client.peer import Peer, job_view

BLENDER = {"scene": "/mnt/shot.blend", "output": "/mnt/out_####.png", "width": "1920"}


def known(master: Peer, spec: JobSpec, **view: Any) -> None:
    """Let the master have that job, of one layer."""
    (layer,) = spec.layers
    shown = msgspec.structs.replace(
        LAYER, command=layer.shell or " ".join(layer.argv), cwd=layer.cwd, needs=layer.needs
    )
    master.on[messages.GetSpec] = lambda _, asked: messages.Spec(rq=asked.rq, spec=spec)
    master.on[messages.GetJob] = lambda _, asked: messages.Job(
        rq=asked.rq, job=job_view(asked.job, **view), layers=(shown,)
    )


def field(text: str, name: str) -> list[str]:
    """The lines of a field."""
    lines = iter(text.splitlines())
    found: list[str] = []
    for line in lines:
        label = line.split("  ")[0]
        if label == name or (found and line.startswith(" ")):
            found.append(line[len(label) :].strip() if label == name else line.strip())
        elif found:
            break
    return found


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout is a terminal of 80 columns, without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_a_job_of_a_kind_shows_its_parameters_and_not_its_program(master: Peer, drqueue: Command) -> None:
    layer = find("blender").build(BLENDER, Frames("1-10"))
    known(master, JobSpec(name="n", layers=(layer,), kind="blender", params=BLENDER))
    text = drqueue("job", "7").out
    assert field(text, "kind") == ["blender"]
    assert field(text, "params") == [f"{name} = {value}" for name, value in BLENDER.items()]
    command = field(text, "command")
    assert len(command) == 4
    assert command[2].startswith("exec blender -b")
    assert "import bpy" not in text
    assert command[-1].endswith("… (all of it: --json)")
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(drqueue("job", "7", "--json").out)["spec"]["layers"][0]["shell"] == layer.shell


def test_everything_that_was_given_is_shown(master: Peer, drqueue: Command) -> None:
    layer = LayerSpec(
        argv=("true",),
        cwd="~",
        needs=Needs(cores=2, memory_mb=50, machine_memory_mb=4096),
        env={"L": "a b"},
        pad=6,
        success_exit_codes=(0, 3),
    )
    spec = JobSpec(
        name="n",
        owner="ann",
        layers=(layer,),
        env={f"V{number}": str(number) for number in range(9)},
        mail_when_finished=True,
        delete_when_finished=True,
        lease_s=90,
    )
    known(master, spec, depends=(Depend(job=11), Depend(job=12, until="ended")))
    text = drqueue("job", "7").out
    assert field(text, "depends on") == ["11, 12:ended"]
    assert field(text, "at its end") == ["mail to ann, deleted when finished"]
    assert field(text, "lease") == ["1m30s"]
    first, of_layer = text.split("\n\n")
    assert field(first, "environment") == ["V0=0 V1=1 V2=2 V3=3 V4=4 V5=5 and 3 more"]
    assert field(of_layer, "environment") == ["L='a b'"]
    assert field(text, "needs") == ["2 cores, 50M, 4 GB machine"]
    assert field(text, "success") == ["exit status 0 or 3"]
    assert field(text, "pad") == ["6 digits"]
    assert field(text, "cwd") == ["~ (home of the slave's user)"]
    assert "params" not in text


def test_mail_goes_to_its_address_and_any_exit_status_is_named(master: Peer, drqueue: Command) -> None:
    layer = LayerSpec(argv=("true",), success_exit_codes="any", needs=Needs(machine_memory_mb=512))
    known(master, JobSpec(name="n", layers=(layer,), mail_when_finished=True, email="a@example.org"))
    text = drqueue("job", "7").out
    assert field(text, "at its end") == ["mail to a@example.org"]
    assert field(text, "success") == ["any exit status"]
    assert field(text, "needs") == ["1 core, 512 MB machine"]


def test_nothing_is_said_of_what_was_not_given(master: Peer, drqueue: Command) -> None:
    known(master, JobSpec(name="n", layers=(LayerSpec(argv=("true",), cwd="/c"),), email="a@example.org"))
    labels = {line.split("  ")[0] for line in drqueue("job", "7").out.splitlines()}
    assert not labels & {
        "kind",
        "params",
        "environment",
        "at its end",
        "success",
        "pad",
        "lease",
        "depends on",
    }
    assert "machine" not in drqueue("job", "7").out


def test_json_has_the_whole_job_under_stable_names(master: Peer, drqueue: Command) -> None:
    spec = JobSpec(name="n", layers=(LayerSpec(argv=("a",)),), params={"x": "1"}, kind="mine", env={"A": "B"})
    known(master, spec)
    found = json.loads(drqueue("job", "7", "--json").out)["spec"]
    assert set(found) == set(JobSpec.__struct_fields__)
    assert set(found["layers"][0]) == set(LayerSpec.__struct_fields__)
    assert (found["kind"], found["params"], found["env"]) == ("mine", {"x": "1"}, {"A": "B"})
    assert msgspec.convert(found, JobSpec) == spec


def test_a_pipe_gets_a_command_of_one_line_in_one_piece(master: Peer, drqueue: Command) -> None:
    command = "render " + " ".join(f"--option-{number}" for number in range(15))
    known(master, JobSpec(name="n", layers=(LayerSpec(shell=command),)))
    assert field(drqueue("job", "7").out, "command") == [command]


@pytest.mark.usefixtures("terminal")
def test_a_few_of_many_parameters_and_variables_are_shown(master: Peer, drqueue: Command) -> None:
    """Long values, too, take a line or three."""
    params = {f"p{number}": "x" * 1000 for number in range(99)}
    spec = JobSpec(
        name="n", layers=(LayerSpec(argv=("a",)),), kind="mine", params=params, env={"A": "y" * 50_000}
    )
    known(master, spec)
    text = drqueue("job", "7").out
    assert field(text, "params")[-1] == "and 75 more"
    assert len(text.splitlines()) < 100
    assert max(map(len, text.splitlines())) <= 80
    assert len(field(text, "environment")) == 1


@pytest.mark.parametrize("on_a_terminal", [True, False])
@given(
    text=st.text(st.sampled_from("ab é字\x1b\t\n"), max_size=300) | st.text(max_size=300),
    room=st.integers(38, 80),
    most=st.integers(1, 4),
)
def test_an_excerpt_fits_and_says_so_where_it_is_one(
    on_a_terminal: bool, text: str, room: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: on_a_terminal)
        lines = output.excerpt(text, room, most)
    assert len(lines) <= most
    assert all(line.isprintable() for line in lines)
    if on_a_terminal or len(lines) > 1:
        assert all(output.cells(line) <= room for line in lines)
    own = (output.clean(line.expandtabs(4)) for line in text.splitlines() if line.strip())
    whole, shown = "".join(own).replace(" ", ""), "".join(lines).replace(" ", "")
    if shown.endswith("…(allofit:--json)"):
        assert whole.startswith(shown.removesuffix("…(allofit:--json)"))
        assert len(shown) - len("…(allofit:--json)") < len(whole)
    else:
        assert shown == whole


def test_who_submitted_is_shown_where_the_owner_is_another(master: Peer, drqueue: Command) -> None:
    spec = JobSpec(name="n", layers=(LayerSpec(argv=("true",), frames="1-10", cwd="/c"),))
    known(master, spec, submitter="anna")
    assert field(drqueue("job", "7").out, "submitted by") == ["anna"]
    known(master, spec, submitter="ann")
    assert field(drqueue("job", "7").out, "submitted by") == [], "ann is the owner, too"


def test_viewers_see_a_job_without_what_it_runs(master: Peer, drqueue: Command) -> None:
    known(master, JobSpec(name="n", layers=(LayerSpec(shell="", argv=()),)), kind="blender")
    master.on[messages.GetSpec] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="not-allowed", text="that takes an artist"
    )
    for role in ("artist", "viewer"):
        master.on[messages.WhoAmI] = lambda _, asked, role=role: messages.You(
            rq=asked.rq, name="vera", role=role
        )
        said = drqueue("job", "7")
        assert (said.status, said.err) == (0, "")
        assert field(said.out, "command") == ["(not shown to viewers)"]
        assert field(said.out, "kind") == ["blender"]
        assert json.loads(drqueue("job", "7", "--json").out)["spec"] is None
    asked = sum(isinstance(each, messages.GetSpec) for each in master.heard)
    assert asked == 2, "a viewer does not ask: a refusal would stand in the master's audit"
