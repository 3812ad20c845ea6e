"""Each error of the package, raised and caught."""

import os

from meterprint import (
    APIError,
    ConfigurationError,
    Event,
    MeteringClient,
    UnreachableError,
    ValidationError,
)

# --8<-- [start:configuration]
try:
    MeteringClient("metering.example.com", key="local")
except ConfigurationError as error:
    print(error)
    #> the URL 'metering.example.com' of the metering API does not start with http:// or https://
# --8<-- [end:configuration]

# --8<-- [start:validation]
odd: dict[str, str | float] = {"size": float("nan"), "note": "x" * 501}
try:
    Event("e1", "cus_ada", "api.request", metadata=odd)
except ValidationError as error:
    for problem in error.problems:
        print(problem)
        #> /metadata/size: nan is not a finite number: leave the key out instead
        #> /metadata/note: 501 characters: at most 500 are allowed
# --8<-- [end:validation]

# --8<-- [start:api]
with MeteringClient.from_env() as metering:
    try:
        metering.event("evt_of_nobody")
    except APIError as error:
        print(error.status, error.code)
        #> 404 NOT_FOUND
# --8<-- [end:api]

# --8<-- [start:unreachable]
with MeteringClient("http://127.0.0.1:1", os.environ["METERING_API_KEY"], retries=0) as metering:
    try:
        metering.ingest([Event(Event.new_id(), "cus_ada", "api.request")])
    except UnreachableError as error:
        print(str(error).partition(" (")[0])
        #> no answer from http://127.0.0.1:1
# --8<-- [end:unreachable]
