import { useState } from "preact/hooks";

import type { QueueEntry } from "../../src/protocol";
import { useChat } from "../hooks";
import { IconButton } from "./Icon";

/** What waits for its turn; it can be changed until then. */
export function Queue() {
  const chat = useChat();
  const unsent = chat.outbox.filter(
    (prompt) => !chat.conversationId || prompt.conversationId === chat.conversationId,
  );
  if (chat.queue.length + unsent.length === 0) return null;
  return (
    <ul class="queue" aria-label="Queue">
      {chat.queue.map((entry, index) => (
        <Row key={entry.messageId} entry={entry} isFirst={index === 0} />
      ))}
      {unsent.map((prompt) => (
        <li key={prompt.key} class="unsent">
          <span class="words" title={prompt.text}>
            {prompt.text}
          </span>
          <span class="why">{chat.isReady ? "sending …" : "sent when the sidecar is back"}</span>
          <IconButton icon="close" label="Discard" onClick={() => chat.discard(prompt.key)} />
        </li>
      ))}
    </ul>
  );
}

const REASONS: Record<string, string> = {
  needsProvider: "waits until the provider is set up",
};

function Row({ entry, isFirst }: { entry: QueueEntry; isFirst: boolean }) {
  const chat = useChat();
  const [isEditing, edit] = useState(false);
  const { messageId, prompt } = entry;
  const save = (input: string) => {
    edit(false);
    if (input.trim() && input !== prompt.input) {
      const contextFiles = prompt.contextFiles ?? [];
      chat.act(chat.request("message/update", { messageId, input, contextFiles }));
    }
  };
  const up = () =>
    chat.act(chat.request("message/reorder", { messageId, position: Math.max((entry.position ?? 1) - 1, 0) }));
  return (
    <li>
      {isEditing ? (
        <textarea
          aria-label="Queued message"
          value={prompt.input}
          ref={(area) => area?.focus()}
          onBlur={(event) => save(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              save(event.currentTarget.value);
            } else if (event.key === "Escape") edit(false);
          }}
        />
      ) : (
        <span class="words" title={prompt.input}>
          {prompt.input}
        </span>
      )}
      {entry.state === "parked" && (
        <>
          <span class="why">was set aside: it ended its process three times</span>
          <IconButton
            icon="refresh"
            label="Try again"
            onClick={() => chat.act(chat.request("message/retry", { messageId }))}
          />
        </>
      )}
      {entry.reason && <span class="why">{REASONS[entry.reason] ?? entry.reason}</span>}
      <IconButton icon="edit" label="Edit" onClick={() => edit(true)} />
      <IconButton icon="arrow-up" label="Move up" disabled={isFirst} onClick={up} />
      <IconButton
        icon="close"
        label="Remove"
        onClick={() => chat.act(chat.request("message/remove", { messageId }))}
      />
    </li>
  );
}
