"""Python's clients against the proxy at the URL that is given. Prints a figure a line; fails loudly."""

import asyncio
import hashlib
import http.client
import json
import os
import sys
import time

import aiohttp
import requests
import urllib3
from websockets.sync.client import connect

BASE = sys.argv[1]
SOCKET = BASE.replace("http", "ws") + "/socket"


def web_sockets():
    with connect(SOCKET, additional_headers={"Authorization": "Bearer of-the-client"}, max_size=None) as socket:
        socket.send("grüße")
        assert socket.recv() == "grüße"
        socket.send(b"\0\1\377")
        assert socket.recv() == b"\0\1\377"
        large = os.urandom(1 << 20)
        socket.send(large)
        assert socket.recv() == large
        socket.send(["one ", "and ", "another"])
        assert socket.recv() == "one and another"
        assert socket.ping(b"here").wait(5)
        socket.send("ping me")
        assert socket.recv() == "pong: from the server"
        socket.send("close 4321")
        try:
            socket.recv()
            raise AssertionError("it was not closed")
        except Exception as error:
            assert (error.rcvd.code, error.rcvd.reason) == (4321, "as asked"), error
    with connect(SOCKET) as socket:
        socket.close(4003, "enough")
    deadline = time.monotonic() + 5
    while requests.get(BASE + "/closes", timeout=5).json()[-1] != 4003:
        assert time.monotonic() < deadline, "the close code did not arrive"
        time.sleep(0.05)
    print("websockets: text, binary, 1 MiB, fragments, ping and pong both ways, close codes both ways")


def kept_alive():
    session = requests.Session()
    for index in range(30):
        body = os.urandom(index * 1000)
        answer = session.post(BASE + "/r?x=%2F", data=body, timeout=5).json()
        assert answer["sha256"] == hashlib.sha256(body).hexdigest()
    chunked = session.put(BASE + "/r", data=(b"z" * 1000 for _ in range(50)), timeout=5).json()
    assert (chunked["bytes"], chunked["method"]) == (50_000, "PUT")
    assert session.head(BASE + "/r", timeout=5).status_code == 200
    pool = urllib3.PoolManager(maxsize=1)
    for _ in range(30):
        assert pool.request("GET", BASE + "/u", timeout=5).status == 200
    (kept,) = [pool.pools[key] for key in pool.pools.keys()]
    assert (kept.num_connections, kept.num_requests) == (1, 30), kept
    host = BASE.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=5)
    for _ in range(20):
        connection.request("GET", "/h")
        assert json.loads(connection.getresponse().read())["target"] == "/h"
    print("requests, urllib3, http.client: 82 requests, urllib3 with 30 on one connection")


async def asynchronous():
    async with aiohttp.ClientSession() as session:
        async def one(index):
            async with session.post(f"{BASE}/a/{index}", data=b"q" * 10_000) as answer:
                assert (await answer.json())["bytes"] == 10_000
        await asyncio.gather(*(one(index) for index in range(200)))
        async with session.post(BASE + "/a", data=b"w" * 50_000, expect100=True) as answer:
            assert (await answer.json())["bytes"] == 50_000
        async with session.ws_connect(BASE + "/socket") as socket:
            await socket.send_bytes(b"e" * 300_000)
            assert len((await socket.receive()).data) == 300_000
        late = []
        async with session.get(BASE + "/events") as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    late.append(time.time() * 1000 - int(line[6:]))
        assert len(late) == 10 and max(late) < 80, late
    print(f"aiohttp: 200 requests at once, 100-continue, a WebSocket, 10 events late by at most {max(late):.0f} ms")


web_sockets()
kept_alive()
asyncio.run(asynchronous())
