"""The environment of commands and view commands, the original's folders, and what this machine is."""

import os
import stat
from pathlib import Path

import pytest

from drqueue.client.binding import constants as c
from drqueue.client.binding import environment, hardware, helpers
from drqueue.client.binding.fields import put
from drqueue.client.binding.koji import MEMBERS
from drqueue.client.binding.structures import computer_hwinfo, job, task
from drqueue.proto.ranges import Chunks, FrameRange


def a_job() -> job:
    each = job()
    each.name, each.cmd, each.owner, each.id = "shot", "true", "ann", 12
    each.frame_start, each.frame_end, each.frame_step, each.block_size = 1, 10, 3, 2
    return each


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The process's environment without the original's variables; a change ends with the test."""
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("DRQUEUE_")}
    monkeypatch.setattr(os, "environ", fresh)
    return fresh


def test_a_frame_s_variables(environ: dict[str, str]) -> None:
    each = a_job()
    each.frame_pad = 3
    each.environment_variable_add("MINE", "1")
    each.environment_variable_add("DRQUEUE_OWNER", "override")
    helpers.job_environment_set(each, 1)
    found = {name: value for name, value in environ.items() if name.startswith("DRQUEUE_")}
    assert found == {
        "DRQUEUE_FRAME": "7",
        "DRQUEUE_PADFRAME": "007",
        "DRQUEUE_PADFRAMES": "007 010",
        "DRQUEUE_STARTFRAME": "1",
        "DRQUEUE_ENDFRAME": "10",
        "DRQUEUE_STEPFRAME": "3",
        "DRQUEUE_BLOCKSIZE": "2",
        "DRQUEUE_OWNER": "override",
        "DRQUEUE_JOBNAME": "shot",
        "DRQUEUE_JOBID": "12",
        "DRQUEUE_OS": {"Linux": "LINUX", "Darwin": "OSX"}[os.uname().sysname],
        "DRQUEUE_BASE": "shot",
    }
    assert environ["MINE"] == "1"
    with pytest.raises(IndexError):
        helpers.job_environment_set(each, 2)


def test_padded_frames_are_the_block_s_real_ones(environ: dict[str, str]) -> None:
    each = a_job()
    put(each, "frame_start", -5)
    each.frame_step = 1
    each.block_size = 4
    put(each, "frame_start", -5)
    helpers.job_environment_set(each, 1)
    assert environ["DRQUEUE_PADFRAMES"] == "-001 0000 0001 0002"
    helpers.job_environment_set(each, 3)
    assert environ["DRQUEUE_PADFRAMES"] == "0007 0008 0009 0010"
    put(each, "chunks", Chunks(FrameRange("9-1x2"), 4))
    helpers.job_environment_set(each, 0)
    assert environ["DRQUEUE_PADFRAMES"] == "0009 0007 0005 0003"


def test_a_list_of_frames_that_no_process_could_have_is_left_out(environ: dict[str, str]) -> None:
    each = job()
    each.frame_end = each.block_size = 30_000
    helpers.job_environment_set(each, 0)
    assert "DRQUEUE_PADFRAMES" not in environ
    assert environ["DRQUEUE_FRAME"] == "1"


VIEW = {
    "general": "",
    "maya": "SCENE=scene RD=renderdir PD=projectdir PRE=precommand POST=postcommand IMAGE=image",
    "mentalray": "SCENE=scene RD=renderdir IMAGE=image",
    **dict.fromkeys(("blender", "bmrt", "pixie", "threedelight", "nuke", "luxrender"), "SCENE=scene"),
    "lightwave": "SCENE=scene PD=projectdir CD=configdir",
    "aftereffects": "PROJECT=project COMP=comp",
    "shake": "SCRIPT=script",
    "aqsis": "SCRIPT=scene",
    "mantra": "SCRIPT=scene RD=renderdir",
    "terragen": "SCENE=scriptfile WF=worldfile CD=terrainfile",
    "turtle": "SCENE=scene RD=renderdir PD=projectdir IMAGE=image",
    "xsi": "SCENE=scene PASS=xsipass RD=renderdir IMAGE=image IMAGEEXT=imageExt",
    "vray": "",
    "threedsmax": "",
}


@pytest.mark.parametrize("kind", range(19))
def test_a_view_command_has_its_kind_s_variables(kind: int, environ: dict[str, str]) -> None:
    each = job()
    each.koj = kind
    member = MEMBERS[kind]
    info = getattr(each.koji, member)
    for name in info.fields:
        if getattr(info, name) == "":
            setattr(info, name, f"<{name}>")
    helpers.job_environment_set(each, 0)
    common = {"FRAME", "PADFRAME", "PADFRAMES", "STARTFRAME", "ENDFRAME", "STEPFRAME", "BLOCKSIZE"}
    common |= {"OWNER", "JOBNAME", "JOBID", "OS", "BASE"}
    own = {name.removeprefix("DRQUEUE_"): value for name, value in environ.items() if "DRQUEUE_" in name}
    expected = dict(pair.split("=") for pair in VIEW[member].split())
    assert {name: own[name] for name in own.keys() - common} == {
        name: f"<{field}>" for name, field in expected.items()
    }


def test_view_commands_are_the_job_s_or_its_kind_s() -> None:
    each = job()
    assert helpers.view_command(each) == ""
    each.koj = c.KOJ_MAYA
    assert helpers.view_command(each) == "fcheck $DRQUEUE_RD/$DRQUEUE_IMAGE.$DRQUEUE_PADFRAME.sgi"
    each.koji.maya.viewcmd = "mine"
    assert helpers.view_command(each) == "mine"
    each.koj = 999
    assert helpers.view_command(each) == ""
    nothing = {c.KOJ_GENERAL, c.KOJ_BMRT, c.KOJ_AFTEREFFECTS, c.KOJ_VRAY, c.KOJ_3DSMAX}
    assert set(helpers.DEFAULT_VIEW_COMMANDS) == set(range(19)) - nothing


def test_a_task_s_variables(environ: dict[str, str]) -> None:
    each = task()
    helpers.task_set_to_job_frame(each, a_job(), 7)
    each.icomp = 3
    helpers.task_environment_set(each)
    assert environ["DRQUEUE_COMPID"] == "3"
    assert environ["DRQUEUE_JOBID"] == "12"
    assert environ["DRQUEUE_JOBNAME"] == "shot"
    assert environ["DRQUEUE_PADFRAMES"] == "0007 0010"
    assert "DRQUEUE_BASE" not in environ


def test_default_folders_fill_what_is_not_set(environ: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match="DRQUEUE_ROOT not set"):
        helpers.set_default_env()
    environ.update(DRQUEUE_ROOT="/farm", DRQUEUE_LOGS="/logs")
    helpers.set_default_env()
    names = ("TMP", "ETC", "BIN", "LOGS", "DB")
    assert [environ[f"DRQUEUE_{name}"] for name in names] == [
        *("/farm/tmp", "/farm/etc", "/farm/bin", "/logs", "/farm/db")
    ]


def test_the_environment_is_checked(environ: dict[str, str], tmp_path: Path) -> None:
    assert helpers.common_environment_check() == 0
    assert list(environment.environment_problems()) == [c.DRE_NOENVMASTER, c.DRE_NOENVROOT]
    environ.update(DRQUEUE_MASTER="localhost", DRQUEUE_ROOT=str(tmp_path))
    folders = [c.DRE_NOTMPDIR, c.DRE_NODBDIR, c.DRE_NOLOGDIR, c.DRE_NOBINDIR, c.DRE_NOETCDIR]
    assert list(environment.environment_problems()) == folders
    for name in ("tmp", "db", "logs", "bin", "etc"):
        (tmp_path / name).mkdir(mode=0o755)
    assert list(environment.environment_problems()) == [c.DRE_NOTMPDIR], "not everybody may write to tmp"
    (tmp_path / "tmp").chmod(0o777 | stat.S_ISVTX)
    assert helpers.common_environment_check() == 1
    (tmp_path / "logs").chmod(0o555)
    assert list(environment.environment_problems()) == [c.DRE_NOLOGDIR]
    (tmp_path / "logs").chmod(0o755)
    (tmp_path / "etc").rmdir()
    (tmp_path / "etc").write_text("no folder")
    assert list(environment.environment_problems()) == [c.DRE_NOETCDIR]
    environ["DRQUEUE_ETC"] = str(tmp_path)
    assert helpers.common_environment_check() == 1


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", c.PROCTYPE_INTELXEON),
        ("Intel(R) Core(TM)2 Duo CPU E8400 @ 3.00GHz", c.PROCTYPE_INTEL_CORE2),
        ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", c.PROCTYPE_INTEL_UNKNOWN),
        ("13th Gen Intel(R) Core(TM) i9-13900K", c.PROCTYPE_INTEL_UNKNOWN),
        ("Intel(R) Pentium(R) 4 CPU 3.00GHz", c.PROCTYPE_PENTIUM4),
        ("Intel(R) Pentium(R) M processor 1.73GHz", c.PROCTYPE_PENTIUMM),
        ("Pentium III (Coppermine)", c.PROCTYPE_PENTIUMIII),
        ("Pentium II (Deschutes)", c.PROCTYPE_PENTIUMII),
        ("Pentium 75 - 200", c.PROCTYPE_PENTIUM),
        ("Pentium MMX", c.PROCTYPE_PENTIUM),
        ("Intel(R) Pentium(R) Gold G5400 CPU @ 3.70GHz", c.PROCTYPE_INTEL_UNKNOWN),
        ("Dual-Core Intel(R) Itanium(R) 2", c.PROCTYPE_INTELIA64),
        ("AMD Athlon(tm) 64 X2 Dual Core Processor 4200+", c.PROCTYPE_ATHLON),
        ("AMD Opteron(tm) Processor 6276", c.PROCTYPE_OPTERON),
        ("AMD EPYC 7763 64-Core Processor", c.PROCTYPE_UNKNOWN),
        ("AMD Ryzen 9 5950X 16-Core Processor", c.PROCTYPE_UNKNOWN),
        ("R10000 V2.7  FPU V0.0", c.PROCTYPE_MIPSR10000),
        ("MIPS R5000", c.PROCTYPE_MIPSR5000),
        ("R12000", c.PROCTYPE_MIPSR12000),
        ("POWER9, altivec supported", c.PROCTYPE_PPC),
        ("PPC970FX, altivec supported", c.PROCTYPE_PPC),
        ("TI UltraSparc IIi", c.PROCTYPE_ULTRASPARC),
        ("Cell Broadband Engine, altivec supported", c.PROCTYPE_CELLBE),
        ("Apple M2", c.PROCTYPE_UNKNOWN),
        ("", c.PROCTYPE_UNKNOWN),
    ],
)
def test_processors_by_their_model(model: str, expected: int) -> None:
    assert hardware.proctype_of(model) == expected


@pytest.mark.parametrize(
    ("machine", "arch", "bits"),
    [
        ("x86_64", c.ARCH_INTEL, 64),
        ("AMD64", c.ARCH_INTEL, 64),
        ("i686", c.ARCH_INTEL, 32),
        ("x86", c.ARCH_INTEL, 32),
        ("ia64", c.ARCH_INTEL, 64),
        ("mips64", c.ARCH_MIPS, 64),
        ("mips", c.ARCH_MIPS, 32),
        ("ppc64le", c.ARCH_PPC, 64),
        ("Power Macintosh", c.ARCH_PPC, 32),
        ("sparc64", c.ARCH_SPARC, 64),
        ("sun4u", c.ARCH_SPARC, 64),
        ("aarch64", c.ARCH_UNKNOWN, 64),
        ("armv7l", c.ARCH_UNKNOWN, 32),
        ("riscv64", c.ARCH_UNKNOWN, 64),
        ("", c.ARCH_UNKNOWN, 0),
    ],
)
def test_architectures_by_uname(machine: str, arch: int, bits: int) -> None:
    assert hardware.arch_of(machine) == arch
    assert hardware.nnbits_of(machine) == bits


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Linux", c.OS_LINUX),
        ("linux", c.OS_LINUX),
        ("IRIX64", c.OS_IRIX),
        ("CYGWIN_NT-10.0", c.OS_CYGWIN),
        ("Windows", c.OS_WINDOWS),
        ("Darwin", c.OS_OSX),
        ("FreeBSD", c.OS_FREEBSD),
        ("Plan9", c.OS_UNKNOWN),
    ],
)
def test_systems_by_uname(name: str, expected: int) -> None:
    assert hardware.os_of(name) == expected


def test_this_machine_is_measured() -> None:
    hwinfo = computer_hwinfo()
    hwinfo.id, hwinfo.address = 9, "10.0.0.9"
    helpers.get_hwinfo(hwinfo)
    assert hwinfo.name == os.uname().nodename.partition(".")[0]
    assert hwinfo.ncpus == helpers.get_numproc() == os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(hwinfo.memory - pages // 2**20) <= 1
    assert hwinfo.memory == helpers.get_memory()
    assert hwinfo.os == hardware.os_of(os.uname().sysname)
    assert hwinfo.nnbits == helpers.computer_info_nnbits()
    assert hwinfo.proctype == helpers.get_proctype()
    assert hwinfo.speedindex == helpers.get_speedindex(hwinfo)
    assert helpers.get_procspeed() >= 0
    assert (hwinfo.id, hwinfo.address) == (9, "10.0.0.9")


def test_the_speed_index_is_the_original_s() -> None:
    hwinfo = computer_hwinfo()
    hwinfo.proctype, hwinfo.procspeed = c.PROCTYPE_INTELXEON, 2000
    assert helpers.get_speedindex(hwinfo) == 14_000


def test_load_is_in_hundredths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (1.25, 0.5, 9999.0))
    into = [7, 7, 7]
    assert helpers.get_loadavg(into) == [125, 50, 65535]
    assert into == [125, 50, 65535]
    assert helpers.get_loadavg() == [125, 50, 65535]
