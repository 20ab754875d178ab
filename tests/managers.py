"""A manager that runs under a virtual clock, with everything a test wants to hold or look at."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.lowlevel

from sidecar.conversations import Message, Prompt, TurnResult
from sidecar.errors import AgentError, PersistenceFailed
from sidecar.events import DurableEvent
from sidecar.journal import Journal
from sidecar.lifecycle import AgentInfo
from sidecar.manager import AgentManager
from sidecar.settings import Config, RetrySettings, Secret, Secrets, Settings
from sidecar.stores.memory import MemoryStore
from sidecar.toolbox import Toolbox
from tests.fakes import FakeModel, FakeModels, FakeTool, VirtualClockLoop

VIRTUAL = ("asyncio", {"loop_factory": VirtualClockLoop})
"""For a module's `anyio_backend` fixture: waiting costs no time, and a wait that never ends
fails at once, because the clock jumps to the end of `A_DAY`."""
A_DAY = 86_400


class WatchedStore:
    """A store that counts, holds or refuses what the test says; else it is the one inside."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.calls: list[str] = []
        self.refused: dict[str, AgentError] = {}
        self.held_before: dict[str, anyio.Event] = {}
        self.held_after: dict[str, anyio.Event] = {}
        """Like a store on a thread: it is committed, and its caller does not know it yet."""
        self.reached = anyio.Event()

    def refuse(self, *methods: str) -> None:
        for method in methods:
            self.refused[method] = PersistenceFailed("The disk is full.")

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value

        async def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            await self._wait(self.held_before.get(name))
            if error := self.refused.get(name):
                raise error
            result = await value(*args, **options)
            await self._wait(self.held_after.get(name))
            return result

        return call

    async def _wait(self, gate: anyio.Event | None) -> None:
        if gate is not None:
            self.reached.set()
            await gate.wait()


class World:
    """A manager with its store, journal, models and tools, and all that it announced."""

    def __init__(
        self, store: WatchedStore, journal: Journal, models: FakeModels, tools: dict[str, FakeTool]
    ) -> None:
        self.store = store
        self.journal = journal
        self.models = models
        self.tools = tools
        self.manager: AgentManager
        self.events: list[DurableEvent] = []
        self.states: list[AgentInfo] = []
        self.degraded: list[str | None] = []

    def types(self, conversation_id: str = "a") -> list[str]:
        return [type(e).__name__ for e in self.events if e.conversation_id == conversation_id]

    async def send(self, text: str, to: str = "a", **options: Any) -> TurnResult:
        return await self.manager.send_message(to, Prompt(input=text), **options)

    async def enqueue(self, text: str, to: str = "a") -> str:
        return (await self.manager.enqueue(to, Prompt(input=text))).message_id

    async def texts(self, conversation_id: str = "a") -> list[str]:
        return [message.text for message in await self.messages(conversation_id)]

    async def messages(self, conversation_id: str = "a") -> list[Message]:
        return list(await self.store.inner.messages(conversation_id))

    async def waiting(self, conversation_id: str = "a") -> list[str]:
        """What the queue still holds, as it was asked."""
        return [e.prompt.input for e in await self.store.inner.queue(conversation_id)]

    async def busy(self, conversation_id: str, text: str = "hold") -> FakeModel:
        """Let a conversation's agent run a turn that is held in the middle."""
        await self.create(conversation_id)
        self.models.next_gate = anyio.Event()
        made = len(self.models.made)
        await self.enqueue(text, conversation_id)
        await until(lambda: len(self.models.made) > made or self._model_of(conversation_id))
        self.models.next_gate, gate = None, self.models.next_gate
        model = self._model_of(conversation_id)
        model.gate = model.gate or gate
        await model.entered.wait()
        return model

    def _model_of(self, conversation_id: str) -> Any:
        agent = self.manager.registry.get(conversation_id)
        return agent._provider if agent else None

    async def create(self, *conversation_ids: str) -> None:
        for conversation_id in conversation_ids:
            try:
                await self.store.inner.create(self.manager.new_conversation(conversation_id))
            except AgentError:
                await self.store.inner.get(conversation_id)

    def live(self) -> set[str]:
        return {agent.conversation_id for agent in self.manager.registry if agent.is_live}


@asynccontextmanager
async def living(
    *answers: Any,
    config: Config | None = None,
    tools: tuple[FakeTool, ...] = (),
    models: Any = None,
    make_tools: Any = None,
    runs: bool = True,
    **settings: Any,
) -> AsyncIterator[World]:
    """A world whose manager serves until the block ends. `settings` are those of `Settings`."""
    journal = Journal()
    store = WatchedStore(await MemoryStore.open(journal.publish))
    fakes = models or FakeModels(*answers)
    world = World(store, journal, fakes, {tool.spec.name: tool for tool in tools})
    journal.listen(world.events.append)
    world.manager = AgentManager(
        store,  # type: ignore[arg-type]  # it forwards everything
        journal,
        make_provider=fakes,
        make_tools=make_tools or (lambda _: Toolbox(world.tools.values())),
        config=config or Config(settings=Settings(**settings)),
        roots=("/code",),
    )
    world.manager.on_state = world.states.append
    world.manager.on_degraded = world.degraded.append
    try:
        with anyio.fail_after(A_DAY):
            if runs:
                async with world.manager.running():
                    yield world
            else:
                yield world
    except BaseExceptionGroup as group:
        raise the_one_in(group) from None
    finally:
        with anyio.CancelScope(shield=True):
            await store.inner.aclose()


def the_one_in(error: BaseException) -> BaseException:
    """What went wrong, without the task groups that it came through."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def until(is_true: Callable[[], Any]) -> None:
    """Let the others go on until something is so."""
    for _ in range(2_000):
        if is_true():
            return
        await anyio.lowlevel.checkpoint()
    raise AssertionError("it never came true")


async def settle(steps: int = 60) -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(steps):
        await anyio.lowlevel.checkpoint()


class Outcome:
    """How a call ended that was started in the background."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()

    @property
    def is_done(self) -> bool:
        return self.done.is_set()

    async def run(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            with self.scope:
                self.result = await call()
        except AgentError as error:
            self.error = error
        finally:
            self.done.set()


def begin(tasks: Any, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Outcome:
    """Start a call in a task group and return its `Outcome` at once."""
    outcome = Outcome()
    tasks.start_soon(outcome.run, lambda: call(*args, **options))
    return outcome


def keyed(provider: str = "gemini", key: str | None = "key-1", **settings: Any) -> Config:
    """Settings of a provider that needs a key, with or without one."""
    secret = None if key is None else Secret(key)
    return Config(
        settings=Settings(provider=provider, **settings),  # type: ignore[arg-type]
        secrets=Secrets(gemini_api_key=secret),
    )


def retrying(max_attempts: int = 3, base_delay: int = 1_000) -> RetrySettings:
    return RetrySettings(max_attempts=max_attempts, base_delay=base_delay)


class Records(logging.Handler):
    """Every log record of the package, with what was said beside the message."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.all: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def of(self, message: str) -> list[dict[str, Any]]:
        return [{"level": r.levelname, **vars(r)} for r in self.all if r.getMessage() == message]


@contextmanager
def recorded() -> Iterator[Records]:
    logger, records = logging.getLogger("sidecar"), Records()
    level = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.removeHandler(records)
        logger.setLevel(level)
