"""Meter every request of a FastAPI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request

from meterprint import AsyncRecorder
from meterprint.blueprints.api_gateway import UsageMiddleware

CUSTOMERS = {"key-of-ada": "cus_ada"}  # your key store
recorder = AsyncRecorder.from_env()


def authenticate(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    """The customer comes from the verified key, never from what the request claims."""
    customer_id = CUSTOMERS.get(authorization.removeprefix("Bearer "))
    if customer_id is None:
        raise HTTPException(401, "unknown API key")
    request.state.customer_id = customer_id


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with recorder:  # delivers in the background, and what is left at the end
        yield


orders = APIRouter(prefix="/v1/orders", dependencies=[Depends(authenticate)])
app = FastAPI(lifespan=lifespan)
app.add_middleware(UsageMiddleware, record=recorder.record)


@orders.get("/{order_id}")
async def read_order(order_id: str) -> dict[str, str]:
    return {"order_id": order_id}


@orders.post("", status_code=201)
async def create_order() -> dict[str, str]:
    return {"order_id": "8"}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


app.include_router(orders)


async def main() -> None:
    """Three requests of a customer, and one of a stranger."""
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as api:
            ada = {"Authorization": "Bearer key-of-ada"}
            for method, path, headers, body in (
                ("GET", "/v1/orders/7", ada, None),
                ("POST", "/v1/orders", ada, {"item": "book"}),
                ("GET", "/v1/orders/9", {}, None),
                ("GET", "/health", ada, None),
            ):
                response = await api.request(method, path, headers=headers, json=body)
                print(method, path, response.status_code)
                """
                GET /v1/orders/7 200
                """


if __name__ == "__main__":
    asyncio.run(main())
