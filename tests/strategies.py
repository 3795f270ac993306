"""Hypothesis strategies: payloads, frames, answers of models and of people, names, moves."""

from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from hitl_nb.task import CONSENSUS, ON_DEADLINE, Move, Priority, ReviewOutcome, Status

#: any text that a payload may hold: no NUL, no lone surrogate
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
#: texts that have broken something somewhere
odd_texts = st.sampled_from(
    [
        "",
        " ",
        '"',
        "\\",
        "\\u0041",
        "\n\t\r\b\f",
        "\x01\x1f\x7f",
        "\u2028",
        "\ufeff",
        "😀",
        "é",
        "</script>",
        "'; DROP",
        "{value}",
        "$float",
        "null",
        "NaN",
        "1e22",
        "\\ud83d",
        "a\x0bb",
    ]
)
floats = st.one_of(
    st.floats(),
    st.sampled_from(
        [0.0, -0.0, 1e-7, 1e-5, 1e-4, 9.999e-5, 1e15, 1e16, 1e17, 1e22, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    ),
)
integers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(-5, 5))
names = st.one_of(st.sampled_from(["a", "b", "$float", "$x", 'quo"te', "back\\slash", "ü", "", " ", "label"]), texts)

arrays = st.sampled_from(
    [
        np.arange(3.0),
        np.arange(4, dtype=">i4").reshape(2, 2),
        np.zeros((0, 3), "f4"),
        np.array(2.5),
        np.array([True, False]),
        np.array([[1, 2], [3, 4]], dtype="u1", order="F"),
        np.array([np.nan, -0.0, np.inf]),
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    floats,
    texts,
    odd_texts,
    st.binary(max_size=9),
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda when: when.replace(fold=0)),
    st.dates(date(1, 1, 1)),
)
values = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
payloads = st.dictionaries(names, values, max_size=4)


def _column(n):
    """Return strategies for one column of ``n`` rows, one a kind of dtype."""

    def of(elements, dtype=None):
        return st.lists(elements, min_size=n, max_size=n).map(lambda found: pd.Series(found, dtype=dtype))

    small = st.floats(width=32)
    return st.one_of(
        of(floats, "float64"),
        of(small, "float32"),
        of(st.integers(-(2**63), 2**63 - 1), "int64"),
        of(st.integers(0, 2**64 - 1), "uint64"),
        of(st.integers(-128, 127), "int8"),
        of(st.booleans(), "bool"),
        of(st.integers(-(2**53), 2**53) | st.none(), "Int64"),
        of(floats | st.none(), "Float64"),
        of(st.booleans() | st.none(), "boolean"),
        of(texts | odd_texts, "str"),
        of(texts | odd_texts | st.none(), "str"),
        of(texts | odd_texts | st.none(), "string"),
        of(texts | odd_texts | st.none(), "object"),
        of(texts | odd_texts, "category"),
        of(st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)) | st.none(), "datetime64[us]"),
        of(st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)), "datetime64[us, UTC]"),
        of(scalars, "object"),
        of(values, "object"),
    )


@st.composite
def frames(draw, n, columns=names):
    """Return a frame of ``n`` rows whose columns are of mixed types."""
    found = draw(st.lists(columns, max_size=4, unique=True))
    return pd.DataFrame({name: draw(_column(n)) for name in found}, index=range(n))


#: names that look like each other inside JSON and SQL
reviewers = st.sampled_from(["ann", "bob", 'x"ann', 'ann"], [2, "x', "a\\", "élan", "' OR 1=1 --", "%"])
moves = st.sampled_from(list(Move))
statuses = st.sampled_from(list(Status))
confidences = st.one_of(st.floats(0, 1), floats, st.none(), st.text(max_size=3), st.booleans())
ai_results = st.fixed_dictionaries(
    {"label": scalars, "confidence": confidences},
    optional={"model": texts, "is_anomalous": st.booleans(), "$odd": floats, "probabilities": payloads},
)
#: outcome and correction, as ``resolve`` takes them
answers = st.one_of(
    st.tuples(st.sampled_from([ReviewOutcome.APPROVE, "reject"]), st.none()),
    st.tuples(st.just("correct"), payloads),
)
spans = st.integers(1, 90).map(lambda minutes: timedelta(minutes=minutes))
#: what ``submit`` takes beside the payload
options = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(list(Priority)),
        "deadline": spans,
        "on_deadline": st.sampled_from(ON_DEADLINE),
        "escalation": st.lists(st.sampled_from(["law", "tax"]), max_size=3),
        "expertise": st.sampled_from(["law", "tax"]),
        "reviews_required": st.sampled_from([1, 2, 2, 3]),
        "consensus": st.sampled_from(CONSENSUS),
    },
)
