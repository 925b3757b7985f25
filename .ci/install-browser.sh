#!/bin/sh
# Installs the browser in which tests/ui looks at MLflow's UI: Chromium, its driver, and a font. They are large, and
# only these tests need them. Without them (and without root) these tests are skipped.
set -u

have() { command -v "$1" >/dev/null 2>&1; }

if have chromium && have chromedriver; then
    exit 0
fi
packages="chromium chromium-driver fonts-dejavu-core"
if ! have apt-get || [ "$(id -u)" != 0 ]; then
    echo "Tests that need a browser are skipped. To run them, install it first, as root:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends $packages" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages >/dev/null; } ||
    echo "Tests that need a browser are skipped: apt-get could not install $packages." >&2
