"""The blueprints: what to send, what to create, what it costs, and the code that measures."""

from ..blueprint import Blueprint
from . import api_gateway

BLUEPRINTS: dict[str, Blueprint] = {blueprint.slug: blueprint for blueprint in (api_gateway.BLUEPRINT,)}
