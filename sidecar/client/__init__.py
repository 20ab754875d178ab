"""The headless client: start a sidecar, talk to it, follow conversations."""

from .errors import ProtocolError, SidecarDied
from .link import Call
from .live import EventStream, LiveConversation
from .sidecar import Sidecar
from .view import Applied, ConversationView, UnknownEvent

__all__ = [
    "Applied",
    "Call",
    "ConversationView",
    "EventStream",
    "LiveConversation",
    "ProtocolError",
    "Sidecar",
    "SidecarDied",
    "UnknownEvent",
]
