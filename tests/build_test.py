"""Bad input is refused by name before anything is written; good input is built."""

import functools
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import runs
from tiers import quick

import eqprop_jax as ep
from eqprop_jax import (
    alignment,
    dynamics,
    estimators,
    nudges,
    records,
    solvers,
    systems,
    training,
    tree,
)
from eqprop_jax.config import ConfigError, build, registry, variants
from eqprop_jax.data import Dataset, NotPreparedError, Split, augmentation, check
from eqprop_jax.types import Batch
from experiments.benchmark import digits

CONFIGS = [
    (path.stem, variant)
    for path in sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('*.py'))
    for variant in getattr(
        importlib.import_module(f'configs.{path.stem}'), 'VARIANTS', ['']
    )
]


def rows_of(module):
    """The rows of a configuration's sweep: {name: changes}."""
    rows = {}
    module.sweep(lambda name, changes: rows.update({name: changes}))
    return rows


def refused(tmp_path, changes, error=ConfigError, **options):
    """Returns the message with which a run of that configuration is refused."""
    workdir = tmp_path / 'run'
    with pytest.raises(error) as raised:
        training.train_and_evaluate(
            build.experiment(runs.config(changes, **options)), workdir, progress=False
        )
    assert not workdir.exists()
    return str(raised.value)


def says(message, *parts):
    for part in parts:
        assert part in message


class TestKeysAndNames:
    @pytest.mark.parametrize('section', registry.SECTIONS)
    def test_unknown_key(self, tmp_path, section):
        message = refused(tmp_path, {f'{section}.colour': 1})
        says(message, f'unknown key {section}.colour')
        says(message, *(key for key in runs.SECTIONS[section] if key != 'name'))

    def test_unknown_key_at_the_top(self, tmp_path):
        message = refused(tmp_path, {'colour': 1})
        says(message, 'unknown key colour', 'batch_size', 'nudged_solver')

    @pytest.mark.parametrize(
        'key',
        [
            *registry.SECTIONS,
            *registry.TOP_LEVEL,
            'data.name',
            'data.normalization',
            'system.sizes',
            'estimator.radius',
            'estimator.num_points',
            'homeostasis.weight',
            'optimizer.learning_rate',
            'diagnostics.num_probes',
        ],
    )
    def test_missing_key(self, tmp_path, key):
        assert refused(tmp_path, {}, without=key) == f'key {key} is missing'

    @pytest.mark.parametrize('section', ['system', 'solver', 'nudged_solver'])
    def test_missing_name(self, tmp_path, section):
        message = refused(tmp_path, {}, without=f'{section}.name')
        says(message, f'{section}.name=None: choose from')

    @pytest.mark.parametrize(
        ('key', 'choices'),
        [
            ('system.name', registry.SYSTEMS),
            ('solver.name', registry.SOLVERS),
            ('nudged_solver.name', registry.SOLVERS),
            ('estimator.name', registry.ESTIMATORS),
            ('estimator.contour', registry.CONTOURS),
            ('estimator.correction', ['None', 'antisymmetric']),
            ('system.activation', systems.ACTIVATIONS),
            ('system.cost', ['cross_entropy', 'squared_error']),
            ('system.feedback', ['tied', 'free', 'none']),
            ('solver.order', ['alternating', 'synchronous']),
            ('homeostasis.form', ['difference', 'published']),
            ('optimizer.name', ['sgd', 'adam', 'adamw']),
            ('optimizer.schedule', ['constant', 'cosine']),
            ('data.normalization', ['unit', 'standard']),
            ('data.augment.padding', ['zero', 'edge', 'reflect']),
            ('data.name', ['digits', 'cifar10', 'eqprop-prepare']),
        ],
    )
    def test_unknown_name_lists_the_choices(self, tmp_path, key, choices):
        message = refused(tmp_path, {key: 'fancy', 'data.data_dir': str(tmp_path)})
        says(message, key.split('.')[0], "'fancy'", *choices)

    def test_unknown_key_of_the_augmentation(self, tmp_path):
        message = refused(tmp_path, {'data.augment': {'turn': 10}})
        says(message, 'unknown key data.augment.turn', 'pad, flip, padding')

    def test_arguments_given_by_the_build_are_no_keys(self, tmp_path):
        for key in ('optimizer.num_steps', 'estimator.system', 'estimator.solve'):
            assert f'unknown key {key}' in refused(tmp_path, {key: 7})

    def test_unknown_layer_of_the_optimizer(self, tmp_path):
        message = refused(
            tmp_path, {'optimizer.layers': {'layer_7': {'learning_rate': 0.1}}}
        )
        says(message, 'optimizer.layers.layer_7', 'layer_1, layer_2, readout')

    def test_all_that_is_wrong_is_told_at_once(self, tmp_path):
        changes = {'colour': 1, 'data.augment': {'turn': 10}, 'solver.speed': 2}
        changes |= {'system.name': 'fancy', 'estimator.radius': 'abc'}
        changes |= {'optimizer': {'name': 'adam', 'nesterov': True}}
        message = refused(tmp_path, changes, without='homeostasis.weight')
        unknown = ('colour', 'data.augment.turn', 'solver.speed', 'optimizer.nesterov')
        says(message, *(f'unknown key {key}: choose from' for key in unknown))
        says(message, "system.name='fancy': choose from conv, mlp")
        says(message, "estimator.radius has to be a number, not 'abc'")
        missing = ('homeostasis.weight', 'optimizer.learning_rate')
        says(message, *(f'key {key} is missing' for key in missing))
        assert message.count('; ') == 7

    def test_all_ranges_are_told_at_once(self, tmp_path):
        changes = {'batch_size': 0, 'homeostasis.weight': -1.0, 'precision': 'half'}
        message = refused(tmp_path, changes)
        says(message, 'batch_size', 'homeostasis.weight', "'half'")

    def test_unknown_option_of_a_layer(self, tmp_path):
        message = refused(tmp_path, {'optimizer.layers': {'layer_1': {'speed': 0.1}}})
        says(message, 'layers.layer_1.speed', 'learning_rate, weight_decay')


class TestValues:
    @pytest.mark.parametrize('value', [0.0, -0.1, np.inf, np.nan])
    @pytest.mark.parametrize(
        'key',
        [
            'estimator.radius',
            'solver.tol',
            'nudged_solver.tol',
            'solver.step_size',
            'optimizer.learning_rate',
            'data.std_factor',
        ],
    )
    def test_positive_numbers(self, tmp_path, key, value):
        section, name = key.split('.')
        message = refused(tmp_path, {key: value})
        says(message, section, name, str(value))
        assert re.search('positive|finite', message)

    @pytest.mark.parametrize('value', [0, -3])
    @pytest.mark.parametrize(
        'key',
        [
            'batch_size',
            'num_epochs',
            'log_every_steps',
            'diagnostics.num_examples',
            'diagnostics.num_probes',
            'homeostasis.num_probes',
            'solver.max_steps',
            'estimator.num_points',
        ],
    )
    def test_positive_integers(self, tmp_path, key, value):
        message = refused(tmp_path, {key: value})
        says(message, key.split('.')[-1], 'positive integer', str(value))

    @pytest.mark.parametrize(
        ('key', 'value'),
        [
            ('eval_every_steps', -1),
            ('seed', -1),
            ('seed', 2**31),
            ('diagnostics.every_evals', -1),
            ('homeostasis.weight', -1.0),
            ('optimizer.momentum', 1.0),
            ('optimizer.weight_decay', -0.1),
            ('optimizer.warmup_steps', 11),
            ('system.angle', 181.0),
            ('data.num_train', 5000),
            ('data.held_out', -1),
            ('data.augment.pad', -1),
        ],
    )
    def test_ranges(self, tmp_path, key, value):
        message = refused(tmp_path, {key: value})
        says(message, *key.split('.')[:1], str(value).removesuffix('.0'))

    @pytest.mark.parametrize('contour', ['one_sided', 'random_sign', 'symmetric'])
    def test_the_radius_keeps_its_name(self, tmp_path, contour):
        changes = {'estimator.contour': contour, 'estimator.radius': 0.0}
        message = refused(tmp_path, changes)
        assert message.startswith('estimator.radius: beta has to be')

    @pytest.mark.parametrize(
        ('key', 'value', 'kind'),
        [
            ('estimator.radius', 'abc', 'a number'),
            ('estimator.skip_unconverged', 1, 'True or False'),
            ('estimator.num_points', 2.0, 'an integer'),
            ('solver.tol', '1e-3', 'a number'),
            ('solver.max_steps', True, 'an integer'),
            ('solver.clip', (0.0, 'one'), 'a sequence, each entry a number or None'),
            ('system.sizes', (64, 'a', 10), 'a sequence, each entry an integer'),
            ('system.sizes', 64, 'a sequence, each entry an integer'),
            ('optimizer.learning_rate', 'fast', 'a number'),
            ('optimizer.layers', {'layer_1': 0.1}, 'a section'),
            ('homeostasis.weight', 'much', 'a number'),
            ('diagnostics.every_evals', 'often', 'an integer'),
            ('data.num_train', 'all', 'an integer or None'),
            ('data.name', 3, 'a string'),
            ('data.held_out', 0.1, 'an integer or None'),
            ('data.std_factor', '1.5', 'a number'),
            ('data.augment', True, 'a section'),
            ('data.augment.pad', 2.0, 'an integer'),
            ('data.augment.pad', True, 'an integer'),
            ('data.augment.flip', 1, 'True or False'),
            ('data.augment.padding', 0, 'a string'),
            ('batch_size', 1.5, 'an integer'),
            ('batch_size', True, 'an integer'),
            ('eval_every_steps', 'never', 'an integer'),
            ('seed', None, 'an integer'),
            ('solver', 'relaxation', 'a section'),
        ],
    )
    def test_types(self, tmp_path, key, value, kind):
        message = refused(tmp_path, {key: value})
        says(message, f'{key} has to be {kind}', repr(value))

    def test_not_finite_in_a_layer(self, tmp_path):
        message = refused(
            tmp_path, {'optimizer.layers': {'layer_1': {'learning_rate': np.inf}}}
        )
        says(message, 'layers.layer_1.learning_rate', 'inf')


class TestFit:
    @pytest.mark.parametrize(('key', 'value'), [('num_points', 4), ('half_step', True)])
    def test_complex_contour_needs_a_holomorphic_system(self, tmp_path, key, value):
        changes = {f'estimator.{key}': value, 'system.activation': 'relu'}
        message = refused(tmp_path, changes)
        says(message, 'not holomorphic', 'symmetric', '"dsilu"')

    def test_contrastive_rule_needs_a_primitive(self, tmp_path):
        message = refused(tmp_path, {'estimator.name': 'contrastive'})
        says(message, 'estimator: ', 'primitive Φ', 'tied feedback')

    def test_complex_contour_cannot_be_clipped(self, tmp_path):
        changes = {'nudged_solver.clip': (0.0, 1.0), 'estimator.num_points': 3}
        message = refused(tmp_path, changes)
        says(message, 'clip=(0.0, 1.0) is not holomorphic', 'symmetric')

    def test_first_size(self, tmp_path):
        message = refused(tmp_path, {'system.sizes': (63, 16, 16, 10)})
        says(message, "'digits'", '64 entries', 'is 63')

    def test_last_size(self, tmp_path):
        message = refused(tmp_path, {'system.sizes': (64, 16, 16, 9)})
        says(message, 'scores 9 classes', "'digits' has 10", 'the last of sizes')

    def test_batch_larger_than_the_training_set(self, tmp_path):
        message = refused(tmp_path, {'batch_size': 111})
        says(message, 'batch_size=111', '110 training examples')

    def test_reflections_larger_than_the_images(self, tmp_path):
        changes = {'data.augment': {'pad': 8, 'padding': 'reflect'}}
        message = refused(tmp_path, changes)
        says(message, 'data.augment: pad=8', 'not 8 x 8', 'smaller pad', '"edge"')

    def test_data_that_are_not_prepared(self, tmp_path):
        changes = {'data.name': 'cifar10', 'data.data_dir': str(tmp_path)}
        message = refused(tmp_path, changes, NotPreparedError)
        command = f'eqprop-prepare --dataset=cifar10 --data_dir={tmp_path}'
        says(message, command)


def dataset(**changes):
    """Four examples of two classes."""
    split = Split(np.ones((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1], np.int32))
    none = Split(split.images[:0], split.labels[:0])
    whole = Dataset('tiny', split, none, split, num_classes=2, scale=255.0)
    return whole._replace(
        **{
            name: getattr(whole, name)._replace(**parts)
            for name, parts in changes.items()
        }
    )


class TestCheck:
    def test_accepts_what_is_right(self):
        check(dataset())

    @pytest.mark.parametrize('split', ['train', 'test'])
    @pytest.mark.parametrize('label', [-1, 2])
    def test_labels(self, split, label):
        labels = np.array([0, 1, label, 0], np.int32)
        with pytest.raises(ValueError, match='outside 0 to 1') as raised:
            check(dataset(**{split: {'labels': labels}}))
        says(str(raised.value), 'tiny', split, f'label {label} of example 2')

    @pytest.mark.parametrize('value', [np.nan, np.inf])
    def test_pixels(self, value):
        images = np.ones((4, 2, 2, 1), np.float32)
        images[1:3, 0, 1, 0] = value
        with pytest.raises(ValueError, match='image 1 holds NaN or inf') as raised:
            check(dataset(train={'images': images}))
        says(str(raised.value), 'tiny', "'train'", '2 of them do', 'remove or repair')

    def test_empty_split(self):
        labels, images = np.zeros(0, np.int32), np.ones((0, 2, 2, 1), np.uint8)
        with pytest.raises(ValueError, match="split 'test' is empty"):
            check(dataset(test={'images': images, 'labels': labels}))

    def test_images_without_labels(self):
        with pytest.raises(ValueError, match='4 images but 3 labels'):
            check(dataset(train={'labels': np.zeros(3, np.int32)}))

    def test_the_build_checks_the_data(self, tmp_path, monkeypatch):
        bad = dataset(train={'labels': np.array([0, 1, 5, 0], np.int32)})
        monkeypatch.setattr(registry.LOADER, 'make', lambda name: bad)
        changes = {'data': {'name': 'tiny', 'normalization': 'unit'}}
        says(refused(tmp_path, changes), "data: 'tiny'", 'label 5 of example 2')


def gradients(estimate, system):
    """The gradients of a fixed batch."""
    x = jax.random.uniform(jax.random.key(1), (3, 64))
    batch = Batch(x, jax.nn.one_hot(jnp.arange(3), 10))
    params = system.init(jax.random.key(2), x)

    @jax.jit
    def grads(params):
        free = dynamics.relax(system, params, x, solvers.relaxation(tol=1e-10))
        return estimate(params, batch, free, jax.random.key(3)).grads

    return grads(params)


class TestBuilt:
    """What the sections name is what is built."""

    @pytest.mark.parametrize(
        ('name', 'more', 'inherited'),
        [
            ('oscillation', {}, {'order', 'step_size', 'clip'}),
            ('bptt', {'num_steps': 3}, {'step_size', 'clip'}),
            ('tangent', {}, {'step_size'}),
            ('contour', {'contour': 'symmetric', 'radius': 0.1}, set()),
        ],
    )
    def test_sweeps_of_an_estimator_are_those_of_the_nudged_solver(
        self, name, more, inherited
    ):
        own = {'name': name, **more}
        if name == 'oscillation':
            own |= {'radius': 0.1, 'num_points': 2}
        sweep = {'order': 'synchronous', 'step_size': 0.5, 'clip': (0.0, 1.0)}
        changes = {'estimator': own} | {
            f'nudged_solver.{key}': value for key, value in sweep.items()
        }
        section = runs.experiment(changes).config['estimator']
        assert set(section) - set(own) == inherited
        assert all(section[key] == sweep[key] for key in inherited)
        changes['estimator'] = own | {'step_size': 0.25}
        if inherited:
            section = runs.experiment(changes).config['estimator']
            assert section['step_size'] == 0.25

    system = systems.mlp((64, 8, 8, 10), feedback='free')
    solve = staticmethod(solvers.relaxation(tol=1e-9, max_steps=200))

    @pytest.mark.parametrize(
        ('section', 'estimate'),
        [
            (
                {'contour': 'circle', 'radius': 0.3, 'num_points': 4},
                lambda s, solve: estimators.contour(
                    s, solve, contour=nudges.circle(0.3, 4)
                ),
            ),
            (
                {'contour': 'one_sided', 'radius': -0.3, 'correction': 'antisymmetric'},
                lambda s, solve: estimators.contour(
                    s,
                    solve,
                    contour=nudges.one_sided(-0.3),
                    correction='antisymmetric',
                ),
            ),
            (
                {'name': 'recurrent_backprop', 'radius': 0.3, 'num_points': 4},
                lambda s, solve: estimators.recurrent_backprop(s),
            ),
            (
                {'name': 'tangent', 'tol': 1e-8, 'correction': None},
                lambda s, solve: estimators.tangent(s, tol=1e-8),
            ),
        ],
    )
    def test_estimators(self, section, estimate):
        section = {'name': 'contour', **section}
        built = registry.estimator(self.system, self.solve, section)
        wanted = gradients(estimate(self.system, self.solve), self.system)
        jax.tree.map(
            np.testing.assert_array_equal, gradients(built, self.system), wanted
        )

    def test_keys_of_other_choices_are_logged_once(self, caplog):
        section = {'name': 'tangent', 'radius': 0.3, 'correction': 'antisymmetric'}
        system = runs.SECTIONS['system'] | {'feedback': 'tied', 'angle': 90.0}
        solver = runs.SECTIONS['solver'] | {'depth': 3}
        changes = {'estimator': section, 'system': system, 'solver': solver}
        with caplog.at_level('WARNING', logger='absl'):
            runs.experiment(changes)
        assert [record.getMessage() for record in caplog.records] == [
            "system.feedback='tied' does not use: angle",
            "solver 'relaxation' does not use: depth",
            "estimator 'tangent' does not use: correction, radius",
        ]

    def test_keys_of_another_contour_are_logged(self, caplog):
        with caplog.at_level('WARNING', logger='absl'):
            runs.experiment({'estimator.contour': 'symmetric'})
        says(caplog.text, "'contour' with 'symmetric' does not use: num_points")

    def test_inherited_keys_are_checked(self, tmp_path, monkeypatch):
        """Also where the nudged solver itself does not take them."""
        plain = registry.Part(lambda: solvers.relaxation())
        monkeypatch.setitem(registry.SOLVERS, 'plain', plain)
        changes = {'estimator': {'name': 'tangent'}}
        changes |= {'nudged_solver': {'name': 'plain', 'step_size': 'fast'}}
        message = refused(tmp_path, changes)
        says(message, "estimator.step_size has to be a number, not 'fast'")

    def test_one_wrong_value_is_told_once(self, tmp_path):
        changes = {'estimator': {'name': 'tangent'}, 'nudged_solver.step_size': 'fast'}
        message = "nudged_solver.step_size has to be a number, not 'fast'"
        assert refused(tmp_path, changes) == message

    def test_max_pooling_with_feedback_of_its_own_is_logged(self, caplog):
        section = {'name': 'conv', 'image_shape': (8, 8, 1), 'channels': (2, 2)}
        section |= {'classes': 3, 'feedback': 'free', 'pooling': ('softmax', 'max')}
        for changes, expected in (
            ({}, True),
            ({'pooling': 'max'}, True),
            ({'pooling': 'softmax'}, False),
            ({'pooling': None}, False),
            ({'feedback': 'tied'}, False),
        ):
            caplog.clear()
            with caplog.at_level('WARNING', logger='absl'):
                registry.warn('system', section | changes)
            assert ('no equilibrium' in caplog.text) is expected

    def test_the_angle_of_leaky_integrators_is_used(self, caplog):
        section = {'name': 'leaky', 'sizes': (6, 5, 4), 'feedback': 'tied'}
        section |= {'angle': 10.0}
        with caplog.at_level('WARNING', logger='absl'):
            registry.warn('system', section)
        system = registry.system(section)
        says(caplog.text, "'leaky' does not use: feedback")
        assert 'angle' not in caplog.text
        params = system.init(jax.random.key(0), np.ones((1, 6), np.float32))
        angles = alignment.angles(system, params).values()
        assert [float(angle) for angle in angles] == pytest.approx([10], abs=0.1)

    def test_an_angle_without_free_feedback_is_logged(self, caplog):
        with caplog.at_level('WARNING', logger='absl'):
            built = runs.experiment({'system.feedback': 'tied', 'system.angle': 90.0})
        assert not built.system.pairs
        says(caplog.text, "feedback='tied' does not use: angle")

    def test_none_as_the_command_line_spells_it(self):
        built = runs.experiment({'estimator.correction': 'None'})
        assert built.config['estimator']['correction'] is None

    @pytest.mark.parametrize(
        'section', [{}, {'pad': 0, 'flip': False}, {'padding': 'edge'}]
    )
    def test_an_augmentation_that_does_nothing_is_none(self, section):
        assert runs.experiment({'data.augment': section}).augment is None

    def test_augmentation_is_the_one_named(self):
        images = jnp.arange(256, dtype=jnp.uint8).reshape(4, 8, 8, 1)
        built = runs.experiment({'data.augment': {'pad': 2, 'padding': 'edge'}})
        wanted = augmentation(pad=2, padding='edge')
        for seed in range(3):
            rng = jax.random.key(seed)
            np.testing.assert_array_equal(
                built.augment(rng, images), wanted(rng, images)
            )

    def test_std_factor(self):
        images = jnp.arange(64, dtype=jnp.uint8).reshape(1, 8, 8, 1)
        built, plain = (
            runs.experiment({'data.normalization': 'standard', **changes})
            for changes in ({'data.std_factor': 1.5}, {})
        )
        np.testing.assert_allclose(
            1.5 * built.preprocess(images), plain.preprocess(images), 1e-6
        )

    def test_a_std_factor_that_is_not_used_is_logged(self, caplog):
        with caplog.at_level('WARNING', logger='absl'):
            runs.experiment({'data.std_factor': 1.0})
        assert 'std_factor' not in caplog.text
        with caplog.at_level('WARNING', logger='absl'):
            runs.experiment({'data.std_factor': 1.5})
        says(caplog.text, "data.normalization='unit' does not use: std_factor")

    def test_config_is_the_one_given(self):
        assert runs.experiment().config == runs.values()


SHAPES = {'digits': (8, 8, 1), 'fashion_mnist': (28, 28, 1), 'mnist': (28, 28, 1)}
SWEEPS = [
    (name, variant, row)
    for name, variant in CONFIGS
    if variant in ('', 'small', 'short')
    for module in [importlib.import_module(f'configs.{name}')]
    if hasattr(module, 'sweep') and name != 'digits_estimators'
    for row in rows_of(module)
]
FIRST_ROWS = {case[:2]: case for case in reversed(SWEEPS)}.values()


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Returns the folder of a data set that is written as enlarged digits, once."""

    @functools.cache
    def write(name, shape, classes):
        folder = str(tmp_path_factory.mktemp('data'))
        digits.write_enlarged(folder, name, shape, classes)
        return folder

    return write


def on_digits(written, name, variant):
    """A configuration of the repository, its data set that of enlarged digits."""
    get_config = importlib.import_module(f'configs.{name}').get_config
    config = get_config(variant) if variant else get_config()
    assert isinstance(config, ml_collections.ConfigDict)
    if config.data.name != 'digits':
        shape = SHAPES.get(config.data.name, (32, 32, 3))
        classes = config.system.get('classes') or 10
        config.data.data_dir = written(config.data.name, shape, classes)
        config.data.held_out, config.data.num_train = 100, None
    return config


@pytest.mark.parametrize(('name', 'variant'), quick(CONFIGS, dict(CONFIGS).items()))
def test_configurations_of_the_repository(written, name, variant):
    assert build.experiment(on_digits(written, name, variant)).num_steps > 0


FAR = """
from eqprop_jax.config import defaults, variants


def get_config(variant='small'):
    config = variants.choose(variant, {'small': defaults.get_config})
    config.system.sizes = (64, 5, 4, 10)
    return config
"""
RELATIVES = """
import pathlib, sys
from eqprop_jax.config import variants

for path in pathlib.Path(sys.argv[1]).glob('*.py'):
    assert variants.beside(str(path), path.stem).get_config
"""
BUILD = """
import runpy
from eqprop_jax.config import build

config = runpy.run_path('config.py')['get_config']()
print(build.experiment(config).num_steps)
"""


@pytest.fixture
def far(tmp_path):
    """Runs a program where the library is, and a package that is called `configs`."""
    library, other, here = (tmp_path / name for name in ('library', 'other', 'here'))
    for folder in (library, other / 'configs', here):
        folder.mkdir(parents=True)
    (library / 'eqprop_jax').symlink_to(pathlib.Path(ep.__file__).parent)
    (other / 'configs' / '__init__.py').write_text('raise RuntimeError')
    path = os.pathsep.join(map(str, (other, library)))

    def run(program, *arguments):
        return subprocess.run(
            [sys.executable, '-c', program, *arguments],
            cwd=here,
            env=os.environ | {'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu'},
            capture_output=True,
            text=True,
        )

    run.here = here
    return run


@pytest.mark.whole
def test_a_configuration_far_from_the_checkout_needs_the_library_alone(far):
    """No package of another project gets in its way, whatever that is called."""
    (far.here / 'config.py').write_text(FAR)
    result = far(BUILD)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0


@pytest.mark.whole
def test_configurations_of_the_checkout_find_each_other(far):
    result = far(RELATIVES, str(pathlib.Path(__file__).parents[1] / 'configs'))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(('name', 'variant', 'row'), quick(SWEEPS, FIRST_ROWS))
def test_rows_of_sweeps(written, name, variant, row):
    """Each is an experiment; published numbers name rows."""
    module = importlib.import_module(f'configs.{name}')
    assert set(getattr(module, 'PUBLISHED', ())) <= set(rows_of(module))
    config = on_digits(written, name, variant).to_dict()
    for key, value in rows_of(module)[row].items():
        section, _, last = key.rpartition('.')
        (config[section] if section else config)[last] = value
    assert build.experiment(ml_collections.ConfigDict(config)).num_steps > 0


@pytest.mark.whole
@pytest.mark.parametrize('name', ['cifar10_conv_tied', 'cifar10_conv_free'])
def test_what_is_prepared_for_a_gpu_trains(written, tmp_path, name):
    config = on_digits(written, name, 'ninety')
    assert config.precision == 'bfloat16'
    config.system.channels = (2, 3, 4, 5)
    config.batch_size, config.num_epochs = 8, 1
    config.data.num_train, config.data.held_out = 24, 16
    config.diagnostics.num_examples = 4
    workdir = tmp_path / 'run'
    training.train_and_evaluate(build.experiment(config), workdir, progress=False)
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    records = {record['split']: record for record in map(json.loads, lines)}
    assert records['train']['step'] == 3
    assert records['train']['settled'] > 0
    assert {'worst_error', 'error/layer_1'} <= set(records['eval'])
    assert all(np.isfinite(record['loss']) for record in records.values())


def test_an_unknown_variant_is_refused():
    from configs import cifar10_conv_free

    with pytest.raises(
        variants.NoVariantError, match=r"'big'.*'corrected', 'ninety', 'small'"
    ):
        cifar10_conv_free.get_config('big')


def test_configurations_without_a_precision_are_those_of_float32():
    values = runs.values()
    del values['precision']
    config = ml_collections.ConfigDict(values)
    assert build.experiment(config).config['precision'] == 'float32'


@pytest.mark.whole
def test_a_precision_is_that_of_the_run_and_not_of_its_reference():
    coarse, plain = (
        runs.experiment({'precision': name}) for name in ('bfloat16', 'float32')
    )
    assert coarse.system.way.rounding == 2**-8
    assert plain.system.way.rounding == 0
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    y = jax.nn.one_hot(jnp.arange(4), 10)
    params = plain.system.init(jax.random.key(1), x)
    batch = Batch(x, y)
    free = dynamics.relax(plain.system, params, x, plain.solve)
    exact = [e.exact(params, batch, free, None).grads for e in (coarse, plain)]
    chex.assert_trees_all_equal(*exact)
    learned = [e.learn(params, batch, free, None).grads for e in (coarse, plain)]
    off = tree.norm(tree.sub(*learned)) / tree.norm(learned[1])
    assert 1e-5 < off < 1e-2


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'precision': 'half'}, ["'half'", 'float32, tf32, bfloat16']),
        ({'precision': 'mixed'}, ["'mixed'", 'float32, tf32, bfloat16']),
        ({'convolution': 'fft'}, ["'fft'", 'native', 'patches']),
        ({'convolution': 3}, ['convolution', '3']),
        ({'accumulation_steps': 0}, ['accumulation_steps', '0']),
        ({'accumulation_steps': 21}, ['accumulation_steps=21', 'batch_size=20']),
    ],
)
def test_precisions_that_cannot_be_are_refused(tmp_path, changes, words):
    says(refused(tmp_path, changes), *words)


@pytest.mark.parametrize(
    'key',
    [
        *('accumulation_steps', 'precision', 'convolution', 'mesh', 'data.augment'),
        *('data.augment.pad', 'data.std_factor', 'data.data_dir', 'data.seed'),
        *('estimator.contour', 'system.feedback', 'optimizer.schedule'),
    ],
)
def test_a_run_from_before_a_key_goes_on(tmp_path, key):
    """The key has its default now; whatever else it is now is another run."""
    sections = {'estimator.contour': 'circle', 'system.feedback': 'tied'}
    changes = {'optimizer.schedule': 'constant'} | sections
    built = runs.experiment(changes)
    records.claim(tmp_path, runs.values(changes, without=key))
    records.claim(tmp_path, built.config, defaults=built.defaults)
    if key != 'mesh':
        other = runs.values(changes | {key: 'another'})
        with pytest.raises(records.WorkdirError, match=key):
            records.claim(tmp_path, other, defaults=built.defaults)
