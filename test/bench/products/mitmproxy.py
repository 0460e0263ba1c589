"""Sets the header, and finds the origin where this machine has it. The access log is mitmdump's own line a flow, to a file."""
import os

credential = "Bearer " + os.environ["BENCH_CREDENTIAL"]
host = os.environ["BENCH_HOST"]


def server_connect(data):
    if data.server.address and data.server.address[0] == host:
        data.server.address = ("127.0.0.1", data.server.address[1])
        data.server.sni = host


def requestheaders(flow):
    flow.request.headers["Authorization"] = credential
    flow.request.host_header = host
