"""Types and declarations of settings, for scenarios and interventions."""

from typing import Annotated, Any

import numpy as np
import tomli_w
from pydantic import BeforeValidator, Field, Strict


def plain(value: Any) -> Any:
    """Turn numpy numbers, arrays and lists into Python numbers and tuples."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


Plain = BeforeValidator(plain)
Count = Annotated[int, Strict(), Field(ge=1, le=2**53)]
Flag = Annotated[bool, Strict()]
Index = Annotated[int, Strict(), Field(ge=0, lt=10**6)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
Size = Annotated[int, Strict(), Field(ge=1, le=10**9)]
Population = Annotated[int, Strict(), Field(ge=1, le=10**6)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
NonNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Strict(), Field(ge=0)]


def setting(default: Any, meaning: str, allowed: str, example: Any = None) -> Any:
    """Declare a setting: its default, what it means, what is allowed and what to type."""
    example = default if example is None else example
    extra = {"allowed": allowed, "example": example}
    return Field(default, description=meaning, json_schema_extra=extra)


def toml_value(value: Any) -> str:
    """Return a value as one would type it, on one line."""
    return " ".join(tomli_w.dumps({"x": value}).removeprefix("x = ").split())
