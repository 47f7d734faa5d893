"""Who feeds whom: which layers a function of the rates depends on.

That is read off the operations of the traced function, so it holds for any system, and
for the transpose of its Jacobian. An operation that takes part of its input alone (a
slice of all layers in one vector) is counted as taking the whole: what is said to be
independent is.
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

    Of the rates, {layer: [B, ...]}, only shapes and types are used.
    """
    found = _dependencies(drive, rates)
    return dict(zip(sorted(rates), found, strict=True))


def readers(cost: Callable[[dict], Any], rates: dict) -> frozenset[str]:
    """Returns the layers that a cost depends on, where a nudge enters."""
    (found,) = _dependencies(cost, rates)
    return found


def outward(feeders: Feeders, sources: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Returns the layers that a nudge reaches, as blocks in the order it reaches them.

    Layers at one distance from the sources, where it enters, stand in one block if none
    of them feeds another. Layers that nothing reaches are left out.

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
                if not any(
                    name in feeders[other] or other in feeders[name] for other in block
                ):
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


def _dependencies(fn: Callable, rates: dict) -> list[frozenset[str]]:
    """Returns the layers that each leaf of the result depends on."""
    jaxpr = jax.make_jaxpr(fn)(rates).jaxpr
    leaves = sorted(rates)  # as JAX orders those of a dict
    return _through(jaxpr, [frozenset([name]) for name in leaves])


def _through(jaxpr: Any, inputs: list[frozenset[str]]) -> list[frozenset[str]]:
    """Returns what the outputs of a program depend on, given that of its inputs."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(var: Any) -> frozenset[str]:
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
