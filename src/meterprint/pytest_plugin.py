"""The pytest fixture `metering_api`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import MeteringAPI


@pytest.fixture
def metering_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[MeteringAPI]:
    """A metering API of this test's own, in this process: no port, no account, empty at the start.

    METERING_API_URL and METERING_API_KEY point to it, and every httpx client reaches it; requests to
    other hosts go where they would without it.
    """
    try:
        import respx

        from .testing import InProcess, MeteringAPI
    except ImportError as error:
        pytest.fail(
            f"metering_api needs the extra `local`: pip install '.[local]' in a checkout ({error})", pytrace=False
        )
    api = MeteringAPI()
    monkeypatch.setenv("METERING_API_URL", api.url)
    monkeypatch.setenv("METERING_API_KEY", api.key)
    with respx.mock(assert_all_called=False) as router:
        router.route(url__startswith=api.url).mock(side_effect=InProcess(api.app).handle_request)
        router.route().pass_through()
        yield api
