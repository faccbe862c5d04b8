"""The command line: ``ecosystem run``, ``ecosystem threshold`` and ``ecosystem settings``.

Libraries are imported inside the commands, so that ``ecosystem --help`` answers at once.
"""

import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ecosystem import Scenario, Trajectory


class _Mistake(click.ClickException):
    exit_code = 2


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        from ecosystem.errors import InputError

        try:
            return super().invoke(context)
        except InputError as error:
            raise _Mistake(str(error)) from None
        except OSError as error:
            raise _Mistake(f"{error.filename or 'file'}: {error.strerror or error}") from None
        except MemoryError:
            raise _Mistake("not enough memory: give fewer outputs, providers or items") from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecosystem")
def main() -> None:
    """Simulate what happens to generative models when they train on each other's output."""


@main.command()
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--replicates", type=click.IntRange(min=1), help="Independent repetitions.  [default: 4]")
@click.option("--seed", type=int, help="Seed of all random streams.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: results/run-TIME]"
)
@click.option(
    "--alone/--no-alone",
    default=None,
    help="Also run one provider by itself.  [default: in the main job only]",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "agents", "compiled"]),
    default="auto",
    help="Mesa agents, or the same draws compiled.  [default: compiled wherever it covers the scenario]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads, or processes of the agents.  [default: a thread per processor, one process]",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between saves of the state to OUT.checkpoint: after a crash the same command goes on.",
)
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with an interrupted run's folder.")
def run(
    scenario: Path | None,
    changes: tuple[str, ...],
    replicates: int | None,
    seed: int | None,
    out: Path | None,
    alone: bool | None,
    engine: str,
    workers: int | None,
    checkpoint_every: float,
    resume: Path | None,
) -> None:
    """Run a SCENARIO (a TOML file; `ecosystem settings` lists what it may hold).

    Without SCENARIO it runs the main job: 34 providers on a real social network, trained on real
    English word counts, beside the same model alone.
    """
    from ecosystem import InputError, Trajectory
    from ecosystem.trajectory import check_vacant

    how = {"engine": engine, "workers": workers, "checkpoint_every": checkpoint_every}
    if resume is not None:
        if scenario or changes or seed is not None or out or alone is not None or engine != "auto":
            raise InputError(
                "--resume goes on with a run as it was; beside how to run it, the only other option is "
                "--replicates"
            )
        earlier = Trajectory.load(resume)
        _run(
            earlier.scenario,
            replicates or earlier.provenance["replicates"],
            resume,
            earlier.provenance.get("beside") == "alone",
            how,
            earlier,
        )
        return
    config = _scenario(scenario, changes, seed)
    if out is None:
        out = Path("results") / f"run-{datetime.now():%Y%m%d-%H%M%S}"
    check_vacant(out)
    _run(config, replicates or 4, out, alone if alone is not None else scenario is None, how)


def _scenario(file: Path | None, changes: tuple[str, ...], seed: int | None) -> "Scenario":
    from ecosystem import Scenario
    from ecosystem.scenario import parse_setting, read_toml

    settings = dict(parse_setting(change) for change in changes)
    if seed is not None:
        settings["seed"] = seed
    if file is not None:
        return Scenario.from_toml(file, **settings)
    main_job = read_toml(Path(__file__).with_name("main_job.toml"))
    # Its 5,000 outputs are those of its own words, its graph has 34 providers.
    for change, bound in (("human", "n_outputs"), ("n_providers", "sharing")):
        if change in settings:
            main_job.pop(bound)
    return Scenario(**main_job | settings)


def _run(
    config: "Scenario",
    replicates: int,
    out: Path,
    alone: bool,
    how: dict[str, Any],
    earlier: "Trajectory | None" = None,
) -> None:
    """Run a scenario, and one provider by itself if asked; save and say what came out."""
    from analysis.figures import run_figure
    from analysis.report import sentence, summary
    from ecosystem import Trajectory
    from ecosystem import run as run_scenario
    from ecosystem.trajectory import OWN_FILES, Interrupted, whole_folder

    plans = {_label(config): config}
    if alone:
        plans["one alone"] = alone_of(config)
    saved_alone = out / "alone"
    done: list[Trajectory | None] = [
        earlier,
        Trajectory.load(saved_alone) if earlier and saved_alone.is_dir() else None,
    ]
    runs: dict[str, Trajectory] = {}
    held: list[Path] = []  # states of runs that will be in the folder
    stopped = False
    own = (*OWN_FILES, "summary.txt", "alone") if earlier else ()
    with whole_folder(out, replace=own) as folder:  # now, so that a bad place is told at once
        for (label, plan), before in zip(plans.items(), done, strict=False):
            click.echo(f"{label}: {replicates} replicates of {plan.rounds} rounds, to {out}", err=True)
            saved = out.with_name(out.name + (".alone" if runs else "") + ".checkpoint")
            if saved.is_file():
                click.echo(f"going on from {saved}", err=True)
            try:
                result = run_scenario(
                    plan,
                    replicates,
                    progress=True,
                    resume=before,
                    checkpoint=saved,
                    **how,
                )
            except Interrupted as stop:
                result, stopped = stop.trajectory, True
            except KeyboardInterrupt:  # at once, with nothing of this run to keep
                if not runs:
                    raise
                break
            if alone and not runs:
                result = replace(result, provenance=result.provenance | {"beside": "alone"})
            runs[label] = result
            held.append(saved)
            if stopped:
                break
        trajectory, *beside = runs.values()
        table = summary(runs).to_string()
        trajectory.write(folder, {"run": run_figure(runs)})
        for other in beside:
            (folder / "alone").mkdir()
            other.write(folder / "alone")
        (folder / "summary.txt").write_text(f"{sentence(runs)}\n\n{table}\n", encoding="utf-8")
    for state in held:
        state.unlink(missing_ok=True)
    click.echo(f"\n{table}\n\n{sentence(runs)}\nsaved to {out}; look at {out / 'run.png'}")
    if not all(result.complete for result in runs.values()) or len(runs) < len(plans):
        click.echo(f"interrupted; go on with: ecosystem run --resume {out}", err=True)
        sys.exit(130)


def _label(config: "Scenario") -> str:
    return "one provider" if config.n_providers == 1 else f"{config.n_providers} providers"


def alone_of(config: "Scenario") -> "Scenario":
    """Return the scenario of the first provider by itself: same model, same data, no one to read."""
    own: dict[str, Any] = {
        name: getattr(config, name)[0]
        for name in ("temperature", "fresh_fraction", "outputs_per_round", "batch_size")
        if isinstance(getattr(config, name), tuple)
    }
    if not isinstance(config.initial, str) and config.initial.ndim == 2:
        own["initial"] = config.initial[0]
    rules = ((rule, getattr(rule, "providers", None)) for rule in config.interventions)
    own["interventions"] = tuple(
        rule if providers is None else rule.replace(providers=(0,))
        for rule, providers in rules
        if (providers is None or 0 in providers) and rule.kind not in ("entry", "exit")
    )
    return config.replace(**own, sharing="isolated", n_providers=1)


@main.command()
@click.option(
    "--temperature",
    default="0.8",
    help="Sampling temperature, or a list of one per provider.",
    show_default=True,
)
@click.option(
    "--human", default="english", help="The law of human data, as in a scenario.", show_default=True
)
@click.option("--n-outputs", type=int, help="Possible outputs V.  [default: as many as the human law has]")
@click.option("--sharing", help="Who reads whom.  [default: one model by itself]")
@click.option("--n-providers", type=int, help="Providers N.")
@click.option("--keep", type=float, default=0.9, help="Share of human diversity to keep.", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON, and draw nothing.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Figure to write (PNG or SVG).  [default: results/threshold.png]",
)
def threshold(
    temperature: str,
    human: str,
    n_outputs: int | None,
    sharing: str | None,
    n_providers: int | None,
    keep: float,
    as_json: bool,
    out: Path | None,
) -> None:
    """How much fresh human data prevents collapse, and how much cures it, exactly in the mean field.

    Prints both with the published sufficient conditions beside them, and draws every state of one model
    over the fresh fraction.
    """
    import json

    from analysis.figures import save_figure
    from analysis.threshold import bifurcation_figure, explain, thresholds
    from ecosystem import InputError, Scenario
    from ecosystem.scenario import parse_setting
    from ecosystem.trajectory import check_vacant

    given = {"human": human, "temperature": temperature}
    settings = {name: parse_setting(f"{name}={value}")[1] for name, value in given.items()}
    settings |= {"n_outputs": n_outputs, "n_providers": n_providers}
    if sharing is not None:
        settings["sharing"] = sharing
    elif n_providers is None and not isinstance(settings["temperature"], list):
        settings |= {"sharing": "isolated", "n_providers": 1}
    config = Scenario(**{name: value for name, value in settings.items() if value is not None})
    if out is not None and out.suffix not in (".png", ".svg"):
        raise InputError(f"--out {out}: give the name of a .png or an .svg file")
    figure = out or Path("results") / "threshold.png"
    if not figure.is_file():
        check_vacant(figure)
    answer = thresholds(config, keep)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(explain(answer))
    if len(answer["temperature"]) > 1:
        click.echo("no figure: the diagram is that of one temperature")
        return
    figure.parent.mkdir(parents=True, exist_ok=True)
    save_figure(bifurcation_figure(config, answer), figure)
    click.echo(f"figure: {figure}")


@main.command()
def settings() -> None:
    """List every setting of a scenario: its default, its meaning and what is allowed."""
    from ecosystem import Scenario
    from ecosystem.interventions import KINDS, BaseIntervention

    for name, field in Scenario.model_fields.items():
        _list(name, field)
    click.echo("\nEvery intervention has a kind, and")
    for name, field in BaseIntervention.model_fields.items():
        if name != "kind":
            _list(name, field, indent="    ")
    for kind, model in KINDS.items():
        click.echo(f"\n[[interventions]]\nkind = {kind!r}".replace("'", '"'))
        click.echo("    # " + str(model.__doc__).partition("\n")[0])
        for name, field in model.model_fields.items():
            if name not in BaseIntervention.model_fields:
                _list(name, field, indent="    ")


def _list(name: str, field: Any, indent: str = "") -> None:
    """Print a setting: its default, its meaning and what is allowed."""
    from ecosystem.fields import toml_value

    must = field.is_required()
    default = "" if must or field.default is None else f" = {toml_value(field.default)}"
    must_be_given = " (must be given)" if must else ""
    allowed = field.json_schema_extra["allowed"]
    click.echo(f"{indent}{name}{default}\n{indent}    {field.description}: {allowed}{must_be_given}")


@main.command()
@click.argument("design", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: results/sweep-TIME]"
)
@click.option("--resume", is_flag=True, help="Go on with what --out holds; no run is repeated.")
@click.option("--retry-failed", is_flag=True, help="With --resume: repeat the runs that failed.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one per processor]")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster, e.g. tcp://10.0.0.5:8786.")
@click.option("--scheduler-file", type=click.Path(path_type=Path), help="The same, by its scheduler file.")
def sweep(
    design: Path,
    out: Path | None,
    resume: bool,
    retry_failed: bool,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: Path | None,
) -> None:
    """Run every point of a DESIGN (a TOML file; docs/sweeps.md says what it may hold), several times over.

    The results are one tidy table, OUT/runs.parquet. An interrupted sweep goes on with --resume.
    """
    from analysis.sweep import command

    command(design, out, resume, retry_failed, workers, scheduler, scheduler_file)


@main.command()
@click.option("--scenario", type=click.Path(path_type=Path), help="Scenario file that every tab starts from.")
@click.option(
    "--port", type=int, default=8765, help="Where to serve; 0 takes any free port.", show_default=True
)
def app(scenario: Path | None, port: int) -> None:
    """Watch an ecosystem in the browser, and steer it (needs the viz extra)."""
    from importlib.util import find_spec

    if find_spec("solara") is None:
        raise click.ClickException("the page needs the viz extra: pip install -e '.[viz]'")
    from analysis.serve import serve

    serve(scenario, port)


@main.command()
@click.argument("policies", required=False, type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), help="Scenario file in place of the file's own.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: results/whatif-TIME]"
)
@click.option("--resume", is_flag=True, help="Go on with what --out holds; no run is repeated.")
@click.option("--replicates", type=int, help="Replicates of the first batch.")
@click.option("--precision", type=float, help="Add more until differences in diversity are known so well.")
@click.option("--budget", type=int, help="... but no more than so many runs in all.")
@click.option("--seconds", type=float, help="... and start no batch after so many seconds (not repeatable).")
@click.option("--require", metavar="TARGET", help='What to reach, e.g. "diversity_kept >= 0.8".')
@click.option("--vary", metavar="LEVER", help="How much of it is enough, e.g. quota.fraction.")
@click.option("--between", type=float, nargs=2, metavar="LOW HIGH", help="Range of --vary.")
@click.option("--policy", metavar="NAME", help="The policy that --when delays, or that --vary varies.")
@click.option("--when", metavar="ROUNDS", help="Late or early: begin in each of these rounds, e.g. 1,20,40.")
@click.option("--uncertain", type=int, metavar="N", help="What it depends on: N futures of [uncertainties].")
@click.option("--design", type=click.Choice(["latin-hypercube", "sobol"]), help="Of --uncertain.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one per processor]")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster, e.g. tcp://10.0.0.5:8786.")
@click.option("--scheduler-file", type=click.Path(path_type=Path), help="The same, by its scheduler file.")
def whatif(**options: Any) -> None:
    """Compare POLICIES (a TOML file) with no policy: what each keeps, what it costs, how sure that is.

    Without POLICIES it compares the eight of the example: rules for 30 providers on real English words.
    With --require and --vary: how much of a lever is enough. With --when: late or early. With --uncertain:
    what the answer depends on. OUT/report.html is one file that can be mailed.
    """
    from analysis.whatif.command import command

    command(**options)
