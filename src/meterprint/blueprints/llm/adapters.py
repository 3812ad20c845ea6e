"""How the client of each SDK is copied with another HTTP client in it."""
# ruff: noqa: SLF001  # an SDK's client shows its HTTP client under private names only

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

from ...errors import ConfigurationError
from .tap import Tap
from .transport import is_http_client, metered

Adapter: TypeAlias = Callable[[Any, Tap], Any]

_SUPPORTED = (
    "give an instance of OpenAI, Anthropic, Groq, google.genai.Client or Mistral, synchronous or asynchronous, or of "
    "another client with `copy(http_client=...)`; elsewhere, LLMMeter.record takes each response"
)
_COPIED = ("openai", "anthropic", "groq", "together", "cerebras")
_BINARY = ("AnthropicBedrock", "AsyncAnthropicBedrock")  # its streams are no server-sent events


def adapter_of(client: object) -> tuple[Adapter, str]:
    """What makes a metered copy of a client, and the provider that its SDK is for.

    Raises:
        ConfigurationError: There is nothing that does.
    """
    kinds = type(client).__mro__
    packages = [kind.__module__.partition(".")[0] for kind in kinds]
    if "mistralai" in packages and hasattr(client, "sdk_configuration"):
        return _mistral, "mistral"
    if any(kind.__module__.startswith("google.genai") for kind in kinds) and hasattr(client, "_api_client"):
        return _genai, "gemini"
    is_binary = any(kind.__name__ in _BINARY for kind in kinds)
    if is_http_client(getattr(client, "_client", None)) and callable(getattr(client, "copy", None)) and not is_binary:
        return _copied, next((name for name in packages if name in _COPIED), packages[0])
    raise ConfigurationError(f"{_name_of(client)} cannot be wrapped: {_SUPPORTED}")


def _name_of(client: object) -> str:
    kind = client if isinstance(client, type) else type(client)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return f"the class {name}" if isinstance(client, type) else f"an object of {name}"


def _copied(client: Any, tap: Tap) -> Any:
    return client.copy(http_client=metered(client._client, tap))


def _mistral(client: Any, tap: Tap) -> Any:
    copied = copy.copy(client)
    for name in client._sub_sdk_map:
        vars(copied).pop(name, None)  # made when it was used, with the original's configuration
    configuration = copied.sdk_configuration = copy.copy(client.sdk_configuration)
    for name in ("client", "async_client"):
        if is_http_client(getattr(configuration, name)):
            setattr(configuration, name, metered(getattr(configuration, name), tap))
    copied._original = client  # which closes the connections at its end
    return copied


def _genai(client: Any, tap: Tap) -> Any:
    if client._api_client._use_google_auth_sync():
        raise ConfigurationError(f"a google.genai.Client with mutual TLS cannot be wrapped: {_SUPPORTED}")
    api = _genai_api(client, tap)
    if not hasattr(client, "_aio"):
        return type(client)(api)
    copied: Any = object.__new__(_without_end(client))
    copied._get_api_client = lambda **_: api  # its constructor makes everything else of this
    base: Any = next(kind for kind in type(client).__mro__ if kind.__module__ == "google.genai.client")
    base.__init__(copied, debug_config=client._debug_config)
    return copied


def _genai_api(client: Any, tap: Tap) -> Any:
    original = client._api_client
    api: Any = object.__new__(_without_end(original))
    vars(api).update(vars(original))
    for name in ("_httpx_client", "_async_httpx_client"):
        if is_http_client(getattr(api, name)):
            setattr(api, name, metered(getattr(api, name), tap))
    api._original = client  # which closes the connections at its end
    return api


def _without_end(original: Any) -> Any:
    """A type whose objects leave the connections to the original, and use no HTTP client but httpx."""
    kind = type(original)
    if issubclass(kind, _WithoutEnd):
        return kind
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (_WithoutEnd, kind), names)


class _WithoutEnd:
    def __del__(self) -> None:
        """Nothing."""

    def _use_aiohttp(self) -> bool:
        return False
