"""The files of `sendjob`: what they say, and the sentence that names the line."""

import pytest

from drqueue import sg
from drqueue.client.kinds import KINDS
from drqueue.client.kinds.sendjob import FORMATS, SendJob, SendJobError, read_sendjob


def lines(*values: object) -> str:
    return "\n".join(map(str, values)) + "\n"


GOOD = {
    "maya": (
        lines("ann", "shot", "cam", 1, 5, 9, 2, 64, 36, "/s.ma", "/r", "/p", "tif", "im"),
        SendJob(
            "maya",
            "shot",
            5,
            9,
            2,
            owner="ann",
            params={
                "camera": "cam",
                "renderer": "1",
                "res_x": "64",
                "res_y": "36",
                "scene": "/s.ma",
                "renderdir": "/r",
                "projectdir": "/p",
                "format": "tif",
                "image": "im",
            },
        ),
    ),
    "mentalray": (
        lines("ann", "shot", "cam", 1, 2, 1, 64, 36, "/s.mi", "/r", "iff", "im"),
        SendJob(
            "mentalray",
            "shot",
            1,
            2,
            owner="ann",
            params={
                "camera": "cam",
                "res_x": "64",
                "res_y": "36",
                "scene": "/s.mi",
                "renderdir": "/r",
                "format": "iff",
                "image": "im",
            },
        ),
    ),
    "blender": (
        lines("shot", 1, 9, 3, 1, "/s.blend"),
        SendJob("blender", "shot", 1, 9, 3, 3, params={"render_type": "1", "scene": "/s.blend"}),
    ),
    "lightwave": (
        lines("ann", "n", 1, 2, 1, "/s", "/c", "/p"),
        SendJob(
            "lightwave", "n", 1, 2, owner="ann", params={"scene": "/s", "configdir": "/c", "projectdir": "/p"}
        ),
    ),
    "terragen": (
        lines("ann", "n", 1, 2, 1, "/s", "/w", "/t"),
        SendJob(
            "terragen",
            "n",
            1,
            2,
            owner="ann",
            params={"scriptfile": "/s", "worldfile": "/w", "terrainfile": "/t"},
        ),
    ),
    "shake": (
        lines("ann", "n", 1, 2, 1, "/s"),
        SendJob("shake", "n", 1, 2, owner="ann", params={"script": "/s"}),
    ),
    **{
        kind: (
            lines("ann", "n", 0, 2, 0, "/a b"),
            SendJob(kind, "n", 0, 2, owner="ann", params={"scene": "/a b"}),
        )
        for kind in ("nuke", "3delight", "pixie", "aqsis")
    },
    "mantra": (
        lines("ann", "n", 1, 2, 1, "/d/s"),
        SendJob("mantra", "n", 1, 2, owner="ann", params={"scene": "/d/s", "renderdir": "/d/s"}),
    ),
    "aftereffects": (
        lines("ann", "n", 1, 2, 1, "/p.aep", "Comp 1"),
        SendJob("aftereffects", "n", 1, 2, owner="ann", params={"project": "/p.aep", "comp": "Comp 1"}),
    ),
    "xsi": (
        lines("ann", "n", "/x", 700, 8, 1, 9, 5, 2, 3, 64, 36, 0, "/s", "ps", "/r", "im", "pic", 0),
        SendJob(
            "xsi",
            "n",
            1,
            9,
            2,
            3,
            owner="ann",
            priority=700,
            max_cpus=8,
            pad=5,
            params={
                "xsidir": "/x",
                "res_x": "64",
                "res_y": "36",
                "skipframes": "0",
                "scene": "/s",
                "xsipass": "ps",
                "renderdir": "/r",
                "image": "im",
                "imageext": "pic",
                "runscript": "0",
            },
        ),
    ),
    "luxrender": (lines("n", 1, 8, 4, "/s"), SendJob("luxrender", "n", 1, 8, 4, 4, params={"scene": "/s"})),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_files_are_read_line_by_line(kind: str) -> None:
    text, wanted = GOOD[kind]
    assert read_sendjob(kind, text) == wanted
    assert read_sendjob(kind.upper(), text.replace("\n", " \r\n")) == wanted


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_file_says_is_what_the_kinds_script_takes(kind: str, tmp_path: object) -> None:
    job = read_sendjob(kind, GOOD[kind][0])
    name = {"3delight": "threedelight"}.get(kind, kind)
    assert getattr(sg, name)(**job.params, scriptdir=tmp_path, file_owner=job.owner)
    assert kind in KINDS


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_ends_early_is_refused_by_line_and_name(kind: str) -> None:
    given = GOOD[kind][0].splitlines()
    needed = len(FORMATS[kind].lines) - FORMATS[kind].optional
    assert len(given) == needed
    for count in range(needed):
        name = FORMATS[kind].lines[count]
        with pytest.raises(SendJobError, match=rf"^line {count + 1} \({name}\) is missing: type {kind} has"):
            read_sendjob(kind, "\n".join(given[:count]))


def test_the_last_line_of_xsi_may_be_there() -> None:
    assert read_sendjob("xsi", GOOD["xsi"][0] + "/run.js\n").params["scriptrun"] == "/run.js"


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("nuke", lines("a", "n", "x", 2, 1, "s"), "line 3 (start): 'x' is no whole number from 0 on"),
        ("nuke", lines("a", "n", "-1", 2, 1, "s"), "line 3 (start): '-1' is no whole number from 0 on"),
        ("nuke", lines("a", "n", "1", "9" * 20, 1, "s"), "line 4 (end)"),
        ("nuke", lines("a", "n", 5, 2, 1, "s"), "line 4 (end): 2 is before the start, 5"),
        ("nuke", lines("a", "", 1, 2, 1, "s"), "line 2 (name) is empty"),
        ("nuke", lines("a", "n", 1, 2, 1, ""), "line 6 (scene) is empty"),
        ("general", "x", "it is the command itself"),
        ("vray", "x", "sendjob has no type 'vray'; it has general, maya"),
    ],
)
def test_what_makes_no_sense_is_said(kind: str, text: str, sentence: str) -> None:
    with pytest.raises(SendJobError) as caught:
        read_sendjob(kind, text)
    assert sentence in str(caught.value)


def test_values_that_are_empty_are_left_out() -> None:
    job = read_sendjob("lightwave", lines("", "n", 1, 2, 1, "/s", "", ""))
    assert job.params == {"scene": "/s"}
    assert job.owner == ""
