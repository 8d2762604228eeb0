"""Programs in the place of others, which say what they were called with or do a part of it."""

import os
import sys
from pathlib import Path

# Says what it was called with, a zero byte behind each: how many arguments, then these.
ECHO = '#!/bin/sh\nprintf \'%s\\0\' "$#" "$@"\n'

# As the command of Ray 2.60 and its supervisor of jobs: the words behind `--` become one line,
# which a shell reads in a copy of the folder, without the environment of who has submitted.
RAY_JOB = f"""#!{sys.executable}
import pathlib, shlex, shutil, subprocess, sys
place = pathlib.Path(sys.argv[0]).parent
options, words = sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
(place / "ray_arguments").write_text("\\n".join(options))
folder = options[options.index("--working-dir") + 1]
shutil.copytree(folder, place / "job", dirs_exist_ok=True)
environment = {{"PATH": f"{{place}}:/usr/bin:/bin", "HOME": "/home/of the job"}}
job = subprocess.run(shlex.join(words), shell=True, cwd=place / "job", env=environment)
sys.exit(job.returncode)
"""

# `sbatch --nodes=<number> recipes/cluster/slurm.sbatch <recipe> ...`: what that file comes to,
# which test_cluster.py runs.
SBATCH = """#!/bin/bash
NNODES=${1#--nodes=} NGPUS_PER_NODE=8 exec bash "recipes/$3/run.sh" "${@:4}"
"""


def with_programs(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which programs are replaced, and no setting of a recipe is made.

    Args:
        folder: for the programs.
        **programs: the text of each.
    """
    for name, text in programs.items():
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": "/home/somebody"}


def calls(output: str) -> list[list[str]]:
    """The arguments of every call that `ECHO` has written to this output."""
    words = output.split("\0")[:-1]
    found = []
    while words:
        end = 1 + int(words[0])
        found.append(words[1:end])
        words = words[end:]
    return found
