"""What a job must be like: a sentence for each rule, and nothing to say of a good job."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from drqueue.proto.checks import (
    MAX_COMMAND,
    MAX_DEPENDS,
    MAX_ENV,
    MAX_JOB,
    MAX_LAYERS,
    MAX_OUTPUT_BYTES,
    MAX_OUTPUTS,
    MAX_PATH,
    MAX_RETRIES,
    check_spec,
    layer_cycle,
)
from drqueue.proto.codec import encode
from drqueue.proto.link_messages import Orders
from drqueue.proto.messages import Submit
from drqueue.proto.model import Depend, JobSpec, LayerSpec
from tests.builders import a_job, a_layer
from tests.proto.example_values import ORDER, SPEC


def layers(*specs: LayerSpec) -> JobSpec:
    return JobSpec(name="job", layers=specs)


def one(**fields: Any) -> JobSpec:
    fields.setdefault("argv", ("true",))
    return layers(LayerSpec(**fields))


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        a_job(),
        one(argv=("x" * (MAX_COMMAND - 1),)),
        one(argv=(), shell="line 1\n\tline 2"),
        one(argv=("print", "a\nb", "")),
        one(cwd="scratch"),
        one(cwd="/" + "d" * (MAX_PATH - 1)),
        one(env={"A": "x" * (MAX_ENV - 3)}),
        one(retries=MAX_RETRIES),
        one(outputs=("o",) * MAX_OUTPUTS),
        one(progress=r"(\d+)"),
        one(argv=("{frame:04d}-{end:4}", "{{frame:x}}", "{json: 1}", "${HOME}")),
        one(outputs=("{start}.{end}.{step}.{attempt}.{threads}.{frames}.{frame:03d}", "####", "%04d")),
        a_job(lease_s=30),
        one(frames="1-10000000"),
        one(name="with space, ünïcode"),
        layers(*(a_layer(name=f"l{n}") for n in range(MAX_LAYERS))),
        a_job(depends=tuple(Depend(n) for n in range(MAX_DEPENDS))),
        layers(a_layer(name="b", after=("a",)), a_layer(name="a")),
    ],
)
def test_good_jobs(spec: JobSpec) -> None:
    assert check_spec(spec) is None


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (a_job(name="  "), "the job's name is blank"),
        (a_job(name="a\nb"), "the job's name holds a control character"),
        (a_job(name="a\x7fb"), "the job's name holds a control character"),
        (a_job(name="a\x00b"), "the job's name holds a NUL character"),
        (a_job(name="a\udc80b"), "the job's name is not valid UTF-8 text"),
        (layers(), "the job has no layer: nothing to run"),
        (
            layers(*(a_layer(name=f"l{n}") for n in range(MAX_LAYERS + 1))),
            "the job has 101 layers, 100 are allowed",
        ),
        (
            a_job(depends=tuple(Depend(n) for n in range(MAX_DEPENDS + 1))),
            "the job has 1001 dependencies, 1000 are allowed",
        ),
        (
            a_job(lease_s=29.5),
            "a lease of 29.5 s is too short: 30 s at least, or 0 for the farm's",
        ),
        (
            one(argv=("render", "{frame:x}")),
            "layer 'main': the format of {frame:x} is not understood; write {frame} or {frame:04d}",
        ),
        (
            one(argv=(), shell="render {frames:4d}"),
            "layer 'main': {frames:4d} takes no format; write {frames}",
        ),
        (
            one(cwd="/shot/{start:+}"),
            "layer 'main': the format of {start:+} is not understood; write {start} or {start:04d}",
        ),
        (
            one(outputs=("good.{frame:04d}", "bad.{frame:x}")),
            (
                "layer 'main': output 'bad.{frame:x}': write the frame's number as {frame}, {frame:04d}, "
                "%04d or ####"
            ),
        ),
        (
            one(outputs=("{threads:2}",)),
            "layer 'main': output '{threads:2}': only {frame} takes a format",
        ),
        (
            one(progress=r"((a+)+)$"),
            (
                "layer 'main': the progress pattern repeats what itself repeats or branches, or refers back: "
                "it may never end"
            ),
        ),
        (a_job(env={"A B": "x"}), "the job: 'A B' is no name for an environment variable"),
        (a_job(env={"": "x"}), "the job: '' is no name for an environment variable"),
        (a_job(env={"A\n": "x"}), "the job: 'A\\n' is no name for an environment variable"),
        (a_job(env={"A": "\x00"}), "the job: the variable A holds a NUL character"),
        (
            a_job(env={"A": "x" * (MAX_ENV - 2)}),
            "the job: the environment has 65537 bytes, 65536 are allowed",
        ),
        (one(env={"1A": "x"}), "layer 'main': '1A' is no name for an environment variable"),
        (layers(a_layer(name="a"), a_layer(name="a")), "two layers are called 'a'"),
        (
            layers(a_layer(name="a", after=("b",))),
            "layer 'a' comes after 'b', which is no layer of this job",
        ),
        (
            layers(a_layer(name="a", after=("b",)), a_layer(name="b", after=("a",))),
            "layers wait for each other in a circle: a -> b -> a",
        ),
        (
            layers(a_layer(name="a", after=("a",))),
            "layers wait for each other in a circle: a -> a",
        ),
        *(
            (one(name=name), f"layer {name!r}: a layer's name may hold no colon, slash or control character")
            for name in ("a:b", "a/b", "a\nb", " a", "a\x01")
        ),
        (one(argv=()), "layer 'main' needs a command: either words or a shell string"),
        (
            one(shell="true"),
            "layer 'main' has both words and a shell string as its command",
        ),
        (one(argv=("", "x")), "layer 'main': the command is empty"),
        (one(argv=(), shell=" \n"), "layer 'main': the command is blank"),
        (
            one(argv=("x" * MAX_COMMAND,)),
            "layer 'main': the command has 65537 bytes, 65536 are allowed",
        ),
        (one(argv=("a\x00",)), "layer 'main' holds a NUL character"),
        (
            one(cwd="relative/path"),
            (
                "layer 'main': the working directory 'relative/path' is neither an absolute path, "
                "'scratch' nor '~'"
            ),
        ),
        (
            one(cwd="/" * (MAX_PATH + 1)),
            "layer 'main': the working directory's path exceeds 4096 bytes",
        ),
        (
            one(outputs=("o",) * (MAX_OUTPUTS + 1)),
            "layer 'main' declares 101 outputs, 100 are allowed",
        ),
        (
            one(outputs=("o" * (MAX_OUTPUT_BYTES + 1),)),
            "layer 'main': its output patterns exceed 32768 bytes",
        ),
        (one(retries=MAX_RETRIES + 1), "layer 'main': 1001 retries, 1000 are allowed"),
        (
            one(progress="("),
            (
                "layer 'main': the progress pattern is no regular expression: "
                "missing ), unterminated subpattern at position 0"
            ),
        ),
        (
            one(progress="%"),
            "layer 'main': the progress pattern needs one group (percent) or two (done, all), it has 0",
        ),
    ],
)
def test_bad_jobs(spec: JobSpec, sentence: str) -> None:
    assert check_spec(spec) == sentence


@pytest.mark.parametrize("frames", ["", "1-", "x", "1-10000001", "1-10x0", "5--"])
def test_bad_frames(frames: str) -> None:
    problem = check_spec(one(frames=frames))
    assert problem is not None
    assert problem.startswith("layer 'main': ")


def test_only_the_first_problem_is_told() -> None:
    assert check_spec(JobSpec(name=" ", layers=())) == "the job's name is blank"


def test_a_job_must_fit_a_packet_with_room_to_spare() -> None:
    """Its orders, and what clients are shown of it, are packets, too."""
    big = layers(*(a_layer(name=f"l{n}", argv=("x" * 60_000,)) for n in range(4)))
    problem = check_spec(big)
    assert problem is not None
    assert problem.startswith("the job has 240")
    assert problem.endswith(f"bytes in all, {MAX_JOB} are allowed")
    patterns = tuple("p" * 300 for _ in range(100))
    most = a_job(
        env={"A": "x" * (MAX_ENV - 10)},
        layer={
            "argv": ("x" * (MAX_COMMAND - 10),),
            "env": {"B": "x" * 20_000},
            "outputs": patterns,
            "cwd": "/" + "d" * 4000,
        },
    )
    assert check_spec(most) is None
    encode(Submit(rq=1, token="long-enough", spec=most))
    layer = most.layers[0]
    env = {**most.env, **layer.env}
    order = structs.replace(ORDER, argv=layer.argv, env=env, outputs=layer.outputs, cwd=layer.cwd)
    encode(Orders(epoch=1, run=(order,)))


names = st.sampled_from("abcdef")


@given(st.dictionaries(names, st.lists(names, max_size=3), max_size=6))
def test_circles_are_found_exactly_where_they_are(after: dict[str, list[str]]) -> None:
    found = layer_cycle([a_layer(name=name, after=tuple(rest)) for name, rest in after.items()])
    left = {name: {other for other in rest if other in after} for name, rest in after.items()}
    while free := [name for name, rest in left.items() if not rest]:
        for name in free:
            del left[name]
        for rest in left.values():
            rest.difference_update(free)
    assert bool(found) == bool(left)
    if found:
        assert found[0] == found[-1]
        assert len(found) > 1
        assert all(then in after[name] for name, then in pairwise(found))
