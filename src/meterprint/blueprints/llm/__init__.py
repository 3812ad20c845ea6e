"""The LLM blueprint: bill the tokens of language models, every answer once."""

from .definition import BLUEPRINT, USAGE
from .usage import Usage, usage_of
from .wrap import LLMMeter

__all__ = ["BLUEPRINT", "USAGE", "LLMMeter", "Usage", "usage_of"]
