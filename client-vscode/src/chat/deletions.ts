/**
 * Deleting with a time in which it can be undone. What waits is not deleted when the window
 * closes first: nothing is lost that the user did not see go.
 */
export const UNDO_MILLISECONDS = 10_000;

export class Deletions {
  private readonly waiting = new Map<string, NodeJS.Timeout>();

  constructor(
    private readonly carryOut: (conversationId: string) => Promise<void>,
    private readonly changed: () => void,
    private readonly failed: (error: Error) => void = () => undefined,
  ) {}

  get ids(): string[] {
    return [...this.waiting.keys()];
  }

  begin(conversationId: string): void {
    this.undo(conversationId);
    const timer = setTimeout(() => void this.finish(conversationId), UNDO_MILLISECONDS);
    this.waiting.set(conversationId, timer);
    this.changed();
  }

  /** False: it is too late. */
  undo(conversationId: string): boolean {
    clearTimeout(this.waiting.get(conversationId));
    const was = this.waiting.delete(conversationId);
    if (was) this.changed();
    return was;
  }

  dispose(): void {
    for (const timer of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
  }

  /** It stays hidden until it is gone, and comes back if it could not be deleted. */
  private async finish(conversationId: string): Promise<void> {
    try {
      await this.carryOut(conversationId);
    } catch (error) {
      this.failed(error as Error);
    } finally {
      this.waiting.delete(conversationId);
      this.changed();
    }
  }
}
