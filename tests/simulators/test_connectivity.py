"""Synaptic connectivity: in-degrees, uniformity, self-connections; one meaning of propagation in three formats."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse, stats

from jneuro.core.code import code_folder
from jneuro.simulators import Brunel, simulate
from jneuro.simulators.config import SimulatorConfig
from jneuro.simulators.connectivity import (
    Bernoulli,
    BitRows,
    Dense,
    FixedInDegree,
    RowLists,
    Rule,
    _smallest,
    most_targets,
    relative_weights,
)
from jneuro.simulators.kernels.events import unpack
from jneuro.simulators.kinds import as_rule

SIZES = (300, 100)
RULES = {"bernoulli": Bernoulli, "fixed_in_degree": FixedInDegree}


@functools.cache
def drawer(rule, probability, sizes):
    rule, n = RULES[rule](probability), sum(sizes)
    return jax.jit(lambda key: unpack(rule.rows(key, sizes, n), n).astype(jnp.float32))


def draw(rule, probability=0.1, seed=0, sizes=SIZES):
    return np.asarray(drawer(rule, probability, sizes)(jax.random.key(seed)))


def assert_binomial(count, trials, probability):
    """A two-sided exact test at about 4.5 standard deviations."""
    assert stats.binomtest(int(count), trials, probability).pvalue > 1e-5


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_no_multiple_synapses_and_the_right_share(rule):
    drawn = draw(rule, 0.1)
    assert drawn.shape == (400, 400)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    assert_binomial(drawn.sum(), drawn.size, 0.1)


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_self_connections_are_as_likely_as_any_other(rule):
    diagonals = [np.trace(draw(rule, 0.1, seed)) for seed in range(5)]
    assert_binomial(sum(diagonals), 5 * 400, 0.1)


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_sources_and_targets_are_uniform(rule):
    drawn = draw(rule, 0.1)
    out_degree = drawn.sum(1)
    # Out-degrees are binomial under both rules.
    chi2 = ((out_degree - 40) ** 2 / (400 * 0.1 * 0.9)).sum()
    assert 1e-5 < stats.chi2.sf(chi2, 400) < 1 - 1e-5
    overlap = drawn[:, :-1] * drawn[:, 1:]
    assert_binomial(overlap.sum(), overlap.size, 0.01)


def test_fixed_in_degree_is_exact_in_each_population():
    drawn = draw("fixed_in_degree", 0.1)
    np.testing.assert_array_equal(drawn[:300].sum(0), 30)
    np.testing.assert_array_equal(drawn[300:].sum(0), 10)


def test_bernoulli_in_degree_is_binomial():
    in_degree = draw("bernoulli", 0.1).sum(0)
    chi2 = ((in_degree - 40) ** 2 / (400 * 0.1 * 0.9)).sum()
    assert 1e-5 < stats.chi2.sf(chi2, 400) < 1 - 1e-5


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_drawn_from_the_key_alone(rule):
    np.testing.assert_array_equal(draw(rule, seed=3), draw(rule, seed=3))
    assert not np.array_equal(draw(rule, seed=3), draw(rule, seed=4))


def test_original_has_a_thousand_and_two_hundred_and_fifty_inputs():
    sizes = (10_000, 2_500)
    drawn = np.asarray(unpack(FixedInDegree(0.1).rows(jax.random.key(0), sizes, 8), 8), int)
    np.testing.assert_array_equal(drawn[:10_000].sum(0), 1000)
    np.testing.assert_array_equal(drawn[10_000:].sum(0), 250)


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_a_network_without_inhibition(rule):
    sim = Brunel(n_excitatory=10, n_inhibitory=0, rule=RULES[rule](0.5)).connect(jax.random.key(0))
    assert sim.adjacency.shape == (10, 10)
    assert simulate(sim, duration=3.0, key=jax.random.key(0)).values["v"].shape == (30, 10)


def test_connect_changes_nothing_else():
    sim = Brunel(g=4.0)
    connected = sim.connect(jax.random.key(0))
    assert sim.structure is None
    assert dataclasses.replace(connected, structure=None) == sim


# Extremes of the drawing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_nobody_or_everybody(rule, probability, expected):
    assert np.all(draw(rule, probability, sizes=(40, 7)) == expected)


def test_the_number_of_inputs_is_exact_where_words_are_equal():
    # Whatever the draw, ties included: exactly the smallest, of equal ones the first.
    rng = np.random.default_rng(0)
    smallest = jax.jit(_smallest, static_argnums=1)
    for high in (1, 2, 5, 2**31 - 1):
        words = rng.integers(-high, high, (60, 9)).astype(np.int32)
        for count in (0, 1, 7, 59, 60):
            expected = np.zeros(words.shape, bool)
            for column in range(9):
                expected[np.argsort(words[:, column], kind="stable")[:count], column] = True
            np.testing.assert_array_equal(smallest(jnp.asarray(words), count), expected)


@pytest.mark.parametrize(("post", "probability", "pre"), [(100, 0.1, 100), (12_500, 0.1, 12_500), (50, 0.9, 10)])
def test_room_for_targets_is_exceeded_once_in_a_thousand_million_networks(post, probability, pre):
    most = most_targets(post, probability, pre)
    assert pre * stats.binom.sf(most, post, probability) < 1e-9
    assert most == post or pre * stats.binom.sf(most - 1, post, probability) > 1e-9


def test_too_many_targets_are_an_error_not_a_loss():
    rows = Bernoulli(0.5).rows(jax.random.key(0), (50,), 50)
    with pytest.raises(Exception, match="more than 10 targets"):
        jax.block_until_ready(RowLists.from_rows(rows, (50,), 50, 10))


def test_relative_weights_are_log_normal():
    weigh = jax.jit(relative_weights(jax.random.key(0), 0.5))
    w = np.asarray(weigh(jnp.arange(600)[:, None], jnp.arange(500)[None]), np.float64)
    s = math.sqrt(math.log(1.25))
    assert w.mean() == pytest.approx(1.0, abs=4.5 * 0.5 / math.sqrt(w.size))
    assert w.std() == pytest.approx(0.5, rel=0.02)
    assert stats.kstest((np.log(w.ravel()) + s**2 / 2) / s, "norm").statistic < 2.48 / math.sqrt(w.size) + 1e-5
    for shifted in (w[1:] * w[:-1], w[:, 1:] * w[:, :-1]):
        assert shifted.mean() == pytest.approx(1.0, abs=4.5 * math.sqrt(1.25**2 - 1) / math.sqrt(shifted.size))
    np.testing.assert_array_equal(
        weigh(jnp.arange(7, 9)[:, None], jnp.asarray([[3, 400]])), w[7:9, [3, 400]].astype("f4")
    )


# One meaning ----------------------------------------------------------------------------------------------------------

POPULATIONS = (70, 20, 10)
"""Three, so that none is special."""


def three(rule="bernoulli", probability=0.3, variation=0.0, seed=0, populations=POPULATIONS, post=45):
    """The same network in all representations."""
    rows = RULES[rule](probability).rows(jax.random.key(seed), populations, post)
    weigh = relative_weights(jax.random.key(1), variation) if variation else None
    made = {
        "dense": Dense.from_rows(rows, populations, post, weigh),
        "rows": RowLists.from_rows(rows, populations, post, most_targets(post, probability, sum(populations)), weigh),
    }
    return made if variation else made | {"bits": BitRows(rows, populations, post)}


def received(adjacency, spikes, populations):
    """By definition, in double precision."""
    adjacency, borders = np.asarray(adjacency, np.float64), np.cumsum((0, *populations))
    parts = [spikes[:, a:b].astype(float) @ adjacency[a:b] for a, b in itertools.pairwise(borders)]
    return np.stack(parts, 1)


@jax.jit
def propagated(network, spikes):
    return network.propagate(spikes)


SHARES = {"none": 0.0, "few": 0.02, "many": 0.5, "all": 1.0}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_counts_are_exact_in_every_representation(rule, share):
    spikes = np.random.default_rng(0).random((15, 100)) < SHARES[share]
    networks = three(rule)
    expected = received(networks["dense"].adjacency, spikes, POPULATIONS)
    assert expected.any() == spikes.any()
    for name, network in networks.items():
        np.testing.assert_array_equal(network.adjacency, networks["dense"].adjacency, name)
        sent = propagated(network, spikes)
        assert sent.shape == (15, 3, 45)
        np.testing.assert_array_equal(sent, expected, name)


@pytest.mark.parametrize("share", SHARES)
def test_weights_are_the_same_in_every_representation(share):
    spikes = np.random.default_rng(0).random((15, 100)) < SHARES[share]
    networks = three(variation=0.7)
    np.testing.assert_allclose(networks["rows"].adjacency, networks["dense"].adjacency, rtol=1e-6)
    expected = received(networks["dense"].adjacency, spikes, POPULATIONS)
    for network in networks.values():
        np.testing.assert_allclose(propagated(network, spikes), expected, rtol=2e-5)


@pytest.mark.parametrize("size", [pytest.param(n, marks=[pytest.mark.slow] * (n < 1500)) for n in (255, 256, 1500)])
def test_no_spike_is_lost_when_all_neurons_spike_at_once(size):
    # More than a byte can count: everybody hears everybody, and everybody spikes, in every step.
    networks = three(probability=1.0, populations=(size, 3), post=40)
    spikes = np.ones((4, size + 3), bool)
    for network in networks.values():
        sent = np.asarray(propagated(network, spikes))
        assert np.all(sent[:, 0] == size)
        assert np.all(sent[:, 1] == 3)


def batch_of(name, **changes):
    made = [three(seed=seed, **changes)[name] for seed in range(4)]
    return made, jax.tree.map(lambda *x: jnp.stack(x), *made)


LARGE = (300, 40)


@pytest.mark.parametrize(
    ("name", "variation", "populations"),
    [
        pytest.param("bits", 0.0, LARGE, id="bits, large"),
        pytest.param("rows", 0.7, POPULATIONS, id="weighted rows"),
        pytest.param("bits", 0.0, POPULATIONS, id="bits", marks=pytest.mark.slow),
        pytest.param("rows", 0.0, POPULATIONS, id="rows", marks=pytest.mark.slow),
        pytest.param("rows", 0.0, LARGE, id="rows, large", marks=pytest.mark.slow),
        pytest.param("rows", 0.7, LARGE, id="weighted rows, large", marks=pytest.mark.slow),
    ],
)
def test_a_batch_of_networks_equals_one_after_the_other(name, variation, populations):
    made, batch = batch_of(name, variation=variation, populations=populations)
    spikes = np.random.default_rng(3).random((4, 3, 6, sum(populations))) < 0.2

    @jax.jit
    def batched(batch, one, spikes):
        # Networks and runs of each; both axes the other way round; runs only; networks only; one run of each.
        propagate = type(one).propagate
        return (
            jax.vmap(jax.vmap(propagate, (None, 0)))(batch, spikes),
            jax.vmap(jax.vmap(propagate), (None, 1), 1)(batch, spikes),
            jax.vmap(propagate, (None, 0))(one, spikes[1]),
            jax.vmap(propagate, (0, None))(batch, spikes[0, 0]),
            jax.vmap(propagate)(batch, spikes[:, 2]),
        )

    alone = np.stack([[propagated(c, s) for s in ss] for c, ss in zip(made, spikes, strict=True)])
    assert alone.any()
    one = np.stack([propagated(c, spikes[0, 0]) for c in made])
    for found, expected in zip(
        batched(batch, made[1], spikes), (alone, alone, alone[1], one, alone[:, 2]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_synapses_in_any_order_and_number(weighted):
    rng = np.random.default_rng(0)
    pre, post = rng.integers(0, 9, 200), rng.integers(0, 6, 200)
    weight = rng.exponential(size=200).astype(np.float32) if weighted else None
    network = RowLists.from_synapses(pre, post, weight, (5, 4), 6)
    adjacency = np.zeros((9, 6))
    np.add.at(adjacency, (pre, post), 1.0 if weight is None else weight)
    assert adjacency.max() > 1.5
    np.testing.assert_allclose(network.adjacency, adjacency, rtol=1e-5, atol=1e-6)
    spikes = rng.random((3, 9)) < 0.6
    np.testing.assert_allclose(propagated(network, spikes), received(adjacency, spikes, (5, 4)), rtol=1e-5, atol=1e-5)


def test_no_synapses_at_all():
    nobody = np.zeros(0, int)
    network = RowLists.from_synapses(nobody, nobody, None, (3,), 4)
    assert not np.asarray(network.propagate(np.ones((2, 3), bool))).any()


def test_floats_pass_a_matrix_with_their_gradient():
    rng = np.random.default_rng(0)
    network, signal = three(variation=0.4)["dense"], rng.normal(size=(3, 100)).astype(np.float32)
    expected = received(network.adjacency, signal, POPULATIONS)
    np.testing.assert_allclose(network.propagate(jnp.asarray(signal)), expected, rtol=1e-4, atol=1e-4)
    grad = jax.grad(lambda s: network.propagate(s)[1, 2, 5])(jnp.asarray(signal))
    by_hand = np.zeros((3, 100))
    by_hand[1, 90:] = np.asarray(network.adjacency)[90:, 5]
    np.testing.assert_allclose(grad, by_hand, rtol=1e-6)


@pytest.mark.parametrize("name", ["bits", "rows"])
def test_floats_are_refused_by_events(name):
    with pytest.raises(TypeError, match=r"boolean spikes.*float32.*Dense"):
        three()[name].propagate(jnp.ones((1, 100)))


def test_events_pass_no_gradient_to_weights():
    network = three(variation=0.4)["rows"]
    spikes = np.ones((2, 100), bool)
    grad = jax.grad(lambda w: dataclasses.replace(network, weights=w).propagate(spikes).sum())(network.weights)
    assert not np.asarray(grad).any()


BAD = {
    "populations of a matrix": (lambda: Dense(jnp.ones((4, 4)), (3, 2)), r"Dense: populations = \(3, 2\) add up to 5"),
    "words of a row": (lambda: BitRows(jnp.ones((4, 2), jnp.uint32), (4,), 70), "2 words a row do not hold 70 bits"),
    "a matrix with one axis": (lambda: Dense(jnp.ones(4), (4,)), r"matrix must be \[pre, post\]"),
    "an inhibitory matrix": (lambda: Dense(-np.eye(5), (3, 2)), "relative weights, finite and not negative, got -1"),
    "no matrix": (lambda: Dense(np.array([None, {}]), (2,)), "must be an array of numbers, got ndarray"),
    "weights in bits": (
        lambda: BitRows.from_adjacency(2 * np.eye(5), (3, 2)),
        "zeros and ones only.*Dense or",
    ),
    "a short list": (lambda: RowLists.from_synapses([0, 1], [0], None, (3, 2), 4), "their lengths are pre 2, post 1"),
    "a long list": (
        lambda: RowLists.from_synapses([0, 1], [0, 1], [1.0, 2.0, 3.0], (3, 2), 4),
        "lengths are pre 2, post 2, weight 3",
    ),
    "an inhibitory list": (
        lambda: RowLists.from_synapses([0], [0], [-1.0], (3, 2), 4),
        "not negative, got -1.*g of",
    ),
    "a weight that is no number": (lambda: RowLists.from_synapses([0], [0], [np.nan], (3, 2), 4), "finite and"),
    "the place of a weight": (lambda: Dense([[0.0, 1.0], [np.nan, 1.0]], (1, 1)), r"got nan at \[1, 0\]; they are fac"),
    "a ragged matrix": (lambda: Dense([[0.0, 1.0], [1.0]], (1, 1)), "got a list of lists of unequal lengths"),
    "one population": (lambda: Dense(np.eye(5), 5), "populations = 5 must be the sizes of .* such as .80, 20"),
    "half a population": (lambda: Dense(np.eye(5), (2.5, 2.5)), "must be the sizes of the presynaptic populations"),
    "less than nobody": (lambda: Dense(np.eye(5), (7, -2)), "must be the sizes of the presynaptic populations"),
    "another name": (lambda: Dense(np.eye(5), population=(5,)), "Dense: unknown argument 'population'; did you mean"),
    "a matrix for rows of bits": (
        lambda: BitRows(np.eye(5), (5,), 5),
        r"got float64\[5, 5\]; BitRows.from_adjacency\(matrix, populations\) packs",
    ),
    "weights of a matrix": (
        lambda: RowLists.from_synapses([0], [0], [[1.0]], (3, 2), 4),
        r"weight must be a list, one for each synapse, got the shape \(1, 1\)",
    ),
    "neurons that are no number": (
        lambda: RowLists.from_synapses([0], [0], None, (3, 2), 4.0),
        "number of postsynaptic neurons must be a whole number, got 4.0",
    ),
    "a target": (lambda: RowLists([[0, 5]], None, (1,), 4), r"targets run from 0 to 5; they must lie in \[0, 4\)"),
    "targets that are no indices": (
        lambda: RowLists([[0.5]], None, (1,), 4),
        r"got float64\[1, 1\]; RowLists.from_synapses",
    ),
    "a neuron and a half": (
        lambda: RowLists.from_synapses([0.5], [0], None, (3, 2), 4),
        r"pre must be a list of whole numbers, the indices of neurons, got float64\[1\]",
    ),
    "a sender": (lambda: RowLists.from_synapses([5], [0], None, (3, 2), 4), r"pre runs from 5 to 5.*\[0, 5\)"),
    "a receiver": (lambda: RowLists.from_synapses([0], [-1], None, (3, 2), 4), r"post runs from -1 to -1.*\[0, 4\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_twelve_thousand_five_hundred_neurons(rule):
    populations = (10_000, 2_500)
    networks = three(rule, 0.1, populations=populations, post=12_500)
    dense = networks.pop("dense")
    if rule == "fixed_in_degree":
        np.testing.assert_array_equal(dense.adjacency[:10_000].sum(0), 1000)
        np.testing.assert_array_equal(dense.adjacency[10_000:].sum(0), 250)
    spikes = np.random.default_rng(0).random((2, 12_500)) < np.array([[0.004], [1.0]])
    expected = received(dense.adjacency, spikes, populations)
    for network in networks.values():
        np.testing.assert_array_equal(network.propagate(spikes), expected)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int32, "sparse", "list"])
def test_a_matrix_of_whole_numbers_counts_as_one_of_floats(kind):
    given = np.ones((600, 3), int if isinstance(kind, str) else kind)
    given = sparse.coo_array(given) if kind == "sparse" else given.tolist() if kind == "list" else given
    network = Dense(given, [300, 300])
    assert network.matrix.dtype == jnp.float32
    np.testing.assert_array_equal(network.propagate(jnp.ones((1, 600), bool)), 300.0)
    np.testing.assert_array_equal(BitRows.from_adjacency(given, [300, 300]).adjacency, network.matrix)


# Rules ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Bernoulli(0.3), FixedInDegree(p=0.3), FixedInDegree(n=7)], ids=str)
def test_packed_rows_are_what_the_plain_rule_says(rule):
    key, post = jax.random.key(3), 45

    class Plain(Rule):
        """The same rule, by its row or column alone."""

        def row(self, key, pre, n_post):
            return rule.row(key, pre, n_post)

    class ByColumn(Rule):
        def column(self, key, post, pre):
            return rule.column(key, post, pre)

    plain = Plain() if isinstance(rule, Bernoulli) else ByColumn()
    drawn = np.asarray(unpack(rule.rows(key, POPULATIONS, post), post))
    np.testing.assert_array_equal(unpack(plain.rows(key, POPULATIONS, post), post), drawn)
    assert 0 < drawn.mean() < 1
    assert drawn.sum(1).max() <= rule.most(POPULATIONS, post) <= plain.most(POPULATIONS, post)


class Ring(Rule):
    """Neighbours, on either side."""

    k: int = 4

    def row(self, key, pre, n_post):
        apart = jnp.abs(jnp.arange(n_post) - pre)
        return jnp.minimum(apart, n_post - apart) <= self.k


@pytest.mark.parametrize("propagation", ["dense", "bits", "rows"])
def test_a_rule_of_one_s_own(propagation):
    sim = Brunel(n_excitatory=40, n_inhibitory=10, rule=Ring(k=2), propagation=propagation).connect(jax.random.key(0))
    assert hash(sim.rule) == hash(Ring(k=2))
    apart = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    np.testing.assert_array_equal(sim.adjacency, np.minimum(apart, 50 - apart) <= 2)
    assert simulate(sim, duration=3.0, key=jax.random.key(0), record_every=3.0).values["v"].shape == (1, 50)


def test_rules_by_name(tmp_path):
    (tmp_path / "my_rules.py").write_text(
        "import jax.numpy as jnp\nfrom jneuro.simulators.connectivity import Rule\n\n\n"
        "class Ring(Rule):\n    k: int = 4\n\n    def row(self, key, pre, n_post):\n"
        "        return jnp.abs(jnp.arange(n_post) - pre) <= self.k\n"
    )
    assert as_rule({"name": "fixed_in_degree", "n": 3}) == FixedInDegree(n=3)
    with code_folder(tmp_path):
        block = {"name": "brunel", "n_excitatory": 6, "n_inhibitory": 2, "rule": {"name": "my_rules:Ring", "k": 1}}
        sim = SimulatorConfig.model_validate(block).build().connect(jax.random.key(0))
    np.testing.assert_array_equal(sim.adjacency, abs(np.subtract.outer(np.arange(8), np.arange(8))) <= 1)


class Floats(Rule):
    def row(self, key, pre, n_post):
        return jnp.ones(n_post)


class Short(Rule):
    def column(self, key, post, pre):
        return jnp.ones(pre.size - 1, bool)


class Silent(Rule):
    pass


class WithArray(Ring):
    share: jax.Array = None


def connected(rule):
    return Brunel(rule=rule).connect(jax.random.key(0))


BAD_RULES = {
    "floats": (lambda: connected(Floats()), r"Floats.row returned float32\[100\].*bool\[100\]"),
    "too few": (lambda: connected(Short()), r"Short.column returned bool\[79\].*bool\[80\]"),
    "nothing": (Silent, r"Silent needs row\(key, pre, n_post\) or column"),
    "an array": (lambda: WithArray(share=jnp.ones(3)), "must be plain numbers, not arrays"),
    "an unknown one": (lambda: Brunel(rule="all"), "unknown rule 'all'; known are bernoulli, fixed_in_degree"),
    "no rule": (lambda: Brunel(rule=3), "is no rule"),
    "no probability": (lambda: Bernoulli(1.5), r"p = 1.5 must be a number in \[0, 1\]"),
    "both": (lambda: FixedInDegree(p=0.1, n=3), "either p or n, got p = 0.1, n = 3"),
    "half a neuron": (lambda: FixedInDegree(n=2.5), "n = 2.5 must be a whole number"),
    "too many": (lambda: connected(FixedInDegree(n=30)), "n = 30 inputs from.* 20 neurons"),
}


@pytest.mark.parametrize("case", BAD_RULES)
def test_a_rule_that_cannot_be_is_refused(case):
    make, message = BAD_RULES[case]
    with pytest.raises(ValueError, match=message):
        make()
