"""Every error that Meterprint raises.

```text
MeterprintError
├── ConfigurationError    a setting is missing or wrong
├── ValidationError       a value breaks a rule of the contract (also a ValueError)
├── APIError              the metering API refused a request
└── UnreachableError      no answer from the metering API
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One rule that one value breaks.

    Attributes:
        pointer: Where the value stands, as a JSON Pointer (RFC 6901): `/events/3/metadata/tokens`.
        reason: What is wrong with it, and what to do instead.
        code: The error code of the metering API for this rule.
    """

    pointer: str
    reason: str
    code: str = "INVALID_REQUEST_BODY"

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.reason}"


class MeterprintError(Exception):
    """The base of every error of this package."""


class ConfigurationError(MeterprintError):
    """A setting is missing or wrong; the message names it and the fix."""


class ValidationError(MeterprintError, ValueError):
    """A value breaks a rule of the metering contract. Nothing was sent or stored.

    Attributes:
        problems: Each broken rule, at least one.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)

    @property
    def code(self) -> str:
        """The error code of the first problem, for example `INVALID_METADATA`."""
        return self.problems[0].code

    def under(self, prefix: str) -> ValidationError:
        """The same error with `prefix` before each pointer."""
        return ValidationError([Problem(prefix + p.pointer, p.reason, p.code) for p in self.problems])


class APIError(MeterprintError):
    """The metering API refused a request.

    Attributes:
        status: The HTTP status code.
        code: The error code in the answer, for example `UNAUTHORIZED`.
        message: What the answer says.
        problems: The values that were refused, where the answer names them.
    """

    def __init__(self, status: int, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        details = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{status} {code}: {message}{details}")
        self.status = status
        self.message = message
        self.code = code
        self.problems = tuple(problems)


class UnreachableError(MeterprintError):
    """No answer from the metering API: refused, cut or timed out, on every try."""
