import numpy as np
import pytest

from analysis.reproduce import RESULTS, Result


@pytest.mark.parametrize("published", RESULTS, ids=lambda f: f.__name__)
def test_published_numbers_are_reproduced(published):
    for result in published(300):
        assert result.agrees, result
        if np.isfinite(result.exact):
            assert abs(result.ours - result.exact) <= 4 * result.error, result


def test_disagreement_is_seen():
    result = Result("someone", "something", 1.0, 1.5, 0.1, float("nan"), "=")
    assert not result.agrees
    assert result._replace(error=0.2).agrees
    assert result._replace(relation="≥").agrees
    assert not result._replace(relation="≤").agrees
