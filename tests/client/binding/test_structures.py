"""The binding's classes: their fields and defaults, their lists, and what their methods make of a request."""

import logging
import os
import pwd
from collections.abc import Callable
from typing import Any

import pytest

from drqueue.client.binding import constants as c
from drqueue.client.binding import requests, session, slave_requests, structures
from drqueue.client.binding.fields import Struct, put
from drqueue.client.binding.koji import MEMBERS, koji
from drqueue.client.binding.structures import (
    computer,
    computer_limits,
    computer_status,
    envvar,
    frame_info,
    job,
    pool,
)

DEFAULTS: dict[str, dict[str, object]] = {
    "job": {
        "used": 0,
        "id": 0,
        "nprocs": 0,
        "status": 0,
        "priority": 500,
        "name": "",
        "cmd": "",
        "owner": "artist",
        "email": "",
        "autoRequeue": 1,
        "koj": 0,
        "frame_start": 1,
        "frame_end": 1,
        "frame_pad": 4,
        "frame_step": 1,
        "fleft": 0,
        "fdone": 0,
        "ffailed": 0,
        "old_fdone": 0,
        "old_nprocs": 0,
        "block_size": 1,
        "submit_time": 0,
        "avg_frame_time": 0,
        "est_finish_time": 0,
        "fishmid": -1,
        "bhshmid": -1,
        "nblocked": 0,
        "flags": 0,
        "dependid": 0,
        "success_exit_codes": (0,),
        "chunks": None,
    },
    "frame_info": dict.fromkeys(
        ("status", "start_time", "end_time", "exitcode", "icomp", "itask", "requeued", "flags"), 0
    ),
    "job_limits": {
        "nmaxcpus": 65535,
        "nmaxcpuscomputer": 65535,
        "os_flags": 65535,
        "memory": 0,
        "pool": "Default",
    },
    "envvar": {"name": "", "value": ""},
    "envvars": {"nvariables": 0, "evshmid": -1, "evsemid": -1},
    "blocked_host": {"name": ""},
    "pool": {"name": ""},
    "task": {
        "jobname": "EMPTY",
        "jobcmd": "NONE",
        "owner": "NOBODY",
        **dict.fromkeys(
            (
                *("used", "ijob", "icomp", "itask", "frame", "frame_start", "frame_end", "frame_pad"),
                *("frame_step", "block_size", "pid", "exitstatus", "status", "start_loading_time"),
            ),
            0,
        ),
    },
    "computer": {"lastconn": 0, "used": 0, "semid": -1},
    "computer_hwinfo": {
        "name": "",
        "address": "",
        **dict.fromkeys(
            ("id", "arch", "os", "proctype", "procspeed", "ncpus", "speedindex", "memory", "nnbits"), 0
        ),
    },
    "computer_status": {"loadavg": (0, 0, 0), "ntasks": 0, "nrunning": 0},
    "computer_limits": {
        **dict.fromkeys(("enabled", "nmaxcpus", "maxfreeloadcpu", "npools", "npoolsattached"), 0),
        "poolshmid": -1,
        "poolsemid": -1,
    },
    "autoenable": dict.fromkeys(("last", "h", "m", "flags"), 0),
    "request": dict.fromkeys(("type", "who", "data"), 0),
    "tpol": dict.fromkeys(("index", "pri", "submit_time"), 0),
}
INNER = {
    "job": {"koji", "frame_info", "blocked_host", "limits", "envvars"},
    "envvars": {"variables"},
    "computer": {"hwinfo", "status", "limits"},
    "computer_status": {"task"},
    "computer_limits": {"autoenable", "pool", "local_pool"},
}
KOJI = {
    "general": "scriptdir",
    "maya": "scene renderdir projectdir precommand postcommand image viewcmd",
    "mentalray": "scene renderdir image viewcmd",
    **dict.fromkeys(("blender", "pixie", "threedelight", "nuke", "aqsis"), "scene viewcmd"),
    "lightwave": "scene projectdir configdir viewcmd",
    "terragen": "scriptfile worldfile terrainfile viewcmd",
    "mantra": "scene renderdir viewcmd",
    "aftereffects": "project comp viewcmd",
    "shake": "script viewcmd",
    "turtle": "scene renderdir projectdir camera resx resy image viewcmd",
    "xsi": "scene xsipass renderdir image imageExt viewcmd",
    "luxrender": "scene script viewcmd",
    "vray": "script viewcmd",
    "threedsmax": "scene script image viewcmd",
    "bmrt": "scene viewcmd custom_crop xmin xmax ymin ymax custom_samples xsamples ysamples disp_stats "
    "verbose custom_beep custom_radiosity radiosity_samples custom_raysamples raysamples",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_new_object_has_all_fields_with_their_defaults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "artist")
    new = getattr(structures, name)()
    assert set(new.fields) == set(DEFAULTS[name]) | INNER.get(name, set())
    assert {field: getattr(new, field) for field in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_all_plain_fields_can_be_written(name: str) -> None:
    new = getattr(structures, name)()
    for field, default in DEFAULTS[name].items():
        if field.startswith("n") and field in ("nblocked", "nvariables", "npools"):
            continue
        value: object = "other" if isinstance(default, str) else (1, 2, 3) if field == "loadavg" else 7
        if field == "success_exit_codes":
            value = (1, 2)
        setattr(new, field, value)
        assert getattr(new, field) == value


def test_no_class_is_left_out() -> None:
    assert set(structures.__all__) == {*DEFAULTS, "koji"}


@pytest.mark.parametrize("member", KOJI)
def test_a_kind_has_its_fields(member: str) -> None:
    info: Struct = getattr(job().koji, member)
    assert list(info.fields) == KOJI[member].split()
    for field in info.fields:
        assert getattr(info, field) in ("", 0)
        setattr(info, field, 5 if getattr(info, field) == 0 else "x")
        assert getattr(info, field) in ("x", 5)


def test_every_kind_has_its_member() -> None:
    kinds = {value for name, value in vars(c).items() if name.startswith("KOJ_")}
    assert set(MEMBERS) == kinds == set(range(19))
    assert set(MEMBERS.values()) == set(KOJI) == set(koji.fields)


def test_the_owner_of_a_job_is_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under cron, in containers and for a user without a name, too."""
    monkeypatch.setenv("USER", "artist")
    monkeypatch.setenv("LOGNAME", "login")
    assert job().owner == "artist"
    monkeypatch.setenv("USER", "")
    assert job().owner == "login"
    monkeypatch.delenv("USER")
    monkeypatch.delenv("LOGNAME")
    assert job().owner == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert job().owner == "4000000000"


def test_variables_are_added_replaced_found_and_deleted() -> None:
    each = job()
    assert each.environment_variable_add("A", "1") == 1
    assert each.environment_variable_add("B", "b" * 60_000) == 1
    assert each.environment_variable_add("A", "2") == 1
    assert each.environment_variable_find("A") == "2"
    assert each.envvars.nvariables == 2
    assert [(v.name, v.value[:3]) for v in each.envvars.variables.ptr] == [("A", "2"), ("B", "bbb")]
    assert each.environment_variable_delete("A") == 1
    assert each.environment_variable_delete("A") == 1
    with pytest.raises(IndexError, match="No such variable"):
        each.environment_variable_find("A")
    with pytest.raises(TypeError):
        each.environment_variable_add("C", 3)  # type: ignore[arg-type]
    assert each.envvars.nvariables == 1


def test_a_record_s_variables_and_blocked_hosts_replace_the_local_ones() -> None:
    each = job()
    each.environment_variable_add("A", "1")
    each.envvars.fill([("LONG" * 50, "v" * 70_000)])
    each.fill_blocked(["s" * 200, "t"])
    assert [len(v.name) for v in each.envvars.variables.ptr] == [200]
    assert [host.name[0] for host in each.blocked_host.ptr] == ["s", "t"]
    assert each.nblocked == 2


# -- computers -------------------------------------------------------------------------------------


def test_load_by_index() -> None:
    status = computer_status()
    status.loadavg = (1, 2, 3)
    assert [status.get_loadavg(index) for index in range(3)] == [1, 2, 3]
    for index in (-1, 3):
        with pytest.raises(IndexError, match="Index out of range"):
            status.get_loadavg(index)


def test_there_are_32_slots_and_more_where_more_are_used() -> None:
    status = computer_status()
    assert status.get_task(31).used == 0
    assert status.get_task(31).jobname == "EMPTY"
    for index in (-1, 32):
        with pytest.raises(IndexError, match="Index out of range"):
            status.get_task(index)
    status.slot(40)
    with pytest.raises(IndexError):
        status.get_task(40)
    status.slot(40).used = 1
    assert status.get_task(40).used == 1
    assert len(status.task) == 41
    with pytest.raises(IndexError):
        status.get_task(41)
    status.clear_tasks()
    assert len(status.task) == 32
    assert not any(each.used for each in status.task)


def test_a_task_is_a_view_and_a_copied_computer_has_its_own() -> None:
    one, other = computer(), computer()
    one.status.get_task(3).used = 1
    one.status.get_task(3).pid = -7
    other.status = one.status
    assert (other.status.get_task(3).used, other.status.get_task(3).pid) == (1, -7)
    other.status.task[3].used = 0
    assert one.status.get_task(3).used == 1
    other.status.task = [one.status.get_task(3)]
    assert other.status.get_task(0).pid == -7
    assert other.status.get_task(3).used == 0


def test_pools_of_the_local_record(caplog: pytest.LogCaptureFixture) -> None:
    limits = computer_limits()
    with pytest.raises(IndexError, match="Index out of range"):
        limits.get_pool(0)
    limits.fill_pools(["Default", "gpu"])
    assert limits.npools == 2
    assert [limits.get_pool(index).name for index in range(2)] == ["Default", "gpu"]
    for index in (-1, 2):
        with pytest.raises(IndexError):
            limits.get_pool(index)
    with caplog.at_level(logging.INFO, "drqueue"):
        limits.pool_list()
    assert "gpu" in caplog.text
    assert pool("x").name == "x"


# -- methods that ask the farm ---------------------------------------------------------------------


class Wire:
    """Stands for the network: notes each call, and answers 1, or 0 once told to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer = 1
        self.hook: Callable[..., None] = lambda *args: None
        for module in (requests, slave_requests):
            for name in vars(module):
                if name.startswith(("request_", "register_", "pools_")):
                    monkeypatch.setattr(module, name, self._named(name))
        monkeypatch.setattr(session, "last_error", lambda: "Could not connect to master")

    def _named(self, name: str) -> Callable[..., int]:
        def call(*args: object) -> int:
            self.calls.append((name, *args))
            self.hook(*args)
            return self.answer

        return call


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


JOB_METHODS = {
    "request_stop": "request_job_stop",
    "request_hard_stop": "request_job_hstop",
    "request_continue": "request_job_continue",
    "request_rerun": "request_job_rerun",
    "request_delete": "request_job_delete",
}


@pytest.mark.parametrize("method", JOB_METHODS)
def test_a_job_s_method_asks_for_its_id_and_returns_1_or_raises(method: str, wire: Wire) -> None:
    each = job()
    each.id = 4
    assert getattr(each, method)(c.CLIENT) == 1
    assert wire.calls == [(JOB_METHODS[method], 4, c.CLIENT)]
    wire.answer = 0
    with pytest.raises(IOError, match=r"^Could not connect to master$"):
        getattr(each, method)(c.CLIENT)


def test_a_job_is_sent_and_updated(wire: Wire) -> None:
    each = job()
    each.name, each.cmd = "n", "true"
    wire.hook = lambda *args: put(each, "id", 9)
    assert each.send_to_queue() == 1
    assert each.id == 9
    assert each.update(c.CLIENT) == 1
    assert wire.calls == [("register_job", each), ("request_job_xfer", 9, each, c.CLIENT)]
    wire.answer = 0
    for call in (each.send_to_queue, lambda: each.update(c.CLIENT)):
        with pytest.raises(OSError, match="Could not connect"):
            call()


@pytest.mark.parametrize(("name", "cmd"), [("", "true"), ("n", ""), ("", "")])
def test_a_job_without_a_name_or_a_command_is_not_sent(name: str, cmd: str, wire: Wire) -> None:
    each = job()
    each.name, each.cmd = name, cmd
    with pytest.raises(OSError, match=r"^Information not complete\.$"):
        each.send_to_queue()
    assert wire.calls == []


def test_the_frame_list_has_an_own_object_for_each_unit(wire: Wire) -> None:
    each = job()
    each.id, each.frame_end, each.block_size = 4, 10, 4

    def fill(ijob: int, frames: list[frame_info], count: int, who: int) -> None:
        assert (ijob, len(frames), count, who) == (4, 3, 3, c.CLIENT)
        for index, frame in enumerate(frames):
            frame.icomp = index

    wire.hook = fill
    frames = each.request_frame_list(c.CLIENT)
    assert [frame.icomp for frame in frames] == [0, 1, 2]
    wire.answer = 0
    with pytest.raises(OSError, match="Could not connect"):
        each.request_frame_list(c.CLIENT)


def test_an_empty_range_has_an_empty_frame_list(wire: Wire) -> None:
    each = job()
    each.frame_start, each.frame_end = 5, 4
    assert each.request_frame_list(c.CLIENT) == []
    with pytest.raises(OverflowError):
        each.request_frame_list(-1)
    assert wire.calls == []


def test_a_senseless_range_takes_no_memory(wire: Wire) -> None:
    each = job()
    each.frame_end = 2**32 - 1
    with pytest.raises(OSError, match="4294967295 frames"):
        each.request_frame_list(c.CLIENT)
    assert wire.calls == []


def a_computer() -> computer:
    each = computer()
    each.hwinfo.name, each.hwinfo.id = "slave001", 3
    each.limits.fill_pools(["Default", "old"])
    return each


SET, ADD, REMOVE = (
    "request_slave_limits_enabled_set",
    "request_slave_limits_pool_add",
    "request_slave_limits_pool_remove",
)
COMPUTER_CALLS: list[tuple[Callable[[computer], object], tuple[Any, ...]]] = [
    (lambda each: each.request_enable(c.CLIENT), (SET, "slave001", 1, c.CLIENT)),
    (lambda each: each.request_disable(c.CLIENT), (SET, "slave001", 0, c.CLIENT)),
    (lambda each: each.add_pool("x", c.CLIENT), (ADD, "slave001", "x", c.CLIENT)),
    (lambda each: each.remove_pool("x", c.CLIENT), (REMOVE, "slave001", "x", c.CLIENT)),
    (lambda each: each.limits.pool_add("other", "x", c.CLIENT), (ADD, "other", "x", c.CLIENT)),
    (lambda each: each.limits.pool_remove("other", "x", c.CLIENT), (REMOVE, "other", "x", c.CLIENT)),
]


@pytest.mark.parametrize(("call", "expected"), COMPUTER_CALLS)
def test_a_computer_s_method_asks_its_slave_and_returns_none_or_raises(
    call: Callable[[computer], object], expected: tuple[Any, ...], wire: Wire
) -> None:
    assert call(a_computer()) is None
    assert wire.calls == [expected]
    wire.answer = 0
    with pytest.raises(OSError, match="Could not connect"):
        call(a_computer())


def test_a_computer_is_updated_by_its_id(wire: Wire) -> None:
    each = a_computer()
    assert each.update(c.CLIENT) is None  # type: ignore[func-returns-value]
    assert wire.calls == [("request_comp_xfer", 3, each, c.CLIENT)]
    wire.answer = 0
    with pytest.raises(OSError, match="Could not connect"):
        each.update(c.CLIENT)


def test_set_pools_makes_the_slave_s_pools_equal_to_the_list(wire: Wire) -> None:
    each = a_computer()
    new = each.set_pools([pool("gpu"), pool("Default"), pool("gpu")])
    assert [item.name for item in new] == ["gpu", "Default"]
    assert [item.name for item in each.list_pools()] == ["gpu", "Default"]
    # All at once, whatever the record says: what it says may be over.
    assert wire.calls == [("pools_set", "slave001", ("gpu", "Default"), c.CLIENT)]


@pytest.mark.parametrize("value", [(pool("x"),), None, "x", ["x"]])
def test_set_pools_wants_a_list_of_pools(value: Any, wire: Wire) -> None:
    with pytest.raises(ValueError, match=r"^Expecting a list"):
        a_computer().set_pools(value)
    assert wire.calls == []


def test_set_pools_leaves_the_record_where_the_slave_cannot_be_told(wire: Wire) -> None:
    wire.answer = 0
    each = a_computer()
    with pytest.raises(OSError, match="Could not connect"):
        each.set_pools([pool("gpu")])
    assert [item.name for item in each.list_pools()] == ["Default", "old"]


def test_the_list_of_pools_can_be_changed_without_the_record() -> None:
    each = a_computer()
    each.list_pools().clear()
    assert each.limits.npools == 2


def test_methods_of_envvars_are_the_job_s() -> None:
    each = job()
    each.environment_variable_add("", "nameless")
    each.environment_variable_add("", "again")
    found = each.envvars.find("")
    assert isinstance(found, envvar)
    assert (found.value, each.envvars.nvariables) == ("again", 1)
