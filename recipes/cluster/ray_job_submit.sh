#!/usr/bin/env bash
# Hand a recipe to a Ray cluster that is already running.
#   RAY_ADDRESS=http://head:8265 bash recipes/cluster/ray_job_submit.sh distill_qwen_7b_megatron [key=value ...]
set -euo pipefail

recipe=${1:?the name of a recipe, and its arguments}
shift
: "${RAY_ADDRESS:?the address of the cluster, for example http://head:8265}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -f "$here/../$recipe/run.sh" ]; then
    recipes=("$here"/../*/run.sh)
    recipes=("${recipes[@]%/run.sh}")
    echo "no recipe '$recipe'; there are: ${recipes[*]##*/}" >&2
    exit 1
fi

# The job starts in a folder of its own on some node.
: "${DATA_DIR:?a folder that all nodes share}" "${OUTPUT_DIR:?a folder that all nodes share}"
for name in DATA_DIR OUTPUT_DIR; do
    if [[ ${!name} != /* ]]; then
        echo "$name=${!name} is not an absolute path, and the job starts in another folder" >&2
        exit 1
    fi
done

# The settings of the recipes that are set here are set there.
settings=()
for name in UPDATE_RULE MODEL_PATH CRITIC_PATH DATA_DIR OUTPUT_DIR NNODES NGPUS_PER_NODE \
    KL_LOSS_COEF SEED PROJECT_NAME EXPERIMENT_NAME LOGGER SANDBOX_URL; do
    if [ -n "${!name+set}" ]; then
        settings+=("$name=${!name}")
    fi
done

# This folder goes with the job; the plugin must be installed on every node.
exec ray job submit --address "$RAY_ADDRESS" --working-dir "$here/.." \
    ${RUNTIME_ENV:+--runtime-env "$RUNTIME_ENV"} --no-wait -- \
    env "${settings[@]}" bash "$recipe/run.sh" "$@"
