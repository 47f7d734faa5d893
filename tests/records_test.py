"""Records against the standard library's JSON and the bytes on the disk."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from eqprop_jax import records
from eqprop_jax.records import drawn

CONFIG = {
    'seed': 3,
    'system': {'sizes': (64, 16, 10), 'angle': None, 'name': 'mlp'},
    'optimizer': {'learning_rate': 1e-3, 'layers': {'layer_1': {'weight_decay': 0.1}}},
    'estimator': {'skip_unconverged': False},
}


def refuse(constant):
    raise ValueError(f'{constant} is not JSON')


def strictly(text):
    """Parses as the JSON standard says, which has no NaN and no Infinity."""
    return json.loads(text, parse_constant=refuse)


def lines(workdir):
    return [
        strictly(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()
    ]


class TestWriter:
    def test_one_object_a_line(self, tmp_path):
        with records.Writer(tmp_path) as writer:
            writer.write(5, 0.5, 'train', {'loss': np.float32(0.25), 'error': 1})
            writer.write(10, 1 / 3, 'eval', {'loss': 2.0, 'error': 0.5, 'angle/a': 9})
        assert lines(tmp_path) == [
            {'step': 5, 'epoch': 0.5, 'split': 'train', 'loss': 0.25, 'error': 1.0},
            {
                'step': 10,
                'epoch': 0.333333,
                'split': 'eval',
                'loss': 2.0,
                'error': 0.5,
                'angle/a': 9.0,
            },
        ]

    @pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_null(self, tmp_path, caplog, value):
        with records.Writer(tmp_path) as writer:
            writer.write(1, 1.0, 'test', {'loss': value, 'error': 0.0})
        assert lines(tmp_path)[0]['loss'] is None
        _, losses = records.series(records.read(tmp_path), 'test', 'loss')
        assert np.isnan(losses).tolist() == [True]
        assert caplog.text == ''

    def test_a_record_is_on_the_disk_at_once(self, tmp_path):
        with records.Writer(tmp_path) as writer:
            for step in range(3):
                writer.write(step, 0.5, 'train', {'loss': 0.0, 'error': 0.0})
                assert len(lines(tmp_path)) == step + 1

    def test_unknown_split(self, tmp_path):
        with (
            records.Writer(tmp_path) as writer,
            pytest.raises(ValueError, match="'valid'; choose from train, eval, test"),
        ):
            writer.write(1, 1.0, 'valid', {})
        assert lines(tmp_path) == []

    def test_tensorboard_has_the_scalars(self, tmp_path):
        with records.Writer(tmp_path) as writer:
            writer.write(7, 1.0, 'train', {'loss': 0.5, 'error': 0.25})
        (events,) = (tmp_path / 'tensorboard').iterdir()
        content = events.read_bytes()
        assert b'train/loss' in content
        assert b'train/error' in content
        assert np.float32(0.25).tobytes() in content

    def test_a_new_writer_starts_anew(self, tmp_path):
        for value in (0.5, 0.75):
            with records.Writer(tmp_path) as writer:
                assert not (tmp_path / 'summary.json').exists()
                writer.write(1, 1.0, 'train', {'loss': value, 'error': 0.0})
            records.write_summary(tmp_path, {'best': value})
        assert [line['loss'] for line in lines(tmp_path)] == [0.75]
        assert len(list((tmp_path / 'tensorboard').iterdir())) == 1
        summary = strictly((tmp_path / 'summary.json').read_text())
        assert summary == {'best': 0.75}


class TestClaim:
    def test_config_comes_back_as_json_has_it(self, tmp_path):
        records.claim(tmp_path / 'deep' / 'run', CONFIG)
        text = (tmp_path / 'deep' / 'run' / 'config.json').read_text()
        wanted = json.loads(json.dumps(CONFIG))
        assert strictly(text) == wanted
        assert wanted['system'] == {'sizes': [64, 16, 10], 'angle': None, 'name': 'mlp'}

    def test_same_config_again(self, tmp_path):
        records.claim(tmp_path, CONFIG)
        records.claim(tmp_path, json.loads(json.dumps(CONFIG)))

    def test_another_config_is_named(self, tmp_path):
        records.claim(tmp_path, CONFIG)
        before = (tmp_path / 'config.json').read_bytes()
        other = CONFIG | {'optimizer': {'learning_rate': 0.5}, 'seed': 4}
        with pytest.raises(records.WorkdirError) as raised:
            records.claim(tmp_path, other)
        for part in (
            'optimizer.learning_rate is 0.001 there, 0.5 here',
            'seed is 3 there, 4 here',
            '--workdir',
        ):
            assert part in str(raised.value)
        assert (tmp_path / 'config.json').read_bytes() == before

    def test_many_differences_are_counted(self, tmp_path):
        records.claim(tmp_path, dict.fromkeys('abcdefg', 1))
        with pytest.raises(records.WorkdirError, match=r'c is 1 there.*and 4 more'):
            records.claim(tmp_path, dict.fromkeys('abcdefg', 2))

    @pytest.mark.parametrize('swap', [False, True])
    def test_a_key_that_one_side_lacks_stands_for_its_default(self, tmp_path, swap):
        more = json.loads(json.dumps(CONFIG)) | {'new': 1, 'section': {'deep': [1, 2]}}
        more['estimator']['half_step'] = False
        before, after = (more, CONFIG) if swap else (CONFIG, more)
        known = {'new': 1, 'section.deep': (1, 2), 'estimator.half_step': False}
        other = known | {'estimator.half_step': True}
        records.claim(tmp_path, before)
        with pytest.raises(records.WorkdirError, match='half_step is'):
            records.claim(tmp_path, after, defaults=other)
        with pytest.raises(records.WorkdirError, match='new is'):
            records.claim(tmp_path, after)
        records.claim(tmp_path, after, defaults=known)

    def test_what_it_rests_on(self, tmp_path):
        first = {'data': 'abc', 'x64': False, 'precision': None}
        records.claim(tmp_path, CONFIG)  # by a version that noted none
        records.claim(tmp_path, CONFIG, rests_on=first)
        records.claim(tmp_path, CONFIG, rests_on=first | {'of a later version': 1})
        assert records.read_config(tmp_path) == json.loads(json.dumps(CONFIG))
        for change, part in (
            ({'data': 'abd'}, "data is 'abc' there, 'abd' here"),
            ({'x64': True}, 'x64 is False there, True here'),
            ({'precision': 'highest'}, "precision is None there, 'highest' here"),
        ):
            assert records.changed(tmp_path, change) == [part]
            before = (tmp_path / 'config.json').read_bytes()
            for write in (False, True):
                with pytest.raises(records.WorkdirError) as raised:
                    records.claim(
                        tmp_path, CONFIG, rests_on=first | change, write=write
                    )
                assert f'({part}): bring that back' in str(raised.value)
                assert '--workdir' in str(raised.value)
            assert (tmp_path / 'config.json').read_bytes() == before

    def test_what_cannot_be_claimed(self, tmp_path):
        file = tmp_path / 'file'
        file.write_text('')
        metrics, damaged = tmp_path / 'metrics', tmp_path / 'damaged'
        for folder, name in ((metrics, 'metrics.jsonl'), (damaged, 'config.json')):
            folder.mkdir()
            (folder / name).write_text('{')
        for workdir, message in (
            (file, 'cannot write to'),
            (file / 'below', 'cannot write to'),
            (metrics, r'holds metrics\.jsonl but no config\.json'),
            (damaged, r'config\.json is damaged'),
        ):
            with pytest.raises(records.WorkdirError, match=message) as raised:
                records.claim(workdir, CONFIG)
            assert str(workdir) in str(raised.value)
            assert '--workdir' in str(raised.value)


class TestRead:
    def test_series(self):
        rows = [
            {'epoch': 1.0, 'split': 'train', 'loss': 3.0},
            {'epoch': 1.0, 'split': 'eval', 'loss': 5.0},
            {'epoch': 2.0, 'split': 'train', 'loss': None},
            {'epoch': 3.0, 'split': 'train'},
        ]
        epochs, losses = records.series(rows, 'train', 'loss')
        np.testing.assert_array_equal(epochs, [1.0, 2.0])
        np.testing.assert_array_equal(losses, [3.0, np.nan])
        assert [array.size for array in records.series(rows, 'test', 'loss')] == [0, 0]

    def test_a_line_cut_short_is_passed_over(self, tmp_path):
        text = '{"step": 1, "epoch": 1.0, "split": "train"}\n{"step": 2, "ep'
        (tmp_path / 'metrics.jsonl').write_text(text)
        assert [row['step'] for row in records.read(tmp_path)] == [1]

    def test_no_run(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'metrics\.jsonl.*is .* a run\?'):
            records.read(tmp_path)


def test_one_run_at_a_time(tmp_path):
    """Whatever process the other one is of; the system frees what was killed."""
    workdir = tmp_path / 'run'
    script = (
        'import sys, time; from eqprop_jax import records\n'
        'with records.locked(sys.argv[1]):\n'
        '    print("held", flush=True); time.sleep(60)'
    )
    other = subprocess.Popen(
        [sys.executable, '-c', script, str(workdir)], stdout=subprocess.PIPE, text=True
    )
    with other.stdout as said:
        assert said.readline() == 'held\n'
        for _ in range(2):
            with (
                pytest.raises(records.WorkdirError, match='in use by another run'),
                records.locked(workdir),
            ):
                pass
        with records.locked(tmp_path / 'another'):
            pass
        other.kill()
        other.wait()
    for _ in range(2):
        with records.locked(workdir):
            assert list(workdir.iterdir()) == []


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    """Not that of a repository that the package was installed into."""

    def git(*arguments):
        own = ['-c', 'user.name=a', '-c', 'user.email=a@b', '-C', tmp_path]
        subprocess.run(['git', *own, *arguments], check=True, capture_output=True)

    file = tmp_path / 'drawn.py'
    file.write_text('code')
    monkeypatch.setattr(drawn, '__file__', str(file))
    assert records.commit() is None
    git('init')
    assert records.commit() is None
    git('add', 'drawn.py')
    git('commit', '-m', 'all')
    assert re.fullmatch('[0-9a-f]{7,}', records.commit())
    file.write_text('other')
    assert records.provenance()['commit'].endswith('+')
