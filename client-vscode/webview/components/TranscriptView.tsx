import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Message } from "../../src/protocol";
import { PAGE } from "../chat";
import { useChat } from "../hooks";
import { openLink } from "../links";
import { IconButton } from "./Icon";
import { MessageView } from "./Message";
import { Welcome } from "./Notices";
import { ProgressLine } from "./Running";

/** Most messages in the document at once; a view of more becomes slow. */
const MOST_SHOWN = 300;
const NEAR = 40;

export function TranscriptView() {
  const chat = useChat();
  const { transcript } = chat;
  const { messages } = transcript;
  const log = useRef<HTMLDivElement>(null);
  const [isFollowing, follow] = useState(true);
  /** How many of the newest are left out while older ones are read. */
  const [hidden, hide] = useState(0);
  const end = messages.length - Math.min(hidden, Math.max(messages.length - PAGE, 0));
  const start = Math.max(end - MOST_SHOWN, 0);
  const shown = messages.slice(start, end);
  const hasEarlier = start > 0 || transcript.pageCursor !== null;

  useFollowing(log, isFollowing);
  useEffect(() => {
    if (messages.length > 0) performance.mark("first page"); // read by `speed.ts` and end to end
  }, [messages.length > 0]);
  useAnchored(log, shown[0]?.messageId, isFollowing);

  const earlier = () => {
    follow(false);
    if (start > 0) hide(hidden + PAGE);
    else if (!chat.isLoading) {
      chat.act(
        chat.loadEarlier().then(() => {
          const excess = chat.transcript.messages.length - hidden - MOST_SHOWN;
          if (excess > 0) hide(hidden + excess);
        }),
      );
    }
  };
  const later = () => {
    hide(Math.max(hidden - PAGE, 0));
  };
  const top = useRef(0);
  const scrolled = ({ currentTarget: box }: Event & { currentTarget: HTMLElement }) => {
    const below = box.scrollHeight - box.scrollTop - box.clientHeight;
    // Only who scrolls up stops following: what grows below is no wish of the reader's.
    if (below < NEAR) follow(hidden === 0);
    else if (box.scrollTop < top.current) follow(false);
    top.current = box.scrollTop;
    if (box.scrollTop < NEAR && hasEarlier && !isFollowing) earlier();
    else if (below < NEAR && hidden > 0) later();
  };
  const toEnd = () => {
    hide(0);
    follow(true);
  };

  return (
    <div class="reading">
      <div
        class="log"
        role="log"
        aria-label="Transcript"
        aria-live="off"
        tabIndex={0}
        ref={log}
        onScroll={scrolled}
        onClick={(event) => openLink(chat, event)}
        onKeyDown={(event) => event.key === "Enter" && openLink(chat, event)}
      >
        {hasEarlier && messages.length > 0 && (
          <button type="button" class="earlier" onClick={earlier} disabled={chat.isLoading}>
            {chat.isLoading ? "Loading …" : "Show earlier messages"}
          </button>
        )}
        {messages.length === 0 && !chat.conversationId && <Welcome />}
        <div>
          {shown.map((message) => (
            <MessageView key={message.messageId} message={message} chat={chat} />
          ))}
        </div>
        <ProgressLine />
      </div>
      <Announcer messages={messages} />
      {!isFollowing && (
        <IconButton class="latest" icon="arrow-down" label="Jump to latest" onClick={toEnd} />
      )}
    </div>
  );
}

/** Stays at the end while it grows, also by what is laid out only once it is seen. */
function useFollowing(log: { readonly current: HTMLDivElement | null }, isFollowing: boolean): void {
  useLayoutEffect(() => {
    const box = log.current;
    if (!box || !isFollowing) return undefined;
    const toEnd = () => {
      box.scrollTop = box.scrollHeight;
    };
    toEnd();
    const sizes = new ResizeObserver(toEnd);
    for (const child of box.children) sizes.observe(child);
    sizes.observe(box);
    return () => sizes.disconnect();
  }, [isFollowing, log.current]);
}

/** Keeps what is read where it is while earlier messages come in above it. */
function useAnchored(
  log: { readonly current: HTMLDivElement | null },
  first: string | undefined,
  isFollowing: boolean,
): void {
  const before = useRef({ first, height: 0 });
  useLayoutEffect(() => {
    const box = log.current;
    if (!box) return;
    const { first: firstBefore, height } = before.current;
    if (!isFollowing && firstBefore !== first) box.scrollTop += box.scrollHeight - height;
    before.current = { first, height: box.scrollHeight };
  });
}

/** Says a finished answer to who listens instead of looks: once, and not word by word. */
function Announcer({ messages }: { messages: readonly Message[] }) {
  const last = messages.at(-1);
  const said = useRef(last?.messageId);
  const [text, say] = useState("");
  useEffect(() => {
    if (!last || last.role === "user" || last.status === "streaming" || said.current === last.messageId) return;
    said.current = last.messageId;
    say(last.parts.map((part) => (part.kind === "text" ? part.text : "")).join("\n"));
  }, [last]);
  return (
    <div class="announcer" aria-live="polite">
      {text}
    </div>
  );
}
