"""The processes of a measurement: starting one on a core of its own, what it costs, and ending it. Standard library only."""

import os
import socket
import subprocess
import time


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


def start(command, port, core):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    deadline = time.monotonic() + 60
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


def stop(process):
    process.terminate()
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
