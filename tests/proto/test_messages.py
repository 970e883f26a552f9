"""Every message travels, and what older peers sent stays readable."""

import json
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from drqueue.proto.codec import decode, encode
from drqueue.proto.ids import AttemptKey, parse_attempt
from drqueue.proto.link_messages import Beat, Hello, Message, Orders, Registered, Report, Started
from drqueue.proto.messages import Request, Submit
from drqueue.proto.model import Alternative, Depend, JobChange, LayerDepend, Needs, Offers, RunOrder, Share
from drqueue.proto.tags import BY_TAG
from drqueue.proto.views import PoolView
from tests.proto.examples import BY_NAME, EXAMPLES, OLDER

#: What peers of protocol 1 send. Never changed, only added to (this file, run as a module, prints it).
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def shortest(body: bytes) -> bytes:
    """The same with every length as short as msgpack knows it: the writer may choose."""
    return bytes(msgpack.packb(msgpack.unpackb(body)))


def golden(name: str) -> Message:
    """The message whose bytes are kept under this name; "Hi+" is what "Hi" came to be, and so on."""
    return OLDER.get(name) or BY_NAME[name.rstrip("+")]


def test_there_is_an_example_of_every_message() -> None:
    assert {type(example) for example in EXAMPLES} == set(BY_TAG.values())
    assert len(EXAMPLES) == len(BY_TAG)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_examples_say_something_in_every_field(example: Message) -> None:
    """Else a field that does not travel would not be noticed."""
    for info in msgspec.structs.fields(type(example)):
        if info.default is not msgspec.NODEFAULT:
            assert getattr(example, info.name) != info.default, info.name


def test_examples_say_something_in_every_field_of_every_value() -> None:
    """The same for what messages are made of."""
    silent: dict[type[Any], set[str]] = {}

    def look(value: Any) -> None:
        if isinstance(value, msgspec.Struct):
            infos = {info.name: info for info in msgspec.structs.fields(type(value))}
            unsaid = {name for name, info in infos.items() if getattr(value, name) == _default(info)}
            silent[type(value)] = silent.get(type(value), unsaid) & unsaid
            value = [getattr(value, name) for name in infos]
        if isinstance(value, (list, tuple)):
            for each in value:
                look(each)

    look(EXAMPLES)
    assert silent.keys() > {Needs, Alternative, LayerDepend, Offers, Share, JobChange, RunOrder, PoolView}
    assert {kind.__name__: names for kind, names in silent.items() if names} == {}


def _default(info: msgspec.structs.FieldInfo) -> object:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return info.default


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_every_message_travels(example: Message) -> None:
    assert decode(encode(example)) == example


def test_tags_are_the_names_in_small_letters() -> None:
    assert {tag: cls.__name__.lower() for tag, cls in BY_TAG.items()} == {tag: tag for tag in BY_TAG}


def test_every_request_has_its_number() -> None:
    for cls in BY_TAG.values():
        assert issubclass(cls, Request) == ("rq" in cls.__struct_fields__)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_are_read(name: str) -> None:
    assert decode(bytes.fromhex(GOLDEN[name])) == golden(name)


def test_a_start_without_its_process_is_read() -> None:
    """As slaves told it before they told the process, too."""
    old = bytes.fromhex("82a174a67265706f7274a77374617274656491929407010402cb3ff8000000000000")
    assert decode(old) == Report(started=(Started(AttemptKey(7, 1, 4, 2), 1.5),))


def test_f6_who_counts_nothing_and_tells_no_moment_is_read() -> None:
    """Masters and slaves from before they said which word came, and which message of the link it is."""
    beat, hello, registered, orders, report = (
        decode(bytes.fromhex(GOLDEN[name])) for name in ("Beat", "Hello+", "Registered", "Orders+", "Report+")
    )
    assert isinstance(beat, Beat)
    assert (beat.echo, beat.at, beat.seen) == (True, 0, 0)
    assert isinstance(hello, Hello)
    assert isinstance(registered, Registered)
    assert (hello.at, registered.seen) == (0, 0)
    assert isinstance(orders, Orders)
    assert isinstance(report, Report)
    assert (orders.nth, report.nth) == (0, 0)


def test_who_knows_nothing_of_resources_and_limits_is_read() -> None:
    """What was added has defaults that mean what was so before: of older slaves, clients and masters."""
    hello, orders, submit = (decode(bytes.fromhex(GOLDEN[name])) for name in ("Hello", "Orders", "Submit"))
    assert isinstance(hello, Hello)
    assert hello.offers == Offers()
    assert isinstance(orders, Orders)
    assert (orders.run[0].gpus, orders.run[0].disk_mb, orders.run[0].amounts) == ((), 0, {})
    assert isinstance(submit, Submit)
    layer = submit.spec.layers[0]
    assert (layer.depends, layer.order, layer.next, layer.limits) == ((), "forward", "", {})
    assert layer.needs == Needs(cores=2, memory_mb=512, os=("linux", "darwin"))
    assert submit.spec.depends == (Depend(3, "ended", "", "all", 100),)
    assert submit.spec.max_failures == 0


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_are_written(name: str) -> None:
    """Older peers read these; a new field with a default may be added to the example's class, not here."""
    assert shortest(encode(golden(name))) == shortest(bytes.fromhex(GOLDEN[name]))


def test_the_messages_that_keep_a_farm_together_are_golden() -> None:
    assert set(GOLDEN) >= {"Hi", "Welcome", "Rejected", "Beat", "Hello", "Report", "Registered", "Orders"}


@pytest.mark.parametrize("key", [AttemptKey(0, 0, 0, 1), AttemptKey(7, 1, 4, 2)])
def test_an_attempts_name_can_be_read_back(key: AttemptKey) -> None:
    assert parse_attempt(str(key)) == key


@pytest.mark.parametrize("text", ["", "1/2/3", "1/2/3/4/5", "a/0/0/1", "1/2/3/"])
def test_what_is_no_attempts_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"attempt|invalid literal"):
        parse_attempt(text)


if __name__ == "__main__":
    names = [
        "Hi",
        "Welcome",
        "Rejected",
        "Beat",
        "Hello",
        "Report",
        "Registered",
        "Orders",
        "Grant",
        "Submit",
        "Hi+",
        "Join",
        "Joined",
        "TicketKey",
        "NewSecret",
        "SecretTaken",
        "Acted",
        "Ticket",
        "Refusal",
        "Hello+",
        "Report+",
        "Orders+",
        "Submit+",
        "Welcome+",
        "Beat+",
        "Registered+",
        "Hello++",
        "Orders++",
        "Report++",
        "Limits",
        "Shares",
        "Pools",
        "PutLimit",
        "DropLimit",
        "PutShare",
        "DropShare",
        "PutPool",
        "Farm",
        "ResumeFarm",
        "BackUp",
        "BackedUp",
    ]
    print(json.dumps({name: encode(golden(name)).hex() for name in names}, indent=1))
