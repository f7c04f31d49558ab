"""What a proxy costs while little happens: its start, memory of kept connections, and latency of sparse requests."""

import http.client
import resource
import socket
import statistics
import sys
import time


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_port(port, process=None, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end and (process is None or process.poll() is None):
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return True
        except OSError:
            time.sleep(0.01)
    return False


def first_status(port, caller, want_good, seconds=5):
    """The status of a request; asks again for a while where a proxy has not loaded its routes yet."""
    status, end = None, time.monotonic() + seconds
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        try:
            connection.request("GET", "/small", headers={"Authorization": caller})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = None
        finally:
            connection.close()
        if status == 200 or (status is not None and status >= 500 and not want_good):
            return status
        time.sleep(0.05)
    return status


class Kept:
    """A connection that is kept."""

    def __init__(self, port, caller):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = f"GET /small HTTP/1.1\r\nHost: localhost\r\nAuthorization: {caller}\r\n\r\n".encode()

    def ask(self):
        """Microseconds until a whole answer was there."""
        begun = time.perf_counter_ns()
        self.socket.sendall(self.request)
        answer = b""
        while True:
            piece = self.socket.recv(4096)
            if not piece:
                raise OSError("the connection was closed")
            answer += piece
            head, found, body = answer.partition(b"\r\n\r\n")
            if found and len(body) >= 128:
                took = (time.perf_counter_ns() - begun) / 1000
                if not head.startswith(b"HTTP/1.1 200"):
                    raise OSError(f"answered {head[:40]!r}")
                return took


def memory(bench, name, caller, count, resident):
    """MiB at rest, KiB a kept connection, MiB with `count` of them; each has carried a request."""
    started = bench.proxy(name)
    if started is None:
        return None
    process, port, _ = started
    kept = []
    try:
        one = Kept(port, caller)
        one.ask()
        time.sleep(1)
        at_rest = resident(process.pid)
        begun = time.monotonic()
        for _ in range(count):
            kept.append(Kept(port, caller))
            kept[-1].ask()
        # Within the time for which all of them keep an idle connection.
        with_all = resident(process.pid)
        # They are all still there.
        for connection in kept[:: max(1, count // 20)]:
            connection.ask()
        return dict(at_rest_mib=at_rest, connections=count, with_all_mib=with_all, seconds=time.monotonic() - begun,
                    kib_a_connection=(with_all - at_rest) * 1024 / count)
    except OSError as error:
        print(f"# {name} did not hold {count} connections: {error}", file=sys.stderr)
        return None
    finally:
        for connection in kept:
            connection.socket.close()
        bench.stop(process)


def starts(bench, name, caller, times=5):
    """Milliseconds from the start of the process to the first answer."""
    took = []
    for _ in range(times):
        begun = time.monotonic()
        started = bench.proxy(name)
        if started is None:
            return None
        good = first_status(started[1], caller, True) == 200
        took.append((time.monotonic() - begun) * 1000)
        bench.stop(started[0])
        if not good:
            return None
    return statistics.median(took)


def sparse(bench, caller, a_second, count):
    """Median microseconds that each proxy adds to an answer of the origin at this rate; asked in turn."""
    started = {name: bench.proxy(name) for name in bench.commands if name != "logging"}
    started = {name: found for name, found in started.items() if found}
    try:
        lines = {"direct": Kept(bench.origin["open"], caller)}
        for name, (_, port, _) in started.items():
            first_status(port, caller, True)
            lines[name] = Kept(port, caller)
        took = {name: [] for name in lines}
        for number in range(count + 1):
            begun = time.monotonic()
            # Whoever comes first finds the caches as the pause left them: each does as often.
            order = list(lines)
            order = order[number % len(order):] + order[:number % len(order)]
            for name in order:
                found = lines[name].ask()
                if number:
                    took[name].append(found)
                time.sleep(0.5 / a_second / len(lines))
            time.sleep(max(0.0, begun + 1 / a_second - time.monotonic()))
        direct = statistics.median(took["direct"])
        return {name: dict(median_us=statistics.median(all_of), added_us=statistics.median(all_of) - direct)
                for name, all_of in took.items()}
    finally:
        for process, _, _ in started.values():
            bench.stop(process)


def measure(bench, caller, aside, connections, resident):
    connections = min(connections, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 400) // 2)
    found = {"memory": {}, "start_ms": {}, "sparse": {}}
    for name in (name for name in bench.commands if name not in aside):
        print(f"# at rest: {name}", file=sys.stderr)
        found["memory"][name] = memory(bench, name, caller, connections, resident)
        found["start_ms"][name] = starts(bench, name, caller)
    for a_second, count in ((10, 100), (1, 15)):
        print(f"# {a_second} requests a second", file=sys.stderr)
        found["sparse"][str(a_second)] = sparse(bench, caller, a_second, count)
    return found
