"""Every number that can come from the wire is bounded, so that it fits a database and is a number."""

from collections.abc import Iterator

import msgspec
import pytest
from msgspec import inspect

from drqueue.proto.ids import BIG
from drqueue.proto.tags import BY_TAG


def unbounded(kind: inspect.Type, where: str, seen: set[type]) -> Iterator[str]:
    """Paths of number fields without both bounds."""
    match kind:
        case inspect.IntType() | inspect.FloatType():
            low = kind.ge is not None or kind.gt is not None
            if not (low and (kind.le is not None or kind.lt is not None)):
                yield where
        case inspect.StructType(cls=cls, fields=fields) if cls not in seen:
            seen.add(cls)
            for field in fields:
                yield from unbounded(field.type, f"{cls.__name__}.{field.name}", seen)
        case inspect.NamedTupleType(cls=cls, fields=fields) if cls not in seen:
            seen.add(cls)
            for field in fields:
                yield from unbounded(field.type, f"{cls.__name__}.{field.name}", seen)
        case inspect.UnionType(types=types):
            for one in types:
                yield from unbounded(one, where, seen)
        case inspect.VarTupleType(item_type=item):
            yield from unbounded(item, where, seen)
        case inspect.DictType(key_type=key, value_type=value):
            yield from unbounded(key, where, seen)
            yield from unbounded(value, where, seen)
        case inspect.ListType() | inspect.AnyType() | inspect.SetType():
            yield f"{where}: an untyped or unexpected container"


def test_every_number_is_bounded() -> None:
    seen: set[type] = set()
    found = [w for cls in BY_TAG.values() for w in unbounded(inspect.type_info(cls), cls.__name__, seen)]
    assert found == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_no_message_carries_what_is_no_number(value: float) -> None:
    raw = {"t": "grant", "lease_s": value}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, BY_TAG["grant"])


def test_bounds_fit_a_database() -> None:
    assert -BIG >= -(2**63)
    assert BIG < 2**63
