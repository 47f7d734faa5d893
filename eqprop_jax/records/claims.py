"""A workdir is claimed for a run: it holds none, or the same one."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from eqprop_jax import _disk as disk
from eqprop_jax.records import files
from eqprop_jax.records.files import Folder, WorkdirError
from eqprop_jax.records.run import BIAS
from eqprop_jax.records.writer import CONFIG, METRICS, SUMMARY

RESTS_ON = 'rests_on'  # a key of config.json, beside those of the configuration
OUTPUTS = (METRICS, SUMMARY, BIAS, 'checkpoint', 'tensorboard', 'curves.png')
"""What runs leave in a workdir, beside config.json."""


def claim(
    workdir: Folder,
    config: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    rests_on: Mapping[str, Any] | None = None,
    anew: bool = False,
    write: bool = True,
) -> None:
    """Writes config.json into a workdir, which is made if need be.

    A workdir that already holds a run of the same configuration may be claimed again:
    the run is a function of its configuration, and goes on from its checkpoint. On how
    many devices it runs (`mesh`) may change, and where parts are registered
    (`plugins`).

    Args:
      workdir: the folder.
      config: plain values, as JSON has them.
      defaults: what keys stand for that are missing in one of the configurations, by
        dotted name.
      rests_on: what else the numbers of the run are a function of, by name. A run that
        noted other values is refused; of what it did not note nothing is known.
      anew: whether the run is to begin anew, on whatever it rests now.
      write: if False look whether it may be claimed, and leave it as it is.

    Raises:
      WorkdirError: if the folder holds the run of another configuration, or one that
        rests on other things, or what runs leave but no readable configuration, or
        cannot be written, or if its name is one that checkpoints cannot be read from.
    """
    folder, advice = files.folder_of_run(workdir), ': choose another --workdir'
    path = folder / CONFIG
    with files.writing(folder, advice):
        if path.exists():
            _check_same(folder, config, defaults or {}, {} if anew else rests_on or {})
        elif there := [name for name in OUTPUTS if (folder / name).exists()]:
            raise WorkdirError(
                f'{folder} holds {there[0]} but no {CONFIG}, so it is not the '
                'folder of a run: choose another --workdir'
            )
    if write:
        noted = {RESTS_ON: rests_on} if rests_on else {}
        files.write_json(path, {**config, **noted}, advice)


def changed(workdir: Folder, rests_on: Mapping[str, Any]) -> list[str]:
    """Returns, in words, what the run in a workdir rests on that is other here.

    Args:
      workdir: of a run.
      rests_on: as in `claim`.

    Raises:
      WorkdirError: as `read_config`.
    """
    return _changes(_read_config(workdir).get(RESTS_ON), rests_on)


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Returns in words how two configurations differ, but for where they run.

    Args:
      there: plain values, as JSON has them.
      here: likewise.
      defaults: as in `claim`.
    """
    one, other = (
        files.flat({**each, 'mesh': None, 'plugins': None}) for each in (there, here)
    )
    known = files.flat(defaults)
    return files.differences(known | one, known | other)


def read_config(workdir: Folder) -> dict[str, Any]:
    """Returns the configuration of the run in a workdir.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    found = _read_config(workdir)
    found.pop(RESTS_ON, None)
    return found


def _read_config(workdir: Folder) -> dict[str, Any]:
    """Returns the configuration of a run, and what it rests on."""
    missing = f'{workdir} is not the workdir of a run: it has no {CONFIG}'
    return files.read_json(files.folder(workdir) / CONFIG, missing)


def _check_same(
    folder: epath.Path,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    rests_on: Mapping[str, Any],
) -> None:
    """Raises WorkdirError, naming some of what differs, if it holds another run."""
    advice = 'choose another --workdir, or delete that one'
    try:
        found = files.parse(disk.read(folder / CONFIG))
    except ValueError as error:
        message = f'{folder / CONFIG} is damaged ({error}): {advice}'
        raise WorkdirError(message) from error
    changes = _changes(found.pop(RESTS_ON, None), rests_on)
    if differing := differences(found, config, defaults):
        named = disk.first_three(differing)
        raise WorkdirError(
            f'{folder} holds a run with another config ({named}): {advice}'
        )
    if changes:
        named = disk.first_three(changes)
        raise WorkdirError(
            f'{folder} holds a run that rests on something else ({named}): bring that '
            f'back, {advice}'
        )


def _changes(noted: Any, rests_on: Mapping[str, Any]) -> list[str]:
    """Returns in words what is other than what was noted, if anything was."""
    there = noted if isinstance(noted, dict) else {}
    here = files.flat(rests_on)
    return files.differences(there, {key: here.get(key, there[key]) for key in there})
