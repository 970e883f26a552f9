"""The original's tools without a farm: flags, usage, exit statuses, the command that runs them, launchers."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from drqueue import __version__
from drqueue.client.binding import session
from drqueue.client.classic import _HOME_OF, TOOLS
from drqueue.client.classic.front import Tool
from drqueue.proto import messages
from drqueue.proto.model import JobSpec, LayerSpec
from tests.client.conftest import Command, Said
from tests.client.peer import Peer, job_view

NAMES = list(TOOLS)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without a master, say so at once; leave no link to one behind."""
    monkeypatch.setattr(session, "PATIENCE_S", 0.0)
    yield
    session.close()


@pytest.fixture(autouse=True)
def _known(request: pytest.FixtureRequest) -> None:
    """The scripted master knows how its jobs were submitted."""
    if "master" in request.fixturenames:
        spec = JobSpec(name="n", layers=(LayerSpec(argv=("true",), frames="1-10"),))
        master: Peer = request.getfixturevalue("master")
        master.on[messages.GetSpec] = lambda _, asked: messages.Spec(rq=asked.rq, spec=spec)


def tool_of(name: str) -> Tool:
    found = getattr(import_module(f"drqueue.client.classic.{_HOME_OF[name]}"), name.upper())
    assert isinstance(found, Tool)
    return found


def usage(name: str) -> str:
    return tool_of(name).usage


# -- every tool -------------------------------------------------------------------------------------------


def test_the_tools_are_the_originals() -> None:
    """Those that the original had and that have a meaning here."""
    assert " ".join(NAMES) == "sendjob cjob ctask requeue jobinfo jobfinfo compinfo blockhost"
    assert [tool_of(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("sendjob", "t:f:d"),
        ("cjob", "skdctj:"),
        ("ctask", "drej:f:"),
        ("requeue", "f:j:"),
        ("jobinfo", "lnj:"),
        ("jobfinfo", "rsf:j:"),
        ("compinfo", "lndc:"),
        ("blockhost", "a:d:lj:"),
    ],
)
def test_flags_are_the_originals(name: str, letters: str) -> None:
    """The letters, and which of them take a value."""
    assert sorted(re.findall("[a-z]:?", tool_of(name).letters)) == sorted(re.findall("[a-z]:?", letters))


@pytest.mark.parametrize("name", NAMES)
def test_usage_explains_each_flag_once(name: str) -> None:
    """Every letter has its one line, with a value if it takes one; no line is about another letter."""
    lines = re.findall(r"^  -([a-z])( [A-Z:]+)?  +\w", usage(name), re.MULTILINE)
    taken = [letter + (":" if value else "") for letter, value in lines]
    assert sorted(taken) == sorted([*re.findall("[a-z]:?", tool_of(name).letters), "h", "v"])
    assert usage(name).startswith(f"Usage: {name} ")
    assert all(len(line) <= 80 for line in usage(name).splitlines())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_on_stdout(drqueue: Command, name: str, flag: str) -> None:
    said = drqueue("classic", name, flag)
    assert said == Said(0, f"{TOOLS[name]}\n\n{usage(name)}\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_every_tool_says_its_version(drqueue: Command, name: str) -> None:
    assert drqueue("classic", name, "-v") == Said(0, f"{name}: DrQueue {__version__}\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_at_all_shows_the_usage_on_stderr(drqueue: Command, name: str) -> None:
    assert drqueue("classic", name) == Said(1, "", f"{usage(name)}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("cjob -x", "cjob: option -x not recognized (see cjob -h)"),
        ("cjob -j", "cjob: option -j requires argument (see cjob -h)"),
        ("cjob --stop -j 3", "cjob: option --stop not recognized (see cjob -h)"),
        ("cjob -s", "cjob: -j is missing: the job's id"),
        ("cjob -j 3", "cjob: one of -s, -k, -d, -c and -t is missing (see cjob -h)"),
        ("cjob -s -d -j 3", "cjob: -s and -d do not go together"),
        ("cjob -s -j 3 4", "cjob: '4' is one word too many (see cjob -h)"),
        ("cjob -s -j x", "cjob: -j 'x': the job's id is a number from 0 to 4294967295"),
        ("cjob -s -j -1", "cjob: -j '-1': the job's id is a number from 0 to 4294967295"),
        ("cjob -s -j 4294967296", "cjob: -j '4294967296': the job's id is a number from 0 to 4294967295"),
        ("cjob -s -j ''", "cjob: -j '': the job's id is a number from 0 to 4294967295"),
        ("cjob -s -j '\u0663'", "cjob: -j '\u0663': the job's id is a number from 0 to 4294967295"),
        ("ctask -j 3 -f 1", "ctask: one of -d, -r and -e is missing (see ctask -h)"),
        ("ctask -d -j 3", "ctask: -f is missing: the frame"),
        ("ctask -d -f 3", "ctask: -j is missing: the job's id"),
        ("ctask -d -j 3 -f 1-5", "ctask: -f '1-5': the frame is a number from -2147483648 to 4294967295"),
        ("ctask -r -j 3 -f 4294967296", "ctask: -f '4294967296': the frame is a number from"),
        ("ctask -e -j 3 -f 1", "ctask: setting a frame to error is not yet implemented"),
        ("requeue -j 3", "requeue: -f is missing: the frame"),
        ("requeue -f 3", "requeue: -j is missing: the job's id"),
        ("jobinfo -l -n", "jobinfo: -l and -n do not go together"),
        ("jobinfo -j x", "jobinfo: -j 'x': the job's id is a number"),
        ("jobfinfo -s -j 3", "jobfinfo: -f is missing: the frame"),
        ("jobfinfo -s -f 3", "jobfinfo: -j is missing: the job's id"),
        ("jobfinfo -r -s -f 3 -j 1", "jobfinfo: -r and -s do not go together"),
        ("compinfo -c 0", "compinfo: one of -l, -n and -d is missing (see compinfo -h)"),
        ("compinfo -d", "compinfo: -c is missing: the computer's id"),
        ("blockhost -j 3", "blockhost: one of -a, -d and -l is missing (see blockhost -h)"),
        ("blockhost -l", "blockhost: -j is missing: the job's id"),
        ("blockhost -a node -j 3", "blockhost: -a 'node': the computer's id is a number"),
        ("blockhost -d -1 -j 3", "blockhost: -d '-1': the position is a number"),
        ("cjob -s -j '3\x1b[31m'", r"cjob: -j '3\x1b[31m': the job's id is a number"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_1(
    master: Peer, drqueue: Command, words: str, sentence: str
) -> None:
    """And the farm is asked for nothing."""
    said = drqueue("classic", *shlex.split(words))
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(sentence)
    assert said.err.count("\n") == 1
    assert "\x1b" not in said.err
    assert master.heard == []


def test_neither_count_nor_status_is_the_originals_word(master: Peer, drqueue: Command) -> None:
    assert drqueue("classic", "jobfinfo", "-f", "1", "-j", "3") == Said(0, "OP_NONE\n", "")
    assert master.heard == []


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ("cjob -s -j 3", "Stopping job: 3\n"),
        ("cjob -t -j 3", ""),
        ("ctask -r -j 3 -f 1", "Requeueing frame: 1,3\n"),
        ("requeue -f 1 -j 3", ""),
        ("jobinfo -l", ""),
        ("jobinfo -n", ""),
        ("jobinfo -j 3", ""),
        ("jobfinfo -s -f 1 -j 3", ""),
        ("compinfo -n", ""),
        ("compinfo -d -c 3", ""),
        ("blockhost -a 0 -j 3", ""),
        ("blockhost -l -j 3", ""),
    ],
)
def test_without_a_master_the_originals_words_say_so(
    drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, out: str
) -> None:
    monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{tmp_path}/nobody.sock")
    tool, *flags = words.split()
    said = drqueue("classic", tool, *flags)
    assert (said.status, said.out) == (1, out)
    assert said.err.startswith(f"{tool}: Could not connect to master")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("words", ["cjob -s -j3", "cjob -sj3", "cjob -j 3 -s", "cjob -s -j 7 -j 3"])
def test_flags_are_read_as_getopt_reads_them(master: Peer, drqueue: Command, words: str) -> None:
    """Together, apart, in any order; of two values the last counts."""
    assert drqueue("classic", *words.split()) == Said(0, "Stopping job: 3\n", "")
    assert [(message.job, message.verb) for message in master.heard if hasattr(message, "verb")] == [
        (3, "stop")
    ]


# -- the command -------------------------------------------------------------------------------------------


def test_alone_it_lists_the_tools(drqueue: Command) -> None:
    said = drqueue("classic")
    assert said.status == 0
    assert [line.split(maxsplit=1) for line in said.out.splitlines()] == [
        list(pair) for pair in TOOLS.items()
    ]
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert said.err == ""
    assert '"cjob": "Control a job' in drqueue("classic", "--json").out


def test_a_tool_that_there_is_not(drqueue: Command) -> None:
    said = drqueue("classic", "cjobb")
    assert (said.status, said.out) == (2, "")
    assert "did you mean 'cjob'?" in said.err


def test_tools_have_no_json(master: Peer, drqueue: Command) -> None:
    said = drqueue("classic", "--json", "jobinfo", "-l")
    assert (said.status, said.out) == (2, "")
    assert "no --json" in said.err


def test_the_master_may_be_named_before_the_tool(
    master: Peer, drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--master and --state-dir hold for this command, and not longer."""
    monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{tmp_path}/nobody.sock")
    before = dict(os.environ)
    assert drqueue("classic", "--master", master.address, "jobinfo", "-n") == Said(0, "2\n", "")
    assert drqueue("--state-dir", str(tmp_path), "classic", "jobinfo", "-n") == Said(0, "2\n", "")
    assert dict(os.environ) == before
    assert drqueue("classic", "jobinfo", "-n").status == 1
    monkeypatch.delenv("DRQUEUE_MASTER")
    assert drqueue("classic", "--master", master.address, "jobinfo", "-n").status == 0
    assert "DRQUEUE_MASTER" not in os.environ


def test_names_that_would_steer_the_terminal_are_shown_escaped(master: Peer, drqueue: Command) -> None:
    master.on[messages.ListJobs] = lambda _, asked: messages.Jobs(
        rq=asked.rq, jobs=(job_view(1, name="a\x1b[31m\nb"),)
    )
    assert drqueue("classic", "jobinfo", "-l").out == "ID: 1 Name: a\\x1b[31m\\nb\n"


def test_help_and_wrong_usage_cost_nothing_heavy() -> None:
    """Neither the network nor the binding is imported before it is known that a farm is asked."""
    code = (
        "import sys, drqueue.client.cli.main as main;"
        "main.run(['classic']); main.run(['classic', 'sendjob', '-h']); main.run(['classic', 'cjob', '-s']);"
        "print(*('trio' in sys.modules, 'rich' in sys.modules, 'drqueue.client.binding' in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-3:] == ["False", "False", "False"]


# -- launchers -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["bin", "a 'quoted' $HOME folder"])
def test_launchers_run_the_tools(
    drqueue: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Every one of them, found on the PATH, from a folder in which a drqueue.py lies; wherever Python is."""
    there = tmp_path / folder
    python = tmp_path / f"{folder} of Python" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    said = drqueue("classic", "install", str(there))
    assert (said.status, said.err.count("\n")) == (0, 1)
    assert sorted(path.name for path in there.iterdir()) == sorted(NAMES)
    work = tmp_path / "work"
    work.mkdir()
    (work / "drqueue.py").write_text("raise SystemExit('the wrong drqueue')\n")
    script = "\n".join([said.out, *(f"{name} -v" for name in NAMES), "cjob -s -j 'a b'"])
    ran = subprocess.run(["sh", "-c", script], cwd=work, capture_output=True, text=True, check=False)
    assert ran.stdout == "".join(f"{name}: DrQueue {__version__}\n" for name in NAMES)
    assert ran.stderr == "cjob: -j 'a b': the job's id is a number from 0 to 4294967295\n"
    assert ran.returncode == 1


def test_the_line_for_the_path_is_all_of_stdout(drqueue: Command, tmp_path: Path) -> None:
    said = drqueue("classic", "install", str(tmp_path / "bin"))
    assert said.out == f'export PATH={tmp_path}/bin:"$PATH"\n'
    found = drqueue("classic", "--json", "install", str(tmp_path / "bin"))
    assert f'"folder": "{tmp_path}/bin"' in found.out


def test_launchers_are_refreshed(drqueue: Command, tmp_path: Path) -> None:
    """What an older one wrote is replaced, whatever it calls; nothing else lies there afterwards."""
    assert drqueue("classic", "install", str(tmp_path)).status == 0
    launcher = tmp_path / "cjob"
    new = launcher.read_text()
    launcher.write_text(new.replace(sys.executable, "/somewhere/old/python"))
    assert drqueue("classic", "install", str(tmp_path)).status == 0
    assert launcher.read_text() == new
    assert os.access(launcher, os.X_OK)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_is_not_ours_is_never_written_over(drqueue: Command, tmp_path: Path, kind: str) -> None:
    """Not one launcher is written then; a link is not ours, wherever it leads."""
    there = tmp_path / "bin"
    there.mkdir()
    theirs = there / "requeue"
    match kind:
        case "file":
            theirs.write_text("#!/bin/sh\necho mine\n")
        case "folder":
            theirs.mkdir()
        case _:
            theirs.symlink_to(tmp_path / "target")
            if kind == "link":
                assert drqueue("classic", "install", str(tmp_path / "other")).status == 0
                (tmp_path / "target").write_bytes((tmp_path / "other" / "requeue").read_bytes())
    said = drqueue("classic", "install", str(there))
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"drqueue: {theirs} is there and was not written by this command: move it away first\n"
    )
    assert [path.name for path in there.iterdir()] == ["requeue"]
    assert kind != "file" or theirs.read_text() == "#!/bin/sh\necho mine\n"


@pytest.mark.parametrize("words", [(), ("a", "b"), ("--frob",), ("",)])
def test_install_takes_one_folder(drqueue: Command, words: tuple[str, ...]) -> None:
    said = drqueue("classic", "install", *words)
    assert (said.status, said.out) == (2, "")
    assert "install takes one folder" in said.err


def test_a_folder_that_cannot_be_made_is_one_sentence(drqueue: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = drqueue("classic", "install", str(tmp_path / "file" / "bin"))
    assert (said.status, said.out) == (1, "")
    assert said.err == f"drqueue: {tmp_path}/file/bin: Not a directory\n"
