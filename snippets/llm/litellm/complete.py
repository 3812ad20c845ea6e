"""Meter what LiteLLM brings, from any provider, with a callback."""

import asyncio
import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import fetches a list of prices

import litellm
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from meterprint import AsyncRecorder
from meterprint.blueprints.llm import LLMMeter
from meterprint.blueprints.llm.litellm import LiteLLMCallback


async def main() -> None:
    async with AsyncRecorder.from_env() as recorder:
        litellm.callbacks = [LiteLLMCallback(LLMMeter(recorder, customer_id="cus_ada"))]
        answer = await litellm.acompletion(
            model="openai/gpt-5.4-mini",
            messages=[{"role": "user", "content": "Why is the sky blue?"}],
        )
        assert isinstance(answer, litellm.ModelResponse)  # not a stream
        print(answer.choices[0].message.content)
        #> This is the stand-in's answer to: Why is the sky blue?

        # LiteLLM tells its callbacks later, in a task and by a queue: let both finish before the recorder ends.
        await asyncio.sleep(0)
        await GLOBAL_LOGGING_WORKER.flush()


if __name__ == "__main__":
    asyncio.run(main())
