"""Reads one JSON value a line and says what Python's standard library makes of it: an independent reading of addresses, names and paths."""
import ipaddress
import json
import posixpath
import sys
from urllib.parse import unquote


def ipv6(text):
    # A zone is part of an address for Python, and of none for us.
    if "%" in text:
        return None
    try:
        return str(int(ipaddress.IPv6Address(text)))
    except ValueError:
        return None


def name(text):
    try:
        return text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None


def path(text):
    decoded = unquote(text, errors="strict")
    normal = posixpath.normpath(decoded)
    # normpath takes a final "/" away, which names another resource.
    return {"decoded": decoded, "normal": normal + "/" if decoded.endswith("/") and normal != "/" else normal}


readers = {"ipv6": ipv6, "name": name, "path": path}
for line in sys.stdin:
    kind, text = json.loads(line)
    try:
        answer = readers[kind](text)
    except ValueError:
        answer = None
    print(json.dumps(answer), flush=True)
