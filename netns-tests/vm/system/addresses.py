# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is who on the wire, and where the witness writes."""
GUEST, GUEST_MAC = "10.9.0.1", "02:00:00:00:00:01"  # the latter as `boot` has it
BLOCKED, FREE = "10.9.0.66", "10.9.0.7"
PORT = 7
RECORD = "/run/witness.json"
