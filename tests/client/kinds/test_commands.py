"""Kinds at the command line, in job files and in the documentation."""

import json
import re
import sys
import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from drqueue.client.cli import main as cli_main
from drqueue.client.cli import submit as cli_submit
from drqueue.client.jobfile import JobFileError, job_of
from drqueue.client.kinds import KINDS
from drqueue.proto.checks import check_spec
from drqueue.proto.model import JobSpec

ROOT = Path(__file__).parents[3]


class Sent(BaseException):
    """A job that would have been submitted."""

    def __init__(self, spec: JobSpec) -> None:
        super().__init__()
        self.spec = spec


@pytest.fixture
def no_master(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Submitting ends with the job itself."""

    def sent(*words: Any) -> Any:
        raise Sent(jobs[-1])

    jobs: list[JobSpec] = []
    real = cli_submit._job

    def job(*words: Any, **fields: Any) -> Any:
        jobs.append(real(*words, **fields))
        return jobs[-1]

    monkeypatch.setattr(cli_submit, "_job", job)
    monkeypatch.setattr(cli_submit, "asked", sent)
    monkeypatch.chdir(tmp_path)


def submitted(*words: str) -> JobSpec:
    """The job of a command line."""
    with pytest.raises(Sent) as caught:
        cli_main.run(["submit", *words])
    assert check_spec(caught.value.spec) is None
    return caught.value.spec


@pytest.mark.usefixtures("no_master")
def test_options_and_parameters_make_one_job(tmp_path: Path) -> None:
    options = ["--frames", "1-9x2", "--chunk", "3", "--cores", "2", "--output", "log.txt", "--retries", "1"]
    params = ["--set", "scene=/d/a b.nk", "--set", "verbose=on"]
    spec = submitted("--kind", "NUKE", *options, *params, "--priority", "7", "--env", "A=1")
    (layer,) = spec.layers
    assert (spec.kind, spec.params) == ("nuke", {"scene": "/d/a b.nk", "verbose": "yes"})
    assert (spec.name, spec.priority, spec.env) == ("a b.nk", 7, {"A": "1"})
    assert (layer.frames, layer.chunk, layer.retries, layer.needs.cores) == ("1-9x2", 3, 1, 2)
    assert (layer.cwd, layer.outputs) == (str(tmp_path), ("log.txt",))
    assert "nuke -V -x" in layer.shell


@pytest.mark.usefixtures("no_master")
def test_outputs_of_a_kind_and_of_the_user_are_both_declared() -> None:
    spec = submitted("--kind", "tracer", "--set", "output=a_##.png", "--output", "log.txt", "--name", "mine")
    assert spec.layers[0].outputs == ("a_{frame:02d}.png", "log.txt")
    assert spec.name == "mine"


@pytest.mark.usefixtures("no_master")
def test_the_general_kind_takes_a_command_either_way() -> None:
    assert submitted("--set", "command=echo {frame} | cat").layers[0].shell == "echo {frame} | cat"
    assert submitted("--kind", "general", "--", "echo", "{frame}").layers[0].argv == ("echo", "{frame}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kind", "blendr"], "there is no kind 'blendr': did you mean 'blender'?"),
        (["--kind", "maya"], "the kind maya needs the parameter scene: the scene file"),
        (
            ["--kind", "maya", "--set", "scne=x"],
            "the kind maya has no parameter 'scne': did you mean 'scene'?",
        ),
        (["--kind", "nuke", "--set", "scene=a", "--set", "scene=b"], "--set scene= is given 2 times"),
        (["--kind", "nuke", "--set", "scene=a", "--", "true"], "a kind's parameters (--set) or a COMMAND"),
        (["--kind", "nuke", "--file", "x.toml"], "write kind and params into x.toml"),
        (["--set", "scene=a", "--file", "x.toml"], "write kind and params into x.toml"),
        (["--kind", "blender", "--frames", "1-x", "--set", "scene=a"], "1-x"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_main.run(["submit", *words]) == cli_main.USAGE
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "see"),
    [
        (["--kind", "Maya"], "drqueue kinds maya"),
        (["--kind", "blender", "--set", "scene=a", "--set", "width=x"], "drqueue kinds blender"),
        (["--kind", "blendr"], "drqueue kinds"),
        (["--file", "nuke.toml"], "drqueue kinds nuke"),
        (["--file", "nuk.toml"], "drqueue kinds"),
        (["--file", "wrong.toml"], "drqueue submit --help"),
        (["--kind", "blender", "--frames", "1-x", "--set", "scene=a"], "drqueue submit --help"),
        (["--kind", "nuke", "--set", "scene=a", "--set", "scene=b"], "drqueue submit --help"),
    ],
)
def test_mistakes_name_the_page_that_explains(
    words: list[str],
    see: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("nuke", 'kind = "Nuke"'),
        ("nuk", 'kind = "nuk"'),
        ("wrong", 'command = ["true"]\nnonsense = 1'),
    ):
        (tmp_path / f"{name}.toml").write_text(f"[[layer]]\n{text}\n")
    assert cli_main.run(["submit", *words]) == cli_main.USAGE
    assert capsys.readouterr().err.endswith(f" (see `{see}`)\n")


@pytest.mark.parametrize(
    ("kind", "params", "name"),
    [
        ("blender", {"output": "out/p_####.png", "scene": "/d/shot 12.blend"}, "shot 12.blend"),
        ("luxrender", {"scene": "d/fog_##.lxs"}, "fog"),
        ("mantra", {"scene": "fog.####.ifd", "renderdir": "/r/x"}, "fog"),
        ("ffmpeg", {"input": "neg_####.png", "output": "/m/movie.mp4"}, "movie.mp4"),
        ("tracer", {"output": "a-{frame:04d}.png"}, "a"),
        ("tracer", {"output": "%04d_b.png"}, "b"),
        ("tracer", {"output": "out/####.png"}, "tracer"),
        ("tracer", {}, "tracer"),
        ("povray", {"ini": "x.ini", "output": "####.png"}, "x.ini"),
        ("shake", {"script": "s.shk"}, "s.shk"),
        ("aftereffects", {"project": "/p/s.aep", "comp": "c", "output": "o_[####].psd"}, "s.aep"),
        ("general", {"command": "echo ####"}, "general"),
    ],
)
def test_a_job_is_named_after_its_scene_or_output_without_a_pattern(
    kind: str, params: dict[str, str], name: str
) -> None:
    assert KINDS[kind].default_job_name(params) == name


def test_kinds_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["kinds"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(KINDS)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", KINDS)
def test_a_kinds_parameters_are_shown_with_types_defaults_and_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_main.run(["kinds", name]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for param in KINDS[name].params:
        (line,) = re.findall(rf"^{param.name}: (.*)$", text, re.MULTILINE)
        assert param.wanted() in line
        assert ("required" in line) == param.required
        assert not param.default or f"default {param.default}" in line
        assert " ".join(param.help.split()) in " ".join(text.split())


def test_kinds_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["kinds", "--json"]) == 0
    assert [kind["name"] for kind in json.loads(capsys.readouterr().out)] == list(KINDS)
    assert cli_main.run(["kinds", "povray", "--json"]) == 0
    shown = {param["name"]: param for param in json.loads(capsys.readouterr().out)["params"]}
    assert shown["antialias"]["type"] == "number"
    assert (shown["antialias"]["least"], shown["antialias"]["most"]) == (0, 3)
    assert shown["output"]["default"] == "frame_####.png"


def test_an_unknown_kind_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["kinds", "mya"]) == cli_main.USAGE
    assert "did you mean 'maya'?" in capsys.readouterr().err


# -- job files --------------------------------------------------------------------------------------------


def job(text: str) -> JobSpec:
    """The job of a file's text."""
    spec = job_of(tomllib.loads(dedent(text)), folder="/f", cwd="/c", owner="ann")
    assert check_spec(spec) is None
    return spec


def test_layers_have_kinds_in_place_of_commands() -> None:
    spec = job(
        """
        [[layer]]
        kind = "Blender"
        frames = 7
        cores = 3
        outputs = ["more"]
        cwd = "sub"
        params = { scene = "a.blend", output = "o_##.png", percentage = 50, autoexec = true }

        [[layer]]
        name = "encode"
        kind = "ffmpeg"
        params = { input = "o_##.png", output = "m.mp4" }
        after = ["main"]

        [[layer]]
        name = "tell"
        command = ["true"]
        """
    )
    assert (spec.kind, spec.name) == ("blender", "a.blend")
    assert spec.params == {"scene": "a.blend", "output": "o_##.png", "percentage": "50", "autoexec": "yes"}
    render, encode, tell = spec.layers
    assert (render.frames, render.chunk, render.needs.cores, render.cwd) == ("7", 1, 3, "/f/sub")
    assert render.outputs == ("o_{frame:02d}.png", "more")
    assert "--enable-autoexec" in render.shell
    assert (encode.argv[0], encode.outputs, encode.after, encode.cwd) == (
        "ffmpeg",
        ("m.mp4",),
        ("main",),
        "/c",
    )
    assert tell.argv == ("true",)


def test_a_job_may_say_itself_what_it_was_made_of() -> None:
    spec = job('[job]\nkind = "mine"\n[[layer]]\nkind = "nuke"\nparams = { scene = "a" }\n')
    assert (spec.kind, spec.params) == ("mine", {})
    assert job('[[layer]]\ncommand = "x"\n').kind == "general"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('kind = "nuke"', "layer number 1: the kind nuke needs the parameter scene"),
        ('kind = "nuk"', "there is no kind 'nuk': did you mean 'nuke'?"),
        ("kind = 3", "kind must be the name of one"),
        ('kind = "nuke"\nparams = 3', "params of [[layer]] number 1 must be a table"),
        ('kind = "nuke"\ncommand = "x"', "either a command, or kind and params"),
        ('kind = "nuke"\nframes = []\nparams = { scene = "a" }', "frames must be a range"),
        ('kind = "nuke"\nchunk = "x"\nparams = { scene = "a" }', "chunk a whole number"),
        ('kind = "nuke"\nparams = { scene = ["a"] }', "scene is a path, not ['a']"),
        ('kind = "ffmpeg"\nframes = "1-2"\nparams = { input = "#", output = "o" }', "has one frame"),
        ('params = { scene = "a" }', "the kind general has no parameter 'scene'"),
    ],
)
def test_what_a_file_gets_wrong_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(JobFileError) as caught:
        job(f"[[layer]]\n{text}\n")
    assert sentence in str(caught.value).replace("[[layer]] number 1: the", "layer number 1: the")


# -- the page ---------------------------------------------------------------------------------------------


def test_the_page_names_every_kind_and_parameter() -> None:
    page = (ROOT / "docs" / "kinds.md").read_text()
    for kind in KINDS.values():
        section = page.split(f"\n### {kind.name}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [param.name for param in kind.params]


def test_kinds_cost_nothing_where_they_are_not_used() -> None:
    """Looking at a job loads no kind; kinds load neither trio nor the command line."""
    import subprocess

    code = (
        "import sys; import drqueue.client.cli.main, drqueue.client.cli.submit, drqueue.client.jobfile; "
        "assert not [m for m in sys.modules if m.startswith('drqueue.client.kinds')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, drqueue.client.kinds.params, drqueue.client.kinds.sendjob, drqueue.client.kinds.table; "
        "assert not {'click', 'rich', 'trio', 'subprocess'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
