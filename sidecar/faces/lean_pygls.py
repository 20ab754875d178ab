"""pygls' JSON-RPC protocol and server, without paying for the language server around them.

Imported in the ordinary way they cost several times what asyncio does, nearly all of it for
the 554 classes of `lsprotocol.types` and for a workspace that we do not have. Here a class of
lsprotocol is made when somebody first asks for it, and a package runs its `__init__` when
somebody first asks for a name in it; others who use these libraries in the same process notice
nothing. Where an installed library is not as expected, it is imported as always.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader  # at run time it would bring importlib.resources along

_TESTED = frozenset({0x2C1ACE50})  # lsprotocol 2025.0.0
"""Checksums of each `lsprotocol/types.py` that `_STATEMENT` is known to cut up correctly."""

_STATEMENT = re.compile(rb"\n(?:(?:@[\w.]+\n)*(?:class|def) (\w+)|(\w+)(?:: [^\n=]+)? = )")
"""Where a top-level statement begins, and the name that it binds."""

_lock = threading.RLock()


class _LazyTypes:
    """Runs `lsprotocol.types` into its module one top-level statement at a time."""

    def __init__(self, module: ModuleType) -> None:
        self._path = str(module.__file__)
        with open(self._path, "rb") as file:
            source = file.read()
        if zlib.crc32(source) not in _TESTED:
            raise ImportError("a release of lsprotocol that was not tested with this module")
        starts = list(_STATEMENT.finditer(source))
        ends = [start.start() for start in starts[1:]] + [len(source)]
        self._waiting = {
            (start[1] or start[2]).decode(): source[start.start() : end]
            for start, end in zip(starts, ends, strict=True)
        }
        self._namespace = vars(module)
        exec(source[: starts[0].start()], self._namespace)
        self._namespace["__all__"] = [name for name in self._waiting if name[0] != "_"]
        self._namespace["__dir__"] = lambda: sorted({*self._namespace, *self._waiting})
        self._namespace["__getattr__"] = self.get

    def get(self, name: str) -> Any:
        with _lock:
            self._run(name)
        if name not in self._namespace:
            raise AttributeError(f"module 'lsprotocol.types' has no attribute {name!r}")
        return self._namespace[name]

    def _run(self, name: str) -> None:
        statement = self._waiting.pop(name, None)
        if statement is None:
            return
        code = compile(statement, self._path, "exec", dont_inherit=True)
        codes = list(_nested(code))
        for needed in (name for part in codes for name in part.co_names):
            self._run(needed)
        exec(code, self._namespace)
        # Annotations in quotes are looked up later, and may point back to this name.
        for constant in (constant for part in codes for constant in part.co_consts):
            if isinstance(constant, str):
                self._run(constant)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _module_not_run(name: str) -> tuple[ModuleType, Loader]:
    """A module that `import` finds from now on, and what would execute it."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = sys.modules[name] = module_from_spec(spec)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module, spec.loader


def _postpone(name: str, *functions: str) -> None:
    """Let a package run only when a name in it is asked for, or one of `functions` is called."""
    module, loader = _module_not_run(name)
    has_run = False

    def get(attribute: str) -> Any:
        nonlocal has_run
        with _lock:
            if not has_run:
                has_run = True
                loader.exec_module(module)
        if attribute not in vars(module):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        return vars(module)[attribute]

    def calling(function: str) -> Callable[..., Any]:
        return lambda *args: get(function)(*args)

    vars(module).update({function: calling(function) for function in functions})
    vars(module)["__getattr__"] = get


def _put_off_what_we_do_not_need() -> None:
    before = set(sys.modules)
    if before & {"pygls.protocol", "lsprotocol.types"}:
        return  # paid for already
    try:
        if "cattrs" not in before:
            _postpone("cattrs")  # pygls needs one exception of it
        _postpone("pygls.lsp", "get_method_options_type", "is_instance")
        _LazyTypes(_module_not_run("lsprotocol.types")[0])
        _postpone("pygls.protocol")  # would import the language server and its workspace
        from pygls.protocol.json_rpc import JsonRPCProtocol

        vars(sys.modules["pygls.protocol"])["JsonRPCProtocol"] = JsonRPCProtocol
        import pygls.server  # noqa: F401
    except Exception:
        # Whatever it is that differs, the ordinary import is right, only slower.
        logging.getLogger(__name__).info("pygls is imported in full", exc_info=True)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("pygls", "lsprotocol", "cattrs"):
                del sys.modules[name]


_put_off_what_we_do_not_need()

from pygls.exceptions import JsonRpcMethodNotFound as MethodNotFound  # noqa: E402
from pygls.protocol import JsonRPCProtocol  # noqa: E402
from pygls.server import JsonRPCServer  # noqa: E402

__all__ = ["JsonRPCProtocol", "JsonRPCServer", "MethodNotFound"]
