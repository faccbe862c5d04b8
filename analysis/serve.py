"""Start the server of the browser page, without anything that waits for the internet.

Kept apart from `analysis.app`: solara reads its settings when it is imported.
"""

import os
import socket
from pathlib import Path

from ecosystem import InputError, Scenario

SCENARIO_FILE = "ECOSYSTEM_SCENARIO"
"""Environment variable with the scenario file that every new tab starts from."""


def serve(scenario: Path | None, port: int, host: str = "localhost") -> None:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    scenario : Path, optional
        The scenario file that every tab starts from.
    port : int
        Where; 0 takes any free one.
    host : str
        The address to listen at.

    Raises
    ------
    InputError
        If the scenario is wrong, or the port is taken.
    """
    if scenario is not None:
        Scenario.from_toml(scenario)  # now, so that a mistake is told at once
        os.environ[SCENARIO_FILE] = str(scenario.absolute())
    port = _free(host, port)
    # Its statistics of use would wait for the internet; a closed tab is kept for an hour, not for a day.
    os.environ |= {
        "SOLARA_KERNEL_CULL_TIMEOUT": "1h",
        "SOLARA_APP": "analysis.app",
        "SOLARA_MODE": "production",
        "SOLARA_THEME_SHOW_BANNER": "false",
        "SOLARA_TELEMETRY_MIXPANEL_ENABLE": "false",
    }
    import uvicorn

    print(f"open http://{host}:{port} in a browser; Ctrl-C ends", flush=True)
    uvicorn.run("solara.server.starlette:app", host=host, port=port, log_level="warning")


def _free(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: {error.args[-1]}; give another, e.g. --port 8766") from None
        return int(probe.getsockname()[1])
