"""launch/sweep.py and launch/diagnose.py, as users run them."""

import json
import pathlib
import runpy
import shutil
import subprocess
import sys

import jax
import ml_collections
import pytest
import runs

from eqprop_jax import config, records, training
from eqprop_jax.config import changes
from eqprop_jax.records import sweep

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
    'num_epochs': 1,
    'batch_size': 20,
    'data.num_train': 60,
    'data.held_out': 30,
    'system.sizes': (64, 8, 6, 10),
    'diagnostics.every_evals': 0,
}
EXPERIMENT = f"""
from configs import digits_mlp


def get_config():
    config = digits_mlp.get_config()
    for key, value in {TINY!r}.items():
        section, _, name = key.rpartition('.')
        setattr(config[section] if section else config, name, value)
    return config


def sweep(add):
    add('corrected', {{}})
    add('not, corrected!', {{'estimator.correction': None}})
"""


def launch(script, *arguments):
    if '--dry_run' not in arguments:  # which would print it
        arguments += (f'--compilation_cache={ROOT / ".cache" / "jax"}',)
    return runs.launch(script, *arguments)


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp('configs') / 'tiny.py'
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope='module')
def swept(experiment, tmp_path_factory):
    """The workdir of a sweep with one seed, and what the launcher printed."""
    workdir = tmp_path_factory.mktemp('sweep')
    result = launch(
        'sweep', f'--config={experiment}', f'--workdir={workdir}', '--seeds=3'
    )
    assert result.returncode == 0, result.stderr[-500:]
    return workdir, result.stdout


def test_a_dry_run_prints_the_commands(experiment, tmp_path):
    workdir = tmp_path / 'runs'
    result = launch(
        'sweep', f'--config={experiment}', f'--workdir={workdir}', '--dry_run'
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    for seed, line in enumerate(lines[3:]):
        assert line == (
            f'python launch/train.py --config={experiment} '
            f'--workdir={workdir}/not_corrected/seed_{seed} '
            f'--config.estimator.correction=None --config.seed={seed}'
        )
    assert not workdir.exists()


def test_flags_change_what_the_rows_change(experiment, tmp_path):
    arguments = (f'--config={experiment}', f'--workdir={tmp_path / "runs"}')
    flags = ('--config.num_epochs=7', '--config.data.name=None')
    result = launch('sweep', *arguments, '--dry_run', '--seeds=0', *flags)
    for line in result.stdout.splitlines():
        assert ' '.join(flags) in line
    for flag, message in (
        ('--config.estimator.correction=None', "row 'not, corrected!' sets estimator"),
        ('--config.seed=3', '--seeds chooses'),
        ('--config.data.no.key=1', "no section 'no' for 'no.key'"),
    ):
        result = launch('sweep', *arguments, '--dry_run', flag)
        assert result.returncode == 1, result.stdout
        assert message in result.stderr
        assert result.stderr.count('\n') == 1, result.stderr


@pytest.mark.whole
def test_rows_of_a_variant(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(
        EXPERIMENT.replace('get_config():', 'get_config(variant):').replace(
            'return config', 'config.num_epochs = int(variant)\n    return config'
        )
    )
    script = (
        'import sys; sys.path.insert(0, sys.argv[1])\n'
        'from eqprop_jax.config import builtin\n'
        'print(builtin.module(sys.argv[2])["get_config"]().num_epochs)'
    )
    command = [sys.executable, '-c', script, str(ROOT), f'{path}:7']
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == '7\n', result.stderr


@pytest.mark.whole
def test_rows_and_table(swept):
    workdir, printed = swept
    rows = json.loads((workdir / 'sweep.json').read_text())
    assert [row['name'] for row in rows] == ['corrected', 'not, corrected!']
    assert rows[1]['changes'] == {'estimator.correction': None}
    for row, folder in zip(rows, ('corrected', 'not_corrected'), strict=True):
        summary = json.loads((workdir / folder / 'seed_3' / 'summary.json').read_text())
        error = 100 * summary['last']['test']['error']
        assert row['last'] == [pytest.approx(error, abs=1e-3)]
        assert row['mean'] == row['last'][0]
        assert row['std'] is None
        assert f'{row["name"]:15}  {row["mean"]:6.2f}' in printed


@pytest.mark.whole
def test_only_what_is_missing_is_trained(swept, experiment):
    workdir, _ = swept
    kept = workdir / 'corrected' / 'seed_3' / 'metrics.jsonl'
    missing = workdir / 'not_corrected' / 'seed_3' / 'summary.json'
    before = kept.stat().st_mtime_ns
    missing.unlink()
    result = launch(
        'sweep', f'--config={experiment}', f'--workdir={workdir}', '--seeds=3'
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert kept.stat().st_mtime_ns == before
    assert missing.exists()


def configurations(experiment):
    """Returns the configuration of every row, by the name of its folder."""
    module = runpy.run_path(str(experiment))
    values = module['get_config']().to_dict()
    rows = changes.rows(module['sweep'])
    built = {
        sweep.slug(name): ml_collections.ConfigDict(changes.applied(values, row))
        for name, row in rows.items()
    }
    return {name: config.experiment(each).config for name, each in built.items()}


def ended(workdir, row, seed, error=0.1, values=None):
    """Writes what the table takes of a run that has ended."""
    folder = workdir / row / f'seed_{seed}'
    folder.mkdir(parents=True)
    if values is not None:
        records.claim(folder, {**values, 'seed': seed})
    metrics = {'error': error}
    last = {'test': metrics, 'eval': metrics}
    summary = {'last': last, 'best': None, 'train_seconds': 1.0}
    (folder / 'summary.json').write_text(json.dumps(summary))
    return folder


@pytest.mark.whole
def test_rows_keep_their_other_seeds(experiment, tmp_path):
    """Those that have ended, and those that sweep.json says broke off."""
    for row, values in configurations(experiment).items():
        for seed in (10, 1, 2):
            ended(tmp_path, row, seed, seed / 100, values)
    (tmp_path / 'corrected' / 'seed_02').mkdir()
    for seed in (3, 4, 5):
        (tmp_path / 'not_corrected' / f'seed_{seed}').mkdir()
    old = {'name': 'not, corrected', 'seeds': [4, 5, 6], 'last': [None, 5.0, None]}
    (tmp_path / 'sweep.json').write_text(json.dumps([old]))
    arguments = (f'--config={experiment}', f'--workdir={tmp_path}')
    for more in (['--seeds=2'], ['--seeds=1,2', '--only=^not'], ['--seeds=10']):
        result = launch('sweep', *arguments, *more)
        assert result.returncode == 0, result.stderr[-500:]
        first, second = json.loads((tmp_path / 'sweep.json').read_text())
        assert (first['seeds'], first['last']) == ([1, 2, 10], [1.0, 2.0, 10.0])
        assert second['seeds'] == [1, 2, 4, 10]
        assert second['last'] == [1.0, 2.0, None, 10.0]
        assert second['mean'] == pytest.approx(13 / 3, abs=1e-3)


def test_another_experiment_does_not_mix_with_seeds_that_are_there(
    experiment, tmp_path
):
    folder = ended(tmp_path, 'not_corrected', 7)
    config = {'num_epochs': 3, 'seed': 7}
    (folder / 'config.json').write_text(json.dumps(config))
    arguments = (f'--config={experiment}', f'--workdir={tmp_path}', '--seeds=1')
    result = launch('sweep', *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith('sweep: not, corrected!: ')
    assert 'seed_7 holds a run with another config' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['not_corrected']


@pytest.mark.whole
def test_two_sweeps_that_end_at_once(tmp_path):
    """The later one waits for the table of the other."""
    script = (
        'import pathlib, sys; from eqprop_jax import records\n'
        'with records.locked(sys.argv[1], wait=True):\n'
        '    print(pathlib.Path(sys.argv[1], "sweep.json").read_text())'
    )
    command = [sys.executable, '-c', script, str(tmp_path)]
    with records.locked(tmp_path):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(5)
        sweep.write([{'name': 'of the first'}], tmp_path)
    assert 'of the first' in other.communicate(timeout=60)[0]


@pytest.mark.parametrize(
    ('lines', 'part'),
    [
        (
            "raise OSError('on\\npurpose')",
            'sweep(add) raises OSError: on purpose',
        ),
        ("add('a')", 'sweep(add) raises TypeError: '),
        ("add('a', None)", "row 'a' is no dict by dotted key, but None"),
        ("add('a', {1: 2})", "row 'a' is no dict by dotted key, but {1: 2}"),
        ('add(1, {})', 'the name 1 of a row'),
        ("add('a', {'seed': 4})", "row 'a' has a seed, which --seeds chooses"),
        ("add('a', {}); add('a', {})", "two rows are called 'a'"),
        ("add('a b', {}); add('a-b', {})", "'a-b' and another row differ in punctu"),
        ("add('a', {'no.key': 1})", "no section 'no' for 'no.key'"),
        ("add('a', {'seed.key': 1})", "no section 'seed' for 'seed.key'"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, lines, part):
    path = tmp_path / 'tiny.py'
    path.write_text(EXPERIMENT.partition('def sweep')[0])
    with path.open('a') as file:
        file.write(f'def sweep(add):\n    {lines}\n')
    for more in ([], ['--dry_run']):
        workdir = tmp_path / 'runs'
        result = launch('sweep', f'--config={path}', f'--workdir={workdir}', *more)
        assert result.returncode == 1
        assert result.stderr.startswith('sweep: ')
        assert part in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not result.stdout
        assert not workdir.exists()


@pytest.mark.whole
def test_seeds_are_trained_together(experiment, tmp_path):
    """On two devices, and as they would be by themselves."""
    tables = []
    for together in ('auto', 'no'):
        workdir = tmp_path / together
        result = launch(
            'sweep',
            f'--config={experiment}',
            f'--workdir={workdir}',
            '--seeds=0,1,2',
            '--only=^corrected',
            f'--together={together}',
        )
        assert result.returncode == 0, result.stderr[-500:]
        lines = [line for line in result.stdout.splitlines() if line.startswith('[')]
        assert len(lines) == (1 if together == 'auto' else 3)
        assert (workdir / 'sweep.png').stat().st_size > 5_000
        (row,) = json.loads((workdir / 'sweep.json').read_text())
        tables.append(row)
    for key in ('seeds', 'last', 'best', 'held_out_last', 'mean', 'std'):
        assert tables[0][key] == tables[1][key]
    assert len(set(tables[0]['last'])) > 1


@pytest.mark.parametrize(
    ('name', 'folder'),
    [('../../etc', 'etc'), ('/etc/passwd', 'etc_passwd'), ('..', None), ('', None)],
)
def test_rows_stay_in_the_workdir(tmp_path, name, folder):
    path = tmp_path / 'tiny.py'
    path.write_text(f'{EXPERIMENT}\n    add({name!r}, {{}})\n')
    arguments = (f'--config={path}', '--workdir=runs', '--seeds=0', '--dry_run')
    result = launch('sweep', *arguments)
    if folder is None:
        assert result.returncode == 1
        assert 'no letter and no digit' in result.stderr
        assert len(result.stderr.splitlines()) == 1
        return
    last = result.stdout.splitlines()[-1]
    assert f'--workdir=runs/{folder}/seed_0 ' in last


@pytest.mark.whole
def test_what_is_not_a_scalar_is_apart(tmp_path):
    path = tmp_path / 'tiny.py'
    rows = """
    add('slow', {'optimizer.learning_rate': 1e-4})
    add('decay', {'optimizer.weight_decay': 1e-4})
    add('more decay', {'optimizer.weight_decay': 1e-3})
    add('homeostasis', {'homeostasis.weight': 0.1})
    add('radius', {'estimator.radius': 0.2})
    add('optimizer', {'optimizer.name': 'sgd'})
"""
    path.write_text(EXPERIMENT + rows)
    arguments = (f'--config={path}', f'--workdir={tmp_path / "runs"}', '--seeds=0,1')
    script = (
        'import sys; from absl import flags; sys.path.insert(0, sys.argv[1])\n'
        'from eqprop_jax.cli import sweep; flags.FLAGS(sys.argv[1:])\n'
        'module = sweep.builtin.module(sweep.CONFIG.value)\n'
        'for group in sweep._groups(module, sweep._expand(module)):\n'
        '    print(sweep._names(group))'
    )
    result = subprocess.run(
        [sys.executable, '-c', script, str(ROOT), *arguments],
        capture_output=True,
        text=True,
    )
    assert result.stdout.splitlines() == [
        'corrected, seed 0, 1; slow, seed 0, 1',
        'not, corrected!, seed 0, 1',
        'decay, seed 0, 1; more decay, seed 0, 1',
        'homeostasis, seed 0, 1',
        'radius, seed 0, 1',
        'optimizer, seed 0, 1',
    ], result.stderr


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--only=nothing'], 'choose from corrected, not, corrected!'),
        (['--seeds=one'], '--seeds takes integers'),
        (['--seeds='], '--seeds takes integers'),
        (['--seeds=4294967296'], '--seeds takes integers'),
        (['--config=absent.py'], 'absent.py does not exist'),
        ([f'--config={ROOT}/configs/digits_mlp.py'], 'no sweep(add)'),
        ([f'--config={ROOT}/configs/cifar10_conv_free.py:big'], "no variant 'big'"),
    ],
)
def test_mistakes(experiment, tmp_path, arguments, part):
    workdir = tmp_path / 'runs'
    result = launch(
        'sweep', f'--config={experiment}', f'--workdir={workdir}', *arguments
    )
    assert result.returncode == 1
    assert result.stderr.startswith('sweep: ')
    assert part in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not workdir.exists()


def test_rows_that_raise(experiment, tmp_path):
    path = tmp_path / 'raises.py'
    path.write_text(EXPERIMENT + "    add('third', {})['seed']\n")
    result = launch('sweep', f'--config={path}', f'--workdir={tmp_path / "runs"}')
    assert result.returncode == 1
    assert 'sweep(add) raises TypeError' in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_rows_that_memory_does_not_suffice_for(experiment, tmp_path, monkeypatch):
    """Those after them are trained, and the table marks them."""
    tried = []

    def exhausted(experiments, workdirs, **options):
        tried.extend(workdirs)
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

    monkeypatch.setattr(training, 'train_together', exhausted)
    result = launch(
        'sweep', f'--config={experiment}', f'--workdir={tmp_path}', '--seeds=3'
    )
    assert result.returncode == 0, result.stderr
    assert [path.parent.name for path in tried] == ['corrected', 'not_corrected']
    assert result.stderr.count('too large for the memory of this machine') == 2
    rows = json.loads((tmp_path / 'sweep.json').read_text())
    assert [row['last'] for row in rows] == [[None], [None]]


@pytest.mark.whole
def test_a_diagnosis(swept):
    workdir, _ = swept
    run = workdir / 'corrected' / 'seed_3'
    result = launch('diagnose', f'--workdir={run}', '--num_examples=12', '--repeats=1')
    assert result.returncode == 0, result.stderr[-500:]
    assert (run / 'bias.png').stat().st_size > 0
    report = json.loads((run / 'bias.json').read_text())
    own, exact = (
        report['methods'][name] for name in ('this run', 'recurrent backprop')
    )
    assert own['cosine']['total'] > 0.999
    assert own['asymmetry']['total'] == 0
    assert exact['cosine']['layer_1'] > 0.99999
    assert report['methods']['symmetric']['cosine']['total'] < 0.95
    assert own['seconds'] > 0
    assert own['sentence'] in result.stdout
    assert f'{report["symmetric_share"]:.3f}' in result.stdout
    options = ('--num_examples=12', '--repeats=0')
    result = launch('diagnose', f'--workdir={run}', *options, '--only=^rec|tangent')
    found = json.loads((run / 'bias.json').read_text())['methods']
    assert list(found) == ['tangent', 'recurrent backprop']
    result = launch('diagnose', f'--workdir={run}', *options, '--only=magic')
    assert result.returncode == 1
    assert '--only=magic: choose from this run, ' in result.stderr


@pytest.mark.whole
def test_rows_that_are_left_out_are_of_the_same_experiment(swept, experiment, tmp_path):
    workdir = tmp_path / 'sweep'
    shutil.copytree(swept[0], workdir)
    before = (workdir / 'sweep.json').read_bytes()
    flags = ('--seeds=3', '--only=^corrected', '--config.num_epochs=3')
    arguments = (f'--config={experiment}', f'--workdir={workdir}', *flags)
    shutil.rmtree(workdir / 'corrected')
    result = launch('sweep', *arguments)
    assert result.returncode == 1
    assert 'not, corrected!: ' in result.stderr
    assert 'holds a run with another config (num_epochs is ' in result.stderr
    assert (workdir / 'sweep.json').read_bytes() == before


@pytest.mark.whole
def test_a_summary_is_of_the_records_beside_it(swept, experiment, tmp_path):
    workdir = tmp_path / 'sweep'
    shutil.copytree(swept[0], workdir)
    one, other = (workdir / name / 'seed_3' for name in ('corrected', 'not_corrected'))
    summary = json.loads((other / 'summary.json').read_text())
    summary['last']['test']['error'] += 0.01
    (one / 'summary.json').write_text(json.dumps(summary))
    arguments = (f'--config={experiment}', f'--workdir={workdir}', '--seeds=3')
    result = launch('sweep', *arguments)
    assert result.returncode == 1
    assert 'summary.json is of another run than metrics.jsonl' in result.stderr


@pytest.mark.whole
def test_results_are_not_written_over_a_run(swept):
    run = swept[0] / 'corrected' / 'seed_3'
    before = (run / 'summary.json').read_bytes()
    for name in ('summary.json', 'config.json'):
        result = launch('evaluate', f'--workdir={run}', f'--json={run / name}')
        assert result.returncode == 1
        assert 'is what a run keeps there' in result.stderr
    assert (run / 'summary.json').read_bytes() == before


@pytest.mark.whole
def test_what_is_no_run_is_not_diagnosed(tmp_path, swept):
    result = launch('diagnose', f'--workdir={tmp_path}')
    assert result.returncode == 1
    assert 'is not the workdir of a run' in result.stderr
    unfinished = tmp_path / 'unfinished'
    unfinished.mkdir()
    config = swept[0] / 'corrected' / 'seed_3' / 'config.json'
    (unfinished / 'config.json').write_text(config.read_text())
    result = launch('diagnose', f'--workdir={unfinished}')
    assert result.returncode == 1
    assert 'has no checkpoint' in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.whole
@pytest.mark.parametrize(
    ('damage', 'part'),
    [
        (lambda w: (w / 'corrected/seed_3/summary.json').write_text('{'), 'is damaged'),
        (lambda w: (w / 'corrected/seed_3/summary.json').write_text('{}'), "'last'"),
        (lambda w: (w / 'sweep.json').write_text('{'), 'sweep.json is damaged'),
        (lambda w: (w / 'sweep.json').write_text('[1]'), 'it is no list of rows'),
    ],
    ids=['half a summary', 'an empty summary', 'half a table', 'another table'],
)
def test_damaged_results(swept, experiment, tmp_path, damage, part):
    workdir = tmp_path / 'sweep'
    shutil.copytree(swept[0], workdir)
    damage(workdir)
    result = launch(
        'sweep',
        f'--config={experiment}',
        f'--workdir={workdir}',
        '--seeds=3',
        '--only=corrected',
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith('sweep: ')
    assert part in last
    assert 'Traceback' not in result.stderr


def test_the_row_that_failed_is_named(swept, experiment, tmp_path):
    """Not the last one, if it is another."""
    workdir = tmp_path / 'sweep'
    shutil.copytree(swept[0], workdir)
    path = workdir / 'corrected' / 'seed_3' / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'seed': 7}))
    arguments = (f'--config={experiment}', f'--workdir={workdir}', '--seeds=3')
    result = launch('sweep', *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith('sweep: corrected: ')
    assert 'seed is 7 there, 3 here' in result.stderr


def test_an_experiment_that_raises(tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text('raise RuntimeError("on\\npurpose")\n')
    result = launch('sweep', f'--config={path}', f'--workdir={tmp_path}/runs')
    assert result.returncode == 1
    assert 'RuntimeError: on purpose' in result.stderr
    assert len(result.stderr.splitlines()) == 1
