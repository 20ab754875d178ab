"""The HTTP client under the vendors' own libraries: what a request may reach, how long a vendor
may be silent, and how much of an answer is read.

Imported only when a vendor is set up: `httpx2` is among what takes long to import.
"""

from __future__ import annotations

import codecs
import functools
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from ..errors import MessageProcessingFailed, NetworkError

CONNECT_TIMEOUT = 10.0
"""Seconds for TCP and TLS each; a vendor that takes longer will not answer a request either."""
KEEPALIVE = 55.0
"""Seconds an idle connection is kept for the next turn; common load balancers close at 60."""
LONGEST_LINE = 4 * 1024 * 1024
"""Bytes in one event. All that a model can say at once fits; an endless line does not."""
LONGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of an answer. 128,000 tokens, one an event, are a fifth of it; what never ends is more."""
LONGEST_ERROR = 64 * 1024
"""Bytes of an error's body that the vendor's library gets to see."""


def client(
    base_url: str, silence: float, transport: httpx2.AsyncBaseTransport | None = None
) -> httpx2.AsyncClient:
    """A client for one vendor. The environment has no say: no proxy for plain HTTP, no `.netrc`,
    no certificates of its own. `transport` replaces the network."""
    inner = transport or httpx2.AsyncHTTPTransport(
        verify=tls(),
        proxy=proxy_for(base_url, getproxies(), proxy_bypass),
        limits=httpx2.Limits(keepalive_expiry=KEEPALIVE),
        trust_env=False,
    )
    guarded = GuardedTransport(base_url, silence, inner)
    return httpx2.AsyncClient(transport=guarded, follow_redirects=False, trust_env=False)


@functools.cache
def tls() -> ssl.SSLContext:
    """The machine's own certificates; reading them takes longer than the rest of a client."""
    return httpx2.create_ssl_context(trust_env=False)


def proxy_for(
    url: str, proxies: Mapping[str, str], is_bypassed: Callable[[str], object]
) -> str | None:
    """The system's proxy for `url`. Only for HTTPS: through a tunnel no proxy sees the key."""
    parts = urlsplit(url)
    proxy = proxies.get("https", "")
    if parts.scheme != "https" or is_bypassed(parts.hostname or ""):
        return None
    return proxy if proxy.startswith(("http://", "https://")) else None


class Call:
    """One request and its answer.

    `hang_up` ends it from outside, whoever still holds the answer: one library leaves that to the
    garbage collector when a stream is closed early.
    """

    def __init__(self) -> None:
        self._response: httpx2.Response | None = None

    @property
    def is_answered(self) -> bool:
        return self._response is not None

    def answered(self, response: httpx2.Response) -> None:
        self._response = response

    async def hang_up(self) -> None:
        if self._response is not None:
            await self._response.aclose()


_current: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def calling() -> Iterator[Call]:
    """What is requested within is this call's."""
    call = Call()
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends to the origin it was made for and to no other, and bounds what comes back.

    The timeouts are set here because one library turns its own into a deadline for the whole
    answer, and another ignores those of its client when they equal the client's defaults.
    """

    def __init__(self, base_url: str, silence: float, inner: httpx2.AsyncBaseTransport) -> None:
        self._origin = _origin(httpx2.URL(base_url))
        self._inner = inner
        connect = min(CONNECT_TIMEOUT, silence)
        self._timeout = httpx2.Timeout(silence, connect=connect, pool=None).as_dict()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if _origin(request.url) != self._origin:
            raise MessageProcessingFailed("A request to another server was stopped.")
        request.extensions["timeout"] = self._timeout
        # Packed bytes could unpack to any size: not asked for, and not unpacked if they come.
        request.headers["accept-encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        response.headers.pop("content-encoding", None)
        if call := _current.get():
            call.answered(response)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        read = _lines if response.is_success else _head
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Guarded(response, read(response.stream)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Guarded(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, pieces: AsyncIterator[bytes]) -> None:
        self._response = response
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._response.aclose()


_BREAKS = re.compile("[\x85\u2028\u2029]")


async def _lines(stream: httpx2.AsyncByteStream) -> AsyncIterator[bytes]:
    """The bytes as they come, as long as they are UTF-8 in lines of a sane length.

    Unicode's line breaks are escaped, which in a JSON string means the same: one library would
    take them for the end of an event.
    """
    decode = codecs.getincrementaldecoder("utf-8")().decode
    length = total = 0
    async for piece in stream:
        total += len(piece)
        if total > LONGEST_ANSWER:
            raise NetworkError("The answer does not end.")
        try:
            text = decode(piece)
        except UnicodeDecodeError:
            raise NetworkError("The answer is not valid UTF-8.") from None
        end = piece.rfind(b"\n")
        length = len(piece) - end - 1 if end >= 0 else length + len(piece)
        if length > LONGEST_LINE:
            raise NetworkError("The answer has a line without an end.")
        if not text.isascii():
            text = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        yield text.encode()


async def _head(stream: httpx2.AsyncByteStream) -> AsyncIterator[bytes]:
    """The beginning of an error's body."""
    left = LONGEST_ERROR
    async for piece in stream:
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
