"""What one request costs in bearward, nginx, HAProxy and Envoy, side by side on one machine. See benches/README.md.

Standard library only. Everything is on the loopback interface, bounded in time, and ends with the run."""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import idle
import report
from proxies import PROXIES, Setup, bearward, versions

TOKEN = ("bench-token-" + "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_." * 30)[:900]
CALLER = "Bearer what-the-caller-sent"
TICKS = os.sysconf("SC_CLK_TCK")

WORKLOADS = {
    "W1": "HTTP/1.1 GET, 128 bytes, 64 kept connections",
    "W2": "HTTP/1.1 GET, 16 KiB, 64 kept connections",
    "W3": "HTTP/1.1 POST of 4 KiB, answer of 128 bytes, 64 kept connections",
    "W4": "W1 over TLS",
    "W5": "HTTP/2 over TLS, 8 connections with 100 streams each, 128 bytes; HTTP/1.1 to the upstream",
    "W6": "W1 at 2,000 requests a second over 32 connections",
    "W7": "W1 to an HTTPS upstream (TLS 1.3, verified, HTTP/1.1)",
    "W8": "W2 to an HTTPS upstream",
    "W9": "W1 to an HTTPS upstream over HTTP/2",
}
RATE, RATE_CONNECTIONS = 2000, 32
# Entries beside the four proxies, and what they are measured on.
ASIDE = {"logging": ("W1", "W7"), "relay": ("W1", "W2", "W3")}

LUA = """wrk.headers["Authorization"] = "%s"
%s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%%d,"seconds":%%f,"bad":%%d,"errors":%%d,"p50":%%f,"p99":%%f}\\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
POST = 'wrk.method = "POST"\nwrk.body = string.rep("y", 4096)'


def session(leader):
    """The processes of the session that a process leads."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[3]) == leader:
                        found.append(int(entry))
            except (OSError, IndexError):
                pass
    return found


def cpu_seconds(leader):
    """Time on CPU of a whole session, to the nanosecond."""
    total = 0
    for pid in session(leader):
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    total += int(file.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def resident_mib(leader, field="VmRSS"):
    total = 0
    for pid in session(leader):
        try:
            with open(f"/proc/{pid}/status") as file:
                found = re.search(field + r":\s+(\d+)", file.read())
            total += int(found.group(1)) if found else 0
        except OSError:
            pass
    return total / 1024


def busy_seconds():
    """Time that all cores were busy with anything, stolen time included."""
    with open("/proc/stat") as file:
        values = [int(value) for value in file.readline().split()[1:9]]
    return (sum(values) - values[3] - values[4]) / TICKS


def connections_opened():
    with open("/proc/net/snmp") as file:
        names, values = [line.split() for line in file if line.startswith("Tcp:")]
    return int(values[names.index("ActiveOpens")])


class Bench:
    def __init__(self, options):
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="compare-")
        self.running = []
        self.commands = {name: PROXIES[name] for name in options.proxies}
        for name, binary in options.also:
            self.commands[name] = lambda setup, binary=binary: bearward(setup, binary)
        self.certificates()
        with open(os.path.join(self.folder, "token"), "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write(TOKEN)
        for name, lines in (("get", ""), ("post", POST)):
            with open(os.path.join(self.folder, name + ".lua"), "w") as file:
                file.write(LUA % (CALLER, lines))
        kinds = ("plain", "open", "tls", "open-tls", "wrong", "h2")
        self.origin = {kind: self.port() for kind in kinds}
        command = [os.environ.get("COMPARE_ORIGIN", "target/dist/compare-origin"), TOKEN, self.folder]
        self.load_cores = {1} if (os.cpu_count() or 1) > 1 else {0}
        self.start([os.path.abspath(command[0]), *command[1:], *(f"{k}={p}" for k, p in self.origin.items())],
                   self.load_cores, "origin")
        for port in self.origin.values():
            if not idle.wait_port(port):
                sys.exit("the origin did not start: " + self.log("origin"))

    @staticmethod
    def port():
        return idle.free_port()

    def certificates(self):
        """Two authorities; certificates of the origin for its name and for another one, and of the proxies."""
        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, stderr=subprocess.DEVNULL)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        for name in ("ca", "other"):
            openssl("req", "-x509", *key, "-days", "7", "-subj", f"/CN=bench {name}", "-keyout", name + ".key", "-out",
                    name + ".pem")
        for name, host in (("good", "localhost"), ("wrong", "elsewhere.test"), ("front", "bench.test")):
            openssl("req", "-new", *key, "-subj", "/CN=" + host, "-keyout", name + ".key", "-out", name + ".csr")
            with open(os.path.join(self.folder, name + ".ext"), "w") as file:
                file.write(f"subjectAltName=DNS:{host},IP:127.0.0.1\n" if name == "front" else f"subjectAltName=DNS:{host}\n")
                file.write("basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
            openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "7",
                    "-extfile", name + ".ext", "-out", name + ".pem", "-set_serial", str(len(host)))
        with open(os.path.join(self.folder, "front-both.pem"), "w") as both:
            for end in ("pem", "key"):
                with open(os.path.join(self.folder, "front." + end)) as file:
                    both.write(file.read())

    def log(self, name):
        with open(os.path.join(self.folder, name + ".log"), errors="replace") as file:
            return file.read()[-800:]

    def start(self, command, cores, name):
        def prepare():
            os.sched_setaffinity(0, cores)
        with open(os.path.join(self.folder, name + ".log"), "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       start_new_session=True, preexec_fn=prepare)
        self.running.append(process)
        return process

    def stop(self, process):
        for kind, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            for pid in session(process.pid):
                try:
                    os.kill(pid, kind)
                except ProcessLookupError:
                    pass
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        self.running.remove(process)

    def proxy(self, name, kind="plain", workers=1, ca="ca.pem"):
        """A fresh process of a proxy before the origin of this kind: (process, port, TLS port), or None."""
        port, tls_port = self.port(), self.port()
        tls = kind in ("tls", "wrong", "h2")
        setup = Setup(self.folder, TOKEN, workers, port, tls_port, self.origin[kind], self.origin["open"], tls, kind == "h2", ca)
        command = self.commands[name](setup)
        if command is None:
            return None
        cores = {0} if workers == 1 else set(range(os.cpu_count()))
        process = self.start(command, cores, name)
        if not idle.wait_port(port, process) or not idle.wait_port(tls_port, process):
            print(f"# {name} did not start: {self.log(name)}", file=sys.stderr)
            self.stop(process)
            return None
        return process, port, tls_port

    def load(self, workload, port, tls_port, seconds):
        """Runs a load generator: what it counted, or None."""
        def pin():
            os.sched_setaffinity(0, self.load_cores if self.workers == 1 else set(range(os.cpu_count())))
        path = "16k" if workload in ("W2", "W8") else "small"
        if workload in ("W5", "W6"):
            log = os.path.join(self.folder, "h2load.log")
            if os.path.exists(log):
                os.unlink(log)
            how = ["-c8", "-m100", f"https://127.0.0.1:{tls_port}/{path}"]
            if workload == "W6":
                each = RATE / RATE_CONNECTIONS
                how = ["--h1", f"-c{RATE_CONNECTIONS}", "-m1", f"--rps={each}", f"http://127.0.0.1:{port}/{path}"]
            command = ["h2load", "-t1", "-D", str(seconds), "-H", f"authorization: {CALLER}", f"--log-file={log}", *how]
            out = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin, timeout=seconds + 30).stdout
            counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", out)
            if not counts or (workload == "W5" and "Application protocol: h2" not in out):
                return None
            done, failed, errors = (int(count) for count in counts.groups())
            with open(log) as file:
                took = sorted(int(line.split("\t")[2]) for line in file)
            at = lambda part: float(took[min(int(len(took) * part), len(took) - 1)]) if took else 0.0
            return dict(requests=done, seconds=seconds, bad=failed, errors=errors, p50=at(.5), p99=at(.99))
        url = f"https://127.0.0.1:{tls_port}/{path}" if workload == "W4" else f"http://127.0.0.1:{port}/{path}"
        script = os.path.join(self.folder, "post.lua" if workload == "W3" else "get.lua")
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--timeout", "5s", "-s", script, url]
        out = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin, timeout=seconds + 30).stdout
        found = re.search(r"RESULT (\{.*\})", out)
        return json.loads(found.group(1)) if found else None

    def measure(self, name, workload, workers):
        """One run in a fresh process."""
        self.workers = workers
        kind = {"W7": "tls", "W8": "tls", "W9": "h2"}.get(workload, "plain")
        started = self.proxy(name, kind, workers)
        if started is None:
            return None
        process, port, tls_port = started
        try:
            # Pools are filled, allocators settled.
            self.load(workload, port, tls_port, 1)
            def now():
                ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
                ours = sum(usage.ru_utime + usage.ru_stime for usage in ours)
                ours += sum(cpu_seconds(other.pid) for other in self.running)
                return time.monotonic(), cpu_seconds(process.pid), busy_seconds(), ours, connections_opened()
            before = now()
            counted = self.load(workload, port, tls_port, self.options.secs)
            after = now()
            if not counted or not counted["requests"]:
                return None
            took, cpu, busy, ours, opened = (b - a for a, b in zip(before, after))
            return dict(
                counted, cpu_us=cpu / counted["requests"] * 1e6, rate=counted["requests"] / counted["seconds"],
                proxy_busy=cpu / took, foreign=max(0.0, busy - ours) / took, opened=opened,
                peak_mib=resident_mib(process.pid, "VmHWM"))
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.stop(process)

    def calmly(self, name, workload, workers):
        """The least disturbed of a few runs, where others used the machine meanwhile."""
        best = None
        for _ in range(self.options.tries):
            run = self.measure(name, workload, workers)
            if run is None:
                return best
            if best is None or run["foreign"] < best["foreign"]:
                best = run
            if best["foreign"] <= self.options.calm or time.monotonic() > self.options.end_of_retries:
                break
        return best

    def refuses_impostors(self, name):
        """Whether the proxy passes requests to the right HTTPS origin, and to none of an unknown authority or another name."""
        wrong = []
        for what, kind, ca, want in (("the right origin", "tls", "ca.pem", True), ("an unknown authority", "tls", "other.pem", False),
                                     ("another name", "wrong", "ca.pem", False)):
            started = self.proxy(name, kind, ca=ca)
            if started is None:
                return "did not start"
            status = idle.first_status(started[1], CALLER, want)
            self.stop(started[0])
            if (status == 200) != want:
                wrong.append(f"{what}: {status}")
        return "yes" if not wrong else "NO (" + "; ".join(wrong) + ")"

    def end(self):
        for process in list(self.running):
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def raise_descriptor_limit():
    """For everything that is started from here: as far as it may be raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (65536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 65536), max(limit, hard)))
            return
        except (ValueError, OSError):
            pass


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 1024 / 1024
    system = "Linux"
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release") as file:
            system = re.search(r'PRETTY_NAME="?([^"\n]*)', file.read()).group(1)
    return {"cpu": model.group(1) if model else platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory),
            "kernel": platform.release(), "system": system}


def arguments():
    parser = argparse.ArgumentParser(description="Compares what one request costs in bearward, nginx, HAProxy and Envoy.")
    words = lambda text: [word for word in text.split(",") if word]
    parser.add_argument("--workloads", type=words, default=list(WORKLOADS), help="such as W1,W7 (all)")
    parser.add_argument("--proxies", type=words, default=list(PROXIES), help="such as bearward,nginx (all)")
    parser.add_argument("--workers", type=words, default=["1", "2"], help="threads of each proxy: 1, 2 or 1,2 (both)")
    parser.add_argument("--reps", type=int, default=3, help="repetitions, interleaved (3)")
    parser.add_argument("--secs", type=int, default=3, help="seconds of each run, after one of warm-up (3)")
    parser.add_argument("--calm", type=float, default=0.1, help="cores that others may use before a run is repeated (0.1)")
    parser.add_argument("--tries", type=int, default=2, help="runs at most, where others use the machine (2)")
    parser.add_argument("--retry-minutes", type=float, default=10, help="no run is repeated after this time (10)")
    parser.add_argument("--also", action="append", default=[], type=lambda text: tuple(text.split("=", 1)), metavar="NAME=BINARY",
                        help="another build of bearward beside it")
    parser.add_argument("--no-idle", action="store_true", help="leave out memory, start and sparse traffic")
    parser.add_argument("--connections", type=int, default=10000, help="idle connections to hold (10000)")
    parser.add_argument("--join", type=words, default=[], metavar="FILES", help="results.json of earlier runs that count as well")
    parser.add_argument("--out", help="folder for results.json, results.md and plot.svg; without it the tables are only printed")
    options = parser.parse_args()
    for given, known in ((options.workloads, WORKLOADS), (options.proxies, PROXIES)):
        for word in given:
            if word not in known:
                parser.error(f"`{word}` is none of {', '.join(known)}")
    options.end_of_retries = time.monotonic() + options.retry_minutes * 60
    return options


def run_all(bench, options, results):
    names = list(bench.commands)
    for workers in (int(word) for word in options.workers):
        for workload in options.workloads:
            left_out = set()
            for repetition in range(options.reps):
                for name in names:
                    if workload not in ASIDE.get(name, options.workloads):
                        continue
                    run = None if name in left_out else bench.calmly(name, workload, workers)
                    if run is None:
                        left_out.add(name)
                        continue
                    results["runs"].append(dict(workload=workload, workers=workers, proxy=name, repetition=repetition, **run))
                    print(f"# {workload} {workers}w {name}: {run['cpu_us']:.2f} us/request, {run['rate']:.0f}/s, busy "
                          f"{run['proxy_busy']:.2f}, foreign {run['foreign']:.2f}, bad {run['bad']}/{run['errors']}", file=sys.stderr)


def join(results, earlier):
    """Adds the repetitions of an earlier run of the same length."""
    if earlier["seconds"] != results["seconds"]:
        sys.exit(f"the runs to be joined took {earlier['seconds']} s each")
    for run in earlier["runs"]:
        results["runs"].append(dict(run, repetition=run["repetition"] + results["repetitions"]))
    results["repetitions"] += earlier["repetitions"]
    results["date"] = f"{earlier['date']} and {results['date']}"


def raw(results):
    """JSON with a line a run."""
    rounded = [{key: round(value, 4) if isinstance(value, float) else value for key, value in run.items()} for run in results["runs"]]
    lines = ",\n".join("  " + json.dumps(run) for run in rounded)
    rest = json.dumps(dict(results, runs=[]), indent=1)
    return rest.replace('"runs": []', '"runs": [\n' + lines + "\n ]") + "\n"


def main():
    options = arguments()
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    bench = Bench(options)
    results = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "machine": machine(),
               "versions": versions(), "options": " ".join(sys.argv[1:]), "seconds": options.secs, "repetitions": options.reps,
               "workloads": WORKLOADS, "verifies": {}, "idle": {}, "runs": []}
    try:
        if {"W7", "W8", "W9"} & set(options.workloads):
            results["verifies"] = {name: bench.refuses_impostors(name) for name in bench.commands if name not in ASIDE}
        if not options.no_idle:
            results["idle"] = idle.measure(bench, CALLER, ASIDE, options.connections, resident_mib)
        run_all(bench, options, results)
    except (KeyboardInterrupt, SystemExit):
        print("# ended early: what follows is what was measured", file=sys.stderr)
    finally:
        bench.end()
    for file in options.join:
        with open(file) as earlier:
            join(results, json.load(earlier))
    text = report.markdown(results)
    print(text)
    if options.out:
        os.makedirs(options.out, exist_ok=True)
        for name, content in (("results.json", raw(results)), ("results.md", text),
                              ("plot.svg", report.plot(results))):
            with open(os.path.join(options.out, name), "w") as file:
                file.write(content)


if __name__ == "__main__":
    main()
