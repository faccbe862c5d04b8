from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem import Ecosystem, InputError, Scenario
from ecosystem.corpus import HUMAN, Corpus
from ecosystem.mixing import Mixing, without_replacement
from ecosystem.randomness import Streams


@given(st.data())
def test_without_replacement_takes_nothing_twice(data):
    n = data.draw(st.integers(1, 30))
    uniforms = data.draw(st.lists(st.floats(0, 1 - 2**-53), max_size=n))
    chosen = without_replacement(n, np.array(uniforms))
    assert len(set(chosen)) == len(chosen) == len(uniforms)
    assert set(chosen) <= set(range(n))


def test_every_ordered_choice_is_equally_likely():
    # With u on the grid of 12ths, both swaps of 2 out of 4 see every remainder equally often.
    grid = (np.arange(12) + 0.5) / 12
    chosen = [tuple(without_replacement(4, np.array(pair))) for pair in product(grid, grid)]
    assert {chosen.count(c) for c in set(chosen)} == {12}
    assert len(set(chosen)) == 12


def corpus_of(published, round=1):
    corpus = Corpus(2)
    for author, items in enumerate(published):
        corpus.add(np.array(items), author=author, round=round)
    return corpus


def batch(streams, published, batch_size, fresh=0.0, weights=None, replacement=False, reader=0, round=1):
    weights = np.full(len(published), 1 / len(published)) if weights is None else np.array(weights)
    mixing = Mixing(np.array([0.5, 1.0]), replacement, streams)
    sources = (np.arange(len(published)), weights)
    return mixing.batch(reader, batch_size, fresh, sources, corpus_of(published, round), round)


def test_an_isolated_provider_trains_on_exactly_what_it_published():
    items = np.arange(50) + 100
    drawn = batch(Streams(1), [items], 50)
    np.testing.assert_array_equal(np.sort(drawn.items), items)
    assert (drawn.authors == 0).all()


def test_items_come_from_the_author_they_are_signed_by():
    published = [np.arange(20) + 100, np.arange(20) + 200]
    drawn = batch(Streams(2), published, 20, fresh=0.3)
    for item, author in zip(drawn.items, drawn.authors, strict=True):
        assert (item < 2) if author == HUMAN else (item // 100 == author + 1)
    synthetic = drawn.items[drawn.authors != HUMAN]
    assert len(set(synthetic)) == len(synthetic)


def test_shares_are_those_of_w_and_the_fresh_fraction():
    published = [np.arange(500), np.arange(500), np.arange(500)]
    n, m, expected = 400, 100, {HUMAN: 0.3, 0: 0.35, 1: 0.21, 2: 0.14}
    authors = np.concatenate(
        [batch(Streams(3, r), published, m, 0.3, weights=[0.5, 0.3, 0.2]).authors for r in range(n)]
    )
    for author, share in expected.items():
        error = (share * (1 - share) / (n * m)) ** 0.5
        assert np.mean(authors == author) == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize("replacement", [False, True])
def test_how_often_one_item_is_read_twice(replacement):
    # 6 of 12 items: chance that item 0 is among them 1/2 without, count of mean 1/2 and variance
    # 6/12 · 11/12 with replacement.
    n = 4000
    counts = np.array(
        [
            np.count_nonzero(batch(Streams(4, r), [np.arange(12)], 6, replacement=replacement).items == 0)
            for r in range(n)
        ]
    )
    variance = 6 / 12 * 11 / 12 if replacement else 1 / 4
    assert counts.mean() == pytest.approx(0.5, abs=4 * (variance / n) ** 0.5)
    assert (counts.max() > 1) == replacement


def test_a_policy_changes_only_the_slots_it_changes():
    published = [np.arange(300), np.arange(300)]
    little, more = (batch(Streams(5), published, 200, fresh) for fresh in (0.2, 0.5))
    assert set(np.flatnonzero(little.authors == HUMAN)) < set(np.flatnonzero(more.authors == HUMAN))
    human = little.authors == HUMAN
    np.testing.assert_array_equal(little.items[human], more.items[human])
    synthetic = more.authors != HUMAN
    np.testing.assert_array_equal(little.authors[synthetic], more.authors[synthetic])


def test_shortage_names_author_and_both_numbers():
    with pytest.raises(InputError, match="provider 7 drew 6 items of author 0, who published 5"):
        batch(Streams(0), [np.arange(5)], 6, reader=7)
    assert len(batch(Streams(0), [np.arange(5)], 6, replacement=True).items) == 6


def test_all_human_and_all_synthetic():
    eco = Ecosystem(Scenario(n_providers=2, sharing="complete", fresh_fraction=[0.0, 1.0], rounds=3))
    eco.step()
    records = eco.corpus.records()
    assert records.human.sum() == 100
    assert (~records.human).sum() == 200
    assert (records.author[records.human] == HUMAN).all()


def test_corpus_is_bounded_and_counts_on():
    corpus = Corpus(3, human_items=10)
    for round in range(1, 8):
        corpus.add(np.arange(5), author=1, round=round)
        corpus.add(np.arange(2), author=HUMAN, round=round)
    records = corpus.records()
    assert sorted(set(records.round)) == [5, 6, 7]
    assert len(records.item) == 21
    assert corpus.synthetic_share == 35 / (35 + 14 + 10)
    np.testing.assert_array_equal(corpus.published(1, 7), np.arange(5))
    assert len(corpus.published(1, 4)) == 0
    assert Corpus(2).synthetic_share == 0
    assert len(Corpus(2).records().item) == 0
