#!/usr/bin/env bash
# Many runs as one job array: a line of a file is a run, written as on gan-lab's command line. Nothing has to stay
# logged in for it.
#
#   slurm/sweep.sh [OPTIONS OF SBATCH] FILE [KEY=VALUE ...]
#   slurm/sweep.sh --time=4:00:00 --array=%8 runs.txt experiment=quickstart    at most 8 at a time
#
# Options of sbatch are written with =, as above. What follows FILE goes for every run. Empty lines and those that begin
# with # do not count, and a line has the last word. A run's folder is named after its overrides, so the same call goes
# on where runs were left.
set -euo pipefail

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

options=()
parallel=
while [[ "${1:-}" == -* ]]; do
  case "$1" in
    --array=%*) parallel=${1#--array=} ;;
    --*=* | --hold | --exclusive | --parsable) options+=("$1") ;;
    *) usage ;;
  esac
  shift
done
[ $# -gt 0 ] || usage
file=$1
shift

# the lines go with the job: the file may change before it starts
GAN_LAB_RUNS=$(grep -vE '^[[:space:]]*(#|$)' "$file") || { echo "$file has no lines with a run" >&2; exit 2; }
export GAN_LAB_RUNS
count=$(wc -l <<< "$GAN_LAB_RUNS")
exec sbatch --array="0-$((count - 1))$parallel" --output=%x-%A_%a.out "${options[@]}" \
  "$(dirname "$0")/train.sbatch" "$@"
