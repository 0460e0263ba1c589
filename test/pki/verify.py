"""Judges a server's certificate as Python 3.13 and later do by default: verify.py AUTHORITY.pem PORT HOST"""
import socket
import ssl
import sys

authority, port, host = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as secured:
        print(secured.version())
