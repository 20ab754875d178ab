"""The handlers about acting: questions and rules, the audit, personas, feedback and builds."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ..conversations import AgentMode, Approval, Conversation, FeedbackResult, Receipt
from ..manager import AgentManager
from ..wire import methods as wire
from ..work import Persona
from .connection import Connection
from .handlers import DONE, fingerprint, method

if TYPE_CHECKING:
    from ..workflows.personas import PersonasService
    from ..workflows.service import BuildModeService, FeedbackService


class ActingFace:
    """Part of the native face. The services are loaded with the first request for one."""

    def __init__(self, manager: AgentManager, connection: Connection) -> None:
        self._manager = manager
        self._store = manager.store
        self._connection = connection

    @cached_property
    def _personas(self) -> PersonasService:
        from ..workflows.personas import PersonasService

        return PersonasService(self._store)

    @cached_property
    def _feedback(self) -> FeedbackService:
        from ..workflows.service import FeedbackService

        return FeedbackService(self._manager, self._personas)

    @cached_property
    def _builds(self) -> BuildModeService:
        from ..workflows.service import BuildModeService

        return BuildModeService(self._manager)

    # ---- questions and rules ----

    @method("approval/list")
    async def list_approvals(self, params: wire.ListApprovals) -> wire.ApprovalsOpen:
        return wire.ApprovalsOpen(
            approvals=tuple(await self._store.open_approvals(params.conversation_id))
        )

    @method("approval/respond")
    async def respond_approval(self, params: wire.RespondApproval) -> Approval:
        return await self._manager.approvals.respond(
            params.approval_id, params.decision, params.content_hash, always=params.always
        )

    @method("rule/list")
    async def list_rules(self, params: wire.Nothing) -> wire.Rules:
        return wire.Rules(rules=tuple(await self._store.rules()))

    @method("rule/remove")
    async def remove_rule(self, params: wire.OfRule) -> wire.Done:
        await self._store.remove_rule(params.rule)
        return DONE

    @method("audit/read")
    async def read_audit(self, params: wire.ReadAudit) -> wire.Audit:
        entries = await self._store.audit(params.conversation_id, params.limit)
        report = await self._store.check_audit() if params.verify else None
        return wire.Audit(entries=tuple(entries), report=report)

    # ---- personas ----

    @method("persona/list")
    async def list_personas(self, params: wire.Nothing) -> wire.Personas:
        return wire.Personas(personas=tuple(await self._personas.all()))

    @method("persona/save")
    async def save_persona(self, params: wire.SavePersona) -> Persona:
        return await self._personas.save(params.persona)

    @method("persona/delete")
    async def delete_persona(self, params: wire.OfPersona) -> wire.Done:
        await self._personas.delete(params.persona_id)
        return DONE

    # ---- feedback and builds ----

    @method("feedback/run")
    async def run_feedback(self, params: wire.RunFeedback) -> FeedbackResult:
        prompt = await self._feedback.prompt(
            params.context_files,
            diff=params.diff,
            focus=params.focus,
            persona_ids=params.persona_ids,
        )
        conversation_id = params.conversation_id or (await self._new_home(params)).conversation_id
        await self._connection.follow(conversation_id)
        turn = await self._manager.send_message(
            conversation_id,
            prompt,
            request_key=params.request_key,
            params_hash=fingerprint(params),
        )
        return await self._feedback.result(conversation_id, turn)

    async def _new_home(self, params: wire.RunFeedback) -> Conversation:
        """The same for the same key, so that a repeat finds what was begun."""
        new = self._manager.new_conversation(None, AgentMode.FEEDBACK)
        return await self._store.create(new, params.request_key, fingerprint(params))

    @method("build/start")
    async def start_build(self, params: wire.StartBuild) -> Receipt:
        conversation_id = params.conversation_id
        conversation = await self._store.get(conversation_id)
        if conversation.mode is not AgentMode.BUILD:
            await self._manager.set_mode(conversation_id, AgentMode.BUILD)
        await self._connection.follow(conversation_id)
        return await self._manager.enqueue(
            conversation_id,
            self._builds.prompt(params.task, params.context_files, params.verify),
            request_key=params.request_key,
            params_hash=fingerprint(params),
        )

    @method("build/approve")
    async def approve_build(self, params: wire.ApproveBuild) -> wire.Done:
        await self._builds.approve(params.conversation_id, params.decision)
        return DONE

    @method("build/cancel")
    async def cancel_build(self, params: wire.OfConversation) -> wire.Cancelled:
        return wire.Cancelled(cancelled=await self._manager.cancel_turn(params.conversation_id))
