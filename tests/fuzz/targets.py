"""What is fuzzed: functions from bytes to nothing, which may raise what they declare and nothing else.

Rules: a target checks what must hold of anything that was accepted (it means the same when it is written and
read again, whoever reads it); what fails there is an AssertionError. Whatever a target makes it takes away.
"""

import hashlib
import hmac
import json
import os
import socket
import tomllib
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import msgspec
import trio

from drqueue import configuration
from drqueue.access import AccessError, read_access
from drqueue.address import parse_address
from drqueue.master.core.core import Core
from drqueue.master.core.turn import Policy
from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.statedir import open_state
from drqueue.proto import codec, expressions, link_messages
from drqueue.proto.checks import check_spec
from drqueue.proto.checks_needs import check_offers
from drqueue.proto.connection import CLOSED, NEED_DATA, Connection
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.expressions import ExpressionError
from drqueue.proto.handshake import Answerer, Dialler, HandshakeRejected
from drqueue.proto.ids import parse_attempt
from drqueue.proto.lines import LineError, parse_line
from drqueue.proto.link_messages import Hello, Hi, Message, Orders, Rejected, Welcome
from drqueue.proto.messages import Submit
from drqueue.proto.order_text import check_next, check_order
from drqueue.proto.placeholders import PlaceholderError, check_output, check_text, escaped, fill, parse_output
from drqueue.proto.range_text import read_parts, written
from drqueue.proto.ranges import Chunks, FrameRange, RangeError
from drqueue.proto.tickets import TicketError, check
from drqueue.settings import MasterSettings, SettingsError, SlaveSettings
from drqueue.slave.core.core import Core as SlaveCore
from drqueue.slave.core.records import Accepted, from_plain, to_bytes
from drqueue.slave.core.restore import known, restore, snapshot
from drqueue.slave.core.state import State
from drqueue.slave.credentials import read_joining
from drqueue.slave.environment import BadOrderError, Node, command
from drqueue.slave.identity import Machine, load_limits, load_or_create
from drqueue.slave.nimby import parse_time_of_day
from drqueue.slave.outputs import expand_output
from drqueue.slave.progress import ProgressParser
from drqueue.slave.spool import Spool
from drqueue.slave.supervisor import Supervisor
from drqueue.statefile import StateError
from tests.fuzz import mutate, rows, seeds, vocabulary
from tests.fuzz.engine import Target
from tests.fuzz.keepers import Peer
from tests.fuzz.places import emptied
from tests.proto.example_values import ORDER, ORDER_MORE

#: Frames that a range may have here: the largest ones take seconds.
MOST_FRAMES = 200_000
NODE = Node({"PATH": "/bin"}, "/home/render", "/scratch")
SLAVE = expressions.attributes_of(
    msgspec.convert(
        {"hostname": "Node-7", "os": "linux", "os_release": "5.15", "cpu_mhz": 3}, link_messages.MachineInfo
    ),
    link_messages.Offers(tags=("ssd",), attributes={"rack": "12"}, disk_mb=5),
    name="n7",
    pools=("Default",),
    cores=8,
    memory_mb=64000,
)


# -- the wire -----------------------------------------------------------------------------------------------


def framing(data: bytes) -> None:
    """A stream, in pieces and in one: the same messages, the same error, and no more kept than a packet."""
    whole, pieces = (_heard(data[2:], data[:1] == b"\1", size) for size in (0, (data[1:2] or b"\0")[0]))
    assert whole[0] == pieces[0]
    assert str(whole[1]) == str(pieces[1])
    if whole[1] is not None:
        raise whole[1]


def _heard(stream: bytes, established: bool, size: int) -> tuple[list[Message], RemoteProtocolError | None]:
    connection = Connection()
    if established:
        connection.established()
    limit = codec.MAX_BODY if established else codec.MAX_BODY_EARLY
    heard: list[Message] = []
    step = size or len(stream) or 1
    try:
        for at in [*range(0, len(stream), step), len(stream)]:
            connection.receive(stream[at : at + step])
            while isinstance(message := connection.next_message(), Message):
                heard.append(message)
            assert message is (CLOSED if at >= len(stream) else NEED_DATA)
            assert len(connection._buffer) <= 4 + limit
    except RemoteProtocolError as error:
        return heard, error
    return heard, None


def packet(data: bytes) -> None:
    """One body: read both ways alike, said again the same, and the checks of what is in it fit to be told."""
    message = codec.decode(data)
    if message is None:
        return
    assert codec._decode_carefully(data) == message
    assert codec.decode(codec.encode(message, 1 << 30)) == message
    match message:
        case Submit():
            _is_told(check_spec(message.spec))
        case Hello():
            _is_told(check_offers(message.offers))
        case Orders():
            for order in message.run:
                try:
                    command(order, NODE)
                except BadOrderError as error:
                    _is_told(str(error))


def _is_told(sentence: str | None) -> None:
    assert sentence is None or (0 < len(sentence) < 1500), "no sentence for people"


def handshake(data: bytes) -> None:
    """First words: to one who was dialled as a master or a slave, and to one who dialled."""
    connection = Connection()
    connection.receive(len(data).to_bytes(4, "big") + data)
    message = connection.next_message()
    if not isinstance(message, Message):
        return
    for welcome, roles in (
        (Welcome(version=1, farm="f", epoch=3), ("client", "slave")),
        (Welcome(version=1, peer="slave"), ("client",)),
    ):
        try:
            hi, answer = Answerer(welcome, roles).greeted(message)
        except RemoteProtocolError:
            continue
        assert (hi is None) == isinstance(answer, Rejected)
        if isinstance(answer, Rejected):
            # As a channel cuts it.
            answer = msgspec.structs.replace(answer, text=answer.text[:500])
        else:
            assert isinstance(message, Hi)
            assert message.oldest <= answer.version <= message.newest
        heard = Connection()
        heard.receive(Connection().send(answer))
        assert heard.next_message() == answer
    dialler = Dialler("client", "test", expect="slave" if data[-1:] == b"e" else "master")
    try:
        assert dialler.answered(message) is message
    except HandshakeRejected:
        return  # in the words of the other side


# -- what people write --------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """Ranges, orders, what goes next, and expressions."""
    kind, _, rest = data.decode("utf-8", "surrogateescape").partition(" ")
    number, _, text = rest.partition(" ")
    if kind == "where":
        _expression(text)
    elif kind == "order" and text.strip().isalpha():
        _is_told(check_order(text, FrameRange("1-100x3")))
    elif sum(part.size for part in read_parts(text)) > MOST_FRAMES:
        return
    elif kind == "order":
        _is_told(check_order(text, FrameRange("1-100x3")))
    elif kind == "next":
        _is_told(check_next(text))
    else:
        _range(text, int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else 1)


def _expression(text: str) -> None:
    read = expressions.parse(text)
    assert expressions.parse(read.text).text == read.text
    if len(read.text) <= expressions.MAX_LENGTH:
        assert expressions.parse(read.text) == read
    assert type(read.matches(SLAVE)) is bool
    assert type(read.matches({})) is bool


def _range(text: str, size: int) -> None:
    found = FrameRange.parse(text)
    assert 0 < len(found) <= 10_000_000
    short = FrameRange.parse(found.text)
    assert short == found
    assert len(short) == len(found)
    written(text)
    chunks = Chunks(found, max(1, size))
    for position in {0, len(found) // 2, len(found) - 1}:
        frame = found[position]
        assert found.min <= frame <= found.max
        assert found.position(frame) == position
        chunk = chunks.chunk_of(frame)
        assert chunk is not None
        assert frame in chunks.members(chunk)
    assert chunks.pictures(0, len(chunks)) == len(found)


def placeholders(data: bytes) -> None:
    """A command and outputs: what is accepted when a job comes can be filled in by a slave."""
    cwd, _, rest = data.decode("utf-8", "surrogateescape").partition("\n")
    line, _, patterns = rest.partition("\n")
    values: dict[str, int | str] = {
        **dict.fromkeys(("frame", "start", "end"), -(10**15) + 1),
        "step": -7,
        "frames": "1,3",
    }
    for text in (cwd, line):
        assert fill(escaped(text), lambda name: values.get(name, 1)) == text
        if check_text(text) is None:
            fill(text, lambda name: values.get(name, 1))
    good = []
    for pattern in patterns.split("\n"):
        fields: Mapping[str, object] = dict.fromkeys(
            ("start", "end", "step", "attempt", "threads", "frames"), 1
        )
        if check_output(pattern) is None:
            good.append(pattern)
            assert expand_output(pattern, [-5, 10**15 - 1, 7], fields, "/out")
        else:
            try:
                parse_output(pattern, fields)
            except PlaceholderError as error:
                _is_told(str(error))
    order = msgspec.structs.replace(
        ORDER, argv=tuple(line.split(" ")), shell="", cwd=cwd, outputs=tuple(good), start=-3
    )
    made = command(order, NODE)
    assert made.cwd.startswith("/")
    assert all(isinstance(word, str) for word in made.argv)


def config(data: bytes) -> None:
    """Settings from a file of today, from one of 0.x, and from the environment; they can be shown."""
    head, _, body = data.partition(b"\n")
    program = MasterSettings if head.startswith(b"master") else SlaveSettings
    sort = head.rpartition(b" ")[2]
    env = {"HOME": "/home/anna"}
    path = None
    if sort == b"env":
        for line in body.decode("utf-8", "surrogateescape").split("\n"):
            name, _, value = line.partition("=")
            env[name] = value
    else:
        path = str(emptied() / f"x.{'conf' if sort == b'conf' else 'toml'}")
        with open(path, "wb") as file:
            file.write(body)
    loaded: Any = configuration.load(program, config=path, env=env)  # type: ignore[type-var]
    for row in configuration.describe(loaded):
        assert all(isinstance(cell, str) for cell in row)
    for note in loaded.notes:
        told = "\n".join(
            line for line in note.splitlines() if line.startswith("    ") and "# " not in line[:6]
        )
        for name, value in tomllib.loads(told).items():
            again = tuple(value) if isinstance(value, list) else value
            assert getattr(loaded.settings, name) in (again, os.path.abspath(os.path.expanduser(str(again))))


def words(data: bytes) -> None:
    """Short texts that people paste, programs print, or strangers send."""
    kind, _, body = data.partition(b" ")
    text = body.decode("utf-8", "surrogateescape")
    match kind:
        case b"line":
            line = parse_line(text, "node" if ":node:" in text else "user")
            assert parse_line(str(line), line.kind) == line
        case b"address":
            address = parse_address(text)
            assert parse_address(str(address)) == address or address.host == "unix"
        case b"attempt":
            parse_attempt(text)
        case b"time":
            parse_time_of_day(text)
        case b"progress":
            pattern, _, output = body.partition(b"\n")
            parser = ProgressParser(3, pattern.decode("utf-8", "replace"))
            for at in range(0, len(output), 700):
                parser.feed(output[at : at + 700])
            assert parser.progress is None or 0.0 <= parser.progress <= 1.0
            assert parser.activity.isprintable()
        case _:
            # Whatever has the right stamp on it.
            key = b"k" * 32
            check(hmac.digest(key, body, hashlib.sha256) + body, [key], 3, 200.0)


# -- what is kept -------------------------------------------------------------------------------------------


def state(data: bytes) -> None:
    """A master's start on a state directory: the database's pages, or its rows; farm.json."""
    path = emptied()
    path.chmod(0o700)
    farm, database = rows.files_of(data)
    (path / "farm.json").write_bytes(farm)
    (path / "master.db").write_bytes(database)
    opened = open_state(str(path))
    try:
        saved = opened.storage.load()
        core = Core(
            Policy(farm=opened.farm, epoch=opened.epoch, software="test"),
            saved,
            100.0,
            1e9,
            from_backup=opened.restored,
            gone=opened.gone,
        )
        codec.encode(Welcome(version=1, farm=core.turn.policy.farm, epoch=core.turn.policy.epoch))
        opened.storage.audit(-1, 10)
        opened.storage.latest_attempts(0, 0, range(1, 11))
    finally:
        opened.close()


def files(data: bytes) -> None:
    """The small files of a slave; what was read can be written and read again."""
    name, _, body = data.partition(b"\n")
    folder = emptied()
    path = folder / (
        name.decode("ascii", "replace") if name.endswith(b".json") and b"/" not in name else "limits.json"
    )
    path.write_bytes(body)
    path.chmod(0o600)
    where = str(folder)
    identity = load_or_create(where, "n1", Machine("fp"))
    assert load_or_create(where, "n1", Machine("fp")) == identity
    load_or_create(where, "n2", Machine("another"))
    load_limits(where)
    read_access(str(folder / "access.json"))
    read_joining(where)


def journal(data: bytes) -> None:
    """A slave's spool: what is read of it is read again, and the state that it makes is one."""
    path = emptied() / "spool"
    path.write_bytes(data)
    spool = Spool(str(path))
    try:
        records = spool.load()
        spool.append([["boot", "next"]])
    finally:
        spool.close()
    again = Spool(str(path))
    try:
        assert _alike(again.load(), [*records, ["boot", "next"]])
        assert again.cut == 0
    finally:
        again.close()
    made = _restored(records)
    shots = snapshot(made, "boot")
    for _ in range(2):  # numbers may change their type once
        former = [to_bytes(record) for record in shots]
        second = _restored(map(msgspec.msgpack.decode, former))
        shots = snapshot(second, "boot")
        assert known(second) == known(made)
    assert [to_bytes(record) for record in shots] == former
    core = SlaveCore(made, cores=4)
    core.step([], 11.0)
    core.step([], 10_000.0)


def _restored(plain: Iterable[object]) -> State:
    try:
        records = [from_plain(record) for record in plain]
    except msgspec.ValidationError as error:
        raise StateError(f"a record of another version: {error!s:.200}") from error
    return restore(records, boot_id="boot", now=10.0, limits=link_messages.SlaveLimits())


def _alike(one: Iterable[object], two: Iterable[object]) -> bool:
    return repr(list(one)) == repr(list(two))  # NaN is NaN here


def keeper(data: bytes) -> None:
    """A daemon's words to its keeper: nothing ends it, and it says lines of JSON."""
    peer = Peer(str(emptied()))
    try:
        first = peer.say(data)
        second = peer.say(b'{"v":1}\n')
        for line in [*first.split(b"\n")[:-1], *second.split(b"\n")[:-1]]:
            assert isinstance(json.loads(line), dict)
        assert second.endswith(b'{"is":"held"}\n')
    finally:
        peer.close()


def daemon(data: bytes) -> None:
    """A keeper's words to its daemon: what the core makes of them can be kept, and read again."""
    heard: list[Any] = []
    supervisor = Supervisor("/nonexistent", heard.append)
    near, far = socket.socketpair()
    far.setblocking(False)
    near.sendall(data)
    near.close()
    try:
        trio.run(supervisor._read, far)
    finally:
        far.close()
    made = restore(
        [Accepted(ORDER), Accepted(ORDER_MORE)], boot_id="b", now=1.0, limits=link_messages.SlaveLimits()
    )
    core = SlaveCore(made, cores=4)
    for event in heard:
        for record in core.step([event], 2.0).save:
            from_plain(msgspec.msgpack.decode(to_bytes(record)))  # type: ignore[arg-type]


# -- all of them --------------------------------------------------------------------------------------------

_SPLIT_FRAMES = mutate.of_parts(rows.bodies_of, seeds.packets, mutate.of_msgpack)


def _framing(rng: Random, data: bytes, donors: Any) -> bytes:
    head = data[:2] if rng.random() < 0.8 else bytes((rng.randrange(2), rng.randrange(256)))
    return head + _SPLIT_FRAMES(rng, data[2:], [donor[2:] for donor in donors])


_ROWS = mutate.either(mutate.of_bytes, mutate.of_packed_tree, lambda data: data.startswith(b"SQLite"))
_OF_LINES = mutate.of_lines(mutate.of_json)
_SPOOL = mutate.of_parts(rows.records_of, rows.spool_of, mutate.of_msgpack)

ALL = (
    Target("framing", framing, seeds.framing, _framing, (RemoteProtocolError,), 2500),
    Target("codec", packet, seeds.codec, mutate.of_msgpack, (RemoteProtocolError,), 8000),
    Target("handshake", handshake, seeds.codec, mutate.of_msgpack, (RemoteProtocolError,), 6000),
    Target(
        "frames",
        frames,
        seeds.frames,
        mutate.of_text(*vocabulary.FRAMES),
        (RangeError, ExpressionError),
        3500,
        6000,
        256,
    ),
    Target(
        "placeholders",
        placeholders,
        seeds.placeholders,
        mutate.of_text(*vocabulary.COMMANDS),
        (BadOrderError,),
        900,
        6000,
    ),
    Target(
        "config",
        config,
        seeds.config,
        mutate.after_line(mutate.of_lines(mutate.of_text(*vocabulary.CONFIG))),
        (SettingsError,),
        1500,
    ),
    Target(
        "words",
        words,
        seeds.words,
        mutate.of_text(*vocabulary.WORDS),
        (LineError, SettingsError, ValueError, TicketError),
        2500,
        6000,
    ),
    Target(
        "state",
        state,
        seeds.state,
        _ROWS,
        (StorageError, StorageCorrupt, StateError, ValueError, RangeError, ExpressionError),
        220,
        200_000,
    ),
    Target("files", files, seeds.files, mutate.after_line(mutate.of_json), (StateError, AccessError), 1200),
    Target("spool", journal, seeds.journal, _SPOOL, (StateError,), 1200),
    Target("keeper", keeper, seeds.keeper_orders, _OF_LINES, (), 1500),
    # Its own keeper says neither of what these two are raised for.
    Target("daemon", daemon, seeds.keeper_reports, _OF_LINES, (), 900),
)
TARGETS = {target.name: target for target in ALL}
