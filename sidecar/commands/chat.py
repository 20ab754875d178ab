"""`agent-sidecar chat`: a conversation in the terminal, about the folder it is started in."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from .. import __version__
from ..client import SidecarDied
from ..conversations import (
    AgentMode,
    Conversation,
    Message,
    MessageStatus,
    QueueState,
    Receipt,
)
from ..errors import AgentError
from ..events import (
    Missing,
    ModeChanged,
    Progress,
    TitleChanged,
    ToolFinished,
    TurnEnded,
    TurnQueued,
)
from ..ids import new_id
from ..wire.methods import Status
from .approving import Questions, ask
from .config import Options, add_options, options_from
from .prompt import counted_interrupts, history_file, line_editing, read_message
from .render import ENDINGS, STATUS_NOTES, activity_of, ago, counted, error_lines
from .render import Progress as Shown
from .screen import Screen, make_screen
from .session import TICK, Following, Session, open_session

SUMMARY = "talk in the terminal (what you get without a command)"

OFFLINE_REQUESTS = ("/read", "/search", "/edit", "/run", "/write")
SHOWN_AT_START = 4
"""Messages of a reopened conversation that are shown again."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--conversation", metavar="ID", help="open this one")
    parser.add_argument("--new", action="store_true", help="begin a new one")
    parser.add_argument("--mode", choices=[str(mode) for mode in AgentMode], default="chat")
    add_options(parser)


def run(args: Namespace) -> int:
    options = options_from(args)
    screen = make_screen()
    folder = Path.cwd()
    with open_session(options, workspace=[folder]) as session, ExitStack() as stack:
        chat = Chat(session, screen, options, folder, AgentMode(args.mode))
        stack.callback(chat.close)
        if sys.stdin.isatty():
            from .slash import COMMANDS

            stack.enter_context(line_editing(history_file(), COMMANDS))
        chat.greet()
        if args.conversation:
            chat.open(session.find(args.conversation))
        elif not args.new and sys.stdin.isatty():
            chat.open_last()
        return chat.talk()


class Chat:
    """What is open, what of it has been shown, and the loop that reads and answers."""

    def __init__(
        self,
        session: Session,
        screen: Screen,
        options: Options,
        folder: Path,
        mode: AgentMode = AgentMode.CHAT,
    ) -> None:
        self.session = session
        self.screen = screen
        self.options = options
        self.folder = folder
        self.mode = mode
        self.conversation: Conversation | None = None
        """None until the first message of a new one: who says nothing leaves nothing behind."""
        self.listed: list[str] = []
        """What the numbers of the last list stand for."""
        self.is_over = False
        self._following: Following | None = None
        self._open = ExitStack()
        self._shown: dict[str, Shown] = {}
        self._own_keys: set[str] = set()
        self._ends: list[TurnEnded] = []
        self._typed: set[str] = set()
        """Messages that stand on the screen because they were typed there."""
        self._questions: Questions | None = None
        self._step = ""
        """How far a turn of many steps is."""
        self.persona_id: str | None = None

    # ---- the loop ----

    def talk(self) -> int:
        """Until the user leaves; returns the exit code."""
        was_interrupted = False
        while not self.is_over:
            try:
                self._safely(self.show_news)
                text = read_message(self._prompt(), self.screen.prompt("…"))
            except EOFError:
                break
            except KeyboardInterrupt:
                if was_interrupted:
                    break
                was_interrupted = True
                self.screen.line("\n(Ctrl-C again, Ctrl-D or /quit leaves.)", "dim")
                continue
            was_interrupted = False
            self._safely(partial(self.take, text.strip()))
        if sys.stdin.isatty():
            self.screen.line("Bye. The conversation is kept.", "dim")
        return 0

    def _prompt(self) -> str:
        return self.screen.prompt("" if self.mode is AgentMode.CHAT else self.mode)

    def take(self, text: str) -> None:
        from .slash import COMMANDS, run_command

        if text.startswith("/") and text.split()[0] in COMMANDS:
            run_command(self, text)
        elif text.startswith("/") and text.split()[0][1:].isalpha() and not self._is_request(text):
            self.screen.error(f"There is no command {text.split()[0]}.", "/help lists them.")
        elif text:
            self.ask(text)

    def _is_request(self, text: str) -> bool:
        """Whether the offline provider is asked to use a tool, as in `/read README.md`."""
        return self.options.provider == "offline" and text.split()[0] in OFFLINE_REQUESTS

    def _safely(self, action: Callable[[], None]) -> None:
        """Whatever goes wrong is said, and the chat goes on."""
        try:
            action()
        except SidecarDied as error:
            self.screen.error(error.message, error.hint)
            self.session.reconnect()
            self.screen.line("It was started again; everything that was accepted is there.", "dim")
            if self.conversation is not None:
                self.watch_queue()
        except AgentError as error:
            self.screen.error(*error_lines(error))
            self.screen.gap()
        except KeyboardInterrupt:
            self.screen.line("Stopped.", "dim")

    def show_news(self) -> None:
        """What happened while nobody looked: other windows, notices."""
        for notice in self.session.notices():
            self.screen.line(f"! {notice}", "yellow")
        if self._following is not None:
            while self._changed(0):
                pass
            self._show_messages()
            self._say_ends()

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is known of the open conversation: its newest page and what came since."""
        return self._following.messages if self._following else ()

    # ---- turns ----

    def ask(self, text: str) -> None:
        self.run_turn("message/send", input=text, persona_id=self.persona_id)

    def run_turn(self, method: str, **fields: Any) -> None:
        """Call what is answered when its turn has ended, and show that turn."""
        conversation = self.conversation or self.begin()
        key = new_id()
        self._own_keys.add(key)
        call = self.session.request(
            method, conversation_id=conversation.conversation_id, request_key=key, **fields
        )
        self._watch(lambda: call.done, lambda: self.session.cancel(call))
        if not self._say_ends():
            self.session.result(call)  # raises why there was no turn

    def retry(self, message_id: str) -> None:
        receipt: Receipt = self.session.call("message/retry", message_id=message_id)
        self._typed.add(receipt.message_id)
        self.watch_queue()

    def watch_queue(self) -> None:
        """Show what runs in this conversation until nothing does."""
        self._watch(lambda: not self.is_busy(), self._cancel_turn)
        self._say_ends()

    def is_busy(self) -> bool:
        assert self.conversation is not None
        queue = self.session.call(
            "message/queue", conversation_id=self.conversation.conversation_id
        )
        waits = (QueueState.QUEUED, QueueState.RUNNING)
        return any(entry.state in waits and entry.reason is None for entry in queue.entries)

    def _watch(self, is_over: Callable[[], bool], stop: Callable[[], None]) -> None:
        """Draw what comes until it is over, and ask what has to be asked meanwhile."""
        while not self._draw(is_over, stop):
            assert self._questions is not None
            self._questions.answer(partial(ask, self.screen))

    def _draw(self, is_over: Callable[[], bool], stop: Callable[[], None]) -> bool:
        """Until it is over; False: until there is a question. Ctrl-C stops it; a second one
        stops waiting."""
        stopping = False
        with self.screen.answering(), counted_interrupts() as interrupts:
            while True:
                over = is_over()
                changed = self._changed(0.02 if over else TICK)
                self._show_messages()
                if over and not changed:
                    return True
                if self._questions and not stopping:
                    return False
                if interrupts.count > 1:
                    raise KeyboardInterrupt
                if interrupts.count and not stopping:
                    stopping = True
                    stop()
                activity = self.session.output or self._step or activity_of(self._growing())
                self.screen.tick("Stopping …" if stopping else activity)

    def _say_ends(self) -> bool:
        """How the turns ended that were watched, where that is worth saying. False: none did."""
        ends, self._ends = self._ends, []
        for end in ends:
            if end.error is not None:
                self.screen.error(*error_lines(end.error))
            elif note := ENDINGS.get(end.stop_reason):
                self.screen.line(note, "yellow")
            self.screen.gap()
        return bool(ends)

    def _cancel_turn(self) -> None:
        assert self.conversation is not None
        self.session.call("agent/cancel", conversation_id=self.conversation.conversation_id)

    def _changed(self, timeout: float) -> bool:
        changes = self._following.changes(timeout) if self._following else []
        for change in changes:
            if self._questions is not None:
                self._questions.notice(change)
            if isinstance(change, TurnQueued) and change.request_key in self._own_keys:
                self._typed.add(change.message_id)
            elif isinstance(change, TitleChanged | ModeChanged):
                self._note(change)
            elif isinstance(change, Progress):
                self._step = f"{change.done}/{change.total} {change.label}"
            elif isinstance(change, ToolFinished):
                self.session.output = ""
            elif isinstance(change, TurnEnded):
                self._ends.append(change)
                self._step = self.session.output = ""
            elif isinstance(change, Missing):
                self.screen.line("This conversation was deleted.", "yellow")
                self.leave()
                return False
        return bool(changes)

    def _note(self, change: TitleChanged | ModeChanged) -> None:
        if isinstance(change, ModeChanged):
            self.mode = change.mode
        elif self.conversation is not None:
            self.conversation = msgspec.structs.replace(self.conversation, title=change.title)

    def _growing(self) -> Message | None:
        last = self.messages[-1] if self.messages else None
        return last if last is not None and last.status is MessageStatus.STREAMING else None

    def _show_messages(self) -> None:
        """What is new of every message, in order."""
        for message in self.messages:
            progress = self._shown.setdefault(message.message_id, Shown())
            if not progress.is_over:
                self._show(message, progress)

    def _show(self, message: Message, progress: Shown) -> None:
        if message.role == "user":
            progress.is_over = True
            if message.message_id not in self._typed:
                self.screen.gap()
                self.screen.line(f"{self.screen.mark} {message.text}", "bold")
                self.screen.gap()
            return
        for piece in progress.news(message):
            self.screen.show(piece)

    # ---- what is open ----

    def greet(self) -> None:
        if not sys.stdin.isatty():
            return
        status: Status = self.session.call("sidecar/status")
        who = " · ".join(part for part in (self.options.provider, self.options.model) if part)
        self.screen.line(f"agent-sidecar {__version__} · {who} · {self.folder}", "bold")
        if self.options.notice:
            self.screen.line(self.options.notice, "dim")
        for problem in status.provider.problems:
            self.screen.error(problem.message, problem.hint)
        if self.options.provider == "offline" and not self.options.notice:
            self.screen.line(
                "No model is connected: answers are passages of your files. "
                "`agent-sidecar doctor` says how to connect one.",
                "dim",
            )
        self.screen.line("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", "dim")

    def conversations_here(self) -> Iterator[Conversation]:
        """Those of this folder, newest first."""
        here = str(self.folder.resolve())
        return (c for c in self.session.conversations() if here in c.roots)

    def open_last(self) -> None:
        here = self.conversations_here()
        last, other = next(here, None), next(here, None)
        if last is not None:
            self.open(last)
        if other is not None:
            self.screen.line("/switch lists the others of this folder, /new begins one.", "dim")

    def open(self, conversation: Conversation) -> None:
        """Show how far a conversation has come and go on with it."""
        self.leave()
        self._follow(conversation)
        when = ago(conversation.updated_at)
        title = conversation.title or "Untitled"
        count = counted(conversation.message_count, "message")
        self.screen.gap()
        self.screen.line(f"── {title} · {count} · {when} ──", "cyan")
        finished = [m for m in self.messages if m.status is not MessageStatus.STREAMING]
        unfinished = len(self.messages) - len(finished)
        shown = len(finished[-SHOWN_AT_START:])
        if (earlier := conversation.message_count - unfinished - shown) > 0:
            self.screen.line(f"… {counted(earlier, 'earlier message')}", "dim")
        for message in finished[-SHOWN_AT_START:]:
            self.print_message(message)
        for message in finished:
            self._shown.setdefault(message.message_id, Shown()).is_over = True
        if self.is_busy():
            self.screen.line("An answer is being made.", "dim")
            self.watch_queue()

    def print_message(self, message: Message) -> None:
        progress = Shown()
        self._show(message, progress)
        if note := STATUS_NOTES.get(message.status):
            self.screen.line(f"({note})", "yellow")

    def reopen(self) -> None:
        """Messages went away: what is on the screen is old."""
        if self.conversation is not None:
            self.open(self.session.find(self.conversation.conversation_id))

    def leave(self) -> None:
        """Nothing is open; the next message begins a new conversation."""
        self._open.close()
        self._following = self.conversation = self._questions = None
        self._shown.clear()

    close = leave

    def begin(self) -> Conversation:
        made: Conversation = self.session.call("conversation/create", mode=self.mode)
        self._follow(made)
        return made

    def _follow(self, conversation: Conversation) -> None:
        following = self.session.follow(conversation.conversation_id)
        self._following = self._open.enter_context(following)
        self._questions = Questions(self.session, conversation.conversation_id)
        self.conversation, self.mode = conversation, conversation.mode
