"""Who can be talked to and reviewed by: three that come along, and those the user saved."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import InvalidState, NotFound
from ..interfaces import ConversationStore
from ..work import Persona

BUILT_IN: tuple[Persona, ...] = (
    Persona(
        persona_id="correctness",
        name="Correctness",
        role="Looks for what breaks",
        instruction="You review for correctness. Look for wrong results, unhandled cases, races,"
        " errors that are swallowed, and tests that cannot fail. Say only what you can show.",
        is_built_in=True,
    ),
    Persona(
        persona_id="security",
        name="Security",
        role="Looks for what can be abused",
        instruction="You review for security. Follow what comes from outside to where it has an"
        " effect: files, commands, queries, markup, secrets. Name the attack and its way in.",
        is_built_in=True,
    ),
    Persona(
        persona_id="newcomer",
        name="Newcomer",
        role="Has to change this next month",
        instruction="You have just joined and will have to change this code. Look for names that"
        " mislead, concepts without an explanation, needless parts, and missing documentation.",
        is_built_in=True,
    ),
)


class PersonasService:
    """`persona/list`, `save` and `delete`, and what a persona's id stands for."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store

    async def all(self) -> Sequence[Persona]:
        """Those that come along first. One that was saved under the id of such a one replaces
        it."""
        own = {persona.persona_id: persona for persona in await self._store.personas()}
        built_in = [own.pop(persona.persona_id, persona) for persona in BUILT_IN]
        return [*built_in, *own.values()]

    async def find(self, persona_id: str) -> Persona:
        for persona in await self.all():
            if persona.persona_id == persona_id:
                return persona
        raise NotFound(
            f"There is no persona '{persona_id}'.", hint="persona/list has those that there are."
        )

    async def chosen(self, ids: Sequence[str]) -> tuple[Persona, ...]:
        """The named ones, each once; without names, those that come along."""
        found = [await self.find(id_) for id_ in dict.fromkeys(ids)]
        return tuple(found or (await self.all())[: len(BUILT_IN)])

    async def save(self, persona: Persona) -> Persona:
        own = msgspec.structs.replace(persona, is_built_in=False)
        await self._store.save_persona(own)
        return own

    async def delete(self, persona_id: str) -> None:
        """One that came along is as it was again; without changes it cannot be deleted."""
        if await self._store.delete_persona(persona_id):
            return
        if any(persona.persona_id == persona_id for persona in BUILT_IN):
            raise InvalidState(
                f"'{persona_id}' comes with the product.", hint="Save another under its id."
            )
        raise NotFound(f"There is no persona '{persona_id}'.")
