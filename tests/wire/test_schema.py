"""The generated files: up to date, valid, usable, and true of what is really sent."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from sidecar import __version__, conversations, events, interfaces, settings, work
from sidecar.conversations import AgentMode, ContextFile, MessageStatus, QueueState, StopReason
from sidecar.errors import ALL_ERRORS, NotFound
from sidecar.wire import methods, schema, typescript

ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests" / "node"


def load_script() -> ModuleType:
    path = ROOT / "scripts" / "generate_schemas.py"
    spec = importlib.util.spec_from_file_location("generate_schemas", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
GENERATED: dict[str, str] = SCRIPT.generated()


@pytest.fixture(scope="module")
def by_name() -> dict[str, Any]:
    return schema.definitions().by_name


@pytest.fixture(scope="module")
def openrpc() -> dict[str, Any]:
    return schema.openrpc()


@pytest.fixture(scope="module")
def node() -> str:
    """The `node` command, with the packages of tests/node installed."""
    command = shutil.which("node")
    if command and (NODE / "node_modules").is_dir():
        return command
    reason = "needs node, and `npm ci` in tests/node"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


# ---- drift -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GENERATED)
def test_the_committed_file_is_what_the_types_generate(path: str) -> None:
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert committed == GENERATED[path], "run python scripts/generate_schemas.py"


def test_check_names_what_differs_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SCRIPT.main([], tmp_path) == 0
    assert SCRIPT.main(["--check"], tmp_path) == 0
    outdated = tmp_path / "schemas" / "events.json"
    outdated.write_text("{}", encoding="utf-8")
    (tmp_path / "client-vscode" / "src" / "protocol.ts").unlink()
    capsys.readouterr()

    assert SCRIPT.main(["--check"], tmp_path) == 1

    printed = capsys.readouterr().out
    assert printed == "schemas/events.json differs\nclient-vscode/src/protocol.ts differs\n"
    assert outdated.read_text(encoding="utf-8") == "{}"


def test_laid_out_json_says_the_same_and_keeps_to_the_width() -> None:
    value = {"a": [], "b": {}, "c": ["word" * 10] * 5, "d": {"e": [{"f": None}] * 20}}

    text = SCRIPT.as_json(value)

    assert json.loads(text) == value
    assert max(map(len, text.splitlines())) < 100


def test_no_room_loads_the_schemas_at_import() -> None:
    importing = re.compile(r"^(from|import) \S*wire\b.*\b(schema|typescript)\b", re.MULTILINE)
    found = [
        path.name
        for path in (ROOT / "sidecar").rglob("*.py")
        if importing.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


# ---- OpenRPC -----------------------------------------------------------------------------


def test_the_openrpc_document_is_valid(node: str, openrpc: dict[str, Any]) -> None:
    meta_schema = exported(node, "@open-rpc/meta-schema", "openrpcDocument")
    schemas = DRAFT7.create_resource(exported(node, "@json-schema-tools/meta-schema", "default"))
    registry = Registry().with_resources(
        [("https://meta.json-schema.tools", schemas), ("https://meta.json-schema.tools/", schemas)]
    )
    validator = Draft7Validator(meta_schema, registry=registry)

    assert [error.message for error in validator.iter_errors(openrpc)] == []
    broken = {**openrpc, "methods": [{**openrpc["methods"][0], "paramStructure": "by-luck"}]}
    assert not validator.is_valid(broken)


def exported(node: str, package: str, name: str) -> dict[str, Any]:
    script = f"JSON.stringify(require({package!r}).{name})"
    run = subprocess.run(
        [node, "-p", script], cwd=NODE, capture_output=True, check=True, encoding="utf-8"
    )
    return json.loads(run.stdout)


def test_every_method_is_described(openrpc: dict[str, Any]) -> None:
    described = {method["name"]: method for method in openrpc["methods"]}
    assert list(described) == [method.name for method in methods.METHODS]
    for method in methods.METHODS:
        entry = described[method.name]
        assert entry["summary"].endswith(".")
        assert entry["paramStructure"] == "by-name"
        assert "schema" in entry["result"]
        assert len(entry["errors"]) == len(ALL_ERRORS)
        fields = {field.encode_name: field for field in msgspec.structs.fields(method.params)}
        assert {param["name"]: param["required"] for param in entry["params"]} == {
            name: field.required for name, field in fields.items()
        }


def test_notifications_and_the_start_are_described(openrpc: dict[str, Any]) -> None:
    server, client = openrpc["x-notifications"]["server"], openrpc["x-notifications"]["client"]
    assert [each["name"] for each in server] == [n.name for n in methods.SERVER_NOTIFICATIONS]
    assert [each["name"] for each in client] == [n.name for n in methods.CLIENT_NOTIFICATIONS]
    assert all(each["summary"] and each["params"] for each in server + client)
    assert openrpc["x-lifecycle"]["initialize"]["params"]["$ref"].endswith("/Initialize")
    assert openrpc["info"]["version"] == __version__


def test_every_error_has_its_code_and_its_condition() -> None:
    described = schema.error_objects()
    for error, code in methods.ERROR_CODES.items():
        entry = described[error.type]
        assert entry["code"] == code
        assert entry["data"] == {"type": error.type, "retryable": error.retryable_by_default}
        assert " " in entry["message"], "the docstring of sidecar.errors lacks its condition"
    codes = [entry["code"] for entry in described.values()]
    assert len(set(codes)) == len(codes)


def test_every_reference_leads_somewhere(openrpc: dict[str, Any]) -> None:
    for document in (
        openrpc,
        schema.messages_schema(),
        schema.events_schema(),
        schema.export_schema(),
    ):
        for ref in re.findall(r'"(#/[^"]+)"', json.dumps(document)):
            target: Any = document
            for step in ref.removeprefix("#/").split("/"):
                target = target[step]
            assert target


# ---- JSON Schema -------------------------------------------------------------------------


def test_definitions_are_valid_and_have_plain_names(by_name: dict[str, Any]) -> None:
    for name, definition in by_name.items():
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)
        Draft202012Validator.check_schema(definition)


def test_every_event_type_is_in_the_events_schema() -> None:
    union = schema.events_schema()["$defs"]["Event"]
    kinds = {
        kind.__struct_config__.tag: f"#/$defs/{kind.__name__}"
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Fact) and kind is not events.Fact
    }
    assert union["discriminator"] == {"propertyName": "type", "mapping": kinds}


@pytest.mark.parametrize("kind", get_args(events.Event))
def test_an_event_names_its_conversation_and_its_number(
    kind: type, by_name: dict[str, Any]
) -> None:
    definition = by_name[kind.__name__]
    assert definition["required"][:3] == ["type", "conversationId", "seq"]
    assert "default" not in definition["properties"]["seq"]


def test_descriptions_use_the_names_on_the_wire(by_name: dict[str, Any]) -> None:
    fields = {
        field.name
        for kind in vars(methods).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        for field in msgspec.structs.fields(kind)
        if "_" in field.name
    }
    quoted = set(re.findall(r"`(\w+)`", json.dumps(by_name)))
    assert fields & quoted == set()
    assert "`pageCursor`" in by_name["Page"]["description"]


def test_what_is_said_of_a_field_or_a_member_is_kept(by_name: dict[str, Any]) -> None:
    assert by_name["Exported"]["properties"]["size"]["description"] == (
        "Bytes of the data in UTF-8."
    )
    patched = by_name["SettingsPatch"]["properties"]["requestTimeout"]
    assert patched["description"] == "How long a provider may be silent before the turn fails."
    assert "- `build`: Changes the workspace" in by_name["AgentMode"]["description"]


def test_critical_settings_are_marked(by_name: dict[str, Any]) -> None:
    for name in ("Settings", "SettingsPatch"):
        marked = [
            field
            for field, described in by_name[name]["properties"].items()
            if described.get("x-critical")
        ]
        assert len(marked) == len(settings.CRITICAL_FIELDS)
        assert "geminiModel" in marked


# ---- secrets -----------------------------------------------------------------------------


def test_nothing_that_is_sent_can_hold_a_secret(by_name: dict[str, Any]) -> None:
    sent = [method.result for method in methods.METHODS]
    sent += [notification.params for notification in methods.SERVER_NOTIFICATIONS]
    by_type = schema.definitions().by_type
    refs = json.dumps([by_type[kind] for kind in sent])
    names = {
        name
        for root in re.findall(r"#/\$defs/(\w+)", refs)
        for name in schema.reachable(root, by_name)
    }
    assert len(names) > 50
    assert names.isdisjoint({"Secrets", "SecretsPatch"})
    secret_fields = by_name["SecretsPatch"]["properties"].values()
    assert all(field["writeOnly"] for field in secret_fields)


def test_a_result_with_a_secret_in_it_cannot_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    leak = methods.Method("settings/leak", methods.Nothing, settings.Secrets, "Must not exist.")
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, leak))
    with pytest.raises(TypeError, match="Secret"):
        schema.openrpc()


# ---- the types in use --------------------------------------------------------------------

USAGE = conversations.Usage(input_tokens=3)
FILE = ContextFile(
    uri="file:///a.py",
    range=conversations.Range(
        start=conversations.Position(line=0, character=0),
        end=conversations.Position(line=1, character=2),
    ),
)
PARTS: tuple[conversations.Part, ...] = (
    conversations.TextPart(text="Hello 👋"),
    conversations.ThinkingPart(text="hm"),
    conversations.ToolCallPart(tool_call_id="c", name="read", arguments={"path": "a.py"}),
    conversations.ToolResultPart(tool_call_id="c", content="", is_error=True),
    conversations.FilePart(file=FILE),
    conversations.ErrorPart(type="NETWORK_ERROR", message="It broke off."),
    conversations.SteeringPart(text="shorter"),
    work.FeedbackPart(
        reviews=(
            work.Review(
                persona_id="ada",
                name="Ada",
                rating=4,
                summary="Fine.",
                findings=(
                    work.Finding(
                        severity=work.Severity.MINOR,
                        message="unclear",
                        path="a.py",
                        line=3,
                        suggestion="say so",
                    ),
                ),
            ),
        )
    ),
)
MESSAGE = conversations.Message(
    message_id="m",
    ordinal=1,
    role="assistant",
    status=MessageStatus.COMPLETE,
    parts=PARTS,
    usage=USAGE,
    created_at=1,
)
CONVERSATION = conversations.Conversation(
    conversation_id="c",
    mode=AgentMode.BUILD,
    session_id="s",
    roots=("file:///w",),
    created_at=1,
    updated_at=2,
    message_count=1,
    queue_length=0,
    last_seq=9,
    revision=0,
    change_no=4,
    forked_from=conversations.ForkedFrom(conversation_id="b"),
)
ENTRY = conversations.QueueEntry(
    message_id="m",
    conversation_id="c",
    state=QueueState.QUEUED,
    prompt=conversations.Prompt(input="hi", context_files=(FILE,)),
    attempts=0,
    enqueued_at=1,
)
ERROR = conversations.TurnError(type="NETWORK_ERROR", message="It broke off.", retryable=True)
FACT: dict[str, Any] = {"conversation_id": "c", "seq": 1, "at": 5}
TURN: dict[str, Any] = {**FACT, "message_id": "m", "turn_id": "t"}

APPROVAL = conversations.Approval(
    approval_id="a",
    conversation_id="c",
    turn_id="t",
    tool_call_id="x",
    tool="run",
    title="Run a command",
    text="rm -r build",
    content_hash="0" * 64,
    state=conversations.ApprovalState.PENDING,
    requested_at=1,
    expires_at=2,
)
EVENTS: tuple[events.Event, ...] = (
    events.TurnQueued(**FACT, message_id="m"),
    events.TurnStarted(**TURN),
    events.MessageStarted(**TURN),
    events.MessageCompleted(**FACT, message_id="m", message=MESSAGE),
    events.ToolStarted(**TURN, tool_call_id="c", name="read", part=0),
    events.ToolFinished(**TURN, tool_call_id="c", part=0, content="x"),
    events.UsageReported(**FACT, turn_id="t", usage=USAGE),
    events.TurnEnded(**TURN, stop_reason=StopReason.ERROR, error=ERROR),
    events.ModeChanged(**FACT, mode=AgentMode.CHAT),
    events.TitleChanged(**FACT),
    events.QueueChanged(**FACT, message_id="m", state=QueueState.PARKED),
    events.Rewound(**FACT, revision=2),
    events.TurnSteered(**TURN, part=1, text="x"),
    events.Progress(
        conversation_id="c", seq=1, at=5, turn_id="t", done=1, total=2, label="Mend it"
    ),
    events.ApprovalRequested(**FACT, approval=APPROVAL),
    events.ApprovalResolved(
        **FACT, approval_id="a", turn_id="t", state=conversations.ApprovalState.DENIED
    ),
    events.Delta(**FACT, message_id="m", part=0, kind="text", offset=2, text="x"),
)
OPEN = (events.OpenPart(message_id="m", part=0, length=2),)
SAMPLES: tuple[msgspec.Struct, ...] = (
    *EVENTS,
    MESSAGE,
    CONVERSATION,
    ENTRY,
    events.Replay(
        conversation_id="c",
        last_seq=1,
        revision=0,
        events=tuple(event for event in EVENTS if not isinstance(event, events.Delta)),
        open_message=MESSAGE,
        open_parts=OPEN,
    ),
    events.Snapshot(
        conversation_id="c", last_seq=1, revision=0, messages=(MESSAGE,), open_parts=OPEN
    ),
    events.Missing(conversation_id="c"),
    events.Cursor(store_id="s", seq=3),
    conversations.Page(messages=(MESSAGE,), revision=0),
    conversations.TurnResult(message_id="m", stop_reason=StopReason.CANCELLED),
    interfaces.ConversationList(conversations=(CONVERSATION,), deleted=("x",), change_no=4),
    interfaces.ConversationExport(
        schema_version=1,
        store_id="s",
        exported_at=1,
        conversation=CONVERSATION,
        messages=(MESSAGE,),
        queue=(ENTRY,),
    ),
    methods.Done(ok=True),
    methods.Send(conversation_id="c", input="hi", context_files=(FILE,)),
    methods.SettingsShown(
        settings=settings.Settings(), secrets_present=("geminiApiKey",), problems=()
    ),
    methods.UpdateSettings(settings=settings.SettingsPatch(retry=settings.RetryPatch())),
    methods.error_data(NotFound("There is no such conversation.", conversation_id="c")),
)


def violations(name: str, value: Any, by_name: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": by_name})
    return [error.message for error in validator.iter_errors(value)]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_what_is_encoded_fits_the_schema(sample: msgspec.Struct, by_name: dict[str, Any]) -> None:
    value = msgspec.json.decode(msgspec.json.encode(sample))
    assert violations(type(sample).__name__, value, by_name) == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_encoded_event_fits_the_events_schema(event: events.Event) -> None:
    value = msgspec.json.decode(msgspec.json.encode(event))
    validator = Draft202012Validator(schema.events_schema())
    assert validator.is_valid(value)
    del value["seq"]
    assert not validator.is_valid(value)


def test_the_samples_hold_every_event_and_every_part() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(events.Event))
    assert {type(part) for part in PARTS} == set(get_args(conversations.Part))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (methods.OfConversation, {"conversationId": "two words"}),
        (methods.OfConversation, {}),
        (methods.GetConversation, {"conversationId": "c", "limit": 0}),
        (methods.GetConversation, {"conversationId": "c", "limit": "7"}),
        (methods.Send, {"conversationId": "c", "input": ""}),
        (methods.Send, {"conversationId": "c", "input": "hi", "settings": {"provider": "x"}}),
        (methods.UpdateSettings, {"settings": {"geminiApiKey": "in the wrong place"}}),
        (methods.UpdateSettings, {"settings": {"temperature": 3}}),
        (methods.SetMode, {"conversationId": "c", "mode": "root"}),
    ],
)
def test_what_the_schema_refuses_the_decoder_refuses(
    kind: type[msgspec.Struct], value: Any, by_name: dict[str, Any]
) -> None:
    assert violations(kind.__name__, value, by_name)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, kind)


# ---- TypeScript --------------------------------------------------------------------------

CLIENT = """
import { ErrorCodes, PROTOCOL_VERSION } from "./protocol";
import type { Event, Methods, Nothing, ServerNotifications } from "./protocol";

const version: 1 = PROTOCOL_VERSION;
const code: -32062 = ErrorCodes.NOT_FOUND;
const none: Nothing = {};
const params: Methods["agent/getOrCreate"]["params"] = { conversationId: "c", mode: "build" };
// @ts-expect-error: conversationId is needed
const incomplete: Methods["agent/getOrCreate"]["params"] = { mode: "build" };
// @ts-expect-error: not a mode
const wrong: Methods["conversation/setMode"]["params"] = { conversationId: "c", mode: "root" };

export function shown(event: Event): string {
  switch (event.type) {
    case "delta":
      return event.text;
    case "turnEnded":
      // @ts-expect-error: only a delta has a text
      return event.text ?? event.stopReason;
    default:
      return `${event.conversationId} ${event.seq}`;
  }
}
const same: Event extends ServerNotifications["conversation/event"] ? true : false = true;
export default [version, code, none, params, incomplete, wrong, same];
"""


def test_the_typescript_compiles_and_tells_the_types_apart(node: str, tmp_path: Path) -> None:
    (tmp_path / "protocol.ts").write_text(typescript.protocol(), encoding="utf-8")
    (tmp_path / "client.ts").write_text(CLIENT, encoding="utf-8")
    compiler = NODE / "node_modules" / "typescript" / "bin" / "tsc"
    options = ["--strict", "--noEmit", "--noUnusedLocals", "--target", "es2022"]
    options += ["--module", "esnext", "--moduleResolution", "bundler"]

    run = subprocess.run(
        [node, str(compiler), *options, "client.ts"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        encoding="utf-8",
    )

    assert (run.returncode, run.stdout) == (0, "")


def test_a_schema_that_typescript_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="no TypeScript for"):
        typescript.type_of({"type": "array", "prefixItems": [], "items": False})
