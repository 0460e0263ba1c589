"""GET and POST through the environment's proxy with urllib and requests; prints what each answered, a JSON line each."""

import json
import ssl
import sys
import urllib.request

library, url = sys.argv[1], sys.argv[2]

if library == "urllib":
    context = ssl.create_default_context()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(), urllib.request.HTTPSHandler(context=context))
    for data in (None, b"body"):
        with opener.open(urllib.request.Request(url, data=data, headers={"Authorization": "Bearer mine"})) as response:
            print(json.dumps({"status": response.status, "body": json.loads(response.read())}))
else:
    import requests

    for method, data in (("GET", None), ("POST", b"body")):
        response = requests.request(method, url, data=data, headers={"Authorization": "Bearer mine"}, timeout=10)
        print(json.dumps({"status": response.status_code, "body": response.json()}))
