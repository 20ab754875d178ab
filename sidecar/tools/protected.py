"""Files that govern agents, editors, shells or git: whoever writes them decides what runs later.

Changing one is always asked, whatever was allowed for good. Names are compared without case and
without what file systems ignore, so that no other spelling of one passes.
"""

from __future__ import annotations

import unicodedata
from fnmatch import fnmatchcase

FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", ".husky", ".githooks"),
        *(".vscode", ".idea", ".zed", ".fleet", ".devcontainer"),
        *(".agent-sidecar", ".claude", ".cursor", ".codex", ".gemini", ".continue", ".windsurf"),
        *(".aws", ".ssh", ".gnupg", ".direnv"),
    }
)
"""Everything below a folder of one of these names, wherever it stands."""

FILES = (
    *(".gitconfig", ".gitmodules", ".gitattributes", "*.code-workspace", ".editorconfig"),
    *(".mcp.json", "mcp.json", "mcp_config.json", ".pre-commit-config.y*ml", "lefthook.y*ml"),
    *("agents.md", "agent.md", "claude.md", "gemini.md", ".cursorrules", ".windsurfrules"),
    *(".clinerules", ".aider.conf.y*ml", ".roomodes", "copilot-instructions.md"),
    *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".profile", ".zshrc", ".zshenv"),
    *(".zprofile", ".zlogin", ".zlogout", ".kshrc", ".cshrc", ".tcshrc", ".inputrc", ".envrc"),
    *("config.fish", ".npmrc", ".yarnrc*", ".pypirc", "pip.conf", ".netrc", ".env", ".env.*"),
    *("sitecustomize.py", "usercustomize.py", "*.pth", ".pythonrc*", "devcontainer.json"),
)

PLACES = (".github/workflows", ".github/actions", ".config/fish", ".config/git", ".circleci")


def is_protected(relative: str) -> bool:
    """Of a path below a workspace folder, with `/` between its names."""
    names = [_plain(name) for name in relative.replace("\\", "/").split("/")]
    path = "/".join(names)
    return (
        any(name in FOLDERS for name in names)
        or any(fnmatchcase(names[-1], pattern) for pattern in FILES)
        or any(f"/{place}/" in f"/{path}/" for place in PLACES)
    )


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    # Windows ignores dots and blanks at the end; what follows a colon names a stream.
    return visible.partition(":")[0].rstrip(". ") or name
