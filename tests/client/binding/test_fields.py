"""Typed attributes: what they hold, what they refuse, and the one door around that."""

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.binding import fields
from drqueue.client.binding.fields import put
from drqueue.client.binding.structures import computer_status, envvar, frame_info, job, task

UNSIGNED = [
    (frame_info, "status", 8),
    (frame_info, "exitcode", 8),
    (job, "nprocs", 16),
    (job, "status", 16),
    (frame_info, "itask", 16),
    (job, "id", 32),
    (job, "priority", 32),
    (job, "frame_start", 32),
    (job, "frame_end", 32),
    (job, "frame_step", 32),
    (job, "block_size", 32),
    (frame_info, "end_time", 32),
    (task, "start_loading_time", 64),
]
SIGNED = [(task, "pid", 32), (task, "exitstatus", 32), (job, "fishmid", 64)]


@pytest.mark.parametrize(("kind", "name", "bits"), UNSIGNED)
def test_an_unsigned_field_holds_exactly_its_bits(kind: type[fields.Struct], name: str, bits: int) -> None:
    thing = kind()
    for value in (0, 1, 2**bits - 1):
        setattr(thing, name, value)
        assert getattr(thing, name) == value
    for value in (-1, 2**bits):
        with pytest.raises(OverflowError, match=name):
            setattr(thing, name, value)
    assert getattr(thing, name) == 2**bits - 1, "a refused value changes nothing"


@pytest.mark.parametrize(("kind", "name", "bits"), SIGNED)
def test_a_signed_field_holds_exactly_its_bits(kind: type[fields.Struct], name: str, bits: int) -> None:
    thing = kind()
    for value in (-(2 ** (bits - 1)), -1, 2 ** (bits - 1) - 1):
        setattr(thing, name, value)
        assert getattr(thing, name) == value
    for value in (-(2 ** (bits - 1)) - 1, 2 ** (bits - 1)):
        with pytest.raises(OverflowError):
            setattr(thing, name, value)


@given(st.integers(-(2**40), 2**40))
def test_a_number_is_kept_or_refused(value: int) -> None:
    thing = job()
    if 0 <= value < 2**32:
        thing.priority = value
        assert thing.priority == value
    else:
        with pytest.raises(OverflowError):
            thing.priority = value


@pytest.mark.parametrize("value", ["1", 1.0, None, b"1", [1]])
def test_what_is_no_int_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="priority"):
        job().priority = value  # type: ignore[assignment]


def test_a_bool_is_an_int_and_reads_back_as_one() -> None:
    thing = job()
    thing.autoRequeue = True
    assert type(thing.autoRequeue) is int
    assert thing.autoRequeue == 1


@pytest.mark.parametrize(("check", "most"), [(fields.u8, 255), (fields.u16, 65535), (fields.u32, 2**32 - 1)])
def test_argument_checks_name_the_argument(check: Callable[[object, str], int], most: int) -> None:
    assert check(0, "who") == 0
    assert check(most, "who") == most
    for value in (-1, most + 1):
        with pytest.raises(OverflowError, match="who"):
            check(value, "who")
    with pytest.raises(TypeError, match="who"):
        check("20", "who")


def test_a_frame_number_may_be_negative() -> None:
    assert fields.frame_number(-(2**31), "frame") == -(2**31)
    assert fields.frame_number(2**32 - 1, "frame") == 2**32 - 1
    for value in (-(2**31) - 1, 2**32):
        with pytest.raises(OverflowError):
            fields.frame_number(value, "frame")


def test_names_have_127_characters_at_most() -> None:
    thing = job()
    thing.name = "ü" * 127
    with pytest.raises(TypeError, match="128 characters"):
        thing.name = "n" * 128
    assert thing.name == "ü" * 127


def test_commands_have_64_kb_at_most_counted_in_bytes() -> None:
    thing = job()
    thing.cmd = "ü" * 32_768
    for command in ("ü" * 32_768 + "x", "x" * 65_537):
        with pytest.raises(TypeError, match="bytes"):
            thing.cmd = command
    thing.koji.maya.scene = "s" * 4095
    with pytest.raises(TypeError):
        thing.koji.maya.scene = "s" * 4096


@pytest.mark.parametrize("value", [b"name", 3, ["n"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        job().name = value  # type: ignore[assignment]


def test_none_is_the_empty_text_and_a_nul_ends_one() -> None:
    thing = job()
    thing.name = "before\0after"
    assert thing.name == "before"
    thing.name = None
    assert thing.name == ""
    thing.limits.pool = None
    assert thing.limits.pool == "", "not the default again"


@given(st.text(max_size=200))
def test_a_text_reads_back_up_to_its_first_nul(value: str) -> None:
    thing = envvar()
    if len(value) > 127:
        with pytest.raises(TypeError):
            thing.name = value
    else:
        thing.name = value
        assert thing.name == value.partition("\0")[0]


def test_put_passes_what_a_farm_may_have_and_the_original_could_not() -> None:
    thing = job()
    put(thing, "frame_start", -5)
    put(thing, "name", "n" * 300)
    assert thing.frame_start == -5
    assert thing.name == "n" * 300


@pytest.mark.parametrize("name", ["nonsense", "limits", "nblocked", "send_to_queue"])
def test_put_knows_its_fields(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        put(job(), name, 1)


def test_a_nested_structure_is_a_view_and_assigning_copies_into_it() -> None:
    one, other = job(), job()
    view = one.limits
    other.limits.pool = "gpu"
    other.limits.memory = 7
    one.limits = other.limits
    assert view.pool == "gpu"
    assert one.limits is view
    other.limits.pool = "else"
    assert (one.limits.pool, one.limits.memory) == ("gpu", 7)
    with pytest.raises(TypeError, match="job_limits"):
        one.limits = one.envvars  # type: ignore[assignment]


def test_assigning_a_structure_to_itself_changes_nothing() -> None:
    thing = job()
    thing.environment_variable_add("A", "1")
    thing.envvars = thing.envvars
    assert thing.environment_variable_find("A") == "1"


def test_a_counter_may_only_cut_its_list() -> None:
    thing = job()
    for name in "ABC":
        thing.environment_variable_add(name, name)
    thing.envvars.nvariables = 1
    assert [each.name for each in thing.envvars.variables.ptr] == ["A"]
    with pytest.raises(ValueError, match="nvariables"):
        thing.envvars.nvariables = 2
    with pytest.raises(OverflowError):
        thing.envvars.nvariables = -1
    assert thing.envvars.nvariables == 1


def test_lists_take_only_their_own_kind_and_copy_it() -> None:
    thing, variable = job(), envvar()
    variable.name = "A"
    thing.envvars.variables.ptr = [variable]
    variable.name = "B"
    assert thing.envvars.variables.ptr[0].name == "A"
    with pytest.raises(TypeError, match="envvar"):
        thing.envvars.variables.ptr = [frame_info()]  # type: ignore[list-item]


def test_the_load_is_three_numbers() -> None:
    status = computer_status()
    status.loadavg = (100, 50, 65535)
    assert status.loadavg == (100, 50, 65535)
    with pytest.raises(ValueError, match="holds 3 numbers"):
        status.loadavg = (1, 2)
    with pytest.raises(OverflowError):
        status.loadavg = (1, 2, 65536)


def test_success_codes_are_any_or_codes() -> None:
    thing = job()
    assert thing.success_exit_codes == (0,)
    thing.success_exit_codes = [0, 255]
    assert thing.success_exit_codes == (0, 255)
    thing.success_exit_codes = "any"
    assert thing.success_exit_codes == "any"
    for value, error in (("all", ValueError), ((), ValueError), ((256,), OverflowError), (7, TypeError)):
        with pytest.raises(error):
            thing.success_exit_codes = value  # type: ignore[assignment]
    with pytest.raises(TypeError):
        thing.success_exit_codes = ("0",)  # type: ignore[assignment]
    assert thing.success_exit_codes == "any"


def test_any_other_attribute_is_silently_kept() -> None:
    thing = job()
    thing.priorty = 3  # type: ignore[attr-defined]
    assert thing.priorty == 3  # type: ignore[attr-defined]
    assert thing.priority == 500


def test_objects_do_not_share_their_values() -> None:
    one, other = job(), job()
    one.limits.pool = "x"
    one.environment_variable_add("A", "1")
    one.koji.blender.scene = "s"
    assert other.limits.pool == "Default"
    assert other.envvars.nvariables == 0
    assert other.koji.blender.scene == ""


def test_a_structure_can_be_deeply_copied_and_pickled() -> None:
    thing = job()
    thing.environment_variable_add("A", "1")
    for twin in (copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
        twin.environment_variable_add("A", "2")
        assert thing.environment_variable_find("A") == "1"
        assert twin.environment_variable_find("A") == "2"
