"""What can be typed in a chat to have agents act: `/feedback`, `/build`, `/undo` and the others."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from ..conversations import ContextFile
from ..wire.methods import Audit, Personas, RewindResult, Rules
from ..work import UndoneFile, UndoState
from .approving import style_of
from .config import UsageError
from .render import counted

if TYPE_CHECKING:
    from .chat import Chat


def feedback(chat: Chat, rest: str) -> None:
    """Have files reviewed; `@name` chooses a persona."""
    words = _words(rest)
    personas = tuple(word[1:] for word in words if word.startswith("@"))
    files = [word for word in words if not word.startswith("@")]
    if not files:
        raise UsageError("Which files?", "/feedback FILE … [@PERSONA …]; /personas lists them")
    chat.run_turn(
        "feedback/run",
        context_files=tuple(ContextFile(uri=_uri(chat, name)) for name in files),
        persona_ids=personas,
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"That cannot be read: {error}.") from error


def _uri(chat: Chat, name: str) -> str:
    path = (chat.folder / name).absolute()
    if not path.is_file():
        raise UsageError(f"There is no file {name}.")
    return path.as_uri()


def build(chat: Chat, task: str) -> None:
    if not task:
        raise UsageError("What is to be built?", "/build TASK")
    conversation = chat.conversation or chat.begin()
    chat.session.call("build/start", conversation_id=conversation.conversation_id, task=task)
    chat.watch_queue()


def personas(chat: Chat, _: str) -> None:
    found: Personas = chat.session.call("persona/list")
    width = max(len(persona.persona_id) for persona in found.personas)
    for persona in found.personas:
        chat.screen.line(f"  {persona.persona_id:<{width}}  {persona.name} · {persona.role}")
    chat.screen.line("/persona ID talks to one, /persona ends that.", "dim")


def persona(chat: Chat, wanted: str) -> None:
    found: Personas = chat.session.call("persona/list")
    if wanted and wanted not in {one.persona_id for one in found.personas}:
        raise UsageError(f"There is no persona {wanted}.", "/personas lists them.")
    chat.persona_id = wanted or None
    who = next((p.name for p in found.personas if p.persona_id == wanted), "the agent")
    chat.screen.line(f"You talk to {who}.", "dim")


def rules(chat: Chat, rest: str) -> None:
    """What is always allowed; `remove N` has it asked again."""
    found: Rules = chat.session.call("rule/list")
    verb, _, number = rest.partition(" ")
    if verb == "remove":
        if not number.isdigit() or not 1 <= int(number) <= len(found.rules):
            raise UsageError("Which one?", "/rules remove NUMBER")
        chat.session.call("rule/remove", rule=found.rules[int(number) - 1])
        chat.screen.line("It is asked again from now on.", "dim")
        return
    if not found.rules:
        chat.screen.line("Nothing is allowed for good.")
    for place, rule in enumerate(found.rules, 1):
        how = "in the sandbox" if rule.is_confined else "not confined"
        network = ", with network" if rule.network else ""
        chat.screen.line(f"{place:>4}  {shlex.join(rule.argv)}  ({rule.root}, {how}{network})")


def audit(chat: Chat, _: str) -> None:
    """What agents did here lately, and whether the whole record is whole."""
    from .audit import line_of

    conversation = chat.conversation.conversation_id if chat.conversation else None
    found: Audit = chat.session.call("audit/read", conversation_id=conversation, limit=20)
    for entry in found.entries:
        chat.screen.line(f"  {line_of(entry)}")
    if found.report is not None and found.report.problem:
        chat.screen.error(found.report.problem)
    else:
        chat.screen.line("The whole record is whole: none changed, none missing.", "dim")


def undo(chat: Chat, _: str) -> None:
    """Take back the last prompt, its answer, and what that changed in files."""
    if chat.conversation is None:
        raise UsageError("No conversation is open.", "/switch opens one.")
    at = next((n for n, m in reversed(list(enumerate(chat.messages))) if m.role == "user"), None)
    if at is None:
        raise UsageError("There is nothing to take back.")
    wanted: dict[str, Any] = {
        "conversation_id": chat.conversation.conversation_id,
        "to_message_id": chat.messages[at - 1].message_id if at else None,
        "files": True,
    }
    seen: RewindResult = chat.session.call("conversation/rewind", preview=True, **wanted)
    chat.screen.line(f"Takes back {counted(len(seen.hidden), 'message')}:")
    chat.screen.line(f"  {chat.messages[at].text.strip()[:70]}", "dim")
    for file in seen.files:
        _show(chat, file)
    hindered = any(f.state in (UndoState.CONFLICT, UndoState.FAILED) for f in seen.files)
    if not _confirmed(chat, hindered):
        chat.screen.line("Nothing was taken back.", "dim")
        return
    done: RewindResult = chat.session.call("conversation/rewind", force=hindered, **wanted)
    back = sum(file.state is UndoState.DONE for file in done.files)
    chat.screen.line(f"Taken back, {counted(back, 'file')} put back.", "dim")
    chat.reopen()


def _show(chat: Chat, file: UndoneFile) -> None:
    notes = {
        UndoState.CONFLICT: "changed since by somebody else",
        UndoState.SAME: "is as it was",
        UndoState.FAILED: file.problem or "cannot be put back",
    }
    note = f" ({notes[file.state]})" if file.state in notes else ""
    chat.screen.line(f"  {file.action} {file.path}{note}", "yellow" if note else "")
    for line in file.diff.rstrip("\n").split("\n")[2:] if file.diff else ():
        chat.screen.line(f"    {line}", style_of(line))


def _confirmed(chat: Chat, hindered: bool) -> bool:
    if not sys.stdin.isatty():
        return not hindered  # a script means it, but knows nothing of what somebody else did
    question = "Take back all the same?" if hindered else "Take it back?"
    return input(chat.screen.prompt(f"{question} y/n")).strip().lower() in ("y", "yes")
