#!/bin/sh
# Install the real servers and the browser that the tests talk to, where Debian's apt is there and may be used.
# Where it is not, the tests that need a missing one are skipped by name; with CI=true they fail instead.
packages="curl mosquitto mosquitto-clients victoria-metrics influxdb postgresql chromium-headless-shell fiu-utils libfaketime"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "tests: not installed:$missing (needs apt-get and root); tests that need them are skipped" >&2
    exit 0
fi
echo "tests: installing$missing" >&2
apt-get update -qq >/dev/null || true
# One at a time, so that one missing package does not keep the others away.
for package in $missing; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
        echo "tests: apt could not install $package" >&2
done
