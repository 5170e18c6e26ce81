#!/usr/bin/env bash
# Gives an Elasticsearch or OpenSearch what events need: lifecycles, index templates, read aliases. Safe to run again.
#   elk/setup.sh URL [CURL ARGUMENTS ...]       as in: elk/setup.sh https://es:9200 --cacert ca.crt -H "Authorization: ApiKey $KEY"
# The same as `cresset sink setup` with the default settings, for machines that have only curl. Ends with 1 if something was
# refused, 2 for wrong usage, 3 if nobody answers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -eq 0 ] || [[ $1 != http://* && $1 != https://* ]]; then
    echo "usage: elk/setup.sh URL [CURL ARGUMENTS ...], as in: elk/setup.sh http://127.0.0.1:9200" >&2
    exit 2
fi
url=$1
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

failed=0
put() { # WHAT PATH FILE
    local answer
    if answer=$(ask PUT "$2" "$3" "${@:4}"); then
        echo "  $1: ok"
    elif [ "$product" = opensearch ] && [[ $answer == *version_conflict* || $answer == *"document already exists"* ]]; then
        # OpenSearch replaces a policy only for who names the version that was seen; `cresset sink setup` does.
        echo "  $1: is there already"
    else
        echo "  $1: $answer" >&2
        failed=1
    fi
}

for kind in alerts logs messages; do
    put "lifecycle kubearmor-$kind" "$policies/kubearmor-$kind" "$here/$product/lifecycle-$kind.json" "$@"
    put "index template kubearmor-$kind" "_index_template/kubearmor-$kind" "$here/$product/index-template-$kind.json" "$@"
done
if [ $failed -ne 0 ]; then
    echo "elk/setup.sh: not everything was taken; mend what is said above and run it again" >&2
fi
exit $failed
