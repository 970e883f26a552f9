"""`sendjob` against a scripted master: what is submitted for each type of file, and what is refused."""

import getpass
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.client.binding import session
from drqueue.client.kinds.sendjob import FORMATS
from drqueue.proto import messages
from drqueue.proto.model import JobSpec
from tests.client.conftest import Command, Said
from tests.client.peer import Peer

FILES = {
    "maya": "ann\nshot\npersp\n1\n2\n10\n2\n640\n480\n/s/a b.ma\n/r\n/p\njpg\nimg\n",
    "mentalray": "ann\nshot\ncam\n2\n10\n2\n640\n480\n/s/a.mi\n/r\njpg\nimg\n",
    "blender": "shot\n2\n10\n2\n1\n/s/a.blend\n",
    "lightwave": "ann\nshot\n2\n10\n2\n/s/a.lws\n/c\n/p\n",
    "terragen": "ann\nshot\n2\n10\n2\n/s/a.tgs\n/s/a.tgw\n/s/a.ter\n",
    "shake": "ann\nshot\n2\n10\n2\n/s/a.shk\n",
    "nuke": "ann\nshot\n2\n10\n2\n/s/a.nk\n",
    "3delight": "ann\nshot\n2\n10\n2\n/s/a.rib\n",
    "pixie": "ann\nshot\n2\n10\n2\n/s/a.rib\n",
    "aqsis": "ann\nshot\n2\n10\n2\n/s/a.rib\n",
    "mantra": "ann\nshot\n2\n10\n2\n/s/a\n",
    "aftereffects": "ann\nshot\n2\n10\n2\n/s/a.aep\ncomp 1\n",
    "xsi": "ann\nshot\n/x/\n77\n3\n2\n10\n6\n2\n4\n640\n480\n1\n/s/a.scn\nmain\n/r\nimg\npic\n0\n",
    "luxrender": "shot\n2\n10\n2\n/s/a.lxs\n",
}
#: What is kept of each, to show it and for the view command.
KEPT = {
    "maya": {"scene": "/s/a b.ma", "renderdir": "/r", "projectdir": "/p", "image": "img"},
    "mentalray": {"scene": "/s/a.mi", "renderdir": "/r", "image": "img"},
    "blender": {"scene": "/s/a.blend"},
    "lightwave": {"scene": "/s/a.lws", "configdir": "/c", "projectdir": "/p"},
    "terragen": {"scriptfile": "/s/a.tgs", "worldfile": "/s/a.tgw", "terrainfile": "/s/a.ter"},
    "shake": {"script": "/s/a.shk"},
    "nuke": {"scene": "/s/a.nk"},
    "3delight": {"scene": "/s/a.rib"},
    "pixie": {"scene": "/s/a.rib"},
    "aqsis": {"scene": "/s/a.rib"},
    "mantra": {"scene": "/s/a", "renderdir": "/s/a"},
    "aftereffects": {"project": "/s/a.aep", "comp": "comp 1"},
    "xsi": {"scene": "/s/a.scn", "xsipass": "main", "renderdir": "/r", "image": "img", "imageExt": "pic"},
    "luxrender": {"scene": "/s/a.lxs"},
}


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where scripts go; no link to a master is left behind."""
    folder = tmp_path / "a folder for scripts"
    folder.mkdir()
    monkeypatch.setenv("DRQUEUE_TMP", str(folder))
    monkeypatch.setattr(session, "PATIENCE_S", 0.0)
    monkeypatch.chdir(tmp_path)
    yield folder
    session.close()


def submitted(master: Peer) -> JobSpec:
    (message,) = [message for message in master.heard if isinstance(message, messages.Submit)]
    return message.spec


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_each_type_of_file_becomes_a_job(master: Peer, drqueue: Command, scripts: Path, kind: str) -> None:
    """Name, owner, range and kind from the file; email is the owner; the command is the script."""
    (scripts / "job").write_text(FILES[kind])
    said = drqueue("classic", "sendjob", "-t", kind, str(scripts / "job"))
    assert said == Said(0, "", "Job sent successfuly to the queue\n")
    spec = submitted(master)
    (layer,) = spec.layers
    owner = getpass.getuser() if kind in ("blender", "luxrender") else "ann"
    assert (spec.name, spec.owner, spec.email, spec.mail_when_finished) == ("shot", owner, owner, False)
    assert (spec.kind, spec.params) == (kind, KEPT[kind])
    blocks = {"blender": 2, "luxrender": 2, "xsi": 4}
    assert (layer.frames, layer.chunk) == ("2-10x2", blocks.get(kind, 1))
    xsi = kind == "xsi"
    assert (spec.priority, spec.max_running, layer.pad) == ((77, 3, 6) if xsi else (500, 0, 4))
    assert (spec.pool, spec.max_per_slave) == ("Default", 0)
    (script,) = [path for path in scripts.iterdir() if path.name != "job"]
    assert shlex.split(layer.shell) == [str(script)]
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    for value in KEPT[kind].values():
        assert value in script.read_text() or value in ("img", "pic", "main")


def test_a_command_becomes_a_job(master: Peer, drqueue: Command, scripts: Path, tmp_path: Path) -> None:
    """Of type general: its name is the file's, as typed; the range is what -f says."""
    render = program(tmp_path / "my render.sh")
    said = drqueue("classic", "sendjob", "-t", "general", "-f", "10:20:5", "my render.sh")
    assert said == Said(0, "", "Job sent successfuly to the queue\n")
    spec = submitted(master)
    assert (spec.name, spec.owner, spec.kind, spec.priority) == (
        "my render.sh", getpass.getuser(), "general", 500
    )  # fmt: skip
    assert (spec.layers[0].frames, spec.layers[0].chunk) == ("10-20x5", 1)
    (script,) = scripts.iterdir()
    assert repr(str(render)) in script.read_text()


@pytest.mark.parametrize(("flags", "frames"), [((), "1-1x1"), (("-f", "5:9:0"), "5-9x1")])
def test_the_range_of_a_command(
    master: Peer, drqueue: Command, scripts: Path, tmp_path: Path, flags: tuple[str, ...], frames: str
) -> None:
    """One frame where nothing is said; a step of 0 is 1. A command may be found on the PATH, too."""
    assert drqueue("classic", "sendjob", "-t", "general", *flags, "true").status == 0
    assert submitted(master).layers[0].frames == frames
    assert "'true'" in next(scripts.iterdir()).read_text()


def test_debug_prints_the_job(master: Peer, drqueue: Command, scripts: Path) -> None:
    (scripts / "job").write_text(FILES["shake"])
    said = drqueue("classic", "sendjob", "-d", "-t", "shake", str(scripts / "job"))
    assert "shot" in said.out
    assert str(next(path for path in scripts.iterdir() if path.name != "job")) in said.out
    assert said.err == "Job sent successfuly to the queue\n"


def test_scripts_go_where_the_environment_says(
    master: Peer, drqueue: Command, scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DRQUEUE_TMP, else tmp in DRQUEUE_ROOT, else the temporary folder."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "tmp").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.setenv("DRQUEUE_ROOT", str(root))
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    drqueue("classic", "sendjob", "-t", "general", "true")
    monkeypatch.delenv("DRQUEUE_TMP")
    drqueue("classic", "sendjob", "-t", "general", "true")
    monkeypatch.delenv("DRQUEUE_ROOT")
    drqueue("classic", "sendjob", "-t", "general", "true")
    assert [len(os.listdir(folder)) for folder in (scripts, root / "tmp", elsewhere)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("job", "-t is missing: the type (see sendjob -h)"),
        ("-t turtle job", "there is no type 'turtle' (see sendjob -h)"),
        ("-t maya", "the file is missing (see sendjob -h)"),
        ("-t maya a b", "'b' is one word too many (see sendjob -h)"),
        ("-t maya -f 1:2:3 job", "-f is for type general only: the file says the frames"),
        ("-t general -f 1:2 run", "-f '1:2': first frame, last frame and step are three numbers, as in"),
        ("-t general -f 1:2:x run", "-f '1:2:x': first frame, last frame and step are three numbers, as in"),
        ("-t general -f 2:1:1 run", "-f '2:1:1': the last frame is before the first one"),
        ("-t general -f 1:9999999999:1 run", "run: "),
        ("-t general nothere", "there is no file nothere"),
        ("-t general ./true", "there is no file ./true"),
        ("-t general plain", "plain cannot be executed: chmod +x it"),
        ("-t maya nothere", "nothere: No such file or directory"),
        ("-t shake short", "short: line 5 (step) is missing"),
        ("-t shake letters", "letters: line 3 (start): 'x' is no whole number"),
        ("-t shake backwards", "backwards: line 4 (end): 1 is before the start, 2"),
        ("-t shake long", "long: name has 128 characters, 127 are allowed"),
        ("-t shake bytes", "bytes: it is no text in UTF-8"),
        ("-t maya norender", "Information not complete."),
    ],
)
def test_what_cannot_be_sent_is_one_sentence(
    master: Peer, drqueue: Command, scripts: Path, tmp_path: Path, words: str, sentence: str
) -> None:
    """And neither a job nor a script comes of it."""
    program(tmp_path / "run")
    for name, text in {
        "job": "", "plain": "", "short": "ann\nshot\n1\n2\n", "letters": "ann\nshot\nx\n2\n1\ns\n",
        "backwards": "ann\nshot\n2\n1\n1\ns\n", "long": f"ann\n{'n' * 128}\n1\n2\n1\ns\n",
        "norender": FILES["maya"].replace("/r\n", "\n"),
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    (tmp_path / "bytes").write_bytes(b"ann\n\xff\n1\n2\n1\ns\n")
    said = drqueue("classic", "sendjob", *shlex.split(words))
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(f"sendjob: {sentence}")
    assert said.err.count("\n") == 1
    assert master.heard == []
    assert list(scripts.iterdir()) == []


def test_without_a_master_no_script_is_left(
    drqueue: Command, scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{tmp_path}/nobody.sock")
    said = drqueue("classic", "sendjob", "-t", "general", "true")
    assert said.status == 1
    assert said.err.startswith("sendjob: Could not connect to master")
    assert list(scripts.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(
    master: Peer, drqueue: Command, scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRQUEUE_TMP", f"{tmp_path}/nowhere")
    said = drqueue("classic", "sendjob", "-t", "general", "true")
    assert said == Said(
        1, "", f"sendjob: no script can be written to {tmp_path}/nowhere: No such file or directory\n"
    )
