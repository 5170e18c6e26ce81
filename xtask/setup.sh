#!/bin/sh
# Installs by name what building (`build`) and testing (`test`) need, or says in one list what is missing and how to get it.
# It checks first, so a second run costs nothing and needs no network.
set -eu

missing=""
need() { # PROGRAM-OR-FILE PACKAGE
    case "$1" in
    /*) [ -e "$1" ] && return ;;
    *) command -v "$1" >/dev/null 2>&1 && return ;;
    esac
    missing="$missing $2"
}

for group in "$@"; do
    case "$group" in
    build)
        need cc gcc
        need clang clang
        need pkg-config pkg-config
        need /usr/include/libelf.h libelf-dev
        need /usr/include/zlib.h zlib1g-dev
        need /usr/include/openssl/ssl.h libssl-dev
        need make make
        need c++ g++
        ;;
    test)
        need qemu-system-x86_64 qemu-system-x86
        need busybox busybox-static
        need cpio cpio
        need valgrind valgrind
        need gzip gzip
        need java default-jdk-headless
        need javac default-jdk-headless
        need mvn maven
        need kcat kcat
        need prometheus prometheus
        need pip3 python3-pip
        ;;
    *)
        echo "setup.sh: unknown group $group; known are build and test" >&2
        exit 2
        ;;
    esac
done

if ! command -v "${CARGO:-cargo}" >/dev/null 2>&1; then
    echo "cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run this again" >&2
    exit 1
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of names
    apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
        apt-get update -qq
        # shellcheck disable=SC2086
        apt-get install -y -qq --no-install-recommends $missing >/dev/null
    }
    exit 0
fi

echo "missing packages:$missing" >&2
echo "install them with: sudo apt-get install$missing" >&2
exit 1
