"""The browser page: watch an ecosystem collapse, and stop it.

Run it with ``ecosystem app`` or ``solara run analysis.app`` (needs the ``viz`` extra). Every tab has a
`analysis.app.session.Session` of its own. The page lives in ``analysis`` because it draws, and has the theory
beside the run.
"""

import solara

from analysis.app.page import Page

__all__ = ["Page", "routes"]

routes = [solara.Route("/", component=Page)]
"""What solara serves: without it, it would make a page of every file here."""
