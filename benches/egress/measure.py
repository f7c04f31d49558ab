"""Tunnels beside a plain relay (HAProxy in TCP mode), interception beside mitmproxy. Loopback only, bounded, standard library only.

The figure of a tunnel is MiB/s and CPU time a MiB of the relaying process; of an interception, CPU time a request. Repetitions are
interleaved; medians and ranges are printed."""

import argparse
import json
import os
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time

CHUNK = 1 << 20
BODY = b"x" * 128


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def cpu(pid):
    """Nanoseconds on CPU of a process and what it started."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
                with open(f"/proc/{one}/task/{task}/children") as file:
                    waiting += [int(child) for child in file.read().split()]
        except FileNotFoundError:
            pass
    return total


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


def source(stream):
    """Sends as many bytes as it is asked for."""
    with stream:
        piece = bytes(CHUNK)
        wanted = int.from_bytes(stream.recv(8, socket.MSG_WAITALL), "big")
        while wanted > 0:
            wanted -= stream.send(piece[: min(CHUNK, wanted)])


def api(context):
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
                    good = b"bearer measured-token" in head.lower()
                    status = b"200 OK" if good else b"401 Unauthorized"
                    secure.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        except OSError:
            pass

    return talk


def listen(talk):
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=serve, args=(listener, talk), daemon=True).start()
    return listener.getsockname()[1]


def certificates(folder):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *ec, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=root", "-days", "30")
    openssl("req", *ec, "-keyout", "api.key", "-out", "api.csr", "-subj", "/CN=localhost")
    with open(os.path.join(folder, "san"), "w") as file:
        file.write("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", "api.csr", "-CA", "root.pem", "-CAkey", "root.key", "-out", "api.pem", "-days", "30", "-extfile", "san")


def start(command, port, core):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
    process.kill()
    raise SystemExit(f"it did not start: {command}")


def bearward(folder, port, source_port, api_port):
    path = os.path.join(folder, "bearward.yaml")
    with open(path, "w") as file:
        file.write(f"""version: 1
listeners:
  - name: egress
    kind: egress
    bind: 127.0.0.1:{port}
    intercept: {{ca_cert: {{file: {folder}/ca.crt}}, ca_key: {{file: {folder}/ca.key}}}}
    egress_network: {{allow_private: ["127.0.0.0/8"]}}
    rules:
      - {{match: {{hosts: ["127.0.0.1"], ports: [{source_port}]}}, action: tunnel}}
      - match: {{hosts: [localhost], ports: [{api_port}]}}
        action: intercept
        credential: api
        tls: {{ca: {{file: {folder}/root.pem}}}}
credentials: {{api: {{grant: static, token: {{file: {folder}/token}}, allowed_upstreams: ["https://localhost:{api_port}"]}}}}
store: {{kind: memory}}
admin: {{bind: 'unix:{folder}/admin.sock'}}
log: {{level: error}}
limits: {{workers: 1}}
""")
    return [os.environ["BEARWARD"], "run", "-c", path]


def relay(folder, port, source_port, _):
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w") as file:
        file.write(f"""global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend relay
  bind 127.0.0.1:{port}
  default_backend source
backend source
  server source 127.0.0.1:{source_port}
""")
    return ["haproxy", "-db", "-f", path]


def mitmproxy(folder, port, _, api_port):
    script = os.path.join(folder, "inject.py")
    with open(script, "w") as file:
        file.write('def request(flow):\n    flow.request.headers["Authorization"] = "Bearer measured-token"\n')
    return [os.environ["MITMDUMP"], "-q", "--listen-host", "127.0.0.1", "-p", str(port), "-s", script, "--set", f"confdir={folder}/mitm",
            "--set", f"ssl_verify_upstream_trusted_ca={folder}/root.pem", "--set", "flow_detail=0"]


def connect(port, target):
    stream = socket.create_connection(("127.0.0.1", port), 10)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = stream.recv(1)
        if not piece:
            raise SystemExit(f"CONNECT was cut: {head}")
        head += piece
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise SystemExit(f"CONNECT was refused: {head}")
    return stream


def transfer(stream, mebibytes):
    """Takes that much; seconds."""
    begun = time.monotonic()
    stream.sendall((mebibytes << 20).to_bytes(8, "big"))
    left, buffer = mebibytes << 20, memoryview(bytearray(CHUNK))
    while left > 0:
        length = stream.recv_into(buffer)
        if not length:
            raise SystemExit("the transfer was cut")
        left -= length
    return time.monotonic() - begun


def requests(port, ca, target, connections, seconds):
    """Answers that were 200, over kept connections, each with one request at a time."""
    context = ssl.create_default_context(cafile=ca)
    request = f"GET /x HTTP/1.1\r\nHost: {target}\r\nAuthorization: Bearer callers\r\n\r\n".encode()
    streams = [context.wrap_socket(connect(port, target), server_hostname="localhost") for _ in range(connections)]

    def once(stream):
        stream.sendall(request)
        answer = b""
        while not answer.endswith(BODY):
            piece = stream.recv(16384)
            if not piece:
                raise SystemExit("a connection was cut")
            answer += piece
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise SystemExit(f"not 200: {answer[:200]}")

    for stream in streams:
        once(stream)
    yield None
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for stream in streams:
            stream.sendall(request)
        for stream in streams:
            answer = b""
            while not answer.endswith(BODY):
                answer += stream.recv(16384)
            if b" 200 " not in answer.split(b"\r\n")[0]:
                raise SystemExit(f"not 200: {answer[:200]}")
            done += 1
    yield done
    for stream in streams:
        stream.close()


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--reps", type=int, default=3)
    options.add_argument("--mebibytes", type=int, default=1024)
    options.add_argument("--seconds", type=float, default=4)
    options.add_argument("--idle", type=int, default=500, help="tunnels that are opened and left alone")
    options.add_argument("--out", help="where results go, as Markdown")
    options = options.parse_args()
    os.sched_setaffinity(0, {1} if len(os.sched_getaffinity(0)) > 1 else {0})
    with tempfile.TemporaryDirectory() as folder:
        certificates(folder)
        with open(os.path.join(folder, "token"), "w") as file:
            file.write("measured-token")
        subprocess.run([os.environ["BEARWARD"], "ca", "init", "--permit", "localhost", "--cert", f"{folder}/ca.crt", "--key", f"{folder}/ca.key"],
                       check=True, stdout=subprocess.DEVNULL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/api.pem", f"{folder}/api.key")
        source_port, api_port = listen(source), listen(api(context))
        moved = {"bearward": [], "relay": []}
        cost = {"bearward": [], "relay": []}
        asked = {"bearward": [], "mitmproxy": []}
        idle = []
        for _ in range(options.reps):
            for name, make in (("bearward", bearward), ("relay", relay)):
                port = free_port()
                process = start(make(folder, port, source_port, api_port), port, 0)
                target = f"127.0.0.1:{source_port}"
                warm = connect(port, target) if name == "bearward" else socket.create_connection(("127.0.0.1", port))
                transfer(warm, 64)
                stream = connect(port, target) if name == "bearward" else socket.create_connection(("127.0.0.1", port))
                before = cpu(process.pid)
                took = transfer(stream, options.mebibytes)
                moved[name].append(options.mebibytes / took)
                cost[name].append((cpu(process.pid) - before) / 1000 / options.mebibytes)
                if name == "bearward" and not idle:
                    before = resident(process.pid)
                    tunnels = [connect(port, target) for _ in range(options.idle)]
                    time.sleep(1)
                    grown, spent = resident(process.pid) - before, cpu(process.pid)
                    time.sleep(5)
                    idle = [grown / options.idle, (cpu(process.pid) - spent) / 5e9 * 100]
                    for tunnel in tunnels:
                        tunnel.close()
                process.terminate()
                process.wait()
            for name, make in (("bearward", bearward), ("mitmproxy", mitmproxy)):
                port = free_port()
                process = start(make(folder, port, source_port, api_port), port, 0)
                ca = f"{folder}/ca.crt" if name == "bearward" else f"{folder}/mitm/mitmproxy-ca-cert.pem"
                run = requests(port, ca, f"localhost:{api_port}", 16, options.seconds)
                next(run)
                before = cpu(process.pid)
                done = next(run)
                asked[name].append((cpu(process.pid) - before) / 1000 / done)
                next(run, None)
                process.terminate()
                process.wait()
        rate = [ours / theirs for ours, theirs in zip(moved["bearward"], moved["relay"])]
        work = [ours / theirs for ours, theirs in zip(cost["bearward"], cost["relay"])]
        times = [theirs / ours for ours, theirs in zip(asked["bearward"], asked["mitmproxy"])]
        text = f"""| | bearward | beside | ratio |
| --- | --- | --- | --- |
| tunnel, MiB/s | {spread(moved['bearward'], 0)} | HAProxy as a TCP relay: {spread(moved['relay'], 0)} | {spread(rate, 2)} of its rate |
| tunnel, CPU µs a MiB | {spread(cost['bearward'])} | {spread(cost['relay'])} | {spread(work, 2)} of its time |
| an idle tunnel | {idle[0] / 1024:.1f} KiB; {options.idle} of them take {idle[1]:.2f} % of a core | | |
| interception, CPU µs a request | {spread(asked['bearward'])} | mitmproxy: {spread(asked['mitmproxy'])} | {spread(times, 1)} times less |
"""
        print(text)
        print(json.dumps({"moved": moved, "cost": cost, "asked": asked, "idle": idle}))
        if options.out:
            with open(options.out, "w") as file:
                file.write(text)


if __name__ == "__main__":
    main()
