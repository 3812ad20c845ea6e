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
app.add_middleware(UsageMiddleware, recorder=recorder)


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
    api = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")
    async with app.router.lifespan_context(app), api:
        ada = {"Authorization": "Bearer key-of-ada"}
        response = await api.get("/v1/orders/7", headers=ada)
        print("GET /v1/orders/7", response.status_code)
        #> GET /v1/orders/7 200
        response = await api.post("/v1/orders", headers=ada, json={"item": "book"})
        print("POST /v1/orders", response.status_code)
        #> POST /v1/orders 201
        response = await api.get("/v1/orders/9")
        print("GET /v1/orders/9", response.status_code)
        #> GET /v1/orders/9 401
        response = await api.get("/health", headers=ada)
        print("GET /health", response.status_code)
        #> GET /health 200


if __name__ == "__main__":
    asyncio.run(main())
