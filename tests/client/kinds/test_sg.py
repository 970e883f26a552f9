"""Job scripts: written to disk, run by a Python that knows nothing of DrQueue, with renderers that record."""

import os
import shlex
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from drqueue import sg
from drqueue.sg import ScriptError
from tests.client.kinds.helpers import Bench, Ran

#: For every generator what it must be given, and the calls for frames 1, 3 and 5.
CALLS: dict[str, tuple[dict[str, object], list[str]]] = {
    "general": ({"script": "any"}, ["any 1", "any 3", "any 5"]),
    "maya": (
        {"scene": "s.ma", "renderdir": "/r", "projectdir": "/p", "renderer": 0, "res_x": 4},
        ["Render -n 2 -s 1 -e 5 -b 2 -x 4 -rd /r -proj /p -r sw s.ma"],
    ),
    "mentalray": ({"scene": "/s.mi", "renderdir": "."}, [f"ray /s.mi -render {n} {n}" for n in (1, 3, 5)]),
    "threedelight": ({"scene": "s"}, [f"renderdl -frames {n} {n} s" for n in (1, 3, 5)]),
    "pixie": ({"scene": "s"}, [f"rndr -f {n} s" for n in (1, 3, 5)]),
    "aqsis": ({"scene": "s", "verbose": 1}, [f"aqsis -frames {n} {n} s" for n in (1, 3, 5)]),
    "bmrt": ({"scene": "s", "disp_stats": 1}, [f"rendrib -frames {n} {n} -stats s" for n in (1, 3, 5)]),
    "mantra": (
        {
            "scene": "s",
            "renderdir": "i",
            "custom_WH": 1,
            "Width": 4,
            "height": 3,
            "raytrace": "1",
            "aaoff": 1,
        },
        [f"mantra -f s{n:04d}.ifd -A -r -w 4 -h 3 i{n:04d}.pic" for n in (1, 3, 5)],
    ),
    "lightwave": ({"scene": "s", "configdir": "/c"}, ["lwsn -3 -c /c -q s 1 5 2"]),
    "nuke": ({"scene": "s"}, ["nuke -x -m 2 -F 1-5x2 s"]),
    "shake": ({"script": "s"}, ["shake -v -t 1-5x2 -exec s"]),
    "aftereffects": (
        {"project": "/p/s.aep", "comp": "c"},
        [
            (
                "aerender -project /p/s.aep -comp c -OMtemplate Multi-Machine_Sequence -RStemplate "
                "Multi-Machine_Settings -s 1 -e 5 -i 2 -output /p/frame_[####].psd"
            )
        ],
    ),
    "terragen": ({"scriptfile": "s"}, ["terragenCLI -hide -exit -ss 1 1 5 2"]),
    "turtle": (
        {"scene": "s", "renderdir": "/r", "projectdir": "/p", "usemaya70": 0},
        [
            f"Turtle65 -geometry s -imageOutputPath /r -projectPath /p -renderThreads 2 -display off "
            f"-startframe {n} -endframe {n}"
            for n in (1, 3, 5)
        ],
    ),
    "xsi": (
        {"scene": "/s", "renderdir": ".", "xsiDir": "BIN", "imageExt": "pic", "skipFrames": 1},
        [f"xsibatch -r -scene /s -verbose prog -startframe {n} -endframe {n} -skip on" for n in (1, 3, 5)],
    ),
    "luxrender": ({"scene": "s_##.lxs"}, [f"luxconsole s_{n:02d}.lxs" for n in (1, 3, 5)]),
    "vray": (
        {"scene": "s"},
        [f"vray -scenefile=s -numThreads=2 -autoClose=1 -frames={n} -display=0" for n in (1, 3, 5)],
    ),
    "threedsmax": ({"scene": "s"}, ["3dsmaxcmd.exe -rfw:0 -frames:1,3,5 s"]),
    "cinema4d": (
        {"scene": "s", "renderdir": "/r", "file_owner": "ann"},
        [f"CINEMA_4D -nogui -render s -oimage /r -frame {n} -omultipass /r -threads 2" for n in (1, 3, 5)],
    ),
}


@pytest.fixture
def scripts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that scripts go to."""
    folder = bench.folder / "scripts"
    folder.mkdir()
    monkeypatch.setenv("DRQUEUE_TMP", str(folder))
    return folder


def run(bench: Bench, path: str, numbers: str = "1 3 5", status: int = 0, **env: str) -> Ran:
    """Run a script as an attempt at those frames; its shebang finds a bare Python."""
    members = numbers.split()
    step = int(members[1]) - int(members[0]) if len(members) > 1 else 1
    (bench.bin / "python3").unlink(missing_ok=True)
    wrapper = bench.bin / "python3"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    wrapper.chmod(0o755)
    own = {
        "DRQUEUE_FRAME": members[0],
        "DRQUEUE_PADFRAMES": " ".join(f"{int(word):04d}" for word in members),
        "DRQUEUE_STARTFRAME": members[0],
        "DRQUEUE_ENDFRAME": members[-1],
        "DRQUEUE_STEPFRAME": str(step),
        "DRQUEUE_BLOCKSIZE": str(len(members)),
        "DRQUEUE_THREADS": "2",
        **env,
    }
    return bench.run((path,), own, status)


def words(calls: list[list[str]]) -> list[str]:
    """Calls on a line each, blanks in words shown as _."""
    return [" ".join(word.replace(" ", "_") for word in call) for call in calls]


@pytest.mark.parametrize("name", CALLS)
def test_scripts_call_their_renderer_for_every_frame_of_their_block(
    bench: Bench, scripts: Path, name: str
) -> None:
    params, calls = CALLS[name]
    given = {key: str(bench.bin) if value == "BIN" else value for key, value in params.items()}
    path = getattr(sg, name)(**given)
    assert Path(path).parent == scripts
    ran = run(bench, path)
    assert words(ran.calls) == calls
    assert ran.status == 0, ran.out
    assert ran.out.splitlines()[-1] == "Finished."
    assert len(ran.out.splitlines()) == len(calls) + 1  # each command is printed
    # Without the list of numbers: from the variables that every farm had.
    assert words(run(bench, path, DRQUEUE_PADFRAMES="").calls) == calls


def test_every_generator_of_the_original_has_a_case() -> None:
    made = {name: value for name, value in vars(sg).items() if isinstance(value, partial)}
    assert set(made) == {*CALLS, "blender"}
    assert getattr(sg, "3delight").args == made["threedelight"].args  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="povray"):
        sg.__getattr__("povray")


def test_a_block_ends_at_the_end_of_the_range(bench: Bench, scripts: Path) -> None:
    """Three frames a block, two left; and one that counts down."""
    path = sg.pixie(scene="s")
    rest = run(bench, path, "7 9", DRQUEUE_PADFRAMES="", DRQUEUE_BLOCKSIZE="3")
    assert [call[2] for call in rest.calls] == ["7", "9"]
    down = run(bench, path, "4 3 2", DRQUEUE_PADFRAMES="")
    assert [call[2] for call in down.calls] == ["4", "3", "2"]
    assert run(bench, sg.nuke(scene="s"), "4 3 2").calls[0][5] == "2-4x1"


def test_a_consecutive_block_is_one_call(bench: Bench, scripts: Path) -> None:
    assert words(run(bench, sg.threedelight(scene="s"), "1 2 3").calls) == ["renderdl -frames 1 3 s"]
    assert words(run(bench, sg.threedsmax(scene="s"), "1 2 3").calls) == [
        "3dsmaxcmd.exe -rfw:0 -frames:1-3 s"
    ]


def test_a_failure_ends_the_script_with_its_status(bench: Bench, scripts: Path) -> None:
    ran = run(bench, sg.pixie(scene="s"), status=7)
    assert (ran.status, len(ran.calls)) == (7, 1)
    assert ran.out.splitlines()[-1] == "Requeueing frame..."


def test_a_renderer_that_is_missing_or_killed_is_a_failure(bench: Bench, scripts: Path) -> None:
    (bench.bin / "rndr").unlink()
    ran = run(bench, sg.pixie(scene="s"), PATH_TO="x")
    assert ran.status == 127
    assert "rndr: No such file or directory\nRequeueing frame...\n" in ran.out
    (bench.bin / "rndr").write_text("#!/bin/sh\nkill -9 $$\n")
    (bench.bin / "rndr").chmod(0o755)
    assert run(bench, sg.pixie(scene="s")).status == 137


def test_blender_renders_beside_the_scene(bench: Bench, scripts: Path) -> None:
    (call,) = run(bench, sg.blender(scene="/d/a b.blend"), "3 4 5").calls
    assert call[:4] == ["blender", "-b", "--python-exit-code", "3"]
    assert call[call.index("-o") + 1] == "/d/a b.blend####"
    assert call[call.index("-f") + 1] == "3..5"


def test_the_log_shows_calls_with_their_long_words_shortened(bench: Bench, scripts: Path) -> None:
    """Words themselves reach the renderer whole."""
    path = "/mnt/" + "x" * 200 + ".blend"
    ran = run(bench, sg.blender(scene=path, output="o_####.png"))
    (call,) = ran.calls
    assert path in call
    program = call[call.index("--python-expr") + 1]
    assert len(program.splitlines()) > 20
    first, *others = ran.out.splitlines()
    assert others == ["Finished."]
    assert shlex.split(first) == [
        {path: path[:100] + "...", program: program.splitlines()[0] + "..."}.get(word, word) for word in call
    ]


def test_strips_of_a_picture_are_counted_from_the_top(bench: Bench, scripts: Path) -> None:
    """mental ray's were numbered from 0, Blender's from 1."""
    scene = bench.work / "a.mi"
    scene.write_text('camera "c"\n  output "rgba" "rla" "pic.rla"\n  resolution 8 9\n')
    path = sg.mentalray(scene=str(scene), renderdir=".", render_type=2)
    whole = {"DRQUEUE_STARTFRAME": "0", "DRQUEUE_ENDFRAME": "2"}
    made = [run(bench, path, str(number), **whole).calls[0] for number in range(3)]
    assert [call[3:7] for call in made] == [["0", "6", "8", "9"], ["0", "3", "8", "6"], ["0", "0", "8", "3"]]
    assert [call[-1] for call in made] == [f"pic_000{number}.rla" for number in range(3)]
    whole = {"DRQUEUE_STARTFRAME": "1", "DRQUEUE_ENDFRAME": "3"}
    (call,) = run(bench, sg.blender(scene="a.blend", render_type=2), "3", **whole).calls
    assert call[call.index("-o") + 1] == "a.blend0003.png"
    assert call[-3:] == ["part=3", "parts=3", "frame=1"]


@pytest.mark.parametrize(
    "value",
    ["a b'c\"d", "$(touch x)`y`", '"; import os; os.abort() #', "\\", "{frame}", "%s", "ünï", "{words}"],
)
def test_values_are_text_and_never_code(bench: Bench, scripts: Path, value: str) -> None:
    path = sg.maya(scene=value, renderdir=value, projectdir=value, precommand=value, file_owner=value)
    (call,) = run(bench, path).calls
    assert call.count(value) == 4
    assert list(bench.work.iterdir()) == []
    assert Path(path).read_text().isascii()


def test_scripts_have_a_line_for_every_parameter_that_says_what_it_is(scripts: Path, bench: Bench) -> None:
    path = sg.turtle(scene="s", renderdir="/r", projectdir="/p", res_x="4", file_owner="ann")
    lines = Path(path).read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env python3"
    for line in ("SCENE = 's'", "RENDERDIR = '/r'", "RES_X = 4", "USEMAYA70 = True", "RF_OWNER = 'ann'"):
        assert line in lines
    # They are what is used.
    Path(path).write_text(Path(path).read_text().replace("SCENE = 's'", "SCENE = 'other'"))
    assert run(bench, path, "1").calls[0][2] == "other"


def test_a_script_never_replaces_or_continues_another(scripts: Path) -> None:
    paths = [sg.pixie(scene="/d/sc'ene 1.rib") for _ in range(4)]
    assert len(set(paths)) == 4
    assert len({Path(path).read_text() for path in paths}) == 1
    for path in paths:
        assert Path(path).name.startswith("sc_ene_1.rib.")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


def test_the_mode_does_not_depend_on_the_umask(scripts: Path) -> None:
    before = os.umask(0o077)
    try:
        assert stat.S_IMODE(os.stat(sg.pixie(scene="s")).st_mode) == 0o755
    finally:
        os.umask(before)


def test_scripts_go_where_the_original_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("own", "root/tmp", "tmp", "any"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "any"))
    assert Path(sg.pixie(scene="s")).parent == tmp_path / "any"
    monkeypatch.setenv("DRQUEUE_ROOT", str(tmp_path / "root"))
    assert Path(sg.pixie(scene="s")).parent == tmp_path / "root" / "tmp"
    monkeypatch.setenv("DRQUEUE_TMP", str(tmp_path / "tmp"))
    assert Path(sg.pixie(scene="s")).parent == tmp_path / "tmp"
    assert Path(sg.pixie(scene="s", scriptdir=str(tmp_path / "own"))).parent == tmp_path / "own"
    with pytest.raises(ScriptError, match=r"no script can be written to .*nowhere: No such file"):
        sg.pixie(scene="s", scriptdir=str(tmp_path / "nowhere"))


def test_what_is_missing_is_named_after_the_original_words(scripts: Path) -> None:
    with pytest.raises(OSError, match=r"^Information not complete\. The kind maya needs .* renderdir"):
        sg.maya(scene="s")
    with pytest.raises(ScriptError, match=r"^Information not complete\. .*custom_crop needs xmin"):
        sg.aqsis(scene="s", custom_crop=1)
    with pytest.raises(ScriptError, match="no parameter 'scne': did you mean 'scene'"):
        sg.pixie(scne="s")
    assert list(scripts.iterdir()) == []


def test_general_calls_a_file_or_a_command(bench: Bench, scripts: Path) -> None:
    """A file whose name has blanks is one; words are a command with arguments."""
    (bench.work / "my script").symlink_to(bench.bin / "any")
    path = sg.general(script="my script", uid_owner=1, gid_owner=2)
    assert words(run(bench, path, "1 2").calls) == ["my_script 1", "my_script 2"]
    assert words(run(bench, sg.general(script="any -a 'b c'"), "7").calls) == ["any -a b_c 7"]


def test_scripts_are_plain_python_without_drqueue(scripts: Path) -> None:
    for name, (params, _) in CALLS.items():
        path = getattr(sg, name)(**params)
        code = Path(path).read_text()
        assert "drqueue." not in code
        compiled = subprocess.run(
            [sys.executable, "-W", "error", "-c", "import ast,sys; ast.parse(sys.stdin.read())"],
            input=code,
            text=True,
            capture_output=True,
            check=False,
        )
        assert compiled.returncode == 0, compiled.stderr


def test_a_command_with_an_open_quote_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="cannot be read as a command: no closing quotation"):
        sg.general(script='echo "a b', scriptdir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
