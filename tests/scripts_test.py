"""The launch scripts, with stand-ins for srun, scontrol and gcloud."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.whole

LAUNCH = pathlib.Path(__file__).parents[1] / 'launch'
# All that the scripts need; so no gcloud of this machine is ever called.
TOOLS = 'bash cat dirname env git gzip mkdir mktemp rm sed seq sleep touch'
SIZES = '--config.system.sizes=(64, 8)'

SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >>"$LOG"
echo "gpus=$JAX_LOCAL_DEVICE_IDS cpus=$SRUN_CPUS_PER_TASK" >>"$LOG"
if [ -n "$CANCEL" ]; then kill -TERM "$PPID"; fi
exit "${CODE:-0}"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$LOG"
exit "${SCONTROL_CODE:-0}"
"""
GCLOUD = """#!/usr/bin/env bash
echo "$*" >>"$LOG"
if [ -n "$HANG" ] && [[ "$*" = *"$HANG"* ]]; then
  trap 'echo ended >>"$LOG"; exit 1' TERM
  touch "$LOG.hangs"
  sleep 60 &
  wait
fi
if [ -n "$FAIL" ] && [[ "$*" = *"$FAIL"* ]]; then exit "$CODE"; fi
case "$*" in
  *" describe "*) [ -e "$LOG.vm" ] ;;
  *" create "*) touch "$LOG.vm" ;;
  *" delete "*) rm "$LOG.vm" ;;
esac
"""


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def env(tmp_path):
    """An environment whose PATH has TOOLS alone; $LOG is where stand-ins write."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for tool in TOOLS.split():
        (folder / tool).symlink_to(shutil.which(tool))
    return {
        'PATH': str(folder),
        'HOME': str(tmp_path),
        'LOG': str(tmp_path / 'log'),
        'GIT_CONFIG_GLOBAL': os.devnull,
        'TPU_VM_PAUSE': '0',
    }


def log(env):
    path = pathlib.Path(env['LOG'])
    return path.read_text().splitlines() if path.exists() else []


def one_line(result, code=1):
    assert result.returncode == code, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize('name', ['slurm.sbatch', 'tpu_vm.sh'])
def test_the_syntax(name):
    subprocess.run(['bash', '-n', LAUNCH / name], check=True)


class TestSlurm:
    @pytest.fixture
    def sbatch(self, env, tmp_path):
        """Runs the script as Slurm does: a copy, from the folder of submission."""
        executable(tmp_path / 'bin' / 'srun', SRUN)
        executable(tmp_path / 'bin' / 'scontrol', SCONTROL)
        here = tmp_path / 'repository'
        executable(
            here / '.venv' / 'bin' / 'python',
            f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} "$@"\n',
        )
        executable(here / 'launch' / 'train.py', '')
        copy = shutil.copy(LAUNCH / 'slurm.sbatch', tmp_path / 'slurm_script')

        def run(*arguments, task=None, **variables):
            array = {'SLURM_ARRAY_JOB_ID': '36', 'SLURM_ARRAY_TASK_ID': str(task)}
            return subprocess.run(
                ['bash', copy, *arguments],
                cwd=here,
                env={
                    **env,
                    'SLURM_JOB_ID': '36',
                    **(array if task is not None else {}),
                    **variables,
                },
                capture_output=True,
                text=True,
            )

        run.here = here
        return run

    @pytest.fixture
    def commands(self, sbatch):
        lines = [
            shlex.join(
                [
                    *('python', 'launch/train.py', '--config=configs/x.py'),
                    *(f'--workdir=runs/seed_{seed}', SIZES, f'--config.seed={seed}'),
                ]
            )
            for seed in range(3)
        ]
        (sbatch.here / 'commands.txt').write_text('\n'.join(lines) + '\n')
        return 'commands.txt'

    def test_one_run(self, sbatch, env):
        result = sbatch('--config=configs/x.py', SIZES)
        assert result.returncode == 0, result.stderr
        assert log(env) == [
            '--kill-on-bad-exit=0',
            '--wait=60',
            '.venv/bin/python',
            'launch/train.py',
            '--config=configs/x.py',
            SIZES,
            'gpus= cpus=',
        ]

    def test_a_task_runs_its_line(self, sbatch, commands, env):
        result = sbatch(commands, task=2)
        assert result.returncode == 0, result.stderr
        assert log(env)[2:-1] == [
            '.venv/bin/python',
            'launch/train.py',
            '--config=configs/x.py',
            '--workdir=runs/seed_1',
            SIZES,
            '--config.seed=1',
        ]

    def test_nothing_in_a_line_is_expanded(self, sbatch, env):
        (sbatch.here / 'commands.txt').write_text(
            'python launch/train.py --workdir=$HOME/* $(touch expanded) "a  b"; true'
        )
        assert sbatch('commands.txt', task=1).returncode == 0
        words = ['--workdir=$HOME/*', '$(touch', 'expanded)', 'a  b;', 'true']
        assert log(env)[4:-1] == words

    def test_what_has_finished_is_skipped(self, sbatch, commands, env):
        folder = sbatch.here / 'runs' / 'seed_1'
        folder.mkdir(parents=True)
        (folder / 'summary.json').write_text('{}')
        result = sbatch(commands, task=2)
        assert result.returncode == 0
        assert 'runs/seed_1 has finished' in result.stdout
        assert log(env) == []
        assert sbatch(commands, task=3).returncode == 0
        assert '--workdir=runs/seed_2' in log(env)

    def test_a_run_that_was_asked_to_leave_is_requeued(self, sbatch, commands, env):
        assert sbatch('--config=x', CODE='143').returncode == 143
        assert log(env)[-1] == 'scontrol requeue 36'
        assert sbatch(commands, task=1, CODE='143').returncode == 143
        assert log(env)[-1] == 'scontrol requeue 36_1'  # not 36, the whole array

    @pytest.mark.parametrize('code', [0, 1, 130, 137, 253])
    def test_no_other_is(self, sbatch, env, code):
        assert sbatch('--config=x', CODE=str(code)).returncode == code
        assert 'scontrol' not in ' '.join(log(env))

    def test_a_job_that_slurm_ends_is_not_requeued(self, sbatch, env):
        assert sbatch('--config=x', CODE='143', CANCEL='yes').returncode == 143
        assert 'scontrol' not in ' '.join(log(env))

    def test_restarts_have_an_end(self, sbatch, env):
        result = sbatch('--config=x', CODE='143', SLURM_RESTART_COUNT='100')
        assert 'restarted 100 times' in one_line(result, 143)
        assert 'scontrol' not in ' '.join(log(env))

    def test_a_failing_requeue_is_told(self, sbatch):
        result = sbatch('--config=x', CODE='143', SCONTROL_CODE='1')
        assert 'job 36 is not requeued' in one_line(result, 143)

    def test_devices(self, sbatch, env):
        sbatch('--config=x', SLURM_GPUS_ON_NODE='4', SLURM_CPUS_PER_TASK='16')
        assert log(env)[-1] == 'gpus=0,1,2,3 cpus=16'
        sbatch('--config=x', SLURM_GPUS_ON_NODE='4', SLURM_NTASKS_PER_NODE='4')
        assert log(env)[-1] == 'gpus= cpus='

    @pytest.mark.parametrize(
        ('arguments', 'task', 'part'),
        [
            ([], None, 'give the options of launch/train.py'),
            (['commands.txt'], None, 'needs an array'),
            (['--config=x'], 1, 'takes one argument, the file of commands'),
            (['commands.txt', '--config=x'], 1, 'takes one argument'),
            (['absent.txt'], 1, 'there is no file absent.txt'),
            (['commands.txt'], 0, 'array index 0: commands.txt has lines 1 to 3'),
            (['commands.txt'], 4, 'array index 4: commands.txt has lines 1 to 3'),
            (['other.txt'], 1, 'line 1 of other.txt is no command'),
            (['other.txt'], 2, 'line 2 of other.txt is no command'),
            (['other.txt'], 3, 'line 3 of other.txt is no command'),
        ],
    )
    def test_mistakes(self, sbatch, commands, env, arguments, task, part):
        open_quote = 'python launch/train.py "--workdir=x'
        (sbatch.here / 'other.txt').write_text(f'rm -r runs\n\n{open_quote}\n')
        assert part in one_line(sbatch(*arguments, task=task))
        assert log(env) == []

    def test_no_environment(self, sbatch):
        shutil.rmtree(sbatch.here / '.venv')
        assert 'run make venv first' in one_line(sbatch('--config=x'))
        shutil.rmtree(sbatch.here / 'launch')
        assert "from the repository's root" in one_line(sbatch('--config=x'))
        assert 'this is for sbatch' in one_line(sbatch('--config=x', SLURM_JOB_ID=''))


class TestTpuVm:
    VM = ('--name=ep1', '--zone=us-west4-a', '--type=v5litepod-16')
    COMMAND = ('--', 'python', 'launch/train.py', '--workdir=runs/x', SIZES)

    @pytest.fixture
    def launch(self, env, tmp_path):
        """Starts the script in a repository of its own, with a gcloud that logs."""
        executable(tmp_path / 'bin' / 'gcloud', GCLOUD)
        here = tmp_path / 'repository'
        (here / 'launch').mkdir(parents=True)
        shutil.copy(LAUNCH / 'tpu_vm.sh', here / 'launch')
        (here / '.gitignore').write_text('runs/\n')
        person = ['-c', 'user.name=x', '-c', 'user.email=x@example.com']
        for arguments in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'x']):
            command = ['git', *person, *arguments]
            subprocess.run(command, cwd=here, env=env, check=True)

        def start(*arguments, **variables):
            return subprocess.Popen(
                [here / 'launch' / 'tpu_vm.sh', *arguments],
                cwd=tmp_path,
                env=env | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        def run(*arguments, **variables):
            process = start(*arguments, **variables)
            out, err = process.communicate(timeout=60)
            return subprocess.CompletedProcess([], process.returncode, out, err)

        run.start = start
        run.here = here
        return run

    def steps(self, env):
        """What of a TPU VM's life is in the log, in order."""
        names = {
            ' create ': 'create',
            '/eqprop_jax.tar.gz ep1:': 'copy',
            'requirements.lock': 'install',
            'flock': 'run',
            ' ep1:eqprop_jax/runs/x runs ': 'copy back',
            ' delete ': 'delete',
        }
        return [
            name for line in log(env) for part, name in names.items() if part in line
        ]

    def test_a_dry_run_prints_all_and_runs_nothing(self, launch, env, tmp_path):
        (tmp_path / 'bin' / 'gcloud').unlink()
        options = ('--project=p', '--spot', '--dry_run')
        result = launch(*self.VM, *options, *self.COMMAND)
        assert result.returncode == 0, result.stderr
        describe, archive, create, copy, install, run, mkdir, back, delete = (
            shlex.split(line) for line in result.stdout.splitlines()
        )
        tpu = ['gcloud', 'compute', 'tpus', 'tpu-vm']
        where = ['--zone=us-west4-a', '--project=p']
        assert describe == [*tpu, 'describe', 'ep1', *where]
        assert archive[:2] == ['git', 'archive']
        assert create[:7] == [*tpu, 'create', 'ep1', *where[:1]]
        assert set(create[7:]) == {
            *where[1:],
            '--accelerator-type=v5litepod-16',
            '--version=v2-alpha-tpuv5-lite',
            '--spot',
            '--quiet',
        }
        assert copy[4] == 'scp'
        assert copy[6] == 'ep1:eqprop_jax.tar.gz'
        for words in (install, run):
            assert words[4:6] == ['ssh', 'ep1']
        for words in (copy, install, run):
            assert '--worker=all' in words
        assert '--require-hashes -r requirements.lock' in install[-1]
        remote = shlex.split(run[-1].removeprefix('--command='))
        assert remote[-4:] == [*self.COMMAND[1:]]
        assert mkdir == ['mkdir', '-p', 'runs']
        assert back[4:7] == ['scp', 'ep1:eqprop_jax/runs/x', 'runs']
        assert '--worker=0' in back
        assert delete == [*tpu, 'delete', 'ep1', *where, '--quiet']
        for words in (copy, install, run, back):
            assert set(where) < set(words)
        assert log(env) == []

    def test_a_run_from_beginning_to_end(self, launch, env):
        result = launch(*self.VM, *self.COMMAND)
        assert result.returncode == 0, result.stderr
        steps = ['create', 'copy', 'install', 'run', 'copy back', 'delete']
        assert self.steps(env) == steps

    def test_a_bucket_needs_no_copying(self, launch, env):
        result = launch(*self.VM, '--workdir=gs://bucket/run', *self.COMMAND)
        assert result.returncode == 0, result.stderr
        assert self.steps(env) == ['create', 'copy', 'install', 'run', 'delete']

    @pytest.mark.parametrize(
        ('part', 'steps'),
        [
            ('.tar.gz ep1:', ['create', 'copy', 'delete']),
            ('requirements.lock', ['create', 'copy', 'install', 'delete']),
            ('flock', ['create', 'copy', 'install', 'run', 'copy back', 'delete']),
        ],
    )
    def test_the_vm_is_deleted_when_a_step_fails(self, launch, env, part, steps):
        result = launch(*self.VM, *self.COMMAND, FAIL=part, CODE='7')
        assert result.returncode == 7, result.stderr
        assert self.steps(env) == steps

    @pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize('part', [' create ', 'flock'])
    def test_the_vm_is_deleted_after_a_signal(self, launch, env, number, part):
        process = launch.start(*self.VM, *self.COMMAND, HANG=part)
        until(pathlib.Path(env['LOG'] + '.hangs').exists)
        if 'create' in part:  # the request has gone out
            pathlib.Path(env['LOG'] + '.vm').touch()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 128 + number, err
        assert self.steps(env)[-1] == 'delete'
        assert ('copy back' in self.steps(env)) == (part == 'flock')
        until(lambda: 'ended' in log(env))  # gcloud itself was ended

    def test_copying_back_can_be_skipped(self, launch, env):
        part = ' ep1:eqprop_jax/runs/x runs '
        process = launch.start(
            *self.VM, *self.COMMAND, FAIL='flock', CODE='7', HANG=part
        )
        until(pathlib.Path(env['LOG'] + '.hangs').exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 7, err
        assert 'could not copy runs/x back' in err
        assert self.steps(env)[-1] == 'delete'

    def test_a_creation_that_failed_leaves_nothing_to_delete(self, launch, env):
        result = launch(*self.VM, *self.COMMAND, FAIL=' create ', CODE='3')
        assert result.returncode == 3
        assert self.steps(env) == ['create']
        assert 'no TPU VM called ep1' in result.stderr
        assert 'tpu-vm list --zone=us-west4-a' in result.stderr

    def test_a_vm_that_could_not_be_deleted_is_shouted_about(self, launch, env):
        result = launch(*self.VM, *self.COMMAND, FAIL=' delete ', CODE='5')
        assert result.returncode == 1
        assert self.steps(env)[-3:] == 3 * ['delete']
        assert 'WAS NOT DELETED AND COSTS MONEY' in result.stderr
        by_hand = 'gcloud compute tpus tpu-vm delete ep1 --zone=us-west4-a --quiet'
        assert f'    {by_hand}' in result.stderr.splitlines()

    def test_a_vm_of_that_name_is_left_alone(self, launch, env):
        pathlib.Path(env['LOG'] + '.vm').touch()
        result = launch(*self.VM, *self.COMMAND)
        assert 'choose another --name' in one_line(result)
        assert self.steps(env) == []

    def test_uncommitted_changes(self, launch, env):
        (launch.here / 'new.py').write_text('')
        assert '--allow_dirty' in one_line(launch(*self.VM, *self.COMMAND))
        assert log(env) == []
        result = launch(*self.VM, '--allow_dirty', *self.COMMAND)
        assert result.returncode == 0, result.stderr

    def test_no_gcloud(self, launch, env, tmp_path):
        (tmp_path / 'bin' / 'gcloud').unlink()
        result = launch(*self.VM, *self.COMMAND)
        assert 'gcloud is not on the PATH' in one_line(result)

    @pytest.mark.parametrize(
        ('arguments', 'part'),
        [
            ([*VM, '--color=red', *COMMAND], 'unknown option --color=red'),
            ([*VM, '--zone', 'us-west4-a', *COMMAND], 'unknown option --zone'),
            ([*VM, *COMMAND[1:]], 'unknown option python'),
            ([*VM[1:], *COMMAND], '--name='),
            ([*VM[:1], *VM[2:], *COMMAND], '--zone='),
            ([*VM[:2], *COMMAND], '--type='),
            ([*VM[:2], '--type=tpu7x-16', *COMMAND], 'give --version'),
            ([*VM], 'give the command'),
            ([*VM, '--', 'python', 'x.py'], 'say what to copy back'),
            ([*VM, '--workdir=/tmp/x', *COMMAND], 'not inside the repository'),
            ([*VM, '--workdir=runs/../..', *COMMAND], 'not inside the repository'),
            ([*VM, '--workdir=a b', *COMMAND], 'characters'),
            ([*VM, '--workdir=-x', *COMMAND], 'starts with a dash'),
        ],
    )
    def test_mistakes(self, launch, env, arguments, part):
        assert part in one_line(launch(*arguments))
        assert log(env) == []

    def test_help(self, launch):
        result = launch('--help')
        assert result.returncode == 0
        assert result.stdout.startswith('Runs a command on a Cloud TPU VM')
        assert '--allow_dirty' in result.stdout


def until(condition, seconds=20):
    """Waits for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
