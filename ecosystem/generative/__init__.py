"""What learns: the seam `GenerativeModel` and one file per family."""

from ecosystem.generative.base import GenerativeModel
from ecosystem.generative.categorical import Categorical

__all__ = ["Categorical", "GenerativeModel"]
