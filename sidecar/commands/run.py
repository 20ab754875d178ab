"""Ask once and print the answer as it is written.

The prompt is the argument, or stdin when it is `-` or absent. With --json every event is a line
of JSON, and the last line is the result; its conversationId goes into --conversation to go on.
Exit code: 0 answered, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from ..client.live import Change
from ..conversations import (
    AgentMode,
    Approval,
    ApprovalDecision,
    Conversation,
    Message,
    Receipt,
    StopReason,
    TurnResult,
    Usage,
)
from ..errors import AgentError
from ..events import CatchUp, TurnEnded, TurnQueued
from ..ids import new_id
from ..turn import error_of
from ..wire.methods import error_data
from .approving import Questions
from .config import UsageError, add_options, options_from
from .prompt import Interrupts, counted_interrupts
from .render import Progress, ToolUse, Words, error_lines, printable, tool_line
from .session import TICK, Following, Session, open_session

ENDINGS = {
    StopReason.MAX_TOKENS: "The answer reached its length limit.",
    StopReason.REFUSAL: "The model declined to answer.",
    StopReason.CANCELLED: "The turn was cancelled.",
    StopReason.INTERRUPTED: "The turn was interrupted.",
}


ANSWERED = (StopReason.END_TURN, StopReason.MAX_TOKENS, StopReason.REFUSAL)


class Result(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", tag="result"
):
    """The last line of `run --json`."""

    conversation_id: str
    message_id: str | None
    turn_id: str | None
    stop_reason: StopReason
    text: str
    """The answer, as far as it came."""
    usage: Usage | None
    error: dict[str, Any] | None


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to ask; - reads stdin")
    parser.add_argument("--mode", choices=[str(m) for m in AgentMode], help="chat by default")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--conversation", metavar="ID", help="go on with this one")
    parser.add_argument(
        "--new", action="store_true", help="begin a new one (the default), under ID if given"
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="allow every change and command that is asked for, except of protected files and of"
        " commands that ask to leave the sandbox; without it they are denied",
    )
    parser.add_argument(
        "--no-plan", action="store_true", help="in mode build: act without a plan first"
    )
    parser.add_argument(
        "--verify", metavar="COMMAND", help="in mode build: the command that tells if it worked"
    )
    add_options(parser)


def run(args: Namespace) -> int:
    options = options_from(args)
    prompt = prompt_of(args.prompt, sys.stdin)
    if options.notice:
        print(options.notice, file=sys.stderr)
    with open_session(options, workspace=[Path.cwd()]) as session:
        conversation = conversation_of(args, session)
        printer = JsonLines(sys.stdout) if args.json else PlainText(sys.stdout, sys.stderr)
        with session.follow(conversation.conversation_id) as following:
            questions = Questions(session, conversation.conversation_id)
            decision: ApprovalDecision = "allow" if args.yes else "deny"
            asking = Asking(session, following, printer, questions, decision)
            if conversation.mode is AgentMode.BUILD and not args.no_plan:
                return asking.build(conversation, prompt, args.verify)
            return asking.ask(conversation, prompt)


def prompt_of(argument: str | None, stdin: TextIO) -> str:
    if argument is None and stdin.isatty():
        raise UsageError("What is the prompt?", 'agent-sidecar run "Where is … defined?"')
    prompt = stdin.read() if argument in (None, "-") else argument
    if not prompt or not prompt.strip():
        raise UsageError("The prompt is empty.")
    return prompt


def conversation_of(args: Namespace, session: Session) -> Conversation:
    mode = None if args.mode is None else AgentMode(args.mode)
    if args.new or args.conversation is None:
        made: Conversation = session.call(
            "conversation/create",
            mode=mode or AgentMode.CHAT,
            conversation_id=args.conversation,
        )
        return made
    found = session.find(args.conversation)
    if mode is not None and mode != found.mode:
        found = session.call(
            "conversation/setMode", conversation_id=found.conversation_id, mode=mode
        )
    return found


class Asking:
    """One prompt, until its turn has ended."""

    def __init__(
        self,
        session: Session,
        following: Following,
        printer: Printer,
        questions: Questions,
        decision: ApprovalDecision,
    ) -> None:
        self._session = session
        self._following = following
        self._printer = printer
        self._questions = questions
        self._decision = decision
        self._key = new_id()
        self._message_id: str | None = None
        self._ended: TurnEnded | None = None

    def ask(self, conversation: Conversation, prompt: str) -> int:
        """Returns the exit code."""
        conversation_id = conversation.conversation_id
        call = self._session.request(
            "message/send",
            conversation_id=conversation_id,
            input=prompt,
            request_key=self._key,
        )
        self._following.close_after(call)

        def wait(interrupts: Interrupts) -> TurnResult:
            self._follow(interrupts, lambda: self._session.cancel(call))
            done: TurnResult = self._session.result(call)
            return done

        return self._until(conversation_id, wait)

    def build(self, conversation: Conversation, task: str, verify: str | None) -> int:
        """The same for a build, which is answered when it is stored: its events tell the rest."""
        conversation_id = conversation.conversation_id

        def wait(interrupts: Interrupts) -> TurnResult | None:
            receipt: Receipt = self._session.call(
                "build/start",
                conversation_id=conversation_id,
                task=task,
                verify=verify,
                request_key=self._key,
            )
            self._message_id = receipt.message_id
            self._follow(
                interrupts,
                lambda: self._session.call("build/cancel", conversation_id=conversation_id),
            )
            if self._ended is not None and self._ended.error is not None:
                raise error_of(self._ended.error, conversation_id)
            return None

        return self._until(conversation_id, wait)

    def _until(self, conversation_id: str, wait: Callable[[Interrupts], TurnResult | None]) -> int:
        done: TurnResult | None = None
        error: AgentError | None = None
        with counted_interrupts() as interrupts:
            try:
                done = wait(interrupts)
            except AgentError as failed:
                error = failed
        result = self._result(conversation_id, done, error)
        self._printer.end(result)
        _explain(result, error)
        if interrupts.count:
            return 130
        return 0 if result.stop_reason in ANSWERED else 1

    def _follow(self, interrupts: Interrupts, stop: Callable[[], object]) -> None:
        """Print what comes until the turn is over. Ctrl-C stops it; a second one gives up
        waiting for how that ends."""
        is_stopping = False
        while not self._following.is_over and self._ended is None:
            for change in self._following.changes(TICK):
                self._notice(change)
                self._questions.notice(change)
                if not isinstance(change, CatchUp):
                    self._printer.event(change)
            if (reply := self._reply()) is not None:
                self._printer.reply(reply)
            self._questions.answer(self._decide)
            for line in self._session.notices():
                print(printable(line), file=sys.stderr)
            if interrupts.count > 1:
                raise KeyboardInterrupt
            if interrupts.count and not is_stopping:
                is_stopping = True
                stop()

    def _decide(self, question: Approval) -> ApprovalDecision:
        decision = self._decision
        how = "allowed by --yes" if decision == "allow" else "denied; --yes would allow it"
        if question.is_protected:
            decision, how = "deny", "denied; only a person allows that, in a chat"
        print(printable(f"agent-sidecar: {question.title}: {how}"), file=sys.stderr)
        return decision

    def _notice(self, change: Change) -> None:
        if isinstance(change, TurnQueued) and change.request_key == self._key:
            self._message_id = change.message_id
        elif isinstance(change, TurnEnded) and change.message_id == self._message_id:
            self._ended = change

    def _reply(self) -> Message | None:
        """The answer to our prompt, once it is begun."""
        messages = self._following.messages
        turn = next((m.turn_id for m in messages if m.message_id == self._message_id), None)
        replies = (m for m in messages if m.role == "assistant" and m.turn_id == turn)
        return next(replies, None) if turn is not None else None

    def _result(
        self, conversation_id: str, done: TurnResult | None, error: AgentError | None
    ) -> Result:
        known = done or self._ended
        reply = self._reply()
        return Result(
            conversation_id=conversation_id,
            message_id=known.message_id if known else self._message_id,
            turn_id=known.turn_id if known else None,
            stop_reason=known.stop_reason if known else StopReason.ERROR,
            text=reply.text if reply else "",
            usage=known.usage if known else None,
            error=None if error is None else _error_of(error),
        )


def _error_of(error: AgentError) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(error_data(error))
    return {"message": error.message} | data


def _explain(result: Result, error: AgentError | None) -> None:
    """What the exit code means, on stderr."""
    if error is not None:
        message, hint = error_lines(error)
        print(
            f"agent-sidecar: {message}", *([f"  {hint}"] if hint else []), sep="\n", file=sys.stderr
        )
    elif note := ENDINGS.get(result.stop_reason):
        print(f"agent-sidecar: {note}", file=sys.stderr)


class Printer:
    """How an answer is put out. This one says nothing."""

    def event(self, event: Change) -> None:
        """Something happened in the conversation."""

    def reply(self, message: Message) -> None:
        """The answer as far as it has come."""

    def end(self, result: Result) -> None:
        """The turn is over."""


class JsonLines(Printer):
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._encoder = msgspec.json.Encoder()

    def event(self, event: Change) -> None:
        self._line(event)

    def end(self, result: Result) -> None:
        self._line(result)

    def _line(self, value: object) -> None:
        # As bytes: JSON is UTF-8, whatever this terminal's encoding is.
        self._out.buffer.write(self._encoder.encode(value) + b"\n")
        self._out.flush()


class PlainText(Printer):
    """The words on stdout; what tools were used on stderr, if somebody is watching."""

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        self._out = out
        self._notes = notes
        self._progress = Progress()
        self._written = ""

    def reply(self, message: Message) -> None:
        for piece in self._progress.news(message):
            if isinstance(piece, Words):
                self._write(("\n\n" if piece.begins and self._written else "") + piece.text)
            elif isinstance(piece, ToolUse) and self._notes.isatty():
                print(f"[{tool_line(piece)}]", file=self._notes)

    def end(self, result: Result) -> None:
        if self._written and not self._written.endswith("\n"):
            self._write("\n")

    def _write(self, text: str) -> None:
        self._written = text
        self._out.write(printable(text) if self._out.isatty() else text)
        self._out.flush()
