"""Meter the chat of a FastAPI application for the customer who is signed in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from meterprint import AsyncRecorder
from meterprint.blueprints.llm import LLMMeter

SESSIONS = {"token-of-ada": "cus_ada", "token-of-bo": "cus_bo"}  # your session store
customer: ContextVar[str] = ContextVar("customer")
recorder = AsyncRecorder.from_env()
plain = AsyncOpenAI()
client = LLMMeter(recorder, customer_id=customer, metadata={"feature": "chat"}).wrap(plain)


async def authenticate(authorization: Annotated[str, Header()] = "") -> None:
    """The customer comes from the session. A plain `def` would run in a thread, and set the variable there."""
    customer_id = SESSIONS.get(authorization.removeprefix("Bearer "))
    if customer_id is None:
        raise HTTPException(401, "sign in first")
    customer.set(customer_id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with recorder, plain:  # the recorder ends last, and delivers what is left
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    text: str


@app.post("/chat", dependencies=[Depends(authenticate)])
async def chat(question: Question) -> StreamingResponse:
    stream = await client.chat.completions.create(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": question.text}],
        stream=True,
    )
    return StreamingResponse(words(stream), media_type="text/plain")


async def words(stream: AsyncStream[ChatCompletionChunk]) -> AsyncIterator[str]:
    async with stream:  # who goes away half-way pays for what was received
        async for chunk in stream:
            yield chunk.choices[0].delta.content or ""


async def main() -> None:
    """Two customers ask, of whom one claims to be the other, and a stranger."""
    api = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")
    async with app.router.lifespan_context(app), api:
        ada = {"Authorization": "Bearer token-of-ada"}
        response = await api.post("/chat", headers=ada, json={"text": "Why is the sky blue?"})
        print(response.status_code, response.text)
        #> 200 This is the stand-in's answer to: Why is the sky blue?
        bo = {"Authorization": "Bearer token-of-bo"}
        response = await api.post("/chat", headers=bo, json={"text": "Why is grass green?", "customer_id": "cus_ada"})
        print(response.status_code, response.text)
        #> 200 This is the stand-in's answer to: Why is grass green?
        response = await api.post("/chat", json={"text": "Who pays for this?", "customer_id": "cus_ada"})
        print(response.status_code, response.text)
        #> 401 {"detail":"sign in first"}


if __name__ == "__main__":
    asyncio.run(main())
