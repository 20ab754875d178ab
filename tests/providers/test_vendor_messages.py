"""Transcripts as the vendors accept them: roles alternate, every call has its result."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.conversations import (
    ContextFile,
    ErrorPart,
    FilePart,
    MessageStatus,
    Part,
    Prompt,
    SteeringPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from tests.providers.vendors import PROMPT, asking, message, needs_llm_extra

needs_llm_extra()

from pydantic_ai import messages as vendor  # noqa: E402  # only with the extra

from sidecar.providers.vendor_messages import (  # noqa: E402  # only with the extra
    GO_ON,
    OPENING,
    UNKNOWN_OUTCOME,
    Transcripts,
)


def call(id: str = "c1") -> ToolCallPart:
    return ToolCallPart(tool_call_id=id, name="read_file", arguments={"path": id})


def result(id: str = "c1", text: str = "text", is_error: bool = False) -> ToolResultPart:
    return ToolResultPart(tool_call_id=id, content=text, is_error=is_error)


def text(text: str) -> TextPart:
    return TextPart(text=text)


def shown(transcript: list[vendor.ModelMessage]) -> list[str]:
    """One line a message: `user: …` or `model: …`."""
    lines = []
    for entry in transcript:
        role = "user" if isinstance(entry, vendor.ModelRequest) else "model"
        lines.append(f"{role}: " + " | ".join(_shown(part) for part in entry.parts))
    return lines


def _shown(part: Any) -> str:
    if isinstance(part, vendor.ToolCallPart):
        return f"call {part.tool_call_id}"
    if isinstance(part, vendor.ToolReturnPart):
        return f"result {part.tool_call_id} {part.content}"
    return str(part.content)


def of(*steps: Part, history: Any = ()) -> list[str]:
    return shown(Transcripts().of(asking(steps=steps, history=history)))


def test_a_prompt_alone_carries_the_instructions() -> None:
    (request,) = Transcripts().of(asking())
    assert isinstance(request, vendor.ModelRequest)
    assert request.instructions == "Be brief."


def test_only_the_last_request_carries_the_instructions() -> None:
    history = (message("user", text("a"), number=1), message("assistant", text("b"), number=2))
    requests = [
        entry
        for entry in Transcripts().of(asking(history=history))
        if isinstance(entry, vendor.ModelRequest)
    ]
    assert [request.instructions for request in requests] == [None, "Be brief."]


def test_steps_follow_the_prompt() -> None:
    assert of(text("I look."), call(), result()) == [
        f"user: {PROMPT}",
        "model: I look. | call c1",
        "user: result c1 text",
    ]


def test_parallel_calls_get_their_results_together() -> None:
    assert of(call("c1"), call("c2"), result("c2"), result("c1")) == [
        f"user: {PROMPT}",
        "model: call c1 | call c2",
        "user: result c2 text | result c1 text",
    ]


def test_a_failed_tool_is_marked_as_failed() -> None:
    transcript = Transcripts().of(asking(steps=(call(), result(is_error=True))))
    (part,) = transcript[-1].parts
    assert isinstance(part, vendor.ToolReturnPart)
    assert part.outcome == "failed"


@pytest.mark.parametrize("status", [MessageStatus.CANCELLED, MessageStatus.INTERRUPTED])
def test_a_stopped_reply_keeps_its_text_and_its_calls_get_a_result(status: MessageStatus) -> None:
    history = (
        message("user", text("a"), number=1),
        message("assistant", text("Half a"), call(), number=2, status=status),
    )
    assert of(history=history) == [
        "user: a",
        "model: Half a | call c1",
        f"user: result c1 {UNKNOWN_OUTCOME} | {PROMPT}",
    ]


def test_a_result_without_its_call_is_left_out() -> None:
    assert of(result()) == [f"user: {PROMPT}"]


def test_thinking_and_errors_are_not_sent_back() -> None:
    error = ErrorPart(type="NETWORK_ERROR", message="gone")
    assert of(ThinkingPart(text="hm"), text("a"), error)[1] == "model: a"


def test_a_prompt_whose_reply_is_empty_joins_the_next() -> None:
    history = (
        message("user", text("a"), number=1),
        message("assistant", ErrorPart(type="X", message="gone"), number=2),
    )
    assert of(history=history) == [f"user: a | {PROMPT}"]


def test_steering_is_the_users_and_comes_after_the_results() -> None:
    assert of(call(), SteeringPart(text="Only a.py!"), result()) == [
        f"user: {PROMPT}",
        "model: call c1",
        "user: result c1 text | Only a.py!",
    ]


def test_steering_that_came_while_text_streamed_is_what_the_model_answers() -> None:
    assert of(text("One"), SteeringPart(text="Stop there."), text(" two"))[-2:] == [
        "model:  two",
        "user: Stop there.",
    ]


def test_a_transcript_that_would_end_with_the_model_asks_it_to_go_on() -> None:
    assert of(text("One"))[-1] == f"user: {GO_ON}"


def test_a_transcript_that_would_begin_with_the_model_gets_an_opening() -> None:
    history = (message("assistant", text("b"), number=2),)
    assert of(history=history)[:2] == [f"user: {OPENING}", "model: b"]


def test_attached_files_read_the_same_now_and_later() -> None:
    file = ContextFile(uri="file:///w/a.py", text="x = 1")
    now = shown(Transcripts().of(asking(prompt=Prompt(input="a", context_files=(file,)))))
    stored = message("user", text("a"), FilePart(file=file), number=1)
    later = shown(Transcripts().of(asking(history=(stored,))))
    assert later[0].startswith(now[0])
    assert "x = 1" in now[0]


def test_a_message_is_mapped_once() -> None:
    history = [message("user", text("a"), number=1), message("assistant", text("b"), number=2)]
    transcripts = Transcripts()
    first = transcripts.of(asking(history=history))
    again = transcripts.of(asking("Next?", history=history))
    assert first[:2] == again[:2]
    assert all(a is b for a, b in zip(first[:2], again[:2], strict=True))


def test_a_message_that_was_replaced_is_mapped_anew() -> None:
    transcripts = Transcripts()
    transcripts.of(asking(history=(message("user", text("a"), number=1),)))
    again = transcripts.of(asking(history=(message("user", text("b"), number=1),)))
    assert shown(again) == [f"user: b | {PROMPT}"]


def test_mapping_changes_nothing_that_was_mapped_before() -> None:
    history = [message("user", text("a"), number=1)]
    transcripts = Transcripts()
    before = shown(transcripts.of(asking(history=history)))
    transcripts.of(asking("Other", history=history, steps=(call(), result(), text("b"))))
    assert shown(transcripts.of(asking(history=history))) == before


def test_a_remembered_reply_replaces_what_was_kept_of_it() -> None:
    reply = vendor.ModelResponse(
        [
            vendor.ThinkingPart("hm", signature="s"),
            vendor.TextPart("I look."),
            vendor.ToolCallPart("read_file", {}, "c1"),
            vendor.ToolCallPart("read_file", {}, "c2"),
        ]
    )
    transcripts = Transcripts()
    transcripts.adopt(reply)
    steps = (text("I look."), call("c1"), result("c1"), call("c2"), result("c2"), text("So."))
    transcript = transcripts.of(asking(steps=(*steps, SteeringPart(text="And b?"))))
    assert transcript[1] is reply
    assert shown(transcript)[2:] == [
        "user: result c1 text | result c2 text",
        "model: So.",
        "user: And b?",
    ]


def test_a_remembered_call_that_was_never_made_gets_a_result_too() -> None:
    calls = [vendor.ToolCallPart("read_file", {}, id) for id in ("c1", "c2")]
    transcripts = Transcripts()
    transcripts.adopt(vendor.ModelResponse(calls))
    transcript = transcripts.of(asking(steps=(call("c1"), result("c1"))))
    assert shown(transcript)[2:] == [f"user: result c1 text | result c2 {UNKNOWN_OUTCOME}"]


def test_old_replies_are_forgotten() -> None:
    transcripts = Transcripts()
    replies = [
        vendor.ModelResponse([vendor.ToolCallPart("read_file", {}, f"c{n}")]) for n in range(500)
    ]
    for reply in replies:
        transcripts.adopt(reply)
    old = transcripts.of(asking(steps=(call("c0"), result("c0"))))
    new = transcripts.of(asking(steps=(call("c499"), result("c499"))))
    assert old[1] is not replies[0]
    assert new[1] is replies[499]


def test_ids_that_a_server_gives_twice_are_told_apart() -> None:
    transcripts = Transcripts()
    replies = [
        transcripts.adopt(vendor.ModelResponse([vendor.ToolCallPart("read_file", {}, id)]))
        for id in ("0", "0", "")
    ]
    first, second, third = (reply.tool_calls[0].tool_call_id for reply in replies)
    assert first == "0"
    assert len({first, second, third, ""}) == 4
    steps = (call(first), result(first), call(second), result(second), call(third), result(third))
    transcript = transcripts.of(asking(steps=steps))
    assert transcript[1::2] == replies
    assert shown(transcript)[2::2] == [f"user: result {id} text" for id in (first, second, third)]
