import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { AgentMode, ContextFile } from "../../src/protocol";
import type { FoundFile } from "../../src/shared/messages";
import { useChat } from "../hooks";
import { Icon, IconButton } from "./Icon";
import { Menu } from "./Menu";
import { dollars, nameOf } from "./Message";

const MODES: AgentMode[] = ["chat", "build", "feedback"];

/** What is written here is the composer's own business: a stream beside it draws nothing of it. */
export function Composer() {
  const chat = useChat();
  const area = useRef<HTMLTextAreaElement>(null);
  const [files, setFiles] = useState<ContextFile[]>([]);
  const [isDropping, dropping] = useState(false);
  const mention = useMention(area, (file) => add([{ uri: file.uri }]));

  const add = (more: ContextFile[]) =>
    setFiles((known) => [...known, ...more.filter((file) => !known.some((other) => isSame(file, other)))]);
  const put = (text: string) => {
    if (!area.current) return;
    area.current.value = text;
    grow(area.current);
    area.current.focus();
  };

  useDraft(area, chat.draft);
  useEffect(() => {
    const { letter } = chat;
    if (!letter) return;
    chat.letter = null;
    add(letter.files);
    if (letter.text || !area.current?.value) put(letter.text || (area.current?.value ?? ""));
    area.current?.focus();
  });

  const send = () => {
    const text = area.current?.value.trim() ?? "";
    if (!text) return;
    chat.send(text, files);
    put("");
    chat.keepDraft("");
    setFiles([]);
  };
  const keyDown = (event: KeyboardEvent) => {
    if (mention.keyDown(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && area.current?.value === "" && chat.queue.length > 0) {
      event.preventDefault();
      document.querySelector<HTMLElement>(".queue li:last-of-type [aria-label=Edit]")?.click();
    }
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    dropping(false);
    const uris = (event.dataTransfer?.getData("text/uri-list") ?? "").split(/\r?\n/).filter(Boolean);
    chat.act(chat.request("editor/dropped", { uris }).then((dropped) => add(dropped.files)));
  };
  const stop = () => {
    const { conversationId } = chat;
    if (conversationId) chat.act(chat.request("agent/cancel", { conversationId }));
  };

  return (
    <div
      class={`composer ${isDropping ? "dropping" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        dropping(true);
      }}
      onDragLeave={() => dropping(false)}
      onDrop={drop}
    >
      <Chips files={files} remove={(file) => setFiles(files.filter((other) => other !== file))} add={add}>
        <PersonaMenu />
        {chat.mode === "build" && <PlanFirst />}
      </Chips>
      {mention.list}
      <textarea
        ref={area}
        rows={1}
        aria-label="Message"
        aria-controls="files"
        aria-activedescendant={mention.active}
        placeholder={chat.isRunning ? "The next message waits for its turn" : "Ask, or @ a file"}
        onInput={(event) => {
          grow(event.currentTarget);
          chat.keepDraft(event.currentTarget.value);
          mention.look();
        }}
        onKeyDown={keyDown}
        onBlur={() => mention.close()}
      />
      <div class="bar">
        <select
          aria-label="Mode"
          value={chat.mode}
          onChange={(event) => chat.setMode(event.currentTarget.value as AgentMode)}
        >
          {MODES.map((mode) => (
            <option key={mode} value={mode}>
              {mode}
            </option>
          ))}
        </select>
        <button
          type="button"
          class="model"
          aria-label="Model"
          title="Choose a model"
          onClick={() => chat.act(chat.request("model/pick", {}))}
        >
          {chat.state?.model ?? ""}
        </button>
        <Total />
        {chat.isRunning && <IconButton icon="debug-stop" label="Stop" class="stop" onClick={stop} />}
        <IconButton icon="send" label="Send" class="send" onClick={send} />
      </div>
    </div>
  );
}

function isSame(a: ContextFile, b: ContextFile): boolean {
  return a.uri === b.uri && JSON.stringify(a.range ?? null) === JSON.stringify(b.range ?? null);
}

function grow(area: HTMLTextAreaElement): void {
  if (!CSS.supports("field-sizing", "content")) {
    area.rows = Math.min(area.value.split("\n").length, 12);
  }
}

/** What was written before and not sent, once, and not over what is being written. */
function useDraft(area: { readonly current: HTMLTextAreaElement | null }, draft: string | undefined): void {
  const done = useRef(false);
  useLayoutEffect(() => {
    if (done.current || draft === undefined || !area.current) return;
    done.current = true;
    if (area.current.value) return;
    area.current.value = draft;
    grow(area.current);
  }, [draft]);
}

interface ChipsProps {
  files: ContextFile[];
  remove: (file: ContextFile) => void;
  add: (files: ContextFile[]) => void;
  children: ComponentChildren;
}

function Chips({ files, remove, add, children }: ChipsProps) {
  const chat = useChat();
  const attach = (what: "file" | "selection") => () =>
    chat.act(chat.request("editor/context", { what }).then(({ file }) => file && add([file])));
  const editor = chat.state?.editor;
  const items = [
    ...(editor ? [{ label: `Current file: ${editor.path}`, run: attach("file") }] : []),
    ...(editor?.selection ? [{ label: "Selection", run: attach("selection") }] : []),
    ...(editor ? [] : [{ label: "Open a file, or type @ to find one", run: () => undefined }]),
  ];
  return (
    <div class="chips">
      <Menu label="Add context" icon="attach" items={items} />
      {children}
      <ul aria-label="Context">
        {files.map((file) => {
          const name = nameOf(file.uri) + (file.range ? `:${file.range.start.line + 1}` : "");
          return (
            <li key={file.uri + name} title={file.uri}>
              <Icon name="file" /> {name}
              <IconButton icon="close" label={`Remove ${name}`} onClick={() => remove(file)} />
            </li>
          );
        })}
      </ul>
    </div>
  );
}

/** In build mode: a plan is made and asked about before anything else happens. */
function PlanFirst() {
  const chat = useChat();
  const isTalk = chat.personaId !== undefined;
  return (
    <label class="toggle" title="Make a plan, ask whether to carry it out, then do it step by step and verify it">
      <input
        type="checkbox"
        checked={chat.planFirst && !isTalk}
        disabled={isTalk}
        onChange={(event) => {
          chat.planFirst = event.currentTarget.checked;
        }}
      />
      Plan first
    </label>
  );
}

/** Who is talked to. A persona has the rights of the mode, like everybody. */
function PersonaMenu() {
  const chat = useChat();
  const { personaId, personas } = chat;
  const known = personas.find((one) => one.personaId === personaId);
  const items = [
    { label: "The agent itself", isChosen: personaId === undefined, run: () => chat.talkTo(undefined) },
    ...personas.map(({ personaId: id, name, role }) => ({
      label: role ? `${name}: ${role}` : name,
      isChosen: id === personaId,
      run: () => chat.talkTo(id),
    })),
    { label: "Manage personas …", run: () => chat.act(chat.request("personas/manage", {})) },
  ];
  return (
    <>
      <Menu label="Persona" icon="person" items={items} onOpen={() => chat.act(chat.loadPersonas())} />
      {personaId !== undefined && <span class="persona">{known?.name ?? personaId}</span>}
    </>
  );
}

/** Tokens of what is shown of the conversation. */
function Total() {
  const chat = useChat();
  let [sum, cost] = [0, 0];
  for (const { usage } of chat.transcript.messages) {
    sum += (usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0);
    cost += usage?.costUsd ?? 0;
  }
  return sum ? (
    <span class="total" title="Of the turns that are loaded; the cost is by list prices">
      {sum.toLocaleString("en")} tokens{cost > 0 && ` · ${dollars(cost)}`}
    </span>
  ) : (
    <span class="total" />
  );
}

/** `@` and some letters: a list of files to choose from. */
function useMention(
  area: { readonly current: HTMLTextAreaElement | null },
  chosen: (file: FoundFile) => void,
) {
  const chat = useChat();
  const [found, show] = useState<FoundFile[]>([]);
  const [index, select] = useState(0);
  const asked = useRef("");
  const close = () => {
    asked.current = "";
    if (found.length) show([]);
  };
  const look = () => {
    const box = area.current;
    const query = box && /(?:^|\s)@([^\s@]*)$/.exec(box.value.slice(0, box.selectionStart))?.[1];
    if (typeof query !== "string") return close();
    asked.current = `@${query}`;
    chat.act(
      chat.request("editor/findFiles", { query }).then(({ files }) => {
        if (asked.current !== `@${query}`) return;
        show(files);
        select(0);
      }),
    );
  };
  const take = (file: FoundFile) => {
    const box = area.current;
    if (box) {
      const before = box.value.slice(0, box.selectionStart).replace(/@[^\s@]*$/, "");
      box.value = before + box.value.slice(box.selectionStart);
      box.setSelectionRange(before.length, before.length);
      box.focus();
    }
    chosen(file);
    close();
  };
  const keyDown = (event: KeyboardEvent): boolean => {
    const file = found[index];
    if (!file || !["ArrowDown", "ArrowUp", "Enter", "Tab", "Escape"].includes(event.key)) return false;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Escape") close();
    else if (event.key === "ArrowDown") select((index + 1) % found.length);
    else if (event.key === "ArrowUp") select((index - 1 + found.length) % found.length);
    else take(file);
    return true;
  };
  const list = found.length > 0 && (
    <ul role="listbox" id="files" aria-label="Files" class="files">
      {found.map((file, at) => (
        <li
          role="option"
          id={`file-${at}`}
          key={file.uri}
          aria-selected={at === index}
          onMouseDown={(event) => {
            event.preventDefault();
            take(file);
          }}
        >
          {file.path}
        </li>
      ))}
    </ul>
  );
  return { look, close, keyDown, list, active: found.length ? `file-${index}` : undefined };
}
