"""Every file of the real corpora ends as the committed table says, and none in a traceback, a crash or a hang."""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from make_corpus_tables import CORPORA, Worker, read_table, rows


def test_every_file_ends_as_the_table_says():
    if "MEDSSL_DATA" not in os.environ:
        pytest.skip("MEDSSL_DATA names no folder of real scans")
    data, expected = Path(os.environ["MEDSSL_DATA"]), read_table()
    files = {str(path.relative_to(data)) for corpus in CORPORA for path in (data / corpus).rglob("*") if path.is_file()}
    assert {row.path for row in expected} == files
    made = list(rows(data))
    assert [row for row in made if row not in expected] == []
    assert [row for row in expected if row not in made] == []


def test_the_table_names_an_outcome_for_each_file():
    assert {row.outcome for row in read_table()} == {"scan", "skip"}
    for row in read_table():
        assert bool(row.reason) == (row.outcome == "skip")
        assert bool(row.kind and row.shape) == (row.outcome == "scan")


def test_a_worker_that_dies_is_named_and_followed_by_another():
    with Worker() as worker:
        with pytest.raises(BrokenProcessPool):
            worker.call(os.abort)
        assert worker.call(len, "abc") == 3
