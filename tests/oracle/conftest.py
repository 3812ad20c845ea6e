"""Collects the oracle only where ClickHouse is installed: in the environment of `make oracle`."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("chdb") else ["test_oracle.py"]
