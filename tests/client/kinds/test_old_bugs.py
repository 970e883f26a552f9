"""What the original's templates did wrong, shown to be right: by the kind and by its job script."""

import os
from pathlib import Path

import pytest

from drqueue import sg
from tests.client.kinds.helpers import Bench
from tests.client.kinds.test_sg import run, scripts

__all__ = ["scripts"]


def option(call: list[str], name: str) -> list[str]:
    """What follows an option, wherever it stands."""
    return [call[at + 1] for at, word in enumerate(call) if word == name]


@pytest.mark.usefixtures("scripts")
def test_blocks_of_several_frames_are_rendered(bench: Bench) -> None:
    """The list of padded numbers was read as one number, in every template."""
    assert len(bench.calls("luxrender", "1-3", 3, scene="s")) == 3
    assert len(run(bench, sg.luxrender(scene="s"), "1 2 3").calls) == 3


@pytest.mark.usefixtures("scripts")
def test_mantra_pads_its_numbers(bench: Bench) -> None:
    """Text and a number were put together."""
    wanted = ["mantra", "-f", "s0012.ifd", "i0012.pic"]
    assert bench.calls("mantra", "12", 1, scene="s", renderdir="i") == [wanted]
    assert run(bench, sg.mantra(scene="s", renderdir="i"), "12").calls == [wanted]


@pytest.mark.usefixtures("scripts")
def test_mantras_height_and_caches_have_options_of_their_own(bench: Bench) -> None:
    """Height came as -w, and both caches as -G."""
    params = {"scene": "s", "renderdir": "i", "width": 4, "height": 3, "mpcache": 5, "mcache": 6}
    custom = {"custom_WH": "1", "custom_MPCache": "1", "custom_MCache": "1"}
    for (call,) in (
        bench.calls("mantra", "1", 1, **params),
        run(bench, sg.mantra(**params, **custom), "1").calls,
    ):
        assert option(call, "-w") == ["4"]
        assert option(call, "-h") == ["3"]
        assert (option(call, "-G"), option(call, "-g")) == (["5"], ["6"])


@pytest.mark.usefixtures("scripts")
def test_mantras_second_switches_are_obeyed(bench: Bench) -> None:
    params = {"scene": "s", "renderdir": "i", "width": 4, "height": 3, "bucket": 16}
    (call,) = run(bench, sg.mantra(**params, custom_WH=0, custom_bucket=False), "1").calls
    assert call == ["mantra", "-f", "s0001.ifd", "i0001.pic"]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("value", ["1", 1, True, "yes"])
def test_mantras_switches_are_on_when_they_are_on(bench: Bench, value: object) -> None:
    """0 and 1 were compared with yes, so that neither was ever on."""
    params = {"scene": "s", "renderdir": "i", "raytrace": value, "aaoff": value}
    for (call,) in (bench.calls("mantra", "1", 1, **params), run(bench, sg.mantra(**params), "1").calls):
        assert {"-A", "-r"} <= set(call)
    assert "-r" not in bench.calls("mantra", "1", 1, scene="s", renderdir="i", raytrace="0")[0]


@pytest.mark.usefixtures("scripts")
def test_scripts_use_no_names_that_they_do_not_have(bench: Bench) -> None:
    """On Windows the templates asked for names that were never set."""
    for system in ("WINDOWS", "OSX", "LINUX"):
        assert run(bench, sg.pixie(scene="s"), "1", DRQUEUE_OS=system).status == 0


@pytest.mark.usefixtures("scripts")
def test_cinema4ds_program_and_options_are_words_apart(bench: Bench) -> None:
    """The blank before -nogui was missing."""
    params = {"scene": "s", "renderdir": "/r"}
    for (call,) in (bench.calls("cinema4d", "1", 1, **params), run(bench, sg.cinema4d(**params), "1").calls):
        assert call[:2] == ["CINEMA 4D", "-nogui"]


@pytest.mark.usefixtures("scripts")
def test_mental_rays_strips_are_calculated_with_numbers(bench: Bench) -> None:
    """They were calculated with texts. The strips cover the picture, without a gap and without an overlap."""
    params = {"scene": "/s", "renderdir": ".", "image": "i", "res_x": 8, "res_y": 101, "render_type": 2}
    calls = bench.calls("mentalray", "1-7", 1, **params)
    edges = [(int(call[4]), int(call[6])) for call in calls]
    assert edges[0][1] == 101
    assert edges[-1][0] == 0
    assert [low for low, _ in edges[:-1]] == [high for _, high in edges[1:]]
    whole = {"DRQUEUE_STARTFRAME": "1", "DRQUEUE_ENDFRAME": "7"}
    path = sg.mentalray(**params)
    assert [run(bench, path, str(n), **whole).calls[0][3:7] for n in range(1, 8)] == [c[3:7] for c in calls]


@pytest.mark.usefixtures("scripts")
def test_paths_with_blanks_stay_one_word(bench: Bench) -> None:
    assert bench.calls("nuke", "1", 1, scene="a b c.nk")[0][-1] == "a b c.nk"
    path = sg.nuke(scene="d e/a b c.nk")
    assert run(bench, path, "1").calls[0][-1] == "d e/a b c.nk"
    assert " " not in Path(path).name


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("lightwave", "lightwave"), ("3delight", "threedelight"), ("aqsis", "aqsis"), ("pixie", "pixie")],
)
def test_the_step_counts_inside_a_block(bench: Bench, kind: str, name: str) -> None:
    """A block of 1-9x4 rendered 1 2 3: frames that nobody asked for, and 5 and 9 never."""

    def rendered(calls: list[list[str]]) -> list[int]:
        if kind == "lightwave":
            return [n for c in calls for n in range(int(c[-3]), int(c[-2]) + 1, int(c[-1]))]
        numbers = [[int(word) for word in call if word.isdigit()] for call in calls]
        return [n for pair in numbers for n in range(pair[0], pair[-1] + 1)]

    assert rendered(bench.calls(kind, "1-9x4", 3, scene="s")) == [1, 5, 9]
    assert rendered(run(bench, getattr(sg, name)(scene="s"), "1 5 9").calls) == [1, 5, 9]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("pixie", "pixie"),
        ("luxrender", "luxrender"),
        ("vray", "vray"),
        ("3dsmax", "threedsmax"),
        ("cinema4d", "cinema4d"),
    ],
)
def test_all_frames_of_a_block_are_rendered(bench: Bench, kind: str, name: str) -> None:
    """Only the first one was."""
    params = {"scene": "s_#" if kind == "luxrender" else "s"}
    params.update({"renderdir": "r"} if kind == "cinema4d" else {})
    for calls in (
        bench.calls(kind, "5-7", 3, **params),
        run(bench, getattr(sg, name)(**params), "5 6 7").calls,
    ):
        text = " ".join(word for call in calls for word in call)
        assert "5-7" in text or all(number in text for number in "567")


@pytest.mark.usefixtures("scripts")
def test_scripts_of_one_second_do_not_end_up_in_one_file(bench: Bench) -> None:
    paths = [sg.pixie(scene="s") for _ in range(3)]
    assert len({os.stat(path).st_ino for path in paths}) == 3
    assert len(run(bench, paths[-1], "1").calls) == 1
