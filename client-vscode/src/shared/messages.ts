/**
 * What the chat's document and the extension say to each other.
 *
 * The document speaks the sidecar's own methods through a tunnel (`request` and `response`), for
 * which the extension holds a list of what is allowed; beside them a few methods of the editor
 * (`editor/…`, `keys/…`). What a conversation says comes as `events`, in the order in which the
 * sidecar said it, and never after the response to a request that the sidecar answered later.
 * Everything else is `state`: a snapshot, of which the latest is the truth.
 *
 * Each document begins with `ready`; nothing that was posted before counts. It then subscribes
 * again with the cursors that it has, and again whenever `state.instance` is another.
 */
import * as v from "valibot";

import type {
  AgentInfo,
  Approval,
  Event,
  Methods,
  Problem,
  ContextFile,
  Settings,
} from "../protocol";

const text = v.pipe(v.string(), v.maxLength(4 * 1024 * 1024));
const id = v.pipe(v.string(), v.minLength(1), v.maxLength(200));
const place = v.object({ line: v.number(), character: v.number() });
const contextFile = v.object({
  uri: v.pipe(v.string(), v.maxLength(8192)),
  range: v.nullish(v.object({ start: place, end: place })),
  text: v.nullish(text),
});
const mode = v.picklist(["chat", "build", "feedback"]);
const cursor = v.object({
  storeId: v.string(),
  seq: v.number(),
  revision: v.optional(v.number()),
  parts: v.optional(
    v.array(v.object({ messageId: id, part: v.number(), length: v.number() })),
  ),
});
const ofConversation = v.object({ conversationId: id });
const ofMessage = v.object({ messageId: id });
const nothing = v.object({});

/** The sidecar's methods that a document may call, and what their params have to look like. */
export const tunnelled = {
  "agent/abortAndRestart": ofConversation,
  "agent/cancel": ofConversation,
  "approval/list": v.object({ conversationId: v.nullish(id) }),
  "approval/respond": v.object({
    approvalId: id,
    decision: v.picklist(["allow", "deny"]),
    contentHash: v.string(),
    always: v.optional(v.boolean()),
  }),
  "build/start": v.object({
    conversationId: id,
    task: text,
    contextFiles: v.optional(v.array(contextFile)),
    requestKey: id,
  }),
  "conversation/archive": v.object({ conversationId: id, archived: v.optional(v.boolean()) }),
  "conversation/create": v.object({
    conversationId: v.nullish(id),
    mode: v.optional(mode),
    title: v.nullish(text),
    requestKey: v.nullish(id),
  }),
  "conversation/fork": v.object({
    conversationId: id,
    toMessageId: v.nullish(id),
    title: v.nullish(text),
    requestKey: v.nullish(id),
  }),
  "conversation/get": v.object({
    conversationId: id,
    cursor: v.nullish(v.string()),
    limit: v.optional(v.number()),
  }),
  "conversation/list": v.object({
    cursor: v.nullish(v.string()),
    sinceChange: v.nullish(v.number()),
    archived: v.optional(v.boolean()),
    limit: v.optional(v.number()),
  }),
  "conversation/rename": v.object({ conversationId: id, title: v.nullable(text) }),
  "conversation/rewind": v.object({
    conversationId: id,
    toMessageId: v.nullable(id),
    preview: v.optional(v.boolean()),
    files: v.optional(v.boolean()),
    force: v.optional(v.boolean()),
  }),
  "conversation/search": v.object({
    query: text,
    conversationId: v.nullish(id),
    limit: v.optional(v.number()),
  }),
  "conversation/setMode": v.object({ conversationId: id, mode }),
  "conversation/subscribe": v.object({ conversationId: id, cursor: v.nullish(cursor) }),
  "conversation/takeOver": v.object({ conversationId: id, force: v.optional(v.boolean()) }),
  "conversation/unsubscribe": ofConversation,
  "message/enqueue": v.object({
    conversationId: id,
    input: text,
    contextFiles: v.optional(v.array(contextFile)),
    personaId: v.optional(id),
    isPersonaChat: v.optional(v.boolean()),
    requestKey: id,
  }),
  "message/queue": ofConversation,
  "message/remove": ofMessage,
  "message/reorder": v.object({ messageId: id, position: v.number() }),
  "message/retry": ofMessage,
  "message/steer": v.object({ conversationId: id, text, expectedTurnId: id }),
  "message/update": v.object({
    messageId: id,
    input: text,
    contextFiles: v.optional(v.array(contextFile)),
  }),
  "persona/list": nothing,
  "settings/get": nothing,
  "sidecar/status": nothing,
} as const satisfies { [Method in keyof Methods]?: v.GenericSchema<unknown, Methods[Method]["params"]> };

/** What the extension does itself. */
export const ofEditor = {
  /** Insert a code block where the cursor is in the last active text editor. */
  "editor/insert": v.object({ text }),
  /** Show a code block as a change of the active file (or of `path`), to be accepted or not. */
  "editor/apply": v.object({ text, path: v.nullish(text) }),
  "editor/copy": v.object({ text }),
  /** Open a file of the workspace, at a line if one is given (from 1). */
  "editor/open": v.object({ path: text, line: v.nullish(v.number()) }),
  /** Open a web link after asking; only http(s) and mailto. */
  "editor/openLink": v.object({ url: v.pipe(v.string(), v.maxLength(8192)) }),
  /** Files of the workspace whose path has these letters, best first, at most 20. */
  "editor/findFiles": v.object({ query: text }),
  /** The current file or selection as context. */
  "editor/context": v.object({ what: v.picklist(["file", "selection"]) }),
  /** Files dropped on the chat, as `text/uri-list` gives them. */
  "editor/dropped": v.object({ uris: v.array(text) }),
  /** Save a conversation to a file that the user names. */
  "editor/export": v.object({ conversationId: id, format: v.picklist(["markdown", "json"]) }),
  /** Delete after a time in which it can be undone. */
  "chat/delete": ofConversation,
  "chat/undoDelete": ofConversation,
  /** Which conversation this document shows: it opens with it the next time. */
  "chat/show": v.object({ conversationId: v.nullable(id) }),
  /** What is written and not sent yet. */
  "chat/draft": v.object({ conversationId: v.string(), text }),
  "chat/openInEditor": v.object({ conversationId: v.nullable(id) }),
  /** Choose provider and model with the editor's own picker. */
  "model/pick": nothing,
  /** Add, change and delete personas with the editor's own picker. */
  "personas/manage": nothing,
  /** Ask for a key and keep it; of the provider in use if none is named. */
  "keys/set": v.object({ secret: v.nullish(v.string()) }),
  /** Install what providers of models need, after asking. */
  "models/install": nothing,
  "sidecar/restart": nothing,
  "sidecar/showLog": nothing,
  "sidecar/pickInterpreter": nothing,
  "settings/open": nothing,
} as const;

export interface EditorResults {
  "editor/insert": Done;
  "editor/apply": { applied: boolean };
  "editor/copy": Done;
  "editor/open": Done;
  "editor/openLink": { opened: boolean };
  "editor/findFiles": { files: FoundFile[] };
  "editor/context": { file: ContextFile | null };
  "editor/dropped": { files: ContextFile[] };
  "editor/export": { path: string | null };
  "chat/delete": Done;
  "chat/undoDelete": Done;
  "chat/show": Done;
  "chat/draft": Done;
  "chat/openInEditor": Done;
  "model/pick": Done;
  "personas/manage": Done;
  "keys/set": Done;
  "models/install": Done;
  "sidecar/restart": Done;
  "sidecar/showLog": Done;
  "sidecar/pickInterpreter": Done;
  "settings/open": Done;
}
interface Done {
  ok: true;
}

export type Tunnelled = keyof typeof tunnelled;
export type OfEditor = keyof typeof ofEditor;

export type Params<M extends Tunnelled | OfEditor> = M extends Tunnelled
  ? Methods[M]["params"]
  : M extends OfEditor
    ? v.InferOutput<(typeof ofEditor)[M]>
    : never;
export type Result<M extends Tunnelled | OfEditor> = M extends Tunnelled
  ? Methods[M]["result"]
  : M extends OfEditor
    ? EditorResults[M]
    : never;

/** From the document. Params are checked once more by their method's schema. */
export const toHost = v.variant("type", [
  v.object({ type: v.literal("ready") }),
  v.object({
    type: v.literal("request"),
    id: v.number(),
    method: v.string(),
    params: v.unknown(),
  }),
]);
export type ToHost = v.InferOutput<typeof toHost>;

/** A file as a list of files shows it. `path` is relative to its workspace folder. */
export interface FoundFile {
  uri: string;
  path: string;
}

export interface ResponseError {
  code: number;
  message: string;
  /** What to do now, in a sentence. */
  hint?: string;
}

/** How it stands with the sidecar's process. */
export type Connection =
  | { kind: "starting"; detail: string }
  | { kind: "ready" }
  | {
      kind: "failed";
      title: string;
      /** What was tried and what came of it, for reading. */
      detail: string;
      actions: ("restart" | "pickInterpreter" | "showLog")[];
    };

/** How far a turn of many steps is: `done` of `total`, and what it is about to do. */
export interface Step {
  turnId: string;
  done: number;
  total: number;
  label: string;
}

export interface State {
  connection: Connection;
  /** Another number, another process: whoever subscribes has to do it again. 0: none yet. */
  instance: number;
  storeId: string;
  /** The store is read-only, and why. */
  degraded: string | null;
  settings: Settings | null;
  secretsPresent: string[];
  problems: Problem[];
  /** The model in use, as a person would say it. */
  model: string;
  trusted: boolean;
  agents: Record<string, AgentInfo>;
  approvals: Approval[];
  /** By conversation, while a turn of many steps runs there. */
  progress: Record<string, Step>;
  /** Waiting for their undo to run out. */
  deleting: string[];
  /** The file in the active text editor, relative to the workspace, and whether text is selected. */
  editor: { path: string; selection: boolean } | null;
  /** What this document shows first, and what was written there. */
  conversationId: string | null;
  drafts: Record<string, string>;
}

export type ToView =
  | { type: "state"; state: State }
  | { type: "response"; id: number; result: unknown }
  | { type: "response"; id: number; error: ResponseError }
  | { type: "events"; events: Event[] }
  /** More of what a running tool puts out; of much only the end. It is shown and not kept. */
  | { type: "output"; conversationId: string; toolCallId: string; text: string }
  /** Something was left out for a reader that lags: subscribe again. */
  | { type: "resync"; conversationId: string }
  /** The list of conversations changed. */
  | { type: "changed"; changeNo: number }
  /** Put this into the composer; `send` sends it at once, in `mode` if that is given. */
  | {
      type: "compose";
      text: string;
      files: ContextFile[];
      send: boolean;
      newConversation: boolean;
      mode: "chat" | "build" | "feedback" | null;
    }
  /** Show this conversation. */
  | { type: "show"; conversationId: string };
