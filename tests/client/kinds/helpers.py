"""Runs what a kind makes as a slave would: placeholders filled in, a real /bin/sh, renderers that record.

A recording renderer writes its words and its folder as one line of JSON, and exits with the status that its
environment asks for.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drqueue.client.kinds import Frames, find
from drqueue.proto.checks import check_spec
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import JobSpec, LayerSpec, RunOrder
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.slave.environment import Node, command

PROGRAMS = (
    *("Render", "ray", "blender", "renderdl", "rndr", "aqsis", "rendrib", "mantra", "lwsn", "nuke", "shake"),
    *("aerender", "terragenCLI", "Turtle65", "Turtle70", "xsibatch", "luxconsole", "vray", "3dsmaxcmd.exe"),
    *("CINEMA 4D", "wine", "povray", "ffmpeg", "any"),
)
_RECORDER = """\
#!{python} -S
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
with open(os.environ["CALLS"] + ".cwd", "a") as file:
    file.write(os.getcwd() + "\\n")
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@dataclass
class Ran:
    """What one attempt did."""

    calls: list[list[str]]
    status: int
    out: str = ""
    folders: list[str] = field(default_factory=list)


@dataclass
class Bench:
    """A folder with recording renderers, and one to work in."""

    folder: Path

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.work = self.folder / "work"
        self.work.mkdir()
        recorder = self.folder / "recorder"
        recorder.write_text(_RECORDER.replace("{python}", sys.executable))
        recorder.chmod(0o755)
        for name in PROGRAMS:
            (self.bin / name).symlink_to(recorder)

    def run(self, argv: tuple[str, ...], env: Mapping[str, str], status: int = 0) -> Ran:
        """Run one command to its end."""
        calls = self.folder / "calls"
        for old in (calls, Path(f"{calls}.cwd")):
            old.unlink(missing_ok=True)
        own = {"PATH": f"{self.bin}:{os.environ['PATH']}", "CALLS": str(calls), "STATUS": str(status)}
        ended = subprocess.run(
            argv, env={**env, **own}, cwd=self.work, capture_output=True, text=True, timeout=30, check=False
        )
        if not calls.exists():
            return Ran([], ended.returncode, ended.stdout + ended.stderr)
        lines = [json.loads(line) for line in calls.read_text().splitlines()]
        folders = Path(f"{calls}.cwd").read_text().splitlines()
        return Ran(lines, ended.returncode, ended.stdout + ended.stderr, folders)

    def attempts(self, layer: LayerSpec, status: int = 0) -> list[Ran]:
        """Run every chunk of a layer as an attempt of two cores."""
        assert check_spec(JobSpec(name="job", layers=(layer,))) is None
        frames = FrameRange.parse(layer.frames)
        chunks = Chunks(frames, layer.chunk)
        ran = []
        for number in range(len(chunks)):
            members = chunks.members(number)
            order = RunOrder(
                key=AttemptKey(0, 0, number, 1),
                start=members[0],
                step=members.step,
                count=len(members),
                argv=layer.argv,
                shell=layer.shell,
                cwd=str(self.work),
                outputs=layer.outputs,
                cores=2,
                range_start=frames.single[0] if frames.single else frames.min,
                range_end=frames.single[1] if frames.single else frames.max,
                range_step=frames.single[2] if frames.single else 1,
                block=layer.chunk,
            )
            made = command(order, Node({}, "/", "/"))
            ran.append(self.run(made.argv, made.env, status))
        return ran

    def calls(self, kind: str, frames: str | None, chunk: int | None, **params: object) -> list[list[str]]:
        """All calls of a kind's job, every attempt of which must succeed."""
        ran = self.attempts(find(kind).build(params, Frames(frames, chunk)))
        assert [one.status for one in ran] == [0] * len(ran), ran
        return [call for one in ran for call in one.calls]
