"""Every name of the table is offered, is what the table says, and does what is recorded of the original."""

import ast
import importlib
import inspect
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import drqueue
import drqueue.base.libdrqueue
from drqueue.client.binding import session
from tests.binding.checks import CHECKS, Bench, C
from tests.binding.table import (
    ABSENT,
    CLASSES,
    CONSTANTS,
    EXTRA_CONSTANTS,
    EXTRA_FIELDS,
    FIELDS,
    FUNCTIONS,
    METHODS,
    OFFERED,
    POINTERS,
    Argument,
    FieldOf,
)
from tests.e2e.helpers import farm_up

HERE = Path(__file__).parent
for path in sorted(HERE.glob("calls_*.py")):
    pytest.register_assert_rewrite(f"tests.binding.{path.stem}")
    importlib.import_module(f"tests.binding.{path.stem}")

CALLS = FUNCTIONS | METHODS
WITH_FARM = {name for name, found in CHECKS.items() if any(inspect.signature(f).parameters for f in found)}
PLACES = (drqueue, drqueue.base.libdrqueue)
BOUNDS = {f"u{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)}
BOUNDS |= {f"i{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (32, 64)}
BOUNDS |= {"who": BOUNDS["u16"], "frame": (-(2**31), 2**32 - 1)}
LENGTHS = {"name": 127, "path": 4095, "command": 65536, "value": 65536}


# -- the table and the module are one ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_is_offered(name: str) -> None:
    """In both places, as one and the same thing."""
    assert getattr(drqueue, name, None) is not None, f"drqueue.{name} is missing"
    assert getattr(drqueue.base.libdrqueue, name) is getattr(drqueue, name)


@pytest.mark.parametrize(("name", "value"), sorted({**CONSTANTS, **EXTRA_CONSTANTS}.items()))
def test_constant(name: str, value: int | str) -> None:
    for place in PLACES:
        found = getattr(place, name)
        assert (found, type(found)) == (value, type(value))


def test_nothing_else_is_offered() -> None:
    for place in PLACES:
        assert set(place.__all__) == OFFERED
    assert set(dir(drqueue)) >= OFFERED


@pytest.mark.parametrize("name", sorted(name for row in ABSENT for name in row.names))
def test_is_absent(name: str) -> None:
    for place in PLACES:
        assert not hasattr(place, name)


@pytest.mark.parametrize("pattern", sorted(pattern for row in ABSENT for pattern in row.patterns))
def test_nothing_of_this_pattern_is_offered(pattern: str) -> None:
    assert [name for name in dir(drqueue) if fnmatchcase(name, pattern)] == []


def test_the_table_is_sound() -> None:
    """No name stands twice, the original's constants are all there, what is absent has a reason."""
    tables = [set(CONSTANTS), set(EXTRA_CONSTANTS), set(FUNCTIONS), set(CLASSES)]
    tables += [set(row.names) for row in ABSENT]
    every = [name for names in tables for name in names]
    assert len(every) == len(set(every))
    assert len(CONSTANTS) == 116  # with PATH_MAX, which is the platform's, and KOJ_BMRT of before 2010
    assert all(row.reason for row in ABSENT)
    assert all(call.result for call in CALLS.values())


def test_every_check_has_its_name_in_the_table() -> None:
    assert sorted(set(CHECKS) - set(CALLS)) == []


# -- classes ----------------------------------------------------------------------------------------------


def new(name: str) -> Any:
    """A new object of a class of the binding, of one behind a pointer too."""
    return class_of(name)()


def class_of(name: str) -> Any:
    if name in CLASSES:
        return getattr(drqueue, name)
    (home,) = (field for field in FIELDS if field.type == name and field.name != "local_pool")
    return type(getattr(new(home.owner), home.name))


@pytest.mark.parametrize("owner", CLASSES)
def test_class_has_these_fields_and_methods_and_no_other(owner: str) -> None:
    cls = getattr(drqueue, owner)
    wanted = [field.name for field in FIELDS if field.owner == owner]
    assert [name for name in cls.fields if name not in EXTRA_FIELDS.get(owner, [])] == wanted
    methods = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    known = {name.partition(".")[2] for name in METHODS if name.startswith(f"{owner}.")}
    assert known <= methods
    helpers = {"fill", "find", "add", "delete", "fill_blocked", "fill_pools", "slot", "clear_tasks"}
    assert methods - known <= helpers


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_field(field: FieldOf) -> None:
    """What a new object has, what can be assigned and read back, and what is refused."""
    thing = new(field.owner)
    if field.type in POINTERS:
        check_pointer(thing, field)
    elif field.type in CLASSES:
        check_nested(thing, field)
    elif field.type in BOUNDS:
        assert getattr(thing, field.name) == field.default
        check_number(thing, field)
    elif field.type in LENGTHS:
        assert getattr(thing, field.name) == field.default
        check_text(thing, field)
    else:
        {"count": check_count, "loads": check_loads, "slots": check_slots}[field.type](thing, field)


def check_number(thing: Any, field: FieldOf) -> None:
    low, high = BOUNDS[field.type]
    for value in (low, high, 7):
        setattr(thing, field.name, value)
        assert getattr(thing, field.name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(OverflowError):
            setattr(thing, field.name, value)
    for wrong in ("7", None, 7.0, b"7"):
        with pytest.raises(TypeError):
            setattr(thing, field.name, wrong)
    assert getattr(thing, field.name) == 7


def check_text(thing: Any, field: FieldOf) -> None:
    most = LENGTHS[field.type]
    for value in ("x" * most, "with blanks, \"quotes\" and 'more'", "äöü"):
        setattr(thing, field.name, value)
        assert getattr(thing, field.name) == value
    with pytest.raises(TypeError):
        setattr(thing, field.name, "x" * (most + 1))
    for wrong in (7, b"bytes", ["x"]):
        with pytest.raises(TypeError):
            setattr(thing, field.name, wrong)
    assert getattr(thing, field.name) == "äöü"
    setattr(thing, field.name, "up to\0here")
    assert getattr(thing, field.name) == "up to"
    setattr(thing, field.name, None)
    assert getattr(thing, field.name) == ""


def check_nested(thing: Any, field: FieldOf) -> None:
    """A view on the object that it belongs to; assigning copies into it."""
    inner = getattr(thing, field.name)
    assert type(inner) is getattr(drqueue, field.type)
    assert getattr(thing, field.name) is inner
    with pytest.raises(TypeError):
        setattr(thing, field.name, 7)
    for plain in FIELDS:
        if plain.owner == field.type and plain.type in {**BOUNDS, **LENGTHS}:
            value: int | str = 5 if plain.type in BOUNDS else "five"
            setattr(getattr(thing, field.name), plain.name, value)
            assert getattr(getattr(thing, field.name), plain.name) == value
    setattr(thing, field.name, new(field.type))
    assert getattr(thing, field.name) is inner
    for plain in FIELDS:
        if plain.owner == field.type and plain.type in {**BOUNDS, **LENGTHS}:
            assert getattr(inner, plain.name) == plain.default


def check_pointer(thing: Any, field: FieldOf) -> None:
    """What was a C pointer is a list."""
    pointer = getattr(thing, field.name)
    assert pointer.ptr == []
    item = new(POINTERS[field.type])
    pointer.ptr.append(item)
    assert getattr(thing, field.name).ptr == [item]
    pointer.ptr = None
    assert pointer.ptr == []


def check_count(thing: Any, field: FieldOf) -> None:
    """It counts the list that a pointer beside it holds; it cuts that, and cannot lengthen it."""
    of = {"nblocked": "blocked_host", "nvariables": "variables", "npools": "pool"}[field.name]
    (pointer,) = (each for each in FIELDS if each.owner == field.owner and each.name == of)
    assert getattr(thing, field.name) == 0
    items = getattr(thing, of).ptr
    items += [new(POINTERS[pointer.type]) for _ in range(3)]
    assert getattr(thing, field.name) == 3
    setattr(thing, field.name, 1)
    assert len(items) == getattr(thing, field.name) == 1
    for wrong, error in ((2, ValueError), (-1, OverflowError), (65536, OverflowError), ("1", TypeError)):
        with pytest.raises(error):
            setattr(thing, field.name, wrong)
    assert len(items) == 1


def check_loads(thing: Any, field: FieldOf) -> None:
    assert list(thing.loadavg) == [0, 0, 0]
    thing.loadavg = (1, 2, 65535)
    assert list(thing.loadavg) == [1, 2, 65535]
    for wrong, error in (((1, 2), ValueError), ((1, 2, 65536), OverflowError), ((1, 2, "3"), TypeError)):
        with pytest.raises(error):
            thing.loadavg = wrong
    assert list(thing.loadavg) == [1, 2, 65535]


def check_slots(thing: Any, field: FieldOf) -> None:
    assert [type(each) for each in thing.task] == [drqueue.task] * drqueue.MAXTASKS
    thing.task[31].frame = 9
    assert thing.task[31].frame == 9
    with pytest.raises(TypeError):
        thing.task = [7]


def test_pool_is_made_with_a_name() -> None:
    assert drqueue.pool("farm").name == "farm"
    with pytest.raises(TypeError):
        drqueue.pool("x" * 128)


# -- functions and methods --------------------------------------------------------------------------------


def called(name: str) -> Any:
    """What is called for a name of the table: the function, or the method of a new object."""
    owner, _, method = name.rpartition(".")
    return getattr(new(owner), method) if owner else getattr(drqueue, name)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_takes_these_arguments_in_this_order(name: str) -> None:
    found = inspect.signature(called(name)).parameters.values()
    shown = [Argument(p.name, "", p.default is not p.empty) for p in found]
    assert shown == [Argument(each.name, "", each.optional) for each in CALLS[name].arguments]


GUARDED = [
    (name, place)
    for name, call in sorted(CALLS.items())
    for place, argument in enumerate(call.arguments)
    if argument.kind in BOUNDS
]


def fitting(argument: Argument) -> Any:
    """A value of that kind, with which no request does anything."""
    if argument.kind in CLASSES:
        return new(argument.kind)
    fixed: dict[str, Any] = {"who": C, "text": "nobody", "list": [], "int": 1, "any": drqueue.job()}
    return fixed.get(argument.kind, 1)


@pytest.mark.parametrize(("name", "place"), GUARDED)
def test_numbers_are_checked_before_anything_is_sent(
    name: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No master is asked: there is none, and a request that looked for it would raise nothing."""
    monkeypatch.setenv("DRQUEUE_MASTER", "unix:/nonexistent/master.sock")
    low, high = BOUNDS[CALLS[name].arguments[place].kind]
    values = [fitting(argument) for argument in CALLS[name].arguments]
    for wrong, error in ((low - 1, OverflowError), (high + 1, OverflowError), ("1", TypeError)):
        with pytest.raises(error):
            called(name)(*values[:place], wrong, *values[place + 1 :])
    with pytest.raises(TypeError):
        called(name)(*values[:place], None, *values[place + 1 :])


TEXTS = [
    (name, place)
    for name, call in sorted(FUNCTIONS.items())
    for place, argument in enumerate(call.arguments)
    if argument.kind == "text" and name.startswith("request_")
]


@pytest.mark.parametrize(("name", "place"), TEXTS)
def test_none_is_no_text(name: str, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original crashed."""
    monkeypatch.setenv("DRQUEUE_MASTER", "unix:/nonexistent/master.sock")
    values = [fitting(argument) for argument in CALLS[name].arguments]
    for wrong in (None, 7, b"nobody"):
        with pytest.raises(TypeError):
            called(name)(*values[:place], wrong, *values[place + 1 :])


@pytest.mark.parametrize("name", sorted(set(CALLS) - WITH_FARM))
def test_does_what_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no farm; its environment is its own."""
    assert name in CHECKS, f"nobody has checked {name}"
    kept = dict(os.environ)
    try:
        for check in CHECKS[name]:
            check()
    finally:
        os.environ.clear()
        os.environ.update(kept)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a farm that runs for all checks of this module."""
    folder = tmp_path_factory.mktemp("binding")
    with farm_up(folder, slaves=2, cores=2) as up:
        yield up.state_dir


@pytest.fixture
def bench(farm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The binding talks to that farm; afterwards all jobs are deleted."""
    monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{farm}/master.sock")
    yield Bench(tmp_path)
    for job in drqueue.request_job_list(C):
        drqueue.request_job_delete(job.id, C)
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITH_FARM))
def test_does_on_a_farm_what_is_recorded(name: str, bench: Bench) -> None:
    for check in CHECKS[name]:
        if inspect.signature(check).parameters:
            check(bench)
        else:
            check()


def test_files_of_checks_are_read() -> None:
    """A check outside `calls_*.py` would be registered by nobody."""
    assert len(list(HERE.glob("calls_*.py"))) > 2
    for path in HERE.glob("*.py"):
        tree = ast.parse(path.read_text())
        decorated = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.decorator_list]
        uses = [n.name for n in decorated if ast.unparse(n.decorator_list[0]).startswith("checks(")]
        assert bool(uses) == path.name.startswith("calls_"), path.name
