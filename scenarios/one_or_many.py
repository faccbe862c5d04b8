"""Does a population of models fare better than one?

Real English word counts, T = 0.9, 5% fresh human data. Sixteen providers on seven sharing graphs against
one model twice over: with as many items as each provider has, and with as many as all of them together.
"""

from analysis.report import kept
from analysis.statistics import by_replicate, estimate
from ecosystem import Scenario, run
from scenarios.common import BASELINE, Answer, command, figure

GRAPHS = ["isolated", "ring", "star", "small-world", "scale-free", "communities", "complete"]
PROVIDERS, ITEMS = 16, 100


def study(quick: bool) -> Answer:
    """Compare diversity and vocabulary kept by one model and by populations."""
    rounds, replicates = (50, 4) if quick else (200, 20)
    one = Scenario(
        human="english",
        n_outputs=1000,
        sharing="isolated",
        n_providers=1,
        temperature=0.9,
        fresh_fraction=0.05,
        initial="sampled",
        outputs_per_round=ITEMS,
        batch_size=ITEMS,
        pretraining_size=10 * ITEMS,
        rounds=rounds,
        record_every=rounds,
    )
    total = PROVIDERS * ITEMS
    scenarios = {
        "one, a provider's data": one,
        **{f"{graph}": one.replace(sharing=graph, n_providers=PROVIDERS) for graph in GRAPHS},
        "one, everyone's data": one.replace(
            outputs_per_round=total, batch_size=total, pretraining_size=10 * total
        ),
    }
    diversity, vocabulary = {}, {}
    for name, scenario in scenarios.items():
        # One model has one provider's worth of luck per replicate: more replicates, a similar interval.
        trajectory = run(scenario, replicates * (4 if scenario.n_providers == 1 else 1), progress=True)
        diversity[name] = kept(trajectory)
        vocabulary[name] = estimate(by_replicate(trajectory.table, "human_coverage").iloc[-1])
    plot = figure(columns=2)
    names = list(scenarios)[::-1]
    for axes, shares, title in zip(
        plot.axes,
        (diversity, vocabulary),
        ("human diversity kept", "human vocabulary covered, by use"),
        strict=True,
    ):
        axes.errorbar(
            [shares[name].mean for name in names],
            names,
            xerr=[shares[name].half_width for name in names],
            linestyle="none",
            marker="o",
            capsize=3,
        )
        axes.axvline(1, **BASELINE)
        axes.text(1, len(names) - 0.4, "human ", ha="right", fontsize="small")
        axes.set_xlabel(f"share of {title}")
        axes.set_ylabel("one model, or who reads whom among many")
        axes.grid(axis="y", color="#dddddd")
    plot.suptitle(
        f"{PROVIDERS} providers or one model, after {rounds} rounds (T = 0.9, 5% fresh, 95% intervals)",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
    alone, together, pooled = (diversity[name] for name in (names[-1], "complete", names[0]))
    words, shared = vocabulary[names[-1]], vocabulary["complete"]
    return Answer(
        f"With the same data per provider, one model keeps {alone.text()} of human diversity and covers "
        f"{words.text()} of human use; {PROVIDERS} that all read each other keep {together.text()} and cover "
        f"{shared.text()}; one model with everyone's data keeps {pooled.text()}.",
        together.mean - together.half_width > alone.mean + alone.half_width
        and shared.mean - shared.half_width > words.mean + words.half_width,
        plot,
    )


if __name__ == "__main__":
    command(study)
