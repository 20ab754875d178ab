/**
 * Keys. They are kept by the editor's own store of secrets and handed over in `initialize` and
 * `settings/update`; nothing else ever holds one.
 */
import type { SecretsPatch } from "../protocol";
import { PROVIDERS } from "../sidecar/models";

export type SecretName = keyof SecretsPatch;

export interface SecretStore {
  get(key: string): Thenable<string | undefined>;
  store(key: string, value: string): Thenable<void>;
  delete(key: string): Thenable<void>;
}

export const SECRETS: Record<SecretName, { label: string; variable: string }> = {
  anthropicApiKey: { label: "Anthropic API key", variable: "ANTHROPIC_API_KEY" },
  geminiApiKey: { label: "Gemini API key", variable: "GEMINI_API_KEY" },
  openaiApiKey: { label: "OpenAI API key", variable: "OPENAI_API_KEY" },
  awsAccessKey: { label: "AWS access key id", variable: "AWS_ACCESS_KEY_ID" },
  awsSecretKey: { label: "AWS secret access key", variable: "AWS_SECRET_ACCESS_KEY" },
  awsSessionToken: { label: "AWS session token", variable: "AWS_SESSION_TOKEN" },
};

export const SECRET_NAMES = Object.keys(SECRETS) as SecretName[];

/** Where a key is kept. */
export function keyOf(name: SecretName): string {
  return `agentSidecar.${name}`;
}

/** The store took a key and does not have it: some Linux desktops have no keyring. */
export class SecretLost extends Error {
  constructor(readonly secret: SecretName) {
    const { label, variable } = SECRETS[secret];
    super(
      `The ${label} could not be kept: this machine has no working keyring. It is used until the ` +
        `window closes. To keep it, set the environment variable ${variable} before you start the editor.`,
    );
  }
}

/**
 * What the sidecar is given: what is kept, else what the environment says. `passing` holds keys
 * that could not be kept.
 */
export async function secretsOf(
  store: SecretStore,
  env: NodeJS.ProcessEnv,
  passing: SecretsPatch = {},
): Promise<SecretsPatch> {
  const found = await Promise.all(
    SECRET_NAMES.map(async (name) => {
      const value = passing[name] ?? (await store.get(keyOf(name))) ?? env[SECRETS[name].variable];
      return [name, value || null] as const;
    }),
  );
  return Object.fromEntries(found);
}

/** Keep a key, and look whether it was kept. Raises `SecretLost`. */
export async function keep(store: SecretStore, name: SecretName, value: string): Promise<void> {
  await store.store(keyOf(name), value);
  if ((await store.get(keyOf(name))) !== value) throw new SecretLost(name);
}

/** The keys that a provider needs; all of them where it is not known or needs none. */
export function secretsFor(provider: string | undefined): SecretName[] {
  const needed = PROVIDERS.find((known) => known.id === provider)?.secrets ?? [];
  return needed.length ? needed : SECRET_NAMES;
}

/** A key as it was pasted, without what comes along with it; null if that cannot be one. */
export function asKey(pasted: string): string | null {
  const key = pasted.trim().replace(/^["']|["']$/g, "");
  return key && /^[\x21-\x7e]+$/.test(key) ? key : null;
}
