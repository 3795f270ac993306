"""A Chromium to drive: one that is there, else Debian's own, else Playwright's."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: what a browser may be called
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: nothing of it may talk to the outside on its own
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # and what a page asks for there is not found at once
)  # fmt: skip
NONE_FOUND = "no browser: install chromium or google-chrome (`apt-get install chromium`, `playwright install chromium`)"
_APT = ("apt-get", "-qq", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300")


class NoBrowser(Exception):
    """There is no browser here and none could be installed."""


def find(playwright):
    """Return the path of a browser that is there, or None."""
    found = [shutil.which(name) for name in NAMES] + [playwright.chromium.executable_path]
    return next((path for path in found if path and Path(path).exists()), None)


def find_or_install(playwright):
    """Return the path of a browser; whoever comes second waits for the first to install it."""
    with open(Path(tempfile.gettempdir()) / f"hitl_nb-chromium-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for install in (lambda: None, _by_apt, _by_playwright):
            install()
            if path := find(playwright):
                return path
    raise NoBrowser(NONE_FOUND)


def _by_apt():
    if os.geteuid() or not shutil.which("apt-get"):
        return
    for _ in range(2):  # a mirror in the middle of an update answers right the second time
        updated = _runs(*_APT, "update")
        if _runs(*_APT, "install", "-y", "--no-install-recommends", "chromium") and updated:
            return


def _by_playwright():
    _runs(sys.executable, "-m", "playwright", "install", "chromium")


def _runs(*command):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
