"""Valid inputs of every target: what damage begins with. Made anew each time, the same each time."""

import json
import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from drqueue.master.core.records import (
    AnyRecord,
    LimitRecord,
    LogRecord,
    MetaRecord,
    PoolRecord,
    ShareRecord,
)
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto.codec import encode
from drqueue.proto.connection import Connection
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import FrameVerb
from drqueue.proto.model import Depend, Exit, LayerDepend, Limit, LogEnds, Needs
from drqueue.settings import OCTAL_FIELDS, MasterSettings, SlaveSettings
from drqueue.slave import spool
from drqueue.slave.core import records as kept
from tests.builders import CoreFarm, a_job, a_layer
from tests.fuzz.mutate import packed
from tests.master.access_rows import account, audit, line
from tests.proto.example_values import EXIT, KEY, OFFERS, ORDER, ORDER_MORE, OTHER, SHARE
from tests.proto.examples import EXAMPLES, OLDER

MESSAGES = (*EXAMPLES, *OLDER.values())


def packets(bodies: Sequence[bytes]) -> bytes:
    """Bodies as they travel."""
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def codec() -> list[bytes]:
    """A body of every message."""
    return [encode(message) for message in MESSAGES]


def framing() -> list[bytes]:
    """Streams of a few packets; before them, whether the handshake is over, and the size of the pieces."""
    connection = Connection()
    connection.established()
    sent = [connection.send(message) for message in MESSAGES]
    streams = [bytes((1, 7 * at % 256)) + b"".join(sent[at : at + 4]) for at in range(0, len(sent), 4)]
    return [*streams, b"\0\0" + packets([encode(MESSAGES[0])]), b"\1\0" + packets([b"\x81\xa1t\xa6future"])]


def frames() -> list[bytes]:
    """A kind, then a text that is a range, an order, `next` or an expression; of a range, a chunk's size."""
    ranges = (
        *("1-10", "1-100x3", "10-1x2", "5,3,1", "1-10y2", "1-100:8", "-5..5", "1-10x2,2-10x2", "1,2,3,9"),
        *("1-5000000", "0-999999999999999x100000000000", "1-9,5-14,100000000000", "7", "1-4:3 8-12y4"),
    )
    orders = ("forward", "reverse", "coarse", "5,1-3", "10-1", "1-10x3")
    expressions = (
        'os == "linux" and cpu ~ "*EPYC*" and memory_mb >= 64000',
        'host in ("render-1", "render-2") or host ~ "gpu-[0-9]*"',
        '"ssd" in tags and not (has(rack) and rack < 7)',
        "not (not gpus > 1) or 'a' not in pools and os_release !~ '5.[!4]*'",
        'cpu != "x" and (a <= -1.5 or (b == 2 and (c in (1, "2"))))',
    )
    return [
        *(f"range {number} {text}".encode() for number, text in enumerate(ranges, 1)),
        *(f"order 1 {text}".encode() for text in orders),
        *(f"next 1 {text}".encode() for text in ranges),
        *(f"where 1 {text}".encode() for text in expressions),
    ]


def placeholders() -> list[bytes]:
    """A working directory, then words of a command, then outputs, a line each."""
    return [
        b"/tmp\nrender {frame} {frame:04d} -s {start} -e {end:4d} {step}\n/out/{frame:04d}.png",
        b"/a/{frame}\n{threads} {attempt} {frames} {{frame}} {other} {}\nout/####.exr\n%04d.png",
        b'scratch\n{frames}{{frames}} ${x} {{ }} {"a": {frame}}\nx{{y}}{start}-{frame}.png\n%d%%',
    ]


def config() -> list[bytes]:
    """The name of a program and of a sort, then a file of that sort, or variables of the environment."""
    master = (
        b'state_dir = "/tmp/x"\nlisten = "0.0.0.0:1234"\nsocket_mode = 0o660\nbeat_s = 5\nsilence_s = 30.5\n'
        b'local_roles = ["anna=admin", "1000=viewer"]\nmail_command = "sendmail -t {x} \'a b\'"\n'
        b"keep_days = 3\n"
        b'backup_hours = 0.5\nbackups_keep = 2\nlog_level = "debug"\naddress = "farm.example:99"\n'
    )
    slave = (
        b'name = "n1"\nmaster = "farm:1234"\ncores = 8\nmemory_mb = 16000\ngpus = [0, 1]\ndisk_mb = 5\n'
        b'amounts = { seats = 2, tapes = 1.5 }\ntags = ["ssd"]\nattributes = { rack = "12" }\n'
        b'pools = ["Default", "fast"]\nenabled = false\numask = 0o027\nmap_users = ["anna=ben", "*"]\n'
        b'[more]\nx = 1979-05-27T07:32:00Z\ny = [[1], {a = """b"""}]\n'
    )
    old = b"# a comment\nroot=/mnt/drq\nlogs=/mnt/drq/logs\ntmp=/tmp\nbin=/b\netc=/e\ndb=/d\npool=a:b,c\n"
    master_env = b"".join(
        f"DRQUEUE_{name.upper()}={value}\n".encode()
        for name, value in _texts(MasterSettings(state_dir="/tmp/x"))
    )
    slave_env = b"".join(
        f"DRQUEUE_{name.upper()}={value}\n".encode()
        for name, value in _texts(SlaveSettings(state_dir="/tmp/x", name="n1"))
    )
    return [
        b"master toml\n" + master,
        b"slave toml\n" + slave,
        b"slave toml\n" + slave.partition(b"[more]")[0],
        b"master conf\n" + old,
        b"slave conf\n" + old,
        b"master env\n" + master_env,
        b"slave env\n" + slave_env + b"DRQUEUE_AMOUNTS=a=1,b=2.5\nDRQUEUE_GPUS=0 2\nDRQUEUE_POOL=x:y\n",
    ]


def _texts(settings: Any) -> list[tuple[str, str]]:
    values = msgspec.structs.asdict(settings).items()
    texts = [(name, ",".join(map(str, v)) if isinstance(v, tuple) else str(v)) for name, v in values]
    return [
        (name, f"{int(text):o}" if name in OCTAL_FIELDS else text)
        for name, text in texts
        if text not in ("", "None", "{}")
    ]


def words() -> list[bytes]:
    """Short texts: lines of farms, addresses, attempts, patterns with output, tickets."""
    return [
        b"line drqueue1:node:192.168.1.10:1234:" + b"a" * 52 + b":" + b"b" * 32,
        b"line drqueue1:user:[fd00::1%eth0]:1234:" + b"a" * 52 + b":" + b"b" * 32,
        *(
            b"address " + text
            for text in (b"farm", b"farm:99", b"[::1]:1", b"::1", b"unix:/a/b", b"localhost")
        ),
        b"attempt 1/2/3/4",
        b"time 07:30",
        rb"progress (\d+)% done|x" + b"\nprogress: 5%\r50% done\nopenjd_progress: 3\nopenjd_status: hey\n",
        rb"progress frame (\d+) of (\d{1,5})" + b"\nframe 1 of 2\n| Sample 3/4\nSaved: 'a'\nframe= 7\n",
        b"progress (a|b){0,3}c([0-9]*)\nRendered 5 of 9 pixels\nRendering frame 2 of 3\n",
        b"progress x(1)\nRendering 4 / 5 samples\n",
        b"ticket " + msgspec.msgpack.encode(("anna", "artist", "", 3, 400.0)),
    ]


# -- the master's state -----------------------------------------------------------------------------------


@cache
def _farm() -> tuple[AnyRecord, ...]:
    """Rows of a small farm in the middle of its work."""
    farm = CoreFarm()
    one, two = farm.link("s1", offers=OFFERS), farm.link("s2", cores=2)
    parts = (
        a_layer("1-10", name="a", retries=1),
        a_layer("1-9x2,20", name="b", chunk=2, after=("a",), needs=Needs(cores=0.5, where='os == "linux"')),
        a_layer(
            "1-10", name="c", depends=(LayerDepend(layer="a", frames="each", offset=-1),), order="coarse"
        ),
    )
    first = farm.submit(a_job(layers=parts, owner="anna", project="film", max_running=7, env={"A": "1"}))
    farm.submit(a_job("1-1000", name="later", depends=(Depend(first, percent=50.0, frames="percent"),)))
    farm.submit(a_job("1-4", stopped=True))
    for link in (one, two):
        for number, order in enumerate(farm.orders(link)):
            farm.started(link, order.key)
            if number % 2:
                farm.exited(link, order.key, Exit(code=number % 3, cpu_s=2.0, peak_mb=5, log_bytes=9))
    farm.ask(FrameVerb(rq=0, job=first, layer="a", frames="9-10", verb="finish"))
    ends = LogEnds(size=5, head=b"he", tail=b"lo")
    key = AttemptKey(first, 0, 0, 1)
    extra = (
        LogRecord(key, ends),
        LimitRecord(Limit(name="nuke", amount=2.5, scope="slaves")),
        ShareRecord(SHARE),
        PoolRecord("Default", "fifo"),
    )
    access = (account("a1"), account("a2", pending=True), line("h1"), audit(1), audit(2))
    return (*farm.saved, *extra, *access, MetaRecord("farm", "f" * 32), MetaRecord("epoch", "3"))


@cache
def database() -> bytes:
    """A master's database with little pages, so that damage meets what counts."""
    return _database(_farm())


@cache
def empty_database() -> bytes:
    """One without rows."""
    return _database(())


def _database(rows: Sequence[AnyRecord]) -> bytes:
    from tests.fuzz.places import folder

    path = folder() / "seed.db"
    path.unlink(missing_ok=True)
    storage = SqliteStorage(str(path))
    if rows:
        storage.commit(rows)
    storage.close()
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=1024", "VACUUM"):
        connection.execute(statement)
    data = connection.serialize()
    connection.close()
    path.unlink()
    return data


def state() -> list[bytes]:
    """A database as it lies on the disk, and its rows by table, with farm.json beside them."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(database())
    connection.row_factory = sqlite3.Row
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}
    connection.close()
    farm = json.dumps({"farm": "f" * 32, "epoch": 3, "jobs": 10, "slaves": 10, "gone": ["a9", "a2"]}).encode()
    whole = packed({"farm.json": farm, **tables})
    few = packed(
        {"farm.json": farm, **{name: rows[:2] for name, rows in tables.items()}, "meta": tables["meta"]}
    )
    assert whole is not None
    assert few is not None
    return [database(), whole, few, whole, few]


# -- what a slave keeps and hears ---------------------------------------------------------------------------


def files() -> list[bytes]:
    """The name of a file in a state directory, then what it holds."""
    way = {"host": "farm", "port": 1234, "pin": "a" * 52, "farm": "f", "account": "0" * 16, "name": "n1"}
    values: dict[str, object] = {
        "identity.json": {
            "id": "i" * 32,
            "name": "n1",
            "fingerprint": "fp",
            "farm": "f",
            "epoch": 3,
            "previous": ["x"],
            "cloned": False,
        },
        "limits.json": {
            "enabled": True,
            "max_cpus": 3,
            "max_load": 1.5,
            "pools": ["a"],
            "autoenable": "07:30",
        },
        "access.json": {
            "farms": [{**way, "role": "node", "secret": "s", "certificate": "c", "key": "k", "line": "l"}]
        },
        "joining.json": {"host": "h", "port": 1, "pin": "p", "secret": "s", "token": "t", "refused": False},
    }
    return [name.encode() + b"\n" + json.dumps(value).encode() for name, value in values.items()]


SPOOLED: tuple[kept.SpoolRecord, ...] = (
    kept.Boot("boot"),
    kept.MasterHeard(5.0, 60.0),
    kept.Accepted(ORDER),
    kept.Accepted(ORDER_MORE),
    kept.Prepared(ORDER_MORE.key, {"/a/b": (1, 2, 3), "/c": None}),
    kept.Running(ORDER.key, 4242, 99, 1.5),
    kept.Running(ORDER_MORE.key, 4243, 100, 2.5),
    kept.StopAsked(ORDER.key, "timeout", "too long", 2.5),
    kept.Ended(ORDER_MORE.key, EXIT),
    kept.Noted(KEY),
    kept.Noted(OTHER),
)
HEADER = spool.MAGIC + spool.VERSION.to_bytes(4, "big")


def journal() -> list[bytes]:
    """Spools: of one slave's day, and the beginnings of it."""
    bodies = [kept.to_bytes(record) for record in SPOOLED]
    return [HEADER + spool.framed_all(bodies[:count]) for count in (len(bodies), 9, 8, 6, 3, 1, 0)]


def keeper_orders() -> list[bytes]:
    """What a daemon says to its keeper."""
    key = [1, 0, 2, 1]
    common = {
        "argv": ["sh", "-c", "x"],
        "cwd": "/",
        "umask": 18,
        "cap": 1 << 20,
        "scratch": False,
        "again": True,
    }
    base = {"do": "base", "env": {"PATH": "/bin", "A": "ü"}, **common}
    launch = {"do": "launch", "key": key, "env": {"B": "2"}, "log": "/x/log"}
    user = {"do": "launch-as", "as": [1000, 1000, [5, 6]], "scratch": True, "cwd": "/x/y"}
    days: tuple[tuple[dict[str, Any], ...], ...] = (
        (base, launch, {"do": "signal", "key": key, "kill": True}, {"do": "forget", "key": key}),
        (
            {**launch, **common},
            {"do": "forget", "keys": [key, [1, 0, 3, 1]]},
            {"do": "shutdown", "grace": 1.5},
        ),
        (base, {**launch, **user}, {"do": "remove-as", "paths": ["/x"], "as": [1000, 1000, []]}, launch),
        (
            {**launch, **common, "key": [2, 0, 0, 1], "argv": ["/bin/x"]},
            {"do": "signal", "key": [2, 0, 0, 1]},
        ),
    )
    return [
        b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in ({"v": 1}, *day))
        for day in days
    ]


def keeper_reports() -> list[bytes]:
    """What a keeper says to its daemon."""
    key, other = [*ORDER.key], [*ORDER_MORE.key]
    greeting = {"is": "keeper", "v": 1, "pid": 5, "users": True, "bases": True}
    begun = {"is": "started", "key": key, "pid": 5, "birth": 9, "at": 1.5}
    over = {
        "is": "ended",
        "key": key,
        "code": 0,
        "signal": None,
        "cpu": 1.5,
        "peak": 5,
        "start": 1.5,
        "end": 2.5,
    }
    failed = {"is": "failed", "key": other, "reason": "no-command", "text": "there is none"}
    held = {"is": "held"}
    days: tuple[tuple[dict[str, Any], ...], ...] = (
        (greeting, begun, held, {**over, "log": 7, "reason": ""}),
        (greeting, held, begun, failed, {**over, "code": None, "signal": 9, "log": 0, "reason": "log-limit"}),
        (greeting, {**begun, "key": other}, held, {**over, "key": other, "log": 1, "reason": "", "code": 3}),
    )
    return [b"".join(json.dumps(each).encode() + b"\n" for each in day) for day in days]
