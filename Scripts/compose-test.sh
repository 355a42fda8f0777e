#!/usr/bin/env bash
# Tests docker-compose.yml with a real engine: scaling, faults and upgrades under load.
#
# Builds the image first, unless PDSERVE_IMAGE names one that is there. Needs docker with compose
# 2.20, bash and curl; takes some minutes. PARTS chooses: serve scale faults upgrade watch ha.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=${PARTS:-serve scale faults upgrade watch ha}
project=pdserve-test
export PORT=${PORT:-18080} BALANCER_PORT=${BALANCER_PORT:-18000}
export PROMETHEUS_PORT=${PROMETHEUS_PORT:-19090} GRAFANA_PORT=${GRAFANA_PORT:-13000}
work=$(mktemp -d)
failed=0

say() { printf '%(%T)T  %s\n' -1 "$*"; }
pass() { say "ok      $*"; }
miss() { say "FAILED  $*"; failed=$((failed + 1)); }
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
settings=()
compose() { docker compose -p "$project" "${settings[@]}" "$@"; }
remove_all() { docker compose -p "$project" --profile '*' down --volumes --timeout 5; }

# Runs a command; a test that fails is told and counted, the others go on.
check() {
  local what=$1
  shift
  if "$@" >"$work/output" 2>&1; then pass "$what"; else
    miss "$what"
    tail -n 15 "$work/output" | sed 's/^/          /'
  fi
}

clean_up() {
  say "removing the stack"
  docker rm -f "$project-load" >/dev/null 2>&1 || true
  remove_all >"$work/down" 2>&1 || cat "$work/down"
  docker image rm -f "$image-next" >/dev/null 2>&1 || true
  rm -rf "$work"
}

# Clients that ask until load_ends; every answer is checked.
load_starts() {
  local port=$1
  shift
  docker run -d --init --name "$project-load" --network host "$image" \
    pdserve load --gateway "127.0.0.1:$port" --clients 4 --max-tokens 300 "$@" >/dev/null
}
load_ends() {
  local what=$1 status
  status=$(docker wait "$project-load")
  docker logs "$project-load" >"$work/load" 2>&1
  docker rm "$project-load" >/dev/null
  if [ "$status" = 0 ]; then pass "$what: $(cat "$work/load")"; else
    miss "$what (ended with $status)"
    sed 's/^/          /' "$work/load"
  fi
}

containers() { compose ps -q "$1"; }
one() { containers "$1" | sed -n "${2:-1}p"; }
# The service's process, below the container's init.
kill_process() {
  # shellcheck disable=SC2016 # the container's shell reads it
  docker exec "$1" sh -c 'kill -9 $(cat /proc/1/task/1/children)'
}
is_healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$1" 2>/dev/null)" = healthy ]; }
wait_until() {
  local limit=$1 start=$SECONDS
  shift
  until "$@" >/dev/null 2>&1; do
    [ $((SECONDS - start)) -lt "$limit" ] || return 1
    sleep 0.5
  done
}
tool() { compose run --rm -T admin "$@" 2>/dev/null; }
serving() { [ "$(tool status | grep -c ' serving')" -eq "$1" ]; }
ask() {
  curl -sf --max-time 60 "http://127.0.0.1:$1/v1/chat/completions" \
    -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "What is a list?"}], "max_tokens": 16}'
}
start() {
  local from=$EPOCHREALTIME
  compose up -d --wait --wait-timeout 300 "$@" >"$work/up" 2>&1 ||
    { tail -n 20 "$work/up"; compose ps -a; compose logs --tail 20; exit 1; }
  say "up and healthy after $(seconds_since "$from") s"
}
services=(scheduler prefill-worker decode-worker health-agent gateway)

test_serve() {
  start "${services[@]}"
  check "an answer comes through the published port" ask "$PORT"
  check "so does a stream" bash -c "curl -sfN --max-time 60 http://127.0.0.1:$PORT/v1/completions \
    -d '{\"prompt\": \"A list is\", \"max_tokens\": 8, \"stream\": true}' | grep -q DONE"
  check "the root of a container can't be written to" \
    bash -c "! docker exec $(one gateway) touch /usr/local/bin/x"
  check "nothing runs as root" bash -c "[ \"\$(docker exec $(one gateway) id -u)\" = 10001 ]"
  check "the image has no compiler" \
    docker run --rm "$image" bash -c '! command -v cc gcc g++ clang swift ld make'
  # Nobody has this address, so no answer proves nothing; that there is no way to it does.
  check "a worker reaches nothing outside" bash -c "docker exec $(one decode-worker) \
    timeout 5 bash -c 'exec 3<>/dev/tcp/192.0.2.1/80' 2>&1 | grep 'Network is unreachable'"
  check "a later start keeps the certificates" bash -c "docker compose -p $project logs \
    certificates | grep -q made &&
    docker compose -p $project run --rm -T certificates | grep -q kept"
  check "a service sees no key but its own" bash -c \
    "[ \"\$(docker exec $(one gateway) ls /certificates | xargs)\" = \
      'ca.pem gateway.key gateway.pem' ]"
}

test_scale() {
  start "${services[@]}"
  load_starts "$PORT" --seconds 45
  sleep 3
  start --no-recreate --scale prefill-worker=2 --scale decode-worker=3 "${services[@]}"
  check "five workers serve" wait_until 30 serving 5
  sleep 5
  compose up -d --no-recreate --scale prefill-worker=1 --scale decode-worker=1 \
    "${services[@]}" >"$work/up" 2>&1
  check "two workers serve" wait_until 30 serving 2
  load_ends "scaled to 2 and 3, and back, under load"
}

test_faults() {
  start --scale prefill-worker=2 --scale decode-worker=2 "${services[@]}"
  wait_until 30 serving 4 || miss "four workers serve"
  local victim from

  load_starts "$PORT" --seconds 40
  sleep 4
  for service in decode-worker prefill-worker; do
    victim=$(one "$service") from=$EPOCHREALTIME
    kill_process "$victim"
    sleep 1
    if wait_until 60 is_healthy "$victim"; then
      pass "$service is back $(seconds_since "$from") s after kill -9 of its process"
    else miss "$service is back after kill -9"; fi
    wait_until 30 serving 4 || miss "four workers serve again"
  done
  load_ends "kill -9 of a decode- and of a prefill-worker"

  load_starts "$PORT" --seconds 30
  sleep 4
  docker kill "$(one decode-worker)" >/dev/null
  sleep 8
  check "three workers serve without the killed node" wait_until 30 serving 3
  load_ends "docker kill of a decode-worker"
  start --scale prefill-worker=2 --scale decode-worker=2 "${services[@]}"
  check "four workers serve after the next up" wait_until 60 serving 4

  load_starts "$PORT" --seconds 40
  sleep 4
  victim=$(one decode-worker)
  docker pause "$victim" >/dev/null
  sleep 12
  docker unpause "$victim" >/dev/null
  check "four workers serve after the pause" wait_until 60 serving 4
  load_ends "a decode-worker paused for 12 s"

  load_starts "$PORT" --seconds 45
  sleep 4
  victim=$(one decode-worker)
  docker network disconnect "${project}_cluster" "$victim"
  sleep 10
  docker network connect --alias decode-worker "${project}_cluster" "$victim"
  check "four workers serve after the network is back" wait_until 90 serving 4
  load_ends "a decode-worker without network for 10 s"

  load_starts "$PORT" --seconds 30
  sleep 4
  kill_process "$(one scheduler)"
  check "the scheduler is back" wait_until 60 is_healthy "$(one scheduler)"
  check "and knows its workers" wait_until 60 serving 4
  load_ends "kill -9 of the only scheduler"
  start --no-recreate --scale prefill-worker=1 --scale decode-worker=1 "${services[@]}"
}

# New workers first, then the old ones are told to end: the way of Documentation/operations.md.
test_upgrade() {
  start --no-recreate --scale prefill-worker=1 --scale decode-worker=1 "${services[@]}"
  printf 'FROM %s\nLABEL revision=next\n' "$image" | docker build -q -t "$image-next" - >/dev/null
  local old
  old="$(containers prefill-worker) $(containers decode-worker)"
  load_starts "$PORT" --seconds 75
  sleep 3
  PDSERVE_IMAGE=$image-next start --no-deps --no-recreate --scale prefill-worker=2 \
    --scale decode-worker=2 prefill-worker decode-worker
  # shellcheck disable=SC2086 # a list
  docker stop -t 40 $old >/dev/null && docker rm $old >/dev/null
  PDSERVE_IMAGE=$image-next start --no-deps scheduler health-agent
  check "two workers of the new image serve" wait_until 60 serving 2
  check "they are of the new image" bash -c "[ \"\$(docker inspect -f '{{.Config.Image}}' \
    $(one decode-worker))\" = '$image-next' ]"
  load_ends "another image for workers, scheduler and health-agent"

  # A worker at a time is away, so there have to be two in each role.
  PDSERVE_IMAGE=$image-next start --no-deps --no-recreate --scale prefill-worker=2 \
    --scale decode-worker=2 prefill-worker decode-worker
  wait_until 30 serving 4 || miss "four workers serve"
  load_starts "$PORT" --seconds 60
  sleep 3
  check "an upgrade of the model begins" \
    tool upgrade --model /models/more/revision-2.gguf --settle 1
  check "and ends" wait_until 50 upgraded
  load_ends "another model"
  tool status >"$work/status" || true
  sed 's/^/          /' "$work/status" | head -n 12
}
upgraded() { tool status | grep -q 'upgrade.*done'; }

test_watch() {
  start --no-recreate "${services[@]}" prometheus
  check "all five kinds are scraped and up" wait_until 40 scraped
  # Most alerts wait for up to 30 s before they fire.
  sleep 45
  check "no alert fires" quiet
  check "each query of the dashboard is understood" dashboard_queries
}
prometheus() { curl -sf --max-time 10 -G "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/$1" "${@:2}"; }
scraped() {
  prometheus query --data-urlencode 'query=count(count by (job) (up == 1))' |
    grep -q '"5"\]'
}
quiet() { prometheus alerts >"$work/alerts" && ! grep '"firing"' "$work/alerts"; }
dashboard_queries() {
  local query
  grep -o '"expr": ".*"' Docker/watch/dashboard.json | sed 's/^"expr": //' |
    while read -r query; do
      # shellcheck disable=SC2016 # Grafana's variable
      query=$(printf '%s' "$query" | sed -e 's/^"//' -e 's/"$//' -e 's/\\"/"/g' \
        -e 's/\$__rate_interval/1m/g')
      prometheus query --data-urlencode "query=$query" >/dev/null || { echo "$query"; return 1; }
    done
}

# shellcheck disable=SC2016 # the container's shell reads it
leads() {
  compose exec -T "$1" bash -c 'exec 3<>/dev/tcp/127.0.0.1/7401
    printf "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" >&3
    grep -q "^scheduler_leads 1" <&3'
}
test_ha() {
  remove_all >/dev/null 2>&1
  settings=(--env-file Docker/ha.env)
  start "${services[@]}" etcd scheduler-2 gateway-2 balancer
  check "an answer comes through the balancer" ask "$BALANCER_PORT"
  local leader=scheduler other=scheduler-2 from
  if leads scheduler-2; then leader=scheduler-2 other=scheduler; fi
  load_starts "$BALANCER_PORT" --seconds 60
  sleep 4
  from=$EPOCHREALTIME
  docker kill "$(one "$leader")" >/dev/null
  if wait_until 40 leads "$other"; then
    pass "$other leads $(seconds_since "$from") s after $leader was killed"
  else miss "$other leads"; fi
  check "two workers serve under it" wait_until 30 serving 2
  load_ends "the leading scheduler killed, behind the balancer"
  start --no-recreate scheduler scheduler-2
  load_starts "$BALANCER_PORT" --seconds 40
  sleep 4
  for name in gateway gateway-2; do
    docker restart -t 40 "$(one "$name")" >/dev/null
    wait_until 60 is_healthy "$(one "$name")" || miss "$name is back"
    sleep 3
  done
  load_ends "both gateways restarted, one after the other, behind the balancer"
  docker kill "$(one gateway-2)" >/dev/null
  sleep 4
  check "answers go on with one gateway killed" ask "$BALANCER_PORT"
  check "prompts and readings of gateways are apart" bash -c \
    "! curl -sf http://127.0.0.1:$BALANCER_PORT/metrics"
}

image=${PDSERVE_IMAGE:-pdserve:test}
export PDSERVE_IMAGE=$image
export MODELS=$work/models
trap clean_up EXIT
mkdir "$MODELS"
cp Models/tiny.gguf "$MODELS/tiny.gguf"
# The same weights with other metadata: another revision, whose answers are equal.
LC_ALL=C sed "s/a demo, not an assistant/a Demo, not an assistant/" \
  Models/tiny.gguf >"$MODELS/revision-2.gguf"
chmod -R a+rX "$work"
remove_all >/dev/null 2>&1 || true
if ! docker image inspect "$image" >/dev/null 2>&1; then
  say "building $image"
  compose build certificates
fi
docker image inspect -f 'image {{.Id}}, {{.Size}} bytes' "$image"
for part in $parts; do
  say "part: $part"
  "test_$part"
done
[ "$failed" -eq 0 ] || { say "$failed failed"; exit 1; }
say "all passed"
