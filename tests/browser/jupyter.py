"""A JupyterLab of its own, with Notebook 7 and Voila: loopback, a token, its state in one folder that goes with it."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from jupyter_core.paths import jupyter_path

#: where the settings of a JupyterLab keep its theme
THEMES = "@jupyterlab/apputils-extension/themes.jupyterlab-settings"
#: no news, no look for updates
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}
#: how long the front end of an anywidget waits for its script, before it gives up what the kernel says; and here
WAITS, PATIENT = "AbortSignal.timeout(2000)", "AbortSignal.timeout(60000)"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running JupyterLab, which has Notebook 7 below ``/notebooks`` and Voila below ``/voila/render``."""

    url: str
    token: str
    #: the folder whose notebooks it opens
    root: Path
    log: Path


@contextlib.contextmanager
def jupyterlab(folder):
    """Run a JupyterLab whose every file is below a folder, but for the sockets of its kernels."""
    for name, values in SETTINGS.items():
        file = folder / "settings" / name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    _be_patient(folder / "patient" / "labextensions")
    root, port, token = folder / "notebooks", free_port(), secrets.token_hex(16)
    root.mkdir()
    server = Server(url=f"http://127.0.0.1:{port}", token=token, root=root, log=folder / "server.log")
    # a socket's path may not be long
    with server.log.open("w") as log, tempfile.TemporaryDirectory(prefix="hitl") as runtime:
        process = subprocess.Popen(
            _command(root, port, token), env=_environment(folder, runtime), stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(server, process)
            yield server
        finally:
            _stop(process)


def _be_patient(folder):
    """Copy the front end of anywidgets into a folder; there no machine is too slow for it."""
    places = (Path(place) / "anywidget" for place in jupyter_path("labextensions"))
    shutil.copytree(next(place for place in places if place.exists()), folder / "anywidget")
    for script in folder.rglob("*.js"):
        script.write_text(script.read_text("utf-8").replace(WAITS, PATIENT), "utf-8")


def free_port():
    """Return a port that the system gives to nobody who asks for any, so that it is free when a server has started."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port := 20_000 + secrets.randbelow(12_000)))
            return port


def _command(root, port, token):
    return [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--KernelManager.transport=ipc",  # a port may be taken between its choice and the start of a kernel
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}",
        "--ServerApp.terminals_enabled=False", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly",
        "--ServerApp.jpserver_extensions=notebook=True", "--ServerApp.jpserver_extensions=voila=True",
        "--JupyterNotebookApp.expose_app_in_browser=True", "--FileContentsManager.delete_to_trash=False",
    ]  # fmt: skip


def _environment(folder, runtime):
    places = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": runtime,
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "matplotlib", "JUPYTER_PATH": "patient",
    }  # fmt: skip
    of_its_own = {name: str(folder / place) for name, place in places.items()}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, **of_its_own, "JUPYTER_NO_CONFIG": "1", "NO_COLOR": "1", "PATH": path}


def _wait(server, process):
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/api/status?token={server.token}"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{server.log.read_text()[-3000:]}")


def _stop(process):
    process.send_signal(signal.SIGTERM)  # it ends its kernels too
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
