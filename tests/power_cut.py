"""Power cuts at random moments of a run: what was saved is there, and nothing damaged.

    sudo python tests/power_cut.py --kind=ext4 --cuts=12

As root, where loop devices can be mounted and mkfs.ext4 or mkfs.xfs is installed;
pytest does not collect it. A file system in a file is shut down by the ioctl that file
systems have for tests like this one: what was not brought to the disk is lost. It is
mounted again, the run goes on by the same command, is cut again, and at last compared
with one that nothing has disturbed, to the bit. --no_sync leaves out every fsync of
Python's: the same cuts are then seen to do damage.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
from orbax.checkpoint import v1 as ocp

ROOT = pathlib.Path(__file__).parents[1]
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32)
FLAGS = (1, 2, 2)  # with what is in the journal, or without
MIB = 400  # XFS takes no less than 300
SECONDS = 60  # that a run may take to its first record, or to leave
TRAIN = (
    '--config=configs/digits_mlp.py',
    '--config.num_epochs=8',
    '--config.log_every_steps=4',
    '--config.eval_every_steps=8',
    '--config.data.num_train=600',
    '--config.diagnostics.every_evals=0',
    '--save_every=0',
)
UNSYNCED = (
    'import os, runpy, sys; os.fsync = lambda file: None; del sys.argv[0];'
    'sys.path.insert(0, "launch"); runpy.run_path(sys.argv[0], run_name="__main__")'
)


class Disk:
    """A file system in a file, mounted at a folder, whose power can be cut."""

    def __init__(self, kind: str, place: pathlib.Path):
        self.image, self.folder = place / f'{kind}.img', place / kind
        self.folder.mkdir()
        with self.image.open('wb') as file:
            file.truncate(MIB * 2**20)
        quiet, force = ('-q', '-F') if kind == 'ext4' else ('-q', '-f')
        call(f'mkfs.{kind}', quiet, force, self.image)
        self.mount()

    def mount(self) -> None:
        call('mount', '-o', 'loop', self.image, self.folder)

    def cut(self, flag: int) -> None:
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(opened, SHUTDOWN, struct.pack('I', flag))
        finally:
            os.close(opened)

    def unmount(self) -> None:
        for _ in range(50):
            if subprocess.run(['umount', self.folder], capture_output=True).returncode:
                time.sleep(0.2)
            else:
                return
        call('umount', self.folder)


def call(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True)


class Damage(Exception):  # noqa: N818, what is looked for
    """Something that was saved is lost."""


class Run:
    """A run in a workdir, in processes of its own."""

    def __init__(self, workdir: pathlib.Path, cache: pathlib.Path, *, sync: bool):
        self.workdir = workdir
        start = ['-c', UNSYNCED, 'launch/train.py'] if not sync else ['launch/train.py']
        own = (f'--workdir={workdir}', f'--compilation_cache={cache}')
        self.command = [sys.executable, *start, *TRAIN, *own]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=os.environ
            | {
                'JAX_PLATFORMS': 'cpu',
                'PYTHONPATH': str(ROOT),
                'PYTHONFAULTHANDLER': '1',
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def written(self) -> int:
        """Returns when the records were written to."""
        with contextlib.suppress(OSError):
            return (self.workdir / 'metrics.jsonl').stat().st_mtime_ns
        return 0

    def finished(self) -> list[int]:
        """Returns the checkpoints that have their sums, the last one last."""
        paths = (self.workdir / 'checkpoint').glob('*/SHA256SUMS')
        names = (path.parent.name for path in paths)
        return sorted(int(name) for name in names if name.isdecimal())

    def outcome(self) -> dict[str, object]:
        """Returns all that a run comes to, but for what is timed."""
        lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:
            row.pop('examples_per_second', None)
        summary = json.loads((self.workdir / 'summary.json').read_text())
        (best,) = (self.workdir / 'checkpoint').glob('best_*')
        states = [self.workdir / 'checkpoint' / str(self.finished()[-1]), best]
        return {
            'records': rows,
            'summary': {key: summary[key] for key in ('last', 'best', 'seed')},
            'config': json.loads((self.workdir / 'config.json').read_text()),
            'states': [
                {name: np.asarray(a).tobytes() for name, a in ocp.load(state).items()}
                for state in map(str, states)
            ],
        }


def end(process: subprocess.Popen[str]) -> str:
    """Waits for a process, not for ever, and returns what it said."""
    try:
        return process.communicate(timeout=SECONDS)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it says where it hangs
        return process.communicate()[1]


def check(said: str) -> None:
    """Raises Damage if a run that goes on says that something is damaged or lost."""
    found = re.search(r'[^\n]*(is damaged|are lost|cannot be read)[^\n]*', said)
    if found:
        raise Damage(found[0])


def cut_once(disk: Disk, run: Run, draw: random.Random, span: float) -> bool:
    """Lets a run go on and cuts its power; returns whether it ended before that.

    The checkpoint before the newest one that was finished has to be there afterwards.
    Most cuts come after a new checkpoint, some already as the run begins to write.
    """
    seen = draw.choice((run.finished, run.finished, run.finished, run.written))
    before, process = seen(), run.start()
    deadline = time.monotonic() + SECONDS
    while seen() == before and process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f'nothing written within {SECONDS} s')
        time.sleep(0.002)
    time.sleep(draw.uniform(0, span))
    finished = run.finished()
    if process.poll() is not None:
        said = end(process)
        check(said)
        if process.returncode:
            raise Damage(f'exit code {process.returncode}: {said[-500:]}')
        return True
    flag = draw.choice(FLAGS)
    disk.cut(flag)
    begin = time.monotonic()
    said = end(process)
    left = time.monotonic() - begin
    disk.unmount()
    disk.mount()
    there = run.finished()
    if 'Fatal Python error' in said:
        print(said, file=sys.stderr)
    print(
        f'cut (flag {flag}) with checkpoints {finished}; after it {there}; '
        f'the process left after {left:.1f} s, exit code {process.returncode}',
        flush=True,
    )
    check(said.partition('cannot write')[0])
    if finished[1:] and (not there or there[-1] < finished[-2]):
        raise Damage(f'checkpoint {finished[-2]} is lost')
    return False


def compare(run: Run, wanted: dict[str, object]) -> None:
    """Raises Damage unless a run that has ended is the undisturbed one."""
    found = run.outcome()
    differ = [key for key in wanted if found[key] != wanted[key]]
    if differ:
        raise Damage(f'{", ".join(differ)} differ from the undisturbed run')


def main() -> None:
    """Cuts the power as often as it is told; exits with 1 at the first damage."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kind', default='ext4', choices=('ext4', 'xfs'))
    parser.add_argument('--cuts', type=int, default=12)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--no_sync', action='store_true')
    options = parser.parse_args()
    draw, left = random.Random(options.seed), options.cuts
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        place = pathlib.Path(name)
        disk = Disk(options.kind, place)
        stack.callback(disk.unmount)
        whole = Run(place / 'whole', place / 'cache', sync=not options.no_sync)
        process = whole.start()
        while not whole.finished():
            time.sleep(0.01)
        begin = time.monotonic()
        said = end(process)
        span = time.monotonic() - begin
        if process.returncode:
            raise SystemExit(said)
        wanted, number = whole.outcome(), 0
        print(f'undisturbed: {span:.1f} s from the first checkpoint', flush=True)
        try:
            while left:
                number += 1
                workdir = disk.folder / 'runs' / str(number)
                run = Run(workdir, place / 'cache', sync=not options.no_sync)
                ended = False
                while left and not ended:
                    ended = cut_once(disk, run, draw, span / 4)
                    left -= not ended
                if not ended:
                    process = run.start()
                    check(end(process))
                compare(run, wanted)
                print(f'run {number} came to the same end', flush=True)
        except Damage as damage:
            print(f'damage after {options.cuts - left} cuts: {damage}')
            raise SystemExit(1) from None
    print(f'{options.kind}: {options.cuts} cuts, no damage')


if __name__ == '__main__':
    main()
