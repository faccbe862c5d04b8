"""What the compiled engine keeps of a provider: true to a plain twin, whole after every round, no drift."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ecosystem import Scenario, Trajectory, run, running
from ecosystem.engine import kernels
from ecosystem.engine.kernels import FULL, KEYS, LEAST, STRIDE, D, W, Y
from ecosystem.engine.laws import Published, Step
from ecosystem.engine.rounds import Rounds
from ecosystem.engine.sparse import SparseState
from ecosystem.interventions import Rules
from ecosystem.laws import SparseLaws
from ecosystem.randomness import Decision, Streams, sample
from ecosystem.temperature import tempered

G, H, E = kernels._G, kernels._H, kernels._E
NONE = kernels._NONE
CLOSE = 1e-12


def close(value, expected, scale=None):
    np.testing.assert_allclose(value, expected, rtol=CLOSE, atol=0 if scale is None else CLOSE * scale)


def check(state):
    """Assert that all that is stored of every row is what its raw values and its initial law make of it."""
    for shard in state.shards:
        blocks, scales = shard.blocks, shard.scales
        pool = []
        for r in range(shard.rows):
            pool += check_row(state, shard, r)
        spare = blocks.spare[: blocks.free[1]].tolist()
        used = pool + spare
        assert sorted(used) == list(range(blocks.free[0])), "a block is lost, or there twice"
        assert len(blocks.spare) * STRIDE == len(blocks.values)
        assert blocks.values.ctypes.data % 64 == 0
        assert (shard.tally == 0).all()
        spans = sorted((int(a), int(a + room)) for a, room in zip(blocks.first, blocks.room, strict=True))
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert np.isfinite(scales.reference).all()


def check_row(state, shard, r):
    """Check one row, and return the numbers of its blocks."""
    blocks, scales, tables = shard.blocks, shard.scales, state.tables
    size = tables.laws.shape[1]
    values, keys = blocks.values, blocks.keys
    table = int(scales.table[r])
    ends, law = tables.ends[table], tables.laws[tables.start[table]]
    g, base, inverse, reference = (
        state.g[shard.first + r],
        scales.base[r],
        scales.inverse[r],
        scales.reference[r],
    )
    assert 1e-200 <= g and np.isfinite(g)
    assert base >= 0
    here, used = int(blocks.first[r]), int(blocks.used[r])
    assert 1 <= used <= blocks.room[r]
    lows = blocks.lows[here : here + used]
    assert lows[0] == 0 and (np.diff(lows) > 0).all()
    with np.errstate(divide="ignore"):
        outset = np.log(base) + tables.peaks[tables.start[table]]
    spread = np.exp((outset - reference) * inverse) if base > 0 else 0.0
    close(scales.spread[r], spread)
    highest, theta = outset, np.full(size, g * base) * law
    total_outputs = []
    for place in range(here, here + used):
        at = int(blocks.ids[place]) * STRIDE
        count, low = int(blocks.counts[place]), int(blocks.lows[place])
        high = size if place == here + used - 1 else int(blocks.lows[place + 1])
        assert (0 if used == 1 else 1) <= count <= FULL
        own = keys[2 * at + KEYS : 2 * at + KEYS + 72]
        outputs = own[:count].astype(np.int64)
        assert (np.diff(outputs) > 0).all(), "an output is there twice, or out of order"
        assert count == 0 or (low <= outputs[0] and outputs[-1] < high)
        assert (own[count:] == NONE).all()
        y, w = (values[at + part : at + part + count] for part in (Y, W))
        assert (y >= LEAST).all() and np.isfinite(y).all()
        weights = np.exp((np.log(y) - reference) * inverse)
        # The exponent loses digits as it grows: (ln y − ln r)/T is known to 1e-16 times its parts.
        blur = 1 + 1e-3 * inverse * max(1.0, abs(reference), np.abs(np.log(y)).max(initial=0))
        np.testing.assert_allclose(w, weights, rtol=CLOSE * blur, atol=1e-300)
        highest = max(highest, np.log(y).max(initial=-np.inf))
        theta[outputs] = g * y
        total_outputs += outputs.tolist()
        # Cumulative weights, with the untouched outputs before every entry.
        left = np.r_[low, outputs[:-1] + 1][:count]
        gaps = np.where(outputs > left, spread * (ends[outputs] - ends[left]), 0.0)
        close(values[at + D : at + D + count], gaps)
        entries = gaps + w
        groups = -(-count // 8)
        sums = 0.0
        for group in range(groups):
            span = slice(8 * group, min(8 * group + 8, count))
            within = np.cumsum(entries[span])
            close(values[at + E + span.start : at + E + span.stop], within, scale=within[-1])
            sums += within[-1]
            if 8 * group + 8 <= count:
                close(values[at + G + group], within[-1])
                close(values[at + H + group], sums)
        assert (values[at + E + count : at + E + 64] == np.inf).all()
        assert (values[at + D + count : at + D + 72] == np.inf).all()
        for part in (G, H):
            assert (values[at + part + count // 8 : at + part + 8] == np.inf).all()
        assert (np.diff(values[at + H : at + H + count // 8]) >= 0).all()
        last = int(outputs[-1]) + 1 if count else low
        sums += spread * (ends[high] - ends[last])
        close(blocks.sums[place], sums)
    assert len(set(total_outputs)) == len(total_outputs)
    assert scales.highest[r] >= highest - 1e-9 or scales.highest[r] == highest
    assert (scales.highest[r] - reference) * inverse <= kernels.REACH
    assert theta.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(
        state.distributions(shard.first + r, shard.first + r + 1)[0], theta, rtol=1e-13
    )
    return blocks.ids[here : here + used].tolist()


# --- against a plain twin ---------------------------------------------------------------------------------


class Twin:
    """Θ as plain arrays, one row after the other, by the formula."""

    def __init__(self, laws):
        self.theta = np.array(laws)

    def learn(self, row, outputs, weights, a):
        freq = np.zeros(self.theta.shape[1])
        freq[outputs] = weights / weights.sum()
        self.theta[row] = (1 - a) * self.theta[row] + a * freq

    def publish(self, row, temperature, uniforms):
        return sample(np.cumsum(tempered(self.theta[row], temperature)), uniforms)


@st.composite
def batches(draw, size):
    """Some outputs in order with a weight each: few or many, scattered, side by side, or at an edge."""
    kind = draw(st.sampled_from(["few", "run", "many", "none", "edges"]))
    if kind == "none":
        outputs = []
    elif kind == "run":
        first = draw(st.integers(0, size - 1))
        outputs = range(first, min(size, first + draw(st.integers(1, 200))))
    elif kind == "edges":
        outputs = {0, size - 1}
    elif kind == "few":
        outputs = draw(st.sets(st.integers(0, size - 1), max_size=5))
    else:
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        outputs = np.flatnonzero(random.random(size) < draw(st.sampled_from([0.05, 0.5, 1.0])))
    outputs = np.array(sorted(outputs), dtype=np.int32)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    whole = draw(st.booleans())
    weights = random.integers(1, 9, len(outputs)) if whole else random.uniform(1e-3, 5, len(outputs))
    return outputs, weights.astype(float)


TEMPERATURES = (0.01, 0.2, 0.8, 1.0, 3.0, np.inf)


@given(st.data())
@settings(max_examples=30)
def test_random_rounds_against_a_plain_twin(data):
    size = data.draw(st.sampled_from([1, 2, 63, 64, 65, 300, 3000]))
    n, cuts = 3, [(0, 2), (2, 3)]
    start = data.draw(st.sampled_from(["human", "sampled", "law", "laws"]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    laws = random.dirichlet(np.full(size, 0.5), n)
    initial = {"law": laws[0], "laws": laws}.get(start, start)
    schedule = data.draw(st.sampled_from(["accumulate", "steps"]))
    scenario = Scenario(
        n_providers=n, n_outputs=size, initial=initial, pretraining_size=50, temperature=0.8, rounds=1, seed=6
    )
    state = SparseState(scenario, range(1), cuts)
    twin = Twin(state.distributions(0, n))
    trained = np.full(n, 50.0)
    temperature = np.full(n, 0.8)
    check(state)
    for k in range(1, data.draw(st.integers(1, 8)) + 1):
        chosen = [data.draw(batches(size)) for _ in range(n)]
        distinct = np.array([len(outputs) for outputs, _ in chosen])
        weight = np.array([weights.sum() for _, weights in chosen])
        sizes = [np.nan] if schedule == "accumulate" else [1e-6, 0.1, 0.5, 0.99, 1.0]
        given = data.draw(st.sampled_from(sizes))
        a = weight / (trained + weight) if np.isnan(given) else np.full(n, given)
        now = trained + weight
        outputs = np.concatenate([outputs for outputs, _ in chosen])
        step = Step(
            outputs, np.concatenate([weights for _, weights in chosen]), np.cumsum(distinct) - distinct,
            distinct, weight, trained, given, k,
        )  # fmt: skip
        before = twin.theta.copy()
        for row, (own, weights) in enumerate(chosen):
            if len(own):
                twin.learn(row, own, weights, a[row])
        for cut in range(len(cuts)):
            state.learn(cut, step, measuring=data.draw(st.booleans()) or k == 1)
            if k == 1:
                close_divergence(state.moved[slice(*cuts[cut])], twin.theta, before, slice(*cuts[cut]))
        check(state)
        np.testing.assert_array_equal(trained, now)
        np.testing.assert_allclose(state.distributions(0, n), twin.theta, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(state.final()[0], twin.theta, rtol=1e-9, atol=1e-15)
        if data.draw(st.booleans()):
            temperature = np.array([data.draw(st.sampled_from(TEMPERATURES)) for _ in range(n)])
            state.set_temperature(temperature)
            check(state)
            event("temperature changed")
        if data.draw(st.booleans()):
            state = pickle.loads(pickle.dumps(state))
            check(state)
        publishes_as(state, twin, scenario, temperature, k)


def close_divergence(moved, theta, before, own):
    """Compare KL(new‖old) with its definition."""
    for value, p, q in zip(moved, theta[own], before[own], strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.where(p > 0, p * np.log(p / q), 0.0).sum()
        assert value == pytest.approx(max(expected, 0.0), rel=1e-8, abs=1e-12)


def publishes_as(state, twin, scenario, temperature, k):
    sizes = np.array([40, 1, 7])
    published = Published(np.empty(48, dtype=np.int32), np.cumsum(sizes) - sizes, sizes)
    for cut in range(2):
        state.publish(cut, Rules.of(scenario), published, k)
    for row in range(3):
        luck = Streams(scenario.seed).uniforms(sizes[row], Decision.PUBLISH, round=k, provider=row)
        mine = published.items[published.at[row] : published.at[row] + sizes[row]]
        its = twin.publish(row, temperature[row], luck)
        if not np.array_equal(mine, its):  # only where a uniform lies at the boundary between two outputs
            ends = np.cumsum(tempered(twin.theta[row], temperature[row]))
            for u, one, two in zip(luck, mine, its, strict=True):
                assert one == two or abs(ends[min(one, two)] / ends[-1] - u) < 1e-9


# --- no drift ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "changes"),
    [
        (4000, {"temperature": [0.8, 0.05, 2.0]}),
        (4000, {"temperature": [0.8, 0.05, 2.0], "schedule": "forget:0.01", "initial": "sampled"}),
        (1500, {"schedule": "forget:0.9"}),
        (1500, {"schedule": "power:0.6", "temperature": 1.0}),
        pytest.param(1_000_000, {"temperature": [0.9, 0.01, np.inf]}, marks=pytest.mark.slow),
        pytest.param(1_000_000, {"schedule": "forget:0.01"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_rounds_do_not_drift(rounds, changes):
    scenario = Scenario(
        **{"n_providers": 3, "n_outputs": 500, "outputs_per_round": 4, "batch_size": 3, "rounds": rounds,
           "record_every": rounds, "sharing": "complete", "with_replacement": True, "pretraining_size": 100}
        | changes
    )  # fmt: skip
    held = Rounds(scenario, range(1))
    while held.round < rounds:
        held.step()
    check(held.laws)
    np.testing.assert_allclose(held.distributions.sum(axis=-1), 1, rtol=0, atol=1e-9)
    if scenario.schedule == "accumulate":  # raw values are counts: exactly what was trained on
        for shard in held.laws.shards:
            for r in range(shard.rows):
                if shard.scales.base[r] > 0:
                    assert held.trained[shard.first + r] == 100 + 3 * rounds
                    assert held.laws.g[shard.first + r] == 1 / held.trained[shard.first + r]


@pytest.mark.parametrize(("a", "temperature"), [(None, 0.05), (0.01, 0.8), (0.7, 5.0)])
def test_a_hundred_thousand_batches_do_not_drift(a, temperature, rounds=100_000):
    # Of three items each, to a row of 300 outputs; and against the counts known exactly.
    size, prior = 300, 50
    scenario = Scenario(
        n_providers=1, n_outputs=size, pretraining_size=prior, temperature=temperature, rounds=1
    )
    state = SparseState(scenario, range(1), [(0, 1)])
    items = np.random.default_rng(4).zipf(1.3, (rounds, 3)) % size
    at = np.zeros(1, dtype=np.int64)
    theta, trained = scenario.source.law.copy(), np.array([float(prior)])
    for k, batch in enumerate(items, 1):
        outputs, counts = np.unique(batch, return_counts=True)
        step = 3 / (prior + 3 * k) if a is None else a
        state.learn(0, Step(outputs.astype(np.int32), counts.astype(float), at, np.array([len(outputs)]),
                            np.array([3.0]), trained, np.nan if a is None else a, k),
                    measuring=k % 7 == 0)  # fmt: skip
        theta *= 1 - step
        np.add.at(theta, batch, step / 3)
    check(state)
    law = state.distributions(0, 1)[0]
    assert law.sum() == pytest.approx(1, abs=1e-9)
    if a is None:
        counts = prior * scenario.source.law + np.bincount(items.ravel(), minlength=size)
        np.testing.assert_allclose(law, counts / (prior + 3 * rounds), rtol=1e-12)
    np.testing.assert_allclose(law, theta, rtol=1e-8, atol=1e-250)


def test_rescaling_a_row_changes_nothing_but_the_scale():
    # forget:0.9 multiplies g by 0.1 a round: after 200 rounds it falls below 1e-200 and is moved into y.
    scenario = Scenario(
        n_providers=2, n_outputs=30, rounds=450, schedule="forget:0.9", sharing="isolated", record_every=450
    )
    held, smallest, moved = Rounds(scenario, range(1)), 1.0, 0
    for _ in range(scenario.rounds):
        before, theta = held.laws.g.copy(), held.distributions
        held.step()
        moved += int((held.laws.g > before).any())
        smallest = min(smallest, held.laws.g.min())
        check(held.laws)
        kept = held.distributions[0] >= 0.1 * theta[0] * (1 - 1e-12)
        assert kept[0.1 * theta[0] > 1e-285].all()
    assert moved == 2 and smallest >= 1e-200


def test_a_growing_weight_moves_the_reference():
    # T = 0.01: a raw value that grows e^6-fold has a weight e^600 times as large.
    scenario = Scenario(n_providers=1, n_outputs=200, rounds=60, temperature=0.01, batch_size=100,
                        pretraining_size=10, record_every=60)  # fmt: skip
    held = Rounds(scenario, range(1))
    references = set()
    while held.round < 60:
        held.step()
        references.add(held.laws.shards[0].scales.reference[0])
        check(held.laws)
    assert len(references) > 1


# --- memory -----------------------------------------------------------------------------------------------


def blocks_used(held):
    return sum(int(shard.blocks.free[0] - shard.blocks.free[1]) for shard in held.laws.shards)


def test_memory_grows_with_the_outputs_touched():
    counts = {}
    for size in (10**3, 10**5, 10**6):
        scenario = Scenario(n_providers=20, n_outputs=size, rounds=10, record_every=10)
        held = Rounds(scenario, range(1))
        assert blocks_used(held) == 20
        while held.round < 10:
            held.step()
        touched = sum(int(shard.blocks.counts[a : a + used].sum()) for shard in held.laws.shards
                      for a, used in zip(shard.blocks.first, shard.blocks.used, strict=True))  # fmt: skip
        assert touched <= 20 * 10 * 100
        # Blocks that were split are at least 31 of 63 full.
        assert blocks_used(held) <= 20 + touched / (FULL // 2)
        numbers = sum(len(shard.blocks.values) for shard in held.laws.shards)
        assert numbers <= 3 * STRIDE * (blocks_used(held) + 8 * 20 + 100)
        counts[size] = numbers
    assert counts[10**6] < 20 * 10**6 / 5


def test_what_is_forgotten_is_given_back():
    scenario = Scenario(n_providers=5, n_outputs=5000, rounds=40, schedule="replace", record_every=40)
    held, most = Rounds(scenario, range(1)), []
    while held.round < 40:
        held.step()
        most.append(sum(len(shard.blocks.values) for shard in held.laws.shards))
        check(held.laws)
    assert most[5] == most[-1]


# --- final distributions that stay sparse -----------------------------------------------------------------


@pytest.fixture(params=["human", "sampled", "law", "laws"])
def twice(request, monkeypatch):
    """A run with its final distributions dense, and sparse."""
    laws = np.random.default_rng(1).dirichlet(np.full(50, 0.4), 4)
    initial = {"law": laws[0], "laws": laws}.get(request.param, request.param)
    scenario = Scenario(n_providers=4, n_outputs=50, rounds=5, batch_size=9, initial=initial,
                        interventions=[{"kind": "exit", "providers": [1], "start": 3}])  # fmt: skip
    dense = run(scenario, 3)
    monkeypatch.setattr(running, "DENSE", 3 * 4 * 50 * 8 - 1)
    thin = run(scenario, 3)
    assert isinstance(dense.final, np.ndarray) and isinstance(thin.final, SparseLaws)
    return dense, thin


def test_sparse_laws_are_the_dense_array(twice):
    dense, thin = twice
    assert thin.table.equals(dense.table)
    final = thin.final
    assert final.shape == dense.final.shape
    assert len(final) == 3
    for r in range(3):
        np.testing.assert_allclose(final[r], dense.final[r], rtol=1e-14)
        for i in range(4):
            np.testing.assert_allclose(final.law(r, i), dense.final[r, i], rtol=1e-14)
    np.testing.assert_allclose(np.stack(list(iter_replicates(final))), dense.final, rtol=1e-14)
    random = np.random.default_rng(2)
    for outputs in (random.random(50) < 0.3, np.zeros(50, dtype=bool), np.ones(50, dtype=bool)):
        np.testing.assert_allclose(
            final.mass(outputs), dense.final[..., outputs].sum(axis=-1), rtol=1e-12, atol=1e-15
        )


def iter_replicates(final):
    return (final[r] for r in range(len(final)))


def test_at_the_limit_it_is_dense(monkeypatch):
    scenario = Scenario(n_providers=4, n_outputs=50, rounds=2)
    monkeypatch.setattr(running, "DENSE", 3 * 4 * 50 * 8)
    assert isinstance(run(scenario, 3).final, np.ndarray)
    assert isinstance(run(scenario, 4).final, SparseLaws)
    assert isinstance(run(scenario.replace(top_k=4), 4).final, np.ndarray)  # whole laws are kept anyway


def test_sparse_laws_are_cut_and_joined(twice):
    _, thin = twice
    final = thin.final
    assert final.first(2).shape == (2, 4, 50)
    assert SparseLaws.joined([final.first(1), last(final)]) == final
    assert final.first(2) != final
    other = SparseLaws(final.start, final.scale + 1e-9, final.touched)
    assert other != final and final != 3


def last(final):
    return SparseLaws(final.start, final.scale[1:], final.touched[1:])


def test_sparse_laws_as_an_array(twice):
    dense, thin = twice
    whole = np.asarray(thin.final)
    assert whole.shape == thin.final.shape
    np.testing.assert_allclose(whole, dense.final, rtol=1e-12, atol=1e-15)


def test_sparse_laws_are_saved_and_loaded(twice, tmp_path):
    _, thin = twice
    thin.final.save(tmp_path / "laws.npz")
    assert SparseLaws.load(tmp_path / "laws.npz") == thin.final
    thin.save(tmp_path / "run")
    assert (tmp_path / "run" / "final.npz").is_file()
    loaded = Trajectory.load(tmp_path / "run")
    assert loaded == thin
    np.testing.assert_array_equal(loaded.final[1], thin.final[1])
    four = run(thin.scenario, 4, resume=loaded)
    assert four.final.first(3) == thin.final
    assert run(thin.scenario, 4).final == four.final


def test_those_who_stayed_to_the_end_can_be_asked_for(twice):
    dense, thin = twice
    active = thin.final_active
    assert active.shape == dense.final_active.shape == (3, 3, 50)
    np.testing.assert_allclose([active[r] for r in range(3)], dense.final_active, rtol=1e-14)
