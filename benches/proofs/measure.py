"""What a DPoP proof costs a request: the same requests through a route with a bearer and one with a bound token.

The figure is CPU time a request of the proxy's process. Repetitions are interleaved; medians and ranges are printed.
Loopback only, bounded, standard library and wrk."""

import argparse
import http.server
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time

from processes import cpu, free_port, start, stop


class Provider(http.server.BaseHTTPRequestHandler):
    """A token of 900 bytes; bound to a key where the request proves one."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        kind = "DPoP" if self.headers.get("dpop") else "Bearer"
        body = json.dumps({"access_token": "t" * 900, "token_type": kind, "expires_in": 86400}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def configuration(folder, port, origin, provider):
    path = os.path.join(folder, "bearward.yaml")
    credential = f"token_endpoint: http://127.0.0.1:{provider}/token, client: {{id: measured, secret: {{file: {folder}/secret}}}}, grant: client_credentials"
    with open(os.path.join(folder, "secret"), "w") as file:
        file.write("the-secret-of-the-client")
    with open(path, "w") as file:
        file.write(f"""version: 1
listeners:
  - name: measured
    kind: reverse
    bind: 127.0.0.1:{port}
    routes:
      - {{name: bearer, match: {{path_prefix: /bearer/}}, rewrite_prefix: /, upstream: "http://127.0.0.1:{origin}", credential: bearer}}
      - {{name: dpop, match: {{path_prefix: /dpop/}}, rewrite_prefix: /, upstream: "http://127.0.0.1:{origin}", credential: dpop}}
credentials:
  bearer: {{{credential}}}
  dpop: {{{credential}, dpop: {{alg: ES256}}}}
store: {{kind: memory, allow_volatile: true}}
admin: {{bind: 'unix:{folder}/admin.sock'}}
log: {{level: error, access: {{enabled: false}}, audit: {{enabled: false}}}}
limits: {{workers: 1}}
""")
    return path


def load(port, path, seconds):
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {1})).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(printed)
    return int(re.search(r"(\d+) requests in", printed).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ["good.pem", "good.key", "wrong.pem", "wrong.key"]:
            open(os.path.join(folder, name), "w").close()
        provider = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        origin_port, port = free_port(), free_port()
        origin = start([os.environ["COMPARE_ORIGIN"], "unused", folder, f"open={origin_port}"], origin_port, 1)
        config = configuration(folder, port, origin_port, provider.server_address[1])
        proxy = start([os.environ["BEARWARD"], "run", "-c", config], port, 0)
        try:
            time.sleep(1)
            paths = {"bearer": "/bearer/small", "dpop": "/dpop/small"}
            costs = {name: [] for name in paths}
            for path in paths.values():
                load(port, path, 1)
            for _ in range(options.reps):
                for name, path in paths.items():
                    before = cpu(proxy.pid)
                    requests = load(port, path, options.seconds)
                    costs[name].append((cpu(proxy.pid) - before) / requests / 1000)
            for name, all_of in costs.items():
                print(f"{name:8} {statistics.median(all_of):7.1f} us CPU a request ({min(all_of):.1f} to {max(all_of):.1f})")
            medians = [statistics.median(costs[name]) for name in ["dpop", "bearer"]]
            print(f"a proof  {medians[0] - medians[1]:7.1f} us CPU")
        finally:
            for process in [proxy, origin]:
                stop(process)


if __name__ == "__main__":
    main()
