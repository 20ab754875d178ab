/** What the document knows, and what it asks for. Components show it and call it. */
import type { AgentMode, ContextFile, Event, Persona, QueueEntry, TurnError } from "../src/protocol";
import type { State, ToView } from "../src/shared/messages";
import { Bridge, Refused, type Unsent } from "./bridge";
import { newId } from "./ids";
import { Outputs } from "./outputs";
import { Rewinding } from "./rewinding";
import { Transcript } from "./transcript";

export const PAGE = 50;
const DRAFT_MILLISECONDS = 300;
/** A hole that a new subscription does not close would be asked about for ever. */
const MOST_ATTEMPTS = 5;

export interface Failure {
  message: string;
  hint?: string | undefined;
  /** The prompt that can be tried again. */
  messageId?: string | undefined;
}

export class Chat {
  state: State | null = null;
  conversationId: string | null = null;
  title: string | null = null;
  mode: AgentMode = "chat";
  transcript = new Transcript();
  queue: QueueEntry[] = [];
  /** Prompts that are on their way; kept over a reload, so that none is lost or sent twice. */
  outbox: Unsent[];
  failure: Failure | null = null;
  /** What running tools put out. */
  readonly outputs = new Outputs();
  /** Going back to a message, while it is decided how. */
  rewinding: Rewinding | null = null;
  personas: Persona[] = [];
  isLoading = false;
  /** Grows when the list of conversations has changed. */
  listChange = 0;
  /** Put into the composer, once. */
  letter: Extract<ToView, { type: "compose" }> | null = null;

  private readonly bridge: Bridge;
  private readonly watchers = new Set<() => void>();
  private instance = -1;
  private attempts = 0;
  private subscribing = false;
  private again = false;
  private draftTimer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.bridge = new Bridge((message) => this.heard(message));
    this.outbox = this.bridge.kept.outbox;
  }

  begin(): void {
    this.bridge.begin();
  }

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  readonly request: Bridge["request"] = (method, params) => this.bridge.request(method, params);

  /** Do something of which only the failure is of interest. */
  act(action: Promise<unknown>): void {
    action.catch((error: Refused) => this.fail(error));
  }

  fail(error: Error): void {
    this.failure = { message: error.message, hint: error instanceof Refused ? error.hint : undefined };
    this.changed();
  }

  dismiss(): void {
    this.failure = null;
    this.changed();
  }

  // ---- which conversation ----

  open(conversationId: string | null): void {
    if (conversationId === this.conversationId) return;
    if (this.conversationId) {
      this.act(this.request("conversation/unsubscribe", { conversationId: this.conversationId }));
    }
    this.conversationId = conversationId;
    this.transcript = new Transcript();
    this.queue = [];
    this.title = null;
    this.failure = null;
    this.rewinding = null;
    this.outputs.clear();
    if (!conversationId) this.mode = "chat";
    this.bridge.keep({ conversationId });
    this.act(this.request("chat/show", { conversationId }));
    if (conversationId) this.subscribe();
    this.changed();
  }

  setMode(mode: AgentMode): void {
    this.mode = mode;
    this.changed();
    const { conversationId } = this;
    if (conversationId) this.act(this.request("conversation/setMode", { conversationId, mode }));
  }

  // ---- how a prompt is meant ----

  get planFirst(): boolean {
    return this.bridge.kept.planFirst;
  }

  set planFirst(planFirst: boolean) {
    this.bridge.keep({ planFirst });
    this.changed();
  }

  get personaId(): string | undefined {
    return this.bridge.kept.personas[this.conversationId ?? ""];
  }

  /** Talk to this one from now on; to none: undefined. */
  talkTo(personaId: string | undefined): void {
    this.keepPersona(this.conversationId ?? "", personaId);
    this.changed();
  }

  async loadPersonas(): Promise<void> {
    this.personas = (await this.request("persona/list", {})).personas;
    this.changed();
  }

  private keepPersona(conversationId: string, personaId: string | undefined): void {
    const { [conversationId]: _, ...others } = this.bridge.kept.personas;
    this.bridge.keep({ personas: personaId ? { ...others, [conversationId]: personaId } : others });
  }

  // ---- going back ----

  /** Ask what going back would do; nothing is done before the user has seen it. */
  rewindTo(messageId: string): void {
    const { conversationId } = this;
    if (!conversationId) return;
    this.rewinding = new Rewinding(this, conversationId, messageId, () => this.changed());
    this.act(this.rewinding.look());
    this.changed();
  }

  leaveRewinding(): void {
    this.rewinding = null;
    this.changed();
  }

  get isRunning(): boolean {
    return this.agent?.isProcessing ?? this.transcript.open !== undefined;
  }

  get agent() {
    return this.conversationId ? this.state?.agents[this.conversationId] : undefined;
  }

  get isReady(): boolean {
    return this.state?.connection.kind === "ready";
  }

  // ---- prompts ----

  /** Accepted as soon as it is here: it is sent again, under the same key, until it is stored. */
  send(text: string, files: ContextFile[]): void {
    const begun = this.outbox.find((prompt) => prompt.isNew)?.conversationId;
    const conversationId = this.conversationId ?? begun ?? newId();
    const isNew = this.conversationId === null;
    this.failure = null;
    const { personaId } = this;
    const isBuild = this.mode === "build" && this.planFirst && !personaId;
    const prompt: Unsent = { key: newId(), conversationId, isNew, text, files, personaId, isBuild };
    this.setOutbox([...this.outbox, prompt]);
    if (this.isReady) this.act(this.deliver(prompt));
  }

  discard(key: string): void {
    this.setOutbox(this.outbox.filter((prompt) => prompt.key !== key));
  }

  private async deliver(prompt: Unsent): Promise<void> {
    const { key: requestKey, conversationId, isNew, text, files: contextFiles, personaId } = prompt;
    const { instance } = this;
    try {
      if (isNew) {
        const { mode } = this;
        await this.request("conversation/create", { conversationId, mode, requestKey: `new-${conversationId}` });
        if (personaId) this.keepPersona(conversationId, personaId);
        this.keepPersona("", undefined);
        this.open(conversationId);
      }
      const common = { conversationId, contextFiles, requestKey };
      if (prompt.isBuild) await this.request("build/start", { ...common, task: text });
      else {
        const persona = personaId ? { personaId, isPersonaChat: true } : {};
        await this.request("message/enqueue", { ...common, ...persona, input: text });
      }
      this.discard(requestKey);
      await this.loadQueue();
    } catch (error) {
      // What the process took with it goes to the next one; what was refused goes back.
      if (!this.isReady || this.instance !== instance) return;
      this.discard(requestKey);
      this.letter = { type: "compose", text, files: contextFiles, send: false, newConversation: false, mode: null };
      throw error;
    }
  }

  private setOutbox(outbox: Unsent[]): void {
    this.outbox = outbox;
    this.bridge.keep({ outbox });
    this.changed();
  }

  /**
   * Kept here at once, and by the extension soon: here it survives a reload, there also a crash
   * of the window and in another view.
   */
  keepDraft(text: string): void {
    const conversationId = this.conversationId ?? "";
    const { [conversationId]: _, ...others } = this.bridge.kept.drafts;
    this.bridge.keep({ drafts: text ? { ...others, [conversationId]: text } : others });
    clearTimeout(this.draftTimer);
    this.draftTimer = setTimeout(
      () => this.act(this.request("chat/draft", { conversationId, text })),
      text ? DRAFT_MILLISECONDS : 0,
    );
  }

  get draft(): string | undefined {
    const conversationId = this.conversationId ?? "";
    return this.bridge.kept.drafts[conversationId] ?? this.state?.drafts[conversationId];
  }

  // ---- what is shown ----

  async loadEarlier(): Promise<void> {
    const { conversationId, transcript } = this;
    if (!conversationId || !transcript.pageCursor || this.isLoading) return;
    this.isLoading = true;
    this.changed();
    try {
      const cursor = transcript.pageCursor;
      const { page } = await this.request("conversation/get", { conversationId, cursor, limit: PAGE });
      const fits = transcript.prepend(page.messages, page.pageCursor ?? null, page.revision);
      if (!fits && this.transcript === transcript) this.subscribe();
    } finally {
      this.isLoading = false;
      this.changed();
    }
  }

  async loadQueue(): Promise<void> {
    const { conversationId } = this;
    if (!conversationId) return;
    const { entries } = await this.request("message/queue", { conversationId });
    if (conversationId !== this.conversationId) return;
    this.queue = entries.filter((entry) => entry.state === "queued" || entry.state === "parked");
    this.changed();
  }

  /** Ask for what was missed. One question at a time: the answer to an older one says less. */
  private subscribe(): void {
    if (this.subscribing) {
      this.again = true;
      return;
    }
    this.subscribing = true;
    this.act(this.catchUp());
  }

  private async catchUp(): Promise<void> {
    const { conversationId, transcript } = this;
    try {
      if (!conversationId || !this.isReady) return;
      const { cursor } = transcript;
      const answer = await this.request("conversation/subscribe", { conversationId, cursor });
      // What is heard from here on comes after the answer, so nothing may come between them.
      if (this.transcript === transcript) transcript.caughtUp(answer, this.state?.storeId ?? "");
    } finally {
      this.subscribing = false;
      if (this.again) {
        this.again = false;
        this.subscribe();
      }
    }
    if (this.transcript !== transcript) return;
    if (transcript.isMissing) this.isGone(conversationId);
    else await Promise.all([this.loadHead(conversationId), this.loadQueue()]);
    this.changed();
  }

  /** It was deleted, or is about to be made. */
  private isGone(conversationId: string): void {
    if (!this.outbox.some((prompt) => prompt.conversationId === conversationId)) this.open(null);
  }

  /** Its title and mode. */
  private async loadHead(conversationId: string): Promise<void> {
    const { conversation } = await this.request("conversation/get", { conversationId, limit: 1 });
    if (conversationId !== this.conversationId) return;
    this.title = conversation.title ?? null;
    this.mode = conversation.mode;
  }

  // ---- what is heard ----

  private heard(message: Exclude<ToView, { type: "response" }>): void {
    switch (message.type) {
      case "state":
        this.stateChanged(message.state);
        break;
      case "events":
        for (const event of message.events) this.event(event);
        break;
      case "resync":
        if (message.conversationId === this.conversationId) this.subscribe();
        break;
      case "output":
        this.outputs.add(message.toolCallId, message.text);
        break;
      case "changed":
        this.listChange = message.changeNo;
        break;
      case "compose":
        if (message.newConversation) this.open(null);
        if (message.mode) this.setMode(message.mode);
        if (message.send) this.send(message.text, message.files);
        else this.letter = message;
        break;
      case "show":
        this.open(message.conversationId);
        break;
    }
    this.changed();
  }

  private stateChanged(state: State): void {
    const isFirst = this.state === null;
    this.state = state;
    const isAnother = this.isReady && state.instance !== this.instance;
    if (isAnother) {
      this.instance = state.instance;
      this.attempts = 0;
    }
    const shown = isFirst ? (state.conversationId ?? this.bridge.kept.conversationId) : null;
    if (shown && !this.conversationId) this.open(shown);
    else if (isAnother) this.subscribe();
    if (this.agent) this.mode = this.agent.mode;
    if (isAnother) {
      for (const prompt of this.outbox) this.act(this.deliver(prompt));
      this.act(this.loadPersonas());
    }
  }

  private event(event: Event): void {
    if (event.conversationId !== this.conversationId || this.subscribing) return;
    if (this.transcript.apply(event) === "hole") {
      if ((this.attempts += 1) <= MOST_ATTEMPTS) this.subscribe();
      return;
    }
    if (event.type !== "delta") this.attempts = 0;
    switch (event.type) {
      case "turnQueued":
      case "turnStarted":
      case "queueChanged":
        this.act(this.loadQueue());
        break;
      case "toolFinished":
        this.outputs.end(event.toolCallId);
        break;
      case "turnEnded":
        this.outputs.clear();
        if (event.error && !event.replyId) this.failure = failureOf(event.error, event.messageId);
        this.act(this.loadQueue());
        break;
      case "titleChanged":
        this.title = event.title ?? null;
        break;
      case "modeChanged":
        this.mode = event.mode;
        break;
    }
  }

  private changed(): void {
    for (const watcher of this.watchers) watcher();
  }
}

function failureOf(error: TurnError, messageId: string): Failure {
  return { message: error.message, hint: error.hint ?? undefined, messageId };
}
