"""DrQueue's binding under the name that it had from 2007 on; the same as what `import drqueue` offers."""
# ruff: noqa: F403  (what the binding offers is the point)

from typing import TYPE_CHECKING

from drqueue.client.binding import *
from drqueue.client.binding import NAMES

# As in the binding itself.
if not TYPE_CHECKING:
    __all__ = list(NAMES)
