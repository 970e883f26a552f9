"""What a slave says about itself and its machine when an admin asks `drqueue doctor`.

Rules: the daemon hands over what only it knows; the machine is looked at here, in threads, for a few seconds
at most: a share that hangs makes one bad finding and holds nobody up. Nothing is changed.
"""

import os
from functools import partial

import trio

from drqueue import __version__, checkup
from drqueue.access import ACCESS_FILE, AccessError, find_access, read_access
from drqueue.address import SettingsError, parse_address
from drqueue.checkup import bad, ok, warn
from drqueue.proto.model import Gpu, Offers
from drqueue.proto.views import Finding
from drqueue.settings import SlaveSettings
from drqueue.slave import cgroups
from drqueue.slave.credentials import CLONED_FILE, JOINING_FILE

_NOTHING = Offers()
#: Descriptors that the daemon may need: its own, clients at its ports, logs that are read.
_FILES = 256
#: Silence of the master after which it is worth a word (s); it says one every ten or so.
_SILENCE_S = 60.0
_LIMITS = "add the shipped drop-in limits.conf (systemd 254 or later)"


async def examine(
    settings: SlaveSettings,
    *,
    master: str = "",
    farm: str = "",
    master_software: str = "",
    linked: bool = False,
    heard_ago_s: float = 0.0,
    master_clock: float | None = None,
    control: str = "",
    frames_as: str | None = None,
    work_dir: str = "",
    offers: Offers = _NOTHING,
    gpus: tuple[Gpu, ...] = (),
    gpu_driver: bool = False,
    disk_left_mb: int = 0,
    trouble: str = "",
) -> tuple[Finding, ...]:
    """All findings, in the order in which they are told; takes some seconds at most.

    `master` is the address of its link (Link.address), or what it tries where it has none; `farm` the
    farm's id, `master_software` its Welcome.software; it was last heard `heard_ago_s` seconds ago.
    `master_clock` is what the master's wall clock says now, as reckoned from TicketKey (None: not known).
    `control` is Hello.control ("" for none). `frames_as` is the user that frames run as where it may change
    users, None where they run as its own user. `work_dir` holds scratch directories ("": the state directory
    does), `disk_left_mb` is what of its disk is offered and not yet taken. `gpus` are those that were found,
    `gpu_driver` says whether one is there that should know of some. `trouble` is why it can start no frame.
    """
    folder = settings.state_dir
    # What is on its way comes first: the threads below take their time.
    clocks = [] if master_clock is None else [checkup.clock_against(master_clock, "the master")]
    looks: list[tuple[str, checkup.Look]] = [
        ("clock", checkup.clock_set),
        (
            "state directory",
            partial(
                checkup.private_folder, "state directory", folder, (ACCESS_FILE, JOINING_FILE, CLONED_FILE)
            ),
        ),
        ("access", partial(_access, os.path.join(folder, ACCESS_FILE), master)),
        ("disk", partial(checkup.disk_room, "disk", folder)),
    ]
    for what, place in (("scratch disk", work_dir), ("log copies", settings.logs)):
        if place:
            looks.append((what, partial(_folder, what, place)))
    room = partial(_room, work_dir or folder, disk_left_mb)
    if settings.disk_mb is not None:
        looks.append(("offered disk", room))
    looks += [
        ("open files", partial(checkup.open_files, _FILES)),
        ("cgroup", partial(_cgroup, settings)),
        ("frames' user", partial(checkup.frames_user, frames_as)),
    ]
    found = [_joined(master, farm, linked, heard_ago_s)]
    if linked:
        found.append(checkup.version("the master", master_software, f"drqueue {__version__}"))
    if trouble:
        found.append(bad("keeper", trouble, "see what disk hangs; if nothing helps, restart the machine"))
    found += clocks
    found += await trio.to_thread.run_sync(checkup.looked, looks)
    if gpus or gpu_driver:
        found.append(_gpus(offers, gpus))
    found.append(_control(settings, control))
    return tuple(found)


def _folder(what: str, path: str) -> Finding:
    return checkup.disk_room(what, os.path.abspath(os.path.expanduser(path)))


def _room(path: str, left_mb: int) -> Finding:
    what, disk = "offered disk", os.statvfs(path)
    free_mb = disk.f_bavail * disk.f_frsize // checkup.MB
    text = f"{checkup.amount(left_mb)} of disk_mb are not taken yet, {checkup.amount(free_mb)} are free"
    if free_mb < left_mb:
        return warn(what, text, "make room, or lower disk_mb: frames may fill the disk")
    return ok(what, text)


def _gpus(offers: Offers, gpus: tuple[Gpu, ...]) -> Finding:
    what = "GPUs"
    if not gpus:
        way = "install nvidia-ml-py beside drqueue, and see whether nvidia-smi lists them"
        return warn(what, "NVIDIA's driver is here, but no GPU was found", way)
    names = ", ".join([f"{gpu.index} {gpu.name}" for gpu in gpus if gpu.index in offers.gpus])
    return ok(what, f"offers {len(offers.gpus)} of {len(gpus)}" + (f": {names}" if names else ""))


def _cgroup(settings: SlaveSettings) -> Finding:
    """How frames' trees are ended: as the keeper found it, or as one would find it now."""
    what, walked = "cgroup", "frames' processes are found one by one"
    if settings.cgroups == "off":
        return ok(what, f"off by its settings: {walked}")
    place, noted = cgroups.place(), cgroups.noted(settings.state_dir)
    home, told = noted or ("", place.why)
    if not home and told:
        return warn(what, f"{told}: {walked}", "run it by the shipped unit, which has Delegate=yes")
    limits = told.split() if home else ["memory", "pids"] if place.beside else []
    text = f"each frame has its own below {os.path.dirname(home) or place.path}, which dies as a whole"
    if settings.memory_limit and "memory" not in limits:
        return warn(what, f"{text}; but nothing holds its memory to memory_limit", _LIMITS)
    return ok(what, f"{text}; limits: {' and '.join(limits) or 'none'}")


def _joined(master: str, farm: str, linked: bool, heard_ago_s: float) -> Finding:
    if not linked:
        tries = f"tries {master}" if master else "looks for a master on this machine"
        return bad("master", f"no link: it {tries}", "see its log; `drqueue-slave join LINE` joins a farm")
    where = f"linked to {master}" + (f", farm {farm[:8]}" if farm else "")
    if heard_ago_s > _SILENCE_S:
        return warn(
            "master", f"{where}, last heard {heard_ago_s:.0f} s ago", "see whether the network is well"
        )
    return ok("master", f"{where}, last heard {heard_ago_s:.0f} s ago")


def _access(path: str, master: str) -> Finding:
    """Whether what it joined by can be used: private, whole, and for the master that it talks to."""
    none = ok("access", "none is needed: its master is on this machine")
    if master and not master.startswith("unix:"):
        none = bad("access", f"there is no {path}", "`drqueue-slave join LINE`")
    found = checkup.private_file("access", path, none)
    if found.state != "ok" or found is none:
        return found
    try:
        ways = read_access(path)
        way = find_access(ways, parse_address(master)) if master and not master.startswith("unix:") else None
    except (AccessError, SettingsError) as error:
        return bad("access", str(error), "`drqueue-slave join LINE` makes a new one")
    way = way or (ways[0] if ways else None)
    if way is None:
        return none
    if way.certificate:
        certificate = checkup.check_certificate("access", way.certificate, way.key)
        if certificate.state != "ok":
            return certificate
    return ok("access", f"joined {way.address} as {way.name}; {os.path.basename(path)} is private")


def _control(settings: SlaveSettings, control: str) -> Finding:
    what = "control port"
    if not settings.control:
        return ok(what, "closed by its settings: all goes through the master")
    if control.startswith("unix:"):
        return ok(what, f"at {control}, for this machine only")
    if not control:
        return warn(what, "none is open: all goes through the master", "see its log; set control_listen")
    return ok(what, f"at {control}, by ticket")
