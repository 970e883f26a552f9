"""From an order to a command: placeholders and environment."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave.environment import (
    BadOrderError,
    Node,
    command,
    members,
    members_text,
    node_basis,
    output_fields,
)

NODE = Node({"PATH": "/bin", "HOME": "/home/u"}, "/home/u", "/state/scratch")


def an_order(**fields: object) -> RunOrder:
    """The second try at frames 8, 10, 12 of 2-20x2."""
    basis: dict[str, object] = {
        "key": AttemptKey(7, 1, 3, 2),
        "start": 8,
        "step": 2,
        "count": 3,
        "argv": ("render",),
        "cwd": "/shots",
        "cores": 4,
        "memory_mb": 512,
        "job_name": "shot 1",
        "owner": "ann",
        "pool": "fast",
        "layer_name": "beauty",
        "range_start": 2,
        "range_end": 20,
        "range_step": 2,
        "block": 3,
    }
    return RunOrder(**{**basis, **fields})  # type: ignore[arg-type]


def words(*argv: str, **fields: object) -> tuple[str, ...]:
    """The arguments that come of these."""
    return command(an_order(argv=argv, **fields), NODE).argv


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{frame}", "8"),
        ("f{frame:04d}.png", "f0008.png"),
        ("{frame:4d}", "   8"),
        ("{frame:04}", "0008"),
        ("{start}-{end}x{step}", "8-12x2"),
        ("{frames}", "8,10,12"),
        ("try {attempt} on {threads}", "try 2 on 4"),
        ("{{frame}} {{frame:04d}}", "{frame} {frame:04d}"),
        ("{{{frame}}}", "{{frame}}"),
        ("${HOME} {a,b} {} {0} {Frame} {frame_} {frame.x} {frame!r}", None),
        ('{"a": {"b": 1}, "c": {{}}}', None),
        ("awk '{ print $1 }'", None),
        ('{"n": {frame}}', '{"n": 8}'),
        ("}{", None),
    ],
)
def test_placeholders_are_filled_and_other_braces_survive(text: str, wanted: str | None) -> None:
    assert words("x", text) == ("x", text if wanted is None else wanted)


@pytest.mark.parametrize(
    "text", ["{frame:x}", "{frame:04s}", "{start:,}", "{frames:04d}", "{frame:>9}", "{end:123d}"]
)
def test_a_format_that_is_not_understood_is_an_error_in_a_sentence(text: str) -> None:
    with pytest.raises(BadOrderError, match=text):
        words("x", text)


def test_a_string_is_for_the_shell() -> None:
    made = command(an_order(argv=(), shell="echo {frame} ${X}"), NODE)
    assert made.argv == ("/bin/sh", "-c", "echo 8 ${X}")


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a", "b\0c")},
        {"env": {"A=B": "x"}},
        {"env": {"": "x"}},
        {"env": {"A": "x\0"}},
        {"cwd": "relative"},
        {"cwd": "/a\0b"},
        {"outputs": ("{nonsense}",)},
    ],
)
def test_what_cannot_be_run_is_an_error(fields: dict[str, object]) -> None:
    with pytest.raises(BadOrderError):
        command(an_order(**fields), NODE)


def test_the_environment_is_the_nodes_the_jobs_and_drqueues() -> None:
    env = command(an_order(env={"PATH": "/opt/bin", "SHOW": "x", "DRQUEUE_ATTEMPT": "forged"}), NODE).env
    assert env == {
        "PATH": "/opt/bin",
        "HOME": "/home/u",
        "SHOW": "x",
        "DRQUEUE_FRAME": "8",
        "DRQUEUE_PADFRAME": "0008",
        "DRQUEUE_PADFRAMES": "0008 0010 0012",
        "DRQUEUE_STARTFRAME": "2",
        "DRQUEUE_ENDFRAME": "20",
        "DRQUEUE_STEPFRAME": "2",
        "DRQUEUE_BLOCKSIZE": "3",
        "DRQUEUE_JOBID": "7",
        "DRQUEUE_JOBNAME": "shot 1",
        "DRQUEUE_OWNER": "ann",
        "DRQUEUE_POOL": "fast",
        "DRQUEUE_LAYER": "beauty",
        "DRQUEUE_ATTEMPT": "7/1/3/2",
        "DRQUEUE_THREADS": "4",
        "DRQUEUE_MEMORY_MB": "512",
        "DRQUEUE_DISK_MB": "0",
        "DRQUEUE_AMOUNTS": "",
        "DRQUEUE_GPUS": "",
    }


def test_the_node_leaves_out_what_is_empty() -> None:
    basis = node_basis(path="/bin", home="/h", user="u", lang="C.UTF-8", tz="", os_name="linux")
    assert basis == {
        "PATH": "/bin",
        "HOME": "/h",
        "USER": "u",
        "LOGNAME": "u",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "DRQUEUE_OS": "LINUX",
    }


def test_a_job_overrides_what_the_node_hands_on_but_not_what_its_frames_are() -> None:
    basis = node_basis(
        path="/bin",
        home="/h",
        user="u",
        lang="",
        tz="",
        os_name="linux",
        handed_on={"DRQUEUE_ROOT": "/drq", "DRQUEUE_LOGS": "/drq/logs", "DRQUEUE_DB": ""},
    )
    assert "DRQUEUE_DB" not in basis
    node = Node({**basis, "DRQUEUE_MASTER": "unix:/m", "DRQUEUE_COMPID": "3"}, "/h", "/s")
    plain = command(an_order(), node).env
    assert [plain[f"DRQUEUE_{name}"] for name in ("ROOT", "LOGS", "MASTER", "COMPID")] == [
        "/drq",
        "/drq/logs",
        "unix:/m",
        "3",
    ]
    theirs = {name: "mine" for name in plain if name.startswith("DRQUEUE_")}
    env = command(an_order(env=theirs), node).env
    overridden = {name for name, value in env.items() if value == "mine"}
    assert overridden == {f"DRQUEUE_{name}" for name in ("ROOT", "LOGS", "MASTER", "COMPID", "OS")}
    assert env["DRQUEUE_POOL"] == "fast"


GPU_VARIABLES = ("DRQUEUE_GPUS", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def test_an_attempt_sees_its_own_gpus_whatever_its_job_says() -> None:
    theirs = dict.fromkeys(GPU_VARIABLES, "mine")
    env = command(an_order(gpus=(0, 2), env=theirs), NODE).env
    assert [env[name] for name in GPU_VARIABLES] == ["0,2", "0,2", "0,2", "PCI_BUS_ID"]


def test_an_attempt_without_gpus_is_told_so_and_nothing_else() -> None:
    """Farms that do not tell DrQueue of their GPUs may go on setting CUDA's variables in their jobs."""
    env = command(an_order(), NODE).env
    assert {name: env[name] for name in GPU_VARIABLES if name in env} == {"DRQUEUE_GPUS": ""}
    env = command(an_order(env={"CUDA_VISIBLE_DEVICES": "1", "DRQUEUE_GPUS": "1"}), NODE).env
    assert (env["CUDA_VISIBLE_DEVICES"], env["DRQUEUE_GPUS"]) == ("1", "")


def test_what_an_attempt_was_given_is_told() -> None:
    order = an_order(cores=2.5, disk_mb=300, amounts={"seats": 2, "ram": 1.5, "half": 0.1 + 0.2})
    env = command(order, NODE).env
    assert env["DRQUEUE_THREADS"] == "2"
    assert env["DRQUEUE_DISK_MB"] == "300"
    assert env["DRQUEUE_AMOUNTS"] == "seats=2,ram=1.5,half=0.3"
    assert command(an_order(cores=0.25), NODE).env["DRQUEUE_THREADS"] == "1"


@pytest.mark.parametrize(
    ("pad", "start", "count", "padded"),
    [
        (4, 7, 1, "0007"),
        (0, 7, 1, "7"),
        (1, 7, 2, "7 9"),
        (6, 8, 3, "000008 000010 000012"),
        (3, 12345, 1, "12345"),
        (4, -5, 3, "-005 -003 -001"),
        (2, -12, 1, "-12"),
        (0, -2, 2, "-2 0"),
        (99, 1, 1, "1".rjust(99, "0")),
    ],
)
def test_padded_numbers_have_the_layers_digits(pad: int, start: int, count: int, padded: str) -> None:
    """A minus sign takes the place of a digit, as printf has it."""
    env = command(an_order(pad=pad, start=start, count=count), NODE).env
    assert env["DRQUEUE_PADFRAMES"] == padded
    assert env["DRQUEUE_PADFRAME"] == padded.split(maxsplit=1)[0]


def test_many_wide_numbers_are_left_out_of_the_environment() -> None:
    """As a kernel takes no variable of that length, the command would not start."""
    assert "DRQUEUE_PADFRAMES" in command(an_order(pad=99, count=1200), NODE).env
    assert "DRQUEUE_PADFRAMES" not in command(an_order(pad=99, count=1201), NODE).env


def test_the_first_output_is_named_with_its_directory() -> None:
    env = command(an_order(outputs=("a/{frame:03d}.png", "b")), NODE).env
    assert env["DRQUEUE_OUTPUT"] == "/shots/a/008.png"
    assert output_fields(an_order()) == {
        "start": 8,
        "end": 12,
        "step": 2,
        "attempt": 2,
        "threads": 4,
    }
    assert output_fields(an_order(outputs=("{frames}.exr",)))["frames"] == "8,10,12"


def test_working_directories() -> None:
    assert command(an_order(cwd=""), NODE).cwd == "/home/u"
    assert command(an_order(cwd="~"), NODE).cwd == "/home/u"
    assert command(an_order(cwd="/out/{frame:04d}"), NODE).cwd == "/out/0008"
    made = command(an_order(cwd="scratch"), NODE)
    assert (made.cwd, made.scratch) == ("/state/scratch/7.1.3.2", True)


def test_a_list_too_long_for_any_process_is_left_out_of_the_environment() -> None:
    """A chunk of a million pictures still starts; its script has FRAME, STEPFRAME and BLOCKSIZE."""
    env = command(an_order(count=1_000_000), NODE).env
    assert "DRQUEUE_PADFRAMES" not in env
    assert env["DRQUEUE_FRAME"] == "8"


@pytest.mark.parametrize("text", ["{frame}", "{frames}"])
def test_an_order_that_never_gets_on_is_a_bad_one(text: str) -> None:
    with pytest.raises(BadOrderError, match="step is 0"):
        words("x", text, count=3, step=0)


def test_a_list_too_long_for_an_argument_is_refused_where_it_is_used() -> None:
    assert words("x", "{start}-{end}", count=1_000_000) == ("x", "8-2000006")
    assert words("x", "{frames}", count=1_000_000, step=1) == ("x", "8-1000007")
    with pytest.raises(BadOrderError, match="1000000 pictures"):
        words("x", "{frames}", count=1_000_000)
    assert "frames" not in output_fields(an_order(count=1_000_000, outputs=("{frame}.png",)))


@pytest.mark.parametrize(
    ("start", "step", "count", "text"),
    [
        (7, 1, 1, "7"),
        (1, 1, 4, "1-4"),
        (1, 2, 3, "1,3,5"),
        (5, -1, 3, "5,4,3"),
        (-2, 1, 3, "-2-0"),
        (3, -5, 1, "3"),
    ],
)
def test_the_numbers_of_a_chunk(start: int, step: int, count: int, text: str) -> None:
    order = an_order(start=start, step=step, count=count)
    assert members_text(order) == text
    assert list(members(order)) == [start + step * n for n in range(count)]


@given(st.text(alphabet="{}:fraemstpnd0 4,\"'$", max_size=40))
def test_filling_raises_nothing_but_bad_order(text: str) -> None:
    try:
        made = words("x", text)
    except BadOrderError:
        return
    assert len(made) == 2


@given(
    st.recursive(
        st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(st.text(max_size=5), inner)
    )
)
def test_json_without_a_placeholders_name_survives(value: object) -> None:
    text = json.dumps(value)
    if not any(name in text for name in ("frame", "start", "end", "step", "attempt", "threads")):
        assert words("x", text) == ("x", text)


def test_orders_of_several_layers_by_turns() -> None:
    """What the frames of a layer have in common is made once, and is no other layer's, job's or node's."""
    other_node = NODE._replace(basis={**NODE.basis, "HOME": "/elsewhere"})
    orders = [
        an_order(),
        an_order(layer_name="comp"),
        an_order(cores=2),
        an_order(env={"A": "1"}),
        an_order(key=AttemptKey(8, 1, 3, 2)),
        an_order(amounts={"licence": 1}),
    ]
    apart = [command(order, node).env for order in orders for node in (NODE, other_node)]
    assert apart == [command(order, node).env for order in orders for node in (NODE, other_node)]
    assert len({tuple(sorted(env.items())) for env in apart}) == len(apart)
    first, second = command(orders[0], NODE), command(an_order(start=10), NODE)
    assert first.layer_env is second.layer_env
    assert (first.env["DRQUEUE_FRAME"], second.env["DRQUEUE_FRAME"]) == ("8", "10")
