#!/bin/sh
# Installs what building needs from the distribution: a C compiler, pkg-config, msgpack-c, zstd,
# and Python's headers and venv. As root it does so; otherwise it prints the one line to run.
set -eu

PYTHON=${PYTHON:-python3}
have() { command -v "$1" >/dev/null 2>&1; }
headers() {
    "$PYTHON" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'
}

if ! have "$PYTHON"; then
    version=3
    missing_python=1
else
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "mlflow-fasttrace needs Python 3.10 or newer; set PYTHON to one: make PYTHON=python3.12 test" >&2
        exit 1
    }
    missing_python=
fi

if [ -z "$missing_python" ] && have cc && have pkg-config && pkg-config --exists libzstd &&
    { pkg-config --exists msgpack-c || pkg-config --exists msgpack; } &&
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null && headers; then
    exit 0
fi

have apt-get || {
    echo "Please install a C compiler, pkg-config, msgpack-c and zstd (with headers), and Python >= 3.10 with its headers." >&2
    exit 1
}
# Debian 13 and Ubuntu 24.10 renamed the C library's package.
choose_msgpack='$(apt-cache show libmsgpack-c-dev >/dev/null 2>&1 && echo libmsgpack-c-dev || echo libmsgpack-dev)'
packages="gcc libc6-dev make pkg-config libzstd-dev python3-dev python3-venv"
if [ "$(id -u)" != 0 ]; then
    echo "Please run this once as root, then the same make command again:" >&2
    echo "    sudo sh -c 'apt-get update && apt-get install -y $packages $choose_msgpack'" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages $(eval echo "$choose_msgpack") >/dev/null
