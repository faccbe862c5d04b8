"""How fast does a model move away from a balance, or back to it, at each temperature?

Two outputs, no fresh data, ``accumulate``. Near the uniform law a deviation grows or shrinks as a power of
the number of items trained on, ℓ^(1/T − 1): above T = 1 the model returns to uniform with exponent
−(1 − 1/T), below it a small preference runs away. Measured on the mean over many models, because a single
one carries noise.
"""

import numpy as np

from analysis.statistics import Estimate, estimate
from ecosystem import Scenario
from scenarios.common import Answer, command, draw, figure, independent

TEMPERATURES = [0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0]


def study(quick: bool) -> Answer:
    """Measure the exponent over temperatures and hold it to 1/T − 1."""
    copies, start, items, pretraining, rounds = (100 if quick else 400), 0.02, 1000, 20_000, 60
    scenario = Scenario(
        human=[0.5, 0.5],
        initial=[0.5 + start, 0.5 - start],
        fresh_fraction=0.0,
        outputs_per_round=items,
        batch_size=items,
        pretraining_size=pretraining,
        rounds=rounds,
        record_every=rounds,
    )
    laws = np.asarray(independent(scenario, copies, temperature=TEMPERATURES).final)
    final = laws[0, :, 0].reshape(-1, copies)
    # Finite steps: the deviation is multiplied by 1 + a(k)(1/T − 1) in round k, close to the power law.
    steps = items / (pretraining + items * np.arange(1, rounds + 1))
    growth = np.log(1 + items * rounds / pretraining)
    measured, exact = [], []
    for temperature, theta in zip(TEMPERATURES, final, strict=True):
        mean, half = estimate((theta - 0.5) / start)
        measured.append(Estimate(float(np.log(mean)) / growth, half / mean / growth))
        exact.append(float(np.log(1 + steps * (1 / temperature - 1)).sum()) / growth)
    off = [abs(m.mean - e) / (m.half_width / 2) for m, e in zip(measured, exact, strict=True)]
    plot = figure()
    axes = plot.axes[0]
    fine = np.linspace(0.58, 5, 200)
    axes.axhline(0, color="#222222", linestyle="--", linewidth=1.2)
    axes.plot(fine, 1 / fine - 1, color="#D55E00", label="theory: 1/T − 1")
    label = f"measured: mean of {copies} models, 95% interval"
    draw(axes, TEMPERATURES, measured, linestyle="none", label=label)
    axes.set_xlabel("sampling temperature T")
    axes.set_ylabel("exponent of the deviation from uniform\nagainst items trained on")
    axes.set_title("Runaway below T = 1, return above", loc="left", fontsize="medium")
    axes.legend(frameon=False)
    at = dict(zip(TEMPERATURES, measured, strict=True))
    return Answer(
        f"The exponent is {at[0.8].text()} at T = 0.8 (theory 0.25), {at[1.0].text()} at T = 1 (0), "
        f"{at[2.0].text()} at T = 2 (−0.5) and {at[5.0].text()} at T = 5 (−0.8); the largest of {len(off)} "
        f"differences from theory at this step size is {max(off):.1f} standard errors.",
        max(off) < 4,
        plot,
    )


if __name__ == "__main__":
    command(study)
