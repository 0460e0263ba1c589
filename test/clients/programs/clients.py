"""GET and POST with a Python client: `clients.py CLIENT URL`. Prints what each answered, a JSON line each."""

import asyncio
import hashlib
import json
import os
import ssl
import sys

client, url = sys.argv[1], sys.argv[2]
own = {"Authorization": "Bearer mine"}
exchanges = (("GET", None), ("POST", b"body"))


def show(status, body, version=""):
    print(json.dumps({"status": status, "version": version, "body": body}))


def with_urllib():
    import urllib.request

    context = ssl.create_default_context()
    # The default of Python 3.13 and later.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(), urllib.request.HTTPSHandler(context=context))
    for _, data in exchanges:
        with opener.open(urllib.request.Request(url, data=data, headers=own), timeout=20) as response:
            show(response.status, json.loads(response.read()))


def with_requests():
    import requests

    with requests.Session() as session:
        for method, data in exchanges:
            response = session.request(method, url, data=data, headers=own, timeout=20)
            show(response.status_code, response.json())


def with_httpx(http2):
    import httpx

    with httpx.Client(http2=http2, timeout=20) as session:
        for method, data in exchanges:
            response = session.request(method, url, content=data, headers=own)
            show(response.status_code, response.json(), response.http_version)


def with_aiohttp(trust_env):
    import aiohttp

    async def run():
        # Without trust_env no proxy variable is read.
        async with aiohttp.ClientSession(trust_env=trust_env, timeout=aiohttp.ClientTimeout(total=20)) as session:
            for method, data in exchanges:
                async with session.request(method, url, data=data, headers=own) as response:
                    show(response.status, await response.json())

    asyncio.run(run())


def with_boto3():
    import boto3
    from botocore.config import Config

    s3 = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        # What the SDK signs with, and the proxy signs over.
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )
    sent = os.urandom(3 * 1_048_576)
    # Bytes that paths elsewhere must not have, or have in another spelling.
    key = "dir//a b+c;caf\u00e9-python"
    put = s3.put_object(Bucket="bucket", Key=key, Body=sent)
    got = s3.get_object(Bucket="bucket", Key=key)["Body"].read()
    whole = hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
    print(json.dumps({"etag": put["ETag"], "isWhole": whole, "bytes": len(got)}))


clients = {
    "urllib": with_urllib,
    "requests": with_requests,
    "httpx": lambda: with_httpx(False),
    "httpx-h2": lambda: with_httpx(True),
    "aiohttp": lambda: with_aiohttp(True),
    "aiohttp-alone": lambda: with_aiohttp(False),
    "boto3": with_boto3,
}
clients[client]()
