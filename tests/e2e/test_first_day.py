"""A first day with the farm: `drqueue up --slaves 2` in one terminal, every command in another.

The tests share one farm; each has jobs of its own and leaves the slaves as it found them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.client.cli.output import cells
from tests.e2e.helpers import Cli, Up, farm_up, on_terminal, wait_until

pytestmark = pytest.mark.slow
GATE = 'until test -e "$GATE"; do sleep 0.02; done; echo through'


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The farm: two slaves of two cores each."""
    with farm_up(tmp_path_factory.mktemp("first-day"), slaves=2, cores=2) as farm:
        yield farm


@pytest.fixture
def cli(up: Up) -> Cli:
    """The other terminal."""
    return up.cli


def gated(cli: Cli, gate: Path, *words: object) -> int:
    """A job whose frames run until a file appears."""
    return cli.submit("--env", f"GATE={gate}", *words, "--", GATE)


# -- submit ----------------------------------------------------------------------------------------------


def test_wait_tells_good_jobs_from_bad_ones(cli: Cli) -> None:
    """Exit status 0 only if every frame of every job is done; each job is named."""
    good = cli.submit("--frames", "1-3", "--", "true")
    other = cli.submit("--", "/bin/sh", "-c", "exit 0")
    bad = cli.submit("--retries", 0, "--frames", "1-2", "--", 'test "$DRQUEUE_FRAME" = 1')
    assert bad > other > good
    assert cli.run("wait", good, other).out == (
        f"job {good} finished: 3 of 3 frames done\njob {other} finished: 1 of 1 frame done\n"
    )
    said = cli.run("wait", good, bad, status=1)
    assert f"job {bad} finished: 1 of 2 frames done, 1 failed\n" in said.out
    frames = cli.frames(bad)
    assert (frames[1].state, frames[2].state, frames[2].code) == ("DONE", "FAILED", 1)


def test_submit_wait_prints_the_id_and_ends_as_the_job_did(cli: Cli) -> None:
    """The id alone on stdout, progress on stderr, 0 or 1."""
    said = cli.run("submit", "--wait", "--frames", "1-2", "--", "true")
    assert said.out.strip().isdecimal()
    assert "100%" in said.err
    said = cli.run("submit", "--wait", "--retries", 0, "--", "false", status=1)
    assert said.out.strip().isdecimal()
    assert "0 of 1 frame done, 1 failed" in said.err


def test_chunks_fill_their_placeholders_and_run_in_scratch(cli: Cli) -> None:
    """{start}, {end}, {frames}, {frame:03d}; --env reaches the frame; --cwd scratch is empty and its own."""
    job = cli.submit(
        *("--frames", "1-7", "--chunk", 3, "--env", "SHOT=a b", "--cwd", "scratch", "--"),
        *("sh", "-c", 'echo "{start} {end} {frames} {frame:03d} $SHOT $DRQUEUE_PADFRAMES"; ls; touch x'),
    )
    cli.done(job)
    logs = [cli.log(job, number) for number in (1, 5, 7)]
    assert logs == [
        "1 3 1-3 001 a b 0001 0002 0003\n",
        "4 6 4-6 004 a b 0004 0005 0006\n",
        "7 7 7 007 a b 0007\n",
    ]
    assert [(view.number, view.last) for view in cli.frames(job).values()] == [(1, 3), (4, 6), (7, 7)]


def test_commands_run_where_submit_was_typed_without_its_environment(cli: Cli) -> None:
    """The working directory is the submitter's, PATH the one `up` had; nothing else leaks in."""
    secret = Cli(cli.state_dir, cli.cwd, {"SECRET_TOKEN": "leaked"})
    job = secret.submit("--", "sh", "-c", 'pwd; echo "${SECRET_TOKEN-unset} $DRQUEUE_JOBNAME"; umask')
    cli.done(job)
    assert cli.log(job, 1) == f"{cli.cwd}\nunset sh\n0022\n"


def test_a_missing_output_is_a_failure_although_the_command_succeeded(cli: Cli) -> None:
    """--output is looked for after exit 0; the frame's note names what is missing."""
    words = ("--output", "pic_{frame:04d}.txt", "--retries", 0, "--frames", "1-2")
    job = cli.submit(*words, "--", 'test "$DRQUEUE_FRAME" = 2 || echo > pic_0001.txt; true')
    cli.wait(job)
    frames = cli.frames(job)
    assert frames[1].state == "DONE"
    assert (frames[2].state, frames[2].code, frames[2].reason) == ("FAILED", 0, "missing-output")
    assert "pic_0002.txt" in frames[2].text


def test_a_job_waits_for_the_one_that_it_depends_on(cli: Cli, tmp_path: Path) -> None:
    """--depend blocks frames until the other job is done, and `why` says so."""
    first = gated(cli, tmp_path / "gate")
    second = cli.submit("--depend", first, "--", "true")
    assert cli.frames(second)[1].state == "BLOCKED"
    assert f"job {first}" in cli.run("why", second, 1).out
    (tmp_path / "gate").touch()
    cli.done(second)
    ended, began = cli.frames(first)[1].ended_at, cli.frames(second)[1].started_at
    assert ended <= began


def test_wait_says_what_holds_a_job_up_and_goes_on_once_it_is_mended(cli: Cli, tmp_path: Path) -> None:
    """The other job's frame failed; it is requeued by its state, and both end well."""
    first = cli.submit("--retries", 0, "--", f"test -e {tmp_path}/mended")
    assert cli.run("wait", first, status=1).err.endswith(
        f"  frame 1: exit status 1\n  see drqueue frames {first} --state FAILED\n"
    )
    assert "printed nothing; it failed" in cli.run("log", first, 1).err
    second = cli.submit("--depend", first, "--", "true")
    said = tmp_path / "said"
    with cli.start("wait", second, err=said) as waiting:
        wait_until("the reason", lambda: f"does not go on: it waits for job {first}" in said.read_text())
        (tmp_path / "mended").touch()
        assert cli.run("frame", "requeue", first, "--state", "FAILED").sentence == "1 frame"
        assert waiting.finish().status == 0
    cli.done(first)
    assert "failed" in cli.run("attempts", first, 1).out


def test_a_job_from_a_file_has_layers(cli: Cli) -> None:
    """--file: two layers, the second after the first; frames are named LAYER:N."""
    (cli.cwd / "shot.toml").write_text(
        '[job]\nname = "shot"\n'
        '[[layer]]\nname = "render"\ncommand = "echo picture {frame} > p{frame}"\nframes = "1-2"\n'
        '[[layer]]\nname = "encode"\ncommand = ["cat", "p1", "p2"]\nafter = ["render"]\n'
    )
    job = cli.submit("--file", "shot.toml")
    cli.done(job)
    assert cli.run("log", job, "encode:1").out == "picture 1\npicture 2\n"


# -- jobs ------------------------------------------------------------------------------------------------


def test_stop_lets_running_frames_end_and_continue_goes_on(cli: Cli, tmp_path: Path) -> None:
    """STOPPED while frames wait; nothing new starts; nothing ran twice."""
    gate = tmp_path / "gate"
    job = gated(cli, gate, "--frames", "1-8")
    cli.until_states(job, dict.fromkeys(range(1, 5), "RUNNING"))
    cli.run("stop", job)
    assert cli.json("job", job)["state"] == "STOPPED"
    gate.touch()
    frames = cli.until_states(job, dict.fromkeys(range(1, 5), "DONE"))
    assert {frames[number].state for number in range(5, 9)} == {"WAITING"}
    cli.run("continue", job)
    cli.done(job)
    assert {view.attempt for view in cli.frames(job).values()} == {1}


def test_hard_stop_ends_running_frames_without_counting_a_failure(cli: Cli, tmp_path: Path) -> None:
    """They are WAITING again, requeued nowhere near; after `continue` the job ends well with --retries 0."""
    gate = tmp_path / "gate"
    job = gated(cli, gate, "--retries", 0)
    cli.until_states(job, {1: "RUNNING"})
    cli.run("hard-stop", job)
    assert cli.until_states(job, {1: "WAITING"})[1].requeued == 0
    gate.touch()
    cli.run("continue", job)
    cli.done(job)
    assert cli.frames(job)[1].attempt == 2


def test_rerun_renders_everything_again(cli: Cli) -> None:
    """A finished job is ACTIVE again and its frames have a second attempt."""
    job = cli.submit("--frames", "1-2", "--", "true")
    cli.done(job)
    cli.run("rerun", job)
    cli.done(job)
    assert [view.attempt for view in cli.frames(job).values()] == [2, 2]


def test_delete_ends_frames_and_forgets_the_job(cli: Cli, tmp_path: Path) -> None:
    """The command is gone from the machine, the id from the farm; ids are not used again."""
    pid_file = tmp_path / "pid"
    job = cli.submit("--", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 60")
    pid = int(wait_until("the frame's pid", lambda: pid_file.exists() and pid_file.read_text()))
    cli.run("delete", job)
    wait_until("the end of its process", lambda: not Path(f"/proc/{pid}").exists())
    sentence = cli.run("job", job, status=3).sentence
    assert sentence == f"drqueue: there is no job {job}"
    assert cli.submit("--", "true") == job + 1


def test_verbs_go_on_past_a_job_that_is_not_there(cli: Cli) -> None:
    """One sentence about it, status 3, and the others are done."""
    job = cli.submit("--stopped", "--", "true")
    said = cli.run("continue", 999_999, job, status=3)
    assert said.sentence == "drqueue: there is no job 999999"
    cli.done(job)


def test_set_changes_a_live_job(cli: Cli) -> None:
    """Priority and range of a job that waits."""
    job = cli.submit("--stopped", "--frames", "1-2", "--", "true")
    cli.run("set", job, "--priority", 900, "--frames", "1-4")
    view = cli.json("job", job)
    assert (view["priority"], view["counts"]["total"]) == (900, 4)
    cli.run("delete", job)


# -- frames ----------------------------------------------------------------------------------------------


def test_frame_kill_counts_and_the_last_one_fails_the_frame(cli: Cli, tmp_path: Path) -> None:
    """With --retries 1 the first kill makes it WAITING (and it runs again), the second FAILED."""
    job = gated(cli, tmp_path / "gate", "--retries", 1)
    cli.until_states(job, {1: "RUNNING"})
    cli.run("frame", "kill", job, 1)

    def second_attempt() -> bool:
        view = cli.frames(job)[1]
        return (view.state, view.attempt, view.requeued) == ("RUNNING", 2, 1)

    wait_until("the second attempt", second_attempt)
    cli.run("frame", "kill", job, 1)
    assert cli.until_states(job, {1: "FAILED"})[1].signal is not None


def test_frame_requeue_runs_it_once_more_after_this_run(cli: Cli, tmp_path: Path) -> None:
    """A running frame is not disturbed; it just comes again. A done one comes again at once."""
    gate = tmp_path / "gate"
    job = gated(cli, gate)
    cli.until_states(job, {1: "RUNNING"})
    cli.run("frame", "requeue", job, 1)
    gate.touch()
    cli.done(job)
    assert cli.frames(job)[1].attempt == 2
    assert cli.run("log", job, 1, "--attempt", 1).out == "through\n"
    cli.run("frame", "requeue", job, "1")
    cli.done(job)
    assert cli.frames(job)[1].attempt == 3


def test_frame_requeue_now_ends_the_running_attempt(cli: Cli, tmp_path: Path) -> None:
    """--now kills it; that is no failure."""
    gate = tmp_path / "gate"
    job = gated(cli, gate, "--retries", 0)
    cli.until_states(job, {1: "RUNNING"})
    cli.run("frame", "requeue", "--now", job, 1)
    wait_until("the second attempt", lambda: cli.frames(job)[1].attempt == 2)
    gate.touch()
    cli.done(job)


def test_frame_finish_makes_it_done_at_once(cli: Cli, tmp_path: Path) -> None:
    """Running ones are stopped, waiting ones never start; numbers outside the range are told."""
    job = gated(cli, tmp_path / "gate", "--frames", "1-9")
    cli.until_states(job, {1: "RUNNING"})
    said = cli.run("frame", "finish", job, "1-20")
    assert "11 of the numbers are not in the job's range" in said.err
    cli.done(job)
    assert {view.state for view in cli.frames(job).values()} == {"DONE"}


def test_log_follow_goes_on_to_the_end(cli: Cli, tmp_path: Path) -> None:
    """What is there comes at once, the rest as it is written, and then it ends by itself."""
    gate = tmp_path / "gate"
    job = cli.submit("--env", f"GATE={gate}", "--", f"echo before; {GATE}")
    with cli.start("log", "--follow", job, 1) as log:
        assert log.line() == "before\n"
        gate.touch()
        assert log.finish().out == "through\n"


def test_log_follow_goes_from_attempt_to_attempt(cli: Cli) -> None:
    """A frame that fails first and then succeeds: a line says where the second attempt begins."""
    job = cli.submit("--", 'echo "try $DRQUEUE_ATTEMPT"; case $DRQUEUE_ATTEMPT in */1) exit 3;; esac')
    cli.done(job)
    assert cli.log(job, 1) == f"try {job}/0/0/2\n"
    assert cli.run("log", "--attempt", 1, job, 1).out == f"try {job}/0/0/1\n"
    # Followed once it is over, it is the whole log of the latest attempt, and ends.
    assert cli.run("log", "--follow", job, 1).out == f"try {job}/0/0/2\n"


# -- slaves ----------------------------------------------------------------------------------------------


def test_a_disabled_slave_gets_no_frames_and_keeps_its_running_one(cli: Cli, tmp_path: Path) -> None:
    """disable is a drain; enable opens it again."""
    gate = tmp_path / "gate"
    job = gated(cli, gate, "--cores", 2, "--frames", "1-6")
    cli.until_states(job, {1: "RUNNING", 2: "RUNNING"})
    try:
        cli.run("slave", "disable", "s1")
        assert cli.slave("s1").state == "disabled"
        gate.touch()
        cli.done(job)
        frames = cli.frames(job)
        assert {frames[1].slave, frames[2].slave} == {"s1", "s2"}
        assert [view.slave for view in frames.values()].count("s1") == 1
    finally:
        cli.run("slave", "enable", "s1")
    assert cli.slave("s1").limits.enabled


def test_limits_are_set_asked_and_taken_back(cli: Cli) -> None:
    """slave set: cores, load, pools, autoenable; frames of a pool go only there."""
    words = ("--max-cpus", 1, "--max-load", "2.5", "--pools", "Default,special", "--autoenable", "22:30")
    cli.run("slave", "set", "s2", *words)
    try:
        limits = cli.slave("s2").limits
        assert (limits.max_cpus, limits.max_load, limits.autoenable) == (1, 2.5, "22:30")
        assert limits.pools == ("Default", "special")
        job = cli.submit("--pool", "special", "--frames", "1-3", "--", "true")
        cli.run("set", job, "--priority", 1)
        cli.run("slave", "set", "s2", "--max-load", "none")
        cli.done(job)
        assert {view.slave for view in cli.frames(job).values()} == {"s2"}
    finally:
        cli.run("slave", "set", "s2", "--max-cpus", "none", "--pools", "Default", "--autoenable", "off")
    limits = cli.slave("s2").limits
    assert (limits.max_cpus, limits.max_load, limits.autoenable) == (None, None, None)


def test_why_names_what_is_missing(cli: Cli) -> None:
    """A job that asks for more than any slave has, and one of a pool that nobody serves."""
    large = cli.submit("--cores", 100, "--", "true")
    assert "cores" in cli.run("why", large, 1).out
    nowhere = cli.submit("--pool", "nobody", "--", "true")
    assert "pool" in cli.run("why", nowhere).out
    assert cli.json("why", nowhere)[0]["code"]
    cli.run("delete", large, nowhere)


# -- how it looks ----------------------------------------------------------------------------------------


def test_everything_fits_eighty_columns(cli: Cli, tmp_path: Path) -> None:
    """Tables and bars on a terminal of 80 columns, with names as long as they get."""
    gate = tmp_path / "gate"
    name = "a very long name of a job, as they come from production " * 2
    words = ("--name", name[:120], "--frames", "100000-100007", "--output", "/nowhere/" + "x" * 80)
    job = gated(cli, gate, *words, "--retries", 0)
    cli.until_states(job, {100000: "RUNNING"})
    shown = {words: on_terminal(cli, *words) for words in (("jobs",), ("frames", job), ("slaves",))}
    gate.touch()
    shown["wait", job] = on_terminal(cli, "wait", job)
    shown["frames", job, "done"] = on_terminal(cli, "frames", job)
    shown["jobs", "done"] = on_terminal(cli, "jobs", "--all")
    shown["attempts", job] = on_terminal(cli, "attempts", job, 100000)
    for command, lines in shown.items():
        assert lines, command
        for line in lines:
            assert cells(line) <= 80, (command, line)
    assert "FAILED" in "".join(shown["frames", job, "done"])
    assert "x" * 60 in "".join(shown["frames", job, "done"])
    assert "FINISHED!" in "".join(shown["jobs", "done"])
    assert "RUNNING" in "".join(shown["frames", job])


def test_json_has_stable_names(cli: Cli) -> None:
    """People script against these; whole numbers are ids, absent things are null."""
    job = cli.json("submit", "--frames", "1-2", "--", "true")["id"]
    cli.done(job)
    view = cli.json("job", job)
    assert view.keys() >= {
        *("id", "name", "owner", "project", "state", "priority", "pool", "counts", "progress", "layers"),
        *("submitted_at", "started_at", "finished_at", "eta_at", "mean_frame_s", "cpu_s", "depends"),
    }
    assert view["counts"].keys() == {
        *("total", "waiting", "blocked", "assigned", "running", "done", "failed", "cancelled")
    }
    assert view["layers"][0].keys() >= {"name", "command", "frames", "chunk", "needs", "retries", "counts"}
    assert cli.json("frames", job)[0].keys() >= {
        *("job", "layer", "layer_name", "number", "last", "count", "state", "attempt", "requeued", "slave"),
        *("started_at", "ended_at", "code", "signal", "reason", "text", "progress", "cpu_s", "peak_mb"),
    }
    slave = cli.json("slaves")[0]
    assert slave.keys() >= {
        *("id", "name", "state", "linked", "cores", "memory_mb", "cores_used", "limits", "machine", "load"),
        *("running", "frames_done", "frames_failed"),
    }
    assert slave["limits"].keys() == {"enabled", "max_cpus", "max_load", "pools", "autoenable"}
    assert cli.json("farm").keys() >= {"farm", "epoch", "software", "jobs", "slaves", "alarm"}
    assert cli.json("wait", job)[0]["state"] == "FINISHED"
    assert cli.json("stop", job)[0].keys() == {"id", "count", "note"}


def test_a_slave_is_measured(cli: Cli) -> None:
    """Load and hardware are there soon after the start, not zeros."""

    def measured() -> bool:
        load = cli.slave("s1").load
        return load.memory_free_mb > 0 and load.disk_free_mb > 0

    wait_until("a report of load", measured, 20)
    machine = cli.slave("s1").machine
    assert machine.cores_logical >= 1
    assert machine.memory_mb > 0
