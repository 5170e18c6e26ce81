#!/usr/bin/env bash
# A real Elasticsearch (one node, no security) on 127.0.0.1, in the foreground, from Maven Central.
#   start.sh DATA_DIR PORT [SETTING=VALUE ...]     PORT+100 is for nodes among themselves
# Environment: ES_HEAP (512m), ES_HOME (where it is put together; ~/.cache/cresset-tests/elasticsearch-VERSION),
#   STOP_WITH_STDIN=1 to stop as well when standard input ends, so that no server outlives a test that was killed.
# For back-pressure: indexing_pressure.memory.limit=4kb (429), http.max_content_length=64kb (413).
# Prints `ready` when it answers and its shards are there; stops on SIGTERM; what it says is in DATA_DIR/server.log. Ends with 3
# if the jars cannot be downloaded.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage="usage: start.sh DATA_DIR PORT [SETTING=VALUE ...]"
data=$(mkdir -p "${1:?$usage}" && cd "$1" && pwd)
port=${2:?$usage}
shift 2
version=$(sed -n 's:.*<es.version>\(.*\)</es.version>.*:\1:p' "$here/pom.xml")
home=${ES_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/cresset-tests/elasticsearch-$version}

# Laid out as in a distribution: lib/ (the server), modules/NAME/ (each with its own class loader).
assemble() {
    local classes
    rm -rf "$home"
    mkdir -p "$home"/{lib,config,plugins,launcher} "$home"/modules/{transport-netty4,relay-extras}
    mvn -q -B -ntp -f "$here/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime "-DoutputDirectory=$home/lib" >&2 || exit 3
    mv "$home"/lib/{netty,transport-netty4}-*.jar "$home/modules/transport-netty4/"
    mv "$home"/lib/x-pack-core-*.jar "$home/modules/relay-extras/"
    cp "$here/log4j2.properties" "$home/config/"
    : >"$home/config/elasticsearch.yml"
    # No modulename: the server is on the class path, so its plug-ins are too.
    descriptor transport-netty4 org.elasticsearch.transport.netty4.Netty4Plugin
    descriptor relay-extras testextras.TestExtrasPlugin
    javac -nowarn -d "$home/launcher" -cp "$home/lib/*" "$here/src/EsNode.java" >&2
    classes=$(mktemp -d)
    javac -nowarn -d "$classes" -cp "$home/lib/*:$home/modules/relay-extras/*" "$here/src/TestExtrasPlugin.java" >&2
    jar --create --file "$home/modules/relay-extras/relay-extras.jar" -C "$classes" .
    rm -rf "$classes"
    cat "$here"/src/*.java | cksum >"$home/.complete"
}

descriptor() { # NAME CLASS
    printf '%s\n' "name=$1" "description=$1" "version=$version" "elasticsearch.version=$version" \
        java.version=17 "classname=$2" >"$home/modules/$1/plugin-descriptor.properties"
}

mkdir -p "$(dirname "$home")"
(
    flock 9 # several tests may start at once
    if [ "$(cat "$home/.complete" 2>/dev/null)" != "$(cat "$here"/src/*.java | cksum)" ]; then assemble; fi
) 9>"$home.lock"

if [ "${STOP_WITH_STDIN:-0}" = 1 ]; then
    # The server replaces this shell; what watches its input is a child.
    server=$$
    exec 8<&0
    (cat <&8 >/dev/null; kill "$server" 2>/dev/null) >/dev/null 2>&1 &
    exec 8<&-
fi
exec java "-Xms${ES_HEAP:-512m}" "-Xmx${ES_HEAP:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Djava.awt.headless=true -Dlog4j2.formatMsgNoLookups=true \
    -cp "$home/launcher:$home/lib/*" EsNode "$home" "$data" "$port" "$@" 2>>"$data/server.log" </dev/null
