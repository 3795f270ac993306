"""Sample weights from confidences."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput

#: confidence that stands in for an unknown one when weights are computed
UNKNOWN_CONFIDENCE = 0.5


def inverse_confidence(confidence: ArrayLike) -> NDArray[np.float64]:
    """Return raw sample weights ``1 / (confidence + 0.01)``: the less sure the model was, the more a label counts.

    Parameters
    ----------
    confidence : shares between 0 and 1, any shape; an unknown one (NaN, None) counts as 0.5

    Returns
    -------
    array of the same shape, values from 0.99 to 100; not yet capped or brought to mean 1

    Raises
    ------
    BadInput : text, booleans, or a value outside 0..1 (infinities too), which the message names

    Examples
    --------
    >>> inverse_confidence([0.99, 0.49, 0.0]).tolist()
    [1.0, 2.0, 100.0]
    """
    given = np.asarray(confidence)
    if given.dtype.kind in "bUS" or (given.dtype == object and any(isinstance(c, (str, bool)) for c in given.flat)):
        raise BadInput(name="confidence", value=given.tolist(), remedy="text and booleans are no confidences")
    shares = given.astype(np.float64)
    outside = (shares < 0) | (shares > 1)
    if outside.any():
        raise BadInput(name="confidence", value=float(shares[outside][0]), remedy="must lie between 0 and 1, or be NaN")
    return np.asarray(1.0 / (np.where(np.isnan(shares), UNKNOWN_CONFIDENCE, shares) + 0.01))
