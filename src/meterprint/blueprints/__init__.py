"""The blueprints: what to send, what to create, what it costs, and the code that measures."""

from ..blueprint import Blueprint
from . import api_gateway, llm

BLUEPRINTS: dict[str, Blueprint] = {blueprint.slug: blueprint for blueprint in (llm.BLUEPRINT, api_gateway.BLUEPRINT)}
