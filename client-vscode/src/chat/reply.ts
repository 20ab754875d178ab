/** The one answer to a prompt, picked out of what is said in its conversation. */
import type { Event, Message } from "../protocol";

export interface ReplyStream {
  markdown(text: string): unknown;
  progress(text: string): unknown;
}

/**
 * Passes on the answer to the prompt with this key, each stretch of it once. What was not streamed
 * comes with the end of the message, which has the whole.
 */
export function replyReader(requestKey: string, stream: ReplyStream): (event: Event) => void {
  let prompt: string | null = null;
  let turn: string | null = null;
  let reply: string | null = null;
  const written = new Map<number, number>();

  function write(part: number, offset: number, text: string): void {
    const had = written.get(part) ?? 0;
    const fresh = offset > had ? "" : text.slice(had - offset);
    if (!fresh) return;
    if (had === 0 && written.size > 0) stream.markdown("\n\n"); // after what a tool came between
    written.set(part, had + fresh.length);
    stream.markdown(fresh);
  }

  function writeAll({ parts }: Message): void {
    parts.forEach((part, index) => {
      if (part.kind === "text") write(index, 0, part.text);
    });
  }

  return (event) => {
    switch (event.type) {
      case "turnQueued":
        if (event.requestKey === requestKey) prompt = event.messageId;
        break;
      case "turnStarted":
        if (event.messageId === prompt) turn = event.turnId;
        break;
      case "messageStarted":
        if (event.turnId === turn && event.role !== "user") reply = event.messageId;
        break;
      case "toolStarted":
        if (event.turnId === turn) stream.progress(`${event.name} …`);
        break;
      case "delta":
        if (event.messageId === reply && event.kind === "text") write(event.part, event.offset, event.text);
        break;
      case "messageCompleted":
        if (event.messageId === reply && event.message) writeAll(event.message);
        break;
    }
  };
}
