"""A small MCP server for the tests. `python mcp_server.py FOLDER`; in the folder it finds what its
tool `look` is described as, and leaves what it was asked to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

FOLDER = Path(sys.argv[1])
server = MCPServer("tests")


def describe() -> str:
    said = FOLDER / "description"
    return said.read_text() if said.exists() else "Looks."


@server.tool(description=describe())
def look(what: str = "around") -> str:
    with (FOLDER / "effects").open("a") as file:
        file.write(f"{what}\n")
    return f"looked {what}"


@server.tool()
def environment() -> str:
    """All that it sees of the environment."""
    return json.dumps(dict(os.environ))


@server.tool()
def much() -> str:
    """A lot."""
    return "x" * 300_000


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("no such thing")


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
async def wait(ctx: Context[Any, Any]) -> str:
    """Waits, having said how far it is."""
    await ctx.report_progress(1, 4, "begun")
    (FOLDER / "waiting").touch()
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        (FOLDER / "cancelled").touch()
        raise
    return "done"


if __name__ == "__main__":
    (FOLDER / "pid").write_text(str(os.getpid()))
    server.run("streamable-http" if "--http" in sys.argv else "stdio")
