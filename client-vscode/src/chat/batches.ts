/**
 * What is posted to a document, in order: events are gathered for a frame, everything else takes
 * those along that came before it. One message per token costs a webview seconds; one per frame
 * costs it nothing.
 */
import type { Event } from "../protocol";
import type { ToView } from "../shared/messages";

export const FRAME_MILLISECONDS = 33;

export class Batches {
  private events: Event[] = [];
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly post: (message: ToView) => void) {}

  event(event: Event): void {
    this.events.push(event);
    this.timer ??= setTimeout(() => this.flush(), FRAME_MILLISECONDS);
  }

  send(message: ToView): void {
    this.flush();
    this.post(message);
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.events.length === 0) return;
    const events = this.events;
    this.events = [];
    this.post({ type: "events", events });
  }

  /** The document is gone; what it has not seen it will ask for again. */
  drop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.events = [];
  }
}
