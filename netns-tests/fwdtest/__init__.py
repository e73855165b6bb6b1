# SPDX-License-Identifier: GPL-2.0-or-later
"""The real daemon and the real tool in network namespaces.

    sandbox   namespaces, veth pairs and tun devices that go away whatever happens
    daemon    fwd in a namespace, fwctl, readiness, sanitizer reports
    client    the control socket, byte by byte
    traffic   what is sent, what arrives, and which counters rose
    stream    traffic that goes on meanwhile, each packet counted
    fault     calls of the daemon to the kernel that fail
    kernel    what the kernel has, seen past the daemon; programs of somebody else
"""
