"""What a farm can be asked about limits, shares and pools, and what admins can set of these.

Rules: as in `asking`.
"""

from drqueue.client.asking import PAGE, Asking, Did
from drqueue.client.specs import typed
from drqueue.client.streams import Pages
from drqueue.proto import sharing_messages
from drqueue.proto.model import LimitScope, PoolPolicy, Share, Sharer
from drqueue.proto.views import LimitView, PoolView, ShareView


class SharingCalls(Asking):
    """The calls of `AsyncClient` that are about limits, shares and pools."""

    async def limits(self) -> tuple[LimitView, ...]:
        """Every limit by name: those that were set, and those that waiting jobs name in vain."""

        async def fetch(cursor: int) -> tuple[tuple[LimitView, ...], int | None]:
            request = sharing_messages.ListLimits(rq=0, cursor=cursor, limit=PAGE)
            answer = await self._read(request, sharing_messages.Limits)
            return answer.limits, answer.next

        return await Pages(fetch).all()

    async def set_limit(self, name: str, amount: float | None = None, scope: LimitScope | None = None) -> Did:
        """Set a limit, or change it: what is left out stays. What runs goes on, also above it.

        `scope` says what counts: "attempts", their "cores", or "slaves" (a seat for each machine).
        """
        request = sharing_messages.PutLimit(rq=0, name=name, amount=amount, scope=scope)
        return await self._do(typed(request, "bad-limit"))

    async def drop_limit(self, name: str) -> Did:
        """Forget a limit. Frames of jobs that name it wait then until it is set again."""
        return await self._do(sharing_messages.DropLimit(rq=0, name=name))

    async def shares(self) -> tuple[ShareView, ...]:
        """Every project and user in each pool: those that were given a share, and those with frames."""

        async def fetch(cursor: int) -> tuple[tuple[ShareView, ...], int | None]:
            request = sharing_messages.ListShares(rq=0, cursor=cursor, limit=PAGE)
            answer = await self._read(request, sharing_messages.Shares)
            return answer.shares, answer.next

        return await Pages(fetch).all()

    async def set_share(self, share: Share) -> Did:
        """Give a user or a project its share of a pool, in place of any before."""
        return await self._do(sharing_messages.PutShare(rq=0, share=typed(share, "bad-share")))

    async def drop_share(self, of: Sharer, name: str, pool: str = "") -> Did:
        """Forget what the "user" or "project" of that name was given of a pool (or of all together)."""
        request = sharing_messages.DropShare(rq=0, of=of, name=name, pool=pool)
        return await self._do(typed(request, "bad-share"))

    async def pools(self) -> tuple[PoolView, ...]:
        """Every pool by name: those with slaves, jobs or a policy of their own."""

        async def fetch(cursor: int) -> tuple[tuple[PoolView, ...], int | None]:
            request = sharing_messages.ListPools(rq=0, cursor=cursor, limit=PAGE)
            answer = await self._read(request, sharing_messages.Pools)
            return answer.pools, answer.next

        return await Pages(fetch).all()

    async def set_pool(self, name: str, policy: PoolPolicy) -> Did:
        """Say who comes first among jobs of one priority in a pool: by shares ("fair") or by age ("fifo")."""
        request = sharing_messages.PutPool(rq=0, name=name, policy=policy)
        return await self._do(typed(request, "bad-pool"))
