#!/bin/sh
# Installs what only tests need from the distribution: PostgreSQL and MariaDB, which tests start
# themselves on loopback, openssl, clang with its sanitizers and fuzzer, and valgrind, which counts
# instructions. Without them (and without root) these tests are skipped.
set -u

have() { command -v "$1" >/dev/null 2>&1; }

missing=
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || have postgres || missing="$missing postgresql"
[ -x /usr/sbin/mariadbd ] || have mariadbd || missing="$missing mariadb-server"
have openssl || missing="$missing openssl"
have_fuzzer() { ls "$(clang -print-runtime-dir)"/*fuzzer* >/dev/null 2>&1; }
# llvm has what turns addresses in reports into lines.
have clang && have_fuzzer || missing="$missing clang llvm"
have valgrind || missing="$missing valgrind"
[ -n "$missing" ] || exit 0

if ! have apt-get || [ "$(id -u)" != 0 ]; then
    echo "Tests that need$missing are skipped. To run them, install these first, as root:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 0
fi
# The packages start servers of their own, which nothing here needs: where no policy says
# otherwise, they are told not to.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
    echo "Tests that need$missing are skipped: apt-get could not install them." >&2
# The sanitizers and the fuzzer are a package of the compiler's version.
if have clang && ! have_fuzzer; then
    apt-get install -y -qq --no-install-recommends \
        "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" >/dev/null ||
        echo "Fuzzers are skipped: apt-get could not install clang's libraries." >&2
fi
