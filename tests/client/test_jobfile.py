"""Job files: what they may say, and the sentence for what they may not."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from drqueue.client import jobfile
from drqueue.client.jobfile import JobFileError, read_job_file
from drqueue.proto.checks import check_spec
from drqueue.proto.model import Alternative, Depend, JobSpec, LayerDepend, LayerSpec, Needs


def read(tmp_path: Path, text: str) -> JobSpec:
    path = tmp_path / "job.toml"
    path.write_text(dedent(text))
    return read_job_file(str(path), cwd="/here", owner="ann")


def test_the_example_in_the_documentation_is_a_job(tmp_path: Path) -> None:
    documented = jobfile.__doc__ or ""
    example = documented[documented.index("    [job]") : documented.index("\nA command is")]
    spec = read(tmp_path, example)
    assert check_spec(spec) is None
    assert [layer.name for layer in spec.layers] == ["render", "encode"]
    assert spec.layers[0].needs == Needs(cores=4, memory_mb=8000, tags=("ssd",))
    assert spec.layers[0].limits == {"arnold": 1}
    assert spec.layers[1].shell.startswith("ffmpeg")
    assert spec.layers[1].after == ("render",)


def test_everything_that_a_job_has_can_be_said(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        """
        [job]
        name = "n"
        owner = "bob"
        project = "p"
        priority = 7
        pool = "gpu"
        env = { A = "1" }
        depends = [3, { job = 4, until = "ended" }]
        not_before = 12.5
        max_running = 2
        max_per_slave = 1
        blocked = ["bad1"]
        lease_s = 60
        on_unreachable = "hold"
        stopped = true
        delete_when_finished = true

        [[layer]]
        name = "l"
        command = ["a", "b c"]
        frames = "1-10x2"
        chunk = 3
        cores = 2
        memory_mb = 100
        os = ["linux"]
        retries = 1
        timeout_s = 9
        cwd = "sub"
        env = { B = "2" }
        outputs = ["o"]
        progress = "([0-9]+)%"
        """,
    )
    assert spec == JobSpec(
        name="n",
        owner="bob",
        project="p",
        priority=7,
        pool="gpu",
        env={"A": "1"},
        depends=(Depend(job=3), Depend(job=4, until="ended")),
        not_before=12.5,
        max_running=2,
        max_per_slave=1,
        blocked=("bad1",),
        lease_s=60,
        on_unreachable="hold",
        stopped=True,
        delete_when_finished=True,
        layers=(
            LayerSpec(
                name="l",
                argv=("a", "b c"),
                frames="1-10x2",
                chunk=3,
                needs=Needs(cores=2, memory_mb=100, os=("linux",)),
                retries=1,
                timeout_s=9,
                cwd=str(tmp_path / "sub"),
                env={"B": "2"},
                outputs=("o",),
                progress="([0-9]+)%",
            ),
        ),
    )


def test_needs_dependencies_limits_and_orders_can_be_said(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        """
        [job]
        depends = [3, "4/sim:50%", { job = 5, layer = "x", frames = "any", until = "ended" }]
        max_failures = 9

        [[layer]]
        name = "sim"
        command = ["a"]
        depends = "previous"
        limits = ["houdini", "big", "houdini"]

        [[layer]]
        name = "render"
        command = ["a"]
        cores = 0.5
        gpus = 1
        gpu_memory_mb = 8000
        disk_mb = 50000
        amounts = { bandwidth = 0.25 }
        tags = "ssd"
        where = '''os == "linux" and
            cpu ~ "*EPYC*"'''
        depends = ["sim:each-1", "7", { layer = "sim", frames = "percent", percent = 10.5 }]
        order = "coarse"
        next = 5
        limits = { nuke = 2 }

        [[layer.alternatives]]
        cores = 16
        memory_mb = 32000
        """,
    )
    assert check_spec(spec) is None
    assert spec.max_failures == 9
    assert spec.depends == (
        Depend(3),
        Depend(4, layer="sim", frames="percent", percent=50),
        Depend(5, "ended", layer="x", frames="any"),
    )
    sim, render = spec.layers
    assert sim.depends == (LayerDepend(frames="previous"),)
    assert sim.limits == {"houdini": 2, "big": 1}
    assert render.needs == Needs(
        cores=0.5,
        gpus=1,
        gpu_memory_mb=8000,
        disk_mb=50000,
        amounts={"bandwidth": 0.25},
        tags=("ssd",),
        where='os == "linux" and\n    cpu ~ "*EPYC*"',
        alternatives=(Alternative(cores=16, memory_mb=32000),),
    )
    assert render.depends == (
        LayerDepend(layer="sim", frames="each", offset=-1),
        LayerDepend(job=7),
        LayerDepend(layer="sim", frames="percent", percent=10.5),
    )
    assert (render.order, render.next, render.limits) == ("coarse", "5", {"nuke": 2})


def test_what_is_left_out_has_a_sensible_value(tmp_path: Path) -> None:
    spec = read(tmp_path, "[[layer]]\ncommand = '/usr/bin/render x'\nframes = 7")
    assert (spec.name, spec.owner) == ("render", "ann")
    assert spec.layers[0].cwd == "/here"
    assert spec.layers[0].frames == "7"


def test_a_scratch_folder_is_no_path(tmp_path: Path) -> None:
    assert read(tmp_path, "[[layer]]\ncommand = ['x']\ncwd = 'scratch'").layers[0].cwd == "scratch"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[jobs]", "unknown key 'jobs' in the file: did you mean 'job'?"),
        ("[job]\nname = 'x'", "it needs at least one [[layer]] table"),
        (
            "[job]\nprio = 3\n[[layer]]\ncommand = 'x'",
            "unknown key 'prio' in [job]: did you mean 'priority'?",
        ),
        (
            "[[layer]]\nname = 'r'\ncommand = 'x'\nframe = '1'",
            "unknown key 'frame' in layer 'r': did you mean 'frames'?",
        ),
        ("[[layer]]\nframes = '1'", "[[layer]] number 1: a command is missing"),
        (
            "[[layer]]\ncommand = 3",
            "[[layer]] number 1: command must be a list of words, or a string for the shell",
        ),
        ("[[layer]]\ncommand = ['x', 3]", "command must be a list of words"),
        (
            "[job]\npriority = 'high'\n[[layer]]\ncommand = 'x'",
            "[job]: priority: expected `int`, got `str`",
        ),
        ("[[layer]]\ncommand = 'x'\ncores = 0", "number 1: cores: a number above 0 is expected"),
        ("[job]\ndepends = ['x']\n[[layer]]\ncommand = 'x'", "[job]: depends: 'x' is no dependency: ID"),
        (
            "[job]\ndepends = ['1:each']\n[[layer]]\ncommand = 'x'",
            "[job]: depends: '1:each' is frame by frame: it belongs into a [[layer]]",
        ),
        (
            "[job]\ndepends = [1, 1.5]\n[[layer]]\ncommand = 'x'",
            "depends number 2 of [job] must be a table",
        ),
        (
            "[[layer]]\ncommand = 'x'\ndepends = ['b:all:any']",
            "[[layer]] number 1: depends: 'b:all:any' is no dependency: it says twice",
        ),
        (
            "[[layer]]\nname = 'l'\ncommand = 'x'\ndepends = [{ layers = 'a' }]",
            "unknown key 'layers' in depends number 1 of layer 'l': did you mean 'layer'?",
        ),
        (
            "[[layer]]\ncommand = 'x'\nalternatives = [{ core = 2 }]",
            "unknown key 'core' in alternatives of [[layer]] number 1: did you mean 'cores'?",
        ),
        (
            "[[layer]]\ncommand = 'x'\nalternatives = [2]",
            "alternatives of [[layer]] number 1 must be a table",
        ),
        (
            "[[layer]]\ncommand = 'x'\ngpu = 2",
            "unknown key 'gpu' in [[layer]] number 1: did you mean 'gpus'?",
        ),
        (
            "[[layer]]\ncommand = 'x'\ndepends = [{ layer = 'a', frames = 'some' }]",
            "depends[0].frames: 'some' is none of all, any, percent, each, previous",
        ),
        ("[[layer]]\ncommand = 'x'\nlimits = { a = 0 }", "limits[...]: a number above 0 is expected"),
        ("layer = 3", "it needs at least one [[layer]] table"),
        ("job = 3\n[[layer]]\ncommand = 'x'", "[job] must be a table"),
        ("[job", "is not TOML: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(JobFileError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    assert sentence in said
    assert said.startswith(str(tmp_path / "job.toml"))
    assert "\n" not in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"nothing\.toml: cannot be read: No such file"):
        read_job_file(str(tmp_path / "nothing.toml"), cwd="/", owner="ann")


@pytest.mark.parametrize("value", [[], {}, 1.5, True, "text"])
@pytest.mark.parametrize("key", sorted(jobfile.LAYER_KEYS))
def test_odd_values_are_taken_or_told_never_a_crash(key: str, value: Any) -> None:
    content = {"layer": [{"command": "x", key: value}]}
    told = ""
    try:
        assert jobfile.job_of(content, folder="/f", cwd="/c", owner="o").layers
    except JobFileError as error:
        told = str(error)
    assert "\n" not in told
