"""Bedrock's client: boto3 signs and parses, and we send.

boto3 blocks a thread while it waits, and no thread can be cancelled. Sending ourselves (the
`before-send` hook) keeps the connection in our hands from its first byte on, so that hanging up
ends the wait at once; it also leaves the environment no say in where a request goes.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse  # type: ignore[import-untyped]  # boto3 has no types
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..errors import InitializationFailed, NetworkError
from ..settings import Config, Secret
from .vendor_http import CONNECT_TIMEOUT, LONGEST_ANSWER, LONGEST_ERROR, proxy_for, tls


class Call:
    """One request and its answer: the connection that serves them, once there is one."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._is_given_up = False

    @property
    def is_answered(self) -> bool:
        return self._answer is not None

    def use(self, connection: HTTPConnection) -> None:
        self._connection = connection
        if self._is_given_up:
            raise urllib3.exceptions.HTTPError("the call was given up")

    def answered(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        if self._is_given_up:
            answer.close()

    async def hang_up(self) -> None:
        self._is_given_up = True
        # An answer that was read to its end has given its connection back: not ours any more.
        connection = self._answer.connection if self._answer else self._connection
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with suppress(OSError):  # closed already
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads; close would not


_current: ContextVar[Call | None] = ContextVar("bedrock call", default=None)


@contextmanager
def calling() -> Iterator[Call]:
    """What is requested within is this call's; worker threads inherit it."""
    call = Call()
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


def _announce(connection: HTTPConnection) -> None:
    if call := _current.get():
        call.use(connection)


class _Plain(HTTPConnection):
    def connect(self) -> None:
        _announce(self)
        super().connect()

    def request(self, *args: Any, **options: Any) -> None:
        _announce(self)
        super().request(*args, **options)


class _Secure(HTTPSConnection):
    def connect(self) -> None:
        _announce(self)
        super().connect()

    def request(self, *args: Any, **options: Any) -> None:
        _announce(self)
        super().request(*args, **options)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class Pool(Protocol):
    """What we need of urllib3's pools."""

    def urlopen(self, method: str, url: str, **options: Any) -> Any: ...
    def clear(self) -> None: ...


def client(config: Config, pool: Pool | None = None) -> tuple[Any, Pool]:
    """A `bedrock-runtime` client that never retries and never follows a redirect, and the pool
    that it sends through."""
    from botocore.config import Config as ClientConfig  # type: ignore[import-untyped]  # boto3 has no types

    settings = config.settings
    made = _session(config).client(
        "bedrock-runtime",
        region_name=settings.aws_region,
        endpoint_url=settings.bedrock_base_url or None,
        config=ClientConfig(
            retries={"total_max_attempts": 1, "mode": "standard"},
            # A bearer token or an endpoint from the environment is not what the user chose here.
            signature_version="v4",
            ignore_configured_endpoint_urls=True,
        ),
    )
    way = pool or _pool(made.meta.endpoint_url, settings.request_timeout / 1000)

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        answer = way.urlopen(
            request.method,
            request.url,
            body=request.body,
            headers={name: _text(value) for name, value in request.headers.items()},
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )
        if call := _current.get():
            call.answered(answer)
        return AWSResponse(
            request.url, answer.status, dict(answer.headers.items()), _Bounded(answer)
        )

    made.meta.events.register("before-send.bedrock-runtime", send)
    return made, way


class _Bounded:
    """An answer as boto3 reads it, and no more of it than `vendor_http` reads of others."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def stream(self) -> Iterator[bytes]:
        is_success = self._answer.status == 200
        left = LONGEST_ANSWER if is_success else LONGEST_ERROR
        for piece in self._answer.stream():
            yield piece[:left]
            left -= len(piece)
            if left <= 0 and is_success:
                raise NetworkError("The answer does not end.")
            if left <= 0:
                return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _pool(endpoint: str, silence: float) -> Pool:
    timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT, silence), read=silence)
    proxy = proxy_for(endpoint, getproxies(), proxy_bypass)
    if proxy:
        pool: urllib3.PoolManager = urllib3.ProxyManager(proxy, timeout=timeout, ssl_context=tls())
    else:
        pool = urllib3.PoolManager(timeout=timeout, ssl_context=tls())
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return pool


def _session(config: Config) -> Any:
    import boto3  # type: ignore[import-untyped]  # boto3 has no types
    from botocore.exceptions import ProfileNotFound  # type: ignore[import-untyped]  # no types
    from botocore.session import Session  # type: ignore[import-untyped]  # boto3 has no types

    settings, secrets = config.settings, config.secrets
    if settings.aws_use_profile:
        core = Session(profile=settings.aws_profile or None)
        keys: tuple[Secret | None, ...] = (None, None, None)
    else:
        # With keys of our own, neither AWS_PROFILE nor the files of the AWS tools are read.
        nothing, nowhere = (None, None, None, None), (None, None, os.devnull, None)
        core = Session({"profile": nothing, "config_file": nowhere, "credentials_file": nowhere})
        keys = (secrets.aws_access_key, secrets.aws_secret_key, secrets.aws_session_token)
    access, secret, token = (key.reveal().strip() if key else None for key in keys)
    core.register_component("data_loader", _loader())
    try:
        core.get_scoped_config()
    except ProfileNotFound:
        raise InitializationFailed(
            "The AWS profile does not exist.", hint="Check awsProfile, or run 'aws configure'."
        ) from None
    return boto3.Session(
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        aws_session_token=token,
        botocore_session=core,
    )


@functools.cache
def _loader() -> Any:
    """Reads Bedrock's description, 70 ms of JSON, once a process instead of once an agent."""
    from botocore.loaders import Loader  # type: ignore[import-untyped]  # boto3 has no types

    return Loader()
