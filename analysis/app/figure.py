"""An Apache ECharts figure that is quick to redraw."""

from collections.abc import Callable
from typing import Any

import solara
import traitlets
from solara.components.echarts import EchartsWidget


class Opaque:
    """Holds an option so that nobody looks through it for components: it may hold 20,000 points."""

    def __init__(self, option: dict[str, Any]) -> None:
        self.option = option


class _Figure(EchartsWidget):
    option = traitlets.Any().tag(sync=True, to_json=lambda opaque, widget: opaque.option)


@solara.component
def Figure(option: Opaque, height: int, on_click: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Show a figure as wide as there is room; as `solara.FigureEcharts`, which takes ten times as long."""
    _Figure.element(
        option=option,
        on_click=on_click,
        responsive=True,
        attributes={"style": f"height: {height}px; width: 100%;"},
    )
