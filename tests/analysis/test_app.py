"""The browser page without a browser: sessions, levers, plots and widgets. Needs the ``viz`` extra."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import theory
from analysis.collapse import collapse_profile
from ecosystem import Scenario, run

solara = pytest.importorskip("solara", reason="the viz extra is not installed: pip install -e '.[viz]'")

from analysis.app import charts, levers  # noqa: E402
from analysis.app.enough import _left_out, _sentence  # noqa: E402
from analysis.app.network import MOST_EDGES, MOST_NODES, network, scale_top  # noqa: E402
from analysis.app.session import SCENARIO_FILE, Mark, Session, Watched, numbered  # noqa: E402
from analysis.app.settings import plan  # noqa: E402

SMALL = Scenario(n_providers=6, n_outputs=40, temperature=0.6, fresh_fraction=0.1, rounds=60, seed=3)
LIGHT = charts.Theme(dark=False)


def watched(scenario=SMALL, rounds=0):
    session = Session(scenario)
    Watched(session=session)
    steps(session, rounds)
    return session


def steps(session, rounds):
    for _ in range(rounds):
        session.eco.step()


def replayed(session, tmp_path):
    """Run the scenario that the session saves."""
    file = tmp_path / "session.toml"
    file.write_text(session.toml(), encoding="utf-8")
    return run(Scenario.from_toml(file), engine="agents")


# --- levers ---------------------------------------------------------------------------------------


EVERY_LEVER = (
    lambda s: levers.set_fresh(s, 0.5),
    lambda s: levers.set_detector(s, 0.8),
    lambda s: levers.set_fresh(s, 0.02),
    lambda s: levers.set_sharing(s, "silos"),
    lambda s: levers.add_provider(s, 2),
    lambda s: levers.set_sharing(s, "open"),
    lambda s: levers.remove_provider(s, 2),
    lambda s: levers.set_temperature(s, 1.2),
    lambda s: levers.set_detector(s, 0),
    lambda s: levers.set_sharing(s, ""),
)


@pytest.mark.parametrize(
    "scenario",
    [
        SMALL,
        SMALL.replace(temperature=(0.5, 0.6, 0.7, 0.8, 0.9, 1.0), sharing="ring", schedule="replace"),
        SMALL.replace(sharing="karate-club", n_providers=34, initial="sampled", record_every=3),
        SMALL.replace(human="english", initial=np.full((6, 40), 1 / 40)),
    ],
    ids=["plain", "per-provider", "real-graph", "given-start"],
)
def test_a_session_with_every_lever_replays_to_the_same_bits(scenario, tmp_path):
    session = watched(scenario, 3)
    for lever in EVERY_LEVER:
        assert lever(session) == ""
        steps(session, 2)
    steps(session, 1)  # to round 24, which is recorded
    again, now = replayed(session, tmp_path), session.trajectory()
    np.testing.assert_array_equal(again.final, now.final)
    pd.testing.assert_frame_equal(again.table, now.table, check_exact=True)
    pd.testing.assert_frame_equal(again.population, now.population, check_exact=True)
    assert [mark.round for mark in session.view.marks] == [3 + 2 * k for k in range(len(EVERY_LEVER))]


def test_levers_act_from_the_next_round_on_and_replace_each_other():
    session = watched(rounds=2)
    before = session.eco.distributions
    assert levers.set_fresh(session, 0.5) == ""
    assert levers.set_fresh(session, 0.7) == ""  # before the first one was ever in force
    np.testing.assert_array_equal(session.eco.distributions, before)
    steps(session, 1)
    assert (session.eco.rules.fresh_fraction == 0.7).all()
    assert len(session.eco.config.interventions) == 1
    levers.set_detector(session, 0.8)
    steps(session, 1)
    found = 0.7 * 0.95 / (0.7 * 0.95 + 0.3 * 0.2)
    assert session.eco.rules.fresh_fraction == pytest.approx(found)
    levers.set_fresh(session, 0.1)  # the detector goes on working
    steps(session, 1)
    assert session.eco.rules.fresh_fraction == pytest.approx(0.1 * 0.95 / (0.1 * 0.95 + 0.9 * 0.2))
    levers.set_detector(session, 0)
    levers.set_sharing(session, "silos")
    steps(session, 1)
    assert session.eco.rules.fresh_fraction == pytest.approx(0.1)
    np.testing.assert_array_equal(session.eco.rules.W.toarray(), np.eye(6))
    levers.set_sharing(session, "")
    steps(session, 1)
    np.testing.assert_array_equal(session.eco.rules.W.toarray(), SMALL.W.toarray())


def test_a_newcomer_joins_the_circle_of_the_selected_provider():
    session = watched(SMALL.replace(sharing="ring"), 1)
    levers.add_provider(session, 2)
    assert not session.view.active[6]
    steps(session, 1)
    assert set(session.view.reads[[6]].indices) == {1, 2, 3, 6}
    assert 6 in session.view.reads[[3]].indices
    assert session.view.active.all()


def test_a_lever_that_cannot_act_says_why_and_changes_nothing():
    session = watched(SMALL.replace(n_providers=2, sharing="complete"), 1)
    levers.remove_provider(session, 0)
    steps(session, 1)
    config, marks = session.eco.config, list(session.marks)
    assert "nobody is there" in levers.remove_provider(session, 1)
    assert session.eco.config == config and session.marks == marks
    steps(session, 1)


def test_a_provider_is_removed_once_and_no_lever_is_pulled_after_the_last_round(tmp_path):
    session = watched(SMALL.replace(rounds=3), 2)
    assert levers.remove_provider(session, 1) == ""
    assert levers.remove_provider(session, 1) == "provider 1 leaves before the next round already"
    assert levers.remove_provider(session, 2) == ""
    steps(session, 1)
    for lever in EVERY_LEVER:
        assert lever(session).startswith("The run is over")
    assert len(session.view.marks) == len(session.eco.config.interventions) == 2
    np.testing.assert_array_equal(replayed(session, tmp_path).final, session.trajectory().final)


def test_an_error_in_a_round_ends_the_run_and_is_told(monkeypatch):
    session = watched(rounds=1)

    def fail(self):
        from ecosystem import InputError

        raise InputError("provider 1 drew 3 items of author 2, who published 2")

    monkeypatch.setattr("ecosystem.agents.Provider.publish", fail)
    steps(session, 2)
    assert session.error.startswith("The run stopped in round 2: provider 1 drew")
    monkeypatch.undo()
    Watched(session=session)  # a reset
    steps(session, 2)
    assert session.error == "" and session.view.round == 2


def test_a_run_left_behind_goes_no_further():
    session = watched(rounds=1)
    old = session.eco
    Watched(session=session)
    old.step()
    assert old.round == 1 and not old.running
    session.close()
    steps(session, 1)
    assert session.eco.round == 0


# --- the mean field beside ------------------------------------------------------------------------


def test_without_levers_the_curve_beside_is_the_mean_field():
    session = watched(rounds=10)
    exact = theory.mean_field(SMALL.replace(rounds=10)).groupby("round")[["hill_1", "top_k_mass"]].mean()
    human = np.exp(theory.mean_field(SMALL.replace(rounds=1))["entropy"][0])
    curve = np.array(session.view.beside)
    np.testing.assert_allclose(curve[:, 1] * human, exact["hill_1"], rtol=1e-12)
    np.testing.assert_allclose(curve[:, 2], exact["top_k_mass"], rtol=1e-12)


def test_after_a_lever_the_mean_field_goes_on_under_the_new_rule():
    big = SMALL.replace(outputs_per_round=20_000, batch_size=20_000, pretraining_size=20_000)
    session = watched(big, 3)
    levers.set_temperature(session, 1.4)
    levers.set_sharing(session, "open")
    steps(session, 5)
    levers.add_provider(session, 0)
    levers.set_detector(session, 0.5)
    steps(session, 5)
    curve = np.array([kept for _, kept, _, _ in session.view.beside])
    ours = np.array([np.nanmean(point.kept) for point in session.view.points])
    # At 20,000 items a round the run is within 1%; a rule left out would be off by more than 5%.
    np.testing.assert_allclose(ours, curve, rtol=0.01)


def test_the_curve_beside_a_session_is_the_mean_field_of_what_it_saves():
    session = watched(rounds=2)
    for lever in EVERY_LEVER:
        lever(session)
        steps(session, 2)
    saved = session.saved()
    exact = theory.mean_field(saved).groupby("round")["top_k_mass"].mean()
    np.testing.assert_allclose([top for *_, top, _ in session.view.beside], exact, rtol=1e-9)


def test_no_mean_field_where_there_is_none():
    assert "training errors" in watched(SMALL.replace(training_error=0.01), 2).view.beside_note
    large = SMALL.replace(n_outputs=100_000, n_providers=6, pretraining_size=10)
    assert "above 500,000" in watched(large).view.beside_note


# --- settings -------------------------------------------------------------------------------------


def test_what_is_typed_becomes_a_scenario():
    scenario, errors = plan(
        SMALL, {"seed": " 12 ", "n_outputs": "1,000", "temperature": 1.5, "sharing": "ring"}
    )
    assert not errors
    assert scenario == SMALL.replace(seed=12, n_outputs=1000, temperature=1.5, sharing="ring")
    scenario, errors = plan(SMALL, {"n_providers": "", "sharing": "karate-club"})
    assert not errors and scenario.n_providers == 34


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"seed": "seven"}, "seed", "not a whole number"),
        ({"seed": "-1"}, "seed", "0 to 2^63"),
        ({"n_outputs": "0"}, "n_outputs", "allowed"),
        ({"n_outputs": "1e3"}, "n_outputs", "not a whole number"),
        ({"n_outputs": "9" * 30}, "n_outputs", "too many to watch"),
        ({"n_providers": "1000000"}, "n_providers", "too many to watch"),
        ({"n_outputs": "10000000"}, "n_outputs", "too many to watch"),
        ({"rounds": ""}, "rounds", "not a whole number"),
        ({"sharing": "karate-club"}, "sharing", "34 nodes"),
        ({"human": "text:/nowhere"}, "human", "does not exist"),
    ],
)
def test_errors_are_told_at_their_field(changes, field, message):
    scenario, errors = plan(SMALL, changes)
    assert scenario is None
    assert list(errors) == [field] and message in errors[field]


# --- plots ----------------------------------------------------------------------------------------


def all_options(view, selected=0, theme=LIGHT):
    return [
        charts.diversity(view, selected, theme),
        charts.favourites(view, selected, theme),
        charts.synthetic(view, theme),
        charts.between(view, theme),
        charts.ranks(view, selected, theme),
    ]


def test_every_plot_names_its_axes_and_carries_the_marks():
    session = watched(rounds=3)
    levers.set_fresh(session, 0.5)
    steps(session, 2)
    for option in all_options(session.view):
        assert option["xAxis"]["name"] and option["yAxis"]["name"]
        names = [one["name"] for one in option["series"]]
        assert names == option["legend"]["data"] and len(set(names)) == len(names)
    for option in all_options(session.view)[:4]:
        (line,) = option["series"][0]["markLine"]["data"]
        assert line["xAxis"] == 3 and line["label"]["formatter"] == "1"
    for option in (charts.diversity, charts.favourites, charts.ranks):
        assert {"human", "human data"} & set(option(session.view, 0, LIGHT)["legend"]["data"])


def test_marks_are_numbered_and_near_ones_share_a_label():
    marks = [Mark(at, "something") for at in (3, 3, 3, 3, 4, 90, 91, 120)]
    assert numbered(marks, 10) == {3: "1–5", 4: "", 90: "6, 7", 91: "", 120: "8"}
    assert numbered(marks, 1) == {3: "1–4", 4: "5", 90: "6", 91: "7", 120: "8"}
    session = watched(SMALL.replace(interventions=[{"kind": "quota", "fraction": 0.2, "start": 3}]), 1)
    levers.set_fresh(session, 0.5)
    steps(session, 1)
    levers.set_sharing(session, "open")
    assert [mark.round for mark in session.view.marks] == [1, 2, 2]  # what was numbered keeps its number
    assert "as the scenario says" in session.view.marks[1].text


def test_long_runs_and_many_providers_send_few_points():
    view = watched(SMALL.replace(n_providers=300)).view
    for n in (6, 300):
        kept = np.full(n, 0.5, dtype=np.float32)
        points = [view.points[0]._replace(round=k, kept=kept) for k in range(1201)]
        option = charts.diversity(replace(view, kept=kept, points=points, round=1200), n - 1, LIGHT)
        lines, mean = option["series"][0]["data"], option["series"][1]["data"]
        assert len(lines) < 1.1 * charts._POINTS and sum(x is None for x, _ in lines) == n
        assert mean[-1] == [1200, 0.5 * 100]


def test_the_graph_is_drawn_whole_or_says_what_is_left_out():
    session = watched()
    option, said = network(session.view, 1, LIGHT)
    assert said == "" and len(option["series"][0]["data"]) == 6
    large, said = network(watched(SMALL.replace(n_providers=500, sharing="complete")).view, 498, LIGHT)
    nodes = large["series"][0]["data"]
    assert len(nodes) <= MOST_NODES + 1 and "498" in [node["name"] for node in nodes]
    assert len(large["series"][0]["links"]) <= MOST_EDGES
    assert "of 500 providers drawn" in said and "reading links drawn" in said


def test_levers_move_no_node():
    session = watched(rounds=1)
    places = [(node["x"], node["y"]) for node in network(session.view, 0, LIGHT)[0]["series"][0]["data"]]
    levers.set_sharing(session, "silos")
    levers.add_provider(session, 0)
    steps(session, 1)
    nodes = network(session.view, 0, LIGHT)[0]["series"][0]["data"]
    assert [(node["x"], node["y"]) for node in nodes[:6]] == places
    assert not network(session.view, 0, LIGHT)[0]["series"][0]["links"]


def graph_of(view, selected):
    """Return the places by provider, the links as pairs of providers, and what is said of the graph."""
    option, said = network(view, selected, LIGHT)
    series = option["series"][0]
    name = {node["id"]: int(node["name"]) for node in series["data"]}
    places = {int(node["name"]): (node["x"], node["y"]) for node in series["data"]}
    return places, [(name[line["source"]], name[line["target"]]) for line in series["links"]], said


def test_a_sample_is_a_neighbourhood_and_its_links_are_counted_against_all():
    ring = watched(SMALL.replace(n_providers=1500, sharing="ring")).view
    places, links, said = graph_of(ring, 0)
    assert len(places) == MOST_NODES and len(links) == MOST_NODES - 1
    assert f"{2 * len(links)} of 3,000 reading links drawn" in said
    silos = watched(SMALL.replace(n_providers=500, sharing="isolated")).view
    assert len(graph_of(silos, 0)[0]) == MOST_NODES
    dense = watched(SMALL.replace(n_providers=90, sharing="complete")).view
    assert f"{2 * MOST_EDGES:,} of 8,010 reading links drawn" in graph_of(dense, 0)[2]


def test_selecting_moves_no_node_and_keeps_the_links_of_the_selected_provider():
    view = watched(SMALL.replace(n_providers=1000, sharing="complete")).view
    places, _, _ = graph_of(view, 0)
    for selected in (5, 999):
        others, links, _ = graph_of(view, selected)
        assert others.items() >= places.items() and selected in others
        assert sum(selected in pair for pair in links) == len(others) - 1
        assert len(links) == MOST_EDGES


@pytest.mark.parametrize("sharing", ["ring", "small-world", "scale-free", "communities", "star", "complete"])
def test_no_node_covers_another(sharing):
    session = watched(SMALL.replace(n_providers=20, sharing=sharing), 1)
    for _ in range(4):
        levers.add_provider(session, 0)
        steps(session, 1)
        nodes = network(session.view, 0, LIGHT)[0]["series"][0]["data"]
        where = np.array([(node["x"], node["y"]) for node in nodes])
        pixels = 360 / max(1000, np.ptp(where, axis=0).max())
        apart = np.hypot(*(where[:, None] - where).transpose(2, 0, 1)) + 1e9 * np.eye(len(nodes))
        assert apart.min() * pixels > max(node["symbolSize"] for node in nodes)


def test_the_colour_scale_has_room_for_more_than_human_diversity():
    assert scale_top(np.array([0.3, 1.01])) == 1
    assert scale_top(np.array([0.3, 1.4])) == 2
    assert scale_top(np.array([7.0])) == 10


# --- what would it take ---------------------------------------------------------------------------


def test_the_answer_in_a_sentence():
    found = {"keep": 0.9, "prevention": 0.2, "cure": 0.274}
    assert _sentence(found, 0.25, 0.25) == (
        "Keeping 90% of human diversity takes 20.0% fresh human data; bringing it back after a collapse "
        "takes 27.4%. The scenario has 25.0%: enough."
    )
    found = {"keep": 0.9, "population": 0.3}
    assert _sentence(found, 0.1, 0.1).endswith("The scenario has 10.0%: not enough.")
    assert _sentence(found, 0.1, 0.9).endswith("The scenario has 10.0% to 90.0%: not enough for all.")


def test_what_the_theory_leaves_out_is_said():
    assert _left_out(SMALL) == ""
    rules = [{"kind": "quota", "fraction": 0.5}, {"kind": "quota", "fraction": 0.6, "start": 2}]
    told = _left_out(SMALL.replace(interventions=rules, training_error=0.01))
    assert told.startswith("the dated rules of the scenario (quota); training errors")


# --- widgets --------------------------------------------------------------------------------------


class Rendered:
    """The page as widgets: what a browser would show, and its clicks."""

    def __init__(self):
        import ipyvuetify

        from analysis.app import Page

        self.vuetify = ipyvuetify
        _, self.tree = solara.render(solara.AppLayout(children=[Page()]), handle_error=False)

    def button(self, name):
        (found,) = [
            w for w in self.tree.find(self.vuetify.Btn).widgets if w.children and w.children[0] == name
        ]
        return found

    def field(self, label):
        kinds = (self.vuetify.TextField, self.vuetify.Slider, self.vuetify.Select)
        widgets = [w for kind in kinds for w in self.tree.find(kind).widgets]
        (found,) = [w for w in widgets if (w.label or "").startswith(label)]
        return found

    def texts(self):
        return " ".join(str(child) for w in self.tree.find().widgets for child in getattr(w, "children", ()))

    def alerts(self):
        return [str(w.children[0]) for w in self.tree.find(self.vuetify.Alert).widgets if w.children]


@pytest.fixture
def page(monkeypatch, tmp_path):
    file = tmp_path / "scenario.toml"
    SMALL.to_toml(file)
    monkeypatch.setenv(SCENARIO_FILE, str(file))
    rendered = Rendered()
    yield rendered
    rendered.tree.close()


def test_step_levers_and_reset(page):
    page.button("Step").click()
    assert "Round 1: " in page.texts()
    page.button("Change fresh fraction").click()
    assert "After round 1: fresh fraction set to 30%." in page.texts()
    page.button("Step").click()
    page.button("Remove provider 0").click()
    page.button("Step").click()
    assert "Provider 0 is not there" in page.texts()
    page.button("Reset").click()
    assert "Before the first round" in page.texts() and "Levers pulled" not in page.texts()
    page.button("Step").click()
    assert "Round 1: " in page.texts()


def test_bad_input_is_told_beside_the_field_and_the_page_lives_on(page):
    seed = page.field("seed")
    seed.v_model = "seven"
    seed.fire_event("focusout", {})
    assert "not a whole number" in str(page.field("seed").error_messages or page.field("seed").messages)
    assert any("A setting holds an error (below)" in text for text in page.alerts())
    assert not any("The settings have changed" in text for text in page.alerts())
    page.button("Reset").click()  # with the last settings that were right
    page.button("Step").click()
    assert "Round 1: " in page.texts()
    seed.v_model = "7"
    seed.fire_event("focusout", {})
    assert any("The settings have changed" in text for text in page.alerts())
    page.button("Reset").click()
    assert not page.alerts()


def test_a_scenario_file_that_is_wrong_is_told(monkeypatch, tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text("temperature = -1\n", encoding="utf-8")
    monkeypatch.setenv(SCENARIO_FILE, str(file))
    rendered = Rendered()
    assert any("temperature = -1: allowed" in text for text in rendered.alerts())
    rendered.tree.close()


def test_a_scenario_file_too_large_to_watch_is_told_and_not_run(monkeypatch, tmp_path):
    file = tmp_path / "large.toml"
    file.write_text("n_providers = 3000\nn_outputs = 5000\n", encoding="utf-8")
    monkeypatch.setenv(SCENARIO_FILE, str(file))
    monkeypatch.setattr("analysis.app.page.Watched", lambda **_: 1 / 0)
    rendered = Rendered()
    assert [text for text in rendered.alerts() if "n_providers: too many to watch" in text]
    rendered.tree.close()


def test_what_is_wrong_with_a_lever_goes_with_the_run(page, monkeypatch):
    monkeypatch.setattr(levers, "READABLE", 0)
    for button in ("Step", "Reset"):
        page.button("Remove provider 0").click()
        page.button("Remove provider 0").click()
        assert "provider 0 leaves before the next round already" in page.alerts()
        page.button(button).click()
        assert not page.alerts()
        page.button("Reset").click()


def test_two_pages_share_nothing(page):
    other = Rendered()
    page.button("Step").click()
    page.button("Step").click()
    other.button("Step").click()
    assert "Round 2: " in page.texts() and "Round 1: " in other.texts()
    other.tree.close()


def test_the_collapse_profile_is_that_of_the_run_so_far():
    session = watched(rounds=8)
    levers.remove_provider(session, 1)
    steps(session, 4)
    now, whole = session.profile(), collapse_profile(session.trajectory())
    pd.testing.assert_frame_equal(now, whole, rtol=1e-5)


def test_what_cannot_be_drawn_is_told_without_a_traceback(page, monkeypatch):
    page.button("Step").click()
    monkeypatch.setattr("analysis.app.charts.ranks", lambda *arguments: 1 / 0)
    page.button("Step").click()
    assert any("Round 2 could not be drawn (ZeroDivisionError" in text for text in page.alerts())
    monkeypatch.undo()
    page.button("Step").click()
    assert "Round 3: " in page.texts() and not page.alerts()


def test_what_is_saved():
    session = watched(rounds=6)
    levers.set_fresh(session, 0.5)
    steps(session, 2)
    assert session.png().startswith(b"\x89PNG")
    table = session.trajectory().table
    import io

    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(session.parquet())), table)
    assert len(pd.read_csv(io.StringIO(session.csv()))) == len(table) == 9 * 6
    assert 'kind = "fresh-fraction"' in session.toml()
