"""Keep events on disk until they are delivered."""

import tempfile
from pathlib import Path

from meterprint import Event, MeteringClient, Recorder

SPOOL = Path(tempfile.mkdtemp(), "usage")  # yours: /var/lib/shop/usage

# A metering API that does not answer, and a process that ends all the same.
nobody = MeteringClient("http://127.0.0.1:1", "local")
with Recorder(nobody, spool=SPOOL, shutdown_timeout=0.5) as recorder:
    recorder.record(
        "order.created",
        customer_id="cus_ada",
        event_id=Event.id_for("order", "o_7"),  # twice recorded, billed once
    )
print(f"{recorder.stats.delivered} delivered, {recorder.stats.buffered} in the spool")
#> 0 delivered, 1 in the spool

# The next start sends what is left, before anything new.
with Recorder.from_env(spool=SPOOL) as recorder:
    pass
print(f"{recorder.stats.delivered} delivered, {recorder.stats.buffered} in the spool")
#> 1 delivered, 0 in the spool
