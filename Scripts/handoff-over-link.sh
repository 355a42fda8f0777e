#!/usr/bin/env bash
# Runs `benchmark handoff` with the workers in network namespaces, over a link of a chosen rate.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Scripts/handoff-over-link.sh --model FILE [options] [-- options of benchmark handoff]

Starts all five services in network namespaces of their own on this host (Linux, as root), measures
the link between the workers with plain TCP, runs `benchmark handoff` and takes all away again.

  --model FILE         GGUF file to serve; Scripts/make-model.py writes one with much KV
  --rate RATE          what each worker sends at most, as tc writes it (1gbit), or 'unlimited';
                       default: 1gbit
  --memory             let KV go through memory, as on one host it would; default: over the link
  --worker OPTION      a setting of both workers, such as --worker --final-run=32; repeatable
  --kv-tokens COUNT    tokens of KV in each worker; default: 10240
  --executables FOLDER default: .build/release
TEXT
}

fail() {
  echo "handoff-over-link: $*" >&2
  exit 2
}

model='' rate=1gbit memory=false executables=.build/release kv_tokens=10240
worker_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --model | --rate | --worker | --kv-tokens | --executables)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case $1 in
        --model) model=$2 ;;
        --rate) rate=$2 ;;
        --worker) worker_options+=("$2") ;;
        --kv-tokens) kv_tokens=$2 ;;
        --executables) executables=$2 ;;
      esac
      shift 2
      ;;
    --memory) memory=true && shift ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) usage >&2 && fail "'$1' is no option" ;;
  esac
done

missing=()
[ "$(uname -s)" = Linux ] || missing+=("Linux")
[ "$(id -u)" = 0 ] || missing+=("root: network namespaces can't be made without it")
for tool in ip tc nsenter python3; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
for name in scheduler prefill-worker decode-worker gateway health-agent pdserve benchmark; do
  [ -x "$executables/$name" ] || missing+=("$executables/$name: swift build -c release")
done
[ -n "$model" ] && [ -r "$model" ] || missing+=("a readable model file (--model)")
if [ ${#missing[@]} -gt 0 ]; then
  printf 'handoff-over-link: missing: %s\n' "${missing[@]}" >&2
  exit 2
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/pdserve-link.XXXXXX")
space=pdlink$$
processes=()
failed=true

clean_up() {
  trap - EXIT
  trap '' INT TERM HUP
  if $failed; then tail -n 5 "$folder"/*.log >&2 2>/dev/null || true; fi
  # In the order of starting backwards: gateway and workers before the scheduler.
  for ((index = ${#processes[@]} - 1; index >= 0; index--)); do
    kill "${processes[index]}" 2>/dev/null || true
  done
  for _ in $(seq 100); do
    kill -0 "${processes[@]}" 2>/dev/null || break
    sleep 0.1
  done
  for process in "${processes[@]}"; do kill -9 "$process" 2>/dev/null || true; done
  for name in hub center prefill decode; do ip netns del "$space-$name" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

inside() {
  local name=$1
  shift
  nsenter --net="/run/netns/$space-$name" "$@"
}

# A bridge in a namespace of its own joins the other three; the host's network stays as it is.
ip netns add "$space-hub"
ip -n "$space-hub" link add bridge type bridge
ip -n "$space-hub" link set bridge up
number=0
for name in center prefill decode; do
  number=$((number + 1))
  ip netns add "$space-$name"
  ip -n "$space-hub" link add "to-$name" type veth peer name eth0 netns "$space-$name"
  ip -n "$space-hub" link set "to-$name" master bridge up
  ip -n "$space-$name" addr add "10.0.0.$number/24" dev eth0
  ip -n "$space-$name" link set eth0 up
  ip -n "$space-$name" link set lo up
  if [ "$name" != center ] && [ "$rate" != unlimited ]; then
    # A small burst: what the bucket lets through at once would flatter the last block of KV.
    ip netns exec "$space-$name" tc qdisc add dev eth0 root tbf rate "$rate" burst 128kb \
      latency 50ms || fail "tc refuses the rate '$rate'"
  fi
done

start() {
  local name=$1 place=$2
  shift 2
  nsenter --net="/run/netns/$space-$place" "$executables/$name" \
    --certificates "$folder/certificates" "$@" \
    >"$folder/$name.log" 2>&1 &
  processes+=($!)
}

"$executables/pdserve" certificates --folder "$folder/certificates" \
  --host 10.0.0.1,10.0.0.2,10.0.0.3 >/dev/null
options=(--scheduler 10.0.0.1:7400 --model "$model" --threads 1 --kv-tokens "$kv_tokens")
$memory || options+=(--local-folder none)
options+=("${worker_options[@]+"${worker_options[@]}"}")

start scheduler center --listen 10.0.0.1:7400
start prefill-worker prefill --listen 10.0.0.2:7410 --bulk-listen 10.0.0.2:7412 \
  --admin-listen 10.0.0.2:7411 "${options[@]}"
prefill=$!
start decode-worker decode --listen 10.0.0.3:7420 --bulk-listen 10.0.0.3:7422 \
  --admin-listen 10.0.0.3:7421 "${options[@]}"
decode=$!
start health-agent center --scheduler 10.0.0.1:7400
start gateway center --scheduler 10.0.0.1:7400 --model "$model" --http-listen 10.0.0.1:8080

# Plain TCP from the prefill-worker's end to the decode-worker's: what the link carries in Gbit/s.
measure_link() {
  inside decode python3 - receive >"$folder/rate" <<<"$link_program" &
  inside prefill python3 - send <<<"$link_program"
  wait $!
  cat "$folder/rate"
}
link_program='
import socket, sys, time
if sys.argv[1] == "send":
    end = time.monotonic() + 10
    while True:
        try:
            link = socket.create_connection(("10.0.0.3", 7499))
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    block, end = bytes(1 << 20), time.monotonic() + 3
    while time.monotonic() < end:
        link.sendall(block)
else:
    server = socket.create_server(("10.0.0.3", 7499))
    server.settimeout(15)
    link = server.accept()[0]
    memory = memoryview(bytearray(1 << 20))
    count, start, total = link.recv_into(memory), time.monotonic(), 0
    while count:
        count = link.recv_into(memory)
        total += count
    print(f"{total * 8 / (time.monotonic() - start) / 1e9:.3f}")
'

ready=false
for _ in $(seq 600); do
  for process in "${processes[@]}"; do
    kill -0 "$process" 2>/dev/null || fail "a service has ended"
  done
  if inside center "$executables/pdserve" healthcheck http://10.0.0.1:8080/health \
    >/dev/null 2>&1; then
    ready=true
    break
  fi
  sleep 0.2
done
$ready || fail "the services are not ready after two minutes"
gbit=$(measure_link)
echo "the link carries $gbit Gbit/s of plain TCP" >&2

inside center "$executables/benchmark" handoff --model "$model" --link-gbit "$gbit" \
  --gateway http://10.0.0.1:8080 --prefill-metrics http://10.0.0.2:7411 \
  --decode-metrics http://10.0.0.3:7421 --prefill-process "$prefill" --decode-process "$decode" \
  "$@"
failed=false
