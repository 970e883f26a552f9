"""Every message travels, and what older peers sent stays readable."""

import json
from pathlib import Path

import msgspec
import pytest

from drqueue.proto.codec import decode, encode
from drqueue.proto.ids import AttemptKey, parse_attempt
from drqueue.proto.link_messages import Message, Report, Started
from drqueue.proto.messages import BY_TAG, Request
from tests.proto.examples import BY_NAME, EXAMPLES, OLDER

#: What peers of protocol 1 send. Never changed, only added to (this file, run as a module, prints it).
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def golden(name: str) -> Message:
    """The message whose bytes are kept under this name; "Hi+" is what "Hi" came to be."""
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


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_are_written(name: str) -> None:
    """Older peers read these; a new field with a default may be added to the example's class, not here."""
    assert encode(golden(name)).hex() == GOLDEN[name]


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
    ]
    print(json.dumps({name: encode(golden(name)).hex() for name in names}, indent=1))
