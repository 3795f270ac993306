"""What the front door loads."""

import subprocess
import sys

HEAVY = {"duckdb", "pandas", "sklearn", "ipywidgets", "fastapi", "scipy", "pyarrow", "modAL", "anywidget", "httpx"}


def test_the_front_door_loads_nothing_heavy():
    ask = "import hitl_nb, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()
