"""What devices send each other, read from a compiled program.

With n devices on a ring each sends, and receives as much, in

    all-reduce            2 (n − 1)/n · size
    reduce-scatter          (n − 1)/n · size
    all-gather              (n − 1)/n · size
    all-to-all              (n − 1)/n · size
    collective-permute                  size

where size is the whole array's on a device: of a reduce-scatter what it is given, of an
all-gather what it returns. Arrays of one message are taken together.

A message counts as often as it is written in the program. What stands in the body of a
loop counts once: of `training.programs.make_train_chunk`, which loops over steps, the
sum is that of one step, as long as nothing is sent in the relaxations, loops within
that one (`Collective.loops`). Of a conditional all branches count. A CPU, an
accelerator and two versions of XLA may divide the same sums differently into messages.

References:
  https://openxla.org/xla/operation_semantics
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import jax

COSTS = {  # in (n − 1)/n of the size
    'all-reduce': 2.0,
    'reduce-scatter': 1.0,
    'all-gather': 1.0,
    'all-to-all': 1.0,
}
PERMUTE = 'collective-permute'
REFUSED = ('collective-broadcast', 'ragged-all-to-all', 'send', 'recv')

_HEADER = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')
_LINE = re.compile(r'\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([\w-]+)\(')
_ATTRIBUTE = re.compile(r'(\w+)=(?:\{([^{}]*)\}|%?([\w.-]+))')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,<= ]*)\]')


class Collective(NamedTuple):
    """A message of a compiled program."""

    kind: str
    """What XLA calls it, without -start."""
    devices: int
    """n, of the largest group that exchanges it."""
    size: float
    """Bytes of the whole array, or arrays."""
    loops: int
    """How many loops it stands in."""

    @property
    def sent(self) -> float:
        """Bytes that a device sends, and receives."""
        if self.devices < 2:
            return 0.0
        if self.kind == PERMUTE:
            return self.size
        return COSTS[self.kind] * (self.devices - 1) / self.devices * self.size


def collectives(program: jax.stages.Compiled) -> list[Collective]:
    """Returns the messages between the devices of a program, in no order.

    Args:
      program: `jax.jit(fn).lower(*args).compile()`.

    Raises:
      ValueError: as `read`, or if the backend does not show its program.
    """
    text = program.as_text()
    if text is None:
        raise ValueError('this backend does not show its compiled programs')
    return read(text)


def read(text: str) -> list[Collective]:
    """Returns the messages of a program in XLA's text of it.

    Args:
      text: an HLO module.

    Raises:
      ValueError: for a message whose cost or whose devices are not known here.
    """
    computations, entry = _computations(text)
    total = 1
    for name in ('replica_count', 'num_partitions'):
        said = re.search(rf'\b{name}=(\d+)', text.partition('\n')[0])
        total *= int(said[1]) if said else 1
    return [
        found
        for name, loops in _loops(computations, entry).items()
        for line in computations[name]
        for found in _message(line, total, loops)
    ]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of every computation, and the name of the first to run."""
    found: dict[str, list[str]] = {}
    name = entry = ''
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif name and line[:1].isspace():
            found[name].append(line)
    if not entry:
        raise ValueError('this is no HLO module: it has no ENTRY')
    return found, entry


def _loops(computations: dict[str, list[str]], entry: str) -> dict[str, int]:
    """Returns in how many loops each computation stands that is called."""
    found: dict[str, int] = {}
    waiting = [(entry, 0)]
    while waiting:
        name, loops = waiting.pop()
        if found.get(name, -1) >= loops:
            continue
        found[name] = loops
        for line in computations[name]:
            for key, several, one in _ATTRIBUTE.findall(line):
                inside = loops + (key in ('body', 'condition'))
                called = (part.strip(' %') for part in (several or one).split(','))
                waiting += [(c, inside) for c in called if c in computations]
    return found


def _message(line: str, total: int, loops: int) -> Iterator[Collective]:
    """Yields the message that an instruction begins, if it does.

    Args:
      line: the instruction.
      total: devices of the program.
      loops: that it stands in.
    """
    instruction = _LINE.match(line)
    if not instruction:
        return
    result, code = instruction.groups()
    kind = code.removesuffix('-start')
    if kind in REFUSED and 'is_host_transfer=true' not in line:
        raise ValueError(f'{kind}: what it costs is not known here')
    if kind == PERMUTE:
        pairs = re.search(r'source_target_pairs=\{([\d,{} ]*)\}', line)
        devices = _moved(pairs[1] if pairs else '')
    elif kind in COSTS:
        devices = _group(line, total)
    else:
        return
    parts = _parts(result)
    if code != kind and kind != 'all-reduce':  # (operands, results, ...)
        parts = parts[1:2]
    size = sum(map(_bytes, parts))
    if kind == 'reduce-scatter':
        size *= devices
    yield Collective(kind, devices, size, loops)


def _moved(pairs: str) -> int:
    """Returns how many devices send to another one or receive from it."""
    found = re.findall(r'\{(\d+),\s*(\d+)\}', pairs)
    return len({device for pair in found if pair[0] != pair[1] for device in pair})


def _group(line: str, total: int) -> int:
    """Returns the size of the largest of the replica groups."""
    iota = re.search(r'replica_groups=\[\d+,(\d+)\]<=\[', line)
    if iota:
        return int(iota[1])
    listed = re.search(r'replica_groups=\{((?:\{[\d, ]*\},?\s*)*)\}', line)
    if not listed:
        raise ValueError(f'cannot read which devices take part in {line.strip()[:200]}')
    groups = re.findall(r'\{([\d, ]+)\}', listed[1])
    return max((group.count(',') + 1 for group in groups), default=total)


def _parts(shape: str) -> list[str]:
    """Returns the parts of a tuple's shape, or the shape of an array, bare."""
    bare = re.sub(r'\{[^{}]*\}|/\*.*?\*/', '', shape).strip()
    if not bare.startswith('('):
        return [bare]
    parts, depth = [''], 0
    for character in bare[1:-1]:
        depth += (character in '([') - (character in ')]')
        if character == ',' and not depth:
            parts.append('')
        else:
            parts[-1] += character
    return parts


def _bytes(shape: str) -> float:
    """Returns the bytes of an array or of all arrays of a tuple."""
    total = 0.0
    for kind, lengths in _ARRAY.findall(shape):
        said = re.match(r'[a-z]+(\d+)', kind)
        bits = int(said[1]) if said else 8 if kind == 'pred' else 0
        for length in filter(None, lengths.split(',')):
            bits *= int(length.strip(' <='))
        total += bits / 8
    return total
