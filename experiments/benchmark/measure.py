"""Times of methods beside each other, and what does not depend on the clock."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from eqprop_jax import tree
from eqprop_jax.analysis import layers
from eqprop_jax.solvers import _judge as judge
from eqprop_jax.solvers._settle import compact_here, sizes
from eqprop_jax.types import Batch, Params, Rates
from experiments import flops
from experiments.benchmark.methods import Method, Work
from experiments.benchmark.networks import Network
from experiments.benchmark.references import Exact, exact


class Measurement(NamedTuple):
    """What was measured of a method."""

    seconds: list[float]
    """Of a step, in each round that it took part in; the first ones."""
    compile_seconds: float
    field_evaluations: float
    """Of the drive, per example and step; a complex one counts as two."""
    flops: float
    """Of a step's products, by `flops.count`."""
    peak_memory_mib: float
    """Of the program, its arguments and results included, but for δ."""
    cosine: float | None
    """Of the gradients to the exact ones, mean over batches; None of other networks."""
    settled: float | None
    """Fraction of the examples whose phases all did, each to its own tolerance."""
    worst_layer: str | None
    """Where δ is furthest off; None of methods without δ."""
    worst_layer_error: float | None
    """|δ̂ − δ| / |δ| there, of all examples whose δ is known, and has been found."""


def measure(
    network: Network,
    methods: Mapping[str, Method],
    *,
    rounds: int = 5,
    patience: float = 20.0,
    report: Callable[[str], None] = lambda text: None,
    trace: str | None = None,
) -> dict[str, Measurement]:
    """Compiles and runs every method, then times all of them in turn.

    Rounds go through all methods, so that what disturbs the machine for a while
    disturbs neighbours alike, and ratios are to be taken within a round.

    Args:
      network: on which.
      methods: by name.
      rounds: how often each is timed, at most.
      patience: seconds after which a method has been timed often enough.
      report: is told what is being done.
      trace: folder that a profile of one more round is written to.
    """
    report('the exact gradient')
    reference = jax.jit(over_batches(exact(network)))(network.params, network.batches)
    programs, found = {}, {}
    for name, method in methods.items():
        report(name)
        params = network.params
        if method.plain:
            params = network.plain.init(jax.random.key(0), network.batches.x[0, :1])
        run, data = over_batches(method.step), (params, network.batches)
        if method.devices > 1:
            run, data = divided(method, *data)
        begin = time.perf_counter()
        program = jax.jit(run).lower(*data).compile()
        compile_seconds = time.perf_counter() - begin
        work = jax.block_until_ready(program(*data))
        cosines = None
        if work.grads and not method.plain:
            cosines = jax.vmap(tree.cosine)(jax.device_get(work.grads), reference.grads)
        settled = None
        if work.info is not None and work.grads:  # the free phase's are among them
            settled = float(jnp.mean(work.info.converged))
        elif work.free is not None:
            settled = float(jnp.mean(work.free.converged))
        layer, error = None, None
        if work.error is not None:
            known = jax.device_get(reference.solved & usable(work))
            layer, error = worst_layer(
                jax.device_get(work.error), reference._replace(solved=known)
            )
        programs[name] = (program, data)
        found[name] = Measurement(
            seconds=[],
            compile_seconds=compile_seconds,
            field_evaluations=sum(evaluations(method, work)),
            flops=operations(network, method, params, work),
            peak_memory_mib=memory(program) - size(work.error),
            cosine=None if cosines is None else float(jnp.mean(cosines)),
            settled=settled,
            worst_layer=layer,
            worst_layer_error=error,
        )
    for number in range(rounds):
        report(f'round {number + 1} of {rounds}')
        for name, (program, data) in programs.items():
            if sum(found[name].seconds) * len(network.batches.x) > patience:
                continue
            begin = time.perf_counter()
            jax.block_until_ready(program(*data))
            elapsed = time.perf_counter() - begin
            found[name].seconds.append(elapsed / len(network.batches.x))
    if trace:
        report('a profile')
        with jax.profiler.trace(trace):
            for name, (program, data) in programs.items():
                with jax.profiler.TraceAnnotation(name):
                    jax.block_until_ready(program(*data))
    return found


def usable(work: Work) -> Array:
    """Returns whose δ is compared: that of settled responses, [K, B]."""
    info, free = work.info, work.free
    if info is None or free is None:
        return jnp.ones(jax.tree.leaves(work.error)[0].shape[:2], bool)
    found = jnp.all(judge.usable(info.residual), axis=1)
    found &= judge.usable(free.residual)
    return found | (info.skipped == 0)[:, None]  # some methods leave nothing out


def worst_layer(error: Rates, exact: Exact) -> tuple[str, float]:
    """Returns the layer where δ is furthest off, and its relative error there.

    Args:
      error: δ̂ of several batches, leaves [K, B, ...].
      exact: the same of recurrent backprop; examples that it has not solved are left
        out.
    """

    def known(leaf: Array) -> Array:
        return leaf[exact.solved]

    both = (jax.tree.map(known, one) for one in (error, exact.error))
    errors = {name: float(value) for name, value in layers.errors(*both).items()}
    name = layers.worst(errors)
    return name, errors[name]


def evaluations(method: Method, work: Work) -> tuple[float, float]:
    """Returns evaluations of the drive in the free phase, and in the others.

    Per example and step: rows that were swept over rows of a batch, a complex one for
    two, and the one by which plain nudged phases are anchored.

    Args:
      method: whose work it is.
      work: of several batches, leaves [K, ...].
    """

    def swept(num_steps: np.ndarray) -> float:
        batch_size = len(num_steps) // method.devices
        shares = num_steps.reshape(method.devices, batch_size)
        stages = sizes(batch_size) if method.compacts and compact_here(None) else []
        return sum(flops.rows(one, stages) for one in shares) / len(num_steps)

    free, others = 0.0, float(method.anchored)
    if work.free is not None:
        free = float(np.mean([swept(one) for one in np.asarray(work.free.num_steps)]))
    if work.info is not None:
        batches = np.asarray(work.info.num_steps)
        others += sum(
            cost * float(np.mean([swept(one) for one in batches[:, index]]))
            for index, cost in enumerate(method.phases)
        )
    return free, others


def operations(network: Network, method: Method, params: Params, work: Work) -> float:
    """Returns the floating-point operations of a step's products, for a batch."""
    system, batch = network.system, jax.tree.map(lambda a: a[0], network.batches)
    total = float(sum(flops.count(part, params, batch) for part in method.parts))
    if work.free is None and work.info is None:
        return total
    free, others = evaluations(method, work)
    injection = system.inject(params, batch.x)
    rates = system.rates(system.rest(injection))
    drive = flops.count(system.drive, params, injection, rates)
    return total + drive * (free + (0 if method.traced else others))


def ceiling(size: int = 2048, repeats: int = 5) -> float:
    """Returns the operations a second of a large float32 product, the best of some.

    Args:
      size: of the square matrices.
      repeats: how many products are timed.
    """
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision='highest'))
    jax.block_until_ready(product(a))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def over_batches(
    step: Callable[[Params, Batch, jax.Array], Any],
) -> Callable[[Params, Batch], Any]:
    """Returns the step done for every batch, as training does it, in one program."""

    def run(params: Params, batches: Batch) -> Any:
        keys = jax.random.split(jax.random.key(0), len(batches.x))
        if len(keys) > 1:
            return jax.lax.map(lambda each: step(params, *each), (batches, keys))
        one = step(params, jax.tree.map(lambda a: a[0], batches), keys[0])
        return jax.tree.map(lambda a: a[None], one)

    return run


def divided(
    method: Method, params: Params, batches: Batch
) -> tuple[Callable[[Params, Batch], Work], tuple[Params, Batch]]:
    """Returns the method on several devices, each with its part of every batch.

    Args:
      method: whose `devices` divide the batches.
      params: go to all of them.
      batches: leaves [K, B, ...].

    Returns:
      What runs them, and its arguments laid out: (run, (params, batches)).
    """
    mesh = jax.make_mesh((method.devices,), ('data',))
    whole, parts = PartitionSpec(), PartitionSpec(None, 'data')
    key = jax.random.key(0)
    work = jax.eval_shape(
        method.step, params, jax.tree.map(lambda a: a[0], batches), key
    )
    layouts = (whole, parts, PartitionSpec(None, None, 'data'))  # by number of axes
    layout = Work(
        grads=jax.tree.map(lambda _: whole, work.grads),
        free=jax.tree.map(lambda _: parts, work.free),
        info=jax.tree.map(lambda leaf: layouts[leaf.ndim], work.info),
        error=jax.tree.map(lambda _: parts, work.error),
    )

    def step(params: Params, batch: Batch, rng: jax.Array) -> Work:
        work = method.step(params, batch, rng)
        info = work.info
        if info is not None:
            converged, skipped = jax.lax.pmean((info.converged, info.skipped), 'data')
            info = info._replace(converged=converged, skipped=skipped)
        return work._replace(grads=jax.lax.pmean(work.grads, 'data'), info=info)

    run = jax.shard_map(
        over_batches(step),
        mesh=mesh,
        in_specs=(whole, parts),
        out_specs=layout,
        check_vma=False,
    )
    params, batches = (
        jax.device_put(data, NamedSharding(mesh, spec))
        for data, spec in ((params, whole), (batches, parts))
    )
    return run, (params, batches)


def size(tree: Any) -> float:
    """Returns the MiB of some arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / 2**20


def memory(program: Any) -> float:
    """Returns the MiB that a compiled program takes."""
    said = program.memory_analysis()
    sizes = (
        said.temp_size_in_bytes,
        said.argument_size_in_bytes,
        said.output_size_in_bytes,
    )
    return sum(sizes) / 2**20
