"""The original's tools against a real farm: what they print, letter by letter, and what then is so.

The tests share one farm; each deletes its jobs and leaves the slaves as it found them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import Cli, Said, Up, farm_up, wait_until

pytestmark = pytest.mark.slow
GATE = 'until test -e "$GATE"; do sleep 0.02; done; test "$DRQUEUE_FRAME" != 4'
"""A frame that runs until a file appears; the fourth one fails then."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The farm: two slaves of one core each, with programs of a test's own on their PATH."""
    folder = tmp_path_factory.mktemp("classic")
    (folder / "bin").mkdir()
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    with farm_up(folder, slaves=2, cores=1, PATH=path) as farm:
        yield farm


@pytest.fixture
def cli(up: Up) -> Iterator[Cli]:
    """The other terminal; no job is left at the end."""
    yield up.cli
    with up.cli.client() as client:
        for view in client.jobs(all=True):
            client.delete(view.id)
        wait_until("idle slaves", lambda: all(slave.cores_used == 0 for slave in client.slaves()))


def tool(cli: Cli, words: str, status: int = 0) -> Said:
    """`drqueue classic` with these words."""
    return cli.run("classic", *words.split(), status=status)


def gated(cli: Cli, gate: Path, *words: object) -> int:
    """A job of four frames, two of which run, until the gate is opened."""
    job = cli.submit("--env", f"GATE={gate}", "--frames", "1-4", "--retries", 0, *words, "--", GATE)
    cli.until_states(job, {1: "RUNNING", 2: "RUNNING", 3: "WAITING", 4: "WAITING"})
    return job


# -- cjob ------------------------------------------------------------------------------------------------


def test_cjob_controls_a_job(cli: Cli, tmp_path: Path) -> None:
    """Each operation says its words, does its work, and -t tells the status that follows."""
    job = gated(cli, tmp_path / "gate")
    assert tool(cli, f"cjob -t -j {job}") == Said(0, "Active\n", "")
    assert tool(cli, f"cjob -s -j {job}") == Said(0, f"Stopping job: {job}\n", "")
    assert tool(cli, f"cjob -t -j {job}") == Said(0, "Stopped\n", "")
    assert cli.frames(job)[1].state == "RUNNING"
    assert tool(cli, f"cjob -k -j {job}") == Said(0, f"Hard stopping job: {job}\n", "")
    cli.until_states(job, dict.fromkeys(range(1, 5), "WAITING"))
    assert tool(cli, f"cjob -t -j {job}") == Said(0, "Stopped\n", "")
    assert tool(cli, f"cjob -c -j {job}") == Said(0, f"Continue job: {job}\n", "")
    cli.until_states(job, {1: "RUNNING", 2: "RUNNING"})
    (tmp_path / "gate").touch()
    cli.wait(job)
    assert tool(cli, f"cjob -t -j {job}") == Said(0, "Finished\n", "")
    assert tool(cli, f"cjob -d -j {job}") == Said(0, f"Deleting job: {job}\n", "")
    assert tool(cli, f"cjob -t -j {job}", status=1) == Said(1, "", f"cjob: there is no job {job}\n")


def test_a_job_that_no_slave_may_run_is_waiting(cli: Cli) -> None:
    job = cli.submit("--pool", "nowhere", "--", "true")
    assert tool(cli, f"cjob -t -j {job}") == Said(0, "Waiting\n", "")


# -- ctask, requeue, jobfinfo --------------------------------------------------------------------------------


def test_frames_are_finished_requeued_and_shown(cli: Cli, tmp_path: Path) -> None:
    """The four words for a status; finishing a waiting frame; requeueing one that is finished or failed."""
    job = gated(cli, tmp_path / "gate")
    assert tool(cli, f"jobfinfo -s -f 1 -j {job}") == Said(0, "Running\n", "")
    assert tool(cli, f"jobfinfo -s -f 3 -j {job}") == Said(0, "Waiting\n", "")
    assert tool(cli, f"jobfinfo -f 3 -j {job}") == Said(0, "OP_NONE\n", "")
    assert tool(cli, f"ctask -d -j {job} -f 3") == Said(
        0, f"Setting frame finished: 3,{job}\nFrame set finished successfully\n", ""
    )
    assert tool(cli, f"jobfinfo -s -f 3 -j {job}") == Said(0, "Finished\n", "")
    assert tool(cli, f"jobfinfo -r -f 3 -j {job}") == Said(0, "0\n", "")
    assert tool(cli, f"ctask -r -j {job} -f 3") == Said(
        0, f"Requeueing frame: 3,{job}\nFrame requeued successfully\n", ""
    )
    assert tool(cli, f"jobfinfo -s -f 3 -j {job}") == Said(0, "Waiting\n", "")
    assert tool(cli, f"jobfinfo -r -f 3 -j {job}") == Said(0, "1\n", "")
    (tmp_path / "gate").touch()
    cli.wait(job)
    assert tool(cli, f"jobfinfo -s -f 4 -j {job}") == Said(0, "Error\n", "")
    (tmp_path / "gate").unlink()
    before = cli.frames(job)[4].requeued
    assert tool(cli, f"requeue -f 4 -j {job}") == Said(0, "Frame requeued successfully\n", "")
    cli.until_states(job, {4: "RUNNING"})
    assert tool(cli, f"jobfinfo -r -f 4 -j {job}") == Said(0, f"{before + 1}\n", "")


def test_any_number_of_a_block_names_it(cli: Cli) -> None:
    job = cli.submit("--frames", "1-6", "--chunk", 3, "--stopped", "--", "true")
    tool(cli, f"ctask -d -j {job} -f 5")
    assert tool(cli, f"jobfinfo -s -f 4 -j {job}").out == "Finished\n"
    assert tool(cli, f"jobfinfo -s -f 1 -j {job}").out == "Waiting\n"


# -- lists -----------------------------------------------------------------------------------------------


def test_jobs_are_listed_counted_and_shown(cli: Cli) -> None:
    """Ids ascend; one job is shown with the variables that it has, or with none."""
    assert tool(cli, "jobinfo -n") == Said(0, "0\n", "")
    assert tool(cli, "jobinfo -l") == Said(0, "", "")
    first = cli.submit("--stopped", "--name", "a shot", "--env", "SCENE=a b=c", "--env", "N=2", "--", "true")
    second = cli.submit("--stopped", "--name", "b", "--", "true")
    assert tool(cli, "jobinfo -n") == Said(0, "2\n", "")
    assert tool(cli, "jobinfo -l") == Said(0, f"ID: {first} Name: a shot\nID: {second} Name: b\n", "")
    shown = tool(cli, f"jobinfo -j {first}").out.splitlines()
    assert shown[:2] == [f"ID: {first} Name: a shot", "Environment variables"]
    assert sorted(shown[2:]) == ["N=2", "SCENE=a b=c"]
    assert tool(cli, f"jobinfo -j {second}") == Said(0, f"ID: {second} Name: b\nEnvironment variables\n", "")


def test_computers_are_listed_counted_and_shown(cli: Cli) -> None:
    with cli.client() as client:
        slaves = sorted(client.slaves(), key=lambda slave: slave.id)
    lines = [f"ID: {slave.id} Name: {slave.name}\n" for slave in slaves]
    assert len(lines) == 2
    assert tool(cli, "compinfo -n") == Said(0, "2\n", "")
    assert tool(cli, "compinfo -l") == Said(0, "".join(lines), "")
    assert tool(cli, f"compinfo -d -c {slaves[1].id}") == Said(0, lines[1], "")


# -- blockhost ---------------------------------------------------------------------------------------------


def test_computers_are_blocked_listed_and_unblocked(cli: Cli) -> None:
    """By id in, by position out; the job's frames keep away in between."""
    job = cli.submit("--stopped", "--frames", "1-4", "--", "true")
    with cli.client() as client:
        one, two = sorted(client.slaves(), key=lambda slave: slave.id)
    assert tool(cli, f"blockhost -l -j {job}") == Said(0, "", "")
    for slave in (one, two):
        assert tool(cli, f"blockhost -a {slave.id} -j {job}") == Said(0, "Host blocked successfully\n", "")
    assert tool(cli, f"blockhost -l -j {job}") == Said(0, f"0\t{one.name}\n1\t{two.name}\n", "")
    said = tool(cli, f"blockhost -d 2 -j {job}", status=1)
    assert (said.out, said.sentence) == ("", f"blockhost: job {job} has 2 blocked hosts")
    assert tool(cli, f"blockhost -d 0 -j {job}") == Said(0, "Host unblocked successfully\n", "")
    assert tool(cli, f"blockhost -l -j {job}") == Said(0, f"0\t{two.name}\n", "")
    tool(cli, f"cjob -c -j {job}")
    assert {frame.slave for frame in cli.done(job).values()} == {one.name}
    assert tool(cli, f"blockhost -d 0 -j {job}") == Said(0, "Host unblocked successfully\n", "")
    assert tool(cli, f"blockhost -l -j {job}") == Said(0, "", "")


# -- sendjob -----------------------------------------------------------------------------------------------


def test_a_command_is_sent_and_rendered(cli: Cli, tmp_path: Path) -> None:
    """Each frame calls it with its number; its words go to the frame's log."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    render = cli.cwd / "render me.sh"
    render.write_text(f'#!/bin/sh\necho "frame $1"\n: > "{tmp_path}/pic $1"\n')
    render.chmod(0o755)
    here = Cli(cli.state_dir, cli.cwd, {"DRQUEUE_TMP": str(scripts)})
    said = here.run("classic", "sendjob", "-t", "general", "-f", "1:5:2", "render me.sh")
    assert said == Said(0, "", "Job sent successfuly to the queue\n")
    line = tool(cli, "jobinfo -l").out
    assert line.endswith(" Name: render me.sh\n")
    job = int(line.split()[1])
    frames = cli.done(job)
    assert sorted(frames) == [1, 3, 5]
    assert sorted(path.name for path in tmp_path.glob("pic *")) == ["pic 1", "pic 3", "pic 5"]
    assert "frame 3\n" in cli.log(job, 3)
    assert tool(cli, f"cjob -t -j {job}").out == "Finished\n"


def test_a_file_is_sent_and_rendered(cli: Cli, tmp_path: Path) -> None:
    """One of type pixie; a program of the renderer's name writes down how it is called."""
    program = cli.state_dir.parent / "bin" / "rndr"
    program.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/calls"\ntest "$2" != 3\n')
    program.chmod(0o755)
    file = tmp_path / "job"
    file.write_text("ann\nbeach\n1\n3\n1\n/s/a b.rib\n")
    here = Cli(cli.state_dir, cli.cwd, {"DRQUEUE_TMP": str(tmp_path)})
    said = here.run("classic", "sendjob", "-t", "pixie", file)
    assert said == Said(0, "", "Job sent successfuly to the queue\n")
    job = int(tool(cli, "jobinfo -l").out.split()[1])
    counts = cli.wait(job).counts
    assert (counts.done, counts.failed) == (2, 1)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls.count("-f 1 /s/a b.rib") == 1
    assert calls.count("-f 3 /s/a b.rib") == 4
    assert "Requeueing frame..." in cli.log(job, 3)
    assert tool(cli, f"jobfinfo -s -f 3 -j {job}").out == "Error\n"


# -- what there is not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "out", "sentence"),
    [
        ("cjob -s -j 4711", "Stopping job: 4711\n", "cjob: there is no job 4711"),
        ("cjob -k -j 4711", "Hard stopping job: 4711\n", "cjob: there is no job 4711"),
        ("cjob -d -j 4711", "Deleting job: 4711\n", "cjob: there is no job 4711"),
        ("cjob -c -j 4711", "Continue job: 4711\n", "cjob: there is no job 4711"),
        ("ctask -d -j 4711 -f 1", "Setting frame finished: 1,4711\n", "ctask: there is no job 4711"),
        ("ctask -r -j 4711 -f 1", "Requeueing frame: 1,4711\n", "ctask: there is no job 4711"),
        ("requeue -j 4711 -f 1", "", "requeue: there is no job 4711"),
        ("jobinfo -j 4711", "", "jobinfo: there is no job 4711"),
        ("jobfinfo -s -j 4711 -f 1", "", "jobfinfo: there is no job 4711"),
        ("compinfo -d -c 4711", "", "compinfo: there is no computer 4711"),
        ("blockhost -a 0 -j 4711", "", "blockhost: there is no job 4711"),
        ("blockhost -d 0 -j 4711", "", "blockhost: there is no job 4711"),
        ("blockhost -l -j 4711", "", "blockhost: there is no job 4711"),
    ],
)
def test_what_does_not_exist_is_one_sentence_and_status_1(
    cli: Cli, words: str, out: str, sentence: str
) -> None:
    said = tool(cli, words, status=1)
    assert (said.out, said.sentence) == (out, sentence)


def test_a_frame_or_computer_that_does_not_exist_is_named(cli: Cli) -> None:
    job = cli.submit("--stopped", "--frames", "1-9x2", "--", "true")
    for words in ("jobfinfo -s", "jobfinfo -r", "requeue", "ctask -d", "ctask -r"):
        for frame in (0, 2, 10):
            said = tool(cli, f"{words} -f {frame} -j {job}", status=1)
            assert f"{frame}" in said.sentence
            assert f"job {job}" in said.sentence
    said = tool(cli, f"blockhost -a 4711 -j {job}", status=1)
    assert said.sentence == "blockhost: there is no computer 4711"
