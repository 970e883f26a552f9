"""What users type is text: blanks, quotes, dollars, braces, leading dashes reach the renderer unchanged."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.kinds import Frames, KindError, find
from drqueue.client.kinds.words import Var, as_argv, as_output, as_shell, escaped, numbered, quoted
from drqueue.proto.placeholders import fill
from drqueue.slave.outputs import expand_output
from tests.client.kinds.helpers import Bench

NASTY = [
    *("a b", "it's", 'say "x"', "$HOME `id` $(id)", "a;b|c&d>e", "{frame}", "{{frame}}", "{start:04d}{x}"),
    *("{{{frame}}}", "{frame", "frame}", "%04d %", "a\\b", "*?[x]~", "!x", "ünï ✓", "#comment", "", "a=b"),
]
BRACES = st.text(alphabet="{}:04daframestx '\"$#%", max_size=24)


@given(BRACES)
def test_escaped_text_is_filled_in_as_itself(text: str) -> None:
    assert fill(escaped(text), lambda name: 7) == text


@given(st.lists(BRACES, min_size=1, max_size=4))
def test_words_survive_the_slave_and_the_shell(words: list[str]) -> None:
    pieces = [(word,) for word in words]
    assert list(as_argv(pieces)) == [escaped(word) for word in words]
    assert shlex.split(fill(as_shell(pieces), lambda name: 7)) == words


@pytest.mark.parametrize("text", NASTY)
def test_a_real_shell_reads_quoted_text_as_one_word(text: str) -> None:
    script = f"printf '%s|' {fill(quoted(text), lambda name: 7)}"
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == f"{text}|"


@pytest.mark.parametrize("text", [text for text in NASTY if text])
@pytest.mark.parametrize(
    ("kind", "param", "before", "more"),
    [
        ("maya", "scene", "", {"renderdir": "r", "projectdir": "p"}),
        ("maya", "precommand", "", {"scene": "s", "renderdir": "r", "projectdir": "p"}),
        ("3delight", "scene", "", {}),
        ("pixie", "scene", "", {}),
        ("nuke", "write", "", {"scene": "s"}),
        ("vray", "scene", "-scenefile=", {}),
        ("3dsmax", "image", "", {"scene": "s"}),
        ("terragen", "worldfile", "-w", {"scriptfile": "s"}),
        ("aftereffects", "comp", "", {"project": "p"}),
    ],
)
def test_every_way_of_calling_keeps_text_whole(
    bench: Bench, text: str, kind: str, param: str, before: str, more: dict[str, str]
) -> None:
    (call,) = bench.calls(kind, "1", 1, **{param: text}, **more)
    assert f"{before}{text}" in call


@pytest.mark.parametrize("kind", ["mentalray", "xsi"])
def test_a_render_folder_may_have_any_name(bench: Bench, kind: str) -> None:
    for name in ("-x", "it's {frame} $HOME"):
        (bench.work / name).mkdir()
        more = {"xsidir": str(bench.bin)} if kind == "xsi" else {}
        layer = find(kind).build({"scene": "/s", "renderdir": name, **more}, Frames("1"))
        (ran,) = bench.attempts(layer)
        assert ran.folders == [str(bench.work / name)]


def test_a_missing_render_folder_is_a_failure_without_a_call(bench: Bench) -> None:
    layer = find("mentalray").build({"scene": "/s", "renderdir": "nowhere"})
    (ran,) = bench.attempts(layer)
    assert ran.status != 0
    assert ran.calls == []


def test_a_path_that_begins_with_a_dash_is_no_option(bench: Bench) -> None:
    assert bench.calls("pixie", "1", 1, scene="-x.rib") == [["rndr", "-f", "1", "./-x.rib"]]


@pytest.mark.parametrize("text", NASTY)
def test_outputs_are_the_files_that_are_meant(text: str) -> None:
    """As a slave expands them; a name with # or % and no number is not declared, as it cannot be."""
    name = f"{text}_###.png"
    (pattern,) = as_output(numbered(name))
    assert expand_output(pattern, [5], {"start": 5, "end": 5, "step": 1}) == [f"{text}_005.png"]
    plain = as_output((f"{text}.mov",))
    assert [expand_output(one, [5], {})[0] for one in plain] == (
        [] if set("#%") & set(text) else [f"{text}.mov"]
    )


def test_numbers_in_braces_are_refused_where_they_cannot_be_said() -> None:
    with pytest.raises(KindError, match="may not stand in braces"):
        as_argv([("a{", Var("frame", 4), "}")])


@pytest.mark.parametrize("kind", ["pixie", "3delight", "maya", "vray"])
def test_the_first_call_that_fails_ends_the_attempt_with_its_status(bench: Bench, kind: str) -> None:
    more = {"renderdir": "r", "projectdir": "p"} if kind == "maya" else {}
    layer = find(kind).build({"scene": "s", **more}, Frames("1-5x2", 3))
    (ran,) = bench.attempts(layer, status=7)
    assert (ran.status, len(ran.calls)) == (7, 1)
