"""Do communities of models collapse onto the same output, and how many links does that take?

Two cliques of five providers, T = 0.5, 10% fresh human data, ten equally common outputs, joined by fewer
and fewer links. Theory: a mode of disagreement with eigenvalue w of W grows if and only if (1 − λ) w > T;
while only the mode of agreement grows, the communities end on one output.
"""

import networkx as nx
import numpy as np

from analysis.statistics import share_interval
from analysis.theory import agreement_modes
from ecosystem import Scenario, run
from scenarios.common import Answer, command, figure

LINKS = [25, 15, 8, 4, 2, 1, 0]


def two_cliques(links: int) -> nx.Graph:
    """Return two cliques of five with so many links between them, spread evenly."""
    graph = nx.disjoint_union(nx.complete_graph(5), nx.complete_graph(5))
    pairs = sorted(
        ((a, 5 + b) for a in range(5) for b in range(5)), key=lambda pair: ((pair[1] - pair[0]) % 5, pair)
    )
    graph.add_edges_from(pairs[:links])
    return graph


def study(quick: bool) -> Answer:
    """Count the runs in which the two communities end on different outputs."""
    replicates, rounds = (20, 60) if quick else (60, 100)
    apart, modes, ends = [], [], []
    for links in LINKS:
        scenario = Scenario(
            human="uniform",
            n_outputs=10,
            sharing=two_cliques(links),
            temperature=0.5,
            fresh_fraction=0.1,
            outputs_per_round=300,
            batch_size=300,
            schedule="forget:0.3",
            initial="sampled",
            pretraining_size=30,
            rounds=rounds,
            record_every=rounds,
        )
        modes.append(agreement_modes(scenario).growing)
        final = np.asarray(run(scenario, replicates, progress=True).final)
        leaders = final.reshape(replicates, 2, 5, 10).mean(axis=2).argmax(axis=2)
        different = int((leaders[:, 0] != leaders[:, 1]).sum())
        apart.append(different / replicates)
        ends.append(share_interval(different, replicates))
    plot = figure()
    axes = plot.axes[0]
    for growing, colour, label in (
        (1, "#0072B2", "only agreement grows"),
        (2, "#D55E00", "disagreement grows as well"),
    ):
        chosen = [i for i, m in enumerate(modes) if (m > 1) == (growing > 1)]
        axes.errorbar(
            [LINKS[i] for i in chosen],
            [apart[i] for i in chosen],
            np.abs([[apart[i] - ends[i][side] for i in chosen] for side in (0, 1)]),
            linestyle="none",
            marker="o",
            capsize=3,
            color=colour,
            label=label,
        )
    axes.axhline(
        0.9, color="#222222", linestyle="--", linewidth=1.2, label="independent communities, 9 in 10"
    )
    axes.set_xlabel("links between the two communities (of 25)")
    axes.set_ylabel("share of runs that end on two outputs")
    axes.set_title(f"Few links keep collapse in step ({replicates} runs, 95%)", loc="left", fontsize="medium")
    axes.legend(frameon=False)
    single = [share for share, m in zip(apart, modes, strict=True) if m <= 1]
    several = [links for links, m in zip(LINKS, modes, strict=True) if m > 1]
    none = apart[-1]
    return Answer(
        f"Without links the communities end on different outputs in {none:.2f} of the runs (95% interval "
        f"{ends[-1][0]:.2f} to {ends[-1][1]:.2f}; 0.9 by chance); disagreement can grow with {max(several)} "
        f"links or fewer, and with more the share is at most {max(single):.2f}.",
        abs(none - 0.9) < 4 * (0.09 / replicates) ** 0.5 and max(single) < 0.05 and modes == sorted(modes),
        plot,
    )


if __name__ == "__main__":
    command(study)
