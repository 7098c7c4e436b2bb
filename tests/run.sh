#!/usr/bin/env bash
# Runs every test of the project, those of the firmware on emulated boards included. Needs Rust; installs from Debian, when it may, what the interoperability tests talk to.
# Options: --kill-rounds N (default 25), --quick (unit, store, simulator and wire tests only).
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

kill_rounds=25
quick=0
while [ $# -gt 0 ]; do
  case "$1" in
    --kill-rounds) kill_rounds=${2:?--kill-rounds needs a number}; shift 2 ;;
    --quick) quick=1; export PARLOR_QUICK=1; shift ;;
    *) echo "unknown option $1; see the first lines of $0" >&2; exit 2 ;;
  esac
done
export PARLOR_KILL_ROUNDS=$kill_rounds

# What the interoperability tests talk to: the stock MQTT clients of Debian, of Python and of Node; and the broker that devices are tried on.
missing=()
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
command -v openssl >/dev/null || missing+=(openssl)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v npm >/dev/null || missing+=(npm nodejs)
if [ "$quick" = 0 ] && [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}"
    apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
      echo "could not install ${missing[*]}: install these Debian packages and run this again" >&2; exit 1; }
  else
    echo "missing Debian packages: ${missing[*]}; install them (apt-get install ${missing[*]}) and run this again" >&2
    exit 1
  fi
fi
peers=target/peers
if [ "$quick" = 0 ]; then
  mkdir -p "$peers"
  if [ ! -x "$peers/python/bin/python" ] || ! "$peers/python/bin/python" -c 'import paho.mqtt, aioquic' 2>/dev/null; then
    python3 -m venv "$peers/python" && "$peers/python/bin/pip" install -q --disable-pip-version-check paho-mqtt aioquic || {
      echo "could not install paho-mqtt and aioquic into $peers/python" >&2; exit 1; }
  fi
  if [ ! -d "$peers/node_modules/mqtt" ]; then
    (cd "$peers" && npm install --silent --no-audit --no-fund --no-package-lock mqtt >/dev/null) || {
      echo "could not install the package mqtt into $peers" >&2; exit 1; }
  fi
  export PARLOR_PEERS=$PWD/$peers
fi

set -e
cargo build --locked -p parlor -p parlor-tests --bins
set +e
if cargo nextest --version >/dev/null 2>&1; then
  runner=(cargo nextest run --locked --workspace --no-fail-fast --status-level fail --final-status-level fail)
else
  runner=(cargo test --locked --workspace --no-fail-fast)
fi
[ "$quick" = 1 ] && runner+=(--exclude parlor-bench)
out=$(mktemp)
"${runner[@]}" 2>&1 | tee "$out"
status=$?
# One closing line, whichever runner it was.
if grep -q 'tests run:' "$out"; then
  passed=$(sed -n 's/.*tests run: \([0-9]*\) passed.*/\1/p' "$out" | tail -1)
  failed=$(sed -n 's/.*[, ]\([0-9]*\) failed.*/\1/p' "$out" | tail -1)
else
  passed=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$out" | awk '{n+=$1} END {print n+0}')
  failed=$(sed -n 's/^test result: .* \([0-9]*\) failed;.*/\1/p' "$out" | awk '{n+=$1} END {print n+0}')
fi
# The examples in the documents of the crates, which the runner above may not know.
if [ "${runner[1]}" = nextest ]; then
  cargo test --locked --workspace --doc 2>&1 | tee "$out" || status=1
  passed=$((${passed:-0} + $(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$out" | awk '{n+=$1} END {print n+0}')))
  failed=$((${failed:-0} + $(sed -n 's/^test result: .* \([0-9]*\) failed;.*/\1/p' "$out" | awk '{n+=$1} END {print n+0}')))
fi
if [ "$quick" = 0 ]; then
  firmware-examples/run.sh 2>&1 | tee "$out" || status=1
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$out" | tail -1)
  if [ -n "$line" ]; then
    passed=$((${passed:-0} + $(echo "$line" | cut -d' ' -f1)))
    failed=$((${failed:-0} + $(echo "$line" | cut -d' ' -f3)))
  else
    status=1
  fi
fi
rm -f "$out"
echo "${passed:-0} passed, ${failed:-0} failed"
[ "$status" = 0 ] && [ "${passed:-0}" -gt 0 ]
