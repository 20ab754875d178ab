/** What one document of the chat and the extension say to each other. Documents are not trusted. */
import * as v from "valibot";

import type { Event, Methods, ToolOutputShown } from "../protocol";
import {
  ofEditor,
  toHost,
  tunnelled,
  type OfEditor,
  type Params,
  type ResponseError,
  type Result,
  type State,
  type ToView,
  type Tunnelled,
} from "../shared/messages";
import { Batches } from "./batches";

export interface LinkHost {
  state(link: Link): State;
  request<M extends Tunnelled>(
    method: M,
    params: Methods[M]["params"],
  ): Promise<Methods[M]["result"]>;
  act<M extends OfEditor>(link: Link, method: M, params: Params<M>): Promise<Result<M>>;
  /** A document is there, or is gone; turns go on either way. */
  appeared(link: Link): void;
  vanished(link: Link): void;
  /** Nobody follows this conversation any more. */
  forsaken(conversationId: string): void;
  warn(message: string): void;
}

/** Where a document is shown. */
export interface Place {
  /** Bring it to the front. */
  reveal?(): void;
  /** A tab keeps itself what it shows; the view shows what it showed the last time. */
  isTab?: boolean;
}

export class Link {
  /** The conversation that the document shows, and those that it follows. */
  shown: string | null = null;
  readonly follows = new Set<string>();
  private isReady = false;
  /** Documents come and go in one place, and each counts its requests from one. */
  private documents = 0;
  private readonly batches: Batches;

  constructor(
    private readonly name: string,
    private readonly host: LinkHost,
    post: (message: ToView) => void,
    readonly place: Place = {},
  ) {
    this.batches = new Batches(post);
  }

  /** Something that a document said. Whatever makes no sense is refused, never guessed at. */
  async receive(said: unknown): Promise<void> {
    const checked = v.safeParse(toHost, said);
    if (!checked.success) {
      this.host.warn(`a message of the chat was refused: ${v.summarize(checked.issues)}`);
      return;
    }
    const message = checked.output;
    if (message.type === "ready") {
      this.begin();
      return;
    }
    const { documents } = this;
    const outcome = await this.outcome(message.method, message.params);
    if (documents === this.documents) this.send({ type: "response", id: message.id, ...outcome });
  }

  /** Of the document that is there: the sidecar may still be at the goodbye of the one before. */
  get webviewId(): string {
    return `${this.name}.${this.documents}`;
  }

  get isVisible(): boolean {
    return this.isReady;
  }

  event(event: Event): void {
    if (this.isReady && this.follows.has(event.conversationId)) this.batches.event(event);
  }

  output({ conversationId, toolCallId, text }: ToolOutputShown): void {
    if (!this.isReady || !this.follows.has(conversationId)) return;
    this.batches.output({ type: "output", conversationId, toolCallId, text });
  }

  send(message: ToView): void {
    if (this.isReady) this.batches.send(message);
  }

  showState(): void {
    this.send({ type: "state", state: this.host.state(this) });
  }

  /** The document is gone or hidden: it is made anew, and begins with `ready`, when it is back. */
  end(): void {
    if (!this.isReady) return;
    this.isReady = false;
    this.batches.drop();
    this.forsake();
    this.host.vanished(this);
  }

  private begin(): void {
    this.end(); // of an earlier document in the same place, which said nothing as it went
    this.isReady = true;
    this.documents += 1;
    this.showState();
    this.host.appeared(this);
  }

  private forsake(): void {
    const followed = [...this.follows];
    this.follows.clear();
    for (const conversationId of followed) this.host.forsaken(conversationId);
  }

  private async outcome(
    method: string,
    params: unknown,
  ): Promise<{ result: unknown } | { error: ResponseError }> {
    try {
      if (isKey(tunnelled, method)) {
        return { result: await this.ask(method, v.parse(tunnelled[method], params ?? {}) as never) };
      }
      if (isKey(ofEditor, method)) {
        const checked = v.parse(ofEditor[method], params ?? {}) as never;
        return { result: await this.host.act(this, method, checked) };
      }
      return { error: { code: -32601, message: "The chat may not ask for that." } };
    } catch (error) {
      return { error: asError(error) };
    }
  }

  /** Events may come before the answer to `subscribe`, so who follows is noted first. */
  private async ask<M extends Tunnelled>(
    method: M,
    params: Methods[M]["params"],
  ): Promise<Methods[M]["result"]> {
    if (method === "conversation/subscribe") {
      this.follows.add((params as { conversationId: string }).conversationId);
    } else if (method === "conversation/unsubscribe") {
      const { conversationId } = params as { conversationId: string };
      this.follows.delete(conversationId);
      this.host.forsaken(conversationId);
      return { ok: true } as Methods[M]["result"];
    }
    return this.host.request(method, params);
  }
}

function isKey<T extends object>(table: T, name: string): name is Extract<keyof T, string> {
  return Object.hasOwn(table, name);
}

export function asError(error: unknown): ResponseError {
  if (error instanceof v.ValiError) {
    return { code: -32602, message: `That was not understood: ${error.message}` };
  }
  const failed = error as { code?: unknown; message?: unknown; data?: { hint?: unknown } };
  const hint = failed.data?.hint;
  return {
    code: typeof failed.code === "number" ? failed.code : -32603,
    message: typeof failed.message === "string" ? failed.message : String(error),
    ...(typeof hint === "string" ? { hint } : {}),
  };
}
