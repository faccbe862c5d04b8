"""An exploration in words, tables and figures."""

import numpy as np
import pandas as pd

from analysis.statistics import number
from analysis.whatif.comparison import BASELINE
from analysis.whatif.exploration import Exploration, failures, regrets, sensitivities
from analysis.whatif.figures import futures_figure, sensitivity_figure
from analysis.whatif.levers import Target
from analysis.whatif.outcomes import OUTCOMES
from analysis.whatif.report import Section
from ecosystem import InputError

_COLUMNS = {
    "mean": "mean",
    "worst": "worst",
    "mean_regret": "mean regret",
    "max_regret": "largest regret",
    "satisficing": "share of futures that reach the target",
    "low": "its 95% interval from",
    "high": "to",
    "mean_cost": "mean cost",
    "max_cost_regret": "largest regret in cost",
}

MOST = 0.9
"""The cheapest policy that meets the target in this share of futures is named."""


def explored_in_words(found: Exploration, target: Target) -> str:
    """Return in one sentence which policy is robust, by regret and by how often it is good enough."""
    table, n = regrets(found, target), len(found.uncertainties)
    regret, share = table["max_regret"], table["satisficing"]
    percent = OUTCOMES[target.outcome].percent
    best = str(regret.idxmin())
    far = f"{100 * float(regret[best]):.3g} points" if percent else number(float(regret[best]))
    met = round(float(share[best]) * n)
    text = (
        f'Over {n} futures "{best}" is the most robust choice: never more than {far} behind the best policy '
        f"of a "
        f"future in {OUTCOMES[target.outcome].says}, and it reaches the target ({target}) in {met} of {n}"
    )
    enough = table[table["satisficing"] >= MOST]
    if len(enough):
        cheap = str(enough["mean_cost"].idxmin())
        met = round(float(share[cheap]) * n)
        text += (
            "; it is also the cheapest that does so in nine of ten futures or more"
            if cheap == best
            else f'; the cheapest that does so in nine of ten futures or more is "{cheap}" ({met} of {n})'
        )
    else:
        text += "; no policy does so in nine of ten futures"
    without = round(float(share[BASELINE]) * n)
    return f"{text}; without a policy it is {without} of {n}."


def explored_sections(found: Exploration, target: Target) -> list[Section]:
    """Return the parts of the report: robustness, sensitivity, discovery, and the four tables."""
    table, what = regrets(found, target), OUTCOMES[target.outcome]
    sections = [
        Section(
            "Which policy is robust",
            [
                "Left: a dot for every policy in every future, green where it reaches the target (dashed). "
                "Right: "
                "the regret of a policy is how far it falls short of the best policy of the same future."
            ],
            "regret",
            futures_figure(found.outcome(target.outcome), table["max_regret"], target),
            "Outcome of every policy in every future, and its largest regret; numbers in the table.",
            table.rename(columns=_COLUMNS),
        )
    ]
    noise = float(found.noise[target.outcome].max())
    caution = (
        f"Up to {100 * noise:.0f}% of the variance between futures is luck of few replicates, which no input "
        "explains."
        if np.isfinite(noise)
        else "With a single replicate it is not known how much of the variance is luck."
    )
    try:
        indices = sensitivities(found, target.outcome)
    except InputError as error:
        sections.append(Section(f"What {what.says} depends on", [str(error)]))
    else:
        shown = "ST" if found.design == "sobol" else "S1"
        sections.append(
            Section(
                f"What {what.says} depends on",
                [_indices(found), caution],
                "sensitivity",
                sensitivity_figure(indices, shown),
                "Sensitivity of every policy to every uncertain input; numbers in the table.",
                _wide(indices),
            )
        )
    sections.append(_where(found, target))
    sections += [
        Section("Levers", ["What each policy sets."], "levers", table=found.levers),
        Section(
            "Constants",
            ["The same in all futures and policies."],
            "constants",
            table=found.constants.to_frame(),
        ),
    ]
    return sections


def _indices(found: Exploration) -> str:
    if found.design == "sobol":
        return (
            "S1 is the share of the variance over futures that an input explains by itself, ST with all its "
            "interactions (Sobol indices, by SALib)."
        )
    return (
        "S1 is the share of the variance over futures that an input explains by itself (RBD-FAST); PAWN "
        "says how "
        "far knowing it moves what is to be expected, from 0 to 1 (both by SALib, from the same futures)."
    )


def _wide(indices: pd.DataFrame) -> pd.DataFrame:
    text = [
        f"{value:.2f} ± {half:.2f}" if np.isfinite(half) else f"{value:.2f}"
        for value, half in zip(indices["value"], indices["half_width"], strict=True)
    ]
    named = indices.assign(text=text, column=indices["uncertainty"] + ", " + indices["index"])
    wide = named.pivot(index="policy", columns="column", values="text")
    return wide.loc[list(dict.fromkeys(indices["policy"])), list(dict.fromkeys(named["column"]))]


def _where(found: Exploration, target: Target) -> Section:
    title = "Where policies fail"
    try:
        boxes = failures(found, target)
    except InputError as error:
        return Section(title, [str(error)])
    if boxes.empty:
        return Section(
            title, ["No policy fails in some futures but not in others often enough to say where."]
        )
    return Section(
        title,
        [
            "For each policy the box of uncertain inputs in which it tends to miss the target (PRIM, by "
            "ema_workbench). Coverage: the share of its failures that lie in the box; density: the share "
            "of the "
            "futures in the box that are failures; mass: the share of all futures in it."
        ],
        "failures",
        table=boxes.set_index("policy"),
    )
