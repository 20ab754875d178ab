#!/usr/bin/env python3
"""Everything a contributor or CI does, in one place: `python3 scripts/dev.py run|test|check|…`.

Runs under any Python 3.8+, looks for one that the project can use (3.11+), makes `.venv` with
it and installs what the command needs; the second time it starts at once. The same on Linux,
macOS and Windows.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
NODE_TESTS = ROOT / "tests" / "node"
CLIENT = ROOT / "client-vscode"
NEEDED = (3, 11)


def main(args):
    commands = {
        "setup": setup,
        "run": run,
        "test": test,
        "check": check,
        "schemas": schemas,
        "bench": bench,
        "faults": faults,
        "client": client,
        "vsix": vsix,
    }
    if not args or args[0] not in commands:
        sys.exit(f"usage: dev.py {'|'.join(commands)} [arguments]")
    commands[args[0]](args[1:])


def run(args):
    """Open the terminal chat in the folder that make was called in."""
    install("")
    os.chdir(os.environ.get("SIDECAR_FOLDER", os.getcwd()))
    sys.exit(subprocess.call([str(PYTHON), "-m", "sidecar", *(args or ["chat"])]))


def setup(args):
    install("llm,test")
    install_node(NODE_TESTS)


def test(args):
    """Lint, types, schemas, and every test."""
    setup([])
    check([])
    step("tests", [str(PYTHON), "-m", "pytest", *args])
    client([])


def check(args):
    install("llm,test")
    step("format", [str(PYTHON), "-m", "ruff", "format", "--check", "."])
    step("lint", [str(PYTHON), "-m", "ruff", "check", "."])
    step("types", [str(PYTHON), "-m", "mypy"])
    step("schemas", [str(PYTHON), "scripts/generate_schemas.py", "--check"])


def schemas(args):
    install("llm,test")
    step("schemas", [str(PYTHON), "scripts/generate_schemas.py"])
    step("requirements", [str(PYTHON), "-m", "tests.requirements"])


def bench(args):
    install("llm,test")
    step("bench", [str(PYTHON), "-m", "bench", *args])


def faults(args):
    """The experiments behind the promises at full length: about two hours on two cores."""
    install("llm,test")
    step("faults", [str(PYTHON), "-m", "tests.faults", *args])


def client(args):
    """The VS Code extension: types, units, the chat in a browser, all of it in an editor."""
    npm = shutil.which("npm")
    if npm is None:
        print("The extension was not tested: npm was not found; install Node 20.", flush=True)
        if os.environ.get("CI"):
            sys.exit(1)
        return
    install("llm,test")
    install_node(CLIENT)
    step("extension: types", [npm, "run", "--silent", "check"], CLIENT)
    step("extension: units and browser", [npm, "test", "--silent"], CLIENT)
    for edition in ("newest", "oldest"):
        name = f"extension: in the {edition} VS Code"
        if not os.environ.get("CI") and not (CLIENT / ".e2e-tools" / edition).exists():
            print(f"── {name}: skipped; `npm run e2e` in client-vscode installs one (300 MB)")
            continue
        step(name, [npm, "run", "--silent", "e2e"], CLIENT, E2E_VSCODE=edition)


def vsix(args):
    """The VS Code extension as a package, with the sidecar in it."""
    node = shutil.which("node") or sys.exit("Node 20 or newer is needed; install it first.")
    install("")
    install_node(CLIENT)
    step("vsix", [node, str(CLIENT / "scripts" / "vsix.mjs"), *args])


def step(name, command, folder=ROOT, **env):
    print(f"── {name}", flush=True)
    code = subprocess.call(command, cwd=str(folder), env={**os.environ, **env})
    if code:
        sys.exit(f"{name} failed (exit code {code})")


def install(extras):
    """Make the environment, or bring it up to date when pyproject.toml or the extras changed."""
    stamp = VENV / ".installed"
    wanted = set(filter(None, extras.split(",")))
    have = stamp.read_text().split("\n") if stamp.exists() and PYTHON.exists() else ["", ""]
    wanted |= set(filter(None, have[1].split(",")))
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if have[0] == digest and wanted == set(filter(None, have[1].split(","))):
        return
    if not PYTHON.exists():
        print("Making .venv …", flush=True)
        subprocess.check_call([find_python(), "-m", "venv", str(VENV)])
    names = ",".join(sorted(wanted))
    print(f"Installing {'the ' + names + ' set' if names else 'the sidecar'} …", flush=True)
    target = f".[{names}]" if names else "."
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.call([*command, "--editable", target], cwd=str(ROOT)):
        sys.exit("The installation failed; pip says why above. Is there a network?")
    stamp.write_text(f"{digest}\n{names}")


def install_node(folder):
    """What a folder needs of npm. Without Node the tests say so and skip (in CI they fail)."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm was not found: what needs Node 20 will be skipped.", flush=True)
    elif not (folder / "node_modules").exists():
        print(f"Installing the Node packages of {folder.name} …", flush=True)
        subprocess.check_call([npm, "ci", "--no-audit", "--no-fund"], cwd=str(folder))


def find_python():
    for name in (sys.executable, "python3.13", "python3.12", "python3.11", "python3", "python"):
        path = shutil.which(name)
        if (
            path
            and subprocess.call(
                [path, "-c", f"import sys, venv, ensurepip; sys.exit(sys.version_info < {NEEDED})"],
                stderr=subprocess.DEVNULL,
            )
            == 0
        ):
            return path
    sys.exit(f"Python {NEEDED[0]}.{NEEDED[1]} or newer with venv is needed; install it first.")


if __name__ == "__main__":
    main(sys.argv[1:])
