"""Which runs one program can take: they differ in some numbers alone."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Run = TypeVar('Run')

# Of these, none of the runs of a program, or all of them, have 0.
SWITCHES = ('optimizer.weight_decay', 'homeostasis.weight')
SCALARS = ('seed', 'optimizer.learning_rate', *SWITCHES)


def grouped(
    runs: Iterable[Run], values_of: Callable[[Run], Mapping[str, Any]]
) -> list[list[Run]]:
    """Returns the runs of each program, in the order of their first ones.

    Args:
      runs: of any kind.
      values_of: a run ↦ its configuration as plain values.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(program(values_of(run)), []).append(run)
    return list(groups.values())


def program(values: Mapping[str, Any]) -> str:
    """Returns what is equal for configurations that one program can take.

    Args:
      values: a configuration as plain values.
    """
    found = json.loads(json.dumps(values, default=str))
    for key in SCALARS:
        *sections, last = key.split('.')
        section = found
        for name in sections:
            section = section[name]
        if last in section:
            section[last] = bool(section[last]) if key in SWITCHES else None
    return json.dumps(found, sort_keys=True)
