import { Component } from "preact";
import { useRef } from "preact/hooks";

import type { Message, Part, Usage } from "../../src/protocol";
import type { Chat } from "../chat";
import { Blocks } from "../markdown";
import { Code } from "./Code";
import { fork } from "./Header";
import { Icon, IconButton } from "./Icon";
import { Menu } from "./Menu";
import { InstallButton, RetryButton } from "./Notices";
import { Reviews } from "./Reviews";
import { LiveOutput } from "./Running";

const ENDINGS: Partial<Record<Message["status"], string>> = {
  interrupted: "Interrupted: the process that wrote it ended. What had come until then is kept.",
  cancelled: "Stopped.",
  error: "Failed.",
};

interface Props {
  message: Message;
  chat: Chat;
}

/** Drawn again only when its message is another: of a long transcript that is one at a time. */
export class MessageView extends Component<Props> {
  override shouldComponentUpdate(next: Props): boolean {
    return next.message !== this.props.message;
  }

  override render({ message, chat }: Props) {
    const { messageId, role, status } = message;
    const ending = ENDINGS[status];
    return (
      <article data-message-id={messageId} data-role={role} data-status={status} aria-busy={status === "streaming"}>
        <Actions message={message} chat={chat} />
        {message.parts.map((part, index) => (
          <PartView key={index} part={part} parts={message.parts} message={message} />
        ))}
        {status === "streaming" && message.parts.length === 0 && <span class="waiting">Thinking …</span>}
        {ending && (
          <p class="ending">
            <Icon name={status === "cancelled" ? "debug-stop" : "warning"} /> {ending}
            {status !== "cancelled" && <Retry message={message} chat={chat} />}
          </p>
        )}
        {message.usage && <UsageLine usage={message.usage} />}
      </article>
    );
  }
}

/** The prompt of this turn can be asked again. */
function Retry({ message, chat }: Props) {
  const prompt = chat.transcript.messages.find(
    (other) => other.role === "user" && other.turnId === message.turnId,
  );
  return prompt && message.role === "assistant" ? <RetryButton messageId={prompt.messageId} /> : null;
}

function PartView({ part, parts, message }: { part: Part; parts: Part[]; message: Message }) {
  switch (part.kind) {
    case "text":
      return message.role === "user" ? <div class="text plain">{part.text}</div> : <Markdown text={part.text} />;
    case "thinking":
      return (
        <details class="thinking">
          <summary>Thinking</summary>
          <Markdown text={part.text} />
        </details>
      );
    case "toolCall":
      return <ToolCall call={part} result={resultOf(part, parts)} isOpen={message.status === "streaming"} />;
    case "toolResult":
      return null; // shown with its call
    case "file":
      return (
        <p class="file">
          <Icon name="file" /> {nameOf(part.file.uri)}
          {part.file.range && `:${part.file.range.start.line + 1}-${part.file.range.end.line + 1}`}
        </p>
      );
    case "steering":
      return part.by === "workflow" ? (
        <p class="step">{part.text.split("\n")[0]}</p>
      ) : (
        <p class="steering">{part.text}</p>
      );
    case "feedback":
      return <Reviews reviews={part.reviews} />;
    case "error":
      return (
        <p class="notice error" role="alert">
          <Icon name="error" /> {part.message} {part.hint} <InstallButton hint={part.hint} />
        </p>
      );
  }
}

export function nameOf(uri: string): string {
  const path = decodeURI(uri.replace(/^file:\/\//, ""));
  return path.slice(path.lastIndexOf("/") + 1);
}

type Call = Extract<Part, { kind: "toolCall" }>;
type ToolResult = Extract<Part, { kind: "toolResult" }>;

function resultOf(call: Call, parts: Part[]): ToolResult | undefined {
  return parts.find(
    (part): part is ToolResult => part.kind === "toolResult" && part.toolCallId === call.toolCallId,
  );
}

const MOST_OUTPUT = 4_000;

function ToolCall({ call, result, isOpen }: { call: Call; result: ToolResult | undefined; isOpen: boolean }) {
  const subject = Object.values(call.arguments).find((value) => typeof value === "string");
  const state = result ? (result.isError ? "error" : "check") : isOpen ? "loading codicon-modifier-spin" : "question";
  const output = result?.content ?? "";
  return (
    <>
      <details class={`tool ${result?.isError ? "failed" : ""}`}>
        <summary>
          <Icon name={state} /> <strong>{call.name}</strong> <span class="words">{subject}</span>
        </summary>
        <pre>{JSON.stringify(call.arguments, null, 2)}</pre>
        {result && <pre>{output.length > MOST_OUTPUT ? `${output.slice(0, MOST_OUTPUT)}\n[…]` : output}</pre>}
        {!result && !isOpen && <p class="why">How it ended is not known. It was not repeated.</p>}
      </details>
      {!result && isOpen && <LiveOutput toolCallId={call.toolCallId} />}
    </>
  );
}

function Markdown({ text }: { text: string }) {
  const blocks = useRef<Blocks | null>(null);
  blocks.current ??= new Blocks();
  return (
    <div class="text">
      {blocks.current.of(text).map((block, index) =>
        block.kind === "code" ? (
          <Code key={index} code={block.code} language={block.language} isWhole={block.isWhole} />
        ) : (
          <Html key={index} html={block.html} />
        ),
      )}
    </div>
  );
}

/** HTML that `markdown` has made safe. */
class Html extends Component<{ html: string }> {
  override shouldComponentUpdate(next: { html: string }): boolean {
    return next.html !== this.props.html;
  }

  override render({ html }: { html: string }) {
    return <div class="block" dangerouslySetInnerHTML={{ __html: html }} />;
  }
}

function Actions({ message, chat }: Props) {
  const { conversationId } = chat;
  if (!conversationId || message.status === "streaming") return null;
  const { messageId } = message;
  const text = message.parts.map((part) => (part.kind === "text" ? part.text : "")).join("\n");
  const rewind = () => chat.rewindTo(messageId);
  const items = [
    { label: "Copy", run: () => chat.act(chat.request("editor/copy", { text })) },
    { label: "Fork from here", run: () => chat.act(fork(chat, conversationId, messageId)) },
    { label: "Rewind to here", run: rewind },
  ];
  return (
    <div class="actions">
      {message.role === "user" && <IconButton icon="discard" label="Rewind to here" onClick={rewind} />}
      <Menu label="Message actions" items={items} />
    </div>
  );
}

export function UsageLine({ usage }: { usage: Usage }) {
  const said = [
    [usage.inputTokens, "in"],
    [usage.cachedTokens, "cached"],
    [usage.outputTokens, "out"],
  ].flatMap(([count, what]) => (typeof count === "number" && count > 0 ? [`${count.toLocaleString("en")} ${what}`] : []));
  if (typeof usage.costUsd === "number") said.push(dollars(usage.costUsd));
  return said.length ? (
    <p class="usage" title="Tokens of this turn, and what they cost by the vendor's list prices">
      {said.join(" · ")}
    </p>
  ) : null;
}

/** As many digits as say something: a turn may cost a hundredth of a cent. */
export function dollars(amount: number): string {
  return `$${amount.toLocaleString("en", { maximumSignificantDigits: 2, maximumFractionDigits: 6 })}`;
}
