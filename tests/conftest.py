"""Property tests try the same examples every time (HYPOTHESIS_PROFILE=explore: new ones); both engines."""

import os

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(params=["agents", "compiled"])
def engine(request):
    """Hold a law to both engines: a test that takes this runs once with each."""
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave the agents' long simulations of exact laws to the longer tests."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if item.path.name == "test_exact_laws.py" and parameters.get("engine") == "agents":
            item.add_marker(pytest.mark.slow)
