"""Runs the binary in a network and mount namespace with a resolver of our own, and asks it for many addresses.

usage: egress_network.py BINARY DIRECTORY < cases.json

A case is [host, port, expected], which asks the egress listener twice; or [host, port, expected, path, pause], which waits and
asks the reverse listener for that path. Every address that a case could reach is put on the loopback interface, so that a connection
that should not be made would succeed. What was dialled is read from strace. Prints one JSON document.
"""
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

BINARY, DIRECTORY = sys.argv[1:3]
CASES = json.load(sys.stdin)
RESOLVER = "127.0.0.53"
# What the names of the cases mean. A list in a list: one answer after the other.
ZONE = {
    "public.test": ["8.8.8.8"], "public6.test": ["2606:4700::1111"], "allowed.test": ["10.20.3.4"],
    "loop.test": ["127.0.0.1"], "loop6.test": ["::1"], "zero.test": ["0.0.0.0"], "zero6.test": ["::"],
    "private.test": ["10.0.0.5"], "meta.test": ["169.254.169.254"], "shared.test": ["100.64.0.5"],
    "mapped.test": ["::ffff:127.0.0.1"], "compatible.test": ["::127.0.0.1"], "nat64.test": ["64:ff9b::7f00:1"],
    "6to4.test": ["2002:7f00:1::1"], "teredo.test": ["2001:0:4136:e378:8000:63bf:80ff:fffe"], "ula.test": ["fd12::5"],
    "local6.test": ["fe80::1"], "metadata6.test": ["fd00:ec2::254"], "127.0.0.1.nip.test": ["127.0.0.1"],
    "cname.test": "loop.test", "deep.test": "deeper.test", "deeper.test": "meta.test", "cname-public.test": "public.test",
    "both.test": ["127.0.0.1", "8.8.8.8", "10.0.0.5"], "none.test": ["127.0.0.1", "10.0.0.5", "::1"],
    "rebind.test": [["8.8.8.8"], ["127.0.0.1"]], "rebind-back.test": [["127.0.0.1"], ["8.8.8.8"]],
    # Nobody listens there at the port of the cases that ask for it: so it is resolved again.
    "moving.test": [["10.20.3.4"], ["127.0.0.1"]], "moving-checked.test": [["8.8.8.8"], ["10.0.0.5"]],
}
ASKED = {}


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def addresses():
    found = set()
    for value in ZONE.values():
        flat = [] if isinstance(value, str) else sum((v if isinstance(v, list) else [v] for v in value), [])
        found.update(flat)
    found.update(case[0].strip("[]") for case in CASES)
    return found


def prepare():
    run("ip", "link", "set", "lo", "up")
    for address in addresses():
        family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        # Some can be nobody's address; those would be refused by the system anyway.
        subprocess.run(["ip", "addr", "add", f"{address}/{bits}", "dev", "lo"], stderr=subprocess.DEVNULL)
    # NAT64 of 8.8.8.8: one that may be reached.
    subprocess.run(["ip", "addr", "add", "64:ff9b::808:808/128", "dev", "lo"], stderr=subprocess.DEVNULL)
    with open(f"{DIRECTORY}/resolv.conf", "w") as file:
        file.write(f"nameserver {RESOLVER}\noptions timeout:1 attempts:1\n")
    run("mount", "--bind", f"{DIRECTORY}/resolv.conf", os.path.realpath("/etc/resolv.conf"))


def records(name):
    value = ZONE.get(name)
    if value and isinstance(value[0], list):
        ASKED.setdefault(name, 0)
        return value[(ASKED[name] // 2) % len(value)]
    return value


def answer(query):
    """One DNS answer: A, AAAA, and chains of CNAME."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    question = query[12:at + 5]
    name, found = ".".join(labels).lower(), []
    encode = lambda text: b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"
    while isinstance(records(name), str):
        target = records(name)
        found.append((encode(name), 5, encode(target)))
        name = target
    for value in records(name) or []:
        family, of = (socket.AF_INET6, 28) if ":" in value else (socket.AF_INET, 1)
        if of == kind:
            found.append((encode(name), of, socket.inet_pton(family, value)))
    if name in ASKED:
        ASKED[name] += 1
    code = 0x8180 if name in ZONE else 0x8183
    head = query[:2] + struct.pack(">HHHHH", code, 1, len(found), 0, 0)
    return head + question + b"".join(
        owner + struct.pack(">HHIH", of, 1, 0, len(data)) + data for owner, of, data in found)


def resolve(server):
    while True:
        query, peer = server.recvfrom(1500)
        server.sendto(answer(query), peer)


def serve(server, seen):
    """Tells the address that it was reached at; one request a connection."""
    while True:
        stream, _ = server.accept()
        seen.append(stream.getsockname()[0])
        stream.settimeout(5)
        try:
            stream.recv(4096)
            body = stream.getsockname()[0].encode()
            stream.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except OSError:
            pass
        stream.close()


def ask(proxy, line):
    with socket.create_connection(proxy, 10) as stream:
        stream.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = stream.recv(4096).decode("latin-1")
        found = re.search(r"(?i)proxy-status: .*error=(\w+)", head)
        return int(head.split(" ")[1]), found.group(1) if found else ""


def dialled():
    """All addresses and ports of TCP connections that the binary made or tried."""
    found = set()
    with open(f"{DIRECTORY}/strace") as file:
        for line in file:
            v4 = re.search(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)', line)
            v6 = re.search(r'sin6_port=htons\((\d+)\).*inet_pton\(AF_INET6, "([^"]+)"', line)
            match = v4 or v6
            # The C library asks the kernel for a source address by connecting a datagram socket to port 0.
            if match and match.group(1) not in ("0", "53"):
                found.add((match.group(2), int(match.group(1))))
    return sorted(found)


def main():
    prepare()
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind((RESOLVER, 53))
    seen = []
    threads = [threading.Thread(target=resolve, args=(resolver,), daemon=True)]
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        server = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, 80))
        server.listen(64)
        threads.append(threading.Thread(target=serve, args=(server, seen), daemon=True))
    for thread in threads:
        thread.start()
    strace = ["strace", "-f", "-qq", "-e", "trace=connect", "-e", "signal=none", "-o", f"{DIRECTORY}/strace"]
    log = open(f"{DIRECTORY}/log", "w")
    child = subprocess.Popen(strace + [BINARY, "run", "--ready-json", "-c", f"{DIRECTORY}/config.yaml"],
                             stdout=subprocess.PIPE, stderr=log, text=True)
    line = child.stdout.readline()
    ready = json.loads(line) if line else sys.exit(open(f"{DIRECTORY}/log").read())
    address = lambda name: (lambda host, _, port: (host, int(port)))(*ready["listeners"][name].rpartition(":"))
    results = []
    for host, port, _, *path in CASES:
        target = f"{host}:{port}"
        if path:
            time.sleep(path[1])
            results.append([host, port, path[0], *ask(address("reverse"), f"GET {path[0]}")])
            continue
        for connect in (False, True):
            line = f"CONNECT {target}" if connect else f"GET http://{target}/"
            results.append([host, port, connect, *ask(address("legacy"), line)])
    os.kill(ready["pid"], 15)
    child.wait(30)
    time.sleep(0.1)
    print(json.dumps({"results": results, "dialled": dialled(), "seen": sorted(set(seen)), "own": ready}))


main()
