"""Canary keys through everything that a sidecar does, and a search for them in all that it leaves.

One round plays an editor and a user of the command line against a vendor of our own that echoes
the key in its errors. `Evidence` collects, by channel, all that can be seen from outside: the
store's folder, every stream, exports, log files, and the arguments and environments of every
process below. A key that a user types into a prompt is content and no canary. Linux only.
"""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from tests.e2e.raw_client import RawClient
from tests.faults.canaries import find, make
from tests.providers.dialects import DIALECTS, Call, Stop, Text, said
from tests.providers.vendor_server import CUT, STALL, Answer, VendorServer

VENDORS = ("openai", "anthropic", "gemini", "bedrock")
KEYS_OF = {
    "OPENAI_API_KEY": "API key",
    "ANTHROPIC_API_KEY": "API key",
    "GEMINI_API_KEY": "API key",
    "GOOGLE_API_KEY": "PEM",
    "AWS_ACCESS_KEY_ID": "AWS access key",
    "AWS_SECRET_ACCESS_KEY": "AWS secret key",
    "AWS_SESSION_TOKEN": "JWT",
}
LOOK_EVERY = 0.03
"""Seconds between two looks at the processes below. One that lives shorter is caught by `GIT`."""

GIT = """#!/bin/sh
tr '\\0' '\\n' < /proc/$$/environ > "{folder}/git-environ.$$"
tr '\\0' '\\n' < /proc/$$/cmdline > "{folder}/git-cmdline.$$"
exec {git} "$@"
"""
"""Stands before the real one and writes down what it was given."""


class Evidence:
    """All that was seen, by the channel that it was seen in."""

    def __init__(self) -> None:
        self._seen: dict[str, bytearray] = defaultdict(bytearray)

    def add(self, channel: str, data: bytes | str) -> None:
        self._seen[channel] += data.encode() if isinstance(data, str) else data
        self._seen[channel] += b"\n"

    def add_folder(self, channel: str, folder: Path) -> None:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                self.add(channel, file.name)
                self.add(channel, file.read_bytes())

    def hits(self, canaries: Mapping[str, str]) -> dict[str, set[tuple[str, str]]]:
        found = {name: find(bytes(data), canaries) for name, data in self._seen.items()}
        return {name: some for name, some in found.items() if some}

    @property
    def channels(self) -> set[str]:
        return set(self._seen)

    @property
    def size(self) -> int:
        return sum(map(len, self._seen.values()))


class Watch:
    """Looks at every process below one of ours, again and again, until it is over."""

    def __init__(self, evidence: Evidence, pid: int) -> None:
        self._evidence = evidence
        self._pid = pid
        self._seen: set[tuple[int, str, bytes]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        self._note(self._pid, "cmdline", "argv")  # its environment is ours, and has the keys
        for pid in below(self._pid):
            self._note(pid, "cmdline", "argv")
            # Between fork and exec a child is a copy of the sidecar, whose environment is ours; on
            # a busy machine that takes a while. No process of ours stays one.
            if _read(pid, "cmdline") != _read(self._pid, "cmdline"):
                self._note(pid, "environ", "environ")

    def _note(self, pid: int, name: str, channel: str) -> None:
        data = _read(pid, name)
        if (pid, name, data) not in self._seen:
            self._seen.add((pid, name, data))
            self._evidence.add(channel, data)

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            self.look()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def below(pid: int) -> dict[int, int]:
    """Every process that descends from this one, with its parent."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (text := _read(int(folder.name), "stat")):
            children[int(text.rpartition(b")")[2].split()[1])].append(int(folder.name))
    found, left = {}, [pid]
    while left:
        parent = left.pop()
        found.update(dict.fromkeys(children[parent], parent))
        left += children[parent]
    return found


class Scene:
    """Folders, canaries and a vendor; what happens in them goes to `evidence`."""

    def __init__(self, root: Path, canaries: Mapping[str, str], vendor: str, server: Any) -> None:
        self.evidence = Evidence()
        self.canaries = canaries
        self.vendor = vendor
        self.server: VendorServer = server
        self.store = root / "store" / "conversations.db"
        self.home, self.temp, self.children = root / "home", root / "temp", root / "children"
        self.workspace, self.exports = root / "workspace", root / "exports"
        for folder in (self.home, self.temp, self.children, self.exports, self.workspace):
            folder.mkdir()
        self._make_workspace(root / "bin")
        keys = {variable: canaries[name] for variable, name in KEYS_OF.items()}
        self.env = {
            "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.temp),
            "LANG": "C.UTF-8",
            **keys,
        }
        self.patch = ""
        """A program that changes the sidecar before it starts."""

    def _make_workspace(self, bin: Path) -> None:
        (self.workspace / "notes.md").write_text("The animal is a zebra.\n", encoding="utf-8")
        subprocess.run(["git", "init", "-q", str(self.workspace)], check=True)
        bin.mkdir()
        git = subprocess.check_output(["which", "git"], text=True).strip()
        wrapper = bin / "git"
        wrapper.write_text(GIT.format(folder=self.children, git=git), encoding="utf-8")
        wrapper.chmod(0o755)

    # ---- what is configured ----

    @property
    def secrets(self) -> dict[str, str]:
        of = self.canaries
        return {
            "openaiApiKey": of["API key"],
            "anthropicApiKey": of["API key"],
            "geminiApiKey": of["API key"],
            "awsAccessKey": of["AWS access key"],
            "awsSecretKey": of["AWS secret key"],
            "awsSessionToken": of["JWT"],
        }

    def settings(self, url: str = "", vendor: str = "") -> dict[str, Any]:
        vendor = vendor or self.vendor
        base = (url or self.server.url) + ("/v1" if vendor == "openai" else "")
        retry = {"baseDelay": 1, "maxAttempts": 2}
        return {
            "provider": vendor, f"{vendor}BaseUrl": base, "logLevel": "debug", "retry": retry,
            "lingerTimeout": 0,
        }  # fmt: skip

    def refusal(self, status: int) -> Answer:
        """As vendors do it, only worse: all that they were sent comes back."""
        shown = " ".join(self.canaries.values())
        flat = shown.replace("\n", " ")
        body = {"error": {"message": f"bad key: {shown}", "code": shown, "type": flat}}
        return Answer.json(status, body, x_key=flat, www_authenticate=f"Bearer {flat}")

    def answers(self, *answers: Answer) -> None:
        self.server.answers.clear()
        self.server.will(*answers)
        self.server.repeat = self.refusal(400)

    def hello(self) -> Answer:
        return said(DIALECTS[self.vendor], Text("Hello."), Stop())

    # ---- processes ----

    def argv(self, *arguments: str) -> list[str]:
        if self.patch:
            program = f"{self.patch}\nfrom sidecar.__main__ import main\nmain()"
            return [sys.executable, "-I", "-c", program, *arguments]
        return [sys.executable, "-I", "-m", "sidecar", *arguments]

    @contextmanager
    def editor(self) -> Iterator[RawClient]:
        """A sidecar in an editor whose environment is full of keys."""
        argv = self.argv("serve", "--store", str(self.store))
        client = RawClient(argv, env=self.env, cwd=self.workspace)
        try:
            with Watch(self.evidence, client.process.pid):
                yield client
        finally:
            client.dispose()
            self.note(client)
            assert client.garbage == []

    def note(self, client: RawClient) -> None:
        for message in client.frames:
            kind = "notification" if "method" in message else "result"
            kind = "error" if "error" in message else kind
            self.evidence.add(kind, json.dumps(message, ensure_ascii=False))
        self.evidence.add("stderr", client.stderr)

    def command(self, *arguments: str, input: str = "", keys: str = "") -> int:
        """Run the command line; returns its exit code. `keys` go to descriptor 3."""
        options = ["--store", str(self.store), "--config", str(self.home / "settings.toml")]
        reading, writing = os.pipe()
        os.write(writing, keys.encode())
        os.close(writing)
        if keys:
            options += ["--keys-fd", str(reading)]
        process = subprocess.Popen(
            self.argv(*arguments, *options), env=self.env, cwd=self.workspace, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=[reading] if keys else [],
        )  # fmt: skip
        os.close(reading)
        with Watch(self.evidence, process.pid):
            stdout, stderr = process.communicate(input, timeout=60)
        self.evidence.add(f"{arguments[0]} stdout", stdout)
        self.evidence.add(f"{arguments[0]} stderr", stderr)
        return process.returncode


# ---- what happens --------------------------------------------------------------------------


def play_editor(scene: Scene) -> None:
    of, say = scene.canaries, {"conversationId": "c", "input": "What is the animal?"}
    secret_url = scene.server.url.replace("://", f"://me:{of['URL password']}@")
    with scene.editor() as client:
        options = {"settings": scene.settings(secret_url), "secrets": scene.secrets}
        client.start(options, workspaceFolders=[{"uri": scene.workspace.as_uri(), "name": "w"}])
        client.call("conversation/create", {"conversationId": "c"})
        client.ask("message/send", say)
        look_around(scene, client)
        scene.answers(scene.refusal(401))
        assert client.call("settings/update", {"settings": scene.settings()})["problems"] == []
        entries = client.call("message/queue", {"conversationId": "c"})["entries"]
        for entry in entries:
            client.event("c", "turnEnded", messageId=entry["messageId"])
        talk(scene, client)
        misplace(scene, client)
        look_around(scene, client)
        scene.answers(scene.hello())
        pem = {name: of["PEM"] for name in scene.secrets if name.endswith("ApiKey")}
        client.call("settings/update", {"secrets": pem})
        client.ask("message/send", say)
        client.ask("settings/update", {"settings": scene.settings(secret_url)})
        scene.answers(said(DIALECTS[scene.vendor], Text("Half"), STALL))
        client.call("settings/update", {"secrets": scene.secrets})
        after = len(client.frames)
        client.start_request("message/send", say)
        client.wait_for(lambda m: "delta" in str(m.get("params", {}).get("type")), after=after)
        scene.evidence.add_folder("store", scene.store.parent)
        client.process.send_signal(signal.SIGKILL)
        client.exit_code()
    scene.evidence.add_folder("store after a crash", scene.store.parent)


def talk(scene: Scene, client: RawClient) -> None:
    """Turns that fail with the key in their hands, and some that do not."""
    search = Call("call_1", "search", '{"query": "animal"}')
    dialect = DIALECTS[scene.vendor]
    scene.answers(
        scene.refusal(401), scene.refusal(503), scene.refusal(503), scene.refusal(429),
        scene.hello(), said(dialect, Text("Half of "), CUT),
        said(dialect, search, Stop("tools")), scene.hello(),
    )  # fmt: skip
    for _ in range(6):
        client.ask("message/send", {"conversationId": "c", "input": "What is the animal?"})


def misplace(scene: Scene, client: RawClient) -> None:
    """Keys where none belongs. Each is refused, and the refusal is not to show it."""
    for key in scene.canaries.values():
        wrong: list[tuple[str, Any]] = [
            ("settings/update", {"settings": {"openaiApiKey": key}}),
            ("settings/update", {"settings": {key: "x"}}),
            ("settings/update", {"settings": {"temperature": key, "provider": key}}),
            ("settings/update", {"settings": {"awsRegion": [key]}}),
            ("settings/update", {"secrets": {"openaiApiKey": [key]}}),
            ("settings/update", {"secrets": {"openaiApiKey": {key: key}}}),
            ("settings/update", {"secrets": {key: "x"}}),
            ("settings/update", {"secrets": key}),
            ("message/send", {"conversationId": "c", "input": "x", "settings": {"apiKey": key}}),
            ("message/send", {"conversationId": "c", "input": "x", "settings": {key: 1}}),
            ("conversation/get", {"conversationId": key + " "}),
            ("conversation/get", {"conversationId": "c", "cursor": key}),
            ("conversation/create", {"mode": key}),
            ("conversation/import", {"data": json.dumps({"secrets": key, key: key})}),
            (f"settings/{key}", {}),
        ]
        for method, params in wrong:
            client.error(method, params)
        client.notify("webview/didDisconnect", {"webviewId": {key: key}})
        client.notify(f"my/{key}", {"key": key})
        client.send_bytes(b"%b: 1\r\n\r\n" % key.replace("\n", "").encode())
        client.ping()


def look_around(scene: Scene, client: RawClient) -> None:
    """Ask for everything that a client may see."""
    for format in ("json", "markdown"):
        export = {"conversationId": "c", "format": format}
        client.call("conversation/export", export)
        path = scene.exports / f"{len(list(scene.exports.iterdir()))}.{format}"
        client.call("conversation/export", export | {"path": str(path)})
    for method in ("settings/get", "sidecar/status", "sidecar/metrics", "agent/list"):
        client.call(method)
    client.call("conversation/list", {})
    client.call("conversation/get", {"conversationId": "c"})
    client.call("conversation/search", {"query": "animal"})
    client.call("message/queue", {"conversationId": "c"})


def play_damage(scene: Scene) -> None:
    """The store is damaged, and salvaged with the keys at hand."""
    with scene.store.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(random.Random(1).randbytes(4096))
    with scene.editor() as client:
        client.start({"settings": scene.settings(), "secrets": scene.secrets})
        client.ask("conversation/list", {})
        client.shut_down()
    scene.evidence.add_folder("store after damage", scene.store.parent)


def play_command_line(scene: Scene, *, briefly: bool) -> None:
    url = next(v for k, v in scene.settings().items() if k.endswith("BaseUrl"))
    config = scene.home / "settings.toml"
    config.write_text(
        f'provider = "{scene.vendor}"\n{scene.vendor}BaseUrl = "{url}"\nlogLevel = "debug"\n'
        "[retry]\nbaseDelay = 1\n",
        encoding="utf-8",
    )
    log = scene.exports / "command.log"
    scene.answers(scene.refusal(401))
    assert scene.command("run", "--json", "What is the animal?", "--log", str(log)) == 1
    scene.command("doctor", "--json")
    if not briefly:
        play_more_commands(scene, log)
        for _ in range(2):
            for arguments in (["doctor"], ["doctor", "--json"], ["conversations", "list"]):
                scene.command(*arguments)
            scene.command("run", "What is the animal?", "--log", str(log))
            text = config.read_text(encoding="utf-8")
            text = text.replace("://", f"://me:{scene.canaries['URL password']}@")
            config.write_text(text, encoding="utf-8")
    config.unlink()  # a file of the user's


def play_more_commands(scene: Scene, log: Path) -> None:
    of = scene.canaries
    scene.answers(scene.hello())
    assert scene.command("run", "What is the animal?", "--log", str(log)) == 0
    given = f"OPENAI_API_KEY={of['API key']}\nAWS_SESSION_TOKEN={of['JWT']}\n"
    scene.answers(scene.refusal(403))
    assert scene.command("run", "-", input="What?", keys=given) == 1
    scene.answers()
    assert scene.command("run", "x", keys=f"{of['API key']}\n") == 2
    scene.answers(scene.hello(), scene.refusal(401))
    scene.command("chat", "--log", str(log), input="Hello?\nAnd you?\n/quit\n")


def modes_of(folder: Path) -> dict[str, str]:
    """What others may do with our files, where that is anything."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            found[path.name] = oct(mode)
    return found


@contextmanager
def scene(root: Path, seed: int, vendor: str) -> Iterator[Scene]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(VendorServer()) as server,
    ):
        yield Scene(root, make(random.Random(seed)), vendor, server)


def play(root: Path, seed: int, vendor: str, *, briefly: bool = False) -> Scene:
    """One round; returns it with all its evidence."""
    with scene(root, seed, vendor) as played:
        play_editor(played)
        play_damage(played)
        play_command_line(played, briefly=briefly)
    gather(played)
    sent = [played.canaries["API key"], played.canaries["AWS access key"]]
    assert any(key in request.raw for request in played.server.requests for key in sent)
    return played


def gather(played: Scene) -> None:
    for channel, folder in (
        ("store in the end", played.store.parent),
        ("exports and log files", played.exports),
        ("temporary files", played.temp),
        ("home", played.home),
        ("children", played.children),
    ):
        played.evidence.add_folder(channel, folder)


def main(count: int = 4) -> str:
    """`count` rounds, with each vendor in turn; with another umask each time."""
    seed = random.randrange(2**32)
    size, channels = 0, 0
    for number in range(count):
        vendor = VENDORS[number % len(VENDORS)]
        before = os.umask((0o000, 0o022)[(number + number // len(VENDORS)) % 2])
        try:
            with tempfile.TemporaryDirectory() as folder:
                played = play(Path(folder), seed + number, vendor)
                hits = played.evidence.hits(played.canaries)
                assert not hits, f"{vendor} (seed {seed + number}): {hits}"
                assert not (open_ := modes_of(played.store.parent)), open_
        finally:
            os.umask(before)
        size += played.evidence.size
        channels = max(channels, len(played.evidence.channels))
    return (
        f"secrets: {count} rounds (seed {seed}), 6 canaries searched in 7 encodings in "
        f"{size / 1024 / 1024:.0f} MiB of {channels} channels: 0 found, files 0600, folders 0700"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))  # noqa: T201
