"""Where in the plane of temperature and fresh fraction does a model collapse?

One model, 20 outputs, a uniform human law: every cell is simulated from the human law under ``forget:0.05``
(20 time constants in the full version). On top, exactly: below the line λ = 1 − T the healthy state is
unstable; above the second line (the fold) no captured state exists; between them both are stable.
"""

import numpy as np

from analysis.theory import fold_fraction, minimum_fresh_fraction
from ecosystem import Scenario
from scenarios.common import Answer, by_value, command, figure, independent

OUTPUTS = 20


def study(quick: bool) -> Answer:
    """Simulate a grid of cells and hold them to the boundaries."""
    copies, rounds, items, steps = (3, 300, 500, 9) if quick else (4, 400, 1000, 13)
    temperatures, fresh = np.linspace(0.3, 1.1, steps), np.linspace(0.0, 0.8, steps)
    scenario = Scenario(
        n_outputs=OUTPUTS,
        human="uniform",
        outputs_per_round=items,
        batch_size=items,
        schedule="forget:0.05",
        rounds=rounds,
        record_every=rounds,
    )
    grid = [(float(t), float(share)) for share in fresh for t in temperatures]
    run = independent(
        scenario, copies, temperature=[t for t, _ in grid], fresh_fraction=[share for _, share in grid]
    )
    kept = by_value(run, "hill_1", copies)[..., -1] / OUTPUTS
    uniform = np.full(OUTPUTS, 1 / OUTPUTS)
    prevention = {t: minimum_fresh_fraction(uniform, t) for t in temperatures}
    fold = {t: fold_fraction(uniform, t, 0) for t in temperatures}
    # Cells within 0.1 of a boundary collapse too slowly to be told in so many rounds.
    safe = [k for k, (t, share) in zip(kept, grid, strict=True) if share > fold[t] + 0.1 and t < 1]
    lost = [k for k, (t, share) in zip(kept, grid, strict=True) if share < prevention[t] - 0.1]
    right = sum(int((k > 0.9).sum()) for k in safe) + sum(int((k < 0.9).sum()) for k in lost)
    told = copies * (len(safe) + len(lost))
    plot = figure()
    axes = plot.axes[0]
    cells = kept.mean(axis=1).reshape(len(fresh), len(temperatures))
    colours = axes.pcolormesh(temperatures, fresh, cells, cmap="cividis", vmin=0, vmax=1)
    plot.colorbar(colours, label="share of human diversity kept (simulated)")
    fine = np.linspace(0.3, 1.1, 81)
    axes.plot(fine, [max(0.0, 1 - t) for t in fine], color="#D55E00", label="prevention: λ = 1 − T")
    axes.plot(
        fine,
        [fold_fraction(uniform, t, 0) for t in fine],
        color="#D55E00",
        linestyle="--",
        label="cure: fold",
    )
    axes.set_ylim(fresh[0], fresh[-1])
    axes.set_xlabel("sampling temperature T")
    axes.set_ylabel("fresh fraction λ")
    axes.set_title(
        f"Simulated cells, exact boundaries ({OUTPUTS} outputs, uniform)", loc="left", fontsize="medium"
    )
    axes.legend(loc="upper right", fontsize="small")
    return Answer(
        f"Of {told} models away from the boundaries {right} ended on the side that theory says; over the "
        f"cells (± their standard deviation) {np.mean(safe):.3f} ± {np.std([k.mean() for k in safe]):.3f} of "
        f"human diversity is kept above the fold and {np.mean(lost):.3f} ± "
        f"{np.std([k.mean() for k in lost]):.3f} below 1 − T.",
        right == told,
        plot,
    )


if __name__ == "__main__":
    command(study)
