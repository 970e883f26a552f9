"""The classic examples and the CGI page, as processes of their own, against a master and two slaves.

The tests share one farm; each deletes its jobs and leaves the slaves as it found them.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from drqueue.proto.views import SlaveView
from tests.e2e.helpers import Cli, Running, Said, Up, farm_up, wait_until

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples" / "classic"
GATE = 'until test -e "$GATE"; do sleep 0.02; done; test "$DRQUEUE_FRAME" != 4'
"""A frame that runs until a file appears; the fourth one fails then."""
EVIL = "</title><script>alert(1)</script> \"q\" 'x' &amp; <b>"
"""A job's name that would be more than text, were it not escaped."""
HEAD_OF_JOBS = (
    "Id,Name,Owner,Status,Frames left,Frames done,Frames failed,Frames running,"
    "Average frame time,Estimated end"
)
AVERAGE_TIME = r"(\d+ minutes )?\d+ seconds"
HEAD_OF_FRAMES = "Number,Status,Exit code,Computer,Task,Requeued,Start time,Finish time"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The farm: two slaves of one core each."""
    with farm_up(tmp_path_factory.mktemp("classic-examples"), slaves=2, cores=1) as farm:
        yield farm


@pytest.fixture
def cli(up: Up) -> Iterator[Cli]:
    """The other terminal, with DRQUEUE_MASTER set; no job is left at the end."""
    yield Cli(up.state_dir, up.cli.cwd, {"DRQUEUE_MASTER": f"unix:{up.state_dir}/master.sock"})
    with up.cli.client() as client:
        for view in client.jobs(all=True):
            client.delete(view.id)
        wait_until("idle slaves", lambda: all(slave.cores_used == 0 for slave in client.slaves()))


def start(cli: Cli, script: str, *words: object) -> Running:
    """Start one of the examples."""
    argv = [sys.executable, str(EXAMPLES / script), *map(str, words)]
    return Running(
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cli.cwd,
            env=cli.environ(),
            text=True,
        )
    )


def run(cli: Cli, script: str, *words: object) -> Said:
    """Run one of the examples to its end."""
    with start(cli, script, *words) as running:
        return running.finish()


def slaves(cli: Cli) -> list[SlaveView]:
    with cli.client() as client:
        return sorted(client.slaves(), key=lambda slave: slave.id)


def gated(cli: Cli, gate: Path, name: str = "shot") -> int:
    """A job of four frames, two of which run, until the gate is opened."""
    options = ("--env", f"GATE={gate}", "--frames", "1-4", "--retries", 0, "--name", name)
    job = cli.submit(*options, "--", GATE)
    cli.until_states(job, {1: "RUNNING", 2: "RUNNING", 3: "WAITING", 4: "WAITING"})
    return job


# -- the five examples -------------------------------------------------------------------------------------


def test_example1_lists_computers_and_jobs(cli: Cli) -> None:
    first = cli.submit("--stopped", "--name", "one", "--", "true")
    second = cli.submit("--stopped", "--name", "two", "--", "true")
    here = slaves(cli)
    assert run(cli, "example1.py") == Said(
        0,
        f"DRQUEUE_MASTER: unix:{cli.state_dir}/master.sock\n"
        "Computers:\n"
        f"  ID: {here[0].id} Name: {here[0].name} Enabled: yes\n"
        f"  ID: {here[1].id} Name: {here[1].name} Enabled: yes\n"
        "Jobs:\n"
        f"  ID: {first} Name: one\n"
        f"  ID: {second} Name: two\n",
        "",
    )


def test_example2_lists_the_frames_too(cli: Cli, tmp_path: Path) -> None:
    """While two run, and when all are over: one had failed, one was never run."""
    job = gated(cli, tmp_path / "gate")
    where = {number: frame.slave for number, frame in cli.frames(job).items()}
    said = run(cli, "example2.py")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-5:] == [
        f"  ID: {job} Name: shot",
        f"    Frame: 1 Status: Running Computer: {where[1]}",
        f"    Frame: 2 Status: Running Computer: {where[2]}",
        "    Frame: 3 Status: Waiting Computer: None",
        "    Frame: 4 Status: Waiting Computer: None",
    ]
    assert {where[1], where[2]} == {slave.name for slave in slaves(cli)}
    cli.run("frame", "finish", job, 3)
    (tmp_path / "gate").touch()
    cli.wait(job)
    where = {number: frame.slave for number, frame in cli.frames(job).items()}
    assert run(cli, "example2.py").out.splitlines()[-4:] == [
        f"    Frame: 1 Status: Finished Computer: {where[1]}",
        f"    Frame: 2 Status: Finished Computer: {where[2]}",
        "    Frame: 3 Status: Finished Computer: None",
        f"    Frame: 4 Status: Error Computer: {where[4]}",
    ]


def test_example3_stops_what_is_active_and_continues_what_is_stopped(cli: Cli, tmp_path: Path) -> None:
    active = gated(cli, tmp_path / "gate")
    stopped = cli.submit("--stopped", "--name", "held", "--frames", "1-2", "--", "true")
    waiting = cli.submit("--pool", "nowhere", "--name", "away", "--", "true")
    assert run(cli, "example3.py") == Said(
        0,
        f"Stopping job {active} (shot): Stopped\n"
        f"Continuing job {stopped} (held): Continued\n"
        f"Job {waiting} (away) is Waiting\n",
        "",
    )
    with cli.client() as client:
        states = {view.id: view.state for view in client.jobs()}
    assert states == {active: "STOPPED", stopped: "WAITING", waiting: "WAITING"}
    (tmp_path / "gate").touch()
    assert cli.wait(stopped).counts.done == 2
    assert run(cli, "example3.py").out.startswith(f"Continuing job {active} (shot): Continued\n")
    assert cli.wait(active).counts.done == 3


def test_example4_toggles_every_computer(cli: Cli) -> None:
    """One was disabled before: it is enabled, the other one disabled; then the other way round."""

    def enabled() -> list[bool]:
        return [slave.limits.enabled for slave in slaves(cli)]

    one, two = slaves(cli)
    cli.run("slave", "disable", two.name)
    assert run(cli, "example4.py") == Said(
        0,
        f"Disabling computer {one.id} ({one.name}): Done\nEnabling computer {two.id} ({two.name}): Done\n",
        "",
    )
    wait_until("the other way round", lambda: enabled() == [False, True])
    cli.run("slave", "enable", one.name)
    wait_until("both enabled", lambda: enabled() == [True, True])
    run(cli, "example4.py")
    wait_until("both disabled", lambda: enabled() == [False, False])
    assert run(cli, "example4.py").out.count("Enabling") == 2
    wait_until("both enabled again", lambda: enabled() == [True, True])


def test_example5_is_refused_as_it_always_was(cli: Cli) -> None:
    """A job with a name and no command; nothing reaches the farm."""
    assert run(cli, "example5.py") == Said(1, "", "example5: Information not complete.\n")
    with cli.client() as client:
        assert list(client.jobs(all=True)) == []


def test_without_a_master_they_say_so(cli: Cli, tmp_path: Path) -> None:
    """All at once, since each tries for a while."""
    nobody = Cli(cli.state_dir, cli.cwd, {"DRQUEUE_MASTER": f"unix:{tmp_path}/nobody.sock"})
    names = ("example1", "example2", "example3", "example4", "leak_test")
    with ExitStack() as stack:
        running = [stack.enter_context(start(nobody, f"{name}.py")) for name in names]
        for name, each in zip(names, running, strict=True):
            said = each.finish()
            assert said.status == 1
            assert said.sentence.startswith(f"{name}: Could not connect to master")


def test_asking_a_hundred_times_leaks_nothing(cli: Cli) -> None:
    """Once everything is loaded, memory stays where it is (within 4 MiB)."""
    cli.submit("--stopped", "--frames", "1-200", "--", "true")
    said = run(cli, "leak_test.py", 100)
    assert (said.status, said.err) == (0, "")
    shown = re.findall(r"^(\d+) rounds: (\d+) KiB$", said.out, re.MULTILINE)
    assert [int(rounds) for rounds, _ in shown] == list(range(10, 101, 10))
    assert int(shown[-1][1]) - int(shown[1][1]) < 4096
    assert run(cli, "leak_test.py", "x") == Said(1, "", "usage: leak_test.py [ROUNDS]\n")


# -- the page ----------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """What a browser would see: the tags, the title, the cells of each table, where links lead."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.title = ""
        self.rows: list[list[str]] = []
        self.links: dict[str, str] = {}
        self.href = ""
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "a":
            self.href = dict(attrs)["href"] or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "title" in self.open:
            self.title += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        if "a" in self.open:
            self.links[data] = self.href

    def row(self, first: str) -> list[str]:
        """The row whose first cell is this."""
        (found,) = [row for row in self.rows if row[:1] == [first]]
        return found


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


def fetch(url: str, **headers: str) -> Answer:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read().decode())


@pytest.fixture
def server(cli: Cli) -> Iterator[str]:
    """Its own web server: the address without the last slash; Ctrl-C ends it."""
    with start(cli, "drkeewee.py", "--port", 0) as running:
        line = running.line()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", line), running.finish().err
        yield line.strip().rstrip("/")
        running.process.send_signal(signal.SIGINT)
        assert running.finish().status == 0


def page(url: str) -> Seen:
    """A page that is there, seen."""
    answer = fetch(url)
    assert answer.status == 200, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return Seen(answer.text)


def test_every_page_shows_the_farm(cli: Cli, server: str, tmp_path: Path) -> None:
    """Jobs, one job and its frames, one frame, computers, one computer and its task; links lead on."""
    job = gated(cli, tmp_path / "gate", name="Größe")
    frames = cli.frames(job)
    one, two = slaves(cli)

    jobs = page(f"{server}/")
    assert ",".join(jobs.rows[0]) == HEAD_OF_JOBS
    assert jobs.row(str(job))[1:2] + jobs.row(str(job))[3:] == [
        "Größe", "Active", "2", "0", "0", "2", "-", "-"
    ]  # fmt: skip
    assert jobs.links["Größe"] == f"/job/{job}"

    shown = page(f"{server}{jobs.links['Größe']}")
    assert shown.title == f"Job {job}: Größe - DrKeewee"
    assert shown.row("Status") == ["Status", "Active"]
    assert shown.row("Command") == ["Command", GATE]
    assert ",".join(shown.row("Number")) == HEAD_OF_FRAMES
    assert shown.row("1")[:4] == ["1", "Running", "0", frames[1].slave]
    assert shown.row("1")[7] == "Not finished"
    assert shown.row("3") == ["3", "Waiting", "0", "None", "None", "0", "Not started", "Not started"]

    frame = page(f"{server}{shown.links['1']}")
    assert frame.title == f"Frame 1 of job {job} - DrKeewee"
    assert frame.row("Computer") == ["Computer", frames[1].slave]
    assert frame.row("Finish time") == ["Finish time", "Not finished"]
    assert frame.links["Größe"] == f"/job/{job}"

    computers = page(f"{server}{frame.links['Computers']}")
    assert computers.rows[0] == ["Id", "Name", "Enabled", "Running", "Load", "Pools"]
    for slave in (one, two):
        row = computers.row(str(slave.id))
        assert row[1:4] == [slave.name, "Yes", "1"]
        assert re.fullmatch(r"\d+\.\d\d \d+\.\d\d \d+\.\d\d", row[4])
        assert row[5] == "Default"

    number = next(number for number in (1, 2) if frames[number].slave == two.name)
    computer = page(f"{server}{computers.links[two.name]}")
    assert computer.title == f"Computer {two.id}: {two.name} - DrKeewee"
    assert ["Job", "Job id", "Task id", "Status", "Frame"] in computer.rows
    assert computer.row("Größe")[:2] + computer.row("Größe")[3:] == [
        "Größe", str(job), "Running", str(number)
    ]  # fmt: skip
    assert computer.links[str(number)] == f"/job/{job}/frame/{number}"

    cli.run("frame", "finish", job, 3)
    row = page(f"{server}/jobs").row(str(job))
    assert row[3:8] == ["Active", "1", "1", "0", "2"]
    assert re.fullmatch(AVERAGE_TIME, row[8])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[9])

    (tmp_path / "gate").touch()
    cli.wait(job)
    row = page(f"{server}/jobs").row(str(job))
    assert row[3:8] + row[9:] == ["Finished", "0", "3", "1", "0", "Not running"]
    assert re.fullmatch(AVERAGE_TIME, row[8])
    assert page(f"{server}/job/{job}").row("Frames failed") == ["Frames failed", "1"]
    assert page(f"{server}/job/{job}").row("4")[1:3] == ["Error", "1"]
    wait_until("an idle computer", lambda: "Nothing runs." in page(f"{server}/computer/{two.id}").text)


def test_nothing_in_a_name_gets_through_as_html(cli: Cli, server: str, tmp_path: Path) -> None:
    """On every page that shows it, the name is text, whole; no element comes of it."""
    job = gated(cli, tmp_path / "gate", name=EVIL)
    (running, *_) = [frame for frame in cli.frames(job).values() if frame.state == "RUNNING"]
    (slave,) = [slave for slave in slaves(cli) if slave.name == running.slave]
    for path in ("/", f"/job/{job}", f"/job/{job}/frame/1", f"/computer/{slave.id}"):
        answer = fetch(server + path)
        seen = Seen(answer.text)
        assert EVIL in seen.text, path
        allowed = {"html", "head", "meta", "title", "style", "body", "header", "strong", "a", "h1", "h2"}
        assert set(seen.tags) <= allowed | {"div", "table", "thead", "tbody", "tr", "th", "td"}
        assert seen.tags.count("title") == 1
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/frob", "There is no such page."),
        ("/job/4711", "There is no job 4711."),
        ("/job/x", "There is no such page."),
        ("/job/99999999999", "There is no such page."),
        ("/job/9999999999", "There is no job 9999999999."),
        ("/job/4711/frame/1", "There is no job 4711."),
        ("/computer/4711", "There is no computer 4711."),
        ("/%3Cscript%3Ealert(1)%3C/script%3E", "There is no such page."),
    ],
)
def test_what_does_not_exist_is_404(server: str, path: str, words: str) -> None:
    answer = fetch(server + path)
    assert answer.status == 404
    seen = Seen(answer.text)
    assert words in seen.text
    assert "script" not in seen.tags


def test_a_frame_that_does_not_exist_is_404(cli: Cli, server: str) -> None:
    job = cli.submit("--stopped", "--frames", "1-9x2", "--", "true")
    assert fetch(f"{server}/job/{job}/frame/9").status == 200
    for number in (-1, 0, 2, 10, 4294967295, 9999999999):
        answer = fetch(f"{server}/job/{job}/frame/{number}")
        assert answer.status == 404, number
        assert "frame" in Seen(answer.text).text


def test_many_frames_are_shown_in_pages(cli: Cli, server: str) -> None:
    job = cli.submit("--stopped", "--frames", "1-1200", "--", "true")

    def numbers(page: Seen) -> list[int]:
        return [int(row[0]) for row in page.rows if len(row) == 8 and row[0].isdecimal()]

    first = page(f"{server}/job/{job}")
    assert numbers(first) == list(range(1, 501))
    assert first.links["3"] in (f"/job/{job}?page=3", f"/job/{job}/frame/3")
    assert numbers(page(f"{server}/job/{job}?page=3")) == list(range(1001, 1201))
    assert numbers(page(f"{server}/job/{job}?page=4")) == []
    assert numbers(page(f"{server}/job/{job}?page=x")) == numbers(first)


def test_only_this_machines_own_pages_are_answered(server: str) -> None:
    """A name that somebody lets lead here reads nothing; HEAD is GET without the page."""
    assert fetch(server, Host="farm.example").status == 403
    assert fetch(server, Host="farm.example:8088").status == 403
    assert fetch(server, Host="localhost:8088").status == 200
    request = urllib.request.Request(server, method="HEAD")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert (answer.status, answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 500


def test_the_script_runs_under_any_server(cli: Cli, tmp_path: Path) -> None:
    """Its links begin with SCRIPT_NAME; without a master the page says so, with status 503."""
    job = cli.submit("--stopped", "--name", "n", "--", "true")

    def cgi(**env: str) -> tuple[str, Seen]:
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / "drkeewee.cgi")],
            env={**cli.environ(), **env},
            capture_output=True,
            check=True,
        )
        head, _, body = ran.stdout.decode().partition("\n\n")
        return head, Seen(body)

    head, seen = cgi(SCRIPT_NAME="/cgi-bin/drkeewee.cgi", PATH_INFO="/")
    assert head.splitlines()[:2] == ["Status: 200 OK", "Content-Type: text/html; charset=utf-8"]
    assert seen.links["n"] == f"/cgi-bin/drkeewee.cgi/job/{job}"
    _, seen = cgi(SCRIPT_NAME='/a"><script>', PATH_INFO="/")
    assert seen.links["n"] == f'/a"><script>/job/{job}'
    head, seen = cgi(PATH_INFO="/computers", DRQUEUE_MASTER=f"unix:{tmp_path}/nobody.sock")
    assert head.startswith("Status: 503 ")
    assert "Could not connect to master" in seen.text


def test_all_of_them_can_be_called_by_name() -> None:
    scripts = [path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".cgi")]
    assert len(scripts) == 8
    for path in scripts:
        assert os.access(path, os.X_OK), path.name
        assert path.read_text().startswith("#!/usr/bin/env python3\n")
