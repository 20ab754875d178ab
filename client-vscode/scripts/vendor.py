"""Fills `bundle/` with the sidecar and what it needs: `python scripts/vendor.py TARGET`.

`libs` holds what is pure Python, `libs-cp311` and so on the packages with compiled modules, one
folder for each version of Python, for one platform. All of it is compiled to bytecode by every
version of Python that this machine has, in a form that stays valid wherever it is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

CLIENT = Path(__file__).resolve().parent.parent
ROOT = CLIENT.parent
BUNDLE = CLIENT / "bundle"
LIBS = BUNDLE / "libs"
STAMP = BUNDLE / "libs.stamp"

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
OLDEST = PYTHONS[0]
PLATFORMS = {
    "linux-x64": ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64"],
    "linux-arm64": ["manylinux_2_28_aarch64", "manylinux_2_17_aarch64"],
    "alpine-x64": ["musllinux_1_2_x86_64"],
    "alpine-arm64": ["musllinux_1_2_aarch64"],
    "darwin-x64": ["macosx_11_0_x86_64"],
    "darwin-arm64": ["macosx_11_0_arm64"],
    "win32-x64": ["win_amd64"],
    "win32-arm64": ["win_arm64"],
}
"""The platforms of the Marketplace, as the tags of their wheels."""

LEFT_OUT = {"pip", "rich", "pygments", "markdown-it-py", "mdurl"}
"""sqlite-utils asks for pip for a command of its own; the others draw the sidecar's terminal."""
METADATA = {"METADATA", "entry_points.txt", "top_level.txt"}


def main(args: list[str]) -> None:
    if len(args) != 1 or args[0] not in PLATFORMS:
        sys.exit(f"usage: vendor.py {'|'.join(PLATFORMS)}")
    inputs = digest(args[0])
    if STAMP.exists() and STAMP.read_text() == inputs:
        drop_other_bytecode()
        return
    for folder in [LIBS, *BUNDLE.glob("libs-*")]:
        shutil.rmtree(folder, ignore_errors=True)
    STAMP.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip("wheel", "--no-deps", "--wheel-dir", scratch, str(ROOT))
        (wheel,) = Path(scratch).glob("*.whl")
        versions = constraints(wheel, Path(scratch))
        install(LIBS, OLDEST, PLATFORMS[args[0]], "--constraint", str(versions), str(wheel))
    for package in [d for d in packages() if d.metadata["Name"].lower() in LEFT_OUT]:
        remove(package)
    vendor_compiled(args[0])
    for folder in [LIBS, *BUNDLE.glob("libs-*")]:
        tidy(folder)
    compile_all()
    STAMP.write_text(inputs)


def digest(target: str) -> str:
    """Of everything that the bundle is made from, as far as it is ours."""
    files = [Path(__file__), ROOT / "pyproject.toml", *sorted((ROOT / "sidecar").rglob("*.py"))]
    sums = {str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    whole = json.dumps([target, sorted(interpreters()), sums])
    return hashlib.sha256(whole.encode()).hexdigest()


def constraints(wheel: Path, scratch: Path) -> Path:
    """The versions that also fit the libraries for models: an interpreter that has them gets our
    packages before its own. Looked up for this platform, as not all of them are there for each."""
    report, file = scratch / "report.json", scratch / "constraints.txt"
    dry = ["--dry-run", "--ignore-installed", "--report", str(report)]
    install(scratch / "nothing", OLDEST, [], *dry, f"agent-sidecar[llm] @ {wheel.as_uri()}")
    found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    pinned = [f"{m['name']}=={m['version']}" for m in found if m["name"] != "agent-sidecar"]
    file.write_text("\n".join(pinned))
    return file


def install(folder: Path, version: str, tags: list[str], *args: str) -> None:
    where = [item for tag in tags for item in ("--platform", tag)]
    python = ["--implementation", "cp", "--python-version", version, "--only-binary=:all:"]
    quiet = ["--no-compile", "--no-warn-conflicts"]
    pip("install", *quiet, "--target", str(folder), *where, *python, *args)


def pip(*args: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.check_call([sys.executable, "-I", "-m", "pip", args[0], *quiet, *args[1:]])


def packages() -> list[Distribution]:
    return list(distributions(path=[str(LIBS)]))


def vendor_compiled(target: str) -> None:
    """Move the packages with compiled modules to a folder for each version of Python."""
    for package in packages():
        if any(file.suffix in (".so", ".pyd") for file in package.files or ()):
            name, release = package.metadata["Name"], package.version
            remove(package)
            for version in PYTHONS:
                folder = BUNDLE / f"libs-cp{version.replace('.', '')}"
                install(folder, version, PLATFORMS[target], "--no-deps", f"{name}=={release}")


def remove(package: Distribution) -> None:
    for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        path = LIBS / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def tidy(folder: Path) -> None:
    """Leave out programs, stubs, and pip's notes of the installation, which name this machine."""
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for stub in folder.rglob("*.pyi"):
        stub.unlink()
    for info in folder.glob("*.dist-info"):
        for file in info.iterdir():
            if file.is_file() and file.name not in METADATA and "LICEN" not in file.name.upper():
                file.unlink()


def compile_all() -> None:
    """The paths that go into the bytecode are replaced by the importer at run time."""
    for version, python in interpreters().items():
        for folder in (LIBS, BUNDLE / f"libs-cp{version.replace('.', '')}"):
            how = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(folder)]
            subprocess.check_call([python, "-I", "-m", "compileall", *how, str(folder)])
    print_line(f"Bytecode for Python {', '.join(interpreters())}")


def drop_other_bytecode() -> None:
    """What was written since by a Python that ran the bundle and is none of those here."""
    ours = {f"cpython-{version.replace('.', '')}" for version in interpreters()}
    for file in BUNDLE.rglob("*.pyc"):
        if file.suffixes[-2].lstrip(".") not in ours:
            file.unlink()


def interpreters() -> dict[str, str]:
    return dict(_interpreters())


def _interpreters() -> Iterator[tuple[str, str]]:
    for version in PYTHONS:
        for name in (sys.executable, f"python{version}"):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            path = shutil.which(name)
            if path is None:
                continue
            said = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True)
            if said.stdout.strip() == version:
                yield version, path
                break


def print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
