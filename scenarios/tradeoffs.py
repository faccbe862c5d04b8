"""What is lost and what is kept at each temperature, and how far does fresh data help?

One model on real English word counts, T = 0, 0.5, 1 and 2 against fresh fractions from 0 to 0.8: diversity
and vocabulary kept, and the distance from the human law. Low temperature loses diversity, high temperature
keeps it and loses the shape of human language; only fresh data, or T = 1, keeps both.
"""

import numpy as np

from ecosystem import Scenario, metrics
from scenarios.common import Answer, by_value, command, estimates, figure, independent

TEMPERATURES = [0.0, 0.5, 1.0, 2.0]
FRESH = [0.0, 0.1, 0.3, 0.8]


def study(quick: bool) -> Answer:
    """Measure what is kept over temperatures and fresh fractions."""
    copies, rounds = (6, 60) if quick else (30, 400)
    scenario = Scenario(
        human="english",
        n_outputs=1000,
        outputs_per_round=500,
        batch_size=500,
        pretraining_size=5000,
        initial="sampled",
        rounds=rounds,
        record_every=rounds,
    )
    cells = [(t, fresh) for t in TEMPERATURES for fresh in FRESH]
    run = independent(
        scenario, copies, temperature=[t for t, _ in cells], fresh_fraction=[fresh for _, fresh in cells]
    )
    human = float(metrics.hill(run.human, 1))
    measures = {
        "share of human diversity kept": estimates(by_value(run, "hill_1", copies)[..., -1] / human),
        "human vocabulary covered (by use)": estimates(by_value(run, "human_coverage", copies)[..., -1]),
        "total variation from human law": estimates(by_value(run, "total_variation", copies)[..., -1]),
    }
    plot = figure(columns=3)
    for axes, (name, values) in zip(plot.axes, measures.items(), strict=True):
        grid = np.array([value.mean for value in values]).reshape(len(TEMPERATURES), len(FRESH))
        good = np.abs(np.log(grid)) if "diversity" in name else grid
        axes.imshow(
            good, cmap="cividis_r" if "variation" in name or "diversity" in name else "cividis", aspect="auto"
        )
        for (row, column), value in np.ndenumerate(grid):
            half = values[row * len(FRESH) + column].half_width
            axes.text(
                column,
                row,
                f"{value:.2f}\n±{half:.2f}",
                ha="center",
                va="center",
                fontsize="small",
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
            )
        axes.set_xticks(range(len(FRESH)), [f"{fresh:g}" for fresh in FRESH])
        axes.set_yticks(range(len(TEMPERATURES)), [f"{t:g}" for t in TEMPERATURES])
        axes.set_xlabel("fresh fraction λ")
        axes.set_ylabel("sampling temperature T")
        axes.set_title(f"{name}\n(human: {0 if 'variation' in name else 1})", loc="left", fontsize="medium")
    plot.supxlabel(
        f"mean and 95% interval of {copies} models after {rounds} rounds; bright is close to human",
        x=0.01,
        ha="left",
        fontsize="small",
    )
    diversity, _, distance = (dict(zip(cells, values, strict=True)) for values in measures.values())
    cold, trivial, hot = (0.0, 0.0), (1.0, 0.0), (2.0, 0.0)
    return Answer(
        f"Without fresh data T = 0 keeps {diversity[cold].text()} of human diversity, T = 1 "
        f"{diversity[trivial].text()} and T = 2 {diversity[hot].text()}, at distances "
        f"{distance[cold].text()}, {distance[trivial].text()} and {distance[hot].text()} from the human law; "
        f"with 80% fresh data the distances are {distance[0.0, 0.8].text()}, {distance[1.0, 0.8].text()} and "
        f"{distance[2.0, 0.8].text()}.",
        diversity[cold].mean < 0.5 * diversity[trivial].mean
        and distance[trivial].mean < min(distance[cold].mean, distance[hot].mean)
        and all(distance[t, 0.8].mean < distance[t, 0.0].mean for t in TEMPERATURES),
        plot,
    )


if __name__ == "__main__":
    command(study)
