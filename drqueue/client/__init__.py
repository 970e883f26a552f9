"""The client library: `connect` (trio) and `Client` (blocking), the jobs they take and the errors they raise.

    from drqueue.client import Client, JobSpec, LayerSpec

    with Client() as farm:
        job = farm.submit(JobSpec(name="hello", layers=(LayerSpec(argv=("echo", "{frame}"), frames="1-10"),)))
        farm.wait([job])

Names are loaded when first used: whoever wants a part of this pays for that part only.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient, connect
    from drqueue.client.errors import (
        AmbiguousSlave,
        BadRequest,
        BadState,
        DiskFull,
        DrQueueError,
        MasterUnreachable,
        NoSuchAccount,
        NoSuchFrame,
        NoSuchJob,
        NoSuchLayer,
        NoSuchLimit,
        NoSuchShare,
        NoSuchSlave,
        NotAllowed,
        NotFound,
        NotLinked,
        NotLoggedIn,
        Refused,
        VersionMismatch,
        WrongCertificate,
    )
    from drqueue.client.sync_client import Client
    from drqueue.proto.ids import AttemptKey
    from drqueue.proto.model import (
        Alternative,
        Depend,
        JobChange,
        JobSpec,
        LayerDepend,
        LayerSpec,
        Limit,
        LimitsChange,
        Needs,
        Offers,
        Share,
    )
    from drqueue.proto.views import (
        AccountView,
        AttemptView,
        AuditView,
        Finding,
        FrameView,
        JobView,
        LayerView,
        LimitView,
        PoolView,
        Reason,
        ShareView,
        SlaveView,
        Waits,
    )

_HOMES = {
    "asking": ("Did",),
    "async_client": ("AsyncClient", "connect"),
    "sync_client": ("Client",),
    "errors": (
        "AmbiguousSlave",
        "BadRequest",
        "BadState",
        "DiskFull",
        "DrQueueError",
        "MasterUnreachable",
        "NoSuchAccount",
        "NoSuchFrame",
        "NoSuchJob",
        "NoSuchLayer",
        "NoSuchLimit",
        "NoSuchShare",
        "NoSuchSlave",
        "NotAllowed",
        "NotFound",
        "NotLinked",
        "NotLoggedIn",
        "Refused",
        "VersionMismatch",
        "WrongCertificate",
    ),
    "proto.ids": ("AttemptKey",),
    "proto.model": (
        "Alternative",
        "Depend",
        "JobChange",
        "JobSpec",
        "LayerDepend",
        "LayerSpec",
        "Limit",
        "LimitsChange",
        "Needs",
        "Offers",
        "Share",
    ),
    "proto.views": (
        "AccountView",
        "AttemptView",
        "AuditView",
        "Finding",
        "FrameView",
        "JobView",
        "LayerView",
        "LimitView",
        "PoolView",
        "Reason",
        "ShareView",
        "SlaveView",
        "Waits",
    ),
}
_HOME_OF = {
    name: f"drqueue.{home}" if home.startswith("proto.") else f"drqueue.client.{home}"
    for home, names in _HOMES.items()
    for name in names
}

__all__ = [
    "AccountView",
    "Alternative",
    "AmbiguousSlave",
    "AsyncClient",
    "AttemptKey",
    "AttemptView",
    "AuditView",
    "BadRequest",
    "BadState",
    "Client",
    "Depend",
    "Did",
    "DiskFull",
    "DrQueueError",
    "Finding",
    "FrameView",
    "JobChange",
    "JobSpec",
    "JobView",
    "LayerDepend",
    "LayerSpec",
    "LayerView",
    "Limit",
    "LimitView",
    "LimitsChange",
    "MasterUnreachable",
    "Needs",
    "NoSuchAccount",
    "NoSuchFrame",
    "NoSuchJob",
    "NoSuchLayer",
    "NoSuchLimit",
    "NoSuchShare",
    "NoSuchSlave",
    "NotAllowed",
    "NotFound",
    "NotLinked",
    "NotLoggedIn",
    "Offers",
    "PoolView",
    "Reason",
    "Refused",
    "Share",
    "ShareView",
    "SlaveView",
    "VersionMismatch",
    "Waits",
    "WrongCertificate",
    "connect",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
