"""Prints what the two programs weigh: size of the binaries, start to ready, memory when idle.

    python3 .ci/figures.py target/release

The router is started beside a registry, and is ready when `/readyz` says so. Memory is the resident set two seconds after.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

STARTS = 11


def start(folder, name, *args):
    """Starts a program, waits until it is ready, and returns it with its address, the seconds, and its memory later."""
    ready_file = folder / f"{name}.ready"
    ready_file.unlink(missing_ok=True)
    begin = time.monotonic()
    process = subprocess.Popen(
        [binaries / name, "--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", f"--ready-file={ready_file}", *args],
        stdout=subprocess.DEVNULL,
    )
    while not ready_file.exists():
        time.sleep(0.001)
    addresses = json.loads(ready_file.read_text())
    while not is_ready(addresses["admin_addr"]):
        time.sleep(0.001)
    return process, addresses["listen_addr"], time.monotonic() - begin


def is_ready(admin_addr):
    try:
        return urllib.request.urlopen(f"http://{admin_addr}/readyz", timeout=5).status == 200
    except urllib.error.HTTPError:
        return False


def resident_mib(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024


def stop(process):
    process.terminate()
    process.wait(timeout=30)


binaries = pathlib.Path(sys.argv[1]).resolve()
figures = {"switchboard-registry": [], "switchboard-router": []}
for _ in range(STARTS):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        registry, address, seconds = start(folder, "switchboard-registry", f"--database-url=sqlite://{folder}/sb.db")
        router, _, router_seconds = start(folder, "switchboard-router", f"--registry-addr=http://{address}")
        time.sleep(2)
        figures["switchboard-registry"].append((seconds, resident_mib(registry)))
        figures["switchboard-router"].append((router_seconds, resident_mib(router)))
        stop(router)
        stop(registry)

print("| program | binary | start to ready | idle memory |\n| --- | --- | --- | --- |")
for name, starts in figures.items():
    size = (binaries / name).stat().st_size / 1024 / 1024
    ready = statistics.median(seconds for seconds, _ in starts) * 1000
    memory = statistics.median(mib for _, mib in starts)
    print(f"| `{name}` | {size:.1f} MiB | {ready:.0f} ms | {memory:.1f} MiB |")
