#!/usr/bin/env bash
# Gives an Elasticsearch or OpenSearch what events need: lifecycles, index templates, read aliases. Safe to run again.
#   elk/setup.sh URL [CURL ARGUMENTS ...]       as in: elk/setup.sh https://es:9200 --cacert ca.crt -H "Authorization: ApiKey $KEY"
# The same as `cresset sink setup` with the default settings, for machines that have only curl.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
url=${1:?usage: elk/setup.sh URL [CURL ARGUMENTS ...]}
url=${url%/}
shift

ask() { # METHOD PATH [FILE]
    curl --silent --show-error --fail-with-body "${@:4}" -X "$1" "$url/$2" \
        -H 'Content-Type: application/json' ${3:+--data-binary "@$3"}
}

about=$(ask GET "" "" "$@") || { echo "$about" >&2; exit 3; }
case "$about" in
*'"opensearch"'*) product=opensearch policies=_plugins/_ism/policies ;;
*) product=elasticsearch policies=_ilm/policy ;;
esac
echo "$product at $url"

put() { # WHAT PATH FILE
    local answer
    if answer=$(ask PUT "$2" "$3" "${@:4}"); then
        echo "  $1: ok"
    elif [ "$product" = opensearch ] && [[ $answer == *version_conflict* || $answer == *"document already exists"* ]]; then
        # OpenSearch replaces a policy only for who names the version that was seen; `cresset sink setup` does.
        echo "  $1: is there already"
    else
        echo "  $1: $answer" >&2
        return 1
    fi
}

for kind in alerts logs messages; do
    put "lifecycle kubearmor-$kind" "$policies/kubearmor-$kind" "$here/$product/lifecycle-$kind.json" "$@"
    put "index template kubearmor-$kind" "_index_template/kubearmor-$kind" "$here/$product/index-template-$kind.json" "$@"
done
