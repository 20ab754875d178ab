"""What went wrong at a vendor, as one of our errors.

The only place that looks at the libraries' exceptions. Their texts may quote the vendor's answer,
and that the prompt or a part of the key: none of it is passed on, only the status and the kind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx2
from pydantic_ai import exceptions as vendor

from ..errors import AgentError, MessageProcessingFailed, NetworkError, Unauthorized

logger = logging.getLogger(__name__)

NAMES = {"gemini": "Gemini", "bedrock": "Bedrock", "anthropic": "Anthropic", "openai": "OpenAI"}

_TEMPORARY = (vendor.ModelRateLimitError, vendor.ModelUnavailableError, vendor.ModelServerError)
_BROKEN_OFF = (vendor.ModelAPIError, vendor.UnexpectedModelBehavior, httpx2.HTTPError)
_NO_CREDENTIALS = ("Credential", "Token", "SSO", "Login")
"""Words in the names of botocore's exceptions for credentials that are missing or expired."""


def translated(error: Exception, provider: str, *, is_answered: bool) -> AgentError:
    """`error` as the interface promises it. `is_answered`: the vendor had begun to."""
    name = NAMES.get(provider, provider)
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, AgentError):
            return cause
    translation = _translation(error, causes, name, is_answered)
    logger.info(
        "the provider failed",
        extra={
            "provider": provider,
            "cause": " < ".join(type(cause).__name__ for cause in causes),
            "status": getattr(error, "status_code", None),
            "type": translation.type,
        },
    )
    return translation


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _translation(
    error: Exception, causes: list[BaseException], name: str, is_answered: bool
) -> AgentError:
    if isinstance(error, vendor.ModelAuthenticationError):
        return _refused(error, name)
    if isinstance(error, vendor.ModelHTTPError):
        return _answered(error, name)
    if any(isinstance(cause, httpx2.LocalProtocolError) for cause in causes):
        return MessageProcessingFailed(f"The request to {name} could not be made.")
    if _is_out_of_reach(error, causes):
        return NetworkError(
            f"{name} could not be reached.",
            hint="Check the network, and the base URL if one is set; then try again.",
        )
    if isinstance(error, vendor.ModelTimeoutError | httpx2.TimeoutException | TimeoutError):
        return NetworkError(
            f"{name} was silent for too long.", hint="The setting requestTimeout says how long."
        )
    if isinstance(error, vendor.ModelRequestRejectedError):
        return MessageProcessingFailed(f"{name} refused the request.")
    if isinstance(error, vendor.UserError):
        return MessageProcessingFailed(f"This conversation cannot be sent to {name}'s model.")
    if type(error).__module__.startswith("botocore") and _lacks_credentials(error):
        return Unauthorized(
            "There are no valid AWS credentials.", hint="Log in to the AWS profile again."
        )
    if any(300 <= status < 400 for status in _statuses(causes)):
        return _redirected(name)
    if is_answered or isinstance(error, _BROKEN_OFF):
        return NetworkError(f"{name}'s answer broke off or could not be read.")
    return MessageProcessingFailed(f"The request to {name} could not be made.")


def _refused(error: vendor.ModelAuthenticationError, name: str) -> AgentError:
    return Unauthorized(
        f"{name} refused the key{_status(error)}.",
        hint="Check the key, and that it may use this model.",
    )


def _answered(error: vendor.ModelHTTPError, name: str) -> AgentError:
    status = error.status_code
    if 300 <= status < 400:
        return _redirected(name)
    quota = isinstance(error, vendor.ModelQuotaExceededError)
    if isinstance(error, _TEMPORARY) or status in (408, 429) or status >= 500:
        return NetworkError(
            f"{name} cannot answer now{_status(error)}.",
            hint="The quota or the credit is used up." if quota else None,
            # Waiting does not fill up an account, unless the vendor says how long to wait.
            retryable=not quota or error.retry_after is not None,
            # 0 is a date that our clock takes for past, or a vendor without an opinion.
            retry_after=error.retry_after or None,
        )
    if status in (401, 403):
        return Unauthorized(
            f"{name} refused the request{_status(error)}.", hint="Check the key and its rights."
        )
    if isinstance(error, vendor.ModelNotFoundError):
        hint = "Check the model's name and the base URL in the settings."
    elif isinstance(error, vendor.ModelContextWindowExceededError):
        hint = "The conversation is longer than the model can read: start a new one."
    elif quota or status == 402:
        hint = "The quota or the credit is used up."
    else:
        hint = None
    return MessageProcessingFailed(f"{name} refused the request{_status(error)}.", hint=hint)


def _status(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return f" ({status})" if status else ""


def _redirected(name: str) -> AgentError:
    return MessageProcessingFailed(
        f"{name} answered with a redirect, which is not followed.", hint="Check the base URL."
    )


def _statuses(causes: list[BaseException]) -> Iterator[int]:
    for cause in causes:
        yield getattr(getattr(cause, "response", None), "status_code", 0)


def _is_out_of_reach(error: Exception, causes: list[BaseException]) -> bool:
    # urllib3 counts a refused connection among its timeouts.
    return (isinstance(error, vendor.ModelConnectionError) and error.phase == "connect") or any(
        type(cause).__name__ in ("NewConnectionError", "ConnectTimeoutError") for cause in causes
    )


def _lacks_credentials(error: Exception) -> bool:
    return any(word in type(error).__name__ for word in _NO_CREDENTIALS)
