"""Which answers of a queue models are compared on: a simple random sample of its traffic.

People see every case that a policy asks about and, by audits, a share of the others. Audits alone would say nothing
of the first and all answers together little of the second; so the reviews are thinned to the share of the audits.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def _draws(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return a uniform draw for each task id (SipHash), the same in every process, whatever the seed of a learner."""
    hashes = pd.util.hash_array(rows.index.to_numpy(object), hash_key="held back answer", categorize=False)
    return np.asarray(hashes / 2.0**64)


def held_back(rows: pd.DataFrame, most: float) -> pd.Series[bool]:
    """Say which answers of a queue never train: audits, and as large a share of the reviews as audits are drawn.

    Parameters
    ----------
    most : share of the reviews that is held back at most, however many audits there are
    """
    return (rows["source"] == "audit") | (_draws(rows) < rows["audit_rate"].clip(upper=most))


def at_random(rows: pd.DataFrame, most: float) -> pd.Series[bool]:
    """Say which rows, of those that are held back, came with one and the same chance, whatever the model had said.

    Where the audit rates are several that chance is the least of them, see `lab.history.History.sample`. An audit
    without a known rate was chosen, so it is none of them; a row of no policy stands as it is.
    """
    rate, audit = rows["audit_rate"], rows["source"] == "audit"
    usual = rate.clip(upper=most)
    drawn: pd.Series[bool] = _draws(rows) * rate.where(audit, 1.0) < usual[usual > 0].min()
    return drawn.where(usual > 0, ~audit)
