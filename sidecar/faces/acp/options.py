"""What a client may choose: the mode and how hard to think for a session, the model for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from ...conversations import AgentMode, Thinking
from ...settings import Config, Settings
from ...wire import methods as wire
from ..rpc import RpcError

if TYPE_CHECKING:
    from ...manager import AgentManager

MODES = (
    ("chat", "Chat", "Answers questions about the workspace; changes nothing."),
    ("build", "Build", "Edits files and runs commands, each with your permission."),
    ("feedback", "Feedback", "Reviews the files that it is given; changes nothing."),
)
MODE, MODEL, THOUGHT = "mode", "model", "thought_level"
DEFAULT = "default"
LEVELS: tuple[Thinking, ...] = get_args(Thinking)


def modes(current: str) -> dict[str, Any]:
    return {
        "currentModeId": current,
        "availableModes": [
            {"id": id_, "name": name, "description": text} for id_, name, text in MODES
        ],
    }


def mode_named(name: str) -> AgentMode | None:
    return AgentMode(name) if name in {id_ for id_, *_ in MODES} else None


class Choices:
    """`of` one process: a model is a setting, and settings are all sessions'."""

    def __init__(self, manager: AgentManager) -> None:
        self._manager = manager
        self._thinking: dict[str, Thinking] = {}
        self._began_with = manager.config.settings

    def of(self, session_id: str, mode: str) -> list[dict[str, Any]]:
        """All that can be chosen, as it is now."""
        found = [_select(MODE, "Mode", mode, [(id_, name) for id_, name, _ in MODES])]
        settings = self._manager.config.settings
        if (field := model_field(settings)) is not None:
            names = [(name, name) for name in self._models(field)]
            found.append(_select(MODEL, "Model", getattr(settings, field), names))
            levels = [(DEFAULT, "As the model has it"), *((v, v.capitalize()) for v in LEVELS)]
            current = self._thinking.get(session_id, DEFAULT)
            found.append(_select(THOUGHT, "Thinking", current, levels))
        return found

    def thinking(self, session_id: str) -> Thinking | None:
        return self._thinking.get(session_id)

    async def choose(self, session_id: str, option: str, value: str | bool) -> None:
        """Raises `RpcError` -32602 for what is not to be chosen."""
        field = model_field(self._manager.config.settings)
        if option == THOUGHT and field and value in (DEFAULT, *LEVELS):
            self._thinking.pop(session_id, None)
            for level in LEVELS:
                if level == value:
                    self._thinking[session_id] = level
        elif option == MODEL and field and value in self._models(field):
            config = self._manager.config
            settings = msgspec.structs.replace(config.settings, **{field: value})
            await self._manager.update_settings(Config(settings=settings, secrets=config.secrets))
        else:
            raise RpcError(wire.INVALID_PARAMS, "There is no such option, or no such value of it.")

    def _models(self, field: str) -> tuple[str, ...]:
        """That which is set, that which was set at the start, and the one we would choose."""
        known = (self._manager.config.settings, self._began_with, Settings())
        return tuple(dict.fromkeys(getattr(settings, field) for settings in known))


def options_update(options: list[dict[str, Any]]) -> dict[str, Any]:
    return {"sessionUpdate": "config_option_update", "configOptions": options}


def model_field(settings: Settings) -> str | None:
    """What names the provider's model; None for a provider without one."""
    name = f"{settings.provider}_model"
    return name if name in Settings.__struct_fields__ else None


def _select(id_: str, name: str, current: str, values: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {
        "type": "select",
        "id": id_,
        "name": name,
        "category": id_,
        "currentValue": current,
        "options": [{"value": value, "name": shown} for value, shown in values],
    }
