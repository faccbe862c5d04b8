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
    from analysis.whatif.comparison import BASELINE, Comparison, Interrupted, compare
    from analysis.whatif.exploration import Exploration, explore, failures, regrets, sensitivities
    from analysis.whatif.front import pareto
    from analysis.whatif.late import Waiting, late_or_early
    from analysis.whatif.levers import Target, parse_target
    from analysis.whatif.outcomes import OUTCOMES
    from analysis.whatif.plan import EXAMPLE, Plan, read_plan
    from analysis.whatif.report import sentence, summary
    from analysis.whatif.requirement import Requirement, require, requirements

__all__ = [
    "BASELINE",
    "EXAMPLE",
    "OUTCOMES",
    "Bench",
    "Comparison",
    "Exploration",
    "Interrupted",
    "Plan",
    "Requirement",
    "Target",
    "Waiting",
    "compare",
    "explore",
    "failures",
    "late_or_early",
    "pareto",
    "parse_target",
    "read_plan",
    "regrets",
    "require",
    "requirements",
    "sensitivities",
    "sentence",
    "summary",
]

_MODULES = {
    "bench": ("Bench",),
    "comparison": ("BASELINE", "Comparison", "Interrupted", "compare"),
    "exploration": ("Exploration", "explore", "failures", "regrets", "sensitivities"),
    "late": ("Waiting", "late_or_early"),
    "levers": ("Target", "parse_target"),
    "outcomes": ("OUTCOMES",),
    "front": ("pareto",),
    "plan": ("EXAMPLE", "Plan", "read_plan"),
    "report": ("sentence", "summary"),
    "requirement": ("Requirement", "require", "requirements"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'analysis.whatif' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.whatif.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
