/** A plan as the sidecar asks about it: a summary, numbered steps, and the command that verifies. */
export interface Plan {
  summary: string;
  steps: string[];
  verify: string | null;
}

const VERIFY = "Verify with: ";

/** Null: that is no plan, and is shown as it is. Nothing of the text is left out. */
export function planOf(text: string): Plan | null {
  const summary: string[] = [];
  const steps: string[][] = [];
  let verify: string | null = null;
  for (const line of text.split("\n")) {
    const number = `${steps.length + 1}. `;
    if (verify !== null) verify += `\n${line}`;
    else if (line.startsWith(number)) steps.push([line.slice(number.length)]);
    else if (steps.length > 0 && line.startsWith(VERIFY)) verify = line.slice(VERIFY.length);
    else (steps.at(-1) ?? summary).push(line);
  }
  if (steps.length === 0) return null;
  const whole = (lines: string[]) => lines.join("\n").trim();
  return { summary: whole(summary), steps: steps.map(whole), verify };
}
