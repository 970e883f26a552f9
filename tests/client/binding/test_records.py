"""What the farm says becomes what programs read, and what programs write becomes a job of the farm."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.binding import constants as c
from drqueue.client.binding import records
from drqueue.client.binding.computer_records import KnownComputer, address_of, fill_computer
from drqueue.client.binding.fields import Struct
from drqueue.client.binding.koji import MEMBERS
from drqueue.client.binding.numbering import job_frame_index_to_number, job_nframes
from drqueue.client.binding.records import KnownJob, fill_frame, fill_job, job_spec, range_of
from drqueue.client.binding.session import RequestError
from drqueue.client.binding.structures import computer, frame_info, job
from drqueue.proto.checks import check_spec
from drqueue.proto.model import Depend, JobSpec, LayerSpec, MachineInfo, MachineLoad, Needs, SlaveLimits
from drqueue.proto.placeholders import fill
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.proto.views import Counts
from tests.client.peer import frame_view, job_view, slave_view

NONE = Counts()


def a_job(**values: object) -> job:
    made = job()
    made.name, made.cmd, made.owner = "made", "true", "ann"
    for name, value in values.items():
        setattr(made, name, value)
    return made


def a_spec(frames: str = "1-10", chunk: int = 1, **layer: object) -> JobSpec:
    made = LayerSpec(**{"shell": "true", "frames": frames, "chunk": chunk, **layer})  # type: ignore[arg-type]
    return JobSpec(name="made", owner="ann", layers=(made,))


def known(spec: JobSpec, counts: Counts = NONE, mean_s: float = 0, **view: object) -> KnownJob:
    given_by_spec = {"name": spec.name, "owner": spec.owner, "priority": spec.priority, "pool": spec.pool}
    view = {**given_by_spec, "blocked_hosts": spec.blocked, "depends": spec.depends, **view}
    return KnownJob(job_view(7, **view), spec, counts, mean_s)  # type: ignore[arg-type]


def filled(spec: JobSpec, counts: Counts = NONE, mean_s: float = 0, **view: object) -> job:
    made = job()
    fill_job(made, known(spec, counts, mean_s, **view))
    return made


def values(struct: Struct) -> dict[str, object]:
    """What all fields of a structure read as, those inside it too."""
    found: dict[str, object] = {}
    for name in struct.fields:
        value = getattr(struct, name)
        if isinstance(value, list):
            value = [values(each) for each in value]
        found[name] = values(value) if isinstance(value, Struct) else value
    return found


# -- jobs -----------------------------------------------------------------------------------------------


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc"]), max_size=127
)
jobs = st.builds(
    a_job,
    name=names.filter(str.strip),
    cmd=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200).filter(
        lambda text: text.strip() and "{{" not in text
    ),
    email=names,
    priority=st.integers(0, 2**32 - 1),
    autoRequeue=st.integers(0, 1),
    koj=st.integers(0, 18),
    frame_start=st.integers(0, 1000),
    frame_end=st.integers(1000, 5000),
    frame_pad=st.integers(0, 99),
    frame_step=st.integers(1, 5000),
    block_size=st.integers(1, 2000),
    success_exit_codes=st.sampled_from([(0,), (0, 3), "any"]),
)


pools = names.map(lambda text: "".join(re.split(r"[\s,=:/]+", text))[:63]).filter(bool)


@given(jobs, st.integers(1, 65535), st.integers(1, 65535), st.integers(0, 2**32 - 1), pools)
def test_a_job_reads_back_as_it_was_sent(
    sent: job, nmaxcpus: int, per_computer: int, memory: int, pool: str
) -> None:
    sent.limits.nmaxcpus, sent.limits.nmaxcpuscomputer = nmaxcpus, per_computer
    sent.limits.memory, sent.limits.pool = memory, pool
    sent.envvars.add("A", "1")
    spec = job_spec(sent)
    assert msgspec.convert(msgspec.to_builtins(spec), JobSpec) == spec
    assert check_spec(spec) is None
    got = values(filled(spec))
    # What the master gives, and C's spelling of what was never set.
    for name in ("id", "used", "status", "submit_time", "avg_frame_time", "est_finish_time"):
        del got[name]
    wanted = {name: value for name, value in values(sent).items() if name in got}
    assert got == wanted


@pytest.mark.parametrize("koj", range(19))
def test_every_kind_keeps_its_parameters(koj: int) -> None:
    sent = a_job(koj=koj)
    member = getattr(sent.koji, MEMBERS[koj])
    for place, name in enumerate(member.fields):
        setattr(member, name, place + 1 if isinstance(getattr(member, name), int) else f"/{name}")
    spec = job_spec(sent)
    assert len(spec.params) == len(member.fields)
    got = job()
    # What another record left behind is gone, too.
    setattr(getattr(got.koji, MEMBERS[koj]), next(iter(member.fields)), "left behind")
    fill_job(got, known(spec))
    assert got.koj == koj
    assert values(got.koji) == values(sent.koji)


def test_the_names_of_kinds() -> None:
    assert records.KINDS[c.KOJ_3DELIGHT] == "3delight"
    assert records.KINDS[c.KOJ_3DSMAX] == "3dsmax"
    assert records.KINDS[c.KOJ_MENTALRAY] == "mentalray"
    assert len(set(records.KINDS.values())) == 19


def test_a_kind_that_the_original_never_knew_is_general() -> None:
    spec = msgspec.structs.replace(a_spec(), kind="povray", params={"scene": "a.pov"})
    assert filled(spec).koj == c.KOJ_GENERAL


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        ("echo ${frame} $frame", "echo ${{frame}} $frame"),
        ("a ${end:-4} ${x}", "a ${{end:-4}} ${x}"),
        ("render {frame:04d} ${HOME}", "render {frame:04d} ${HOME}"),
    ],
)
def test_variables_of_the_shell_stay_the_shells(command: str, sent: str) -> None:
    """`${frame}` means a variable; only a bare `{frame}` is the farm's."""
    spec = job_spec(a_job(cmd=command))
    assert spec.layers[0].shell == sent
    assert fill(sent, lambda name: 7) == command.replace("{frame:04d}", "0007")
    assert filled(spec).cmd == command


def test_words_are_shown_as_a_shell_would_need_them() -> None:
    assert filled(a_spec(shell="", argv=("render", "a b", "$x"))).cmd == "render 'a b' '$x'"


def test_flags_and_what_they_mean() -> None:
    sent = a_job(flags=c.JF_MAILNOTIFY | c.JF_JOBDEPEND | c.JF_JOBDELETE, dependid=5, email="a@b")
    spec = job_spec(sent)
    assert spec.depends == (Depend(5, "ended"),)
    assert spec.mail_when_finished
    assert spec.delete_when_finished
    assert spec.email == "a@b"
    got = filled(spec)
    assert got.flags == c.JF_MAILNOTIFY | c.JF_MNDIFEMAIL | c.JF_JOBDEPEND | c.JF_JOBDELETE
    assert got.dependid == 5
    plain = job_spec(a_job(dependid=5))
    assert plain.depends == ()
    assert not plain.mail_when_finished
    assert not plain.delete_when_finished


@pytest.mark.parametrize(
    ("flags", "systems"),
    [
        (c.OSF_ALL, ()),
        (c.OSF_LINUX, ("linux",)),
        (c.OSF_IRIX | c.OSF_OSX, ("irix", "irix64", "darwin")),
        (c.OSF_FREEBSD | c.OSF_CYGWIN, ("freebsd", "cygwin")),
    ],
)
def test_systems(flags: int, systems: tuple[str, ...]) -> None:
    sent = a_job()
    sent.limits.os_flags = flags
    spec = job_spec(sent)
    assert spec.layers[0].needs.os == systems
    assert filled(spec).limits.os_flags == flags


def test_limits_that_are_none() -> None:
    spec = job_spec(a_job())
    assert (spec.max_running, spec.max_per_slave) == (0, 0)
    got = filled(spec)
    assert (got.limits.nmaxcpus, got.limits.nmaxcpuscomputer) == (65535, 65535)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "Information not complete."),
        ({"cmd": ""}, "Information not complete."),
        ({"frame_start": 5, "frame_end": 4}, "The range from 5 to 4 has no frame"),
        ({"frame_start": 9, "frame_end": 4}, "The range from 9 to 4 has no frame"),
        ({"block_size": 0}, "In blocks of 0 frames"),
        ({"limits.nmaxcpus": 0}, "With nmaxcpus 0 nothing would run"),
        ({"limits.nmaxcpuscomputer": 0}, "With nmaxcpuscomputer 0 nothing would run"),
        ({"frame_pad": 100}, "A frame_pad of 100 is too much: 99 at most"),
        ({"limits.pool": ""}, "No pool is named"),
        ({"limits.os_flags": 0}, r"No system .* is named by os_flags 0$"),
        ({"limits.os_flags": 32}, r"No system .* is named by os_flags 32$"),
    ],
)
def test_what_no_farm_could_run_is_refused(change: dict[str, object], said: str) -> None:
    sent = a_job()
    for name, value in change.items():
        inner, _, field = name.rpartition(".")
        setattr(getattr(sent, inner) if inner else sent, field, value)
    with pytest.raises(RequestError, match=said) as caught:
        job_spec(sent)
    assert str(caught.value).startswith("Information not complete.")
    assert ".:" not in str(caught.value)


def test_a_step_of_0_is_1() -> None:
    assert range_of(1, 10, 0, 1) == ("1-10x1", 1)
    assert job_spec(a_job(frame_end=10, frame_step=0)).layers[0].frames == "1-10x1"


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60), st.integers(1, 12))
def test_units_are_the_farms_chunks(start: int, more: int, step: int, block: int) -> None:
    """The original's numbering and the farm's are the same, for what is sent and for what is read back."""
    text, chunk = range_of(start, start + more, step, block)
    chunks = Chunks(FrameRange.parse(text), chunk)
    got = filled(a_spec(text, chunk))
    assert (got.frame_start, got.frame_end, got.frame_step) == (start, start + more, step)
    assert job_nframes(got) == len(chunks)
    assert [job_frame_index_to_number(got, i) for i in range(len(chunks))] == [
        chunks.first(i) for i in range(len(chunks))
    ]


@pytest.mark.parametrize(
    ("frames", "three", "real"),
    [
        ("5", (5, 5, 1), False),
        ("1..9x2", (1, 9, 2), False),
        ("-5-5x5", (-5, 5, 5), False),
        ("10-1", (1, 10, 1), True),
        ("1,5,7-9", (1, 9, 1), True),
        ("1-10y3", (2, 9, 1), True),
    ],
)
def test_ranges_of_other_programs(frames: str, three: tuple[int, int, int], real: bool) -> None:
    got = filled(a_spec(frames, 2))
    assert (got.frame_start, got.frame_end, got.frame_step) == three
    assert (got.chunks is not None) is real
    chunks = Chunks(FrameRange.parse(frames), 2)
    numbers = [job_frame_index_to_number(got, index) for index in range(job_nframes(got))]
    assert numbers == [chunks.first(index) for index in range(len(chunks))]
    again = job_spec(got).layers[0]
    assert FrameRange.parse(again.frames) == FrameRange.parse(frames)
    assert again.chunk == 2


def test_counts_of_the_first_layer() -> None:
    counts = Counts(total=28, waiting=1, blocked=2, assigned=3, running=4, done=5, failed=6, cancelled=7)
    got = filled(a_spec(), counts, 12.9)
    assert (got.nprocs, got.fleft, got.fdone, got.ffailed) == (7, 3, 5, 13)
    assert got.avg_frame_time == 12


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("WAITING", c.JOBSTATUS_WAITING),
        ("ACTIVE", c.JOBSTATUS_ACTIVE),
        ("STOPPED", c.JOBSTATUS_STOPPED),
        ("FINISHED", c.JOBSTATUS_FINISHED),
    ],
)
def test_states_of_jobs(state: str, status: int) -> None:
    assert filled(a_spec(), state=state).status == status


def test_when_a_job_will_be_over() -> None:
    """The default time counts while nothing is done, from the submission while nothing has moved."""
    fresh = filled(a_spec(), Counts(total=10, waiting=10), 9, submitted_at=1000.7)
    assert (fresh.avg_frame_time, fresh.submit_time, fresh.est_finish_time) == (120, 1000, 2200)
    halfway = Counts(total=10, waiting=3, running=2, done=5)
    assert filled(a_spec(), halfway, 8, submitted_at=1000, moved_at=5000).est_finish_time == 5020
    over = filled(a_spec(), Counts(total=1, done=1), 8, state="FINISHED", finished_at=6000.5)
    assert over.est_finish_time == 6000


def test_a_record_replaces_what_was_there() -> None:
    got = a_job(frame_end=99, block_size=9, flags=15)
    got.envvars.add("OLD", "1")
    fill_job(got, known(msgspec.structs.replace(a_spec("2-4"), env={"NEW": "2"}, blocked=("n1", "n2"))))
    assert [(each.name, each.value) for each in got.envvars.variables.ptr] == [("NEW", "2")]
    assert [host.name for host in got.blocked_host.ptr] == ["n1", "n2"]
    assert (got.id, got.used, got.nblocked, got.flags) == (7, 1, 2, 0)
    assert (got.frame_start, got.frame_end, got.block_size) == (2, 4, 1)


def test_blocked_hosts_of_the_local_object_are_not_sent() -> None:
    got = filled(msgspec.structs.replace(a_spec(), blocked=("n1",)))
    assert job_spec(got).blocked == ()


# -- frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("WAITING", c.FS_WAITING),
        ("BLOCKED", c.FS_WAITING),
        ("ASSIGNED", c.FS_ASSIGNED),
        ("RUNNING", c.FS_ASSIGNED),
        ("DONE", c.FS_FINISHED),
        ("FAILED", c.FS_ERROR),
        ("CANCELLED", c.FS_ERROR),
    ],
)
def test_states_of_frames(state: str, status: int) -> None:
    frame = frame_info()
    fill_frame(frame, frame_view(1, state))
    assert frame.status == status


def test_a_frame_on_its_way_to_a_slave_has_neither_slot_nor_start() -> None:
    frame = frame_info()
    fill_frame(frame, frame_view(1, "ASSIGNED", slave_id=3, slot=2, started_at=900))
    assert (frame.itask, frame.start_time, frame.icomp) == (65535, 0, 3)
    fill_frame(frame, frame_view(1, "RUNNING", slave_id=3, slot=2, started_at=900.9, ended_at=5))
    assert (frame.itask, frame.start_time, frame.end_time) == (2, 900, 0)


def test_a_frame_that_waits_again_has_no_times() -> None:
    frame = frame_info()
    fill_frame(frame, frame_view(1, "WAITING", started_at=900, ended_at=950, requeued=2, returned=3))
    assert (frame.start_time, frame.end_time, frame.requeued) == (0, 0, 5)


@pytest.mark.parametrize(("code", "shown"), [(0, 0), (3, 3), (255, 255), (None, 0), (-9, 0), (300, 0)])
def test_only_a_normal_exit_has_a_code(code: int | None, shown: int) -> None:
    frame = frame_info()
    frame.exitcode = 77
    fill_frame(frame, frame_view(1, "FAILED", code=code, ended_at=950.9))
    assert (frame.exitcode, frame.end_time) == (shown, 950)


@pytest.mark.parametrize(("stop", "flags"), [("requeue", c.FF_REQUEUE), ("kill", 0), ("", 0)])
def test_the_flag_of_a_frame_that_runs_once_more(stop: str, flags: int) -> None:
    frame = frame_info()
    fill_frame(frame, frame_view(1, "RUNNING", stop=stop))
    assert frame.flags == flags


# -- computers ------------------------------------------------------------------------------------------


def test_a_computer() -> None:
    view = slave_view(
        "n1",
        "10.0.0.7:4242",
        id=4,
        cores=8,
        memory_mb=16000,
        last_heard_at=1234.5,
        machine=MachineInfo(
            hostname="host", os="linux", arch="x86_64", cpu_model="Intel Xeon X5", cpu_mhz=2400
        ),
        load=MachineLoad(load1=1.15, load5=0.5, load15=99999),
        limits=SlaveLimits(enabled=False, max_cpus=3, max_load=1.15, pools=("a", "b"), autoenable="7:05"),
    )
    got = computer()
    fill_computer(got, KnownComputer(view, {}))
    hwinfo, limits = got.hwinfo, got.limits
    assert (hwinfo.name, hwinfo.address, hwinfo.id) == ("n1", "10.0.0.7", 4)
    assert (hwinfo.os, hwinfo.arch, hwinfo.nnbits) == (c.OS_LINUX, c.ARCH_INTEL, 64)
    assert (hwinfo.ncpus, hwinfo.memory, hwinfo.procspeed) == (8, 16000, 2400)
    assert hwinfo.proctype == c.PROCTYPE_INTELXEON
    assert hwinfo.speedindex == 7 * 2400
    assert (limits.enabled, limits.nmaxcpus, limits.maxfreeloadcpu) == (0, 3, 115)
    assert (limits.autoenable.h, limits.autoenable.m, limits.autoenable.flags) == (7, 5, c.AEF_ACTIVE)
    assert [limits.get_pool(i).name for i in range(limits.npools)] == ["a", "b"]
    assert [got.status.get_loadavg(i) for i in range(3)] == [115, 50, 65535]
    assert (got.lastconn, got.used, got.status.ntasks) == (1234, 1, 0)


def test_a_computer_without_limits_of_its_own() -> None:
    got = computer()
    fill_computer(got, KnownComputer(slave_view(), {}))
    assert (got.limits.enabled, got.limits.nmaxcpus, got.limits.maxfreeloadcpu) == (1, 4, 65535)
    assert (got.limits.autoenable.h, got.limits.autoenable.m, got.limits.autoenable.flags) == (21, 0, 0)
    fill_computer(got, KnownComputer(slave_view(limits=SlaveLimits(max_cpus=99)), {}))
    assert got.limits.nmaxcpus == 4


@pytest.mark.parametrize(
    ("control", "address"),
    [
        ("unix:/run/a/control.sock", "unix:/run/a/control.sock"),
        ("node7:4242", "node7"),
        ("[fe80::1]:4242", "fe80::1"),
        ("", "host"),
    ],
)
def test_addresses(control: str, address: str) -> None:
    assert address_of(slave_view("n1", control)) == address


def test_tasks_are_in_their_slots() -> None:
    spec = a_spec("1-9x2", 2, pad=6)
    running = (
        frame_view(3, "RUNNING", slot=33, pid=4711, started_at=900.5),
        frame_view(5, "ASSIGNED", slot=1),
        frame_view(7, "RUNNING", slot=None),
        frame_view(9, "RUNNING", job=99, slot=5),
    )
    got = computer()
    fill_computer(got, KnownComputer(slave_view("n1", id=4, running=running), {1: spec}))
    assert (got.status.ntasks, got.status.nrunning) == (4, 4)
    used = {slot: each for slot, each in enumerate(got.status.task) if each.used}
    assert sorted(used) == [0, 1, 5, 33]
    task = used[33]
    assert (task.jobname, task.ijob, task.icomp, task.itask) == ("made", 1, 4, 33)
    assert (task.frame, task.frame_start, task.frame_end, task.frame_step) == (3, 1, 9, 2)
    assert (task.block_size, task.frame_pad, task.jobcmd, task.owner) == (2, 6, "true", "ann")
    assert (task.pid, task.status, task.start_loading_time) == (4711, c.TASKSTATUS_RUNNING, 900)
    assert used[1].status == c.TASKSTATUS_LOADING
    assert used[0].frame == 7
    # Its job is deleted already.
    assert (used[5].jobname, used[5].ijob, used[5].frame) == ("", 99, 9)
    fill_computer(got, KnownComputer(slave_view("n1"), {}))
    assert not any(each.used for each in got.status.task)


def test_needs_of_the_machine_are_not_those_of_an_attempt() -> None:
    sent = a_job()
    sent.limits.memory = 4096
    assert job_spec(sent).layers[0].needs == Needs(machine_memory_mb=4096)
    assert filled(a_spec(needs=Needs(memory_mb=500))).limits.memory == 0
