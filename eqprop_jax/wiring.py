"""Who feeds whom: which layers a function of the rates depends on.

Read off the operations of the traced function, so that it holds for any system, and for
the transpose of its Jacobian as well, without a word about names or architecture:

    feeders(D)          for every layer, the layers whose rates its drive depends on
    readers(C)          the layers that the cost depends on, where a nudge enters
    outward             the blocks of a sweep that follows the nudge through the network

An operation that takes part of its input alone (a slice of all layers in one vector) is
counted as taking the whole: what is said to be independent is.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from jax.extend.core import Literal

from eqprop_jax import tree

Feeders = Mapping[str, frozenset[str]]
"""{layer: the layers that feed it}."""


def feeders(drive: Callable[[dict], dict], rates: dict) -> dict[str, frozenset[str]]:
    """Returns, for every layer, the layers whose rates its drive depends on.

    Args:
      drive: (rates) -> state, both {layer: [B, ...]}.
      rates: arguments of it; only shapes and types are used.
    """
    names = sorted(rates)  # as JAX orders the leaves of a dict
    found = _dependencies(drive, rates)
    return {
        name: frozenset(names[index] for index in numbers)
        for name, numbers in zip(names, found, strict=True)
    }


def readers(cost: Callable[[dict], Any], rates: dict) -> frozenset[str]:
    """Returns the layers that a cost depends on.

    Args:
      cost: (rates) -> [B].
      rates: arguments of it; only shapes and types are used.
    """
    names, (found,) = sorted(rates), _dependencies(cost, rates)
    return frozenset(names[index] for index in found)


def outward(feeders: Feeders, sources: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Returns the layers that a nudge reaches, as blocks in the order it reaches them.

    Layers at one distance from the sources stand in one block if none of them feeds
    another. Layers that nothing reaches are left out.

    Args:
      feeders: from `feeders`.
      sources: the layers where the nudge enters.

    Examples:
      A chain of three layers, read at its top:

      >>> chain = {'a': {'b'}, 'b': {'a', 'c'}, 'c': {'b'}}
      >>> outward(chain, {'c'})
      (('c',), ('b',), ('a',))
    """
    blocks: list[list[str]] = []
    seen: set[str] = set()
    front = set(sources)
    while front:
        seen |= front
        level: list[list[str]] = []
        for name in tree.natural_order(front):
            for block in level:
                if not any(_touch(feeders, name, other) for other in block):
                    block.append(name)
                    break
            else:
                level.append([name])
        blocks += level
        front = {name for name in feeders if feeders[name] & front} - seen
    return tuple(map(tuple, blocks))


def reached(feeders: Feeders, sources: Iterable[str]) -> list[str]:
    """Returns the names of the layers that a nudge reaches, in natural order."""
    blocks = outward(feeders, sources)
    return tree.natural_order(name for block in blocks for name in block)


def _touch(feeders: Feeders, a: str, b: str) -> bool:
    return a in feeders[b] or b in feeders[a]


def _dependencies(fn: Callable, *args: Any) -> list[frozenset[int]]:
    """Returns the numbers of the leaves that each leaf of the result depends on."""
    closed = jax.make_jaxpr(fn)(*args)
    leaves = [frozenset([index]) for index in range(len(closed.jaxpr.invars))]
    return _through(closed.jaxpr, leaves)


def _through(jaxpr: Any, inputs: list[frozenset[int]]) -> list[frozenset[int]]:
    """Returns what the outputs of a program depend on, given that of its inputs."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(var: Any) -> frozenset[int]:
        return frozenset() if isinstance(var, Literal) else known.get(var, frozenset())

    for equation in jaxpr.eqns:
        args = [of(var) for var in equation.invars]
        inner = [
            getattr(value, 'jaxpr', value)
            for value in equation.params.values()
            if hasattr(getattr(value, 'jaxpr', value), 'eqns')
        ]
        plain = len(inner) == 1 and equation.primitive.name not in ('while', 'scan')
        if plain and len(inner[0].invars) == len(args):
            results = _through(inner[0], args)
        else:
            results = [frozenset().union(*args)] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
    return [of(var) for var in jaxpr.outvars]
