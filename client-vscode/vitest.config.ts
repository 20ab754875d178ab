import { defineConfig } from "vitest/config";

export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  test: {
    include: ["src/**/*.test.ts", "webview/**/*.test.{ts,tsx}"],
    testTimeout: 30_000,
    fileParallelism: false,
  },
});
