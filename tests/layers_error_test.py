"""Errors by layer, of error vectors made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from eqprop_jax import tree
from eqprop_jax.analysis import layers

EXACT = {'low': np.array([[3e-3, 4e-3]]), 'top': np.array([[3.0, 4.0]])}


def test_a_deaf_layer_does_not_show_in_the_whole():
    deaf = EXACT | {'low': np.zeros((1, 2))}
    assert tree.cosine(deaf, EXACT) > 1 - 1e-6
    errors = layers.errors(deaf, EXACT)
    assert errors == {'low': 1.0, 'top': 0.0}
    assert layers.worst(errors) == 'low'
    assert layers.largest(errors) == 1.0


def test_errors_are_relative_to_the_layer():
    made = {'low': EXACT['low'] + [[0.0, 1e-3]], 'top': EXACT['top'] * 1.1}
    errors = layers.errors(made, EXACT)
    assert errors == {'low': pytest.approx(0.2), 'top': pytest.approx(0.1)}


def test_what_is_silent_and_what_ran_away():
    nothing = {'low': np.zeros((1, 2)), 'top': EXACT['top']}
    errors = layers.errors(nothing, nothing)
    assert np.isnan(errors['low'])
    assert layers.worst(errors) == 'top'
    assert layers.largest(errors) == 0
    errors = layers.errors(EXACT, nothing)
    assert layers.worst(errors) == 'low'
    assert np.isinf(layers.largest(errors))
    lost = EXACT | {'top': jnp.full((1, 2), jnp.nan)}
    errors = layers.errors(lost, EXACT)
    assert layers.worst(errors) == 'top'
    assert np.isinf(layers.largest(errors))
    assert np.isnan(layers.largest({'low': jnp.nan}))


def test_without_the_readout():
    params = {'layer_1': 1, 'readout': 2}
    assert layers.without_readout(params) == {'layer_1': 1}
    assert layers.without_readout({'J': 1}) == {'J': 1}
