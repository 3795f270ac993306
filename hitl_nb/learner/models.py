"""Stored models: one skops file each, beside a JSON record; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import sklearn
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from hitl_nb.errors import BadInput, LearnerError, ModelNotFound, RetrainRunning, UntrustedModel, plain, shown
from hitl_nb.learner.challenger import Challenger, Origin

if TYPE_CHECKING:
    import pandas as pd

#: types inside scikit-learn's models that skops does not know by itself; any other must be named by the caller
TRUSTED = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRecord(Origin):
    """What is known of a stored model; the JSON beside it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    #: when it was saved (ISO 8601), as the caller said
    created_at: Annotated[str, AfterValidator(lambda text: datetime.fromisoformat(text) and text)]
    #: sha256 of the skops file, hex
    sha256: str
    #: the policy in use with it, as `Policy.to_dict` writes it
    policy: Mapping[str, Any] | None = None
    #: how often the holdout had been looked at
    looks: int = 0
    #: version of scikit-learn that made it
    sklearn: str = ""


_RECORD, _POINTER, _LOOKS = TypeAdapter(ModelRecord), TypeAdapter(list[str]), TypeAdapter(int)
T = TypeVar("T")


def _origin(model: Origin) -> dict[str, Any]:
    return {field.name: getattr(model, field.name) for field in fields(Origin)}


def _write(path: Path, content: bytes) -> None:
    """Write all or nothing: a temporary file beside it, then one rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _alone(path: Path, wait: bool) -> Iterator[None]:
    """Hold a lock against other threads and processes; a kill drops it, and where the system has none it is nothing."""
    with path.open("ab") as file, ExitStack() as after:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            after.callback(fcntl.flock, file, fcntl.LOCK_UN)  # a fork may have the file open still
        except BlockingIOError:
            raise RetrainRunning(where=plain(str(path.parent))) from None
        except (ImportError, OSError):  # a system or a file system without such locks
            pass
        yield


def _untrusted(version: str, reason: str, types: Sequence[str] = ()) -> UntrustedModel:
    return UntrustedModel(version=version, reason=plain(reason), types=list(types))


def _read(path: Path, form: TypeAdapter[T]) -> T:
    """Return what a JSON file holds, or refuse a file of another form by its name."""
    try:
        return form.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"msg": error.strerror, "loc": ()}
        why = f"cannot be read ({first['msg']} {shown(first['loc'])}); move it away"
        raise _untrusted(path.stem, f"its record {str(path)!r} {why}") from error


def _restored(record: ModelRecord, content: bytes, trusted: Set[str]) -> Any:
    """Return the model in a skops file, or refuse it by the names of its unknown types."""
    import skops.io

    try:
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - trusted)
        if not unknown:
            return skops.io.loads(content, trusted=sorted(trusted))
    except Exception as error:
        raise _untrusted(record.version, f"the file cannot be read ({type(error).__name__}: {error})") from error
    raise _untrusted(record.version, f"it holds types that are not on the list: {', '.join(unknown)}", unknown)


class ModelStore:
    """Models in a folder, with a pointer to the one in use.

    A model is loaded only if its file is the one that was saved (sha256) and holds no types beyond those skops and
    `TRUSTED` know. The record is a guard against accidents; the list of types is the guard against hostile files.

    Parameters
    ----------
    folder : made if it is not there
    trusted : full names of further types to accept, for estimators of your own

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> model = DummyClassifier().fit([[0]], ["a"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ModelStore(folder)
    ...     record = store.save(Challenger(model=model, version="v1"), created_at=datetime(2026, 1, 1))
    ...     print(store.use("v1").version, store.load().model.predict([[0]]))
    v1 ['a']
    """

    def __init__(self, folder: str | os.PathLike[str], trusted: Sequence[str] = ()) -> None:
        self.folder, self.trusted = Path(folder), TRUSTED | set(trusted)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(name="folder", value=str(folder), remedy=f"{error.strerror}; name another folder") from error

    def _path(self, version: str, ending: str) -> Path:
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise BadInput(name="version", value=version, remedy="use letters, digits, '.', '_' and '-' only")
        return self.folder / f"{version}.{ending}"

    def save(
        self, challenger: Challenger, *, created_at: datetime | str, policy: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None, looks: int = 0,
    ) -> ModelRecord:  # fmt: skip
        """Store a model with its record and return the record; the pointer stays.

        Parameters
        ----------
        created_at : the time, from the caller; text is ISO 8601
        policy, metrics, looks : kept in the record; `metrics` are added to those of the fit

        Raises
        ------
        BadInput : the version exists, a stored model is never overwritten; or the time is none
        """
        import skops.io

        path, record_path = self._path(challenger.version, "skops"), self._path(challenger.version, "json")
        content = skops.io.dumps(challenger.model)
        given = _origin(challenger) | {"metrics": {**challenger.metrics, **(metrics or {})}}
        try:
            at = datetime.fromisoformat(str(created_at)).isoformat()
        except ValueError as error:
            remedy = "is no time; pass a datetime, or ISO 8601"
            raise BadInput(name="created_at", value=created_at, remedy=remedy) from error
        sha256 = hashlib.sha256(content).hexdigest()
        more: dict[str, Any] = {"policy": policy, "looks": looks, "sklearn": sklearn.__version__}
        record = ModelRecord(created_at=at, sha256=sha256, **more, **given)
        text = json.dumps(asdict(record), sort_keys=True, indent=1)
        with _alone(self.folder / "saving", wait=True):
            if record_path.exists():
                raise BadInput(name="version", value=challenger.version, remedy="is stored already; use a new version")
            _write(path, content)
            _write(record_path, text.encode())
        return record

    def record(self, version: str) -> ModelRecord:
        """Return the record of a stored model, or raise `ModelNotFound`."""
        path = self._path(version, "json")
        if not path.exists():
            raise self._unknown(version)
        return self._record(path)

    def _unknown(self, version: str) -> ModelNotFound:
        known = [record.version for record in self.records()]
        return ModelNotFound(version=version, path=str(self.folder), known=known)

    def _record(self, path: Path) -> ModelRecord:
        record = _read(path, _RECORD)
        if record.version != path.stem:
            raise _untrusted(path.stem, f"its record {str(path)!r} names another version; move it away")
        return record

    def records(self) -> list[ModelRecord]:
        """Return all records, oldest first."""
        return sorted(map(self._record, self.folder.glob("*.json")), key=lambda r: (r.created_at, r.version))

    def diff(self, version: str, other: str) -> pd.DataFrame:
        """Return what differs between two stored models, a line a fact, a column a model; rows they trained on too."""
        import pandas as pd

        pair = [self.record(one) for one in (version, other)]
        facts = [
            {**_origin(one), "looks": one.looks, "policy": one.policy, "sklearn": one.sklearn, **one.metrics}
            for one in pair
        ]
        hashes = [dict(found.pop("trained")) for found in facts]
        for found, mine, theirs in zip(facts, hashes, hashes[::-1], strict=True):
            found["rows of its own"] = len(mine.items() - theirs.items())
            found |= {name: len(found[name]) for name in ("columns", "held")} | {"metrics": None}
        differing = [name for name in dict.fromkeys([*facts[0], *facts[1]]) if facts[0].get(name) != facts[1].get(name)]
        columns = [[found.get(name) for name in differing] for found in facts]
        return pd.DataFrame(dict(zip((version, other), columns, strict=True)), index=differing, dtype=object)

    def load(self, version: str | None = None) -> Challenger:
        """Return a stored model; without a version the one in use.

        Raises
        ------
        UntrustedModel : the file was altered, or holds types that are not on the list (`types`)
        ModelNotFound : no such version, or none in use
        """
        record = self.latest() if version is None else self.record(version)
        if record is None:
            raise self._unknown("in use")
        try:
            content = self._path(record.version, "skops").read_bytes()
        except OSError as error:
            raise _untrusted(record.version, f"its file is gone or cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise _untrusted(record.version, "the file is not the one that was saved (sha256 differs)")
        if record.sklearn and record.sklearn.split(".")[:2] != sklearn.__version__.split(".")[:2]:
            made = f"model {record.version} was made with scikit-learn {record.sklearn}, this is {sklearn.__version__}"
            warnings.warn(f"{made}; retrain it, its answers may differ", stacklevel=2)
        model = _restored(record, content, self.trusted)
        return Challenger(model=model, **_origin(record))

    # -- who retrains, and what that has spent -------------------------------------------------------------------------

    def lock(self) -> AbstractContextManager[None]:
        """Keep other retrains and rollbacks of this folder out while the block runs; a kill ends it, too.

        Raises
        ------
        RetrainRunning : another one has it
        """
        return _alone(self.folder / "lock", wait=False)

    @property
    def looks(self) -> int:
        """How often the holdout was looked at, also for models that were never saved."""
        path = self.folder / "looks"
        return _read(path, _LOOKS) if path.exists() else 0

    def look(self, number: int) -> None:
        """Keep the number of a look that is about to be made, so that nothing forgets it."""
        _write(self.folder / "looks", str(max(number, self.looks)).encode())

    # -- the pointer ---------------------------------------------------------------------------------------------------

    @property
    def _pointer(self) -> Path:
        return self.folder / "in-use"

    def _history(self) -> list[str]:
        """Return the versions that were put in use, the present one last."""
        return _read(self._pointer, _POINTER) if self._pointer.exists() else []

    def latest(self) -> ModelRecord | None:
        """Return the record of the model in use, or None."""
        history = self._history()
        return self.record(history[-1]) if history else None

    def use(self, version: str) -> ModelRecord:
        """Put a stored version in use; one atomic write."""
        record = self.record(version)
        _write(self._pointer, json.dumps([*self._history(), version]).encode())
        return record

    def rollback(self) -> ModelRecord:
        """Put the version before this one in use again, if it can be loaded, and return its record."""
        history = self._history()[:-1]
        if not history:
            raise LearnerError(what=plain("there is no earlier model to go back to"))
        record = self.record(self.load(history[-1]).version)
        _write(self._pointer, json.dumps(history).encode())
        return record
