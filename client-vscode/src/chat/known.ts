/** What is known of the sidecar: asked for once, kept true by what it says from then on. */
import type { AgentInfo, Approval, Event, Methods, Problem, Settings } from "../protocol";
import type { Step } from "../shared/messages";

export type Ask = <M extends keyof Methods>(method: M, params: Methods[M]["params"]) => Promise<Methods[M]["result"]>;

export class Known {
  settings: Settings | null = null;
  secretsPresent: string[] = [];
  problems: Problem[] = [];
  agents: Record<string, AgentInfo> = {};
  approvals: Approval[] = [];
  progress: Record<string, Step> = {};

  constructor(private readonly ask: Ask) {}

  /** Each as it comes: an answer that waited for the others would undo what was heard since. */
  async learn(): Promise<void> {
    await Promise.all([
      this.ask("settings/get", {}).then((shown) => {
        this.settings = shown.settings;
        this.secretsPresent = shown.secretsPresent;
        this.problems = shown.problems;
      }),
      this.ask("agent/list", {}).then(({ agents }) => {
        this.agents = Object.fromEntries(agents.map((agent) => [agent.conversationId, agent]));
      }),
      this.learnApprovals(),
    ]);
  }

  /** Returns those that were not known. */
  async learnApprovals(): Promise<Approval[]> {
    const { approvals } = await this.ask("approval/list", {});
    const fresh = approvals.filter((approval) => !this.has(approval));
    this.approvals = approvals;
    return fresh;
  }

  /** The process has ended, and with it what ran and what was asked. Settings stay. */
  lose(): void {
    this.agents = {};
    this.approvals = [];
    this.progress = {};
  }

  agentChanged(agent: AgentInfo): void {
    const { [agent.conversationId]: _, ...others } = this.agents;
    this.agents = agent.state === "CLOSED" ? others : { ...others, [agent.conversationId]: agent };
  }

  /** False: it was known. */
  asked(approval: Approval): boolean {
    if (this.has(approval)) return false;
    this.approvals = [...this.approvals, approval];
    return true;
  }

  settled(approvalId: string): void {
    this.approvals = this.approvals.filter((open) => open.approvalId !== approvalId);
  }

  progressed({ conversationId, turnId, done, total, label }: Extract<Event, { type: "progress" }>): void {
    this.progress = { ...this.progress, [conversationId]: { turnId, done, total, label } };
  }

  /** False: that was no turn of many steps. */
  ended({ conversationId, turnId }: Extract<Event, { type: "turnEnded" }>): boolean {
    const { [conversationId]: step, ...others } = this.progress;
    if (!step || step.turnId !== turnId) return false;
    this.progress = others;
    return true;
  }

  /** Conversations in which something goes on here, or a question is open anywhere. */
  get lively(): Set<string> {
    const busy = Object.values(this.agents).filter((agent) => agent.ownedHere && agent.isProcessing);
    return new Set([...busy, ...this.approvals].map(({ conversationId }) => conversationId));
  }

  private has({ approvalId }: Approval): boolean {
    return this.approvals.some((open) => open.approvalId === approvalId);
  }
}
