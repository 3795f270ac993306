"""Each supported scikit-learn in an environment of its own: a fit, modAL's teach, a retrain, and a stored model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = ["1.7", "1.8", "1.9"]
LOOP = """
import sys, tempfile
import numpy as np, pandas as pd, sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from hitl_nb import open_queue
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.learner.modal import WeightedActiveLearner
from hitl_nb.loop import Loop

made = make_pipeline(StandardScaler(), LogisticRegression())
x = np.arange(100.0)[:, None]
active = WeightedActiveLearner(made, X_training=x[:50], y_training=np.arange(50) % 2, sample_weight=np.ones(50))
active.teach(x[50:], np.arange(50) % 2, sample_weight=np.full(50, 2.0))
assert active.sample_weight.sum() == 150

rows = pd.DataFrame({"task_id": [f"i{i}" for i in range(100)], "x": x[:, 0], "label": x[:, 0] > 50})
tempered = sklearn.__version__ >= "1.8"
for estimator in (made, CalibratedClassifierCV(made, cv=2)):
    learner = Learner(estimator, min_samples=1, calibrate=tempered)
    learner.add(rows.assign(source="initial"))
    with open_queue(":memory:") as queue, tempfile.TemporaryDirectory() as folder:
        loop = Loop(queue, learner, models=ModelStore(folder))
        loop.retrain(force=True)
        loop.retrain(force=True)
        assert loop.models.load("v2").model.predict(pd.DataFrame({"x": [0.0, 99.0]})).tolist() == [False, True]
print("scikit-learn", sklearn.__version__)
"""


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_loop_turns_on_every_supported_scikit_learn(version, tmp_path):
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "pins.txt").write_text("\n".join(pin for pin in pins if not pin.startswith("scikit-learn==")))
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", "-c", tmp_path / "pins.txt", ROOT, f"scikit-learn~={version}.0"]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([python, "-W", "error:::hitl_nb", "-c", LOOP], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"scikit-learn {version}.")


def test_the_oldest_of_them_is_the_one_that_the_package_asks_for():
    wanted = re.search(r'"scikit-learn>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert wanted[1] == VERSIONS[0]
    pinned = re.search(
        r"^scikit-learn==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pinned[1] == VERSIONS[-1]
