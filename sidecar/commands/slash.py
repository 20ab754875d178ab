"""What can be typed in a chat beside messages: `/help` and the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..conversations import AgentMode, Conversation, Message, MessageStatus
from ..interfaces import SearchResult
from ..wire.methods import Exported, Status
from . import acting
from .config import UsageError
from .render import ago, bytes_of, counted, one_line, plain_snippet
from .session import short_ids

if TYPE_CHECKING:
    from .chat import Chat

MAX_LISTED = 20


def run_command(chat: Chat, line: str) -> None:
    """Run a line that begins with one of `COMMANDS`."""
    name, _, rest = line.partition(" ")
    try:
        COMMANDS[name].run(chat, rest.strip())
    except UsageError as error:
        chat.screen.error(error.message, error.hint)
    chat.screen.gap()


def show_help(chat: Chat, _: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        chat.screen.line(f"  {command.usage:<{width}}  {command.what}")
    chat.screen.line("  A line that ends in \\ goes on in the next one.", "dim")


def new(chat: Chat, _: str) -> None:
    chat.leave()
    chat.screen.line("A new conversation begins with your next message.", "dim")


def change_mode(chat: Chat, wanted: str) -> None:
    if not wanted:
        chat.screen.line(f"The mode is {chat.mode}. Others: {_others(chat.mode)}.")
        return
    if wanted not in list(AgentMode):
        raise UsageError(f"There is no mode '{wanted}'.", f"There are {', '.join(AgentMode)}.")
    if chat.conversation is not None:
        chat.session.call(
            "conversation/setMode",
            conversation_id=chat.conversation.conversation_id,
            mode=AgentMode(wanted),
        )
    chat.mode = AgentMode(wanted)
    chat.screen.line(f"The mode is {wanted}.", "dim")


def _others(mode: AgentMode) -> str:
    return ", ".join(other for other in AgentMode if other != mode)


def switch(chat: Chat, reference: str) -> None:
    if reference.isdigit() and chat.listed:
        number = int(reference)
        if not 1 <= number <= len(chat.listed):
            raise UsageError(f"The list has no number {number}.", "/switch shows it again.")
        reference = chat.listed[number - 1]
    if reference:
        chat.open(chat.session.find(reference))
        return
    found = list(chat.conversations_here())
    if not found:
        chat.screen.line("There is no conversation of this folder yet: just say something.")
        return
    chat.listed = [conversation.conversation_id for conversation in found]
    short = short_ids(found)
    for number, conversation in enumerate(found[:MAX_LISTED], 1):
        chat.screen.line(_row(number, conversation, short, chat.conversation))
    if len(found) > MAX_LISTED:
        chat.screen.line(f"  … and {len(found) - MAX_LISTED} older ones; /find finds them.")
    chat.screen.line("/switch NUMBER opens one.", "dim")


def _row(
    number: int, conversation: Conversation, short: Mapping[str, str], current: Conversation | None
) -> str:
    is_open = current is not None and current.conversation_id == conversation.conversation_id
    title = one_line(conversation.title or "Untitled", 44)
    count = counted(conversation.message_count, "message")
    return (
        f"{'*' if is_open else ' '}{number:>3}  {title:<44}  {count:>12}  "
        f"{ago(conversation.updated_at):<14} {short[conversation.conversation_id]}"
    )


def search(chat: Chat, words: str) -> None:
    if not words:
        raise UsageError("What to look for?", "/find WORDS")
    found: SearchResult = chat.session.call("conversation/search", query=words, limit=MAX_LISTED)
    if not found.hits:
        chat.screen.line("No message has all of these words.")
        return
    chat.listed = list(dict.fromkeys(hit.conversation_id for hit in found.hits))
    for hit in found.hits:
        number = chat.listed.index(hit.conversation_id) + 1
        title = one_line(hit.title or "Untitled", 30)
        chat.screen.line(f"{number:>4}  {title:<30}  {plain_snippet(hit.snippet)}")
    chat.screen.line("/switch NUMBER opens one.", "dim")


def export(chat: Chat, rest: str) -> None:
    conversation = opened(chat)
    words = rest.split(maxsplit=1)
    form = words.pop(0) if words and words[0] in ("json", "markdown") else "markdown"
    name = words[0] if words else f"{_slug(conversation)}.{'md' if form == 'markdown' else form}"
    path = (chat.folder / name).absolute()
    done: Exported = chat.session.call(
        "conversation/export",
        conversation_id=conversation.conversation_id,
        format=form,
        path=str(path),
    )
    chat.screen.line(f"Written to {path} ({bytes_of(done.size)}).")


def _slug(conversation: Conversation) -> str:
    words = re.sub(r"\W+", "-", (conversation.title or "").lower()).strip("-")
    return words[:40].rstrip("-") or "conversation"


def rename(chat: Chat, title: str) -> None:
    conversation = opened(chat)
    if not title:
        raise UsageError("What is its new title?", "/rename TITLE")
    chat.session.call(
        "conversation/rename", conversation_id=conversation.conversation_id, title=title
    )
    chat.screen.line(f"It is called {title} now.", "dim")


def delete(chat: Chat, rest: str) -> None:
    conversation = opened(chat)
    if rest != "yes":
        chat.screen.line("This cannot be undone. /delete yes removes this conversation for good.")
        return
    conversation_id = conversation.conversation_id
    chat.leave()
    chat.session.call("conversation/delete", conversation_id=conversation_id)
    chat.screen.line("Deleted. Your next message begins a new one.", "dim")


def status(chat: Chat, _: str) -> None:
    now: Status = chat.session.call("sidecar/status")
    show = chat.screen.line
    model = f" · {chat.options.model}" if chat.options.model else ""
    show(f"  answers    {now.provider.name}{model}{'' if now.provider.ready else ' (not ready)'}")
    for problem in now.provider.problems:
        chat.screen.error(problem.message, problem.hint)
    if chat.conversation is not None:
        show(f"  this one   {chat.conversation.conversation_id} · {chat.mode}")
    stored = counted(now.store.conversations, "conversation")
    messages = counted(now.store.messages, "message")
    show(f"  stored     {stored}, {messages}, {bytes_of(now.store.size + now.store.wal_size)}")
    show(f"  in         {now.store.path or 'memory'}")
    busy = sum(1 for agent in now.agents if agent.is_processing)
    show(f"  agents     {len(now.agents)} of {now.max_active_agents}, {busy} at work")
    for name, state in now.mcp_servers.items():
        show(f"  mcp        {name}: {state}")
    if now.store.degraded:
        chat.screen.error(now.store.degraded)


def queue(chat: Chat, _: str) -> None:
    found = chat.session.call("message/queue", conversation_id=opened(chat).conversation_id).entries
    if not found:
        chat.screen.line("Nothing is waiting.")
    for entry in found:
        note = f" ({entry.reason})" if entry.reason else ""
        chat.screen.line(f"  {entry.state:<11}{note} {one_line(entry.prompt.input, 60)}")


def retry(chat: Chat, _: str) -> None:
    """Ask the last prompt that did not come to a good end once more."""
    opened(chat)
    message_id = last_unanswered(chat.messages)
    if message_id is None:
        raise UsageError("There is nothing to retry: the last prompt was answered.")
    chat.retry(message_id)


def quit_(chat: Chat, _: str) -> None:
    chat.is_over = True


def opened(chat: Chat) -> Conversation:
    if chat.conversation is None:
        raise UsageError("No conversation is open.", "Say something, or /switch to one.")
    return chat.conversation


def last_unanswered(messages: tuple[Message, ...]) -> str | None:
    """The prompt whose answer, the last one, is not a whole one."""
    if not messages or messages[-1].status in (MessageStatus.COMPLETE, MessageStatus.STREAMING):
        return None
    turn = messages[-1].turn_id
    return next((m.message_id for m in messages if m.role == "user" and m.turn_id == turn), None)


class Command(NamedTuple):
    run: Callable[[Chat, str], None]
    usage: str
    what: str


COMMANDS: Mapping[str, Command] = {
    "/help": Command(show_help, "/help", "this list"),
    "/new": Command(new, "/new", "begin a new conversation"),
    "/switch": Command(switch, "/switch [NUMBER|ID]", "list this folder's conversations, open one"),
    "/find": Command(search, "/find WORDS", "find messages in all conversations"),
    "/mode": Command(
        change_mode, "/mode [chat|build|feedback]", "show or change what the agent may do"
    ),
    "/feedback": Command(
        acting.feedback, "/feedback FILE … [@PERSONA …]", "have files reviewed; one report"
    ),
    "/build": Command(acting.build, "/build TASK", "plan it, ask you, do it, verify it"),
    "/undo": Command(acting.undo, "/undo", "take back the last prompt and what it changed"),
    "/personas": Command(acting.personas, "/personas", "who can review, or be talked to"),
    "/persona": Command(acting.persona, "/persona [ID]", "talk to one of them"),
    "/rules": Command(acting.rules, "/rules [remove N]", "what is allowed for good"),
    "/audit": Command(acting.audit, "/audit", "what agents did here, and were kept from doing"),
    "/retry": Command(retry, "/retry", "ask again what was stopped or failed"),
    "/rename": Command(rename, "/rename TITLE", "call this conversation something else"),
    "/export": Command(
        export, "/export [json|markdown] [FILE]", "write this conversation to a file"
    ),
    "/delete": Command(delete, "/delete", "remove this conversation for good"),
    "/queue": Command(queue, "/queue", "what is waiting in this conversation"),
    "/status": Command(status, "/status", "provider, store and agents"),
    "/quit": Command(quit_, "/quit", "leave; everything is kept"),
}
