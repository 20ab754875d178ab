"""A conversation as a file: JSON that can be imported again, Markdown that can be read."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from .conversations import (
    ErrorPart,
    FilePart,
    Message,
    MessageStatus,
    Part,
    SteeringPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from .errors import LoadFailed
from .interfaces import ConversationExport
from .work import FeedbackPart


def as_json(export: ConversationExport) -> str:
    return msgspec.json.format(msgspec.json.encode(export), indent=2).decode()


def from_json(data: str | bytes) -> ConversationExport:
    """Raises `LoadFailed` for anything but what `as_json` gives."""
    try:
        return msgspec.json.decode(data, type=ConversationExport)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise LoadFailed(
            f"This is not an exported conversation: {error}.",
            hint="Import a file that conversation/export wrote with format json.",
        ) from error


def as_markdown(export: ConversationExport) -> str:
    conversation = export.conversation
    lines = [f"# {conversation.title or 'Conversation'}", ""]
    lines += [
        f"- Started: {_time(conversation.created_at)}",
        f"- Mode: {conversation.mode}",
        f"- Messages: {len(export.messages)}",
        f"- Exported: {_time(export.exported_at)}"
        + (f" ({export.reason})" if export.reason else ""),
        "",
    ]
    for message in export.messages:
        lines += _message(message)
    for entry in export.queue:
        lines += [f"## Waiting ({entry.state})", "", entry.prompt.input, ""]
    return "\n".join(lines)


def write(data: str, path: str) -> Path:
    """Write an export to a new file. Raises `LoadFailed` for a path that cannot be used."""
    target = Path(path)
    if not target.is_absolute():
        raise LoadFailed("The path of an export must be absolute.", hint="Give a full path.")
    try:
        # Exports hold what people said to an agent: for their owner's eyes, like the store.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LoadFailed("That file exists already.", hint="Choose another name.") from None
    except OSError as error:
        raise LoadFailed(
            f"That file cannot be written: {error.strerror}.", hint="Choose another folder."
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(data)
    return target


def read(path: str) -> bytes:
    """Raises `LoadFailed` for a file that cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise LoadFailed(
            f"That file cannot be read: {error.strerror}.", hint="Check the path."
        ) from error


def _message(message: Message) -> list[str]:
    who = "You" if message.role == "user" else "Agent"
    note = "" if message.status is MessageStatus.COMPLETE else f" ({message.status})"
    lines = [f"## {who}, {_time(message.created_at)}{note}", ""]
    for part in message.parts:
        lines += [*_part(part), ""]
    return lines


def _part(part: Part) -> list[str]:
    match part:
        case TextPart(text=text):
            return [text]
        case ThinkingPart(text=text):
            return ["<details><summary>Thinking</summary>", "", text, "", "</details>"]
        case SteeringPart(text=text, by="workflow"):
            return [f"> {text.splitlines()[0]}"]
        case SteeringPart(text=text):
            return [f"> **You, meanwhile:** {text}"]
        case ToolCallPart(name=name, arguments=arguments):
            return [f"**{name}**", *_fenced(msgspec.json.encode(arguments).decode(), "json")]
        case ToolResultPart(content=content, is_error=is_error):
            return _fenced(content, "error" if is_error else "")
        case FeedbackPart():
            return []  # the report says it in words
        case FilePart(file=file):
            return [f"Attached: `{file.uri}`"]
        case ErrorPart(message=text, hint=hint):
            return [f"> **Failed:** {text} {hint or ''}".rstrip()]


def _fenced(text: str, language: str) -> list[str]:
    """A code block that its own content cannot end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [fence + language, text, fence]


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
