"""How much slower is collapse when a share of every batch is fresh human data?

One model on real English word counts at T = 0.8, over fresh fractions from 0 to 1: the share of human
diversity kept, and the speed of collapse, the loss of ln(effective number) per factor e of corpus growth.
"""

from itertools import pairwise

import numpy as np

from ecosystem import Scenario, metrics
from scenarios.common import BASELINE, Answer, by_value, command, draw, estimates, figure, independent

FRESH = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]


def study(quick: bool) -> Answer:
    """Measure share kept and speed of collapse over fresh fractions."""
    copies, rounds = (12, 60) if quick else (60, 400)
    scenario = Scenario(
        human="english",
        n_outputs=1000,
        temperature=0.8,
        outputs_per_round=500,
        batch_size=500,
        pretraining_size=5000,
        rounds=rounds,
        record_every=rounds,
    )
    trajectory = independent(scenario, copies, fresh_fraction=FRESH)
    logarithm = np.log(by_value(trajectory, "hill_1", copies))
    growth = np.log(1 + 500 * rounds / 5000)
    speeds = estimates((logarithm[..., 0] - logarithm[..., -1]) / growth)
    kept = estimates(np.exp(logarithm[..., -1]) / metrics.hill(trajectory.human, 1))
    plot = figure(columns=2)
    titles = ("Collapse slows as fresh data grows", "What is left in the end")
    labels = (
        "loss of ln(effective number of outputs)\nper factor e of corpus growth",
        "share of human diversity kept",
    )
    for axes, values, title, label, human in zip(
        plot.axes, (speeds, kept), titles, labels, (0, 1), strict=True
    ):
        axes.axhline(human, **BASELINE, label="human data")
        draw(axes, FRESH, values, label=f"mean of {copies} models, 95% interval")
        axes.set_xlabel("fresh fraction λ (share of human items in a batch)")
        axes.set_ylabel(label)
        axes.set_title(f"{title} (T = 0.8)", loc="left", fontsize="medium")
        axes.legend(frameon=False)
    slower = all(a.mean - a.half_width > b.mean + b.half_width for a, b in pairwise(speeds))
    return Answer(
        f"The speed of collapse falls from {speeds[0].text()} without fresh data to {speeds[2].text()} at "
        f"λ = 0.1, {speeds[4].text()} at 0.3 and {speeds[5].text()} at 0.5; after {rounds} rounds "
        f"{kept[0].text()}, {kept[2].text()}, {kept[4].text()} and {kept[5].text()} of human diversity "
        "are left.",
        slower,
        plot,
    )


if __name__ == "__main__":
    command(study)
