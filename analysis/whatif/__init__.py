"""Policy what-if: which rule about data mixing prevents collapse, at what price, how sure, depending on what.

* `read_plan`: a file of policies, checked wholly before any work.
* `compare`: policies against a baseline under common random numbers, until the answer is sure enough.
* `require`: the least strength of a lever that reaches a target; `late_or_early`: the price of waiting.
* `explore`: the same over ranges of what is not known; sensitivities, scenario discovery, regret.

Names are resolved on first use: most of them need pandas, figures and SALib, which load slowly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.whatif.bench import Bench
    from analysis.whatif.compare import BASELINE, Comparison, Interrupted, compare
    from analysis.whatif.outcomes import OUTCOMES
    from analysis.whatif.pareto import pareto
    from analysis.whatif.plan import EXAMPLE, Plan, read_plan

__all__ = [
    "BASELINE",
    "EXAMPLE",
    "OUTCOMES",
    "Bench",
    "Comparison",
    "Interrupted",
    "Plan",
    "compare",
    "pareto",
    "read_plan",
]

_MODULE_OF = {
    "BASELINE": "compare",
    "Bench": "bench",
    "Comparison": "compare",
    "EXAMPLE": "plan",
    "Interrupted": "compare",
    "OUTCOMES": "outcomes",
    "Plan": "plan",
    "compare": "compare",
    "pareto": "pareto",
    "read_plan": "plan",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'analysis.whatif' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.whatif.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
