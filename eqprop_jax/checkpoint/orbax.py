"""Orbax, imported when it is needed, because that takes a while."""

import logging
from typing import Any


def load() -> Any:
    """Returns its module; what goes wrong in it is raised, and not logged as well.

    Its threads log the traceback of an error once each, and asyncio once more for each
    task, hundreds of lines for one full disk.
    """
    from orbax.checkpoint import v1

    for name in ('absl', 'asyncio'):
        logging.getLogger(name).addFilter(_is_of_others)
    return v1


def _is_of_others(record: logging.LogRecord) -> bool:
    if record.name == 'asyncio':
        return not any(word in record.getMessage() for word in ('/orbax/', 'OCDBT'))
    return '/orbax/checkpoint/' not in record.pathname
