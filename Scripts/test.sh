#!/usr/bin/env bash
# Runs `swift test` with these arguments; a run that fails ends with what failed.
#
# Without a filter there are three parts. Tests that only compute keep every thread busy for a
# while; beside them, those that talk over sockets and watch the time would wait for a thread and
# fail. Last come simulated clusters, always with the same seeds, in a release build of what they
# need.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# Tests of sockets, threads and processes.
timed='^(Calibration|Chaos|ClusterStore|EngineRuntime|HealthService|HostProbe|HTTPServer'
timed+='|Integration|KVCarriers|Measurement|SchedulerService|ServiceRuntime|SharedMemory'
timed+='|SimulatedEngine|Transport|WorkerService)Tests\.'
seeds=${SIMULATION_SEEDS:-1000}
log=.build/test.log
failures=.build/test-failures.log

mkdir -p .build
: >"$failures"
run() {
  swift test --disable-xctest "$@" 2>&1 | tee "$log"
  local status=$?
  [ "$status" -eq 0 ] && return 0
  # An issue is followed by lines that explain it.
  grep -aE -A 4 '✘|error:|Fatal error|signal code' "$log" | grep -avE '◇|✔|^--$' >>"$failures"
  return "$status"
}

# Builds with the arguments and runs the seeds; a failing one is told with the command for it.
simulate() {
  swift build -c release --product simulate "$@" &&
    .build/release/simulate --seeds "$seeds" --covers 2>&1 | tee "$log"
  local status=$?
  [ "$status" -eq 0 ] && return 0
  tail -n 60 "$log" >>"$failures"
  return "$status"
}

status=0
case " $* " in
*" --filter "*) run "$@" || status=$? ;;
*)
  run "$@" --skip "$timed" || status=$?
  # What does not compile needs no second run.
  if [ "$status" -eq 0 ] || grep -aqF 'Test run with' "$log"; then
    run "$@" --skip-build --filter "$timed" || status=$?
    simulate "$@" || status=$?
  fi
  ;;
esac
if [ "$status" -ne 0 ]; then
  printf '\nWhat failed:\n'
  tail -n 150 "$failures"
fi
exit "$status"
