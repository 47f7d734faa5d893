"""Complex-safe arithmetic on pytrees of layers, beyond `optax.tree`.

Those of optax that are used here keep their names: sums, differences and products leaf
by leaf, real parts, zeros; `vdot`, Σ conj(a) b, and `norm`, √Σ|a|². Functions with
`per_example` in their name treat the leading axis of every leaf as the batch and reduce
over everything else, across all leaves.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int
from optax.tree import add as add
from optax.tree import mul as mul
from optax.tree import norm as norm
from optax.tree import real as real
from optax.tree import sub as sub
from optax.tree import vdot as vdot
from optax.tree import zeros_like as zeros_like

Tree = Any


def scale(factor: Any, a: Tree) -> Tree:
    """Returns factor · a for a scalar factor, keeping each leaf's precision."""
    return on_floats(lambda leaf: jnp.asarray(factor, leaf.dtype) * leaf, a)


def imag(a: Tree) -> Tree:
    """Returns the imaginary part of every leaf (zeros for real leaves)."""
    return jax.tree.map(jnp.imag, a)


def combine(re: Tree, im: Tree) -> Tree:
    """Returns re + i im, in the complex type of the parts' precision."""
    return jax.tree.map(jax.lax.complex, re, im)


def is_traced(value: Any) -> bool:
    """Whether JAX traces a number, so that its value is not known."""
    return isinstance(value, Tracer)


def is_complex(a: Tree) -> bool:
    """Whether any leaf is complex."""
    return any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(a))


def to_complex(a: Tree) -> Tree:
    """Returns a with zero imaginary part, in the precision of each leaf."""
    return combine(a, jax.tree.map(jnp.zeros_like, a))


def random_normal(rng: jax.Array, like: Tree) -> Tree:
    """Returns independent standard normal draws with the shapes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(rng, len(leaves))
    draws = [
        jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, draws)


def per_example_normal(rng: jax.Array, like: Tree, numbers: Int[Array, ' B']) -> Tree:
    """Returns standard normal draws with the shapes of `like`, [B, ...].

    Those of an example depend on the key and its number: it gets the same ones in
    whatever part of a batch it stands.
    """
    one = jax.tree.map(lambda leaf: leaf[0], like)
    return per_example_draw(lambda key: random_normal(key, one), rng, numbers)


def per_example_draw(
    draw: Callable[[jax.Array], Tree], rng: jax.Array, numbers: Int[Array, ' B']
) -> Tree:
    """Returns draw(key) of every example, [B, ...], with a key of its own number."""
    return jax.vmap(lambda number: draw(jax.random.fold_in(rng, number)))(numbers)


def cosine(a: Tree, b: Tree) -> Float[Array, '']:
    """Returns Re⟨a, b⟩ / (‖a‖ ‖b‖) over all leaves; NaN if either is zero."""
    return jnp.real(vdot(a, b)) / (norm(a) * norm(b))


def per_example_vdot(a: Tree, b: Tree) -> Array:
    """Returns Σ conj(a) b of every example, shape [B]."""
    products = jax.tree.map(
        lambda x, y: jnp.sum((jnp.conj(x) * y).reshape(x.shape[0], -1), axis=1), a, b
    )
    return functools.reduce(operator.add, jax.tree.leaves(products))


def per_example_norm(a: Tree) -> Float[Array, ' B']:
    """Returns the Euclidean norm of every example, shape [B]."""
    squares = jax.tree.map(
        lambda x: jnp.sum(_abs2(x).reshape(x.shape[0], -1), axis=1), a
    )
    return jnp.sqrt(functools.reduce(operator.add, jax.tree.leaves(squares)))


def select(mask: Bool[Array, ' B'], a: Tree, b: Tree) -> Tree:
    """Returns a where an example's mask is set and b elsewhere.

    A NaN on the side that is not taken does not pass.
    """
    return jax.tree.map(
        lambda x, y: jnp.where(mask.reshape((-1,) + (1,) * (x.ndim - 1)), x, y), a, b
    )


def fill(keep: Bool[Array, ' B'], a: Tree) -> Tree:
    """Returns a with the first example kept in the place of each that is not.

    A masked example may hold what a function is singular at (zeros of padding under
    x/|x|, NaN). This stands in for it where values and gradients are masked afterwards:
    0 · NaN is NaN. Where none is kept it is the first of all.
    """
    first = jnp.argmax(keep)
    return select(keep, a, jax.tree.map(lambda leaf: jnp.asarray(leaf)[first][None], a))


def mean_of(mask: Bool[Array, ' B'], values: Array) -> Float[Array, '']:
    """Returns the mean of values [..., B] over the examples of a mask; 0 of none."""
    total = jnp.sum(jnp.where(mask, values, 0))
    count = jnp.maximum(jnp.sum(mask), 1) * (values.size // mask.size)
    return total / count


def take(a: Tree, which: Int[Array, ' k']) -> Tree:
    """Returns these examples of every leaf, [k, ...] of [B, ...]."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[which], a)


def put(a: Tree, which: Int[Array, ' k'], b: Tree) -> Tree:
    """Returns a with these examples replaced by those of b: what `take` undoes."""
    return jax.tree.map(lambda x, y: jnp.asarray(x).at[which].set(y), a, b)


def stack_first(first: Tree, rest: Tree) -> Tree:
    """Returns the leaves of `rest` [T, ...] with those of `first` [...] put before."""
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, rest)


def names(a: Tree) -> list[str]:
    """Returns the name of every leaf, in their order: 'layer_1/bias'."""
    leaves, _ = jax.tree.flatten_with_path(a)
    return [
        jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in leaves
    ]


def natural_order(names: Iterable[str]) -> list[str]:
    """Returns the names sorted, numbers in them by value.

    Examples:
      >>> natural_order(['layer_10', 'layer_2'])
      ['layer_2', 'layer_10']
    """
    return sorted(
        names,
        key=lambda name: [
            (int(part), '') if part.isdigit() else (-1, part)
            for part in re.split(r'(\d+)', name)
        ],
    )


def get(a: Tree, path: Sequence[Any]) -> Any:
    """Returns the entry at `path` of nested dicts, sequences and named tuples."""
    return functools.reduce(_entry, path, a)


def replace(a: Tree, path: Sequence[Any], value: Any) -> Any:
    """Returns `a` with the entry at `path` replaced; a itself is left alone."""
    head, *rest = path
    value = replace(_entry(a, head), rest, value) if rest else value
    if isinstance(a, Mapping):
        return {**a, head: value}
    place = a._fields.index(head) if isinstance(head, str) else range(len(a))[head]
    entries = [value if i == place else entry for i, entry in enumerate(a)]
    return type(a)(*entries) if hasattr(a, '_fields') else type(a)(entries)


def _entry(a: Tree, key: Any) -> Any:
    named = isinstance(key, str) and not isinstance(a, Mapping)
    return getattr(a, key) if named else a[key]


def on_floats(fn: Callable[[Array], Array], gradients: Tree) -> Tree:
    """Returns fn of every leaf but those of type float0, as of integers in params."""
    return jax.tree.map(
        lambda g: g if g.dtype == jax.dtypes.float0 else fn(g), gradients
    )


def on_parts(fn: Callable[[Tree], Tree]) -> Callable[[Tree], Tree]:
    """Returns z ↦ fn(Re z) + i fn(Im z) for a real-linear fn; fn itself of real z.

    Both parts go in one call, by `vmap`: a product of few rows costs less for twice as
    many than two such products do.
    """

    def apply(z: Tree) -> Tree:
        if not is_complex(z):
            return fn(z)
        both = jax.vmap(fn)(jax.tree.map(lambda x: jnp.stack([x.real, x.imag]), z))
        return jax.tree.map(lambda x: jax.lax.complex(x[0], x[1]), both)

    return apply


def _abs2(x: Array) -> Array:
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x**2
