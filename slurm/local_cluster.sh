#!/usr/bin/env bash
# A real SLURM on one Debian machine, for tests and for trying scripts out: emulated nodes n1..nN on loopback, two
# partitions (high preempts main), no systemd, no cgroups, no slurmdbd, with a munge key and ports of its own.
#
#   slurm/local_cluster.sh install      the Debian packages; as root, once
#   slurm/local_cluster.sh start        as any user; a second or two
#   eval "$(slurm/local_cluster.sh env)"
#   sbatch ...
#   slurm/local_cluster.sh stop         cancels the jobs and ends the daemons
#
# Settings, the same for each of these calls: LOCAL_SLURM_ROOT (its folder), LOCAL_SLURM_NODES, LOCAL_SLURM_CPUS (of a
# node; may be more than the machine has), LOCAL_SLURM_GPUS (pretended ones of a node), LOCAL_SLURM_PORT (of the
# controller; the nodes take those that follow).
set -euo pipefail
ROOT=${LOCAL_SLURM_ROOT:-${TMPDIR:-/tmp}/local-slurm-$(id -un)}
NODES=${LOCAL_SLURM_NODES:-2}
CPUS=${LOCAL_SLURM_CPUS:-4}
GPUS=${LOCAL_SLURM_GPUS:-2}
PORT=${LOCAL_SLURM_PORT:-6817}
GRACE=20 # seconds between a preemption's signal and the end
HOST=$(hostname -s)
USER_NAME=$(id -un)
MUNGE=$ROOT/munge
export SLURM_CONF=$ROOT/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

install_packages() {
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends slurmctld slurmd slurm-client munge
}

write_conf() {
  mkdir -p "$ROOT"/{state,log,run,gpus}
  for i in $(seq "$NODES"); do mkdir -p "$ROOT/spool/n$i"; done
  {
    cat <<CONF
ClusterName=local
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$USER_NAME
SlurmdUser=$USER_NAME
AuthType=auth/munge
AuthInfo=socket=$MUNGE/munge.socket
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MailProg=/bin/true
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd-%n.pid
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd-%n.log
MinJobAge=3600
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=60
CONF
    for i in $(seq "$NODES"); do
      echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + i)) CPUs=$CPUS RealMemory=1000" \
        "Gres=gpu:$GPUS State=UNKNOWN"
    done
    echo "PartitionName=main Nodes=ALL Default=YES DefaultTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE"
    echo "PartitionName=high Nodes=ALL DefaultTime=30 PriorityTier=10 PreemptMode=OFF"
  } > "$SLURM_CONF"
  # as root, character devices stand in for GPUs, and CUDA_VISIBLE_DEVICES is set as on a cluster; else files, which count
  local flags=
  [ "$(id -u)" = 0 ] && flags=Flags=nvidia_gpu_env
  for g in $(seq 0 $((GPUS - 1))); do
    [ -e "$ROOT/gpus/gpu$g" ] || { [ "$flags" ] && mknod "$ROOT/gpus/gpu$g" c 1 3; } || : > "$ROOT/gpus/gpu$g"
  done
  echo "NodeName=n[1-$NODES] Name=gpu File=$ROOT/gpus/gpu[0-$((GPUS - 1))] $flags" > "$ROOT/gres.conf"
}

start() {
  write_conf
  install -d -m 0755 "$MUNGE"
  install -d -m 0700 "$MUNGE/key"
  [ -s "$MUNGE/key/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom > "$MUNGE/key/munge.key")
  munged --key-file="$MUNGE/key/munge.key" --socket="$MUNGE/munge.socket" --pid-file="$ROOT/run/munged.pid" \
    --log-file="$MUNGE/munged.log" --seed-file="$MUNGE/munged.seed" --num-threads=2
  slurmctld -f "$SLURM_CONF" -i
  for i in $(seq "$NODES"); do slurmd -f "$SLURM_CONF" -N "n$i"; done
  for _ in $(seq 150); do
    if [ "$(sinfo -h -p main -t idle -o %D 2> /dev/null)" = "$NODES" ]; then sinfo; return; fi
    sleep 0.2
  done
  echo "the cluster did not come up:" >&2
  sinfo >&2 || true
  tail -n 20 "$ROOT"/log/*.log "$MUNGE/munged.log" >&2
  stop
  return 1
}

stop() {
  scancel --user="$USER_NAME" 2> /dev/null || true
  # what is left of jobs gets TERM, and KILL after KillWait; a node that goes first could not end them
  for _ in $(seq 50); do
    [ -n "$(squeue -h 2> /dev/null)" ] || break
    sleep 0.2
  done
  # munge goes last: the others sign their goodbyes
  for name in slurmctld slurmd munged; do
    for file in "$ROOT/run/$name"*.pid; do
      if [ -s "$file" ]; then kill "$(cat "$file")" 2> /dev/null || rm -f "$file"; fi
    done
    # each takes its file away when it ends
    for _ in $(seq 50); do ls "$ROOT/run/$name"*.pid > /dev/null 2>&1 || break; sleep 0.1; done
  done
}

case "${1:-}" in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  # the nodes' name is no host's name, so where the ranks meet is said here
  env) echo "export SLURM_CONF='$SLURM_CONF' MASTER_ADDR=127.0.0.1" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
