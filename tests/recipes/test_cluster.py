"""Scripts for several nodes, on a stand-in of a cluster: what arrives is the recipe's command."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.recipes.commands import FOLDER, SCRIPTS, command_in, command_of
from tests.recipes.stand_ins import ECHO, RAY_JOB, calls, with_programs

NAME = "distill_qwen_7b_megatron"
SHARED = {"DATA_DIR": "/shared data", "OUTPUT_DIR": "/shared/outputs"}
# The last has all that a shell might take for its own.
ARGUMENTS = [
    "trainer.save_freq=7",
    'trainer.logger=["console"]',
    "trainer.experiment_name='$HOME; a \"b\" `c` *'",
]

# As Slurm's: options, then a command, which a node's shell starts with the environment of the job.
_SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
    case "$1" in --nodelist=*) node=${1#--nodelist=} ;; esac
    shift
done
NODE=$node exec "$@"
"""
_RAY_NODE = '#!/bin/bash\necho "$NODE $*" >> ray_started\n'
# Looks for the nodes when both have been started, as Ray's own does.
_PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then
    until [ "$(cat ray_started 2> /dev/null | wc -l)" = 2 ]; do /bin/sleep 0.1; done
    exit "$(cat missing)"
fi
""" + ECHO.split("\n", 1)[1]


def run(
    script: str, *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(FOLDER / "cluster" / script), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ray_job_submit(tmp_path: Path) -> None:
    settings = {"UPDATE_RULE": "null", "NNODES": "3", **SHARED}
    environment = with_programs(tmp_path, python3=ECHO, ray=RAY_JOB) | settings
    address = "http://head:8265"
    job = run(
        "ray_job_submit.sh", NAME, *ARGUMENTS, folder=tmp_path, RAY_ADDRESS=address, **environment
    )
    assert job.returncode == 0, job.stderr
    direct = command_of(SCRIPTS[NAME], tmp_path, *ARGUMENTS, **settings)
    [call] = calls(job.stdout)
    assert command_in(call) == direct
    assert "trainer.nnodes=3" in direct.overrides
    submitted = (tmp_path / "ray_arguments").read_text().splitlines()
    assert submitted[:4] == ["job", "submit", "--address", address]
    assert "--runtime-env" not in submitted


def test_ray_job_submit_without_settings(tmp_path: Path) -> None:
    environment = with_programs(tmp_path, python3=ECHO, ray=RAY_JOB) | SHARED
    job = run("ray_job_submit.sh", NAME, folder=tmp_path, RAY_ADDRESS="http://h:1", **environment)
    assert job.returncode == 0, job.stderr
    [call] = calls(job.stdout)
    assert "actor_rollout_ref.actor.update_rule=pcr" in call


def test_a_runtime_environment_goes_along(tmp_path: Path) -> None:
    file = str(tmp_path / "of a run.yaml")
    environment = with_programs(tmp_path, python3=ECHO, ray=RAY_JOB) | SHARED
    settings = {"RAY_ADDRESS": "http://h:1", "RUNTIME_ENV": file}
    job = run("ray_job_submit.sh", NAME, folder=tmp_path, **environment, **settings)
    assert job.returncode == 0, job.stderr
    submitted = (tmp_path / "ray_arguments").read_text().splitlines()
    assert submitted[submitted.index("--runtime-env") + 1] == file


@pytest.mark.parametrize("name", SHARED)
def test_ray_job_submit_takes_absolute_paths_alone(name: str, tmp_path: Path) -> None:
    environment = with_programs(tmp_path, ray=RAY_JOB) | SHARED | {name: "here"}
    job = run("ray_job_submit.sh", NAME, folder=tmp_path, RAY_ADDRESS="http://h:1", **environment)
    assert job.returncode == 1
    assert f"{name}=here is not an absolute path" in job.stderr
    assert not (tmp_path / "ray_arguments").exists()


@pytest.mark.parametrize("missing", ["RAY_ADDRESS", *SHARED])
def test_what_ray_job_submit_needs(missing: str, tmp_path: Path) -> None:
    environment = with_programs(tmp_path, ray=RAY_JOB) | SHARED | {"RAY_ADDRESS": "http://h:1"}
    del environment[missing]
    job = run("ray_job_submit.sh", NAME, folder=tmp_path, **environment)
    assert job.returncode != 0
    assert missing in job.stderr
    assert not (tmp_path / "ray_arguments").exists()


@pytest.mark.parametrize("name", ["gsm8k", "data", ""])
def test_a_recipe_that_is_not_there(name: str, tmp_path: Path) -> None:
    environment = with_programs(tmp_path, ray=RAY_JOB) | SHARED
    job = run("ray_job_submit.sh", name, folder=tmp_path, RAY_ADDRESS="http://h:1", **environment)
    assert job.returncode == 1
    assert said_of(name) in job.stderr
    assert not (tmp_path / "ray_arguments").exists()


def said_of(name: str) -> str:
    """Where there is no recipe of this name."""
    there_are = f"no recipe '{name}'; there are: {' '.join(SCRIPTS)}"
    return there_are if name else "the name of a recipe, and its arguments"


def slurm(folder: Path, name: str = NAME, *, missing: int = 0) -> subprocess.CompletedProcess[str]:
    environment = with_programs(
        folder,
        python3=_PYTHON,
        srun=_SRUN,
        ray=_RAY_NODE,
        scontrol="#!/bin/bash\nprintf 'node1\\nnode2\\n'\n",
        hostname='#!/bin/bash\necho "10.0.0.1 fe80::1"\n',
        sleep="#!/bin/bash\n",
    )
    (folder / "missing").write_text(str(missing))
    (folder / "recipes").symlink_to(FOLDER)
    job = {
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "16",
        "ACTIVATE": "export ACTIVATED=yes",
    }
    return run("slurm.sbatch", name, *ARGUMENTS, folder=folder, **environment, **job)


def test_slurm(tmp_path: Path) -> None:
    job = slurm(tmp_path)
    assert job.returncode == 0, job.stderr
    direct = command_of(SCRIPTS[NAME], tmp_path, *ARGUMENTS, NNODES="2", NGPUS_PER_NODE="4")
    [call] = calls(job.stdout)
    assert command_in(call) == direct
    started = (tmp_path / "ray_started").read_text().splitlines()
    assert sorted(started) == [
        "node1 start --head --node-ip-address=10.0.0.1 --port=6379 --num-gpus=4 --num-cpus=16 "
        "--block",
        "node2 start --address=10.0.0.1:6379 --num-gpus=4 --num-cpus=16 --block",
    ]


def test_slurm_ends_where_a_node_does_not_join(tmp_path: Path) -> None:
    job = slurm(tmp_path, missing=1)
    assert job.returncode == 1
    assert "Not all of node1 node2 have joined Ray." in job.stderr
    assert "verl.trainer.main_ppo" not in job.stdout
    assert os.path.exists(tmp_path / "ray_started")


@pytest.mark.parametrize("name", ["gsm8k", ""])
def test_slurm_on_a_recipe_that_is_not_there(name: str, tmp_path: Path) -> None:
    job = slurm(tmp_path, name)
    assert job.returncode == 1
    assert said_of(name) in job.stderr
    assert not (tmp_path / "ray_started").exists()
