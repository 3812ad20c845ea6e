"""Meter every step of an agent of Pydantic AI: the call of a tool, and the answer after it."""

import asyncio

from pydantic_ai import Agent

from meterprint import AsyncRecorder
from meterprint.blueprints.llm import LLMMeter
from meterprint.blueprints.llm.pydantic_ai import PydanticAICapability


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


async def main() -> None:
    async with AsyncRecorder.from_env() as recorder:
        meter = LLMMeter(recorder, customer_id="cus_ada", metadata={"feature": "weather_agent"})
        async with Agent("openai:gpt-5.4-mini", tools=[weather], capabilities=[PydanticAICapability(meter)]) as agent:
            result = await agent.run("Do I need an umbrella in Stockholm?")
        print(result.output)
        #> This is the stand-in's answer to: Do I need an umbrella in Stockholm? The tool said: sunny in example


if __name__ == "__main__":
    asyncio.run(main())
