"""Meter two features for two customers, and read what each customer used of each."""

from openai import OpenAI

from meterprint import Aggregation, Condition, Filter, Meter, MeteringClient, Recorder
from meterprint.blueprints.llm import LLMMeter

METERS = [
    Meter(
        name=f"Tokens of {feature}",
        event_name="llm.usage",
        aggregation=Aggregation("sum", "total_tokens"),
        measurement_unit="token",
        filter=Filter("and", (Condition("feature", "equals", feature),)),
    )
    for feature in ("search", "support_chat")
]
CALLS = [
    ("cus_ada", "pro", "support_chat", "Why is the sky blue?"),
    ("cus_ada", "pro", "search", "Skies that are not blue"),
    ("cus_bo", "free", "search", "Red sunsets"),
]

with Recorder.from_env() as recorder, MeteringClient.from_env() as metering, OpenAI() as plain:
    meter = LLMMeter(recorder)
    for customer_id, plan, feature, text in CALLS:
        client = meter.wrap(plain, customer_id=customer_id, metadata={"feature": feature, "plan": plan})
        client.responses.create(model="gpt-5.4-mini", input=text)

    recorder.flush()  # what was recorded until now is delivered: a meter can read it
    for tokens in metering.ensure_meters(METERS):
        for customer_id, used in sorted(metering.usage_by_customer(tokens.id or "").items()):  # a local addition
            print(f"{tokens.name}: {customer_id} {used}")
            #> Tokens of search: cus_ada 85
            #> Tokens of search: cus_bo 79
            #> Tokens of support_chat: cus_ada 83
