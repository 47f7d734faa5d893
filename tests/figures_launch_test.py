"""launch/figures.py as users run it: one command from nothing to the pictures."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import runs

ROOT = pathlib.Path(__file__).parents[1]
NETWORK = {'sizes': [64, 8, 6, 10], 'angle': 90.0, 'num_images': 3, 'seed': 0}


@pytest.fixture
def launch(tmp_path):
    """Runs launch/figures.py on a tiny network in another process."""

    def run(*arguments):
        return subprocess.run(
            [
                sys.executable,
                ROOT / 'launch' / 'figures.py',
                f'--out={tmp_path / "images"}',
                f'--data={tmp_path / "data"}',
                f'--compilation_cache={ROOT / ".cache" / "jax"}',
                '--sizes=64,8,6,10',
                '--num_images=3',
                '--points=2',
                '--num_points=2',
                *arguments,
            ],
            cwd=tmp_path,
            env=os.environ | {'JAX_PLATFORMS': 'cpu'},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def measure(tmp_path, launch):
    """Makes one figure; returns its data."""

    def run(name, **changes):
        result = launch(f'--figure={name}')
        assert result.returncode == 0, result.stderr[-500:]
        assert result.stdout == f'{tmp_path / "images" / name}.png\n'
        assert (tmp_path / 'images' / f'{name}.png').stat().st_size > 10_000
        data = json.loads((tmp_path / 'data' / f'{name}.json').read_text())
        assert data['run']['command'] == (
            f'python launch/figures.py --figure={name} --sizes=64,8,6,10 '
            '--num_images=3 --num_points=2 --points=2'
        )
        assert data['network'] == NETWORK | changes
        return data

    return run


@pytest.mark.whole
def test_three_jacobians_by_one_command(measure):
    data = measure('fig1', sizes=[64, 20, 16, 12, 10])
    tied, untied, forward = data['networks'].values()
    assert tied['symmetric_share'] == pytest.approx(1)
    assert tied['cosine'] == pytest.approx(1)
    for layer, exact in tied['exact'].items():
        np.testing.assert_allclose(tied['response'][layer], exact, atol=1e-5)
    assert 0.45 < untied['symmetric_share'] < 0.6
    assert untied['cosine'] < 0.9
    J = np.array(forward['jacobian'])
    assert J.shape == (48, 48)
    np.testing.assert_array_equal(np.triu(J), 0)
    assert forward['symmetric_share'] == pytest.approx(0.5)
    below, above = forward['response']['layer_2'], forward['response']['layer_3']
    assert not any(below)
    np.testing.assert_allclose(above, forward['exact']['layer_3'], atol=1e-5)


@pytest.mark.whole
def test_both_biases_by_one_command(measure):
    data = measure('fig2')
    tied, untied = data['errors']['tied'], data['errors']['untied']
    assert data['radii'] == [1e-4, 1.0]
    assert tied['N = 4'][0] < 1e-9 < 1e-5 < tied['N = 1'][0] < 1e-3
    corrected = untied.pop('N = 4, corrected')
    assert corrected[0] < 1e-9
    assert all(errors[0] > 0.1 for errors in untied.values())  # of the asymmetry
    aligned, crossed = data['cosines']
    assert (data['angles'], len(aligned)) == ([0, 90], 48)
    np.testing.assert_allclose(aligned, 1)  # the transposes: symmetric
    assert np.mean(crossed) < 0.95
    assert list(data['layers']) == ['layer_1', 'layer_2']
    assert np.mean(data['layers']['layer_2']) > np.mean(data['layers']['layer_1'])
    quick, slow, _ = (columns['error'] for columns in data['turning']['errors'])
    assert slow[-1] < 0.1 * quick[-1]  # after whole turns; slower ones leave this state
    assert len(data['turning']['units']) == 4


@pytest.mark.whole
def test_convergence_by_one_command(measure):
    data = measure('convergence')
    assert data['radii'] == [1e-9, 1.0]
    single, double = (data['panels'][name] for name in ('float32', 'float64'))
    assert double['errors']['complex step'][0] < 1e-12
    assert single['errors']['complex step'][0] < 2e-6
    assert single['errors']['N = 2'][0] > 0.1
    assert double['orders'] == {'N = 2': None, 'complex step': None}  # of two radii


@pytest.mark.whole
def test_order_by_one_command(measure):
    """Of sixteen layers the bottom one hears of the nudge seven sweeps earlier."""
    data = measure('order', width=64)
    deep = data['curves']['16 layers']
    np.testing.assert_allclose(
        deep['from the top'][:-7], deep['odd and even'][7:], rtol=0.2
    )
    assert deep['odd and even'][:7] == pytest.approx([1] * 7)
    assert data['curves']['2 layers']['from the top'][-1] < 1e-6


@pytest.mark.whole
def test_oscillation_by_one_command(measure):
    data = measure('oscillation')
    assert data['sweeps'] == [1, 128]
    slow, patient = data['patience']['float64']
    assert patient < 1e-11 < 1e-2 < slow
    few, many = data['online']['errors']
    online = data['online']['at_equilibrium']
    assert many == pytest.approx(np.hypot(few / 16, online), rel=0.3)
    for pairs, beta in zip(data['one_sided'], (0.5, 0.1), strict=True):
        assert (pairs['beta'], pairs['periods']) == (beta, [0.5, 1, 256])
        assert pairs['errors'][0] > few > many
        assert pairs['errors'][-1] > pairs['at_equilibrium'] > beta / 2


@pytest.mark.whole
def test_processes_by_one_command(tmp_path, measure, launch):
    data = measure('processes')
    tied, untied = (data['networks'][name] for name in ('tied', 'untied'))
    assert max(tied['distance']) < 1e-9
    assert untied['distance'][0] < 1e-9
    assert min(untied['distance'][2:]) > 0.01
    assert list(tied['layers']) == ['layer_1', 'layer_2']

    path = tmp_path / 'images' / 'processes.png'
    before = path.read_bytes()
    path.unlink()
    result = launch('--draw_only', '--figure=processes', '--figure=processes')
    assert result.returncode == 0, result.stderr[-500:]
    assert result.stdout == f'{path}\n'
    assert path.read_bytes() == before


@pytest.mark.parametrize(('kind', 'head'), [('svg', b'<?xml'), ('pdf', b'%PDF')])
def test_vector_formats(tmp_path, kind, head):
    """The same numbers give the same file, whenever it is drawn."""
    found = []
    for folder in (tmp_path / 'one', tmp_path / 'two'):
        result = runs.launch(
            'figures',
            f'--out={folder}',
            f'--data={ROOT / "results" / "figures"}',
            '--draw_only',
            '--figure=order',
            f'--format={kind}',
        )
        assert result.stdout == f'{folder / "order"}.{kind}\n'
        found.append((folder / f'order.{kind}').read_bytes())
    assert found[0] == found[1]
    assert found[0].startswith(head)


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (
            ['--figure=processes,magic'],
            "'magic'; choose from convergence, order, oscillation, processes, "
            'scaling, devices, fig1, fig2, fig3, fig4, fig5, nudging, correction, all',
        ),
        (['--draw_only', '--figure=processes'], 'has no processes.json'),
        (['--sizes=64,many'], '--sizes=64,many: '),
        (['--sizes=64,8,3'], '--sizes=64,8,3: '),
        (['--num_points=2,0'], '--num_points=2,0: '),
    ],
)
def test_mistakes(tmp_path, arguments, part):
    images, data = f'--out={tmp_path / "images"}', f'--data={tmp_path / "data"}'
    result = runs.launch('figures', images, data, *arguments)
    assert result.returncode == 1
    assert part in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ''
    assert not (tmp_path / 'images').exists()
