"""Counts that are proven: against answers by MPFR, which were proven sample by sample."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mandeldask.errors import ConfigError
from mandeldask.kernels.deep import Held, dtype, last_counts, make, reference_orbit

ANSWERS = {a["name"]: a for a in json.loads(Path(__file__).with_name("deep_answers.json").read_text())["answers"]}
# scripts/check_deep has time for these too: 10 s and more for the reference alone
SLOW = {"KF 5e227", "KF 1e1086", "Fractalshades 11, 2e-2608", "1/4 + 10^-12", "-3/4 + 10^-7 i"}


@cache
def loader(name):
    a = ANSWERS[name]
    return Held(reference_orbit(tuple(map(Fraction, a["origin"])), a["unit_log2"], a["max_iter"]))


def samples(name):
    """Offsets, and their counts."""
    found = ANSWERS[name]["samples"]
    offsets = [complex(float.fromhex(s["x"]), float.fromhex(s["y"])) for s in found]
    return np.array(offsets), np.array([s["count"] for s in found])


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - SLOW))
def test_every_answer_is_right_and_proven(name):
    offsets, counts = samples(name)
    block = make(ANSWERS[name]["max_iter"], ("escape_time",), loader(name))
    assert block(offsets).tolist() == counts.tolist()
    assert last_counts().unproven == 0
    assert last_counts().third <= last_counts().second <= len(counts)
    assert pickle.loads(pickle.dumps(block))(offsets[:1, np.newaxis]).tolist() == [[counts[0]]]


def test_counts_are_as_wide_as_max_iter():
    assert dtype(2**31 - 1) == np.int32
    assert dtype(2**31) == np.int64
    for max_iter in (10**5, 2**40):
        assert make(max_iter, ("escape_time",), loader("KF 1e14"))(np.zeros((2, 0), complex)).dtype == dtype(max_iter)


@pytest.mark.parametrize("max_iter", [0, -1, 2**63, 1.5, "100", True, None])
def test_a_bad_max_iter_is_refused_before_any_work(max_iter):
    with pytest.raises(ConfigError, match="max_iter"):
        make(max_iter, ("escape_time",), None)
