# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of configurations, and what of the daemon's answers time changes."""
ETH0 = '[[interface]]\nname = "eth0"\n'
TRANSIENT = frozenset({"uptime_s", "clients", "age_s", "left_s"})


def blacklist(*addresses, rest=""):
    listed = ", ".join(f'"{address}"' for address in addresses)
    return f"{ETH0}[blacklist]\naddresses = [{listed}]\n{rest}"


def lasting(value, transient=TRANSIENT):
    """An answer without what changes by itself."""
    if isinstance(value, dict):
        return {key: lasting(item, transient) for key, item in value.items() if key not in transient}
    return [lasting(item, transient) for item in value] if isinstance(value, list) else value
