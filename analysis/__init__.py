"""Questions asked of runs: collapse, theory, figures, reports. Imports ecosystem, never the reverse."""
