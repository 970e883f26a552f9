"""Every message by its tag on the wire: what `codec` reads by."""

from drqueue.proto import link_messages, messages, sharing_messages
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import Request


def _all_messages() -> dict[str, type[Message]]:
    return {
        str(kind.__struct_config__.tag): kind
        for module in (link_messages, messages, sharing_messages)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind not in (Message, Request)
    }


#: Every message by its tag on the wire.
BY_TAG: dict[str, type[Message]] = _all_messages()
