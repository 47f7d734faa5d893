"""A drive as a program: traced once, and then evaluated in parts.

A solver asks for the drive of one block of layers at a time, in a loop in which nothing
but the rates changes. `of` traces the drive at the rates it is given, and evaluates at
once, outside of the loop, whatever does not depend on them: kernels that are turned
around or rounded, the part of the input. What is asked for afterwards takes the rest
alone, of that only what the layers asked for need, and none of the Python that wrote
it.

    program = of(drive, rates)
    program(rates)                       all of the drive
    program(rates, ('layer_2',))         {'layer_2': ...}
    value, program = around(drive, rates)

`around` says what a nudge changes. Every product with weights (`eqprop_jax._products`)
is taken of the change of its factor,

    s W = s₀ W + (s − s₀) W

so that hardware that rounds factors rounds relative to the response, however small the
nudge, and not relative to the rates.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Literal
from jax.tree_util import Partial

from eqprop_jax import _products as products
from eqprop_jax.types import Rates, State

PRODUCTS = (products.multiply_p, products.convolve_p)
INLINED = ('jit', 'pjit', 'closed_call')
Drive = Callable[[Rates], State]


class Slot(NamedTuple):
    """A value that depends on the rates."""

    number: int


class Step(NamedTuple):
    """An operation on values of which some depend on the rates."""

    equation: Any
    args: tuple[Any, ...]
    """Slots, and values that are known."""
    outs: tuple[Slot, ...]


@jax.tree_util.register_pytree_node_class
class Program:
    """A drive, traced. Build one by `of`.

    To JAX it is a pytree of its drive alone, and with other leaves becomes a drive
    again: that of some examples of the batch (`types.Field`) is traced anew.
    """

    def __init__(self, drive: Drive, rates: Rates) -> None:
        self.drive = drive
        self.again = drive  # what it becomes once its leaves are others
        leaves, self._given = jax.tree.flatten(rates)
        self._types = [jax.typeof(leaf) for leaf in leaves]
        closed, shapes = jax.make_jaxpr(drive, return_shape=True)(rates)
        self._returned = jax.tree.structure(shapes)
        self._names = sorted(shapes) if isinstance(shapes, dict) else []
        self._slots = [Slot(number) for number in range(len(leaves))]
        self._size = len(leaves)
        self._steps: list[Step] = []
        self._outs = self._trace(closed.jaxpr, closed.consts, self._slots)
        self._needed: dict[tuple[int, ...], list[Step]] = {}
        self._base: dict[tuple[Slot, ...], tuple[Any, Any]] = {}

    def __call__(self, rates: Rates, names: Sequence[str] | None = None) -> State:
        """Returns the drive of all layers, or of those named, as a dict of them.

        Rates of other shapes than those it was traced at are given to the drive itself.
        """
        leaves, given = jax.tree.flatten(rates)
        if given != self._given or any(
            (leaf.shape, leaf.dtype) != (known.shape, known.dtype)
            for leaf, known in zip(leaves, self._types, strict=True)
        ):
            state = self.drive(rates)
            return state if names is None else {name: state[name] for name in names}
        if names is None:
            out = self._evaluate(leaves, range(len(self._outs)))
            return jax.tree.unflatten(self._returned, out)
        numbers = [self._names.index(name) for name in names]
        return dict(zip(names, self._evaluate(leaves, numbers), strict=True))

    def tree_flatten(self) -> tuple[tuple[Drive], None]:
        """As JAX takes a pytree apart."""
        return (self.again,), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple[Drive]) -> Drive:
        """As JAX puts one together."""
        del cls, aux
        return children[0]

    def anchor(self, rates: Rates) -> State:
        """Returns the drive; products are of the change from these rates afterwards."""
        self._base = {}
        known = dict(zip(self._slots, jax.tree.leaves(rates), strict=True))
        for step in self._steps:
            args = [self._value(known, arg) for arg in step.args]
            outs = _bind(step.equation, args)
            known.update(zip(step.outs, outs, strict=True))
            if _is_linear(step):
                self._base[step.outs] = args[0], outs[0]
        out = [self._value(known, arg) for arg in self._outs]
        return jax.tree.unflatten(self._returned, out)

    def _evaluate(self, leaves: list, numbers: Sequence[int]) -> list:
        known = dict(zip(self._slots, leaves, strict=True))
        for step in self._needs(tuple(numbers)):
            args = [self._value(known, arg) for arg in step.args]
            if step.outs in self._base:
                start, product = self._base[step.outs]
                outs = _bind(step.equation, [args[0] - start, args[1]])
                outs = [product + outs[0]]
            else:
                outs = _bind(step.equation, args)
            known.update(zip(step.outs, outs, strict=True))
        return [self._value(known, self._outs[number]) for number in numbers]

    def _needs(self, numbers: tuple[int, ...]) -> list[Step]:
        """Returns the steps that results depend on, or that do something else."""
        if numbers not in self._needed:
            wanted = {
                self._outs[number] for number in numbers if _moves(self._outs[number])
            }
            steps = []
            for step in reversed(self._steps):
                if step.equation.effects or not wanted.isdisjoint(step.outs):
                    wanted.update(filter(_moves, step.args))
                    steps.append(step)
            self._needed[numbers] = steps[::-1]
        return self._needed[numbers]

    def _trace(self, jaxpr: Any, consts: Sequence, args: Sequence) -> list:
        """Evaluates what is known, and notes the rest; returns values and slots."""
        known = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, args, strict=True))

        def of(var: Any) -> Any:
            return var.val if isinstance(var, Literal) else known[var]

        for equation in jaxpr.eqns:
            args = [of(var) for var in equation.invars]
            if not (any(map(_moves, args)) or equation.effects):
                outs = _bind(equation, args)
            elif equation.primitive.name in INLINED:
                inner: ClosedJaxpr = next(
                    value
                    for value in equation.params.values()
                    if isinstance(value, ClosedJaxpr)
                )
                outs = self._trace(inner.jaxpr, inner.consts, args)
            else:
                outs = [
                    Slot(self._size + index) for index in range(len(equation.outvars))
                ]
                self._size += len(outs)
                self._steps.append(Step(equation, tuple(args), tuple(outs)))
            known.update(zip(equation.outvars, outs, strict=True))
        return [of(var) for var in jaxpr.outvars]

    @staticmethod
    def _value(known: dict, arg: Any) -> Any:
        return known[arg] if _moves(arg) else arg


def of(drive: Drive, rates: Rates) -> Program:
    """Returns a drive as a program; of the rates only shapes and types are used."""
    return Program(drive, rates)


def around(drive: Drive, rates: Rates) -> tuple[State, Program]:
    """Returns D(s₀), and D as a program whose products are of s − s₀."""

    def anew(drive: Drive, start: Rates, rates: Rates) -> State:
        return around(drive, start)[1](rates)

    program = Program(drive, rates)
    value = program.anchor(rates)
    program.again = Partial(anew, drive, rates)
    return value, program


def _moves(arg: Any) -> bool:
    return isinstance(arg, Slot)


def _is_linear(step: Step) -> bool:
    """Whether it is a product of what changes with weights that do not."""
    return step.equation.primitive in PRODUCTS and not _moves(step.args[1])


def _bind(equation: Any, args: list) -> list:
    primitive = equation.primitive
    bound = primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # by version
    with equation.ctx.manager:
        out = primitive.bind(*functions, *args, **params)
    return list(out) if primitive.multiple_results else [out]
