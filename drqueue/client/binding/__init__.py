"""DrQueue's Python binding: its constants, classes and functions, under the names that they always had.

`import drqueue` offers all of them, and so does `drqueue.base.libdrqueue`; `drqueue.client` is the newer
library. `NAMES` are all that the binding offers. Where a name is that of a file here, too (`koji`), it is the
binding's.
"""
# ruff: noqa: F403  (what each of them offers is the point)

from typing import TYPE_CHECKING, Final

from drqueue.client.binding import constants as _constants
from drqueue.client.binding import helpers as _helpers
from drqueue.client.binding import koji as _koji
from drqueue.client.binding import lists as _lists
from drqueue.client.binding import requests as _requests
from drqueue.client.binding import session as _session
from drqueue.client.binding import slave_requests as _slave_requests
from drqueue.client.binding import structures as _structures
from drqueue.client.binding.constants import *
from drqueue.client.binding.helpers import *
from drqueue.client.binding.koji import *
from drqueue.client.binding.lists import *
from drqueue.client.binding.requests import *
from drqueue.client.binding.session import *
from drqueue.client.binding.slave_requests import *
from drqueue.client.binding.structures import *

NAMES: Final = tuple(
    sorted(
        {
            *[name for name in vars(_constants) if name.isupper() and name[0] != "_"],
            _constants.error_text.__name__,
            *[name for name in vars(_koji) if name.startswith("koji_")],
            *_helpers.__all__,
            *_lists.__all__,
            *_requests.__all__,
            *_session.__all__,
            *_slave_requests.__all__,
            *_structures.__all__,
        }
    )
)

# A type checker cannot follow this, and needs not: it sees what is imported above.
if not TYPE_CHECKING:
    __all__ = list(NAMES)
