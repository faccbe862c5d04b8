"""Mesa's page takes an ecosystem as it is, without a browser: needs the ``viz`` extra."""

import pytest

from ecosystem import Ecosystem

solara = pytest.importorskip("solara", reason="the viz extra is not installed: pip install -e '.[viz]'")


@pytest.mark.filterwarnings("default")
def test_step_and_reset():
    import ipyvuetify
    from mesa.visualization import SolaraViz, make_plot_component

    slider = {"type": "SliderFloat", "value": 0.8, "label": "T", "min": 0.1, "max": 2.0, "step": 0.1}
    page = SolaraViz(
        Ecosystem(n_providers=3, rounds=50),
        components=[make_plot_component("beta_diversity")],
        model_params={"temperature": slider, "n_providers": 3},
    )
    _, rendered = solara.render(solara.AppLayout(children=[page]), handle_error=False)

    def click(name):
        for button in rendered.find(ipyvuetify.Btn).widgets:
            if button.children and button.children[0] == name:
                button.click()
                return
        raise AssertionError(f"no button {name}")

    click("Step")
    click("Reset")
    click("Step")
    rendered.close()
