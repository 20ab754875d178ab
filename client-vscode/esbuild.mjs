// Bundles the extension (for Node, in the extension host) and the chat's document (for a browser).
import { context, build } from "esbuild";
import { cp, mkdir } from "node:fs/promises";

const watch = process.argv.includes("--watch");
const common = { bundle: true, minify: !watch, sourcemap: watch, legalComments: "none", logLevel: "warning" };

const bundles = [
  {
    ...common,
    entryPoints: ["src/extension.ts"],
    outfile: "dist/extension.cjs",
    platform: "node",
    format: "cjs",
    target: "node20",
    external: ["vscode"],
  },
  {
    ...common,
    entryPoints: { chat: "webview/main.tsx" },
    outdir: "dist",
    platform: "browser",
    format: "iife",
    target: "chrome128",
    loader: { ".ttf": "file" },
    assetNames: "[name]",
  },
];

await mkdir("dist", { recursive: true });
for (const name of ["codicon.css", "codicon.ttf"]) {
  await cp(`node_modules/@vscode/codicons/dist/${name}`, `dist/${name}`);
}
if (watch) {
  for (const bundle of bundles) await (await context(bundle)).watch();
} else {
  await Promise.all(bundles.map((bundle) => build(bundle)));
}
