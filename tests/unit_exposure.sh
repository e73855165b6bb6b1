#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# unit_exposure.sh UNIT: its exposure is 2.5 or less. Shows what adds to it.
set -eu
if ! systemd-analyze --help 2>/dev/null | grep -q -e --offline; then
	echo "skipped: there is no systemd-analyze that rates a unit offline"
	exit 77
fi
status=0
table=$(systemd-analyze security --offline=true --threshold=25 --no-pager "$1") || status=$?
echo "$table" | grep -v '✓'
exit "$status"
