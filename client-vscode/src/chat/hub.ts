/**
 * What all documents of the chat have in common: the sidecar, and what is known of it now. No
 * conversation hangs on a document; each comes and goes and asks for what it missed.
 */
import type { CancellationToken } from "vscode-jsonrpc";

import type { AgentInfo, Approval, Event, Methods, Problem, ServerNotifications, Settings } from "../protocol";
import type { OfEditor, Params, Result, State, ToView } from "../shared/messages";
import { SidecarGone, type Sidecar } from "../sidecar/sidecar";
import { modelOf } from "../sidecar/models";
import { Deletions } from "./deletions";
import { Following, type Reader } from "./following";
import { Known } from "./known";
import { Link, type LinkHost, type Place } from "./link";

/** What outlives the window, by a name: VS Code's own storage of a workspace. */
export interface Memory {
  get<T>(key: string): T | undefined;
  update(key: string, value: unknown): Thenable<void>;
}

export type Actions = {
  [M in OfEditor]: (params: Params<M>, link: Link) => Promise<Result<M>>;
};

export interface HubHost {
  sidecar: Sidecar;
  memory: Memory;
  isTrusted(): boolean;
  editor(): State["editor"];
  actions: Omit<Actions, keyof ReturnType<Hub["ownActions"]>>;
  warn(message: string): void;
  /** Something that the user has to read. */
  alarm(message: string): void;
  /** An agent asks something, and no document is there to show it. */
  asked(question: Approval): void;
  /** State that is shown outside of the documents has changed. */
  changed(): void;
}

const DRAFTS = "drafts";
const SHOWN = "shown";

export class Hub implements LinkHost {
  private readonly links = new Set<Link>();
  /** The one that was used last. */
  private used: Link | null = null;
  private readonly known = new Known((method, params) => this.request(method, params));
  private readonly following = new Following({
    isShown: (conversationId) => [...this.links].some((link) => link.follows.has(conversationId)),
    subscribe: (conversationId) => void this.subscribe(conversationId),
    unsubscribe: (conversationId) => void this.unsubscribe(conversationId),
  });
  private readonly deletions: Deletions;
  private readonly actions: Actions;
  private drafts: Record<string, string>;
  private hasSelection = false;
  /** These wait for a document: a command that opens the chat comes before its document does. */
  private letters: ToView[] = [];

  constructor(private readonly host: HubHost) {
    this.drafts = host.memory.get(DRAFTS) ?? {};
    this.deletions = new Deletions(
      async (conversationId) => {
        await this.request("conversation/delete", { conversationId });
        await this.keepDraft(conversationId, "");
      },
      () => this.show(),
      (error) => host.alarm(`A conversation could not be deleted: ${error.message}`),
    );
    this.actions = { ...host.actions, ...this.ownActions() };
  }

  // ---- documents ----

  link(
    name: string,
    post: (message: ToView) => void,
    { shown, ...place }: Place & { shown?: string | null } = {},
  ): Link {
    const link = new Link(name, this, post, place);
    link.shown = shown ?? this.host.memory.get<string>(SHOWN) ?? null;
    this.links.add(link);
    return link;
  }

  unlink(link: Link): void {
    link.end();
    this.links.delete(link);
    if (this.used === link) this.used = null;
  }

  /** What is asked without naming a document, or a conversation, means this one. */
  use(link: Link): void {
    if (this.used === link) return;
    this.used = link;
    this.host.changed();
  }

  appeared(link: Link): void {
    this.host.sidecar.notify("webview/didReconnect", { webviewId: link.webviewId });
    for (const letter of this.letters.splice(0)) link.send(letter);
  }

  vanished(link: Link): void {
    this.host.sidecar.notify("webview/didDisconnect", { webviewId: link.webviewId });
  }

  forsaken(conversationId: string): void {
    this.following.forsaken(conversationId);
  }

  /** To the document that is used, or another that is there. False: to the first that comes. */
  deliver(letter: ToView): boolean {
    const there = [this.used, ...this.links].find((link) => link?.isVisible);
    if (!there) {
      this.letters.push(letter);
      return false;
    }
    there.send(letter);
    there.place.reveal?.();
    return true;
  }

  /** Hear what is said in a conversation, until it is disposed of. */
  read(conversationId: string, reader: Reader): { dispose(): void } {
    return this.following.read(conversationId, reader);
  }

  warn(message: string): void {
    this.host.warn(message);
  }

  // ---- what is known ----

  /** The conversation in the document that was used last. */
  get shown(): string | null {
    return this.used ? this.used.shown : (this.host.memory.get<string>(SHOWN) ?? null);
  }

  agent(conversationId: string | null): AgentInfo | null {
    return conversationId === null ? null : (this.known.agents[conversationId] ?? null);
  }

  get questions(): number {
    return this.known.approvals.length;
  }

  /** Whether text is selected is shown; where it is, is not. */
  selectionMoved(isEmpty: boolean): void {
    if (this.hasSelection === !isEmpty) return;
    this.hasSelection = !isEmpty;
    this.show();
  }

  get model(): string {
    return this.known.settings ? modelOf(this.known.settings) : "";
  }

  get currentSettings(): Settings | null {
    return this.known.settings;
  }

  state(link: Link): State {
    const { connection, instance, storeId, degraded } = this.host.sidecar;
    const { settings, secretsPresent, problems, agents, approvals, progress } = this.known;
    return {
      connection,
      instance,
      storeId,
      degraded,
      settings,
      secretsPresent,
      problems,
      model: this.model,
      trusted: this.host.isTrusted(),
      agents,
      approvals,
      progress,
      deleting: this.deletions.ids,
      editor: this.host.editor(),
      conversationId: link.shown,
      drafts: this.drafts,
    };
  }

  /** Show all documents how it stands. */
  show(): void {
    for (const link of this.links) link.showState();
    this.host.changed();
  }

  /** The sidecar's process has changed: what is known of it is asked for again. */
  async sidecarChanged(): Promise<void> {
    if (this.host.sidecar.connection.kind !== "ready") {
      this.known.lose();
      this.show();
      return;
    }
    for (const link of this.links) link.follows.clear(); // each subscribes again
    this.following.startAnew();
    await this.learn();
  }

  /** Settings, agents and open questions, as the sidecar has them. */
  async learn(): Promise<void> {
    await this.trying("state", () => this.known.learn());
    this.livelinessChanged();
  }

  /** Settings that were not taken. Returns what was not known to be wrong with them. */
  refused(problems: Problem[]): Problem[] {
    const known = this.known.problems;
    if (problems.length > 0) this.known.problems = problems;
    this.show();
    return problems.filter(({ field }) => !known.some((one) => one.field === field));
  }

  heard<M extends keyof ServerNotifications>(method: M, params: ServerNotifications[M]): void {
    if (method === "conversation/event") this.event(params as Event);
    else if (method === "agent/state") this.agentChanged(params as AgentInfo);
    else if (method === "tool/output") {
      for (const link of this.links) link.output(params as ServerNotifications["tool/output"]);
    } else if (method === "conversations/changed") {
      const { changeNo } = params as ServerNotifications["conversations/changed"];
      this.sendAll({ type: "changed", changeNo });
    } else if (method === "conversation/resync") {
      const { conversationId } = params as ServerNotifications["conversation/resync"];
      for (const link of this.links) {
        if (link.follows.has(conversationId)) link.send({ type: "resync", conversationId });
      }
    }
  }

  dispose(): void {
    this.deletions.dispose();
  }

  // ---- asking ----

  request<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    token?: CancellationToken,
  ): Promise<Methods[M]["result"]> {
    return this.host.sidecar.request(method, params, token);
  }

  async act<M extends OfEditor>(link: Link, method: M, params: Params<M>): Promise<Result<M>> {
    this.use(link);
    return this.actions[method](params, link);
  }

  ownActions() {
    return {
      "chat/delete": async ({ conversationId }: { conversationId: string }) => {
        this.deletions.begin(conversationId);
        return DONE;
      },
      "chat/undoDelete": async ({ conversationId }: { conversationId: string }) => {
        if (!this.deletions.undo(conversationId)) throw new Error("It has been deleted already.");
        return DONE;
      },
      "chat/show": async ({ conversationId }: { conversationId: string | null }, link: Link) => {
        link.shown = conversationId;
        if (!link.place.isTab) await this.host.memory.update(SHOWN, conversationId ?? undefined);
        this.host.changed();
        return DONE;
      },
      "chat/draft": async ({ conversationId, text }: { conversationId: string; text: string }) => {
        await this.keepDraft(conversationId, text);
        return DONE;
      },
    } as const;
  }

  private async keepDraft(conversationId: string, text: string): Promise<void> {
    const { [conversationId]: _, ...others } = this.drafts;
    this.drafts = text ? { ...others, [conversationId]: text } : others;
    await this.host.memory.update(DRAFTS, this.drafts);
  }

  /** What was asked before it was followed is not said again. */
  private async subscribe(conversationId: string): Promise<void> {
    await this.trying("subscribe", async () => {
      await this.request("conversation/subscribe", { conversationId });
      for (const question of await this.known.learnApprovals()) this.announce(question);
    });
    this.livelinessChanged();
  }

  private async unsubscribe(conversationId: string): Promise<void> {
    if (this.host.sidecar.connection.kind !== "ready") return;
    await this.trying("unsubscribe", () => this.request("conversation/unsubscribe", { conversationId }));
  }

  /** What fails because the sidecar has gone is done again for the next. */
  private async trying(what: string, action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof SidecarGone)) this.warn(`${what}: ${(error as Error).message}`);
    }
  }

  // ---- what the sidecar says ----

  private event(event: Event): void {
    for (const link of this.links) link.event(event);
    this.following.hear(event);
    if (event.type === "approvalRequested") {
      if (this.known.asked(event.approval)) this.announce(event.approval);
      this.livelinessChanged();
    } else if (event.type === "approvalResolved") {
      this.known.settled(event.approvalId);
      this.livelinessChanged();
    } else if (event.type === "progress") {
      this.known.progressed(event);
      this.show();
    } else if (event.type === "turnEnded" && this.known.ended(event)) this.show();
  }

  private agentChanged(agent: AgentInfo): void {
    this.known.agentChanged(agent);
    this.livelinessChanged();
  }

  /**
   * A turn that goes on while nobody looks may have a question, and one that is open somewhere is
   * answered somewhere: both are told to those only who follow the conversation.
   */
  private livelinessChanged(): void {
    this.following.attend(this.known.lively);
    this.show();
  }

  /** A question of this window's agents that nobody would see. */
  private announce(question: Approval): void {
    const isSeen = [...this.links].some((link) => link.isVisible);
    if (!isSeen && this.agent(question.conversationId)?.ownedHere) this.host.asked(question);
  }

  private sendAll(message: ToView): void {
    for (const link of this.links) link.send(message);
  }
}

const DONE = { ok: true } as const;
