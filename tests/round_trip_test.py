"""What a dry run prints is what the sweep trains, for every row that is shipped."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.whole

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = r"""
import json, pathlib, runpy, shlex, sys
from absl import flags

sys.path.insert(0, '.')
from eqprop_jax.cli import train
from eqprop_jax.config import ConfigError, changes

wrong, count = [], 0
for path in sys.argv[1:]:
    module = runpy.run_path(path)
    if 'sweep' not in module:
        continue
    for variant in module.get('VARIANTS', {'': None}):
        make = (variant,) if variant else ()
        config = f'{path}:{variant}' if variant else path
        for name, row in changes.rows(module['sweep']).items():
            values = module['get_config'](*make).to_dict()
            try:
                wanted = changes.applied(values, row)
            except ConfigError:
                continue  # a row of another variant, which the sweep refuses
            line = shlex.join(changes.flags(values, row))
            for flag in [f for f in flags.FLAGS if f.startswith('config.')]:
                delattr(flags.FLAGS, flag)
            flags.FLAGS.unparse_flags()
            argv = ['train', f'--config={config}', '--workdir=w', *shlex.split(line)]
            sys.argv = argv  # where overrides are looked for
            try:
                train._parse(argv)
                found = train.CONFIG.value.to_dict()
            except SystemExit as error:
                found = str(error)
            dumps = lambda v: json.dumps(v, sort_keys=True, default=str)
            count += 1
            if dumps(found) != dumps(wanted) or '\n' in line:
                wrong.append((config, name))
print(json.dumps([count, wrong]))
"""
OWN = """
from eqprop_jax.config import defaults

VALUES = {
    'batch_size': (20, None),
    'optimizer.learning_rate': (1e-30, 0.1 + 0.2, 3e20, None),
    'optimizer.layers': ({}, {'layer_1': {'weight_decay': 0.1}}, None),
    'data.augment': ({'pad': 2, 'flip': True, 'padding': 'edge'},),
    'data.name': ("it's a set", 'None', 'True', '5', '', ' a', '(1, 2)', '-', None),
    'data.data_dir': ('/a b/c', 'a=b', '5', 'word', 'null', 'yes', 'inf', 'a\\nb'),
    'mesh.data': (2,),
    'system': ({'name': 'leaky', 'sizes': (64, 10)},),
    'system.sizes': ((64, 32, 10), (64,), (), None, 'word', 5, '5'),
    'system.new': (True, (1, 2), ('a', 'b c'), [1.5, None], 'a b', '1', 'x', {'a': 1}),
    'system.angle': (45, 45.5, None, 'x'),
    'estimator.half_step': (True, 'True', None),
    'section': ({'a': {'b': (1, 2)}},),
}


def get_config():
    return defaults.get_config()


def sweep(add):
    for key, values in VALUES.items():
        for number, value in enumerate(values):
            add(f'{key} {number}', {key: value})
"""


def trip(*paths):
    result = subprocess.run(
        [sys.executable, '-c', SCRIPT, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.stdout, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_every_row():
    configs = sorted((ROOT / 'configs').glob('*.py'))
    count, wrong = trip(*(path.relative_to(ROOT) for path in configs))
    assert count >= 99
    assert not wrong


def test_values_of_all_kinds(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(OWN)
    count, wrong = trip(path)
    assert count > 40
    assert not wrong
