#!/usr/bin/env bash
# A real OpenTelemetry Collector on 127.0.0.1, in the foreground, built once from the Go modules of builder.yaml.
#   start.sh DATA_DIR GRPC_PORT HTTP_PORT
# Environment: OTEL_LIB (where the program goes; ~/.cache/cresset-tests/otel-VERSION),
#   STOP_WITH_STDIN=1 to stop as well when standard input ends, so that no server outlives a test that was killed.
# Prints `ready` when it answers; stops on SIGTERM; what came, and what it says, is in DATA_DIR/server.log. Ends with 3 if it
# cannot be downloaded or built.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage="usage: start.sh DATA_DIR GRPC_PORT HTTP_PORT"
data=$(mkdir -p "${1:?$usage}" && cd "$1" && pwd)
grpc=${2:?$usage}
http=${3:?$usage}
version=v0.165.0
lib=${OTEL_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/cresset-tests/otel-$version}

mkdir -p "$(dirname "$lib")"
(
    flock 9 # several tests may start at once
    if [ ! -x "$lib/otelcol-test" ]; then
        rm -rf "$lib"
        mkdir -p "$lib/build"
        cp "$here/builder.yaml" "$lib/build"
        cd "$lib/build"
        GOBIN=$lib/build go install "go.opentelemetry.io/collector/cmd/builder@$version" >&2 </dev/null || exit 3
        ./builder --config builder.yaml >&2 </dev/null || exit 3
        mv otelcol-test ../
        cd ..
        rm -rf build
    fi
) 9>"$lib.lock"

conf=$data/otelcol.yaml
cat >"$conf" <<END
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:$grpc"}
      http: {endpoint: "127.0.0.1:$http"}
exporters:
  debug: {verbosity: detailed, sampling_initial: 1000000}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [otlp], exporters: [debug]}
END

# The collector replaces this shell; what watches it are children.
server=$$
: >"$data/server.log"
(while kill -0 "$server" 2>/dev/null; do
    if grep -qs 'Everything is ready' "$data/server.log"; then
        echo ready
        break
    fi
    sleep 0.1
done) &
if [ "${STOP_WITH_STDIN:-0}" = 1 ]; then
    exec 8<&0
    (
        cat <&8
        # By then the number may be somebody else's.
        if grep -qF "$conf" "/proc/$server/cmdline"; then kill "$server"; fi
    ) >/dev/null 2>&1 &
    exec 8<&-
fi
exec "$lib/otelcol-test" --config "$conf" >>"$data/server.log" 2>&1 </dev/null
