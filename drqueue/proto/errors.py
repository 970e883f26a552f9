"""Protocol errors by whose fault they are: the reaction differs, mend ourselves or drop them."""


class ProtocolError(Exception):
    """Base of the two below; never raised itself."""

    def __init__(self, text: str) -> None:
        if type(self) is ProtocolError:
            raise TypeError("raise LocalProtocolError or RemoteProtocolError: say whose fault it is")
        super().__init__(text)


class LocalProtocolError(ProtocolError):
    """This side tried to say something that the protocol forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what nobody may send: close that link, log once, go on."""
