/**
 * What is posted to a document, in order: events are gathered for a frame, everything else takes
 * those along that came before it. One message per token costs a webview seconds; one per frame
 * costs it nothing. What a tool puts out comes after the events of its frame, and only the end of
 * much of it.
 */
import type { Event } from "../protocol";
import type { ToView } from "../shared/messages";

export const FRAME_MILLISECONDS = 33;
/** Most characters of a tool's output in one message. */
export const MOST_OUTPUT = 8_192;

type Output = Extract<ToView, { type: "output" }>;

export class Batches {
  private events: Event[] = [];
  private outputs = new Map<string, Output>();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly post: (message: ToView) => void) {}

  event(event: Event): void {
    this.events.push(event);
    this.flushSoon();
  }

  output(output: Output): void {
    const text = (this.outputs.get(output.toolCallId)?.text ?? "") + output.text;
    this.outputs.set(output.toolCallId, { ...output, text: text.slice(-MOST_OUTPUT) });
    this.flushSoon();
  }

  send(message: ToView): void {
    this.flush();
    this.post(message);
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const { events, outputs } = this;
    this.events = [];
    this.outputs = new Map();
    if (events.length > 0) this.post({ type: "events", events });
    for (const output of outputs.values()) this.post(output);
  }

  /** The document is gone; what it has not seen it will ask for again. */
  drop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.events = [];
    this.outputs.clear();
  }

  private flushSoon(): void {
    this.timer ??= setTimeout(() => this.flush(), FRAME_MILLISECONDS);
  }
}
