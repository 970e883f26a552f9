"""From a request's 1 or 0 to what the methods of the binding's classes do: go on, or raise OSError."""

from drqueue.client.binding import session


def must(result: int) -> int:
    """`result` where a request was done; else OSError with the reason that the session has noted."""
    if not result:
        raise session.RequestError(session.last_error())
    return result
