"""What limits, shares and pools must be like, in sentences. Pure; as `checks`."""

from drqueue.proto.checks_text import POOL_NAME
from drqueue.proto.model import Limit, Share

#: Limits that count by themselves, up to the colon; `*` stands for each one that has none of its own.
BY_ITSELF = ("user", "project", "pool")
NAME_MOST = 127
#: More cores, frames or machines than any farm has.
AMOUNT_MOST = 1_000_000_000


def check_limit(limit: Limit) -> str | None:
    """One sentence on what is wrong with a limit, or None."""
    problem = check_limit_name(limit.name)
    if problem is not None:
        return problem
    return _amount_problem(f"limit {limit.name}", limit.amount, fractions=limit.scope == "cores")


def check_limit_name(name: str) -> str | None:
    """One sentence on why no limit is called that, or None."""
    kind, colon, rest = name.partition(":")
    if not colon:
        if POOL_NAME.fullmatch(name) and "@" not in name and name != "*":
            return None
        return f"no limit is called {_short(name)}: 1 to 63 characters, no blanks and none of , = : / @"
    if kind not in BY_ITSELF:
        return (
            f"no limit is called {_short(name)}: with a colon they are user:NAME, project:NAME and "
            "pool:NAME, or * for NAME"
        )
    return None if rest == "*" else _name_problem(kind, rest)


def check_share(share: Share) -> str | None:
    """One sentence on what is wrong with a share, or None."""
    of = f"the share of {share.of} {_short(share.name)}"
    problem = _name_problem(share.of, share.name) if share.name or share.of == "user" else None
    problem = problem or (check_pool(share.pool) if share.pool else None)
    problem = problem or _amount_problem(f"{of}: the minimum", share.minimum, fractions=True)
    if share.burst is not None:
        problem = problem or _amount_problem(f"{of}: the burst", share.burst, fractions=True)
    if problem is not None:
        return problem
    if share.minimum or share.burst is not None:
        what = "minimum" if share.minimum else "burst"
        if share.of == "user":
            return f"{of}: users have a weight only, a {what} is for projects"
        if not share.pool:
            return f"{of}: a {what} is of one pool: name it"
    if share.burst is not None and share.burst < share.minimum:
        return f"{of}: the burst ({share.burst:g}) is less than the minimum ({share.minimum:g})"
    return None


def check_pool(name: str) -> str | None:
    """One sentence on why no pool is called that, or None."""
    if POOL_NAME.fullmatch(name):
        return None
    return f"no pool is called {_short(name)}: 1 to 63 characters, no blanks and none of , = : /"


def _name_problem(kind: str, name: str) -> str | None:
    if kind == "pool":
        return check_pool(name)
    if not name.strip() or len(name) > NAME_MOST or not name.isprintable():
        return f"no {kind} is called {_short(name)}: 1 to {NAME_MOST} printable characters"
    return None


def _amount_problem(what: str, amount: float, *, fractions: bool) -> str | None:
    if amount > AMOUNT_MOST:
        return f"{what}: {amount:,} is too much, {AMOUNT_MOST:,} is the most"
    if not fractions and amount != int(amount):
        return f"{what}: {amount:g} is no whole number; only cores may be counted in fractions"
    if round(amount * 1000) != round(amount * 1000, 6):
        return f"{what}: {amount!r} is too fine, thousandths of a core are counted"
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
