/**
 * Runs the end-to-end tests: `npm run e2e`, with names of test files to run those alone.
 *
 * `E2E_VSCODE=oldest` takes the oldest VS Code that is promised, and fewer tests. Where something
 * is missing that cannot be installed they are skipped, with the reason; in CI that is a failure.
 */
import { spawnSync } from "node:child_process";
import path from "node:path";

import { build } from "../scripts/vsix.mjs";
import { setUp } from "./setup.mjs";
import { isNewest, missing, root } from "./tools.mjs";

/** What touches the editor's own API; the rest does not depend on its version. */
const FOR_OLDEST = ["vsix", "chat", "survival", "editor", "approval", "acting", "inhost"];
const FOR_NEWEST = [...FOR_OLDEST, "windows", "trust", "secrets", "large", "participant", "git", "pictures"];

const reason = missing();
if (reason) {
  console.log(`The end-to-end tests are skipped: ${reason}.`);
  process.exit(process.env.CI ? 1 : 0);
}
setUp();
build();
const asked = process.argv.slice(2);
const names = asked.length ? asked : isNewest ? FOR_NEWEST : FOR_OLDEST;
const files = names.map((name) => path.join("e2e", `${name}.test.mjs`));
const { status } = spawnSync(process.execPath, ["--test", "--test-concurrency=1", "--test-reporter=spec", ...files], {
  cwd: root,
  stdio: "inherit",
});
process.exit(status ?? 1);
