"""Reads authorities, one JSON string a line, and writes the one host and port that each names, or null: by RFC 3986 and RFC 1123."""
import ipaddress
import json
import sys

LABEL = set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def host_of(text):
    if text.startswith("["):
        if not text.endswith("]") or "%" in text:
            return None
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            return None
        mapped = address.ipv4_mapped
        if mapped is not None:
            number = int(mapped)
            return "::ffff:%x:%x" % (number >> 16, number & 0xFFFF)
        return address.compressed
    parts = text.split(".")
    if len(parts) == 4 and all(p.isdigit() and p == str(int(p)) and int(p) < 256 for p in parts):
        return text
    name = text.lower()
    if name.endswith("."):
        name = name[:-1]
    if not name or len(name) > 253:
        return None
    labels = name.split(".")
    for label in labels:
        if not 0 < len(label) < 64 or not set(label) <= LABEL or label[0] == "-" or label[-1] == "-":
            return None
    last = labels[-1]
    if last.isdigit() or (last.startswith("0x") and all(c in "0123456789abcdef" for c in last[2:])):
        return None
    return name


def authority_of(text):
    if any(not 0x21 <= ord(c) <= 0x7E for c in text):
        return None
    host, port = text, None
    if text.startswith("["):
        end = text.find("]")
        if end < 0:
            return None
        host, rest = text[: end + 1], text[end + 1 :]
        if rest:
            if not rest.startswith(":"):
                return None
            port = rest[1:]
    elif ":" in text:
        host, port = text.split(":", 1)
    if port is not None:
        if not port or len(port) > 5 or not all(c in "0123456789" for c in port) or not 1 <= int(port) <= 65535:
            return None
        port = int(port)
    name = host_of(host)
    return None if name is None else [name, port]


for line in sys.stdin:
    print(json.dumps(authority_of(json.loads(line))))
