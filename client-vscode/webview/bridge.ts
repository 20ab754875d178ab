/** The document's side of what is said with the extension. */
import type { OfEditor, Params, ResponseError, Result, ToHost, ToView, Tunnelled } from "../src/shared/messages";

/** What the editor keeps of a document while it is not there. */
export interface Kept {
  conversationId: string | null;
  /** Prompts that were sent and not acknowledged, by their keys. */
  outbox: Unsent[];
  /** What is written and not sent, by conversation; that of a new one under an empty name. */
  drafts: Record<string, string>;
  /** Who is talked to, by conversation; in a new one under an empty name. */
  personas: Record<string, string>;
  /** In build mode a plan is made and asked about first. */
  planFirst: boolean;
}

export interface Unsent {
  key: string;
  conversationId: string;
  /** The conversation is made along with it. */
  isNew: boolean;
  text: string;
  files: { uri: string; text?: string | null }[];
  personaId?: string | undefined;
  /** It is built by a plan that the user accepts. */
  isBuild?: boolean | undefined;
}

interface VsCodeApi {
  postMessage(message: ToHost): void;
  getState(): Kept | undefined;
  setState(state: Kept): void;
}

declare function acquireVsCodeApi(): VsCodeApi;

/** A request that the extension, or the sidecar, answered with an error. */
export class Refused extends Error {
  readonly code: number;
  readonly hint: string | undefined;

  constructor(error: ResponseError) {
    super(error.message);
    this.code = error.code;
    this.hint = error.hint;
  }
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Refused): void;
}

type Told = Exclude<ToView, { type: "response" }>;

export class Bridge {
  private readonly api = acquireVsCodeApi();
  private readonly waiting = new Map<number, Waiting>();
  private count = 0;

  constructor(private readonly heard: (message: Told) => void) {
    window.addEventListener("message", ({ data }: MessageEvent<ToView>) => {
      if (data.type === "response") this.answered(data);
      else this.heard(data);
    });
  }

  get kept(): Kept {
    const nothing = { conversationId: null, outbox: [], drafts: {}, personas: {}, planFirst: true };
    return { ...nothing, ...this.api.getState() };
  }

  keep(changes: Partial<Kept>): void {
    this.api.setState({ ...this.kept, ...changes });
  }

  /** Everything before it counts for nothing; the extension answers with the state. */
  begin(): void {
    this.api.postMessage({ type: "ready" });
  }

  request<M extends Tunnelled | OfEditor>(method: M, params: Params<M>): Promise<Result<M>> {
    const id = (this.count += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (result: unknown) => void, reject });
      this.api.postMessage({ type: "request", id, method, params });
    });
  }

  private answered(response: Extract<ToView, { type: "response" }>): void {
    const waiting = this.waiting.get(response.id);
    this.waiting.delete(response.id);
    if ("error" in response) waiting?.reject(new Refused(response.error));
    else waiting?.resolve(response.result);
  }
}
