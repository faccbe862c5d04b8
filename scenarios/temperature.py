"""How fast does entropy change at each sampling temperature, on both sides of T = 1?

One model without fresh data. Under ``accumulate`` the natural clock is the logarithm of the corpus, so
the rate is the change of entropy per factor e of corpus growth. Below T = 1 entropy falls (the model
sharpens towards one output), above it rises (towards uniform), and T = 1 only drifts.
"""

import numpy as np

from ecosystem import Scenario
from scenarios.common import BASELINE, Answer, by_value, command, draw, estimates, figure, independent

TEMPERATURES = [0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0]


def study(quick: bool) -> Answer:
    """Measure the rate of change of entropy over temperatures."""
    copies = 30 if quick else 200
    scenario = Scenario(
        n_outputs=100,
        human="zipf",
        fresh_fraction=0.0,
        outputs_per_round=500,
        batch_size=500,
        pretraining_size=5000,
        rounds=90,
        record_every=90,
    )
    entropy = by_value(independent(scenario, copies, temperature=TEMPERATURES), "entropy", copies)
    growth = np.log(1 + 500 * 90 / 5000)
    rates = estimates((entropy[..., -1] - entropy[..., 0]) / growth)
    falls = all(rate.mean < -rate.half_width for rate, t in zip(rates, TEMPERATURES, strict=True) if t < 1)
    rises = all(rate.mean > rate.half_width for rate, t in zip(rates, TEMPERATURES, strict=True) if t > 1)
    at = dict(zip(TEMPERATURES, rates, strict=True))
    plot = figure()
    axes = plot.axes[0]
    axes.axhline(0, **BASELINE, label="human data: no change")
    axes.axvline(1, color="#999999", linewidth=1)
    draw(axes, TEMPERATURES, rates, label=f"mean of {copies} models, 95% interval")
    axes.set_xscale("log")
    axes.set_xticks(TEMPERATURES, [f"{t:g}" for t in TEMPERATURES])
    axes.minorticks_off()
    axes.set_xlabel("sampling temperature T")
    axes.set_ylabel("change of entropy, nats per factor e of corpus growth")
    axes.set_title("Only T = 1 keeps entropy (one model, no fresh data)", loc="left", fontsize="medium")
    axes.legend(frameon=False)
    return Answer(
        f"Per factor e of corpus growth, entropy changes by {at[0.5].text()} nats at T = 0.5, "
        f"{at[0.85].text()} at T = 0.85, {at[1.0].text()} at T = 1, {at[1.2].text()} at T = 1.2 and "
        f"{at[2.0].text()} at T = 2: it falls for every T below 1 and rises for every T above.",
        falls and rises and abs(at[1.0].mean) < min(abs(at[0.85].mean), abs(at[1.2].mean)) / 5,
        plot,
    )


if __name__ == "__main__":
    command(study)
