#!/usr/bin/env bash
# A real OpenSearch (one node, no security) on 127.0.0.1, in the foreground, from Maven Central.
#   start.sh DATA_DIR PORT [SETTING=VALUE ...]     PORT+100 is for nodes among themselves
# Environment: OPENSEARCH_HEAP (512m), OPENSEARCH_LIB (where the jars go; ~/.cache/cresset-tests/opensearch-VERSION),
#   STOP_WITH_STDIN=1 to stop as well when standard input ends, so that no server outlives a test that was killed.
# Prints `ready` when it answers and its shards are there; stops on SIGTERM; what it says is in DATA_DIR/server.log. Ends with 3
# if the jars cannot be downloaded.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage="usage: start.sh DATA_DIR PORT [SETTING=VALUE ...]"
data=$(mkdir -p "${1:?$usage}" && cd "$1" && pwd)
port=${2:?$usage}
shift 2
version=$(sed -n 's:.*<opensearch.version>\(.*\)</opensearch.version>.*:\1:p' "$here/pom.xml")
lib=${OPENSEARCH_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/cresset-tests/opensearch-$version}

mkdir -p "$(dirname "$lib")"
(
    flock 9 # several tests may start at once
    if [ "$(cat "$lib/.complete" 2>/dev/null)" != "$(cksum <"$here/src/OsNode.java")" ]; then
        rm -rf "$lib"
        mvn -q -B -ntp -f "$here/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime "-DoutputDirectory=$lib" >&2 || exit 3
        javac -nowarn -d "$lib" -cp "$lib/*" "$here/src/OsNode.java" >&2
        cksum <"$here/src/OsNode.java" >"$lib/.complete"
    fi
) 9>"$lib.lock"

if [ "${STOP_WITH_STDIN:-0}" = 1 ]; then
    # The server replaces this shell; what watches its input is a child.
    server=$$
    exec 8<&0
    (cat <&8 >/dev/null; kill "$server" 2>/dev/null) >/dev/null 2>&1 &
    exec 8<&-
fi
exec java "-Xms${OPENSEARCH_HEAP:-512m}" "-Xmx${OPENSEARCH_HEAP:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Djava.awt.headless=true -Dlog4j2.formatMsgNoLookups=true \
    -cp "$lib:$lib/*" OsNode "$data" "$port" "$@" 2>>"$data/server.log" </dev/null
