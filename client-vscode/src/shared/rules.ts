/** What "always allow" would add, in words for who is asked. */
import type { Rule } from "../protocol";

/** A command as one would type it; words that would be read otherwise are quoted. */
export function command(argv: readonly string[]): string {
  return argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

export function conditions({ network, isConfined }: Rule): string {
  return [network ? "with a network" : "", isConfined ? "in the sandbox" : ""].filter(Boolean).join(", ");
}

export function explained(rules: readonly Rule[]): string {
  const lines = rules.map((rule) => {
    const how = conditions(rule);
    return `${command(rule.argv)}${how && `  (${how})`}`;
  });
  const roots = [...new Set(rules.map(({ root }) => root))];
  return ["From now on these run without a question, exactly so:", ...lines, `in ${roots.join(", ")}`].join("\n");
}
