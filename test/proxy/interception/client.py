"""A Python program that is told what to trust by SSL_CERT_FILE, and verifies as 3.13 and later do: client.py ADDRESS PORT HOST"""
import socket
import ssl
import sys

address, port, host = sys.argv[1:]
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
with socket.create_connection((address, int(port)), timeout=10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as secured:
        print(secured.version())
