"""Bytes between devices against closed forms, on paper, and the picture of them."""

import jax
import jax.numpy as jnp
import pytest
import runs
from jax import lax
from jax.sharding import PartitionSpec

from eqprop_jax import records
from experiments import budget
from experiments.benchmark import communication, devices
from experiments.figures import devices as figure

pytestmark = pytest.mark.whole

CHIP = budget.Chip(rate=1e9, memory=1e9, traffic=1e7)
NUMBERS = 24
SIZE = 4 * NUMBERS  # bytes
CIRCLE = {  # of 3 phases; the rest is quicker to compile
    'estimator.num_points': 4,
    'estimator.radius': 0.2,
    'estimator.batched': True,
    'solver.compact': False,
    'nudged_solver.compact': False,
}
LARGEST, SUMS = 3, 10  # metrics; with the examples kept, and all, beside the gradient
PARAMS = 64 * 16 + 2 * 16 * 16 + 16 * 10 + 16 + 16 + 10


def messages(fn, *shape):
    """Returns those of fn on numbers in single precision, which every device has."""
    divided = jax.shard_map(
        fn,
        mesh=jax.make_mesh(shape, ('data', 'contour')[: len(shape)]),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    x = jnp.ones(NUMBERS, jnp.float32)
    return communication.collectives(jax.jit(divided).lower(x).compile())


def build(batch_size, data, contour):
    """Returns the tiny run on the digits on so many devices."""
    changes = {'batch_size': batch_size, 'mesh.data': data, 'mesh.contour': contour}
    return runs.experiment(CIRCLE | changes)


@pytest.mark.parametrize('count', [2, 4, 8])
def test_messages_on_a_ring(count):
    """All of them on devices in a row."""
    ring = [(index, (index + 1) % count) for index in range(count)]
    share = (count - 1) / count
    for fn, kind, size, sent in (
        (lambda x: lax.psum(x, 'data'), 'all-reduce', SIZE, 2 * share * SIZE),
        (lambda x: lax.pmax(x, 'data'), 'all-reduce', SIZE, 2 * share * SIZE),
        (
            lambda x: lax.psum_scatter(x, 'data', tiled=True),
            *('reduce-scatter', SIZE, share * SIZE),
        ),
        (
            lambda x: lax.all_gather(x, 'data'),
            *('all-gather', count * SIZE, (count - 1) * SIZE),
        ),
        (
            lambda x: lax.all_to_all(x, 'data', 0, 0, tiled=True),
            *('all-to-all', SIZE, share * SIZE),
        ),
        (lambda x: lax.ppermute(x, 'data', ring), 'collective-permute', SIZE, SIZE),
    ):
        (found,) = messages(fn, count)
        assert found == (kind, count, size, 0)
        assert found.sent == pytest.approx(sent)


@pytest.mark.parametrize(
    ('axes', 'count'), [('data', 4), ('contour', 2), (('data', 'contour'), 8)]
)
def test_messages_along_axes(axes, count):
    (found,) = messages(lambda x: lax.psum(x, axes), 4, 2)
    assert found == ('all-reduce', count, SIZE, 0)


def test_one_device_sends_nothing():
    assert sum(found.sent for found in messages(lambda x: lax.psum(x, 'data'), 1)) == 0


def test_arrays_of_one_message_are_taken_together():
    def both(x):
        return lax.psum((x, x[:6].astype(jnp.int8)[:, None]), 'data')

    found = messages(both, 4)
    assert sum(one.size for one in found) == SIZE + 6


def test_a_loop_counts_once():
    def inner(x):
        return lax.fori_loop(0, jnp.int32(x[0]), lambda _, x: lax.pmean(x, 'data'), x)

    def outer(x):
        x = lax.while_loop(lambda x: x[0] < 3, lambda x: inner(x) + 1, x)
        return lax.psum(x[:6], 'data')

    found = messages(outer, 2)
    assert sorted((one.size, one.loops) for one in found) == [(24, 0), (SIZE, 2)]


LINES = {
    '%a = f32[6,4]{1,0:T(8,128)} all-reduce(%x), replica_groups=[2,4]<=[8]': (
        *('all-reduce', 4, 96),
    ),
    '%a = (bf16[6]{0}, s4[4]{0}) all-reduce(%x, %y), replica_groups={}': (
        *('all-reduce', 8, 14),
    ),
    'a = f32[24] all-reduce-start(x), replica_groups=[4,2]<=[2,4]T(1,0)': (
        *('all-reduce', 2, 96),
    ),
    'a = f32[24] all-reduce-done(x)': None,
    '%a = ((f32[2]{0}, pred[3]), (f32[8]{0}, /*index=1*/pred[12])) '
    'all-gather-start(%x, %y), replica_groups={{0,1,2,3},{4,5,6,7}}': (
        *('all-gather', 4, 44),
    ),
    '%a = ((c64[8]), c64[2]{0}, u32[]) reduce-scatter-start(%x), '
    'replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add': ('reduce-scatter', 4, 64),
    'ROOT %a = (f32[6]{0}, f32[6]{0}) all-to-all(%x, %y), replica_groups={{0,1},{2}}': (
        'all-to-all',
        2,
        48,
    ),
    '%a = (u8[7], u8[7], u32[], u32[]) collective-permute-start(%x), '
    'source_target_pairs={{0,1},{1,0},{2,2}}': ('collective-permute', 2, 7),
    '%a = f32[6] collective-permute(%x), source_target_pairs={{0,0}}': (
        *('collective-permute', 0, 24),
    ),
    '%all-gather.1 = f32[6] add(%all-reduce, %x), metadata={op_name="all-reduce("}': (
        None
    ),
    '%a = (f32[6], u32[], token[]) send(%x), is_host_transfer=true': None,
}


def module(line):
    return (
        'HloModule m, is_scheduled=true, replica_count=2, num_partitions=4\n\n'
        '%add (x: f32[], y: f32[]) -> f32[] {\n'
        '  ROOT %s = f32[] add(%x, %y)\n}\n\n'
        f'ENTRY %main (x: f32[6]) -> f32[6] {{\n  {line}\n}}\n'
    )


@pytest.mark.parametrize('line', LINES)
def test_spellings(line):
    wanted = LINES[line]
    found = communication.read(module(line))
    assert found == ([(*wanted, 0)] if wanted else [])
    if wanted and wanted[0] == 'collective-permute':
        assert found[0].sent == (7 if wanted[1] else 0)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('all-reduce', 'no HLO module'),
        (module('%a = f32[6] ragged-all-to-all(%x)'), 'ragged-all-to-all: what it'),
        (module("%a = f32[6] all-reduce(%x), replica_groups=mesh['x'=8]"), 'cannot'),
    ],
)
def test_what_is_not_known_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        communication.read(text)


@pytest.fixture(scope='module')
def four_by_two():
    """Messages of four parts of a batch of 20, by two devices to a contour."""
    with jax.enable_x64(False):
        return communication.collectives(devices.compiled(build(20, 4, 2)))


def test_what_a_training_step_sends(four_by_two):
    assert {message.loops for message in four_by_two} == {1}  # nothing within a phase
    by_kind = {}
    for message in four_by_two:
        key = message.kind, message.devices
        by_kind[key] = by_kind.get(key, 0) + message.size
    assert by_kind == {
        ('reduce-scatter', 4): 20 * (64 + 4),  # images and labels
        ('all-reduce', 2): 5 * 4 * (16 + 16),  # errors
        ('all-gather', 2): 4 * 5 * (4 + 4 + 1),  # a filler beside three phases
        ('all-reduce', 8): 4 * (PARAMS + SUMS + LARGEST),
    }


@pytest.fixture(scope='module')
def data():
    with jax.enable_x64(False):
        return devices.devices_data(
            {'tiny': devices.Case(build, strong=12, weak=6)},
            CHIP,
            divisions=(2,),
            sharing=(1, 3),
            most=8,
            num_steps=2,
        )


def demanded(data):
    """Returns what the tiny run asks for."""
    asked = {name: data['network']['tiny'][name] for name in devices.Demand._fields}
    return devices.Demand(**asked | {'size': budget.Size(**asked['size'])})


def test_programs_send_what_is_on_paper(data):
    for kinds in data['curves']['tiny'].values():
        for kind, curves in kinds.items():
            paper = dict(
                zip(curves['paper']['devices'], curves['paper']['bytes'], strict=True)
            )
            compiled = curves['compiled']
            assert compiled['bytes'] == pytest.approx(
                [paper[count] for count in compiled['devices']]
            )
            assert compiled['batch_size'] == [
                12 if kind == 'strong' else 6 * count for count in compiled['devices']
            ]


def test_what_a_step_takes(data):
    asked, size = data['network']['tiny'], data['network']['tiny']['size']
    assert (size['params'], asked['image']) == (PARAMS, 68)
    assert (asked['sums'], asked['largest']) == (SUMS, LARGEST)
    inputs, drive = 2 * 64 * 16, 2 * 2 * 16 * 16
    curves = data['curves']['tiny']
    one = curves['1']['strong']['paper']
    phases = asked['free'] + (1 + 1 + 2) * asked['nudged']
    each = inputs + phases * drive + size['rule']
    assert one['devices'] == [1, 2, 4, 8]
    assert one['operations'] == [12 * each, 6 * each, 3 * each, 2 * each]
    alone, two = (
        each * count / (1e9 * count / (count + 1)) + sent / 1e7
        for count, sent in zip((12, 6), one['bytes'][:2], strict=True)
    )
    assert one['seconds'][:2] == pytest.approx([alone, two], rel=1e-5)
    assert one['relative'][:2] == pytest.approx([1, alone / two], rel=1e-5)
    phases = asked['free'] + 2 * asked['nudged']  # all are complex
    each = inputs + phases * drive + size['rule']
    for kind, count in (('strong', 6), ('weak', 18)):
        shared = curves['3'][kind]['compiled']
        assert (shared['devices'], shared['operations']) == ([6], [count * each])


def test_two_devices_share_three_phases(data, four_by_two):
    """One of them has two, the other one and a filler."""
    asked = demanded(data)
    found = devices.step(asked, CHIP, 20, 4, 2)
    sent = sum(message.sent for message in four_by_two)
    assert sum(found.sent.values()) == pytest.approx(sent)
    size, evaluations = asked.size, asked.free + 2 * 2 * asked.nudged
    each = size.inject + evaluations * size.drive + size.rule
    assert found.operations == 5 * each
    with pytest.raises(ValueError, match='3 phases cannot be divided among 4'):
        devices.step(asked, CHIP, 8, 1, 4)


def test_the_picture(tmp_path, data):
    records.write_data(tmp_path, 'devices', data)
    path = figure.draw(tmp_path, tmp_path / 'images')
    assert path == tmp_path / 'images' / 'devices.png'
    assert len(path.read_bytes()) > 20_000
