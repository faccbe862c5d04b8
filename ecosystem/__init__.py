"""A shared data ecosystem: generative models that publish, mix with human data, and retrain.

The three names most scripts need are here; everything else is imported from its module.

>>> from ecosystem import Scenario, run
>>> trajectory = run(Scenario(rounds=10), replicates=2)
>>> trajectory.table.columns[:3].tolist()
['replicate', 'round', 'provider']

Names are resolved on first use, so that ``import ecosystem.sharing`` does not have to import Mesa.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecosystem.errors import InputError
    from ecosystem.model import Ecosystem
    from ecosystem.running import run
    from ecosystem.scenario import Scenario
    from ecosystem.trajectory import Trajectory

__all__ = ["Ecosystem", "InputError", "Scenario", "Trajectory", "__version__", "run"]
__version__ = "0.1.0"

_MODULE_OF = {
    "Ecosystem": "ecosystem.model",
    "InputError": "ecosystem.errors",
    "Scenario": "ecosystem.scenario",
    "Trajectory": "ecosystem.trajectory",
    "run": "ecosystem.running",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ecosystem' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
