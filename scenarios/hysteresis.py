"""Does a cure cost more human data than prevention, and how does that depend on the size of the model?

Exact in the mean field for 10 to a million outputs at T = 0.8: the fresh fraction that keeps 90% of human
diversity from the human law on (prevention), the one that brings back every collapsed model (cure), and the
published sufficient condition. Where the human law is flat a collapsed state outlives its cause, the more so
the larger the model; under Zipf's law the loss is gradual and the two numbers are one. Then a check by
simulation, 10 outputs, uniform, λ between the two numbers: models that start from human data stay healthy,
models that start collapsed stay collapsed.
"""

import numpy as np

from analysis.statistics import estimate
from analysis.theory import minimum_fresh_fraction, published_bounds
from ecosystem import Scenario
from ecosystem.human import load
from scenarios.common import Answer, by_value, command, figure, independent

TEMPERATURE, KEEP = 0.8, 0.9


def study(quick: bool) -> Answer:
    """Compute prevention and cure over model sizes, and simulate between the two."""
    sizes = [10**k for k in range(1, 5 if quick else 7)]
    plot = figure(columns=2)
    numbers = {}
    for axes, law in zip(plot.axes, ("uniform", "zipf"), strict=True):
        laws = [load(law, size).law for size in sizes]
        curves = {
            "cure": [minimum_fresh_fraction(h, TEMPERATURE, KEEP, start="collapsed") for h in laws],
            "prevention": [minimum_fresh_fraction(h, TEMPERATURE, KEEP) for h in laws],
            "published sufficient condition": [published_bounds(h, TEMPERATURE).euclidean for h in laws],
        }
        numbers[law] = curves
        for (name, values), style in zip(curves.items(), ("-o", "--s", ":^"), strict=True):
            axes.plot(sizes, values, style, label=name)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("possible outputs V (size of the model)")
        axes.set_ylabel("least fresh fraction λ")
        axes.set_title(f"{law} human law, T = {TEMPERATURE}, keep {KEEP:.0%}", loc="left", fontsize="medium")
    plot.axes[0].legend(frameon=False)
    prevention, cure = numbers["uniform"]["prevention"][0], numbers["uniform"]["cure"][0]
    between = (prevention + cure) / 2
    copies, rounds = (6, 400) if quick else (30, 1500)
    scenario = Scenario(
        n_outputs=10,
        human="uniform",
        temperature=TEMPERATURE,
        outputs_per_round=5000,
        batch_size=5000,
        schedule="forget:0.1",
        rounds=rounds,
        record_every=rounds,
    )
    collapsed = np.full(10, 0.02)
    collapsed[0] = 0.82
    ends = {}
    for name, initial in (("healthy", "human"), ("collapsed", collapsed)):
        run = independent(scenario.replace(initial=initial), copies, fresh_fraction=[between])
        ends[name] = estimate(by_value(run, "hill_1", copies)[0, :, -1] / 10)
    last = sizes[-1]
    return Answer(
        f"For a uniform law prevention takes λ = {prevention:.3f} at any size, cure {cure:.3f} at 10 outputs "
        f"and {numbers['uniform']['cure'][-1]:.3f} at {last:,}; for Zipf's law at {last:,} outputs "
        f"{numbers['zipf']['prevention'][-1]:.3f} and {numbers['zipf']['cure'][-1]:.3f}. Simulated at λ = "
        f"{between:.3f} and 10 outputs, models that start healthy keep {ends['healthy'].text()} of human "
        f"diversity, models that start collapsed {ends['collapsed'].text()}.",
        ends["healthy"].mean - ends["healthy"].half_width > 0.9
        and ends["collapsed"].mean + ends["collapsed"].half_width < 0.75
        and all(np.diff(numbers["uniform"]["cure"]) > 0),
        plot,
    )


if __name__ == "__main__":
    command(study)
