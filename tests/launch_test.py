"""The launcher as users run it: one clear line for every mistake, and no workdir."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import runs

from eqprop_jax.config import builtin

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def launch(tmp_path):
    """Runs launch/train.py; workdir and data are in tmp_path."""

    def run(*overrides, config='digits_mlp', variant='', flags=()):
        return runs.launch(
            'train',
            f'--config={ROOT / "configs" / config}.py{variant}',
            f'--workdir={tmp_path / "run"}',
            f'--compilation_cache={ROOT / ".cache" / "jax"}',
            *(f'--config.{override}' for override in overrides),
            *flags,
            cwd=tmp_path,
            TFDS_DATA_DIR=str(tmp_path),
        )

    return run


MISTAKES = {
    'train': ['--config=absent.py', '--workdir=absent'],
    'evaluate': ['--workdir=absent'],
    'diagnose': ['--workdir=absent'],
    'sweep': ['--config=absent.py', '--workdir=absent'],
    'figures': ['--figure=magic'],
    'benchmark': ['--filter=transformer'],
    'results': ['--collect=absent', '--config=absent.py'],
    'prepare_data': ['--dataset=digits'],
}


@pytest.mark.whole
@pytest.mark.parametrize('script', MISTAKES)
def test_a_process_of_its_own_tells_a_mistake_in_one_line(tmp_path, script):
    """The other tests run launchers in this process, which has imported all."""
    result = subprocess.run(
        [sys.executable, ROOT / 'launch' / f'{script}.py', *MISTAKES[script]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f'{script}: ')
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_launcher_is_run_as_a_process():
    """But for the notebooks, which notebooks_test.py and .ci/run take."""
    files = {path.stem for path in (ROOT / 'launch').glob('*.py')}
    assert files == MISTAKES.keys() | {'notebooks', 'checkout'}


@pytest.mark.parametrize(
    ('override', 'parts'),
    [
        ('data.colour=3', ['unknown key data.colour', 'num_train', 'held_out']),
        ('colour.hue=3', ['--config.colour.hue=3', "no section 'colour'"]),
        (
            'estimator.name=magic',
            ["'magic'", 'bptt, contour, contrastive, oscillation, recurrent_backprop'],
        ),
        ('estimator.radius=big', ['config.estimator.radius', 'float', "'big'"]),
        (
            'data.name=cifar10',
            ["'cifar10' is not prepared", 'eqprop-prepare --dataset=cifar10'],
        ),
    ],
)
def test_mistakes(tmp_path, launch, override, parts):
    result = launch(override)
    assert result.returncode == 1
    for part in parts:
        assert part in result.stderr
    assert 'Traceback' not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert result.stdout == ''
    assert not (tmp_path / 'run').exists()


def test_a_config_that_is_not_there(tmp_path, launch):
    result = launch('seed=1', config='absent')
    assert result.returncode == 1
    assert re.search(r'cannot read the config.*absent\.py', result.stderr, re.DOTALL)
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'run').exists()


def test_a_variant_that_is_not_there(tmp_path, launch):
    result = launch(config='leaky_mnist', variant=':big')
    assert result.returncode == 1
    assert result.stderr.count('\n') == 1
    assert "no variant 'big'; choose from 'corrected'" in result.stderr
    assert not (tmp_path / 'run').exists()


def test_overrides_and_results(tmp_path, launch):
    result = launch(
        'num_epochs=1',
        'batch_size=20',
        'data.num_train=60',
        'data.held_out=30',
        'data.data_dir=None',
        'estimator.correction=None',
        'estimator.num_points=4',
        'estimator.skip_unconverged=True',
        'estimator.batched=False',
        "optimizer.layers={'layer_1': {'learning_rate': 0.01}}",
        'system.sizes=(64,8,10)',
        'diagnostics.every_evals=0',
        'mesh.data=1',
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert 'Traceback' not in result.stderr
    assert re.fullmatch(r'test error \d+\.\d\d % after the last .*\n', result.stdout)
    workdir = tmp_path / 'run'
    config = json.loads((workdir / 'config.json').read_text())
    assert (config['data']['num_train'], config['data']['data_dir']) == (60, None)
    estimator = config['estimator']
    assert estimator['correction'] is None
    assert (estimator['num_points'], estimator['skip_unconverged']) == (4, True)
    assert estimator['batched'] is False
    assert config['optimizer']['layers'] == {'layer_1': {'learning_rate': 0.01}}
    assert config['system']['sizes'] == [64, 8, 10]
    rows = [
        json.loads(line)
        for line in (workdir / 'metrics.jsonl').read_text().splitlines()
    ]
    assert [row['step'] for row in rows if row['split'] == 'test'] == [3]
    for name in ('curves.png', 'summary.json'):
        assert (workdir / name).stat().st_size > 0


@pytest.mark.whole
def test_a_finished_run_is_left_as_it_is(tmp_path, launch):
    """Its own command, again, draws what is missing and says how to begin anew."""
    workdir, short = tmp_path / 'run', ('num_epochs=1', 'data.num_train=100')

    def again(*flags):
        """Returns what was said, and the files that were written."""
        before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
        result = launch(*short, 'diagnostics.every_evals=0', flags=flags)
        assert (result.returncode, 'Traceback' in result.stderr) == (0, False)
        after = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
        changed = {path for path, _ in after.items() ^ before.items()}
        return result, {path.name for path in changed if path.is_file()}

    first, written = again()
    assert {'summary.json', 'metrics.jsonl', 'curves.png'} <= written
    result, written = again()
    assert written == set()
    assert result.stderr == ''
    assert result.stdout.splitlines()[1:] == first.stdout.splitlines()
    assert f'{workdir} holds this run, which has finished' in result.stdout
    assert '--overwrite' in result.stdout
    (workdir / 'curves.png').unlink()
    shutil.rmtree(workdir / 'checkpoint')
    _, written = again()
    assert written == {'curves.png'}
    result, written = again('--overwrite')
    assert {'summary.json', 'metrics.jsonl', 'curves.png'} <= written
    assert result.stdout == first.stdout
    (workdir / 'curves.png').unlink()
    (workdir / 'summary.json').write_text('{}')
    result = launch(*short, 'diagnostics.every_evals=0')
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert 'the run has ended, but its curves cannot be drawn' in line


class TestBuiltinConfigurations:
    def test_a_name_stands_for_a_file(self):
        file = str(ROOT / 'configs' / 'leaky_mnist.py')
        assert builtin.path('leaky_mnist') == file
        assert builtin.path('leaky_mnist:deep') == f'{file}:deep'
        argv = ['train', '--config', 'leaky_mnist', '--config.seed=1', '--workdir=w']
        assert builtin.located(argv) == [*argv[:2], file, *argv[3:]]
        assert builtin.located(['-config=leaky_mnist']) == [f'-config={file}']

    @pytest.mark.parametrize('path', ['absent.py', './leaky_mnist', 'a/b.py:deep', ''])
    def test_a_path_is_left_as_it_is(self, path):
        assert builtin.path(path or f'{ROOT}/x.py') == path or f'{ROOT}/x.py'

    def test_a_file_without_a_suffix(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / 'mine').write_text('')
        assert builtin.path('mine:deep') == 'mine:deep'

    @pytest.mark.parametrize('script', ['train', 'sweep'])
    def test_an_unknown_name_lists_the_choices(self, tmp_path, script):
        result = runs.launch(
            script, '--config=magic', f'--workdir={tmp_path}/w', cwd=tmp_path
        )
        assert result.returncode == 1
        assert result.stderr.startswith(f"{script}: there is no configuration 'magic'")
        assert 'digits_mlp, divided' in result.stderr
        assert result.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('script', 'flags', 'wanted'),
    [
        ('evaluate', ['--workdir=~/run', '--json=~/gone/a.json'], 'gone for --json'),
        ('sweep', ['--config=~/one.py', '--workdir=~/runs'], 'one.py does not exist'),
        ('diagnose', ['--workdir=~/run'], 'run is not the workdir'),
    ],
)
def test_a_path_may_begin_at_home(tmp_path, script, flags, wanted):
    home, cwd = tmp_path / 'home', tmp_path / 'cwd'
    home.mkdir()
    cwd.mkdir()
    done = runs.launch(script, *flags, cwd=cwd, HOME=str(home))
    assert done.returncode
    assert f'{home}/{wanted}' in done.stderr
    assert not list(cwd.iterdir())


def test_a_configuration_may_lie_at_home(monkeypatch):
    monkeypatch.setenv('HOME', '/of/somebody')
    found = builtin.located(['--config', '~/a.py:b', '--config=~/c.py'])
    assert found == ['--config', '/of/somebody/a.py:b', '--config=/of/somebody/c.py']
