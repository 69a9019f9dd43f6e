#!/usr/bin/env python3
"""A second, independent reading of the disks of every domain XML below DIR/tests.

Usage: xpath_disks.py DIR        DIR: an unpacked libvirt source

Prints one record a line, tab-separated, a backslash escape for what a line cannot hold:

    file    PATH    KIND        KIND: domain, disk, nested, malformed
    domain  N                   the Nth <domain> of that file, from 0
    disk    TYPE    SOURCE      one a <disk>; both are "-" and empty for a drive without a medium

It knows nothing of virt-fsck: expat reads, and the paths below are the ones libvirt itself evaluates
(src/conf/domain_conf.c, virDomainDiskDefParseSourceXML and virDomainStorageSourceParse).
"""

import os
import sys
import xml.etree.ElementTree as ElementTree


def escaped(text):
    """The text on one line, without tabs."""
    return (
        text.replace("\\", "\\\\")
        .replace("\t", "\\t")
        .replace("\n", "\\n")
        .replace("\r", "\\r")
    )


def pci_address(source):
    """DDDD:BB:SS.F of the <address> of an NVMe source."""
    address = source.find("./address")
    if address is None:
        return ""
    domain, bus, slot, function = (
        int(address.get(part, "0"), 0) for part in ("domain", "bus", "slot", "function")
    )
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def source_of(disk):
    """(type, source) as libvirt takes them: a missing type is file, without <source> the type says nothing."""
    kind, source = plain_source_of(disk)
    return (kind, source) if source else ("-", "")


def plain_source_of(disk):
    """(type, source); the source is empty where there is none."""
    source = disk.find("./source[1]")
    kind = disk.get("type", "file")
    if source is None:
        return kind, ""
    plain = {"file": "file", "block": "dev", "dir": "dir", "vhostuser": "path", "vhostvdpa": "dev"}
    if kind in plain:
        return kind, source.get(plain[kind], "")
    if kind == "volume":
        pool, volume = source.get("pool"), source.get("volume")
        return kind, "" if pool is None and volume is None else f"{pool}/{volume}"
    if kind == "network":
        return kind, f"{source.get('protocol')}:{source.get('name', '')}"
    if kind == "nvme":
        return kind, f"{pci_address(source)}/{source.get('namespace')}"
    return kind, ""


def say(*fields):
    print("\t".join(escaped(field) for field in fields))


def read(path, name):
    """Says what stands in one file; nothing where no <domain> or <disk> is."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        say("file", name, "malformed", str(error))
        return
    if root.tag == "domain":
        kind, domains = "domain", [root]
    elif root.tag == "disk":
        kind, domains = "disk", [None]
    else:
        kind, domains = "nested", root.findall(".//domain[name]")
    if not domains:
        return
    say("file", name, kind)
    for number, domain in enumerate(domains):
        say("domain", str(number))
        for disk in [root] if domain is None else domain.findall("./devices/disk"):
            say("disk", *source_of(disk))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    top = sys.argv[1]
    for folder, folders, files in os.walk(os.path.join(top, "tests")):
        folders.sort()
        for file in sorted(files):
            if file.endswith(".xml"):
                path = os.path.join(folder, file)
                read(path, os.path.relpath(path, top))


if __name__ == "__main__":
    main()
