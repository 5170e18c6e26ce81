#!/usr/bin/env bash
# A real Kafka broker (KRaft, one node) on 127.0.0.1, in the foreground, from Maven Central.
#   start.sh DATA_DIR PORT [PROPERTIES]     PORT+1 is the controller's; PROPERTIES is a file whose lines come last
# Environment: KAFKA_HEAP (256m), KAFKA_LIB (where the jars go; ~/.cache/cresset-tests/kafka-VERSION),
#   STOP_WITH_STDIN=1 to stop as well when standard input ends, so that no server outlives a test that was killed.
# Prints `ready` when it answers; stops on SIGTERM; what it says is in DATA_DIR/server.log. Ends with 3 if the jars cannot be
# downloaded. User `relay` with password `relay-secret` is made for SCRAM-SHA-256 and SCRAM-SHA-512.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage="usage: start.sh DATA_DIR PORT [PROPERTIES]"
data=$(mkdir -p "${1:?$usage}" && cd "$1" && pwd)
port=${2:?$usage}
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
lib=${KAFKA_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/cresset-tests/kafka-$version}

mkdir -p "$(dirname "$lib")"
(
    flock 9 # several tests may start at once
    if [ ! -e "$lib/.complete" ]; then
        rm -rf "$lib"
        mvn -q -B -ntp -f "$here/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime "-DoutputDirectory=$lib" >&2 </dev/null || exit 3
        touch "$lib/.complete"
    fi
) 9>"$lib.lock"

conf=$data/server.properties
cat >"$conf" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listeners=CLIENT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=CLIENT://127.0.0.1:$port
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
log.dirs=$data/log
num.network.threads=2
num.io.threads=2
num.partitions=3
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=4194304
END
if [ -n "${3:-}" ]; then cat "$3" >>"$conf"; fi

jvm=(java -Xms64m "-Xmx${KAFKA_HEAP:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
    -Djava.awt.headless=true "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$lib/*")
if [ ! -e "$data/log/meta.properties" ]; then
    # Any 16-byte base64url id will do: the cluster has one node.
    "${jvm[@]}" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c "$conf" \
        --add-scram 'SCRAM-SHA-256=[name=relay,password=relay-secret]' \
        --add-scram 'SCRAM-SHA-512=[name=relay,password=relay-secret]' >&2
fi

# The broker replaces this shell; what watches it are children.
server=$$
: >"$data/server.log"
(while kill -0 "$server" 2>/dev/null; do
    if grep -qs 'Kafka Server started' "$data/server.log"; then
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
exec "${jvm[@]}" kafka.Kafka "$conf" >>"$data/server.log" 2>&1 </dev/null
