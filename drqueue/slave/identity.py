"""Who this slave is, across restarts: identity.json and limits.json in its state directory.

Rules: the identity is a random id, never a name or an address. It belongs to one machine: on another one (a
cloned disk) a new id is taken, and the other machine's way into the farm is set aside. A machine is the same
as long as its id and one of its network cards are: others may come and go. A damaged file is refused, never
replaced.
"""

import hashlib
import os
import secrets

import msgspec
from msgspec import Struct, structs

from drqueue import failpoints
from drqueue.proto.model import SlaveLimits
from drqueue.slave.credentials import set_aside_cloned
from drqueue.slave.nimby import parse_time_of_day
from drqueue.statefile import StateError, read_json, write_json_atomic

__all__ = ["Identity", "StateError", "boot_id", "load_limits", "load_or_create", "save", "save_limits"]

IDENTITY_FILE = "identity.json"
LIMITS_FILE = "limits.json"
#: Ids of earlier lives that are remembered, newest first.
MAX_PREVIOUS = 20


class Identity(Struct, frozen=True):
    """The slave's own record of itself.

    `epoch` is the highest that a master of `farm` ever named, `life` which start of a master that was.
    `fingerprint` is that of the machine as it was when the id was taken, `marks` say how to know it again.
    `previous` holds the ids given up, newest first. `cloned` stays true from the moment another machine was
    found until the caller saves it as false, having set aside what belonged to the old id (the spool).
    `path` is where the directory was: what still stands there with the same id is what this is a copy of.
    """

    id: str
    name: str
    fingerprint: str
    farm: str = ""
    epoch: int = 0
    previous: tuple[str, ...] = ()
    cloned: bool = False
    life: str = ""
    path: str = ""
    marks: tuple[str, ...] = ()


class Machine(Struct, frozen=True):
    """A machine: a hash over all that a cloned disk does not take along, and one for each part of that."""

    fingerprint: str
    marks: tuple[str, ...] = ()


def load_or_create(state_dir: str, name: str, machine: Machine | None = None) -> Identity:
    """The identity kept in a state directory, new where there is none; already saved on return.

    `machine` is this one (looked at when None). Raises StateError.
    """
    machine = machine or this_machine()
    path, here = os.path.join(state_dir, IDENTITY_FILE), os.path.realpath(state_dir)
    stored = read_json(path)
    if stored is None:
        identity = Identity(secrets.token_hex(16), name, machine.fingerprint, path=here, marks=machine.marks)
        save(state_dir, identity)
        return identity
    try:
        kept = msgspec.convert(stored, Identity)
        if not kept.id or kept.epoch < 0:
            raise ValueError("no id")
    except ValueError as error:
        raise StateError(f"{path} is damaged: {error}; restore it or move it away") from error
    identity = structs.replace(kept, name=name, path=here, marks=machine.marks)
    if not _is_of(kept, machine) or _is_copy(kept, here):
        # First: under the new identity nothing would tell any more whose secret it is.
        set_aside_cloned(state_dir)
        identity = structs.replace(
            identity,
            id=secrets.token_hex(16),
            fingerprint=machine.fingerprint,
            previous=(kept.id, *kept.previous)[:MAX_PREVIOUS],
            cloned=True,
        )
    if identity != kept:
        save(state_dir, identity)
    return identity


def _is_of(kept: Identity, machine: Machine) -> bool:
    """Whether it was made on this machine, as far as can be seen."""
    if not kept.marks:  # saved by a version that kept none
        return kept.fingerprint == machine.fingerprint
    return not set(kept.marks).isdisjoint(machine.marks)


def _is_copy(kept: Identity, here: str) -> bool:
    """Whether the directory was copied, not moved: of two slaves of one id each frees what the other runs."""
    if not kept.path or kept.path == here:
        return False
    try:
        if os.path.samefile(kept.path, here):
            return False
        original = read_json(os.path.join(kept.path, IDENTITY_FILE))
    except (OSError, StateError):
        return False  # it is gone, or no business of ours
    return isinstance(original, dict) and original.get("id") == kept.id


def for_joining(state_dir: str, name: str) -> Identity:
    """The identity of a slave that may be running, which alone changes what stands; raises StateError."""
    stored = read_json(os.path.join(state_dir, IDENTITY_FILE))
    if stored is not None:
        try:
            kept = msgspec.convert(stored, Identity)
        except ValueError:
            pass  # told below
        else:
            if _is_of(kept, this_machine()):
                return kept
    return load_or_create(state_dir, name)


def save(state_dir: str, identity: Identity) -> None:
    """Bring an identity to the disk; raises StateError."""
    if failpoints.ACTIVE:
        failpoints.hit("identity-save")
    write_json_atomic(os.path.join(state_dir, IDENTITY_FILE), structs.asdict(identity))


def load_limits(state_dir: str) -> SlaveLimits:
    """The limits set on this slave, the defaults where none ever were; raises StateError."""
    path = os.path.join(state_dir, LIMITS_FILE)
    stored = read_json(path)
    if stored is None:
        return SlaveLimits()
    try:
        limits = msgspec.convert(stored, SlaveLimits)
        if limits.autoenable is not None:
            parse_time_of_day(limits.autoenable)
    except ValueError as error:
        raise StateError(f"{path} is damaged: {error}; restore it or move it away") from error
    return limits


def save_limits(state_dir: str, limits: SlaveLimits) -> None:
    """Bring the limits to the disk; raises StateError."""
    # All fields, also those at their default: a default may change with a version, a wish does not.
    write_json_atomic(os.path.join(state_dir, LIMITS_FILE), structs.asdict(limits))


def boot_id(root: str = "/") -> str:
    """The kernel's id of this boot; "" where there is none."""
    return _read(os.path.join(root, "proc/sys/kernel/random/boot_id"))


def this_machine(root: str = "/") -> Machine:
    """What a cloned disk does not take along: network hardware, and the machine's id.

    Only addresses that are burnt in count, of wired built-in cards: virtual interfaces, USB adapters
    and randomised Wi-Fi come and go on one and the same machine. There is a mark for each, which is of the
    machine's id, too; one for that alone where there is no card.
    """
    machine = _read(os.path.join(root, "etc/machine-id"))
    machine = machine if machine != "uninitialized" else ""
    cards = sorted(_hardware_addresses(os.path.join(root, "sys/class/net")))
    return Machine(_hash(machine, *cards), tuple([_hash("mark", machine, card) for card in cards or [""]]))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _hardware_addresses(directory: str) -> set[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return set()
    found = set()
    for name in names:
        interface = os.path.join(directory, name)
        device = os.path.join(interface, "device")
        wireless = any(os.path.exists(os.path.join(interface, part)) for part in ("wireless", "phy80211"))
        if not os.path.exists(device) or wireless or "/usb" in os.path.realpath(device):
            continue
        # A card in a bond wears the bond's address, its own is kept here.
        address = _read(os.path.join(interface, "bonding_slave", "perm_hwaddr"))
        if not address and _read(os.path.join(interface, "addr_assign_type")) == "0":
            address = _read(os.path.join(interface, "address"))
        if address.strip("0:"):
            found.add(address.lower())
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return ""
