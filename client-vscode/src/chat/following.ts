/**
 * Which conversations the sidecar has to tell of. It tells a connection of each one once, so who
 * wants to hear of it is counted here: documents, readers, and the extension itself.
 */
import type { Event } from "../protocol";

export type Reader = (event: Event) => void;

export interface FollowingHost {
  /** Whether a document follows it. */
  isShown(conversationId: string): boolean;
  subscribe(conversationId: string): void;
  unsubscribe(conversationId: string): void;
}

export class Following {
  private readonly readers = new Map<string, Set<Reader>>();
  private readonly attended = new Set<string>();

  constructor(private readonly host: FollowingHost) {}

  hear(event: Event): void {
    for (const reader of this.readers.get(event.conversationId) ?? []) reader(event);
  }

  /** Hear what is said in a conversation, until it is disposed of. */
  read(conversationId: string, reader: Reader): { dispose(): void } {
    const readers = this.readers.get(conversationId) ?? new Set();
    this.readers.set(conversationId, readers.add(reader));
    return {
      dispose: () => {
        readers.delete(reader);
        if (readers.size > 0) return;
        this.readers.delete(conversationId);
        this.forsaken(conversationId);
      },
    };
  }

  /** Somebody does not follow it any more. */
  forsaken(conversationId: string): void {
    if (!this.isFollowed(conversationId) && !this.attended.has(conversationId)) this.host.unsubscribe(conversationId);
  }

  /** Follow these whoever shows them, and none of those that were here before and are not now. */
  attend(wanted: ReadonlySet<string>): void {
    for (const conversationId of wanted) {
      if (this.attended.has(conversationId)) continue;
      this.attended.add(conversationId);
      if (!this.isFollowed(conversationId)) this.host.subscribe(conversationId);
    }
    for (const conversationId of this.attended) {
      if (wanted.has(conversationId)) continue;
      this.attended.delete(conversationId);
      this.forsaken(conversationId);
    }
  }

  /** Another process knows of none of them. */
  startAnew(): void {
    this.attended.clear();
  }

  private isFollowed(conversationId: string): boolean {
    return this.readers.has(conversationId) || this.host.isShown(conversationId);
  }
}
