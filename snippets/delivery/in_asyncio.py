"""Record in an asyncio application."""

import asyncio

from meterprint import AsyncRecorder


async def main() -> None:
    async with AsyncRecorder.from_env() as recorder:
        recorder.record("message.sent", customer_id="cus_ada", metadata={"characters": 120})
        print("delivered:", await recorder.flush())
        #> delivered: True


asyncio.run(main())
