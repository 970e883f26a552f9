"""Dependencies as texts: what each means, and that printing and reading are each other's opposite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.depend_text import DependTextError, depend_text, parse_depend, parse_layer_depend
from drqueue.proto.model import Depend, LayerDepend

JOBS = [
    ("12", Depend(12)),
    ("12:ended", Depend(12, "ended")),
    ("12/render", Depend(12, layer="render")),
    ("12/2 d.x:any", Depend(12, layer="2 d.x", frames="any")),
    ("12:any:ended", Depend(12, "ended", frames="any")),
    ("12:50%", Depend(12, frames="percent", percent=50)),
    ("0:12.5%:ended", Depend(0, "ended", frames="percent", percent=12.5)),
    ("12:each", LayerDepend(job=12, frames="each")),
    ("12/render:each+1", LayerDepend(job=12, layer="render", frames="each", offset=1)),
    ("12:each-3:ended", LayerDepend(job=12, frames="each", offset=-3, until="ended")),
]
LAYERS = [
    ("sim", LayerDepend(layer="sim")),
    ("sim:ended", LayerDepend(layer="sim", until="ended")),
    ("sim:each-1", LayerDepend(layer="sim", frames="each", offset=-1)),
    ("sim:0.5%", LayerDepend(layer="sim", frames="percent", percent=0.5)),
    ("previous", LayerDepend(frames="previous")),
    ("previous:ended", LayerDepend(frames="previous", until="ended")),
    ("12", LayerDepend(job=12)),
    ("12/sim:any", LayerDepend(job=12, layer="sim", frames="any")),
]


@pytest.mark.parametrize(("text", "depend"), JOBS)
def test_of_jobs(text: str, depend: Depend | LayerDepend) -> None:
    assert parse_depend(text) == depend
    assert depend_text(depend) == text


@pytest.mark.parametrize(("text", "depend"), LAYERS)
def test_of_layers(text: str, depend: LayerDepend) -> None:
    assert parse_layer_depend(text) == depend
    assert depend_text(depend) == text


def test_what_need_not_be_said() -> None:
    assert parse_depend(" 12:ended:50% ") == Depend(12, "ended", frames="percent", percent=50)
    assert parse_depend("012:all:done") == Depend(12)
    assert parse_depend("12:each+0") == LayerDepend(job=12, frames="each")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "ID, ID/LAYER"),
        ("render", "ID, ID/LAYER"),
        ("12/", "ID, ID/LAYER"),
        ("12/a/b", "ID, ID/LAYER"),
        ("-1", "ID, ID/LAYER"),
        ("12:", "ID, ID/LAYER"),
        ("12:half", "ID, ID/LAYER"),
        ("12:each1", "ID, ID/LAYER"),
        ("12:50%:any", "says twice"),
        ("12:done:ended", "says twice"),
        ("12:0%", "0% is not within 0% and 100%"),
        ("12:100.1%", "100.1% is not within"),
    ],
)
def test_wrong_ones_get_a_sentence(text: str, words: str) -> None:
    with pytest.raises(DependTextError, match=words) as error:
        parse_depend(text)
    assert str(error.value).startswith(f"{text!r} is no dependency: ")


@pytest.mark.parametrize("text", ["", ":any", "a/b", "previous:any", "sim:x"])
def test_wrong_ones_of_layers(text: str) -> None:
    with pytest.raises(DependTextError, match="is no dependency"):
        parse_layer_depend(text)


NAMES = st.text(st.characters(exclude_characters=":/", exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda name: not name.isdecimal() and name != "previous"
)
JOB = st.integers(0, 10**15 - 1)
UNTIL = st.sampled_from(["done", "ended"])
PERCENT = st.integers(1, 100) | st.floats(0.001, 99.999).map(lambda x: round(x, 3)).filter(lambda x: x % 1)


@given(
    st.builds(Depend, job=JOB, until=UNTIL, layer=st.just("") | NAMES, frames=st.sampled_from(["all", "any"]))
    | st.builds(Depend, job=JOB, until=UNTIL, frames=st.just("percent"), percent=PERCENT)
    | st.builds(
        LayerDepend, job=JOB, frames=st.just("each"), until=UNTIL, offset=st.integers(-(10**14), 10**14)
    )
)
def test_what_is_printed_is_read(depend: Depend | LayerDepend) -> None:
    assert parse_depend(depend_text(depend)) == depend


@given(
    st.builds(
        LayerDepend,
        job=st.none() | JOB,
        layer=NAMES,
        until=UNTIL,
        frames=st.sampled_from(["all", "any", "each"]),
    )
)
def test_what_is_printed_of_layers_is_read(depend: LayerDepend) -> None:
    assert parse_layer_depend(depend_text(depend)) == depend


@given(st.text() | st.lists(st.sampled_from([*"0123/:+-%", "each", "any", "a"])).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_depend, parse_layer_depend):
        try:
            again = read(depend_text(read(text)))
        except DependTextError:
            continue
        assert again == read(text)
