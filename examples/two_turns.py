"""A conversation of two turns with the client library; the answers are printed as they come.

    python examples/two_turns.py [STORE]

Nothing needs to be configured: without a key the offline provider answers from this folder.
"""

import sys
from pathlib import Path

import anyio

from sidecar.client import LiveConversation, Sidecar
from sidecar.events import Delta, TurnEnded


async def print_answer(live: LiveConversation) -> None:
    async for change in live:
        if isinstance(change, Delta) and change.kind == "text":
            print(change.text, end="", flush=True)
        elif isinstance(change, TurnEnded):
            print(f"\n({change.stop_reason})\n")
            return


async def main(store: str | None) -> None:
    async with Sidecar.spawn(store=store, workspace=[Path.cwd()]) as sidecar:
        made = await sidecar.call("conversation/create", title="Two turns")
        async with sidecar.follow(made.conversation_id) as live:
            for question in ("Where is the client that spawns a sidecar?", "more"):
                print(f"> {question}\n")
                await sidecar.call(
                    "message/enqueue", conversation_id=made.conversation_id, input=question
                )
                await print_answer(live)
            print(f"{len(live.view.messages)} messages are stored.")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
