"""Parameters: what is read from what people write, and the sentence for what cannot be."""

import pytest

from drqueue.client.kinds import KINDS, Frames, KindError, find
from drqueue.client.kinds.params import Param
from drqueue.proto.checks import check_spec
from drqueue.proto.model import JobSpec


def refused(kind: str, frames: Frames = Frames(), **params: object) -> str:  # noqa: B008  # immutable
    """The sentence about parameters that cannot be used."""
    with pytest.raises(KindError) as caught:
        find(kind).build(params, frames)
    text = str(caught.value)
    assert "\n" not in text
    assert "Error" not in text
    return text


@pytest.mark.parametrize(
    ("kind", "params", "parts"),
    [
        ("maya", {"scne": "x"}, ("kind maya", "'scne'", "did you mean 'scene'?")),
        ("maya", {"qqq": "x"}, ("'qqq'", "its parameters are scene, renderdir")),
        ("maya", {}, ("kind maya", "scene", "the scene file")),
        ("maya", {"scene": ""}, ("needs the parameter scene",)),
        ("blender", {"scene": "x", "width": "wide"}, ("width is a whole number from 4 to 65536", "'wide'")),
        ("blender", {"scene": "x", "width": 3}, ("not 3",)),
        ("blender", {"scene": "x", "width": 4.5}, ("not 4.5",)),
        ("blender", {"scene": "x", "width": True}, ("not True",)),
        ("blender", {"scene": "x", "width": "1" * 100}, ("...",)),
        ("blender", {"scene": "x", "format": "GIF"}, ("format is PNG, JPEG", "not 'GIF'")),
        ("blender", {"scene": "x", "autoexec": "maybe"}, ("autoexec is yes or no, not 'maybe'",)),
        ("blender", {"scene": ["x"]}, ("scene is a path",)),
        ("blender", {"scene": "a\nb"}, ("scene holds a control character",)),
        ("povray", {"scene": "x", "antialias": "nan"}, ("antialias is a number from 0 to 3",)),
        ("povray", {"scene": "x", "antialias": "inf"}, ("antialias",)),
        *(
            ("povray", {"scene": "x", "declare": wrong}, ("declare is NAME=NUMBER", repr(wrong.split()[-1])))
            for wrong in ("x", "a=1 b=", "a=b", "1a=2", "a=1+1", 'a="b"', "a=1,5", "a=1e", "=1")
        ),
        ("povray", {}, ("needs the parameter scene",)),
        ("povray", {"scene": "x", "output": "x.exr"}, ("output is a .png file",)),
        ("povray", {"scene": "a\"b'c"}, ("both kinds of quotes",)),
        ("aqsis", {"scene": "x", "custom_crop": "1", "xmin": 0}, ("custom_crop needs xmax, ymin, ymax",)),
        ("bmrt", {"scene": "x", "custom_samples": "1"}, ("custom_samples needs xsamples, ysamples",)),
        ("mentalray", {"scene": "x", "renderdir": "r", "render_type": 2}, ("image, res_x, res_y",)),
        ("blender", {"scene": "x", "render_type": "2"}, ("need an output",)),
        ("blender", {"scene": "x", "render_type": "2", "output": "a"}, ("need a format",)),
        (
            "blender",
            {"scene": "x", "output": "a.exr", "format": "png"},
            ("PNG pictures do not end with .exr",),
        ),
        ("ffmpeg", {"input": "a.png", "output": "b"}, ("input needs ####",)),
        ("ffmpeg", {"input": "a#", "output": "b", "first": 5, "last": 4}, ("last (4) is before first (5)",)),
        ("ffmpeg", {"input": "a#", "output": "b", "codec": "ffv1", "crf": 1}, ("ffv1 takes no crf",)),
        ("tracer", {"output": "x.png"}, ("output needs ####",)),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(
    kind: str, params: dict[str, object], parts: tuple[str, ...]
) -> None:
    text = refused(kind, **params)
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("kind", "frames", "params", "part"),
    [
        ("blender", Frames("-3-3"), {"scene": "x"}, "negative"),
        ("povray", Frames("-3-3"), {"scene": "x"}, "negative"),
        ("povray", Frames("1-9"), {"scene": "x", "last": 8}, "1 to 8 are not all frames"),
        ("ffmpeg", Frames("1-9"), {"input": "a#", "output": "b"}, "one frame"),
        ("maya", Frames("x"), {"scene": "x", "renderdir": "r", "projectdir": "p"}, "'x'"),
        ("blender", Frames("0-3"), {"scene": "x", "render_type": 2, "output": "a.png"}, "from 1 to 3"),
        ("blender", Frames("1-4"), {"scene": "x", "render_type": 2, "output": "a.png", "parts": 3}, "1 to 3"),
        (
            "mentalray",
            Frames("1-9"),
            {"scene": "x", "renderdir": "r", "render_type": 2, "image": "i", "res_x": 8, "res_y": 8},
            "9 strips are more",
        ),
    ],
)
def test_ranges_that_a_kind_cannot_render_are_refused(
    kind: str, frames: Frames, params: dict[str, object], part: str
) -> None:
    assert part in refused(kind, frames, **params)


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(KindError, match=r"no kind 'Blendr': did you mean 'blender'\?"):
        find("Blendr")
    with pytest.raises(KindError, match="there are general, blender"):
        find("qqqq")
    assert find("MAYA") is KINDS["maya"]


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON", True, 1])
def test_switches_are_on(word: object) -> None:
    assert find("nuke").values({"scene": "s", "proxy": word})["proxy"] is True


@pytest.mark.parametrize("word", ["0", "false", "No", "off", "", False, 0, None])
def test_switches_are_off(word: object) -> None:
    assert find("nuke").values({"scene": "s", "proxy": word})["proxy"] is False


def test_a_switch_that_is_on_by_itself_can_be_put_off() -> None:
    base = {"scene": "s", "renderdir": "r", "projectdir": "p"}
    assert find("turtle").values(base)["usemaya70"] is True
    assert find("turtle").values({**base, "usemaya70": "no"})["usemaya70"] is False


def test_numbers_and_other_words_for_choices_are_read() -> None:
    values = find("mentalray").values({"scene": "s", "renderdir": "r", "render_type": "1", "res_x": "64"})
    assert (values["render_type"], values["res_x"]) == ("animation", 64)
    assert find("blender").values({"scene": "s", "format": "png"})["format"] == "PNG"
    assert find("povray").values({"scene": "s", "antialias": 1})["antialias"] == 1.0


def test_what_is_kept_of_a_job_makes_the_same_layer_again() -> None:
    given: dict[str, object] = {
        "scene": "s.blend",
        "output": "a_##.png",
        "width": 64,
        "autoexec": True,
        "format": "",
        "camera": None,
    }
    kind = find("blender")
    kept = kind.texts(given)
    assert kept == {"scene": "s.blend", "output": "a_##.png", "width": "64", "autoexec": "yes"}
    assert kind.build(kept, Frames("1-9")) == kind.build(given, Frames("1-9"))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_declarations_are_complete_and_consistent(kind: object) -> None:
    assert isinstance(kind, type(KINDS["maya"]))
    assert kind.name == kind.name.lower()
    assert kind.help.endswith(".")
    assert len(kind.help) < 64  # a line of `drqueue kinds`
    assert len({param.name for param in kind.params}) == len(kind.params)
    for param in kind.params:
        assert isinstance(param, Param)
        assert param.help
        assert param.name.isidentifier()
        assert not (param.required and param.default)
        assert bool(param.choices) == (param.type == "choice")
        if param.default:
            given = {each.name: "1" for each in kind.params if each.required or each.name == "scene"}
            kind.values({**given, param.name: param.default})


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_makes_a_layer_that_the_farm_takes(kind: object) -> None:
    assert isinstance(kind, type(KINDS["maya"]))
    given = {each.name: "s_####" for each in kind.params if each.required}
    given.update({"scene": "s"} if kind.name == "povray" else {})
    frames = Frames() if kind.name == "ffmpeg" else Frames("1-9x2", 3)
    layer = kind.build(given, frames)
    assert check_spec(JobSpec(name="x", layers=(layer,), kind=kind.name, params=kind.texts(given))) is None
    assert kind.described()["name"] == kind.name
