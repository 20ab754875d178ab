/**
 * What all documents of the chat have in common: the sidecar, and what is known of it now. No
 * conversation hangs on a document; each comes and goes and asks for what it missed.
 */
import type { AgentInfo, Approval, Event, Methods, Problem, ServerNotifications, Settings } from "../protocol";
import type { OfEditor, Params, Result, State, ToView } from "../shared/messages";
import { SidecarGone, type Sidecar } from "../sidecar/sidecar";
import { modelOf } from "../sidecar/models";
import { Deletions } from "./deletions";
import { Link, type LinkHost } from "./link";

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
  /** State that is shown outside of the documents has changed. */
  changed(): void;
}

const DRAFTS = "drafts";
const SHOWN = "shown";

export class Hub implements LinkHost {
  private readonly links = new Set<Link>();
  private readonly deletions: Deletions;
  private readonly actions: Actions;
  private settings: Settings | null = null;
  private secretsPresent: string[] = [];
  private problems: Problem[] = [];
  private agents: Record<string, AgentInfo> = {};
  private approvals: Approval[] = [];
  private drafts: Record<string, string>;
  private hasSelection = false;
  /** Waits for a document: a command that opens the chat comes before its document does. */
  private letter: ToView | null = null;

  constructor(private readonly host: HubHost) {
    this.drafts = host.memory.get(DRAFTS) ?? {};
    this.deletions = new Deletions(
      async (conversationId) => {
        await this.request("conversation/delete", { conversationId });
      },
      () => this.show(),
      (error) => host.alarm(`A conversation could not be deleted: ${error.message}`),
    );
    this.actions = { ...host.actions, ...this.ownActions() };
  }

  // ---- documents ----

  link(webviewId: string, post: (message: ToView) => void, shown: string | null = null): Link {
    const link = new Link(webviewId, this, post);
    link.shown = shown ?? this.host.memory.get<string>(SHOWN) ?? null;
    this.links.add(link);
    return link;
  }

  unlink(link: Link): void {
    link.end();
    this.links.delete(link);
  }

  appeared(link: Link): void {
    this.host.sidecar.notify("webview/didReconnect", { webviewId: link.webviewId });
    if (this.letter) {
      const letter = this.letter;
      this.letter = null;
      queueMicrotask(() => link.send(letter)); // after the state that a document begins with
    }
  }

  vanished(link: Link): void {
    this.host.sidecar.notify("webview/didDisconnect", { webviewId: link.webviewId });
  }

  forsaken(conversationId: string): void {
    if ([...this.links].some((link) => link.follows.has(conversationId))) return;
    if (this.host.sidecar.connection.kind !== "ready") return;
    this.request("conversation/unsubscribe", { conversationId }).catch((error: Error) =>
      this.warn(`unsubscribe: ${error.message}`),
    );
  }

  /** To the documents that are there, or to the first that comes. */
  deliver(letter: ToView): void {
    const there = [...this.links].find((link) => link.isVisible);
    if (there) there.send(letter);
    else this.letter = letter;
  }

  warn(message: string): void {
    this.host.warn(message);
  }

  // ---- what is known ----

  /** The conversation in the document that was used last. */
  get shown(): string | null {
    return this.host.memory.get<string>(SHOWN) ?? null;
  }

  agent(conversationId: string | null): AgentInfo | null {
    return conversationId === null ? null : (this.agents[conversationId] ?? null);
  }

  get questions(): number {
    return this.approvals.length;
  }

  /** Whether text is selected is shown; where it is, is not. */
  selectionMoved(isEmpty: boolean): void {
    if (this.hasSelection === !isEmpty) return;
    this.hasSelection = !isEmpty;
    this.show();
  }

  get model(): string {
    return this.settings ? modelOf(this.settings) : "";
  }

  get currentSettings(): Settings | null {
    return this.settings;
  }

  state(link: Link): State {
    const { connection, instance, storeId, degraded } = this.host.sidecar;
    return {
      connection,
      instance,
      storeId,
      degraded,
      settings: this.settings,
      secretsPresent: this.secretsPresent,
      problems: this.problems,
      model: this.model,
      trusted: this.host.isTrusted(),
      agents: this.agents,
      approvals: this.approvals,
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
      this.agents = {};
      this.show();
      return;
    }
    for (const link of this.links) link.follows.clear(); // each subscribes again
    await this.learn();
  }

  /** Settings, agents and open questions, as the sidecar has them. */
  async learn(): Promise<void> {
    try {
      const [shown, live, open] = await Promise.all([
        this.host.sidecar.request("settings/get", {}),
        this.host.sidecar.request("agent/list", {}),
        this.host.sidecar.request("approval/list", {}),
      ]);
      this.settings = shown.settings;
      this.secretsPresent = shown.secretsPresent;
      this.problems = shown.problems;
      this.agents = Object.fromEntries(live.agents.map((agent) => [agent.conversationId, agent]));
      this.approvals = open.approvals;
    } catch (error) {
      if (!(error instanceof SidecarGone)) this.warn(`state: ${(error as Error).message}`);
    }
    this.show();
  }

  heard<M extends keyof ServerNotifications>(method: M, params: ServerNotifications[M]): void {
    if (method === "conversation/event") this.event(params as Event);
    else if (method === "agent/state") this.agentChanged(params as AgentInfo);
    else if (method === "conversations/changed") {
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
  ): Promise<Methods[M]["result"]> {
    return this.host.sidecar.request(method, params);
  }

  async act<M extends OfEditor>(link: Link, method: M, params: Params<M>): Promise<Result<M>> {
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
        await this.host.memory.update(SHOWN, conversationId ?? undefined);
        this.host.changed();
        return DONE;
      },
      "chat/draft": async ({ conversationId, text }: { conversationId: string; text: string }) => {
        const { [conversationId]: _, ...others } = this.drafts;
        this.drafts = text ? { ...others, [conversationId]: text } : others;
        await this.host.memory.update(DRAFTS, this.drafts);
        return DONE;
      },
    } as const;
  }

  // ---- what the sidecar says ----

  private event(event: Event): void {
    for (const link of this.links) link.event(event);
    if (event.type === "approvalRequested") {
      this.approvals = [...this.approvals, event.approval];
      this.show();
    } else if (event.type === "approvalResolved") {
      this.approvals = this.approvals.filter((open) => open.approvalId !== event.approvalId);
      this.show();
    }
  }

  private agentChanged(agent: AgentInfo): void {
    const { [agent.conversationId]: _, ...others } = this.agents;
    this.agents = agent.state === "CLOSED" ? others : { ...others, [agent.conversationId]: agent };
    this.show();
  }

  private sendAll(message: ToView): void {
    for (const link of this.links) link.send(message);
  }
}

const DONE = { ok: true } as const;
