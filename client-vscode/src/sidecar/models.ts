/** Providers and their models, as a person chooses them. */
import type { SecretsPatch, Settings, SettingsPatch } from "../protocol";

export type Provider = NonNullable<Settings["provider"]>;

export interface ProviderInfo {
  id: Provider;
  label: string;
  detail: string;
  /** The setting that names the model. */
  model?: keyof Settings & keyof SettingsPatch;
  secrets: (keyof SecretsPatch)[];
}

export const PROVIDERS: ProviderInfo[] = [
  {
    id: "offline",
    label: "Offline",
    detail: "No account: answers with passages of your files",
    secrets: [],
  },
  { id: "anthropic", label: "Anthropic", detail: "Claude", model: "anthropicModel", secrets: ["anthropicApiKey"] },
  { id: "gemini", label: "Google", detail: "Gemini", model: "geminiModel", secrets: ["geminiApiKey"] },
  {
    id: "openai",
    label: "OpenAI, or compatible",
    detail: "Also Ollama, llama.cpp, vLLM and gateways, by the setting 'openaiBaseUrl'",
    model: "openaiModel",
    secrets: ["openaiApiKey"],
  },
  {
    id: "bedrock",
    label: "Amazon Bedrock",
    detail: "With keys or a profile of AWS",
    model: "bedrockModel",
    secrets: ["awsAccessKey", "awsSecretKey", "awsSessionToken"],
  },
];

export function providerOf(settings: Settings): ProviderInfo | undefined {
  return PROVIDERS.find((provider) => provider.id === settings.provider);
}

/** The model in use, in a word or two. */
export function modelOf(settings: Settings): string {
  const provider = providerOf(settings);
  if (!provider) return settings.provider ?? "";
  const model = provider.model ? settings[provider.model] : undefined;
  return typeof model === "string" && model ? model : provider.label;
}
