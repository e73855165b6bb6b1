# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks are made of.

    bpf         programs and maps, by libbpf
    sets        blocklists, and the addresses that hit and miss them
    packets     the driver: source after source into a program under test
    contenders  who is measured, loaded with a set
    packet      cost per packet through the loaded program
    wire        packets per second over veth, and what a passed packet costs
    change      from the command to enforcement
    report      tables, targets, Markdown
"""
