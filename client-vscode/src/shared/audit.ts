/** How an entry of the audit reads. */
import type { AuditEntry } from "../protocol";

/** One entry as one line. */
export function lineOf(entry: AuditEntry): string {
  const when = new Date(entry.at ?? 0).toISOString().replace("T", " ").slice(0, 19);
  const what = [entry.action, entry.tool].filter(Boolean).join(" ");
  const where = [entry.conversationId, entry.otherId].filter(Boolean).join(" → ");
  return `${when}  ${entry.allowed ? "allowed" : "denied "}  ${what.padEnd(24)} ${entry.why.padEnd(12)} ${where}`;
}
