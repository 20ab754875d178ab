"""Stands between a client and the agent: passes every byte on and writes each line down.

    python recorder.py RECORD COMMAND …

`RECORD` gets one line for each: `>` is the client's, `<` the agent's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import IO


def main() -> int:
    lock = threading.Lock()
    with (
        open(sys.argv[1], "ab", buffering=0) as record,
        subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent,
    ):
        assert agent.stdin is not None
        assert agent.stdout is not None

        def passing(mark: bytes, source: IO[bytes], target: IO[bytes]) -> None:
            for line in iter(source.readline, b""):
                with lock:
                    record.write(mark + line)
                try:
                    target.write(line)
                    target.flush()
                except BrokenPipeError:
                    break
            target.close()

        asking = threading.Thread(
            target=passing, args=(b">", sys.stdin.buffer, agent.stdin), daemon=True
        )
        asking.start()
        passing(b"<", agent.stdout, sys.stdout.buffer)
        return agent.wait()


if __name__ == "__main__":
    sys.exit(main())
