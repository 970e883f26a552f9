"""What layers may need, wait for and count against, and slaves offer: a sentence for each rule."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.checks import check_spec, layer_cycle
from drqueue.proto.checks_needs import check_offers
from drqueue.proto.model import (
    Alternative,
    Depend,
    JobSpec,
    LayerDepend,
    LayerSpec,
    Needs,
    Offers,
)
from drqueue.proto.order_text import MAX_FRAMES, MAX_TEXT


def a_layer(name: str = "main", **fields: Any) -> LayerSpec:
    return LayerSpec(name=name, argv=("true",), **fields)


def of(*layers: LayerSpec, **fields: Any) -> JobSpec:
    return JobSpec(name="job", layers=layers, **fields)


def needing(**needs: Any) -> JobSpec:
    return of(a_layer(needs=Needs(**needs)))


def waiting(*depends: LayerDepend) -> JobSpec:
    return of(a_layer("sim"), a_layer("main", depends=depends))


SAYS = "a name has 1 to 63 letters, digits and . _ + -"


@pytest.mark.parametrize(
    "spec",
    [
        needing(
            cores=0.5,
            memory_mb=4000,
            gpus=2,
            gpu_memory_mb=8000,
            disk_mb=100_000,
            amounts={"licence.nuke": 1, "bandwidth": 0.125},
            tags=("ssd", "c++"),
            where='os == "linux" and\n cores > 4',
            alternatives=(Alternative(cores=16, memory_mb=0), Alternative(amounts={"x": 2})) * 8,
        ),
        needing(cores=0.1 + 0.2),
        needing(cores=0.001),
        needing(cores=100_000),
        of(a_layer(limits={"nuke": 2, "größe": 1}, order="coarse", next="3,2")),
        of(a_layer(frames="1-9", order="9-1x2,99")),
        of(a_layer(order="1" + ",1" * ((MAX_TEXT - 1) // 2))),
        of(a_layer(), project="film 2", owner="Ann", max_failures=5),
        of(
            a_layer(),
            depends=(
                Depend(1, layer="sim", frames="percent", percent=12.5),
                Depend(2, "ended", frames="any"),
            ),
        ),
        waiting(
            LayerDepend(layer="sim", frames="each", offset=-1, until="ended"),
            LayerDepend(frames="previous"),
            LayerDepend(layer="main", frames="previous", until="ended"),
            LayerDepend(job=3, frames="percent", percent=50),
            LayerDepend(job=3, layer="main", frames="each"),
        ),
    ],
)
def test_good_jobs(spec: JobSpec) -> None:
    assert check_spec(spec) is None


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (needing(cores=0.0005), "layer 'main': cores: 0.0005 is finer than a thousandth"),
        (needing(cores=100_001), "layer 'main': cores: 100,001 is not within 0 and 100,000"),
        (needing(cores=float("nan")), "layer 'main': cores: nan is not within 0 and 100,000"),
        (
            needing(memory_mb=10**12),
            "layer 'main': memory in MiB: 1,000,000,000,000 is not within 0 and 1,000,000,000",
        ),
        (needing(gpus=2000), "layer 'main': GPUs: 2,000 is not within 0 and 1,024"),
        (needing(gpu_memory_mb=1), "layer 'main' asks for memory of GPUs, but for no GPU"),
        (needing(amounts={"a": 0.1234}), "layer 'main': the amount a: 0.1234 is finer than a thousandth"),
        (needing(amounts={"a b": 1}), f"layer 'main': the amount 'a b': {SAYS}"),
        (needing(amounts={"a=": 1}), f"layer 'main': the amount 'a=': {SAYS}"),
        (
            needing(amounts={"memory": 1}),
            "layer 'main': no amount may be called 'memory': that has a key of its own",
        ),
        (
            needing(amounts={f"a{n}": 1 for n in range(33)}),
            "layer 'main': 33 named amounts, 32 are allowed",
        ),
        (needing(tags=("a", "b", "a")), "layer 'main' has the tag 'a' twice"),
        (needing(tags=("",)), f"layer 'main': the tag '': {SAYS}"),
        (needing(tags=("a,b",)), f"layer 'main': the tag 'a,b': {SAYS}"),
        (
            needing(tags=tuple(f"t{n}" for n in range(65))),
            "layer 'main' has 65 tags, 64 are allowed",
        ),
        (needing(os=("",)), "layer 'main': no system is called ''"),
        (
            needing(where="os = 'linux'"),
            "layer 'main': in the expression \"os = 'linux'\", column 4: '==' is expected in place of '='",
        ),
        (needing(where="a == '\x00'"), "layer 'main': the expression holds a NUL character"),
        (
            needing(where=" "),
            "layer 'main': in the expression ' ', column 2: an expression is expected, not the end",
        ),
        (
            needing(alternatives=(Alternative(),) * 17),
            "layer 'main' has 17 alternatives, 16 are allowed",
        ),
        (
            needing(alternatives=(Alternative(), Alternative(amounts={"x": 2e9}))),
            "layer 'main', alternative 2: the amount x: 2,000,000,000 is not within 0 and 1,000,000,000",
        ),
        (
            needing(alternatives=(Alternative(gpu_memory_mb=5),)),
            "layer 'main', alternative 1 asks for memory of GPUs, but for no GPU",
        ),
        (
            of(a_layer(limits={"user:ann": 1})),
            "layer 'main': the limit 'user:ann' counts by itself, no job names it",
        ),
        (
            of(a_layer(limits={"a b": 1})),
            "layer 'main': no limit is called 'a b': 1 to 63 characters, no blanks and none of , = : / @",
        ),
        (
            of(a_layer(limits={"nuke": 2_000_000})),
            "layer 'main': 2000000 of the limit nuke: 1 to 1,000,000 are allowed",
        ),
        (
            of(a_layer(limits={f"l{n}": 1 for n in range(33)})),
            "layer 'main' names 33 limits, 32 are allowed",
        ),
        (
            of(a_layer(order="coarsely")),
            (
                "layer 'main': there is no order 'coarsely': forward, reverse, coarse, "
                "or the frames that come first"
            ),
        ),
        (
            of(a_layer(order="")),
            "layer 'main': the order is empty: forward, reverse, coarse, or the frames that come first",
        ),
        (
            of(a_layer(order="1-")),
            ("layer 'main': the order: '1-' is no frame range: write for example 1-10, 1-10x2 or 1,5,7-9"),
        ),
        (
            of(a_layer(frames="1-9", order="10-20")),
            "layer 'main': the order names 10-20, but the layer has none of these frames",
        ),
        (
            of(a_layer(next="x")),
            "layer 'main': next: 'x' is no frame range: write for example 1-10, 1-10x2 or 1,5,7-9",
        ),
        (
            of(a_layer(next="1" * (MAX_TEXT + 1))),
            "layer 'main': next: the frames are 8193 characters, 8192 are allowed",
        ),
        (
            of(a_layer(frames="1-9000000", order=f"1-{MAX_FRAMES + 1}")),
            "layer 'main': the order: 100,001 frames, 100,000 are allowed",
        ),
        (of(a_layer(), project="*"), "the job's project may not be called *, which means each one"),
        (of(a_layer(), owner="*"), "the job's owner may not be called *, which means each one"),
        (of(a_layer(), project="a\n"), "the job's project holds a control character"),
        (of(a_layer(), project=" a"), "the job's project ' a' begins or ends with a blank"),
        (of(a_layer(), owner="x" * 128), "the job's owner has 128 characters, 127 are allowed"),
        (
            of(a_layer(), depends=(Depend(7, percent=50),)),
            "the dependency on job 7 has a percentage, but its frames are 'all', not \"percent\"",
        ),
        (
            waiting(LayerDepend(layer="sim", frames="any", percent=5)),
            "layer 'main': a dependency has a percentage, but its frames are 'any', not \"percent\"",
        ),
        (
            waiting(LayerDepend(layer="sim", offset=1)),
            "layer 'main': a dependency has an offset, but its frames are 'all', not \"each\"",
        ),
        (
            waiting(LayerDepend(layer="sim", frames="each", offset=10**16)),
            (
                "layer 'main': a dependency: an offset of 10000000000000000 is more than any two frames lie "
                "apart"
            ),
        ),
        (waiting(LayerDepend()), "layer 'main': a dependency names neither a layer nor a job"),
        (
            waiting(LayerDepend(layer="fx")),
            "layer 'main': a dependency is on 'fx', which is no layer of this job",
        ),
        (
            waiting(LayerDepend(layer="main", frames="each", offset=-1)),
            (
                "layer 'main': a dependency is on the layer itself: "
                'only "previous" frames may be waited for so'
            ),
        ),
        *(
            (
                waiting(depend),
                (
                    "layer 'main': a dependency on \"previous\" frames is on the layer itself: "
                    "it names no other one, and no job"
                ),
            )
            for depend in (
                LayerDepend(frames="previous", layer="sim"),
                LayerDepend(frames="previous", job=1),
            )
        ),
        (
            of(a_layer(depends=(LayerDepend(frames="previous"),) * 101)),
            "layer 'main' has 101 dependencies, 100 are allowed",
        ),
        (
            of(
                a_layer("a", after=("b",)),
                a_layer("b", depends=(LayerDepend(layer="a", frames="each", offset=5),)),
            ),
            "layers wait for each other in a circle: a -> b -> a",
        ),
    ],
)
def test_bad_jobs(spec: JobSpec, sentence: str) -> None:
    assert check_spec(spec) == sentence


def test_previous_frames_and_layers_of_other_jobs_make_no_circle() -> None:
    own = LayerDepend(layer="a", frames="previous")
    other = LayerDepend(layer="a", job=4)
    assert layer_cycle([a_layer("a", depends=(own, other))]) == []


@given(st.floats(0.001, 99_999))
def test_cores_that_are_whole_thousandths_are_good(cores: float) -> None:
    assert check_spec(needing(cores=round(cores, 3))) is None


def test_good_offers() -> None:
    offers = Offers(
        gpus=(1, 0), disk_mb=5, amounts={"nuke": 2.5}, tags=("ssd",), attributes={"Rack": "7", "note": "é ü"}
    )
    assert check_offers(offers) is None


@pytest.mark.parametrize(
    ("offers", "sentence"),
    [
        (Offers(gpus=(1, 1)), "a GPU is offered twice"),
        (Offers(amounts={"a b": 1}), f"the amount 'a b': {SAYS}"),
        (Offers(amounts={"cores": 1}), "no amount may be called 'cores': that has a key of its own"),
        (Offers(tags=("a", "a")), "the offer has the tag 'a' twice"),
        (
            Offers(attributes={"1a": ""}),
            "the attribute '1a': a name begins with a letter, and has 1 to 63 letters, digits and . _ -",
        ),
        (Offers(attributes={"OS": "x"}), "no attribute may be called 'OS': that means something else"),
        (Offers(attributes={"and": "x"}), "no attribute may be called 'and': that means something else"),
        (
            Offers(attributes={"a": "", "A": ""}),
            "two attributes are called 'a': capitals make no difference",
        ),
        (Offers(attributes={"a": "x" * 256}), "the attribute a has 256 characters, 255 are allowed"),
        (Offers(attributes={"a": "\n"}), "the attribute a holds a control character"),
        (
            Offers(attributes={f"a{n}": "" for n in range(65)}),
            "65 attributes are offered, 64 are allowed",
        ),
    ],
)
def test_bad_offers(offers: Offers, sentence: str) -> None:
    assert check_offers(offers) == sentence
