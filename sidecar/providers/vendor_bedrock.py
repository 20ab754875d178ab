"""Bedrock's client: boto3 signs and parses, and we send.

boto3 blocks a thread while it waits, and no thread can be cancelled. Sending ourselves (the
`before-send` hook) keeps the connection in our hands from its first byte on, so that `abort`
ends the wait at once; it also leaves the environment no say in where a request goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse  # type: ignore[import-untyped]  # boto3 has no types
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..errors import InitializationFailed
from ..settings import Config
from .vendor_http import CONNECT_TIMEOUT, proxy_for, tls


class _Call:
    """One request on its way: the connection that serves it, once there is one."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self._is_aborted = False

    def use(self, connection: HTTPConnection) -> None:
        self._connection = connection
        if self._is_aborted:
            raise urllib3.exceptions.HTTPError("the call was given up")

    def abort(self) -> None:
        self._is_aborted = True
        if self._connection is not None and self._connection.sock is not None:
            try:
                self._connection.sock.shutdown(2)  # both ways: wakes the thread that reads
            except OSError:
                self._connection = None  # closed already


_current: ContextVar[_Call | None] = ContextVar("bedrock call", default=None)


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


@contextmanager
def calling() -> Iterator[None]:
    """Around the request until its answer begins: leaving by an exception aborts it."""
    call = _Call()
    token = _current.set(call)
    try:
        yield
    except BaseException:
        call.abort()
        raise
    finally:
        _current.reset(token)


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
        return AWSResponse(request.url, answer.status, dict(answer.headers.items()), answer)

    made.meta.events.register("before-send.bedrock-runtime", send)
    return made, way


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
    import botocore.session  # type: ignore[import-untyped]  # boto3 has no types
    from botocore.exceptions import ProfileNotFound  # type: ignore[import-untyped]  # boto3 has no types

    settings, secrets = config.settings, config.secrets
    if settings.aws_use_profile:
        try:
            return boto3.Session(profile_name=settings.aws_profile or None)
        except ProfileNotFound:
            raise InitializationFailed(
                "The AWS profile does not exist.", hint="Check awsProfile, or run 'aws configure'."
            ) from None
    # With keys of our own, neither AWS_PROFILE nor the files of the AWS tools are looked at.
    nothing = (None, None, None, None)
    nowhere = (None, None, os.devnull, None)
    core = botocore.session.Session(
        session_vars={"profile": nothing, "config_file": nowhere, "credentials_file": nowhere}
    )

    def reveal(secret: Any) -> str | None:
        return secret.reveal().strip() if secret else None

    return boto3.Session(
        aws_access_key_id=reveal(secrets.aws_access_key),
        aws_secret_access_key=reveal(secrets.aws_secret_key),
        aws_session_token=reveal(secrets.aws_session_token),
        botocore_session=core,
    )
