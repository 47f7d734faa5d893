"""What a dry run prints is what the sweep trains, for every row that is shipped."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.whole

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = r"""
import importlib, json, pathlib, runpy, shlex, sys
from absl import flags

sys.path[:0] = ['.', 'launch']
train = runpy.run_path('launch/train.py', run_name='train')
wrong, count = [], 0
for path in sorted(pathlib.Path('configs').glob('*.py')):
    module = importlib.import_module(f'configs.{path.stem}')
    if not hasattr(module, 'sweep'):
        continue
    for variant in getattr(module, 'VARIANTS', {'': None}):
        rows = []
        module.sweep(lambda name, changes: rows.append((name, changes)))
        for name, changes in rows:
            make = (variant,) if variant else ()
            values = module.get_config(*make).to_dict()
            try:
                for key, value in changes.items():
                    *sections, last = key.split('.')
                    section = values
                    for part in sections:
                        section = section[part]
                    section[last] = value
            except KeyError:
                continue  # a row of another variant, which the sweep refuses
            config = f'{path}:{variant}' if variant else str(path)
            options = [f'--config.{key}={value}' for key, value in changes.items()]
            for flag in [f for f in flags.FLAGS if f.startswith('config.')]:
                delattr(flags.FLAGS, flag)
            flags.FLAGS.unparse_flags()
            argv = ['train', f'--config={config}', '--workdir=w', *options]
            sys.argv = argv  # where overrides are looked for
            try:
                train['_parse'](argv)
                found = train['CONFIG'].value.to_dict()
            except SystemExit as error:
                found = str(error)
            dumps = lambda v: json.dumps(v, sort_keys=True, default=str)
            count += 1
            if dumps(found) != dumps(values):
                wrong.append((config, name))
print(json.dumps([count, wrong]))
"""


def test_every_row():
    result = subprocess.run(
        [sys.executable, '-c', SCRIPT], cwd=ROOT, capture_output=True, text=True
    )
    count, wrong = json.loads(result.stdout.splitlines()[-1])
    assert count >= 99
    assert not wrong, result.stderr[-2000:]
