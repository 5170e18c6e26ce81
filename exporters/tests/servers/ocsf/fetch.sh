#!/usr/bin/env bash
# The published schema of OCSF 1.3.0 as one JSON document, out of the Python package that carries it; prints the file's path.
# Environment: OCSF_LIB (where it is kept; ~/.cache/cresset-tests/ocsf-1.3.0). Ends with 3 if it cannot be downloaded.
set -euo pipefail
package=ocsf-json-schema==1.2.0
lib=${OCSF_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/cresset-tests/ocsf-1.3.0}
mkdir -p "$(dirname "$lib")"
(
    flock 9 # several tests may start at once
    if [ ! -f "$lib/1.3.0.json" ]; then
        rm -rf "$lib"
        mkdir -p "$lib"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --dest "$lib" "$package" >&2 </dev/null || exit 3
        python3 -m zipfile -e "$lib"/*.whl "$lib/package" >&2 || exit 3
        mv "$lib/package/ocsf_json_schema/ocsf/1.3.0.json" "$lib"
        rm -rf "$lib/package" "$lib"/*.whl
    fi
) 9>"$lib.lock"
echo "$lib/1.3.0.json"
