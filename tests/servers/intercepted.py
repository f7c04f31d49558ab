"""Python's clients through the proxy of the environment, which stands in for the URL that is given. Fails loudly."""

import hashlib
import os
import ssl
import sys
import urllib.request

import requests
from websockets.sync.client import connect

BASE = sys.argv[1]
CA = os.environ["REQUESTS_CA_BUNDLE"]

session = requests.Session()
for index in range(20):
    body = os.urandom(index * 5000)
    answer = session.post(BASE + "/r?x=%2F", data=body, headers={"Authorization": "Bearer of-the-client"}, timeout=10).json()
    assert answer["sha256"] == hashlib.sha256(body).hexdigest()
    assert answer["target"] == "/r?x=%2F"

context = ssl.create_default_context(cafile=CA)
with urllib.request.urlopen(BASE + "/u", timeout=10, context=context) as answer:
    assert answer.status == 200

proxy = os.environ["https_proxy"]
with connect(BASE.replace("https", "wss") + "/socket", ssl=context, proxy=proxy) as socket:
    socket.send("grüße")
    assert socket.recv() == "grüße"
    large = os.urandom(1 << 19)
    socket.send(large)
    assert socket.recv() == large

print("intercepted: requests 20 on one tunnel, urllib 1, websockets text and 512 KiB")
