/**
 * Makes the extension's package: `node scripts/vsix.mjs [target]`, for this platform by default.
 *
 * The package holds the sidecar with its dependencies (`vendor.py`), of which one is compiled:
 * so there is one package for each platform.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** @returns {string} this platform, as the Marketplace names it */
export function thisPlatform() {
  const report = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (
    process.report?.getReport()
  );
  const isMusl = process.platform === "linux" && !report.header.glibcVersionRuntime;
  return `${isMusl ? "alpine" : process.platform}-${process.arch}`;
}

/** @param {string} target */
export function packagePath(target) {
  return path.join(root, "build", `agent-sidecar-${target}.vsix`);
}

/** @param {string} target */
export function build(target = thisPlatform()) {
  run(process.execPath, ["esbuild.mjs"]);
  run(python(), ["scripts/vendor.py", target]);
  writeFileSync(path.join(root, "ThirdPartyNotices.txt"), notices());
  const out = packagePath(target);
  mkdirSync(path.dirname(out), { recursive: true });
  const vsce = path.join(root, "node_modules/@vscode/vsce/vsce");
  const options = ["--no-dependencies", "--allow-missing-repository", "--no-rewrite-relative-links"];
  run(process.execPath, [vsce, "package", ...options, "--target", target, "--out", out]);
  console.log(`${path.relative(root, out)}: ${(statSync(out).size / 1024 ** 2).toFixed(1)} MB`);
  return out;
}

/** The Python that packs: it needs pip, and to be one that the sidecar runs on. */
function python() {
  const inEnvironment = process.platform === "win32" ? "Scripts/python.exe" : "bin/python";
  const ours = path.resolve(root, "../.venv", inEnvironment);
  return process.env.PYTHON ?? (existsSync(ours) ? ours : "python3");
}

/** The licences of what esbuild puts into the bundles; those of Python's packages lie beside them. */
function notices() {
  const { dependencies } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  return Object.keys(dependencies)
    .map((name) => `${name}\n${"=".repeat(name.length)}\n\n${licence(name)}`)
    .join("\n\n");
}

/** @param {string} name */
function licence(name) {
  const folder = path.join(root, "node_modules", name);
  const file = readdirSync(folder).find((entry) => /^licen[sc]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file; it has to be looked up and added.`);
  return readFileSync(path.join(folder, file), "utf8").trim();
}

/**
 * Ends here if the program fails: it has said why.
 * @param {string} program
 * @param {string[]} args
 */
function run(program, args) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: "inherit" });
  if (error) console.error(error.message);
  if (status !== 0) process.exit(1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) build(process.argv[2]);
