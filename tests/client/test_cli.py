"""The command line against a scripted master: what it sends, what it prints, how it exits."""

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from drqueue.client.cli import main
from drqueue.client.cli.common import START_ONE
from drqueue.client.cli.main import COMMANDS, cli
from drqueue.client.cli.submit import default_name, split_command
from drqueue.proto import messages
from drqueue.proto.link_messages import Rejected
from drqueue.proto.model import Depend, JobChange, LimitsChange, Needs
from drqueue.proto.views import Counts
from tests.client.conftest import Command, Said
from tests.client.peer import Peer, job_view


def one(peer: Peer, kind: type) -> Any:
    """The only request of a kind that was heard."""
    found = [message for message in peer.heard if type(message) is kind]
    assert len(found) == 1
    return found[0]


# -- submit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "argv", "shell"),
    [
        (("/bin/true",), ("/bin/true",), ""),
        (("blender", "-b", "a b.blend"), ("blender", "-b", "a b.blend"), ""),
        (("echo hello",), (), "echo hello"),
        (("my program", "x"), ("my program", "x"), ""),
        (("echo\thello",), (), "echo\thello"),
        (("a", "|", "b"), ("a", "|", "b"), ""),
        *(((f"x{char}",), (), f"x{char}") for char in "|&;<>()$`\"'*?[~"),
        (("render_{frame:04d}",), ("render_{frame:04d}",), ""),
        (("a\\b",), ("a\\b",), ""),
        (("",), ("",), ""),
    ],
)
def test_the_words_of_a_command(words: tuple[str, ...], argv: tuple[str, ...], shell: str) -> None:
    assert split_command(words) == (argv, shell)


def test_submit_prints_the_id_alone(master: Peer, drqueue: Command) -> None:
    assert drqueue("submit", "--", "true") == Said(0, "42\n", "")
    spec = one(master, messages.Submit).spec
    (layer,) = spec.layers
    assert (layer.argv, layer.shell, layer.frames) == (("true",), "", "1")
    assert spec.name == "true"
    assert spec.owner == pwd.getpwuid(os.getuid()).pw_name
    assert os.path.samefile(layer.cwd, ".")
    assert layer.needs == Needs()


def test_submit_sends_what_its_options_say(master: Peer, drqueue: Command) -> None:
    options = (
        "--name N --frames 1-9x2 --chunk 3 --priority 7 --pool P --cores 2 --memory 300 --retries 0"
        " --timeout 5 --depend 1 --depend 2 --env A=1 --env B=x=y --cwd scratch"
        " --output o_{frame}.png --output p --project S --max-running 4 --max-per-slave 2"
        " --on-unreachable hold --stopped --os linux"
    )
    said = drqueue("submit", *options.split(), "--", "render", "--name", "{frame}")
    assert said == Said(0, "42\n", "")
    spec = one(master, messages.Submit).spec
    (layer,) = spec.layers
    assert layer.argv == ("render", "--name", "{frame}")
    assert (layer.frames, layer.chunk, layer.retries, layer.timeout_s) == ("1-9x2", 3, 0, 5)
    assert layer.needs == Needs(cores=2, memory_mb=300, os=("linux",))
    assert (layer.cwd, layer.outputs) == ("scratch", ("o_{frame}.png", "p"))
    assert (spec.name, spec.priority, spec.pool, spec.project) == ("N", 7, "P", "S")
    assert spec.depends == (Depend(job=1), Depend(job=2))
    assert spec.env == {"A": "1", "B": "x=y"}
    assert (spec.max_running, spec.max_per_slave, spec.on_unreachable, spec.stopped) == (4, 2, "hold", True)


def test_submit_keeps_the_name_by_which_a_folder_was_entered(
    master: Peer, drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", str(tmp_path / "link"))
    drqueue("submit", "--", "true")
    assert one(master, messages.Submit).spec.layers[0].cwd == str(tmp_path / "link")
    master.heard.clear()
    drqueue("submit", "--cwd", "sub", "--", "true")
    assert one(master, messages.Submit).spec.layers[0].cwd == str(tmp_path / "link" / "sub")
    master.heard.clear()
    monkeypatch.setenv("PWD", "/")
    drqueue("submit", "--", "true")
    assert one(master, messages.Submit).spec.layers[0].cwd == str(tmp_path / "real")


def test_submit_reads_a_job_file_and_options_override_the_job(
    master: Peer, drqueue: Command, tmp_path: Path
) -> None:
    path = tmp_path / "j.toml"
    path.write_text('[job]\nname = "a"\npriority = 3\nenv = {X = "1"}\n[[layer]]\ncommand = ["true"]\n')
    assert drqueue("submit", "--file", str(path), "--priority", "9", "--env", "Y=2").out == "42\n"
    spec = one(master, messages.Submit).spec
    assert (spec.name, spec.priority, spec.env) == ("a", 9, {"X": "1", "Y": "2"})


def test_submit_says_what_the_master_has_to_say_on_stderr(master: Peer, drqueue: Command) -> None:
    master.on[messages.Submit] = lambda _, asked: messages.Submitted(rq=asked.rq, job=1, note="take care")
    assert drqueue("submit", "--", "true") == Said(0, "1\n", "take care\n")


def test_submit_and_wait_is_ok_only_if_every_frame_is_done(master: Peer, drqueue: Command) -> None:
    said = drqueue("submit", "--wait", "--", "true")
    assert (said.status, said.out) == (0, "42\n")
    counts = Counts(total=10, done=9, failed=1)
    master.on[messages.GetJob] = lambda _, asked: messages.Job(
        rq=asked.rq, job=job_view(42, "FINISHED", counts=counts), layers=()
    )
    said = drqueue("submit", "--wait", "--", "true")
    assert (said.status, said.out) == (1, "42\n")
    assert "9 of 10 frames done, 1 failed" in said.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "a command is missing"),
        ("--frames 1- -- true", "layer 'main'"),
        ("--kind maya -- true", "either a kind's parameters (--set) or a COMMAND"),
        ("--set a=b -- true", "either a kind's parameters (--set) or a COMMAND"),
        ("--env novalue -- true", "'novalue' is not of the form NAME=VALUE"),
        ("--env 1x=2 -- true", "'1x' is no name for an environment variable"),
        ("--priority high -- true", "'high' is not a whole number from 0 to 4294967295"),
        ("--priority 4294967296 -- true", "'4294967296' is not a whole number from 0 to"),
        ("--file x.toml -- true", "either --file or a COMMAND"),
        ("--file x.toml --frames 1-3", "--frames is a layer's"),
        ("--file x.toml", "x.toml: cannot be read"),
        ("--nonsense -- true", "no such option"),
        ("--cwd '' --output '' -- ''", "the command is empty"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence_and_status_2(
    master: Peer, drqueue: Command, words: str, sentence: str
) -> None:
    import shlex

    said = drqueue("submit", *shlex.split(words))
    assert said.status == 2
    assert said.out == ""
    assert sentence in said.err
    assert said.err.startswith("drqueue: ")
    assert said.err.count("\n") == 1
    assert "Submit" not in master.kinds()


# -- other commands -----------------------------------------------------------------------------------------


def test_jobs_are_a_table_or_json_with_the_views_names(master: Peer, drqueue: Command) -> None:
    table = drqueue("jobs").out.splitlines()
    assert table[0].split() == ["ID", "NAME", "OWNER", "STATE", "PRIO", "PROGRESS", "RUN", "FAIL", "ETA"]
    assert table[1].split()[:5] == ["1", "job1", "ann", "ACTIVE", "500"]
    found = json.loads(drqueue("jobs", "--all", "--owner", "ann", "--json").out)
    assert [view["id"] for view in found] == [1, 2]
    assert set(found[0]) == set(type(job_view()).__struct_fields__)
    last = master.heard[-1]
    assert isinstance(last, messages.ListJobs)
    assert (last.all, last.owner) == (True, "ann")
    assert drqueue("--json", "jobs").out == drqueue("jobs", "--json").out


def test_names_that_would_steer_the_terminal_are_shown_escaped(master: Peer, drqueue: Command) -> None:
    master.on[messages.ListJobs] = lambda _, asked: messages.Jobs(
        rq=asked.rq, jobs=(job_view(1, name="a\x1b[31m\nb"),)
    )
    said = drqueue("jobs")
    assert "\x1b" not in said.out
    assert len(said.out.splitlines()) == 2
    assert r"a\x1b[31m\nb" in said.out


def test_a_job_is_shown_with_its_layers(master: Peer, drqueue: Command) -> None:
    said = drqueue("job", "7")
    for part in ("job7", "ann", "FINISHED", "layer", "main", "2 cores, 50M", "/c"):
        assert part in said.out
    found = json.loads(drqueue("job", "7", "--json").out)
    assert found["id"] == 7
    assert found["layers"][0]["needs"] == {
        "cores": 2,
        "memory_mb": 50,
        "os": [],
        "machine_memory_mb": 0,
        "gpus": 0,
        "gpu_memory_mb": 0,
        "disk_mb": 0,
        "amounts": {},
        "tags": [],
        "where": "",
        "alternatives": [],
    }


def test_frames_are_listed_or_streamed_as_json(master: Peer, drqueue: Command) -> None:
    lines = drqueue("frames", "3").out.splitlines()
    assert lines[1].split()[:2] == ["1", "DONE"]
    assert "exit 1" in lines[2]
    assert [view["number"] for view in json.loads(drqueue("frames", "3", "--json").out)] == [1, 2]
    drqueue("frames", "3", "--layer", "main", "--state", "failed")
    last = [message for message in master.heard if isinstance(message, messages.ListFrames)][-1]
    assert (last.layer, last.states) == ("main", ("FAILED",))
    master.on[messages.ListFrames] = lambda _, asked: messages.Frames(rq=asked.rq, frames=())
    assert json.loads(drqueue("frames", "3", "--json").out) == []


@pytest.mark.parametrize("verb", ["stop", "hard-stop", "continue", "rerun", "delete"])
def test_verbs_reach_every_job_that_was_named(master: Peer, drqueue: Command, verb: str) -> None:
    said = drqueue(verb, "1", "999", "2")
    assert said == Said(3, "", "drqueue: there is no job 999\n")
    sent = [(message.job, message.verb) for message in master.heard if isinstance(message, messages.JobVerb)]
    assert sent == [(1, verb), (999, verb), (2, verb)]
    assert json.loads(drqueue(verb, "1", "--json").out) == [{"id": 1, "count": 3, "note": ""}]


@pytest.mark.parametrize(
    ("words", "layer", "frames", "verb", "now"),
    [
        ("kill 1 3", "", "3", "kill", False),
        ("requeue 1 1-10x2 --now", "", "1-10x2", "requeue", True),
        ("requeue 1 1-10:3", "", "1-10:3", "requeue", False),
        ("finish 1 comp:4,5", "comp", "4,5", "finish", False),
        ("finish 1 -- -3--1", "", "-3--1", "finish", False),
        ("reset 1 render:2", "render", "2", "reset-requeued", False),
        ("next 1 render:9,3-5", "render", "9,3-5", "next", False),
    ],
)
def test_frame_verbs(
    master: Peer, drqueue: Command, words: str, layer: str, frames: str, verb: str, now: bool
) -> None:
    assert drqueue("frame", *words.split()).status == 0
    sent = one(master, messages.FrameVerb)
    assert (sent.job, sent.layer, sent.frames, sent.verb, sent.now) == (1, layer, frames, verb, now)


def test_finish_of_running_frames_alone(master: Peer, drqueue: Command) -> None:
    assert drqueue("frame", "finish", "1", "1-9", "--running").status == 0
    assert one(master, messages.FrameVerb).running


def test_set_changes_what_is_named_and_nothing_else(master: Peer, drqueue: Command) -> None:
    assert drqueue("set", "3", "--priority", "9", "--frames", "1-5", "--no-depend").status == 0
    assert one(master, messages.ChangeJob).change == JobChange(priority=9, frames="1-5", depends=())
    master.heard.clear()
    assert drqueue("set", "3", "--cores", "4", "--max-running", "0").status == 0
    change = one(master, messages.ChangeJob).change
    assert change == JobChange(max_running=0, needs=Needs(cores=4, memory_mb=50))
    assert drqueue("set", "3").status == 2


def test_slaves_and_one_slave(master: Peer, drqueue: Command) -> None:
    assert drqueue("slaves").out.splitlines()[1].split()[:4] == ["0", "s1", "idle", "0/4"]
    assert json.loads(drqueue("slaves", "--json").out)[0]["limits"]["enabled"] is True
    assert "s9 (0)" in drqueue("slave", "s9").out
    assert json.loads(drqueue("slave", "s9", "--json").out)["name"] == "s9"
    assert drqueue("slave", "show", "enable").out.startswith("slave")


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("enable s1", LimitsChange(enabled=True)),
        ("disable s1", LimitsChange(enabled=False)),
        ("set s1 --max-cpus 3 --max-load 1.5", LimitsChange(max_cpus=3, max_load=1.5)),
        ("set s1 --max-cpus none --autoenable off", LimitsChange(max_cpus=None, autoenable=None)),
        ("set s1 --pools a,b --autoenable 7:30", LimitsChange(pools=("a", "b"), autoenable="7:30")),
    ],
)
def test_slave_limits(master: Peer, drqueue: Command, words: str, change: LimitsChange) -> None:
    assert drqueue("slave", *words.split()).status == 0
    sent = one(master, messages.SetLimits)
    assert (sent.slave, sent.change) == ("s1", change)


@pytest.mark.parametrize("verb", ["forget", "declare-dead"])
def test_slave_verbs(master: Peer, drqueue: Command, verb: str) -> None:
    assert drqueue("slave", verb, "s1").status == 0
    sent = one(master, messages.SlaveVerb)
    assert (sent.slave, sent.verb) == ("s1", verb)


def test_why_and_farm(master: Peer, drqueue: Command) -> None:
    assert drqueue("why", "3").out == "it is stopped\n"
    assert json.loads(drqueue("why", "3", "comp:7", "--json").out) == [
        {"code": "stopped", "text": "it is stopped", "count": 0, "name": "", "until_at": 0}
    ]
    last = master.heard[-1]
    assert isinstance(last, messages.Why)
    assert (last.job, last.layer, last.number) == (3, "comp", 7)
    assert "1 of 4 in use" in drqueue("farm").out
    assert json.loads(drqueue("farm", "--json").out)["epoch"] == 3


def test_wait_says_how_each_job_ended(master: Peer, drqueue: Command) -> None:
    said = drqueue("wait", "1", "2")
    assert said.status == 0
    assert said.out.splitlines()[0] == "job 1 finished: 10 of 10 frames done"
    assert drqueue("wait", "999").status == 3
    assert [view["id"] for view in json.loads(drqueue("wait", "1", "--json").out)] == [1]


# -- errors and the rest ---------------------------------------------------------------------


def test_no_master_is_one_sentence_and_status_69(drqueue: Command, tmp_path: Path) -> None:
    said = drqueue("--state-dir", str(tmp_path), "jobs")
    assert said == Said(69, "", f"drqueue: no master answers at unix:{tmp_path}/master.sock ({START_ONE})\n")
    assert drqueue("jobs", "--master", f"unix:{tmp_path}/x").status == 69
    said = drqueue("jobs", "--master", "node7:1234")
    assert (said.status, "up`" in said.err, ") (" in said.err) == (3, False, False)
    assert said.err.startswith("drqueue: there is no login for node7:1234 in ")
    # It is there, and no master: another one would not help.
    (tmp_path / "loop").symlink_to("loop")
    said = drqueue("jobs", "--master", f"unix:{tmp_path}/loop")
    assert (said.status, "up`" in said.err, ") (" in said.err) == (69, False, False)
    assert drqueue("jobs", "--master", "not an address").status == 2


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("hostname; sleep 1",), "hostname"),
        (("/usr/bin/render -x 1",), "render"),
        (("(cd x && blender -b)",), "cd"),
        (("'my-tool' | tee log",), "my-tool"),
        (("g++", "a.cc"), "g++"),
        (("/opt/my tool/run;1", "x"), "run;1"),
        ((";",), "job"),
    ],
)
def test_a_job_is_named_after_its_program(words: tuple[str, ...], name: str) -> None:
    assert default_name(words) == name


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("no-such-job", 3),
        ("no-such-slave", 3),
        ("ambiguous-slave", 3),
        ("not-allowed", 3),
        ("bad-range", 2),
        ("bad-state", 1),
        ("disk-full", 1),
        ("internal", 1),
    ],
)
def test_refusals_have_their_exit_status(master: Peer, drqueue: Command, code: str, status: int) -> None:
    master.on[messages.GetJob] = lambda _, asked: messages.Refusal(rq=asked.rq, code=code, text="no")
    assert drqueue("job", "1") == Said(status, "", "drqueue: no\n")


def test_an_old_client_is_told_to_upgrade(master: Peer, drqueue: Command) -> None:
    master.reject = Rejected(code="version", text="upgrade the client")
    assert drqueue("jobs") == Said(1, "", "drqueue: upgrade the client\n")


@pytest.mark.parametrize("words", [(), ("slave",), ("frame",)])
def test_no_command_at_all_shows_the_help_on_stderr(drqueue: Command, words: tuple[str, ...]) -> None:
    said = drqueue(*words)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("Usage: drqueue")


@pytest.mark.parametrize(
    "words", ["frob", "jobs --frob", "job", "job x", "job -1", "log 1 x", "frame kill 1 x"]
)
def test_wrong_usage_is_one_sentence_and_status_2(drqueue: Command, words: str) -> None:
    said = drqueue(*words.split())
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("drqueue: ")
    assert said.err.count("\n") == 1


def test_an_interrupt_is_status_130(drqueue: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.cli, "main", interrupted)
    assert drqueue("jobs").status == 130


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, those in groups too."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner, each in command.commands.items():
                yield f"{name} {inner}", each


def test_every_command_has_json_and_help(drqueue: Command) -> None:
    for name, command in commands():
        if not isinstance(command, click.Group):
            options = {flag for option in command.params for flag in option.opts}
            assert {"--json", "--master", "--state-dir"} <= options, name
        said = drqueue(*name.split(), "--help")
        assert said.status == 0, name
        assert "Usage: drqueue" in said.out


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    for name, command in commands():
        if name in COMMANDS:
            assert command.short_help == COMMANDS[name].help, name
            assert command.name == name


def test_the_interface_that_people_script_against() -> None:
    """Names that must not move."""
    found = dict(commands())
    names = (
        "up, demo, submit, jobs, job, frames, slaves, slave, log, wait, why, stop, hard-stop, continue, "
        "rerun, delete, frame, frame kill, frame requeue, frame finish, slave enable, slave disable, "
        "slave forget, slave declare-dead, slave set, farm, farm resume"
    )
    for name in names.split(", "):
        assert name in found
    wanted = {
        "submit": "--name --frames --chunk --priority --pool --cores --memory --retries --timeout --depend"
        " --env --cwd --output --kind --set --file --wait",
        "jobs": "--all",
        "log": "--follow --attempt",
        "up": "--slaves --cores --state-dir",
        "slave set": "--max-cpus --max-load --pools --autoenable",
        "frame requeue": "--now",
        "demo": "--renderer --frames --size --output",
    }
    for name, flags in wanted.items():
        assert set(flags.split()) <= {flag for option in found[name].params for flag in option.opts}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(drqueue: Command, shell: str) -> None:
    said = drqueue("completion", shell)
    assert said.status == 0
    assert "_DRQUEUE_COMPLETE" in said.out
