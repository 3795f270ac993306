"""What comes with the package: the folders `data` and `notebooks`, in a wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hitl_nb.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).parent


def shipped(kind: Literal["data", "notebooks"]) -> Path:
    """Return the folder of that kind.

    Parameters
    ----------
    kind
        ``"data"`` or ``"notebooks"``.

    Raises
    ------
    BadInput
        There is no such folder: another kind, or an incomplete installation.

    Examples
    --------
    >>> (shipped("data") / "spam.csv").exists()
    True
    """
    in_wheel, in_checkout = PACKAGE / "_shipped" / kind, PACKAGE.parent / kind
    if kind in ("data", "notebooks"):
        if in_wheel.is_dir():
            return in_wheel
        if in_checkout.is_dir() and (PACKAGE.parent / "pyproject.toml").is_file():
            return in_checkout
    raise BadInput(
        name="kind", value=kind, remedy="shipped are data and notebooks; install hitl-nb again if one is missing"
    )


def load_spam() -> pd.DataFrame:
    """Return the 4,601 e-mails of Spambase: six numbers each, and whether it is spam.

    Columns: ``capital_run_total`` (letters), ``dollar`` and ``bang`` (% of the characters), ``money``, ``n000`` and
    ``make`` (% of the words), ``label`` (``"spam"`` or ``"ham"``). Rows are sorted by label: shuffle before a split.
    Hopkins, Reeber, Forman and Suermondt (1999), doi 10.24432/C53G6X, CC BY 4.0.

    Examples
    --------
    >>> load_spam()["label"].value_counts().to_dict()
    {'ham': 2788, 'spam': 1813}
    """
    import pandas as pd

    return pd.read_csv(shipped("data") / "spam.csv")
