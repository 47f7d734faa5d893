"""The tables of README.md are those of the records, and records are those of runs."""

import json
import pathlib
import re
import statistics

import pytest
import runs

from eqprop_jax import records
from eqprop_jax.records import sweep
from experiments import results
from experiments.benchmark import report

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()

# Of tables, figures and logs of their own.
OTHERS = {
    'table',
    'benchmark',
    'benchmark_h200',
    'conv_2021',
    'cifar10_conv_free_small',
    'gpu_h200',
    'gpu_h200_tied',
    'precision',
    'digits_estimators',
    'fig3_fmnist',
    'fig4_fmnist',
    'fig5_fmnist',
}


def test_the_table_is_that_of_the_records():
    assert results.written(README, results.table(ROOT / 'results')) == README


def test_tables_of_the_benchmark_are_those_of_its_record():
    rows = json.loads((ROOT / 'results' / 'benchmark.json').read_text())['rows']
    text = (ROOT / 'docs' / 'speed.md').read_text()
    assert '<!-- benchmark ' in text
    assert report.written(text, rows) == text


def test_every_record_is_a_line_or_a_table_of_its_own():
    parts = json.loads((ROOT / 'results' / 'table.json').read_text())
    shown = {line['record'] for part in parts for line in part['lines']}
    for path in (ROOT / 'results').glob('*.json'):
        if path.stem in OTHERS:
            continue
        record = json.loads(path.read_text())
        assert 'report' in record or path.stem in shown, path.stem


def test_records_are_complete():
    parts = json.loads((ROOT / 'results' / 'table.json').read_text())
    for part in parts:
        for line in part['lines']:
            found = results.line(ROOT / 'results', line['record'], line.get('row'))
            for key in ('config', 'command', 'seeds', 'hardware', 'date', 'commit'):
                assert found[key], (line, key)
            config = found['config'].partition(':')[0]
            assert (ROOT / config).is_file()
            assert len(found['last']) == len(found['best']) == len(found['seeds'])


def test_the_command_of_a_sweep_names_its_seeds():
    for path in (ROOT / 'results').glob('*.json'):
        record = json.loads(path.read_text())
        command = record.get('command', '') if 'rows' in record else ''
        if 'launch/sweep.py' not in command:
            continue
        named = set(re.search('--seeds=([0-9,]+)', command)[1].split(','))
        for row in record['rows']:
            seeds = row.get('seeds', record.get('seeds'))
            assert set(map(str, seeds)) <= named, path.stem


def test_the_digits_are_those_of_the_record():
    """Every mean ± standard deviation of the table of estimators is one of a row."""
    record = json.loads((ROOT / 'results' / 'digits_estimators.json').read_text())
    there = {f'{row["mean"]:.2f} ± {row["std"]:.2f}' for row in record['rows']}
    page = (ROOT / 'docs' / 'results.md').read_text()
    table = page[page.index('| estimator | untied, 90° | tied |') :]
    table = table[: table.index('\n\n')].replace('**', '')
    shown = re.findall(r'\d+\.\d\d ± \d+\.\d\d', table)
    assert len(shown) >= 25
    assert set(shown) <= there


def came_to(error):
    """Returns what a summary has of a run, its test error in percent."""
    last = {'test': {'error': error / 100}}
    return {'last': last, 'best': None, 'train_seconds': 1.0}


class TestOfASweep:
    @pytest.fixture
    def workdir(self, tmp_path):
        """Two rows with two seeds; a run of the second broke off."""
        rows = []
        for name, last in (('a plain', [20.0, 22.0]), ('b, 0.5', [10.0, None])):
            columns = dict.fromkeys(sweep.COLUMNS, last)
            rows.append({'name': name, 'changes': {}, 'seeds': [0, 1], **columns})
            for seed in (0, 1):
                folder = sweep.folder_of(tmp_path, name, seed)
                folder.mkdir(parents=True)
                (folder / 'config.json').write_text('{"num_epochs": 7}')
                summary = {'commit': 'abc1234', 'date': f'2026-01-0{seed + 1}'}
                if last[seed] is not None:
                    summary |= came_to(last[seed])
                    (folder / 'summary.json').write_text(json.dumps(summary))
        sweep.write(rows, tmp_path)
        return tmp_path

    def collect(self, workdir, **changes):
        options = {'published': {'b, 0.5': '9.9'}, 'hardware': 'a machine'}
        return results.collect(workdir, 'configs/some.py', **options | changes)

    def test_record(self, workdir):
        rows = self.collect(workdir)['rows']
        assert [row['commit'] for row in rows] == ['abc1234', 'abc1234']
        assert [row['date'] for row in rows] == ['2026-01-02', '2026-01-01']
        assert [row['published'] for row in rows] == [None, '9.9']
        assert [row['num_epochs'] for row in rows] == [7, 7]

    def test_table(self, workdir):
        records.write_data(workdir, 'some', self.collect(workdir))
        lines = [
            {'record': 'some', 'row': 'a plain', 'bold': True},
            {'record': 'some', 'row': 'b, 0.5', 'name': 'other'},
        ]
        contents = [{'title': 'A title', 'lines': lines}]
        (workdir / 'table.json').write_text(json.dumps(contents))
        head, _, first, second = results.table(workdir).splitlines()
        assert head.startswith('| A title | last epoch |')
        std = statistics.stdev([20, 22])
        assert first.startswith(
            f'| a plain | **21.00 ± {std:.2f}** | 21.00 ± {std:.2f} | none | '
            '2 seeds, 7 epochs | '
        )
        assert second.startswith('| other | 10.00 (1 broke off) |')
        assert ' | 9.9 | ' in second

    def test_runs_of_several_commits(self, workdir):
        path = sweep.folder_of(workdir, 'a plain', 1) / 'summary.json'
        summary = came_to(22.0) | {'commit': 'abc1234, other', 'date': '2026-01-03'}
        path.write_text(json.dumps(summary))
        row, _ = self.collect(workdir)['rows']
        assert (row['commit'], row['date']) == ('abc1234, other', '2026-01-03')
        path.write_text(json.dumps(came_to(22.0) | {'commit': None}))
        with pytest.raises(records.WorkdirError, match="damaged run .*'date'"):
            self.collect(workdir)

    def test_runs_that_are_others_by_now(self, workdir):
        path = sweep.folder_of(workdir, 'a plain', 1) / 'summary.json'
        broke_off = sweep.folder_of(workdir, 'b, 0.5', 1) / 'summary.json'
        for act in (
            lambda: path.write_text(json.dumps(came_to(21.0))),
            lambda: broke_off.write_text(json.dumps(came_to(21.0))),
        ):
            act()
            with pytest.raises(records.WorkdirError, match='run it again'):
                self.collect(workdir)

    def test_seeds_of_two_sweeps(self, workdir):
        """Those of both, where a row is the same; the new ones where both have one."""
        old = self.collect(workdir, hardware='another')
        new = self.collect(workdir)
        first, second = new['rows']
        first |= {'seeds': [3, 1], 'last': [30.0, 40.0], 'best': [3.0, 4.0]}
        first |= {'date': '2026-02-01', 'commit': 'other'}
        second |= {'changes': {'seed': 1}, 'seeds': [5]}
        old['rows'].append({'name': 'gone'})
        a, b, gone = results.merged(old, new)['rows']
        assert (a['seeds'], a['last']) == ([0, 1, 3], [20.0, 40.0, 30.0])
        assert (a['mean'], a['std']) == (30.0, 10.0)
        assert (a['date'], a['commit']) == ('2026-02-01', 'abc1234, other')
        assert a['hardware'] == 'another; a machine'
        third = {'config': 'a.py', 'rows': [first | {'seeds': [7, 8]}]}
        third = results.merged({'rows': [a]}, third)
        assert third['command'].endswith(
            '--config=a.py --workdir=WORKDIR --seeds=0,1,3,7,8'
        )
        third = third['rows'][0]
        assert third['hardware'] == 'another; a machine'  # each of them once
        assert b['seeds'] == [5]
        assert gone == {'name': 'gone'}
        anew = {'config': 'a.py', 'rows': [first | {'seeds': [1, 0]}]}
        assert results.merged(old, anew)['rows'][0] == anew['rows'][0]
        with pytest.raises(records.WorkdirError, match='some.py that is no sweep'):
            results.merged({'last': [1.0]}, new)

    def test_what_another_criterion_has_measured(self, workdir):
        """It has no line, nothing is added to it, and it keeps its mark."""
        old = self.collect(workdir) | {'criterion': 'before'}
        new = self.collect(workdir)
        new['rows'] = [new['rows'][0] | {'seeds': [3, 1]}]
        merged = results.merged(old, new)
        assert 'criterion' not in merged
        first, second = merged['rows']
        assert first == new['rows'][0]
        assert second['criterion'] == 'before'
        lines = [{'record': 'some', 'row': row['name']} for row in merged['rows']]
        gone = [{'record': 'some', 'row': second['name']}]
        contents = [{'title': 'A', 'lines': lines}, {'title': 'B', 'lines': gone}]
        (workdir / 'table.json').write_text(json.dumps(contents))
        records.write_data(workdir, 'some', merged)
        head, _, only = results.table(workdir).splitlines()
        assert head.startswith('| A |')
        assert only.startswith('| a plain |')

    def test_curves(self, workdir):
        for seed in (0, 1):
            path = sweep.folder_of(workdir, 'a plain', seed) / 'metrics.jsonl'
            lines = [
                {'step': e, 'epoch': e, 'split': 'eval', 'error': e / 7 + seed}
                for e in (1, 2)
            ]
            path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
            other = sweep.folder_of(workdir, 'b, 0.5', seed) / 'metrics.jsonl'
            other.write_text('')
        names = ('eval/error', 'test/error')
        old, new = (self.collect(workdir, curves=names) for _ in range(2))
        first, second = new['rows']
        curve = {'epochs': [1, 2], 'values': [[0.1429, 0.2857], [1.143, 1.286]]}
        assert (first['curves'], second['curves']) == ({'eval/error': curve}, {})
        first['seeds'] = [1, 2]
        found = results.merged(old, new)['rows'][0]['curves']['eval/error']['values']
        assert found == [[0.1429, 0.2857], [0.1429, 0.2857], [1.143, 1.286]]

    def test_what_is_missing(self, workdir):
        records.write_data(workdir, 'some', self.collect(workdir))
        with pytest.raises(records.WorkdirError, match="no row 'c'"):
            results.line(workdir, 'some', 'c')
        (sweep.folder_of(workdir, 'a plain', 1) / 'summary.json').unlink()
        with pytest.raises(records.WorkdirError, match=r'no summary\.json'):
            self.collect(workdir)
        (workdir / 'sweep.json').unlink()
        with pytest.raises(records.WorkdirError, match='cannot be read'):
            self.collect(workdir)
        with pytest.raises(ValueError, match='has no <!-- results -->'):
            results.written('a document', 'a table')

    def test_by_command(self, workdir):
        config = workdir / 'some.py'
        config.write_text("PUBLISHED = {'a plain': '20.5'}\n")

        def launch(*arguments):
            return runs.launch('results', *arguments, cwd=workdir)

        result = launch('--collect=.', '--config=some.py', '--data=.')
        assert result.returncode == 1
        assert result.stderr == 'results: say by --hardware what it ran on\n'
        result = launch(
            '--collect=.', '--config=some.py', '--data=.', '--hardware=a machine'
        )
        assert result.stdout == 'some.json\n', result.stderr
        record = json.loads((workdir / 'some.json').read_text())
        assert record['rows'][0]['published'] == '20.5'
        result = launch(
            '--collect=.', '--config=some.py:big', '--hardware=it', '--data=.'
        )
        assert result.stdout == 'some_big.json\n', result.stderr
        result = launch('--data=.')
        assert result.returncode == 1
        assert 'table.json cannot be read' in result.stderr
