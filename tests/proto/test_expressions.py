"""Expressions over slaves: what they mean, what is said of wrong ones; no text and no slave breaks them."""

import string
from time import perf_counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drqueue.proto.expressions import (
    ATTRIBUTES,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_TESTS,
    Attribute,
    ExpressionError,
    attributes_of,
    parse,
)
from drqueue.proto.model import Gpu, MachineInfo, Offers

SLAVE: dict[str, Attribute] = {
    "os": "linux",
    "os_release": "5.15.0-91-generic",
    "arch": "x86_64",
    "cpu": "AMD EPYC 7763 64-Core Processor",
    "host": "Render-12",
    "cores": 64,
    "memory_mb": 256000.0,
    "gpus": 2,
    "gpu": ("NVIDIA RTX A6000", "NVIDIA T4"),
    "tags": ("GPU", "ssd"),
    "pools": ("Default",),
    "rack": "7",
    "driver": "535.104.05",
}


@pytest.mark.parametrize(
    "text",
    [
        'os == "linux" and arch == "x86_64"',
        'OS == "Linux"',
        'cpu ~ "*epyc*"',
        'host ~ "render-1[0-9]"',
        'host ~ "render-??"',
        "cpu !~ '*xeon*'",
        "memory_mb >= 64000 and cores > 8 and cores <= 64.0",
        'cores == "64"',
        'host in ("a", "render-12")',
        'host not in ("a", "b")',
        "rack in (6, 7)",
        '"gpu" in tags and "hdd" not in tags',
        'tags == "ssd"',
        'tags != "hdd"',
        'gpu ~ "*A6000" and gpu ~ "*T4"',
        "has(rack) and not has(room)",
        "rack == 7 and rack < 10 and rack == 7.0",
        'os_release >= "5.4" and os_release < "5.15.1"',
        'driver > "535.54" and driver < "0536" and driver > "0534"',
        'not (room == "1")',
        'os == "mac" or os == "linux" and cores == 64',
        'not os == "mac" and not not os == "linux"',
        "-1 not in cores",
        'cores ~ "6*"',
    ],
)
def test_what_a_slave_passes(text: str) -> None:
    assert parse(text).matches(SLAVE)


@pytest.mark.parametrize(
    "text",
    [
        'os == "mac" and cores == 64 or arch == "arm"',
        'os != "LINUX"',
        'cpu ~ "epyc"',
        "cores > 64",
        "os > 7",
        'cores > "many"',
        "driver > 535",
        'rack == "07"',
        'room != "1"',
        'room not in ("1", "2")',
        '"x" not in room',
        'room !~ "x"',
        'tags != "SSD"',
        '"gp" in tags',
        '(os == "mac" or os == "linux") and cores == 1',
        "not (cores == 64)",
    ],
)
def test_what_it_does_not(text: str) -> None:
    assert not parse(text).matches(SLAVE)


def test_empty_is_not_there_but_can_be_asked() -> None:
    """Lists without members, as of a slave without GPUs: they have nothing, and are not "missing"."""
    slave: dict[str, Attribute] = {"gpu": (), "tags": (), "room": ""}
    assert not parse("has(gpu)").matches(slave)
    assert not parse("has(room)").matches(slave)
    assert parse('"gpu" not in tags').matches(slave)
    assert not parse('gpu ~ "*"').matches(slave)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "an expression is expected, not the end"),
        (
            "os == linux",
            7,
            'a number, or a text in quotes, is expected, not linux: a text stands in quotes, as "linux"',
        ),
        ('os = "linux"', 4, "'==' is expected in place of '='"),
        ('a == 1 && b == "2"', 8, "'and' is expected in place of '&&'"),
        ("!has(x)", 1, "'not' is expected in place of '!'"),
        ('cpu =~ "x"', 5, "'~' is expected in place of '=~'"),
        ('os == "linux', 7, 'the text that begins with " has no end'),
        ("memory_mb >= 16G", 14, "'16G' is no number"),
        ("memory_mb >= 12345678901234567", 14, "'12345678901234567' is no number"),
        ("64 <= cores", 4, "the attribute stands on the left, the value on the right"),
        ("a == 1 b", 8, "'and', 'or' or the end is expected, not b"),
        ("(a == 1", 8, "')' after what the parenthesis holds is expected, not the end"),
        ("host in 'a'", 9, "'(' after host in is expected, not 'a'"),
        (
            "ssd in tags",
            8,
            "'(' after ssd in is expected, not tags: a text stands in quotes, as \"ssd\" in tags",
        ),
        ("host in ('a' 'b')", 14, "',' or ')' is expected, not 'b'"),
        ("host ~ 7", 8, "a pattern in quotes is expected, not 7"),
        ("gpus", 5, "a comparison of gpus is expected, not the end"),
        ("a == 1 and", 11, "the name of an attribute is expected, not the end"),
        ("in == 1", 1, "the name of an attribute is expected, not in"),
        ("a not == 1", 7, "'in' after a not is expected, not =="),
        ("'a' tags", 5, "'in' and an attribute after \"a\" is expected, not tags"),
        ("a == 1 # b", 8, "'#' was not expected"),
        ("a" * 64 + " == 1", 1, "the attribute's name is too long"),
    ],
)
def test_a_wrong_expression_gets_a_sentence_that_says_where(text: str, column: int, words: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(text)
    assert (error.value.column, str(error.value)) == (column, f"column {column}: {words}")


def test_bounds() -> None:
    """As much as is allowed is read; a little more gets a sentence."""
    tests = " or ".join(["a<1"] * MAX_TESTS)
    assert not parse(tests).matches({})
    deep = "(" * MAX_DEPTH + "a<1" + ")" * MAX_DEPTH
    assert parse(deep).text == "a < 1"
    assert parse("not " * MAX_DEPTH + "a<1").matches({"a": 0})
    long = 'a == "' + "x" * (MAX_LENGTH - 7) + '"'
    assert parse(long).matches({"a": "X" * (MAX_LENGTH - 7)})
    for text, words in (
        (f"{tests} or a<1", "more than 100 tests"),
        (f"({deep})", "more than 20 parentheses"),
        ("not " * (MAX_DEPTH + 1) + "a<1", "more than 20"),
        (long + " ", "has 2001 characters, 2000 are allowed"),
        ("(" * MAX_LENGTH, "more than 20"),
    ):
        with pytest.raises(ExpressionError, match=words):
            parse(text)


def test_no_pattern_takes_long() -> None:
    """Patterns that make a naive matcher try every way to place their stars."""
    stars = parse(f'cpu ~ "{"*a" * 900}*b"')
    began = perf_counter()
    assert not stars.matches({"cpu": "a" * 4000})
    assert perf_counter() - began < 5


# -- any text, any slave --------------------------------------------------------------------------------

PIECES = [
    *(
        "os",
        "tags",
        "A-b.c_1",
        "and",
        "OR",
        "not",
        "in",
        "has",
        "(",
        ")",
        ",",
        "==",
        "!=",
        "<",
        ">=",
        "~",
        "!~",
        "=",
        "&&",
    ),
    *(
        '"',
        "'",
        '"linux"',
        "'[a-'",
        '"*[!"',
        '"[z-a]"',
        "7",
        "-1.5",
        "+0",
        "1e9",
        "1.",
        " ",
        "\n",
        "\x00",
        "é",
        "\ud800",
        "²",
    ),
]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join)
NAMES = st.sampled_from(["os", "tags", "Rack", "a-b.c", "_"])
VALUES = st.one_of(
    st.text(st.characters(exclude_characters='"')).map(lambda text: f'"{text}"'),
    st.text("'*?[]!-az09\"".replace("'", ""), max_size=9).map(lambda text: f"'{text}'"),
    st.integers(-(10**15) + 1, 10**15 - 1).map(str),
    st.decimals(-999, 999, places=3).map(str),
)
SLAVES = st.dictionaries(
    st.sampled_from(["os", "tags", "rack", "a-b.c", "_"]),
    st.one_of(
        st.text(),
        st.text("0123456789.-+", max_size=30),
        st.floats(),
        st.integers(),
        st.lists(st.text()).map(tuple),
        st.just("9" * 5000),
    ),
)


def expressions() -> st.SearchStrategy[str]:
    """Texts that are expressions, of all forms."""
    quoted = VALUES.filter(lambda value: value[0] in "\"'")
    tests = st.one_of(
        st.tuples(NAMES, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), VALUES).map(" ".join),
        st.tuples(NAMES, st.sampled_from(["~", "!~"]), quoted).map(" ".join),
        st.tuples(
            NAMES, st.sampled_from([" in (", " not in("]), st.lists(VALUES, min_size=1, max_size=3)
        ).map(lambda each: f"{each[0]}{each[1]}{', '.join(each[2])})"),
        st.tuples(VALUES, st.sampled_from(["in", "NOT in"]), NAMES).map(" ".join),
        NAMES.map(lambda name: f"has({name})"),
    )

    def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            parts.map(lambda part: f"not ({part})"),
            parts.map(lambda part: f"({part})"),
            st.tuples(parts, st.sampled_from(["and", "or"]), parts).map(" ".join),
        )

    return st.recursive(tests, combined, max_leaves=8)


@given(TEXTS)
@example("a ~ '" + "[" * 1900 + "'")
@example('"\n"')
def test_any_text_is_read_or_refused(text: str) -> None:
    column, said = 1, ""
    try:
        parse(text).matches({})
    except ExpressionError as error:
        column, said = error.column, str(error)
    assert 1 <= column <= len(text) + 1
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("(a==1 or b==1) and c==1", "(a == 1 or b == 1) and c == 1"),
        ("a==1 or (b==1 and c==1)", "a == 1 or b == 1 and c == 1"),
        ("a==1 or (b==1 or c==1)", "a == 1 or (b == 1 or c == 1)"),
        ("a==1 and (b==1 and c==1)", "a == 1 and (b == 1 and c == 1)"),
        ('NOT (a==1 and not(b==1)) AND c in(1,"\'")', 'not (a == 1 and not b == 1) and c in (1, "\'")'),
        ("'\"' not in A", "'\"' not in a"),
    ],
)
def test_what_is_printed_keeps_its_meaning(text: str, printed: str) -> None:
    assert parse(text).text == printed
    assert parse(printed) == parse(text)


@given(expressions(), SLAVES)
def test_expressions_say_the_same_once_printed(text: str, slave: dict[str, Any]) -> None:
    read = parse(text)
    again = parse(read.text)
    assert again == read
    assert (again.text, again.names, hash(again)) == (read.text, read.names, hash(read))
    assert again.matches(slave) is read.matches(slave)
    assert parse(f"not ({text})").matches(slave) is not read.matches(slave)


@given(st.text(string.printable), st.text("ab*?", max_size=8))
def test_a_text_matches_itself_and_stars(text: str, pattern: str) -> None:
    assert parse('a ~ "*"').matches({"a": text})
    if '"' not in text:
        assert parse(f'a == "{text}"').matches({"a": text.upper()})
    model = [""]
    for char in pattern:
        choices = {"*": ["", "a", "ab"], "?": ["b"]}.get(char, [char])
        model = [start + choice for start in model for choice in choices]
    assert all(parse(f'a ~ "{pattern}"').matches({"a": each}) for each in model)


# -- what they see of a slave ---------------------------------------------------------------------------


def test_what_expressions_see_of_a_slave() -> None:
    machine = MachineInfo(
        hostname="node",
        os="linux",
        cpu_model="EPYC",
        cpu_mhz=2500,
        cores_logical=64,
        memory_mb=9,
        gpus=(Gpu(0, "A", 8000), Gpu(1, "B", 24000), Gpu(2, "C", 48000)),
    )
    offers = Offers(
        gpus=(0, 1),
        disk_mb=5,
        tags=("ssd",),
        attributes={"Rack": "7", "os": "mine", "cores": "9", "none": ""},
    )
    assert attributes_of(machine, offers, name="n", pools=("A", "B"), cores=2.5, memory_mb=1000) == {
        "os": "linux",
        "cpu": "EPYC",
        "cpu_mhz": 2500,
        "host": "node",
        "name": "n",
        "cores": 2.5,
        "memory_mb": 1000,
        "gpus": 2,
        "gpu": ("A", "B"),
        "gpu_memory_mb": 24000,
        "disk_mb": 5,
        "tags": ("ssd",),
        "pools": ("A", "B"),
        "rack": "7",
    }


def test_all_attributes_are_told() -> None:
    machine = MachineInfo(hostname="h", os="o", os_release="r", arch="a", cpu_model="c", cpu_mhz=1)
    seen = attributes_of(machine, Offers(), name="n", pools=(), cores=1, memory_mb=0)
    assert seen.keys() == ATTRIBUTES
