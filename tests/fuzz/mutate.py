"""Valid inputs, damaged in ways that get past the first check.

Rules: everything is drawn from the `Random` that is handed in, so that a seed says it all. Trees (msgpack,
JSON, rows) are damaged as trees and packed again with lengths and checksums that fit; bytes are damaged now
and then, too. `donors` are other inputs of the same target, from which pieces are taken.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack

Mutate = Callable[[Random, bytes, Sequence[bytes]], bytes]

INTEGERS = (
    *(0, 1, -1, 2, 7, 100, 127, 128, 255, 256, 512, 999, 1024, 4096, 65535, 65536, 10**6, 10**7, 10**9),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**31), -5),
    *(2**64 - 1, 10**15, 10**16),
)
#: What msgpack cannot say, but texts can.
HUGE = (2**64, 2**70, -(2**70), 10**19, 10**308, 10**400, -(10**400))
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-9, 5e-324, 1e6 + 1, 1e9, 1e12, 1e15, 2e15, 1e16, 1e308, -1e308, 1.5e300)
NOT_NUMBERS = (math.inf, -math.inf, math.nan)
#: Surrogates stand for bytes that are no UTF-8, until they are packed.
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "a\nb",
        "\x1b[31m",
        "\x7f",
        "\udcff",
        "\udc80x",
        "é",
        "\u202e",
        "\U0001f600",
        "..",
        "/",
    ),
    *("~", "{", "}", "{{", "}}", "%", "#", "%d", "{}", "null", "true", "-", "0", "-0", "1e9", "x" * 130, "٣"),
)
BAD_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82")
_WORDS = re.compile(r"[A-Za-z_]+|[0-9]+|\s+|.", re.DOTALL)


# -- bytes ------------------------------------------------------------------------------------------------


def of_bytes(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
    """One damage to plain bytes."""
    body = bytearray(data)
    at = rng.randrange(len(body) + 1)
    end = min(len(body), at + _stretch(rng))
    match rng.randrange(10):
        case 0 if body:
            body[min(at, len(body) - 1)] ^= 1 << rng.randrange(8)
        case 1 if body:
            body[min(at, len(body) - 1)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2:
            del body[at:end]
        case 3:
            body[at:at] = body[at:end] * rng.choice((1, 1, 2, 10, 200))
        case 4:
            other = rng.choice(donors)
            start = rng.randrange(len(other) + 1)
            body[at:end] = other[start : start + _stretch(rng)]
        case 5:
            del body[at:]
        case 6:
            body[at:at] = rng.choice(BAD_UTF8)
        case 7:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(INTEGERS) % (1 << 8 * size)
            body[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
        case 8:
            body[at:at] = rng.randbytes(rng.randrange(1, 9))
        case _:
            body[at:end] = bytes(end - at)
    return bytes(body)


def _stretch(rng: Random) -> int:
    return rng.choice((1, 1, 2, 3, 4, 8, 16, 64, 300))


# -- texts ------------------------------------------------------------------------------------------------


def of_text(*words: str) -> Mutate:
    """Damage of texts, by words; `words` are those that mean something there."""

    def mutate(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
        if rng.random() < 0.1:
            return of_bytes(rng, data, donors)
        tokens = _WORDS.findall(data.decode("utf-8", "surrogateescape"))
        at = rng.randrange(len(tokens) + 1)
        end = min(len(tokens), at + rng.choice((1, 1, 1, 2, 3, 5, 9)))
        match rng.randrange(9):
            case 0:
                del tokens[at:end]
            case 1:
                tokens[at:at] = tokens[at:end] * rng.choice((1, 1, 2, 5, 40, 1000))
            case 2:
                tokens[at:end] = [rng.choice(words)]
            case 3:
                tokens[at:at] = [rng.choice(words)]
            case 4:
                numbers = [n for n, token in enumerate(tokens) if token.isdecimal()]
                if numbers:
                    number = rng.choice((*INTEGERS, *HUGE, rng.randrange(10**15)))
                    tokens[rng.choice(numbers)] = str(number) if rng.random() < 0.95 else "9" * 5000
            case 5:
                other = _WORDS.findall(rng.choice(donors).decode("utf-8", "surrogateescape"))
                start = rng.randrange(len(other) + 1)
                tokens[at:end] = other[start : start + rng.choice((1, 3, 9, 40))]
            case 6:
                tokens[at:at] = [rng.choice(TEXTS)]
            case 7:
                rng.shuffle(part := tokens[at : at + 6])
                tokens[at : at + 6] = part
            case _:
                opening = rng.choice(("(", "[", "{", '"', "not ", "a=[", "[["))
                tokens[at:at] = [opening * rng.choice((1, 2, 30, 300, 900, 3000))]
        return "".join(tokens).encode("utf-8", "surrogateescape")

    return mutate


def of_lines(line: Mutate) -> Mutate:
    """Damage of lines: to one of them by `line`, or to their order and number."""

    def mutate(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        match rng.randrange(12):
            case 0:
                del lines[at]
            case 1:
                lines[at:at] = [lines[at]] * rng.choice((1, 2, 50))
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at:at] = [rng.choice(rng.choice(donors).split(b"\n"))]
            case 4:
                return of_bytes(rng, data, donors)
            case _:
                lines[at] = line(rng, lines[at], [part for each in donors[:20] for part in each.split(b"\n")])
        return b"\n".join(lines)

    return mutate


# -- trees ------------------------------------------------------------------------------------------------


def of_tree(rng: Random, tree: Any, donor: Any, numbers: Sequence[Any]) -> Any:
    """A tree of maps, lists and scalars with one damage; `tree` itself is changed."""
    place = _place(rng, tree)
    if place is None or rng.random() < 0.01:
        return _value(rng, tree, donor, numbers)
    holder, key = place
    old = holder[key]
    if isinstance(old, bytes) and rng.random() < 0.6 and (inner := unpacked(old)) is not None:
        holder[key] = packed(of_tree(rng, inner, donor, numbers)) or old
        return tree
    match rng.randrange(12):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[_other_key(rng, key, donor)] = holder.pop(key)
        case 1:
            holder[key:key] = [old] * rng.choice((1, 1, 2, 30, 1000))
        case 2:
            holder[key] = _piece(rng, donor)
        case 3:
            holder[key] = rng.choice(([], {}, None, [old], [old, old], {"a": old}, [[old]], not old))
        case 4 if isinstance(holder, dict):
            holder[_other_key(rng, key, donor)] = _piece(rng, donor)
        case 4:
            rng.shuffle(holder)
        case _:
            holder[key] = _value(rng, old, donor, numbers)
    return tree


def _place(rng: Random, tree: Any) -> tuple[Any, Any] | None:
    """Some holder in a tree, and a key in it: every branch is as likely as the others, however large."""
    found = None
    while isinstance(tree, dict | list) and tree and (found is None or rng.random() < 0.8):
        found = tree, rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        tree = tree[found[1]]
    return found


def _piece(rng: Random, donor: Any) -> Any:
    place = _place(rng, donor)
    piece = donor if place is None else place[0][place[1]]
    # A copy: else a tree could come to hold itself.
    return msgpack.unpackb(packed(piece) or b"\xc0", **_READ)


def _other_key(rng: Random, key: Any, donor: Any) -> Any:
    place = _place(rng, donor)
    other = place[1] if place is not None and isinstance(place[0], dict) else key
    return rng.choice((other, other, *TEXTS, f"{key}x", 0, -1))


def _value(rng: Random, old: Any, donor: Any, numbers: Sequence[Any]) -> Any:
    """Something in the place of a value: as a rule of its own type, so that it gets further."""
    if rng.random() < 0.15:
        return rng.choice((None, True, False, 0, "", b"", [], {}, rng.choice(TEXTS), rng.choice(numbers)))
    match old:
        case bool():
            return not old
        case int() | float():
            return rng.choice((old + 1, old - 1, -old, *rng.sample(numbers, 3)))
        case str():
            return rng.choice(
                (rng.choice(TEXTS), old + rng.choice(TEXTS), old * rng.choice((2, 50)), old[:-1])
            )
        case bytes():
            return of_bytes(rng, old, [old, b"\0\xff"])
        case list():
            return old * rng.choice((2, 3, 100)) if rng.random() < 0.7 else old[:-1]
        case _:
            return _piece(rng, donor)


_READ: dict[str, Any] = {"strict_map_key": False, "unicode_errors": "surrogateescape"}


def unpacked(data: bytes) -> Any:
    """The map or list that these bytes are, else None."""
    if not data or not (data[0] & 0xE0 == 0x80 or 0xDC <= data[0] <= 0xDF):
        return None  # no map and no list
    try:
        return msgpack.unpackb(data, **_READ)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return None


def packed(tree: Any) -> bytes | None:
    """msgpack of a tree, None where there is none."""
    try:
        return bytes(msgpack.packb(tree, unicode_errors="surrogateescape"))
    except (ValueError, OverflowError, TypeError, RecursionError):
        return None


def of_msgpack(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
    """Damage of one msgpack value."""
    if rng.random() < 0.03:
        head, depth = rng.choice((b"\x91", b"\x81\xa1a", b"\x81")), rng.choice((30, 600, 4000))
        at = rng.randrange(len(data) + 1)
        return data[:at] + head * depth + data[at:]
    if rng.random() < 0.15:
        return of_bytes(rng, data, donors)
    return of_packed_tree(rng, data, donors)


def of_packed_tree(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
    """The same, but always a msgpack value in the end, where it was one."""
    tree = unpacked(data)
    if tree is None:
        return of_bytes(rng, data, donors)
    donor = unpacked(rng.choice(donors))
    return packed(of_tree(rng, tree, donor, (*INTEGERS, *FLOATS, *NOT_NUMBERS))) or data


def of_json(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
    """Damage of one JSON value."""
    if rng.random() < 0.03:
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.choice((b"[", b'{"a":')) * rng.choice((5, 4000)) + data[at:]
    try:
        tree, donor = json.loads(data), json.loads(rng.choice(donors))
        if rng.random() < 0.15:
            return of_bytes(rng, data, donors)
        numbers = (*INTEGERS, *HUGE, *FLOATS, *NOT_NUMBERS)
        compact = rng.random() < 0.9
        text = json.dumps(
            of_tree(rng, tree, donor, numbers),
            ensure_ascii=rng.random() < 0.7,
            separators=(",", ":") if compact else None,
        )
        return text.encode("utf-8", "surrogateescape")
    except (ValueError, TypeError, RecursionError):
        return of_bytes(rng, data, donors)


# -- what wraps others --------------------------------------------------------------------------------------


def of_parts(
    split: Callable[[bytes], list[bytes]],
    join: Callable[[Sequence[bytes]], bytes],
    part: Mutate,
) -> Mutate:
    """Damage of what consists of parts that are framed by a length, a checksum, or whatever `join` adds."""

    def mutate(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
        parts = split(data)
        if not parts or rng.random() < 0.15:
            return of_bytes(rng, data, donors)
        at = rng.randrange(len(parts))
        match rng.randrange(10):
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = [parts[at]] * rng.choice((1, 1, 20))
            case 2:
                rng.shuffle(parts)
            case 3:
                parts[at:at] = split(rng.choice(donors))[:20]
            case _:
                more = [each for donor in rng.sample(donors, min(3, len(donors))) for each in split(donor)]
                parts[at] = part(rng, parts[at], more or [parts[at]])
        return join(parts)

    return mutate


def either(first: Mutate, second: Mutate, is_first: Callable[[bytes], bool]) -> Mutate:
    """Damage of inputs of two sorts, each from its own donors."""

    def mutate(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
        sort = is_first(data)
        alike = [donor for donor in donors if is_first(donor) is sort] or [data]
        return (first if sort else second)(rng, data, alike)

    return mutate


def after_line(inner: Mutate) -> Mutate:
    """Damage what comes after the first line."""

    def change(rng: Random, data: bytes, donors: Sequence[bytes]) -> bytes:
        head, _, body = data.partition(b"\n")
        return head + b"\n" + inner(rng, body, [donor.partition(b"\n")[2] for donor in donors])

    return change
