/**
 * Settings of the editor as the sidecar knows them. In a workspace that is not trusted, what the
 * workspace itself says counts for nothing.
 */
import type { SettingsPatch } from "../protocol";

/** One setting as the editor has it, by where it was made. */
export interface Inspected {
  defaultValue?: unknown;
  globalValue?: unknown;
  workspaceValue?: unknown;
  workspaceFolderValue?: unknown;
}

export type Inspect = (name: string) => Inspected | undefined;

/** The sidecar's settings that have one of the same name here. */
export const PASSED_ON = [
  "provider",
  "anthropicModel",
  "anthropicBaseUrl",
  "geminiModel",
  "geminiBaseUrl",
  "openaiModel",
  "openaiBaseUrl",
  "bedrockModel",
  "bedrockBaseUrl",
  "awsRegion",
  "awsProfile",
  "awsUseProfile",
  "temperature",
  "maxOutputTokens",
  "thinking",
  "requestTimeout",
  "maxActiveAgents",
  "inactivityTimeout",
  "lingerTimeout",
  "maxQueueLength",
  "retry",
  "retention",
  "mcpServers",
  "logLevel",
] as const satisfies (keyof SettingsPatch)[];

/** The value that counts, or undefined for the default. */
export function chosen(inspected: Inspected | undefined, isTrusted: boolean): unknown {
  if (!inspected) return undefined;
  const own = isTrusted ? (inspected.workspaceFolderValue ?? inspected.workspaceValue) : undefined;
  return own ?? inspected.globalValue;
}

/**
 * All settings, so that one that was taken back becomes the default again. What is not set and
 * has no default here (`temperature`) is null: the provider's own.
 */
export function settingsOf(inspect: Inspect, isTrusted: boolean): SettingsPatch {
  return Object.fromEntries(
    PASSED_ON.map((name) => {
      const inspected = inspect(name);
      return [name, chosen(inspected, isTrusted) ?? inspected?.defaultValue ?? null];
    }).filter(([name, value]) => value !== null || NULLABLE.has(name as string)),
  ) as SettingsPatch;
}

const NULLABLE = new Set<string>(["temperature", "maxOutputTokens", "thinking"]);
