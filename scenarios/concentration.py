"""How much probability gathers in the few most probable outputs?

Real English word counts, 12 providers on a small-world graph that sample at T = 0.8 with 5% fresh human
data: mass of the favourite, of the top 10 and of the top 100 words over rounds.
"""

from analysis.statistics import by_replicate, estimate
from ecosystem import Scenario, metrics, run
from scenarios.common import BASELINE, Answer, command, figure

TOPS = (1, 10, 100)


def study(quick: bool) -> Answer:
    """Follow the mass of the top 1, 10 and 100 outputs."""
    rounds, replicates = (60, 3) if quick else (300, 8)
    scenario = Scenario(
        human="english",
        n_outputs=2000,
        n_providers=12,
        temperature=0.8,
        fresh_fraction=0.05,
        outputs_per_round=200,
        batch_size=200,
        pretraining_size=2000,
        rounds=rounds,
    )
    plot = figure()
    axes = plot.axes[0]
    found = []
    for k, colour in zip(TOPS, ("#D55E00", "#0072B2", "#009E73"), strict=True):
        trajectory = run(scenario.replace(mass_k=k), replicates, progress=True)
        mass = by_replicate(trajectory.table, "top_k_mass")
        human = float(metrics.top_mass(trajectory.human, k))
        found.append((k, human, estimate(mass.iloc[-1])))
        axes.plot(mass.index, mass.mean(axis=1), color=colour, linewidth=2, label=f"top {k}")
        axes.fill_between(mass.index, mass.min(axis=1), mass.max(axis=1), color=colour, alpha=0.25)
        axes.axhline(human, **BASELINE | {"color": colour})
    axes.set_ylim(0, 1)
    axes.set_xlabel("round")
    axes.set_ylabel("probability of the k most probable words")
    axes.set_title(
        "Mass moves to the favourites (dashed: human English;\n"
        f"line: mean over 12 providers; band: range of {replicates} replicates)",
        loc="left",
        fontsize="medium",
    )
    axes.legend(frameon=False)
    parts = [f"the top {k} from {human:.3f} to {end.text()}" for k, human, end in found]
    return Answer(
        f"After {rounds} rounds at T = 0.8 with 5% fresh data, probability moved to {', '.join(parts)}.",
        all(end.mean - end.half_width > human for _, human, end in found),
        plot,
    )


if __name__ == "__main__":
    command(study)
