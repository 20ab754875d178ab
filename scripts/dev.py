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
    install_node()


def test(args):
    """Lint, types, schemas, and every test."""
    setup([])
    check([])
    step("tests", [str(PYTHON), "-m", "pytest", *args])


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
    """The experiments behind the promises at full length: about an hour on two cores."""
    install("llm,test")
    step("faults", [str(PYTHON), "-m", "tests.faults", *args])


def step(name, command):
    print(f"── {name}", flush=True)
    code = subprocess.call(command, cwd=str(ROOT))
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


def install_node():
    """What the tests need of npm. Without Node they say so and skip (in CI they fail)."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm was not found: the tests that need Node 20 will be skipped.", flush=True)
    elif not (NODE_TESTS / "node_modules").exists():
        print("Installing the Node packages of the tests …", flush=True)
        subprocess.check_call([npm, "ci", "--no-audit", "--no-fund"], cwd=str(NODE_TESTS))


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
