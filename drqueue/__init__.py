"""DrQueue: a render farm of one master, many slaves, and clients that talk to both.

Programs written for DrQueue's Python binding find all of its names here, and in `drqueue.sg` its script
generators. They are loaded when first used: nothing of the farm itself pays for them.
"""

from typing import TYPE_CHECKING

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from drqueue import sg as sg
    from drqueue.client.binding import *  # noqa: F403

_BINDING = "drqueue.client.binding"


def __getattr__(name: str) -> object:
    from importlib import import_module
    from importlib.util import find_spec

    if name == "__all__":
        return list(import_module(_BINDING).NAMES)
    if name == "sg":
        return import_module("drqueue.sg")
    # Asked for before each import of a part of this package, which must not load the binding.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:
        binding = import_module(_BINDING)
        if name in binding.NAMES:
            # Kept: a program may say `drqueue.FS_FINISHED` for each of a million frames.
            value = globals()[name] = getattr(binding, name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from importlib import import_module

    return sorted({*globals(), *import_module(_BINDING).NAMES, "sg"})
