"""What it depends on: the comparison over ranges of what is not known, kept apart as

* uncertainties: what nobody sets and nobody knows; a row per future;
* levers: what a policy sets; a row per policy;
* constants: what is the same in all of them;
* outcomes: what comes out; a row per future and policy.

From them: how strongly each outcome depends on each uncertain input (SALib), where a policy fails (PRIM, see
`analysis.whatif.discovery`), and which policy is robust: its regret in a future is how far it falls short of
the best policy of that future.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import qmc

from analysis.design import AmbiguousError, as_cell, misnamed, whole_only, with_setting
from analysis.statistics import share_interval
from analysis.whatif.bench import Bench
from analysis.whatif.comparison import BASELINE
from analysis.whatif.levers import Target, has_setting, settings_of, uncertain_rules
from analysis.whatif.outcomes import OUTCOMES
from analysis.whatif.plan import Plan
from analysis.whatif.words import intervention_in_words
from ecosystem import InputError, Scenario

DESIGNS = ("latin-hypercube", "sobol")

_HARMONICS = 4  # of RBD-FAST: fewer harmonics, less noise; unbiased from 32 futures on (tried on a sum)


@dataclass(frozen=True, eq=False)
class Exploration:
    """What `explore` returns: the four tables, and what they come from.

    Attributes
    ----------
    ranges : dict of str to (low, high)
        The uncertain inputs, evenly likely between their ends.
    design : str
        "latin-hypercube" or "sobol" (Saltelli's).
    uncertainties : DataFrame
        Indexed by future; a column per uncertain input.
    levers : DataFrame
        Indexed by policy: says, rules.
    constants : Series
        Every other setting of the baseline.
    outcomes : DataFrame
        Columns future, policy, replicates, then the mean over replicates of every outcome.
    noise : DataFrame
        Per policy and outcome, the share of the variance over futures that is luck of few replicates;
        missing with a single one.
    concerns : DataFrame of bool
        Whether an uncertain input is part of a policy's scenario: a row per policy, a column per input.
    """

    ranges: Mapping[str, tuple[float, float]]
    design: str
    uncertainties: pd.DataFrame
    levers: pd.DataFrame
    constants: pd.Series
    outcomes: pd.DataFrame
    noise: pd.DataFrame
    concerns: pd.DataFrame

    @property
    def policies(self) -> list[str]:
        """The baseline, then the policies."""
        return list(self.levers.index)

    def outcome(self, name: str) -> pd.DataFrame:
        """Return one outcome: a row per future, a column per policy."""
        return self.outcomes.pivot(index="future", columns="policy", values=name)[self.policies]


def _problem(ranges: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        "num_vars": len(ranges),
        "names": list(ranges),
        "bounds": [[float(low), float(high)] for low, high in ranges.values()],
    }


def explore(
    plan: Plan,
    samples: int,
    *,
    design: str = "latin-hypercube",
    replicates: int = 2,
    bench: Bench,
) -> Exploration:
    """Run the baseline and every policy in many futures: other values of what is not known.

    Parameters
    ----------
    plan : Plan
        With uncertainties. One such as "detector.true_positive" matters to the policies that have that
        intervention; the others stay as they are.
    samples : int
        Futures of a Latin hypercube (any number, 2 or more); or N of a Sobol design, a power of 2, which has
        N (k + 2) futures for k uncertain inputs.
    design : str
        One of `DESIGNS`. The Latin hypercube spreads few futures well; only the Sobol design gives the
        variance-based indices with interactions.
    replicates : int
        Of every policy in every future, 1 or more, with the same luck in all of them.
    bench : Bench
        Where the runs are made and remembered.

    Returns
    -------
    Exploration

    Raises
    ------
    InputError
        If a number is not allowed or an input fits no policy, before any work.
    """
    if not plan.uncertainties:
        raise InputError("the file has no [uncertainties]; write ranges, e.g. temperature = [0.7, 1.0]")
    if replicates < 1:
        raise InputError(f"replicates = {replicates!r}: allowed: a whole number, 1 or more")
    settings = {BASELINE: settings_of(plan.baseline)} | {
        name: settings_of(scenario) for name, scenario in plan.scenarios.items()
    }
    whole = check_uncertainties(plan.uncertainties, settings)
    points = sampled(plan.uncertainties, samples, design, plan.baseline.seed, whole)
    scenarios = {
        (future, policy): future_of(given, row)
        for policy, given in settings.items()
        for future, row in enumerate(points.to_dict("records"))
    }
    bench.run(scenarios.values(), range(replicates), f"{len(points)} futures of {len(settings)} policies")
    rows, spread = [], []
    for (future, policy), scenario in scenarios.items():
        runs = bench.outcomes(scenario, range(replicates)).to_numpy()
        means = dict(zip(OUTCOMES, np.mean(runs, axis=0), strict=True))
        rows.append({"future": future, "policy": policy, "replicates": replicates} | means)
        luck = np.var(runs, axis=0, ddof=1) / replicates if replicates > 1 else np.full(len(OUTCOMES), np.nan)
        spread.append({"policy": policy} | dict(zip(OUTCOMES, luck, strict=True)))
    outcomes = pd.DataFrame(rows).sort_values(["future", "policy"], ignore_index=True)
    names = list(OUTCOMES)
    noise = pd.DataFrame(spread).groupby("policy")[names].mean()
    total = outcomes.groupby("policy")[names].var(ddof=1)
    varied = set(plan.uncertainties)
    plain = {
        name: as_cell(_readable(value))
        for name, value in plan.baseline.settings().items()
        if value is not None
    }
    if standing := uncertain_rules(plan.baseline, plan.uncertainties):
        plain["interventions"] = as_cell(_readable(tuple(standing)))
    own = len(plan.baseline.interventions)
    levers = {BASELINE: ("", "")} | {
        name: (
            policy.says,
            "; ".join(map(intervention_in_words, uncertain_rules(policy.scenario, plan.uncertainties)[own:])),
        )
        for name, policy in plan.policies.items()
    }
    return Exploration(
        plan.uncertainties,
        design,
        points,
        pd.DataFrame.from_dict(levers, orient="index", columns=["says", "rules"]).rename_axis("policy"),
        pd.Series({name: value for name, value in plain.items() if name not in varied}, name="value"),
        outcomes,
        (noise / total.where(total > 0)).where(total > 0, 0.0).clip(upper=1.0),
        pd.DataFrame(
            {
                name: {policy: has_setting(given, name) for policy, given in settings.items()}
                for name in plan.uncertainties
            }
        ),
    )


def _readable(value: Any) -> Any:
    from ecosystem.sharing import EdgeList

    if isinstance(value, np.ndarray | EdgeList):
        return "given"
    if _are_rules(value):
        return [rule.model_dump(exclude_none=True, warnings=False) for rule in value]
    return value


def _are_rules(value: Any) -> bool:
    return isinstance(value, tuple) and any(hasattr(entry, "kind") for entry in value)


def sampled(
    ranges: Mapping[str, tuple[float, float]],
    samples: int,
    design: str,
    seed: int,
    whole: Collection[str] = (),
) -> pd.DataFrame:
    """Return the futures of a design: a row each, a column per uncertain input, indexed by future.

    Inputs named in ``whole`` take the whole numbers of their range, both ends included, and no others.
    """
    if design not in DESIGNS:
        raise InputError(f"design = {design!r}: allowed: {', '.join(DESIGNS)}")
    if samples < 2 or (design == "sobol" and samples & (samples - 1)):
        allowed = "a power of 2, e.g. 64" if design == "sobol" else "2 or more"
        raise InputError(f"{samples} futures: allowed: {allowed}")
    # Whole numbers are the floors of numbers up to the next one, so that both ends are as likely as others.
    wide = {name: (low, high + 1 if name in whole else high) for name, (low, high) in ranges.items()}
    if design == "sobol":
        try:
            from SALib.sample import sobol
        except ImportError:
            raise _needs_salib() from None
        values = sobol.sample(_problem(wide), samples, calc_second_order=False, seed=seed)
    else:
        unit = qmc.LatinHypercube(len(ranges), rng=np.random.default_rng(seed)).random(samples)
        values = qmc.scale(unit, *zip(*wide.values(), strict=True))
    columns = {
        name: np.minimum(np.floor(column), ranges[name][1]).astype(int) if name in whole else column
        for name, column in zip(ranges, values.T, strict=True)
    }
    return pd.DataFrame(columns).rename_axis("future")


def check_uncertainties(
    ranges: Mapping[str, tuple[float, float]], settings: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return which uncertain inputs take whole numbers only.

    Raises
    ------
    InputError
        With a line for each range that fits no policy, or several places of one, or has an end that is not
        allowed.
    """
    lines, whole = [], set()
    for name, ends in ranges.items():
        try:
            fitting = [given for policy, given in settings.items() if _concerns(policy, given, name)]
            if not fitting:
                absent = "no policy has it; add it to one, or leave it out"
                raise InputError(misnamed(name, *settings.values()) or absent)
            for given in fitting:
                scenario_of = partial(_changed_to, given, name)
                if whole_only(scenario_of, *ends):
                    whole.add(name)
                for end in ends:
                    scenario_of(int(end) if name in whole else end)
        except InputError as error:
            lines += [f"uncertainties.{name}: {line}" for line in str(error).splitlines()]
    if lines:
        raise InputError("\n".join(lines))
    return whole


def _concerns(policy: str, settings: Mapping[str, Any], name: str) -> bool:
    """Return whether a policy has an uncertain input; the error says which policy has it twice."""
    try:
        return has_setting(settings, name)
    except AmbiguousError as error:
        raise InputError(f"policy {policy!r}: {error}") from None


def _changed_to(settings: Mapping[str, Any], name: str, value: Any) -> Scenario:
    return Scenario(**with_setting(settings, name, value))


def future_of(settings: Mapping[str, Any], values: Mapping[Any, Any]) -> Scenario:
    """Return the scenario of a policy in a future."""
    changed = dict(settings)
    for name, value in values.items():
        if has_setting(changed, name):
            changed = with_setting(changed, name, value)
    return Scenario(**changed)


# --- sensitivity ----------------------------------------------------------------------------------


def _needs_salib() -> InputError:
    return InputError("sensitivity indices need the package SALib: type pip install '.[sensitivity]'")


def sensitivities(found: Exploration, outcome: str = "diversity_kept") -> pd.DataFrame:
    """Return how strongly an outcome depends on each uncertain input, for every policy.

    Parameters
    ----------
    found : Exploration
        Its design decides on the method.
    outcome : str
        Any of `OUTCOMES`.

    Returns
    -------
    DataFrame
        Columns policy, uncertainty, index, value, half_width (95%, bootstrap). Of a Sobol design "S1" (the
        share of the variance that the input explains by itself) and "ST" (with all its interactions),
        Saltelli et al. (2010). Of a Latin hypercube "S1" by RBD-FAST (Tarantola et al. 2006, Plischke 2010),
        and "PAWN" (how far knowing the input moves the law of the outcome: the median Kolmogorov-Smirnov
        distance over slices of the input; Pianosi, Wagener 2018; without an interval, and above 0 even for
        an input that does nothing: some 0.15 for 100 futures). Indices of few futures are rough: read them
        with their half widths. What never varies depends on nothing, and nothing depends on an input that
        the policy does not have: 0.

    Raises
    ------
    InputError
        If SALib is not installed, or there are fewer than 32 futures.
    """
    try:
        from SALib.analyze import pawn, rbd_fast, sobol
    except ImportError:
        raise _needs_salib() from None
    if len(found.uncertainties) < 32:
        raise InputError(f"{len(found.uncertainties)} futures: sensitivity indices need 32 or more")
    wide, names = found.outcome(outcome), ("S1", "ST") if found.design == "sobol" else ("S1", "PAWN")
    rows = []
    for policy in found.policies:
        y = wide[policy].to_numpy(dtype=float)
        inputs = [name for name in found.ranges if found.concerns.loc[policy, name]]
        if not inputs or np.ptp(y) < 1e-12 * max(1.0, float(np.abs(y).max())):
            rows += [(policy, name, index, 0.0, 0.0) for index in names for name in found.ranges]
            continue
        y = (y - y.mean()) / y.std()  # SALib's estimators of variance are better behaved around 0
        indices: dict[str, tuple[Any, Any]] = {}
        if found.design == "sobol":
            inputs = list(found.ranges)
            answer = sobol.analyze(_problem(found.ranges), y, calc_second_order=False, seed=0)
            indices = {index: (answer[index], answer[f"{index}_conf"]) for index in names}
        else:
            problem = _problem({name: found.ranges[name] for name in inputs})
            x = found.uncertainties[inputs].to_numpy(dtype=float)
            answer = rbd_fast.analyze(problem, x, y, M=_HARMONICS, seed=0)
            moved = pawn.analyze(problem, x, y, S=max(2, min(10, len(x) // 16)), seed=0)
            indices = {
                "S1": (answer["S1"], answer["S1_conf"]),
                "PAWN": (moved["median"], np.full(len(inputs), np.nan)),
            }
        for index in names:
            known = dict(zip(inputs, zip(*indices[index], strict=True), strict=True))
            for name in found.ranges:
                value, half = known[name] if found.concerns.loc[policy, name] else (0.0, 0.0)
                rows.append((policy, name, index, float(value), float(half)))
    return pd.DataFrame(rows, columns=["policy", "uncertainty", "index", "value", "half_width"])


# --- robust choice --------------------------------------------------------------------------------


def regrets(found: Exploration, target: Target) -> pd.DataFrame:
    """Return how every policy fares over all futures.

    Regret in a future is how much worse the policy's outcome is than that of the best policy in this future,
    doing nothing included.

    Parameters
    ----------
    found : Exploration
        The futures.
    target : Target
        The outcome that counts, and what is good enough.

    Returns
    -------
    DataFrame
        Indexed by policy: mean, worst (outcome over futures), mean_regret, max_regret, satisficing (share of
        futures that reach the target) with its exact 95% interval low, high (futures taken as independent
        draws, which is cautious for a spread-out design), mean_cost, max_cost_regret.
    """
    wide, cost = found.outcome(target.outcome), found.outcome("cost")
    up = target.sign == ">="
    regret = wide.rsub(wide.max(axis=1), axis=0) if up else wide.sub(wide.min(axis=1), axis=0)
    met = target.met(wide)
    n = len(wide)
    limits = {policy: share_interval(int(met[policy].sum()), n) for policy in wide}
    return pd.DataFrame(
        {
            "mean": wide.mean(),
            "worst": wide.min() if up else wide.max(),
            "mean_regret": regret.mean(),
            "max_regret": regret.max(),
            "satisficing": met.mean(),
            "low": {policy: low for policy, (low, _) in limits.items()},
            "high": {policy: high for policy, (_, high) in limits.items()},
            "mean_cost": cost.mean(),
            "max_cost_regret": cost.sub(cost.min(axis=1), axis=0).max(),
        }
    ).loc[found.policies]


def failures(found: Exploration, target: Target, least: int = 5) -> pd.DataFrame:
    """Return, for every policy that misses the target in some futures, the box of inputs where it does.

    Parameters
    ----------
    found : Exploration
        The futures.
    target : Target
        What a policy has to reach.
    least : int
        Failures, and successes, that it takes to look for a box.

    Returns
    -------
    DataFrame
        Columns policy, then those of `analysis.whatif.discovery.failing_box`.
    """
    from analysis.whatif.discovery import failing_box

    missed = ~target.met(found.outcome(target.outcome))
    boxes = [
        failing_box(found.uncertainties, missed[policy].to_numpy()).assign(policy=policy)
        for policy in found.policies
        if least <= missed[policy].sum() <= len(missed) - least
    ]
    columns = ["policy", "uncertainty", "low", "high", "coverage", "density", "mass"]
    return pd.concat(boxes, ignore_index=True)[columns] if boxes else pd.DataFrame(columns=columns)
