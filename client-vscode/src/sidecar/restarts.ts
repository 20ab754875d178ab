/** How often a sidecar that ends by itself is started again, and how soon. */

const MOST = 5;
const WITHIN_MILLISECONDS = 3 * 60_000;
const FIRST_DELAY = 250;

export class Restarts {
  private times: number[] = [];

  constructor(private readonly now: () => number = Date.now) {}

  /** Milliseconds to wait before the next start; null: it has ended too often to try again. */
  next(): number | null {
    const now = this.now();
    this.times = this.times.filter((time) => now - time < WITHIN_MILLISECONDS);
    if (this.times.length >= MOST) return null;
    this.times.push(now);
    return FIRST_DELAY * 2 ** (this.times.length - 1);
  }

  /** The user wants another go. */
  forgive(): void {
    this.times = [];
  }
}
