"""Runs that are trained in one program are those that each would be by itself."""

import json

import jax
import numpy as np
import pytest
import runs

from eqprop_jax import checkpoint, records, training
from eqprop_jax.training import programs
from eqprop_jax.training.state import init_state
from eqprop_jax.training.together import Runs

pytestmark = pytest.mark.whole

BASE = {
    'optimizer.name': 'sgd',
    'optimizer.learning_rate': 0.1,
    'eval_every_steps': 4,
    'diagnostics.every_evals': 2,
    'homeostasis.weight': 0.1,
    'homeostasis.fraction': 0.5,
    'optimizer.weight_decay': 1e-3,
    'optimizer.schedule': 'cosine',
    'optimizer.warmup_steps': 2,
}
VARIANTS = (
    {'seed': 0},
    {'seed': 1},
    {'seed': 1, 'optimizer.learning_rate': 0.3},
    {'seed': 2, 'homeostasis.weight': 1.0, 'optimizer.weight_decay': 0.01},
    {'seed': 3},
)


def experiments(variants=VARIANTS, base=BASE):
    return [runs.experiment(base | changes) for changes in variants]


def together(folder, how=None, variants=VARIANTS, base=BASE, **options):
    """Returns the ends of runs that are trained together, and their workdirs."""
    workdirs = [folder / str(number) for number in range(len(variants))]
    ends = training.train_together(
        experiments(variants, base), workdirs, how=how, progress=False, **options
    )
    return ends, workdirs


def rows_of(workdir):
    rows = records.read(workdir)
    for row in rows:
        row.pop('examples_per_second', None)
    return rows


def assert_same_runs(workdirs, others):
    for one, other in zip(workdirs, others, strict=True):
        for row, wanted in zip(rows_of(one), rows_of(other), strict=True):
            assert row.keys() == wanted.keys()
            for name in row.keys() - {'split'}:
                np.testing.assert_allclose(
                    row[name], wanted[name], rtol=3e-3, atol=1e-6, err_msg=name
                )
        like = init_state(runs.experiment(BASE))
        states = [checkpoint.restore(folder, like) for folder in (one, other)]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *states
        )


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The workdirs of the runs, trained one by one."""
    folder = tmp_path_factory.mktemp('alone')
    workdirs = []
    for number, experiment in enumerate(experiments()):
        workdirs.append(folder / str(number))
        runs.train(experiment, workdirs[-1])
    return workdirs


@pytest.mark.parametrize('how', programs.WAYS)
def test_they_are_the_same(tmp_path, alone, how):
    """On eight devices, one for each of the runs."""
    ends, workdirs = together(tmp_path, how)
    assert_same_runs(workdirs, alone)
    for end, workdir in zip(ends, workdirs, strict=True):
        restored = checkpoint.restore(workdir, init_state(runs.experiment(BASE)))
        runs.assert_equal(jax.device_get(restored), end)
    seeds = [json.loads((w / records.SUMMARY).read_text())['seed'] for w in workdirs]
    assert seeds == [0, 1, 1, 2, 3]


@pytest.mark.parametrize('how', programs.WAYS)
def test_several_on_a_device(how):
    """Five runs on two devices of two each, one row filled up."""
    changes = [{'mesh.data': 4} | variant for variant in VARIANTS]
    group = experiments(changes)
    packed = Runs(group, how)
    assert dict(packed._mesh.shape) == {'runs': 2, 'data': 4, 'contour': 1}
    state = packed.pack([init_state(run) for run in group])
    assert len(state.step) == 6
    state, chunks = packed.train(state, 1, 0, 3)
    for index, run in enumerate(experiments()):
        wanted, chunk = runs.run_chunk(run, init_state(run), 1, 0, 3)
        found = packed.unpack(state)[index]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            (found.params, chunks[index].metrics),
            (wanted.params, chunk.metrics),
        )


def test_one_that_breaks_off_leaves_the_others_alone(tmp_path, alone):
    wild = {'seed': 1, 'optimizer.learning_rate': 1e38}
    variants = (VARIANTS[0], wild, VARIANTS[4])
    ends, workdirs = together(tmp_path, variants=variants)
    assert isinstance(ends[1], training.TrainingError)
    assert 'is not finite in' in str(ends[1])
    assert not (workdirs[1] / records.SUMMARY).exists()
    assert not (workdirs[1] / 'checkpoint').exists()
    with pytest.raises(training.TrainingError) as raised:
        runs.train(experiments([wild])[0], tmp_path / 'wild')
    assert str(raised.value).partition('(')[0] == str(ends[1]).partition('(')[0]
    assert_same_runs([workdirs[0], workdirs[2]], [alone[0], alone[4]])


def test_all_break_off(tmp_path):
    wild = {'optimizer.learning_rate': 1e38}
    ends, _ = together(tmp_path, variants=({'seed': 0} | wild, {'seed': 1} | wild))
    assert all(isinstance(end, training.TrainingError) for end in ends)


def test_they_go_on_from_where_each_was(tmp_path, monkeypatch, alone):
    """Two of them from one step, and one from the start."""

    class CrashError(Exception):
        pass

    calls = []
    evaluate = Runs.evaluate

    def crash(self, state):
        calls.append(state)
        if len(calls) == 2:
            raise CrashError
        return evaluate(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Runs, 'evaluate', crash)
        with pytest.raises(CrashError):
            together(tmp_path, variants=VARIANTS[:2], save_every=0.0)
    assert all(records.is_unfinished(tmp_path / str(number)) for number in range(2))
    begun = []
    pack = Runs.pack

    def counted(self, trees):
        begun.extend(int(t.step) for t in trees if hasattr(t, 'opt_state'))
        return pack(self, trees)

    with monkeypatch.context() as patch:
        patch.setattr(Runs, 'pack', counted)
        _, workdirs = together(tmp_path, variants=VARIANTS[:3])
    assert begun[0] == 0
    assert begun[1] == begun[2] > 0
    assert_same_runs(workdirs, alone[:3])


def test_of_runs_that_have_ended_the_others_are_trained(tmp_path, alone):
    ends, (first,) = together(tmp_path, variants=VARIANTS[:1])
    before = (first / records.METRICS).read_bytes()
    again, workdirs = together(tmp_path, variants=VARIANTS[:2])
    runs.assert_equal(jax.device_get(again[0]), jax.device_get(ends[0]))
    assert (first / records.METRICS).read_bytes() == before
    assert_same_runs(workdirs, alone[:2])


def test_an_unknown_way():
    with pytest.raises(ValueError, match="no way 'twice'; choose from vmap, map"):
        Runs(experiments(VARIANTS[:2]), 'twice')
