"""The handlers about agents and what they can do."""

from __future__ import annotations

from ..conversations import Receipt
from ..lifecycle import AgentInfo
from ..manager import AgentManager
from ..wire import methods as wire
from .connection import Connection
from .handlers import DONE, fingerprint, method


class AgentsFace:
    """Part of the native face."""

    def __init__(self, manager: AgentManager, connection: Connection) -> None:
        self._manager = manager
        self._connection = connection

    @method("agent/getOrCreate")
    async def get_or_create(self, params: wire.GetOrCreate) -> AgentInfo:
        info = await self._manager.get_or_create_agent(
            params.conversation_id,
            params.mode,
            create=params.create,
            request_key=params.request_key,
        )
        await self._connection.follow(params.conversation_id)
        return info

    @method("agent/dispose")
    async def dispose(self, params: wire.OfConversation) -> wire.Done:
        await self._manager.dispose_agent(params.conversation_id)
        return DONE

    @method("agent/disposeAll")
    async def dispose_all(self, params: wire.Nothing) -> wire.DisposedAll:
        disposed, failed = await self._manager.dispose_all_agents()
        return wire.DisposedAll(disposed=disposed, failed=failed)

    @method("agent/reinitialize")
    async def reinitialize(self, params: wire.Nothing) -> wire.Reinitialized:
        done, deferred = await self._manager.reinitialize_agents()
        return wire.Reinitialized(reinitialized=done, deferred=deferred)

    @method("agent/abortAndRestart")
    async def abort_and_restart(self, params: wire.OfConversation) -> AgentInfo:
        return await self._manager.abort_and_restart_agent(params.conversation_id)

    @method("agent/cancel")
    async def cancel(self, params: wire.OfConversation) -> wire.Cancelled:
        return wire.Cancelled(cancelled=await self._manager.cancel_turn(params.conversation_id))

    @method("agent/count")
    async def count(self, params: wire.Nothing) -> wire.Count:
        return wire.Count(count=self._manager.active_agent_count())

    @method("agent/has")
    async def has(self, params: wire.OfConversation) -> wire.Known:
        return wire.Known(exists=self._manager.has_agent(params.conversation_id))

    @method("agent/list")
    async def list_agents(self, params: wire.Nothing) -> wire.AgentList:
        return wire.AgentList(agents=await self._manager.list_agents())

    @method("agent/validateCommunication")
    async def validate_communication(self, params: wire.Between) -> wire.Allowed:
        allowed, reason = await self._manager.communication.validate(
            params.from_conversation_id, params.to_conversation_id, params.capability
        )
        return wire.Allowed(allowed=allowed, reason=reason)

    @method("agent/sendTo")
    async def send_to(self, params: wire.SendTo) -> Receipt:
        return await self._manager.send_to(
            params.from_conversation_id,
            params.to_conversation_id,
            params.input,
            capability=params.capability,
            request_key=params.request_key,
            params_hash=fingerprint(params),
        )

    @method("agent/grant")
    async def grant(self, params: wire.Between) -> wire.Done:
        await self._manager.communication.grant(
            params.from_conversation_id, params.to_conversation_id, params.capability
        )
        return DONE

    @method("agent/revoke")
    async def revoke(self, params: wire.Between) -> wire.Done:
        await self._manager.communication.revoke(
            params.from_conversation_id, params.to_conversation_id, params.capability
        )
        return DONE

    # ---- capabilities ----

    @method("capability/register")
    async def register_capability(self, params: wire.RegisterCapability) -> wire.Done:
        self._manager.register_capability(params.conversation_id, params.capability)
        return DONE

    @method("capability/unregister")
    async def unregister_capability(self, params: wire.NameOfCapability) -> wire.Done:
        self._manager.capabilities.unregister(params.conversation_id, params.name)
        return DONE

    @method("capability/list")
    async def list_capabilities(self, params: wire.OfConversation) -> wire.Capabilities:
        return wire.Capabilities(capabilities=self._manager.capabilities.of(params.conversation_id))

    @method("capability/query")
    async def query_capability(self, params: wire.NameOfCapability) -> wire.HasCapability:
        return wire.HasCapability(
            available=self._manager.capabilities.has(params.conversation_id, params.name)
        )

    @method("capability/find")
    async def find_capability(self, params: wire.FindCapability) -> wire.FoundCapability:
        return wire.FoundCapability(conversation_ids=self._manager.capabilities.find(params.name))
