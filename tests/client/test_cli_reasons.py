"""Why frames failed, and why jobs do not go on: said wherever somebody looks."""

import json
from typing import Any

import click
import pytest

from drqueue.client import asking, entrance, link
from drqueue.client.cli import output, wait
from drqueue.client.cli.common import _OTHER_WORDS, DURATION, MEMORY
from drqueue.client.cli.frames import note
from drqueue.client.cli.main import COMMANDS, cli
from drqueue.client.cli.output import Cell, Column, Table, cells, wrapped
from drqueue.client.cli.words import ending, failures, many, runs
from drqueue.proto import messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from drqueue.proto.views import AttemptView, Counts, Reason
from tests.client.conftest import LAYER, Command
from tests.client.peer import Peer, frame_view, job_view

LONG = "the working directory /projects/a/rather/long/path does not exist on this node, and never did"


@pytest.fixture
def broken(master: Peer) -> Peer:
    """A master whose jobs are finished with 3 of 10 frames failed and 1 cancelled."""
    view = job_view(1, "FINISHED", counts=Counts(total=10, done=6, failed=3, cancelled=1))
    master.on[messages.GetJob] = lambda _, asked: messages.Job(rq=asked.rq, job=view, layers=(LAYER,))
    master.on[messages.ListJobs] = lambda _, asked: messages.Jobs(rq=asked.rq, jobs=(view,))
    why = {"reason": "no-cwd", "text": LONG, "requeued": 3, "slave": "render-node-000017"}
    failed = tuple(frame_view(n, "FAILED", **why) for n in (3, 4, 7))
    master.on[messages.ListFrames] = lambda _, asked: messages.Frames(rq=asked.rq, frames=failed)
    return master


def terminal(monkeypatch: pytest.MonkeyPatch, *streams: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in streams:
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)


# -- failed frames -----------------------------------------------------------------------------------------


def test_a_pipe_gets_the_whole_reason_in_the_row(broken: Peer, drqueue: Command) -> None:
    lines = drqueue("frames", "1").out.splitlines()
    assert len(lines) == 4
    assert lines[1].endswith(f"{LONG}, tried again 3 times")
    assert " render-node-000017 " in lines[1]  # nor does the reason take other columns' room


def test_a_terminal_gets_it_below_the_row_and_once_for_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, "stdout")
    table = Table(Column("N", right=True), Column("NAME"), Column("NOTE", least=10, whole=True))
    rows = [
        (number, "x" * 30, Cell(text, below=True))
        for number, text in (("1", LONG), ("2", LONG), ("3", "short"), ("4", LONG))
    ]
    lines = table.lines(rows)
    assert all(cells(line) <= 80 for line in lines)
    assert [line.split()[-1] for line in lines if line[0] != " "] == [
        "NOTE",
        "below",
        "above",
        "short",
        "below",
    ]
    assert " ".join(" ".join(line.split()) for line in lines if line.startswith("    ")) == f"{LONG} {LONG}"


@pytest.mark.parametrize("text", [LONG, "x" * 300, "日本" * 60, "a " * 200, ""])
def test_wrapped_lines_fit_and_hold_everything(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = wrapped(text, "  ")
    assert all(line.startswith("  ") and cells(line) <= 80 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_finished_with_failures_is_not_finished_in_any_view(broken: Peer, drqueue: Command) -> None:
    head, row = drqueue("jobs", "--all").out.splitlines()
    assert head.split()[-4:] == ["RUN", "FAIL", "CANC", "ETA"]
    assert "FINISHED!" in row
    assert " 60% " in row
    assert row.split()[-3:] == ["3", "1", "-"]
    shown = drqueue("job", "1").out
    assert "FINISHED, but 3 frames failed, 1 cancelled" in shown
    assert f"failed      frames 3-4, 7: {LONG}\n" in shown
    assert "drqueue frames 1 --state FAILED" in shown
    assert json.loads(drqueue("job", "1", "--json").out)["state"] == "FINISHED"


@pytest.mark.parametrize("words", [("wait", "1"), ("submit", "--wait", "--", "true")])
def test_waiting_ends_with_the_reasons(broken: Peer, drqueue: Command, words: tuple[str, ...]) -> None:
    said = drqueue(*words)
    assert said.status == 1
    assert "finished: 6 of 10 frames done, 3 failed, 1 cancelled" in said.out + said.err
    lines = said.err.splitlines()
    assert lines[-2:] == [f"  frames 3-4, 7: {LONG}", "  see drqueue frames 1 --state FAILED"]


def test_submit_and_wait_says_how_a_good_job_ended(master: Peer, drqueue: Command) -> None:
    assert drqueue("submit", "--wait", "--", "true").err.endswith("job 42 finished: 10 of 10 frames done\n")


def test_progress_of_a_running_job_leaves_failures_out() -> None:
    view = job_view(1, progress=0.5, counts=Counts(total=10, done=3, failed=1, running=6))
    assert output.part(view) == pytest.approx(0.4)
    assert output.part(job_view(1, "FINISHED", counts=Counts(total=4, done=3, failed=1))) == 0.75


@pytest.mark.parametrize(
    ("state", "changed", "text"),
    [
        ("FAILED", {"code": 3, "requeued": 3}, "exit status 3, tried again 3 times"),
        ("FAILED", {"code": 3, "requeued": 1}, "exit status 3, tried again 1 time"),
        ("FAILED", {"signal": 9}, "ended by signal 9"),
        ("FAILED", {"reason": "no-cwd", "text": "gone"}, "gone"),
        ("FAILED", {"reason": "no-cwd"}, "the working directory does not exist on that node"),
        ("WAITING", {"code": 3, "requeued": 2}, "exit status 3, retry 2 to come"),
        ("WAITING", {"signal": 15, "reason": "stopped", "text": "requeue"}, "ended to be rendered again"),
        ("WAITING", {"signal": 15, "reason": "stopped", "text": "kill"}, "killed"),
        ("DONE", {"code": 0, "requeued": 2}, ""),
        ("RUNNING", {"progress": 0.25, "activity": "a", "stop": "kill"}, "25% a (kill)"),
    ],
)
def test_notes(state: str, changed: dict[str, Any], text: str) -> None:
    assert note(frame_view(1, state, **changed)) == text


def test_failures_are_grouped_by_reason_and_layer() -> None:
    views = [
        *(frame_view(n, "FAILED", code=1) for n in (1, 2, 4, 6, 8, 10)),
        frame_view(5, "FAILED", signal=11, layer_name="comp"),
    ]
    assert failures(views[-1:], several=False) == ["frame 5: ended by signal 11"]
    assert failures(views, several=True) == [
        "frames main:1-2, 4, 6, 8 ...: exit status 1",
        "frame comp:5: ended by signal 11",
    ]
    assert runs([-3, -2, 5]) == ["-3--2", "5"]
    assert (many(1, "frame"), many(0, "frame")) == ("1 frame", "0 frames")


# -- logs and attempts -------------------------------------------------------------------------------------


def attempt(number: int = 1, outcome: str = "failed", **changed: Any) -> AttemptView:
    given: dict[str, Any] = {"job": 1, "layer": 0, "frame": 0, "number": 1, "attempt": number, "slave": "s1"}
    times: dict[str, Any] = {"slave_id": 0, "assigned_at": 1.0, "started_at": 1.0, "ended_at": 2.0}
    return AttemptView(**given, **times, outcome=outcome, **changed)


def test_a_log_of_nothing_says_why_it_ended(master: Peer, drqueue: Command) -> None:
    master.on[messages.FindLog] = lambda _, asked: messages.LogPlace(
        rq=asked.rq, key=AttemptKey(1, 0, 0, 1), number=1, slave="s1", over=True, kept=LogEnds(size=0)
    )
    master.on[messages.ListAttempts] = lambda _, asked: messages.Attempts(
        rq=asked.rq, attempts=(attempt(1, code=7), attempt(2, reason="no-cwd", text=LONG))
    )
    said = drqueue("log", "1", "1")
    assert (said.status, said.out) == (0, "")
    assert said.err == f"attempt 2 at frame 1 of job 1 printed nothing; it failed on s1: {LONG}\n"
    assert "attempt 1 at frame 1 of job 1 printed nothing; it failed on s1: exit status 7" in (
        drqueue("log", "1", "1", "--attempt", "1").err
    )


def test_a_command_that_never_ran_has_its_reason_in_place_of_a_log(master: Peer, drqueue: Command) -> None:
    """Also where no slave knows a log of it any more; other lost logs are still an error."""
    reason: dict[str, Any] = {"reason": "no-command", "text": "command not found: blendr"}
    master.on[messages.FindLog] = lambda _, asked: messages.LogPlace(
        rq=asked.rq, key=AttemptKey(1, 0, 0, 1), number=1, slave="s1", over=True
    )
    master.on[messages.ListAttempts] = lambda _, asked: messages.Attempts(
        rq=asked.rq, attempts=(attempt(**reason),)
    )
    said = drqueue("log", "1", "1")
    assert said.status == 0
    assert said.err.endswith("failed on s1: command not found: blendr\n")
    reason.update(reason="", text="")
    assert drqueue("log", "1", "1").status == 1


def test_attempts_are_listed(master: Peer, drqueue: Command) -> None:
    master.on[messages.ListAttempts] = lambda _, asked: messages.Attempts(
        rq=asked.rq, attempts=(attempt(1, code=7), attempt(2, "done", code=0))
    )
    lines = drqueue("attempts", "1", "main:5").out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "failed", "s1"], ["2", "done", "s1"]]
    assert lines[1].endswith("exit status 7")
    assert [view["attempt"] for view in json.loads(drqueue("attempts", "1", "5", "--json").out)] == [1, 2]
    asked = next(message for message in master.heard if isinstance(message, messages.ListAttempts))
    assert (asked.layer, asked.number) == ("main", 5)
    assert ending(attempt(2, "done", code=0)) == ""


# -- requeue, verbs ----------------------------------------------------------------------------------------


def test_all_failed_frames_are_requeued_by_their_state(broken: Peer, drqueue: Command) -> None:
    broken.on[messages.FrameVerb] = lambda _, asked: messages.Done(rq=asked.rq, count=3)
    assert drqueue("frame", "requeue", "1", "--state", "failed").err == "3 frames\n"
    sent = [message for message in broken.heard if isinstance(message, messages.FrameVerb)]
    assert [(message.layer, message.frames, message.verb) for message in sent] == [
        ("main", "3-4,7", "requeue")
    ]
    for words in (("1",), ("1", "3", "--state", "failed")):
        assert drqueue("frame", "requeue", *words).status == 2


def test_numbers_out_of_range_are_told_with_the_count(master: Peer, drqueue: Command) -> None:
    master.on[messages.FrameVerb] = lambda _, asked: messages.Done(rq=asked.rq, count=1, note="2 do not fit")
    for verb in ("kill", "requeue", "finish"):
        assert drqueue("frame", verb, "1", "1-3").err == "1 frame; 2 do not fit\n"


def test_verbs_say_what_they_did_on_a_terminal_only(
    master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drqueue("stop", "1").err == ""
    terminal(monkeypatch, "stderr")
    assert drqueue("stop", "1").err.startswith("job 1 is finished already, nothing to stop")
    view = job_view(1, counts=Counts(total=9, running=2))
    master.on[messages.GetJob] = lambda _, asked: messages.Job(rq=asked.rq, job=view, layers=())
    assert drqueue("stop", "1").err == "job 1 stopped; 2 running frames will end normally\n"
    assert drqueue("hard-stop", "1").err == "job 1 stopped, 3 running frames ended\n"
    assert drqueue("continue", "1").err == "job 1 was not stopped\n"
    assert drqueue("rerun", "1").err == "job 1 renders all its 9 frames again\n"
    assert drqueue("slave", "disable", "s1").err == "slave s1 disabled; its running frames end normally\n"


# -- waiting that leads nowhere ------------------------------------------------------------------------------


def test_wait_says_once_why_a_job_cannot_go_on(
    master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends here once the master was asked why a fifth time."""
    monkeypatch.setattr(wait, "ADVISE_S", 0.01)
    idle = job_view(1, "STOPPED", counts=Counts(total=10))
    master.on[messages.GetJob] = lambda _, asked: messages.Job(rq=asked.rq, job=idle, layers=())
    asked_why: list[int] = []

    def why(channel: Any, asked: messages.Why) -> messages.Reasons:
        asked_why.append(asked.job)
        if len(asked_why) == 5:
            channel.send(messages.Changed(watch=1, jobs=(job_view(1, "FINISHED"),)))
        text = f"it waits for job 9, of which {len(asked_why)} frames failed (1-{len(asked_why)})"
        reasons = (
            Reason(code="stopped", text="it is stopped"),
            Reason(code="turn", text="nothing but its turn"),
            Reason(code="dependency", text="it waits for job 9" if len(asked_why) < 3 else text),
        )
        return messages.Reasons(rq=asked.rq, reasons=reasons)

    master.on[messages.Why] = why
    said = drqueue("wait", "1")
    assert said.status == 0
    assert [line for line in said.err.splitlines() if "go on" in line] == [
        "job 1 does not go on: it is stopped",
        "job 1 does not go on: it waits for job 9",
        "job 1 does not go on: it waits for job 9, of which 3 frames failed (1-3)",
    ]


def test_a_silent_master_is_told_once_and_its_return_too(
    master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link breaks, and the next few dials fail."""
    monkeypatch.setattr(asking, "SILENCE_S", 0.05)
    dials = []
    dial = link.dial

    async def sometimes(*arguments: Any) -> Any:
        dials.append(arguments)
        if 1 < len(dials) < 8:
            raise ConnectionRefusedError
        return await dial(*arguments)

    monkeypatch.setattr(entrance, "dial", sometimes)
    master.on[messages.Watch] = lambda channel, asked: (
        channel.close() if len(dials) == 1 else messages.Watching(rq=asked.rq, watch=1)
    )
    said = drqueue("wait", "1")
    assert said.status == 0
    assert [line for line in said.err.splitlines() if "master" in line] == [
        "the master does not answer; waiting for it",
        "the master answers again",
    ]


def test_an_interrupted_wait_says_that_the_job_goes_on(
    master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wait, "follow", interrupted)
    said = drqueue("submit", "--wait", "--", "true")
    assert (said.status, said.out) == (130, "42\n")
    assert said.err == "job 42 goes on (to wait again: drqueue wait 42)\n"
    assert drqueue("wait", "1", "2").err == "jobs 1 2 go on (to wait again: drqueue wait 1 2)\n"


# -- words of the command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("jbs", "drqueue: there is no command 'jbs': did you mean 'jobs'? (see `drqueue --help`)\n"),
        ("frame reqeue 1 2", "drqueue: there is no command 'reqeue': did you mean 'requeue'?"),
        ("help jbs", "drqueue: there is no command 'jbs': did you mean 'jobs'?"),
        ("hstop 3", "drqueue: there is no command 'hstop': did you mean 'hard-stop'? (see"),
        ("requeue 3", "drqueue: there is no command 'requeue': did you mean 'frame requeue'? (see"),
        ("enable s1", "drqueue: there is no command 'enable': did you mean 'slave enable'? (see"),
        ("disable s1", "drqueue: there is no command 'disable': did you mean 'slave disable'? (see"),
        ("list", "drqueue: there is no command 'list': did you mean 'jobs'? (see"),
        ("status", "drqueue: there is no command 'status': did you mean 'jobs' or 'farm'? (see"),
        ("kill 3", "drqueue: there is no command 'kill': did you mean 'hard-stop' or 'frame kill'? (see"),
        ("frame kil 3 4", "drqueue: there is no command 'kil': did you mean 'kill'? (see `drqueue frame"),
        ("submti", "drqueue: there is no command 'submti': did you mean 'submit'? (see"),
        ("xyzzy", "drqueue: there is no command 'xyzzy' (see `drqueue --help`)\n"),
        (
            "submit",
            "drqueue: a command is missing: drqueue submit [OPTIONS] -- COMMAND ... (see `drqueue submit -",
        ),
        ("log 1 -5", "drqueue: a negative frame is written after --, as in `drqueue log ... -- -5`\n"),
        ("completion", "drqueue: missing argument"),
        ("job x", "drqueue: invalid value for 'ID': 'x' is not a job's id: a number from 0 on"),
        ("submit --memory much -- true", "drqueue: invalid value for '--memory': 'much' is not an amount"),
        ("submit --file READ.me", "drqueue: READ.me: cannot be read"),
    ],
)
def test_mistakes_are_answered_helpfully(master: Peer, drqueue: Command, words: str, sentence: str) -> None:
    said = drqueue(*words.split())
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(sentence)
    assert said.err.count("\n") == 1
    assert "\\t" not in said.err


def test_every_other_word_leads_to_a_command_and_is_none() -> None:
    context = click.Context(cli)
    for word, meant in _OTHER_WORDS.items():
        assert word not in COMMANDS
        for line in meant:
            first, *rest = line.split()
            command = cli.get_command(context, first)
            assert command is not None, line
            for name in rest:
                assert isinstance(command, click.Group)
                assert name in command.commands, line


def test_help_is_the_help_of_the_command(drqueue: Command) -> None:
    assert drqueue("help").out == drqueue("--help").out
    assert drqueue("help", "frame", "requeue").out == drqueue("frame", "requeue", "--help").out
    assert "<=x<=" not in drqueue("help", "submit").out


def test_frames_of_no_state_are_a_sentence(master: Peer, drqueue: Command) -> None:
    master.on[messages.ListFrames] = lambda _, asked: messages.Frames(rq=asked.rq, frames=())
    said = drqueue("frames", "1", "--state", "failed", "--state", "running")
    assert said == (0, "", "job 1 has no frame that is FAILED or RUNNING\n")


@pytest.mark.parametrize(
    ("text", "mb"),
    [("300", 300), ("4G", 4096), ("1.5gb", 1536), ("500 MiB", 500), ("1k", 1), ("1T", 1024**2)],
)
def test_memory_has_units(text: str, mb: int) -> None:
    assert MEMORY.convert(text, None, None) == mb


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5), ("0.5", 0.5), ("90s", 90), ("15m", 900), ("1h", 3600)]
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


def test_a_reader_that_had_enough_is_no_failure(
    master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("os.dup2", lambda *_: None)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1)
    monkeypatch.setattr(output, "show", enough)
    for words in (("frames", "1"), ("jobs",)):
        assert drqueue(*words).status == 0
