"""See what became of the events."""

from meterprint import DeadLetter, MeterprintError, Recorder


def on_dead(letter: DeadLetter) -> None:
    print(f"{letter.code} {letter.reason}")
    #> INVALID_METADATA /metadata/size: nan is not a finite number: leave the key out instead


def on_problem(error: MeterprintError) -> None:
    print(f"delivery is held up: {error}")  # page whoever keeps the key


options = {"strict": False, "on_dead": on_dead, "on_problem": on_problem}
with Recorder.from_env(**options) as recorder:
    for size in (float("nan"), 2048):
        recorder.record("upload", customer_id="cus_ada", metadata={"size": size})

stats = recorder.stats
print(f"{stats.recorded} recorded: {stats.delivered} delivered, {stats.dead} dead")
#> 2 recorded: 1 delivered, 1 dead
