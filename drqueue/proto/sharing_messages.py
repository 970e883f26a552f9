"""What clients ask and are answered about limits, shares and pools; as in `messages`."""

from typing import Annotated

from msgspec import Meta

from drqueue.proto.ids import Natural
from drqueue.proto.messages import Request
from drqueue.proto.model import Amount, LimitScope, PoolPolicy, Share, Sharer
from drqueue.proto.views import LimitView, PoolView, ShareView

# --- client to master -------------------------------------------------------------------------------


class ListLimits(Request, frozen=True, kw_only=True):
    """A page of limits by name, from `cursor`: those that were set, and those that waiting jobs name in
    vain."""

    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class PutLimit(Request, frozen=True, kw_only=True):
    """Set a limit, or change it: what is left out stays (a new one counts attempts). What runs goes on."""

    name: str
    amount: Amount | None = None
    scope: LimitScope | None = None


class DropLimit(Request, frozen=True, kw_only=True):
    """Forget a limit."""

    name: str


class ListShares(Request, frozen=True, kw_only=True):
    """A page of users and projects, from `cursor`: those with a share, and those with frames."""

    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class PutShare(Request, frozen=True, kw_only=True):
    """Give a user or a project its share of a pool, in place of any before."""

    share: Share


class DropShare(Request, frozen=True, kw_only=True):
    """Forget what a user or a project was given of a pool."""

    of: Sharer
    name: str
    pool: str = ""


class ListPools(Request, frozen=True, kw_only=True):
    """A page of pools by name, from `cursor`: those with slaves, jobs or a policy of their own."""

    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class PutPool(Request, frozen=True, kw_only=True):
    """Say who comes first among jobs of one priority in a pool."""

    name: str
    policy: PoolPolicy


# --- answers ----------------------------------------------------------------------------------------


class Limits(Request, frozen=True, kw_only=True):
    """A page of limits; `next` is the cursor of the next one, None at the end."""

    limits: tuple[LimitView, ...]
    next: Natural | None = None


class Shares(Request, frozen=True, kw_only=True):
    """A page of users and projects; `next` is the cursor of the next one, None at the end."""

    shares: tuple[ShareView, ...]
    next: Natural | None = None


class Pools(Request, frozen=True, kw_only=True):
    """A page of pools; `next` is the cursor of the next one, None at the end."""

    pools: tuple[PoolView, ...]
    next: Natural | None = None
