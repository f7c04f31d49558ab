"""Tunnels beside a plain relay (HAProxy in TCP mode), interception beside mitmproxy and Envoy. Loopback only, bounded, standard
library only.

The figure of a tunnel is MiB/s and CPU time a MiB of the relaying process; of an interception, CPU time a request. Each repetition
starts every program anew, in turn; medians and ranges are printed, and the median of the ratios within a repetition."""

import argparse
import datetime
import json
import os
import platform
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time

import peers
from processes import cpu, free_port, start, stop

CHUNK = 1 << 20
BODY = b"x" * 128


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith("VmRSS:")).split()[1]) * 1024


def serve(listener, talk):
    while True:
        try:
            stream, _ = listener.accept()
        except OSError:
            return
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=talk, args=(stream,), daemon=True).start()


def source(memory):
    """Sends as many bytes as it is asked for, without copying them: what is measured is the relay."""
    def talk(stream):
        with stream:
            while len(wanted := stream.recv(8, socket.MSG_WAITALL)) == 8:
                left = int.from_bytes(wanted, "big")
                while left > 0:
                    left -= os.sendfile(stream.fileno(), memory, 0, min(CHUNK, left))

    return talk


def api(context):
    """Answers what carries the token, and nothing else, with 128 bytes."""
    def talk(stream):
        try:
            with context.wrap_socket(stream, server_side=True) as secure:
                buffer = b""
                while True:
                    while b"\r\n\r\n" not in buffer:
                        piece = secure.recv(16384)
                        if not piece:
                            return
                        buffer += piece
                    head, buffer = buffer.split(b"\r\n\r\n", 1)
                    good = f"bearer {peers.TOKEN}".encode() in head.lower() and b"callers" not in head
                    status = b"200 OK" if good else b"401 Unauthorized"
                    secure.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        except OSError:
            pass

    return talk


def listen(talk):
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=serve, args=(listener, talk), daemon=True).start()
    return listener.getsockname()[1]


def plain(port):
    stream = socket.create_connection(("127.0.0.1", port), 20)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def connect(port, target):
    stream = plain(port)
    stream.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = stream.recv(1)
        if not piece:
            raise SystemExit(f"CONNECT was cut: {head}")
        head += piece
    if b" 200" not in head.split(b"\r\n")[0]:
        raise SystemExit(f"CONNECT was refused: {head}")
    return stream


def transfer(stream, mebibytes):
    """Takes that much and throws it away in the kernel (MSG_TRUNC, tcp(7)); seconds."""
    begun = time.monotonic()
    stream.sendall((mebibytes << 20).to_bytes(8, "big"))
    left, buffer = mebibytes << 20, memoryview(bytearray(CHUNK))
    while left > 0:
        length = stream.recv_into(buffer, min(CHUNK, left), socket.MSG_TRUNC)
        if not length:
            raise SystemExit("the transfer was cut")
        left -= length
    return time.monotonic() - begun


def answer_of(stream):
    answer = b""
    while not answer.endswith(BODY):
        piece = stream.recv(16384)
        if not piece:
            raise SystemExit(f"a connection was cut: {answer[:200]}")
        answer += piece
    if b" 200 " not in answer.split(b"\r\n")[0] + b" ":
        raise SystemExit(f"not 200: {answer[:200]}")


def requests(open_one, ca, target, connections, seconds):
    """Yields when all connections are warm, then how many answers came over them, each with one request at a time."""
    context = ssl.create_default_context(cafile=ca)
    request = f"GET /x HTTP/1.1\r\nHost: {target}\r\nAuthorization: Bearer callers\r\n\r\n".encode()
    streams = [context.wrap_socket(open_one(), server_hostname="localhost") for _ in range(connections)]
    for _ in range(20):
        for stream in streams:
            stream.sendall(request)
            answer_of(stream)
    yield None
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for stream in streams:
            stream.sendall(request)
        for stream in streams:
            answer_of(stream)
        done += len(streams)
    yield done
    for stream in streams:
        stream.close()


def measure_tunnel(name, scene, options, results):
    folder, source_port, api_port, core = scene
    port, target = free_port(), f"127.0.0.1:{source_port}"
    process = start(getattr(peers, name)(folder, port, source_port, api_port), port, core)
    open_one = (lambda: connect(port, target)) if name == "bearward" else (lambda: plain(port))
    try:
        transfer(open_one(), 64)
        with open_one() as stream:
            before = cpu(process.pid)
            took = transfer(stream, options.mebibytes)
            results["moved"].setdefault(name, []).append(options.mebibytes / took)
            results["cost"].setdefault(name, []).append((cpu(process.pid) - before) / 1000 / options.mebibytes)
        before = resident(process.pid)
        tunnels = [open_one() for _ in range(options.idle)]
        time.sleep(1)
        results["held"].setdefault(name, []).append((resident(process.pid) - before) / options.idle / 1024)
        spent = cpu(process.pid)
        time.sleep(3)
        results["rest"].setdefault(name, []).append((cpu(process.pid) - spent) / 3e9 * 100)
        for tunnel in tunnels:
            tunnel.close()
    finally:
        stop(process)


def measure_interception(name, scene, options, results):
    folder, source_port, api_port, core = scene
    port, target = free_port(), f"localhost:{api_port}"
    process = start(getattr(peers, name)(folder, port, source_port, api_port), port, core)
    ca = {"bearward": "ca.crt", "mitmproxy": "mitm/mitmproxy-ca-cert.pem", "envoy": "frontroot.pem"}[name]
    open_one = (lambda: plain(port)) if name == "envoy" else (lambda: connect(port, target))
    try:
        run = requests(open_one, f"{folder}/{ca}", target, 16, options.seconds)
        next(run)
        before = cpu(process.pid)
        done = next(run)
        results["asked"].setdefault(name, []).append((cpu(process.pid) - before) / 1000 / done)
        next(run, None)
    finally:
        stop(process)


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(results, kind, ours, theirs):
    """The median of what each repetition gives: what else the machine does meets both of its halves."""
    return statistics.median(a / b for a, b in zip(results[kind][ours], results[kind][theirs]))


def table(results, options):
    rate, cost = (ratio(results, kind, "bearward", "relay") for kind in ("moved", "cost"))
    lines = ["| | ratio | bearward | beside |", "| --- | --- | --- | --- |",
             f"| a tunnel's rate, MiB/s | **{rate:.2f}** of HAProxy's | {spread(results['moved']['bearward'], 0)} | "
             f"HAProxy as a TCP relay: {spread(results['moved']['relay'], 0)} |",
             f"| a tunnel, CPU µs a MiB | **{cost:.2f}** of HAProxy's | {spread(results['cost']['bearward'])} | "
             f"HAProxy: {spread(results['cost']['relay'])} |",
             f"| memory of an idle tunnel, KiB | | {spread(results['held']['bearward'])} | "
             f"HAProxy: {spread(results['held']['relay'])} |",
             f"| CPU time of {options.idle} idle tunnels, % of a core | | {spread(results['rest']['bearward'], 2)} | "
             f"HAProxy: {spread(results['rest']['relay'], 2)} |"]
    asked = results["asked"]
    for peer, title, what in (("envoy", "Envoy", "no CONNECT, one name"), ("mitmproxy", "mitmproxy", "a forward proxy")):
        if peer in asked:
            lines.append(f"| interception, CPU µs a request | **{ratio(results, 'asked', 'bearward', peer):.2f}** of {title}'s | "
                         f"{spread(asked['bearward'])} | {title} ({what}): {spread(asked[peer])} |")
    return "\n".join(lines)


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def report(results, options, load):
    words = [word for before, word in zip(sys.argv, sys.argv[1:]) if before != "--out" and not word.startswith("--out")]
    command = " ".join(["benches/egress/run", *words])
    return f"""{table(results, options)}

Medians with ranges; a ratio is the median of those within one repetition. Written by `{command}` on {datetime.date.today()}:
{machine()} (a shared guest, load {load[0]:.1f} to {load[1]:.1f}); {", ".join(peers.versions())}; {options.reps} interleaved
repetitions, one worker or thread and no access log each, {options.mebibytes} MiB a transfer, 16 kept connections with answers of {len(BODY)} bytes.
"""


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--reps", type=int, default=5)
    options.add_argument("--mebibytes", type=int, default=2048, help="of a transfer")
    options.add_argument("--seconds", type=float, default=4, help="of requests")
    options.add_argument("--idle", type=int, default=500, help="tunnels that are opened and left alone")
    options.add_argument("--only", choices=("tunnel", "interception"), help="half of it; prints figures, writes no table")
    options.add_argument("--out", metavar="FILE", help="where the table goes, as Markdown")
    options = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    results = {kind: {} for kind in ("moved", "cost", "held", "rest", "asked")}
    begun = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        peers.certificates(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/api.pem", f"{folder}/api.key")
        memory = os.memfd_create("source")
        os.truncate(memory, CHUNK)
        scene = (folder, listen(source(memory)), listen(api(context)), cores[0])
        for repetition in range(options.reps):
            turn = 1 if repetition % 2 == 0 else -1
            for name in () if options.only == "interception" else ("bearward", "relay")[::turn]:
                measure_tunnel(name, scene, options, results)
            for name in () if options.only == "tunnel" else ("bearward", "envoy", "mitmproxy")[::turn]:
                measure_interception(name, scene, options, results)
            print(f"repetition {repetition + 1} of {options.reps} is done", file=sys.stderr, flush=True)
    print(json.dumps(results))
    if options.only is None:
        text = report(results, options, (begun, os.getloadavg()[0]))
        print(text)
        if options.out:
            with open(options.out, "w") as file:
                file.write(text)


if __name__ == "__main__":
    main()
