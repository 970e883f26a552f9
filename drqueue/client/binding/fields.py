"""Typed attributes of the binding's structures, and the checks of its functions' arguments.

Rules of this file: what C's types could not hold is refused where it is assigned: TypeError for the
wrong type and for a text that is too long, OverflowError for a number out of range. A bool is an int.
None is the empty text; a NUL character ends a text, as in C; bytes are no text. `put` is the only way
around these checks: it is for records that come from a farm, where frames may have negative numbers. A
structure inside another is a view: assigning to it copies, field by field.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Generic, Literal, Self, TypeVar, overload

NAME_MOST: Final = 127
"""Characters of a name."""
COMMAND_MOST: Final = 65_536
"""Bytes of a command in UTF-8."""
PATH_MOST: Final = 4_095
"""Characters of a path or another parameter of a kind of job."""

_S = TypeVar("_S", bound="Struct")


def whole(value: object, low: int, high: int, what: str) -> int:
    """`value` as an int; TypeError where it is none, OverflowError outside low..high."""
    if not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise OverflowError(f"{what} must be from {low} to {high}, not {value}")
    return int(value)


def u8(value: object, what: str) -> int:
    """A number of 0 to 255."""
    return whole(value, 0, 2**8 - 1, what)


def u16(value: object, what: str) -> int:
    """A number of 0 to 65535; who calls (`who`) is one."""
    return whole(value, 0, 2**16 - 1, what)


def u32(value: object, what: str) -> int:
    """A number of 0 to 4294967295; ids are such."""
    return whole(value, 0, 2**32 - 1, what)


def frame_number(value: object, what: str) -> int:
    """A frame's number: as u32, and down to -2147483648, since frames may have negative numbers here."""
    return whole(value, -(2**31), 2**32 - 1, what)


def text(value: object, what: str, most: int = NAME_MOST, *, in_bytes: bool = False) -> str:
    """`value` up to its first NUL, None as ""; TypeError for what is no str, or longer than `most`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    size = len(value.encode("utf-8", "surrogatepass")) if in_bytes else len(value)
    if size > most:
        raise TypeError(f"{what} has {size} {'bytes' if in_bytes else 'characters'}, {most} are allowed")
    return value.partition("\0")[0]


def place(index: object, count: int, message: str) -> int:
    """`index` where it is one of `count` places; TypeError for no int, IndexError(message) elsewhere."""
    if not isinstance(index, int):
        raise TypeError(f"an index must be an int, not {type(index).__name__}")
    if not 0 <= index < count:
        raise IndexError(message)
    return int(index)


class Field:
    """Base of all typed attributes; a value lies in its object's `__dict__` under the attribute's name."""

    name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def copy(self, source: "Struct", target: "Struct") -> None:
        """Give `target` the value that `source` has."""
        if self.name in source.__dict__:
            target.__dict__[self.name] = source.__dict__[self.name]
        else:
            target.__dict__.pop(self.name, None)


class Struct:
    """Base of all structures: typed fields; any other attribute may be set, too, and is kept."""

    fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls.fields = {**cls.fields, **own}


def put(target: Struct, name: str, value: object) -> None:
    """Set a plain field unchecked, for records from a farm; AttributeError where `name` is no plain field."""
    if not isinstance(type(target).fields.get(name), _Plain):
        raise AttributeError(f"{type(target).__name__} has no plain field {name!r}")
    target.__dict__[name] = value


def copy_fields(source: Struct, target: Struct) -> None:
    """Make all fields of `target` equal to those of `source`, of the same class; nothing is shared."""
    if source is not target:
        for field in type(source).fields.values():
            field.copy(source, target)


def reset(target: Struct) -> None:
    """Give all fields of `target` the values of a new object."""
    copy_fields(type(target)(), target)


class _Plain(Field):
    """A field whose value is immutable."""


class Whole(_Plain):
    """An int from `low` to `high`."""

    def __init__(self, low: int, high: int, default: int = 0) -> None:
        self.low, self.high, self.default = low, high, default

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> int: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | int":
        if instance is None:
            return self
        value: int = instance.__dict__.get(self.name, self.default)
        return value

    def __set__(self, instance: Struct, value: int) -> None:
        instance.__dict__[self.name] = whole(value, self.low, self.high, self.name)


def unsigned(bits: int, default: int = 0) -> Whole:
    """An unsigned int of so many bits."""
    return Whole(0, 2**bits - 1, default)


def signed(bits: int, default: int = 0) -> Whole:
    """A signed int of so many bits."""
    return Whole(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, default)


class Text(_Plain):
    """A text of at most `most` characters, or bytes of UTF-8; `default` may be made anew for each object."""

    def __init__(
        self, most: int = NAME_MOST, default: str | Callable[[], str] = "", *, in_bytes: bool = False
    ) -> None:
        self.most, self.default, self.in_bytes = most, default, in_bytes

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> str: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | str":
        if instance is None:
            return self
        value: str | None = instance.__dict__.get(self.name)
        if value is None:
            value = self.default if isinstance(self.default, str) else self.default()
            instance.__dict__[self.name] = value
        return value

    def __set__(self, instance: Struct, value: str | None) -> None:
        instance.__dict__[self.name] = text(value, self.name, self.most, in_bytes=self.in_bytes)


class ExitCodes(_Plain):
    """Exit codes from 0 to 255 that mean success, at least one; or "any"."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> "tuple[int, ...] | Literal['any']": ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | tuple[int, ...] | Literal['any']":
        if instance is None:
            return self
        value: tuple[int, ...] | Literal["any"] = instance.__dict__.get(self.name, (0,))
        return value

    def __set__(self, instance: Struct, value: "Iterable[int] | Literal['any']") -> None:
        if isinstance(value, str):
            if value != "any":
                raise ValueError(f"{self.name} is 'any' or a tuple of ints, not {value!r}")
            instance.__dict__[self.name] = value
            return
        try:
            codes = tuple(u8(code, self.name) for code in value)
        except TypeError:
            raise TypeError(f"{self.name} is 'any' or a tuple of ints, not {value!r}") from None
        if not codes:
            raise ValueError(f"{self.name} names no exit code: no run could succeed")
        instance.__dict__[self.name] = codes


class Numbers(_Plain):
    """A fixed count of u16 numbers; read as a tuple."""

    def __init__(self, count: int) -> None:
        self.count = count

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> tuple[int, ...]: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | tuple[int, ...]":
        if instance is None:
            return self
        value: tuple[int, ...] = instance.__dict__.get(self.name, (0,) * self.count)
        return value

    def __set__(self, instance: Struct, value: Iterable[int]) -> None:
        numbers = tuple(u16(each, self.name) for each in value)
        if len(numbers) != self.count:
            raise ValueError(f"{self.name} holds {self.count} numbers, not {len(numbers)}")
        instance.__dict__[self.name] = numbers


class Anything(_Plain):
    """A value that is not checked, None by default: for what only records from a farm have."""

    def __get__(self, instance: Struct | None, owner: type) -> Any:
        return self if instance is None else instance.__dict__.get(self.name)

    def __set__(self, instance: Struct, value: Any) -> None:
        instance.__dict__[self.name] = value


class Nested(Field, Generic[_S]):
    """A structure inside another, made when it is first looked at; assigning copies into it."""

    def __init__(self, kind: type[_S]) -> None:
        self.kind = kind

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> _S: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | _S":
        if instance is None:
            return self
        inner: _S | None = instance.__dict__.get(self.name)
        if inner is None:
            inner = instance.__dict__[self.name] = self.kind()
        return inner

    def __set__(self, instance: Struct, value: _S) -> None:
        if not isinstance(value, self.kind):
            raise TypeError(f"{self.name} must be a {self.kind.__name__}, not {type(value).__name__}")
        copy_fields(value, self.__get__(instance, type(instance)))

    def copy(self, source: Struct, target: Struct) -> None:
        if self.name in source.__dict__ or self.name in target.__dict__:
            copy_fields(
                self.__get__(source, type(source)),
                self.__get__(target, type(target)),
            )


class Many(Field, Generic[_S]):
    """Structures in a list that may be changed in place; assigning a list (None: empty) copies its items."""

    def __init__(self, kind: type[_S]) -> None:
        self.kind = kind

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> list[_S]: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | list[_S]":
        if instance is None:
            return self
        items: list[_S] = instance.__dict__.setdefault(self.name, [])
        return items

    def __set__(self, instance: Struct, value: Iterable[_S] | None) -> None:
        items = []
        for each in value or ():
            if not isinstance(each, self.kind):
                raise TypeError(f"{self.name} holds {self.kind.__name__} objects, not {type(each).__name__}")
            item = self.kind()
            copy_fields(each, item)
            items.append(item)
        self.__get__(instance, type(instance))[:] = items

    def copy(self, source: Struct, target: Struct) -> None:
        if self.name in source.__dict__ or self.name in target.__dict__:
            self.__set__(target, self.__get__(source, type(source)))


class Count(Field, Generic[_S]):
    """How many items the list has that `items` finds; a smaller number cuts it, a greater one is refused."""

    def __init__(self, items: Callable[[Any], list[_S]]) -> None:
        self.items = items

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> int: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | int":
        return self if instance is None else len(self.items(instance))

    def __set__(self, instance: Struct, value: int) -> None:
        items = self.items(instance)
        u16(value, self.name)
        if value > len(items):
            raise ValueError(
                f"{self.name} is {len(items)}: it counts what the list holds, and cannot be raised"
            )
        del items[value:]

    def copy(self, source: Struct, target: Struct) -> None:
        """Nothing: the list itself is copied."""
