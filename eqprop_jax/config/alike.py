"""Which runs one program can take: they differ in some numbers alone."""

import json
from collections.abc import Mapping
from typing import Any

# Of these, none of the runs of a program, or all of them, have 0.
SWITCHES = ('optimizer.weight_decay', 'homeostasis.weight')
SCALARS = ('seed', 'optimizer.learning_rate', *SWITCHES)


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
