#!/usr/bin/env bash
# Serves on four hosts that are network namespaces, over slow links, behind the firewall rules of
# Documentation/network.md. It needs Linux, root, iproute2,
# nftables and curl.
#
# EXECUTABLES is where the services are (.build/release), MODEL what they serve, RATE what each link
# carries (100mbit), DELAY_MS what it adds in each direction (5), SECONDS_OF_LOAD how long it is
# used.
# Delay is made by netem; where the kernel lacks it, DELAY_TOOL names a program that holds back the
# packets of an NFQUEUE (arguments: queue, microseconds, jitter, loss), or there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

executables=$(cd "${EXECUTABLES:-.build/release}" && pwd)
model=$(realpath "${MODEL:-Models/tiny.gguf}")
rate=${RATE:-100mbit} delay_ms=${DELAY_MS:-5} load_seconds=${SECONDS_OF_LOAD:-20}
prefix=pdhost bridge=pdhostbr net=10.78.0
hosts=(control prefill decode client)
declare -A address=([control]=$net.11 [prefill]=$net.12 [decode]=$net.13 [client]=$net.14)
work=$(mktemp -d)
failed=0

say() { printf '%(%T)T  %s\n' -1 "$*"; }
fail() { printf 'hosts-test: %s\n' "$@" >&2; exit 1; }
on() { local host=$1; shift; nsenter "--net=/run/netns/$prefix-$host" "$@"; }
check() {
  local what=$1
  shift
  if "$@" >"$work/output" 2>&1; then say "ok      $what"; else
    say "FAILED  $what" && tail -n 8 "$work/output" | sed 's/^/          /'
    failed=$((failed + 1))
  fi
}

[ "$(id -u)" = 0 ] || fail "network namespaces need root"
for tool in ip nft tc nsenter curl; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
for name in scheduler prefill-worker decode-worker gateway health-agent pdserve; do
  [ -x "$executables/$name" ] || fail "$executables/$name is missing: swift build -c release"
done

take_down() {
  local host
  for host in "${hosts[@]}"; do
    ip netns pids "$prefix-$host" 2>/dev/null | xargs -r kill 2>/dev/null || true
  done
  sleep 1
  for host in "${hosts[@]}"; do
    ip netns pids "$prefix-$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$prefix-$host" 2>/dev/null || true
  done
  ip link del "$bridge" 2>/dev/null || true
}
trap 'take_down; rm -rf "$work"' EXIT
take_down

ip link add "$bridge" type bridge
ip link set "$bridge" up
number=0
for host in "${hosts[@]}"; do
  number=$((number + 1))
  ip netns add "$prefix-$host"
  ip link add "${prefix}v$number" type veth peer name eth0 netns "$prefix-$host"
  ip link set "${prefix}v$number" master "$bridge" up
  on "$host" ip addr add "${address[$host]}/24" dev eth0
  on "$host" ip link set eth0 up
  on "$host" ip link set lo up
done

# What comes in on each host: PORT FROM …
firewall() {
  local host=$1
  shift
  on "$host" nft -f - <<RULES
table inet pdserve {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iif lo accept
    ip protocol icmp accept
$(while [ $# -gt 0 ]; do echo "    tcp dport $1 ip saddr { $2 } accept" && shift 2; done)
  }
}
RULES
}
firewall control 7400 "${address[prefill]}, ${address[decode]}" 8080 "${address[client]}"
firewall prefill "{ 7410, 7412 }" "${address[control]}, ${address[decode]}"
firewall decode "{ 7420, 7422 }" "${address[control]}, ${address[prefill]}"
firewall client

delay_by=none
for host in prefill decode; do
  if on "$host" tc qdisc add dev eth0 root handle 1: netem delay "${delay_ms}ms" 2>/dev/null; then
    delay_by=netem
    on "$host" tc qdisc add dev eth0 parent 1: handle 2: tbf rate "$rate" burst 256kb latency 50ms
  else
    on "$host" tc qdisc add dev eth0 root tbf rate "$rate" burst 256kb latency 50ms
    if [ -n "${DELAY_TOOL:-}" ]; then
      # At the receiver, in both directions of the host's link.
      delay_by=NFQUEUE
      on "$host" iptables -t mangle -A INPUT -i eth0 -j NFQUEUE --queue-num 1 --queue-bypass
      on "$host" "$DELAY_TOOL" 1 $((delay_ms * 1000)) 0 0 >/dev/null 2>&1 &
    fi
  fi
done
"$executables/pdserve" certificates --folder "$work/all" --cluster home \
  --host control,prefill,decode >/dev/null
for role in scheduler gateway prefill-worker decode-worker health-agent administrator; do
  mkdir "$work/$role"
  cp "$work/all/ca.pem" "$work/all/$role.pem" "$work/all/$role.key" "$work/$role/"
done
service() {
  local host=$1 role=$2
  shift 2
  on "$host" "$executables/$role" --cluster home --certificates "$work/$role" \
    --host-name "$host" "$@" >"$work/$role.log" 2>&1 &
}
scheduler=${address[control]}:7400
service control scheduler --listen "$scheduler"
for role in prefill decode; do
  port=$([ "$role" = prefill ] && echo 7410 || echo 7420)
  # Listens everywhere, as behind address translation, and says where it is reached.
  service "$role" "$role-worker" --scheduler "$scheduler" --model "$model" --threads 1 \
    --listen "0.0.0.0:$port" --bulk-listen "0.0.0.0:$((port + 2))" \
    --advertise "${address[$role]}" --local-folder none
done
service control gateway --scheduler "$scheduler" --model "$model" \
  --http-listen "${address[control]}:8080"
service decode health-agent --scheduler "$scheduler"

status() {
  on control "$executables/pdserve" status --cluster home --certificates "$work/administrator" \
    --scheduler "$scheduler"
}
for _ in $(seq 120); do
  [ "$(status 2>/dev/null | grep -c ' serving')" -ge 2 ] && break
  sleep 0.5
done
status | sed 's/^/          /' | cut -c 1-150
check "both workers serve at the addresses they advertise" \
  bash -c "[ $(status | grep -c "${address[prefill]}:7410\|${address[decode]}:7420") -ge 2 ]"
check "the client's host reaches no port of a service but the gateway's" bash -c "
  for place in ${address[control]}/7400 ${address[prefill]}/7410 ${address[decode]}/7422; do
    ! nsenter --net=/run/netns/$prefix-client timeout 2 bash -c \"exec 3<>/dev/tcp/\$place\" \
      2>/dev/null || exit 1
  done"
reading() { on "$1" curl -s --max-time 10 "http://127.0.0.1:$2/metrics" | sed -n "s/^$3 //p"; }
connect=$(on prefill curl -sk --max-time 3 -o "$work/none" -w '%{time_connect}' \
  "https://${address[decode]}:7422" || true)
say "links of $rate, delay by $delay_by: prefill connects to decode in $connect s"
for clients in 1 8; do
  check "$clients client(s) get every answer" on client "$executables/pdserve" load \
    --gateway "${address[control]}:8080" --clients "$clients" --seconds "$load_seconds" \
    --max-tokens 100
  sed 's/^/          /' "$work/output"
done
bytes=$(reading prefill 7411 prefill_kv_wire_bytes_total)
check "KV went over the link: ${bytes:-0} bytes" [ "${bytes:-0}" -gt 100000 ]

# The link of the decode host is cut: its worker leaves the view, and comes back.
ip link set "${prefix}v3" down
sleep 8
check "the scheduler sees that the decode host is away" \
  bash -c "[ $(status | grep -c ' serving') -eq 1 ]"
ip link set "${prefix}v3" up
for _ in $(seq 60); do
  [ "$(status 2>/dev/null | grep -c ' serving')" -ge 2 ] && break
  sleep 0.5
done
check "and that it is back" bash -c "[ $(status | grep -c ' serving') -ge 2 ]"
check "answers come again" on client "$executables/pdserve" load \
  --gateway "${address[control]}:8080" --clients 2 --seconds 5
sed 's/^/          /' "$work/output"
[ "$failed" -eq 0 ] || { tail -n 5 "$work"/*.log; fail "$failed failed"; }
say "all passed"
