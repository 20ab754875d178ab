"""Files that govern agents, editors, shells or git: whoever writes them decides what runs later.

Changing one is always asked, whatever was allowed for good. Names are compared without case and
without what file systems ignore, so that no other spelling of one passes.
"""

from __future__ import annotations

import re
import unicodedata
from fnmatch import translate
from functools import lru_cache

FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", ".jj", ".husky", ".githooks"),
        *(".vscode", ".idea", ".zed", ".fleet", ".devcontainer", ".vs", ".nova", ".helix"),
        *(".agent-sidecar", ".claude", ".cursor", ".codex", ".gemini", ".continue", ".windsurf"),
        *(".agents", ".aider", ".amazonq", ".augment", ".cline", ".clinerules", ".crush", ".goose"),
        *(".junie", ".kilocode", ".kiro", ".opencode", ".openhands", ".qwen", ".roo", ".trae"),
        *(".vibe", ".copilot", ".factory"),
        *(".aws", ".ssh", ".gnupg", ".direnv", ".mise", ".mvn"),
        *(".circleci", ".buildkite", ".gitea", ".forgejo", ".woodpecker", ".semaphore"),
    }
)
"""Everything below a folder of one of these names, wherever it stands."""

FILES = (
    *(".git", ".gitconfig", ".gitmodules", ".gitattributes", ".hgrc", ".jjconfig.toml"),
    *("*.code-workspace", ".editorconfig", ".exrc", ".nvimrc", ".nvim.lua", ".vimrc", ".lvimrc"),
    *(".dir-locals.el", ".dir-locals-2.el", "*.sublime-project", ".emacs"),
    *(".mcp.json", "mcp.json", "mcp_config.json", ".pre-commit-config.y*ml", "lefthook*.y*ml"),
    *(".lefthook*.y*ml", "lefthook*.toml", ".lintstagedrc*", ".overcommit.yml"),
    *("agents.md", "agents.override.md", "agent.md", "claude.md", "claude.local.md", "gemini.md"),
    *("qwen.md", "crush.md", "warp.md", ".cursorrules", ".windsurfrules"),
    *(".clinerules", ".roorules*", ".goosehints", ".rules", ".aider.conf.y*ml", ".roomodes"),
    *("copilot-instructions.md", "*.instructions.md", "opencode.json*", ".opencode.json"),
    *("crush.json", ".crush.json"),
    *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile"),
    *(".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc", ".cshrc", ".tcshrc"),
    *(".login", ".logout", ".inputrc", ".envrc", "config.fish", ".tool-versions", "mise.toml"),
    *(".mise.toml", "mise.local.toml", ".npmrc", ".yarnrc*", ".pnpmfile.cjs", ".pypirc"),
    *("pip.conf", ".netrc", ".env", ".env.*", ".xinitrc", ".xprofile", ".xsession"),
    *("sitecustomize.py", "usercustomize.py", "*.pth", ".pythonrc*", "devcontainer.json"),
    *(".devcontainer.json", ".gitlab-ci.y*ml", ".travis.yml", "azure-pipelines.y*ml"),
    *("jenkinsfile", "bitbucket-pipelines.y*ml", ".drone.y*ml", "appveyor.yml", ".cirrus.yml"),
    *(".gdbinit", ".lldbinit", ".bazelrc", "rust-toolchain", "rust-toolchain.toml"),
    *("head",),  # with it a folder of any name is a repository, and its config is git's
)

PLACES = (
    *(".github/workflows", ".github/actions", ".github/instructions", ".github/prompts"),
    *(".github/chatmodes", ".github/agents", ".github/hooks", ".config/fish", ".config/git"),
    *(".config/nvim", ".config/zed", ".config/agent-sidecar", ".config/systemd"),
    *(".config/autostart", ".yarn/plugins", ".yarn/releases", ".cargo", ".tekton"),
    *("gradle/wrapper",),
)
"""Everything below these, wherever they stand."""

_FILES = re.compile("|".join(map(translate, FILES)))


def is_protected(relative: str) -> bool:
    """Of a path below a workspace folder, with `/` between its names."""
    *folders, name = relative.replace("\\", "/").split("/")
    above = ("/".join(folders[:depth]) for depth in range(len(folders)))
    return governs("/".join(folders), name) or any(
        governs(path, folder, is_folder=True) for path, folder in zip(above, folders, strict=True)
    )


def governs(below: str, name: str, *, is_folder: bool = False) -> bool:
    """Whether `name` in the folder `below` is protected, and all that is in it."""
    plain = _plain(name)
    if plain in FOLDERS or plain.endswith(".git") or (not is_folder and _FILES.fullmatch(plain)):
        return True
    path = "/".join(["", *map(_plain, below.split("/")), plain])
    return any(path.endswith(f"/{place}") for place in PLACES)


@lru_cache(16_384)
def _plain(name: str) -> str:
    if name.isascii():
        visible = name.lower()
    else:
        folded = unicodedata.normalize("NFKC", name).casefold()
        visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    # Windows ignores dots and blanks at the end; what follows a colon names a stream.
    return visible.partition(":")[0].rstrip(". ") or name
