"""benchmarks/: every topic runs at its smallest size and writes its rows, and the page is filled from them."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
HELPERS = {"harness", "lightly_peer", "meter", "plain_mae", "plain_simsiam", "remote", "report", "step",
           "volumes"}
TOPICS = sorted({path.stem for path in BENCHMARKS.glob("*.py")} - HELPERS)

sys.path.insert(0, str(BENCHMARKS))
import harness  # noqa: E402
import meter  # noqa: E402
import plain_simsiam  # noqa: E402
import remote  # noqa: E402
import report  # noqa: E402

from medssl.models import build_encoder  # noqa: E402
from medssl.models.cnn import ResNetEncoder  # noqa: E402
from medssl.objectives.simsiam import SimSiam  # noqa: E402
from medssl.types import Views  # noqa: E402


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_runs_alone_and_writes_its_rows(results, topic, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{topic}.py", "--tiny", "--out", str(results)])
    runpy.run_path(str(BENCHMARKS / f"{topic}.py"), run_name="__main__")  # a process each would import torch each time
    rows = json.loads((results / f"{topic}.json").read_text())
    assert rows
    for row in rows:
        assert list(row)[:5] == ["name", "ours", "peer", "peer_name", "ratio"]
        assert row["ours"] > 0
        assert row["machine"]
        assert row["versions"]["medssl"]
        if row["peer"] is None:
            assert "not installed" in row["note"]
        else:
            assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])
        if row["unit"] == "ms":
            assert row["ours_mib"] >= 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_the_gpus_benchmark_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    assert "no GPU here" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_every_topic_stands_in_the_page_and_in_the_makefile():
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert sorted(set(re.findall(r"<!-- (\w+) -->", page)) - {"end"}) == TOPICS
    listed = re.search(r"TOPICS := \$\(filter-out (.*?),", (ROOT / "Makefile").read_text())[1]
    assert set(listed.split()) == HELPERS


def test_the_page_is_filled_and_a_missed_target_is_bold(tmp_path):
    rows = [harness.Row("a", 2.0, 6.0, "peer", 3.0, repeats=9, low=2.5, high=3.5, target=2.0, machine="M",
                        versions={"x": "1"}, ours_mib=1024.0, peer_mib=12.3),
            harness.Row("b", 2.0, 3.0, "peer", 1.5, repeats=9, low=1.2, high=1.8, target=2.0, machine="M"),
            harness.Row("c", 2.0, None, "other", None, note="other is not installed", target=1.0, machine="M")]
    told = [vars(row) for row in rows]
    del told[1]["ours_mib"], told[1]["peer_mib"]  # as results had it before memory was measured
    (tmp_path / "loading.json").write_text(json.dumps(told))
    page = report.fill("before\n<!-- loading -->\nold\n<!-- end -->\nafter\n<!-- crop -->\n<!-- end -->\n", tmp_path)
    assert "| a | 2 ms | 1,024 MiB | peer | 6 ms | 12.3 MiB | 3 | 2.5 to 3.5 | ≥ 2 |" in page
    assert "| b | 2 ms |  | peer | 3 ms |  | **1.5** | 1.2 to 1.8 | ≥ 2 |" in page
    assert "other is not installed" in page
    assert "M. x 1. 9 repeats." in page
    assert "old" not in page
    assert "<!-- crop -->\nNot measured yet.\n<!-- end -->" in page
    assert report.fill(page, tmp_path) == page
    (tmp_path / "loading.png").write_bytes(b"a picture")
    assert "loading.png)\n<!-- end -->" in report.fill(page, tmp_path)


def test_peers_are_timed_in_turns_and_must_give_the_same(monkeypatch):
    calls = []
    peers = [harness.Peer("one", lambda: calls.append("one") or 1, "numpy", 2.0, lambda a, b: a == b),
             harness.Peer("absent", lambda: calls.append("absent"), "no such package"),
             harness.Peer("two", lambda: calls.append("two") or 1, "torch")]
    rows = harness.compare("work", lambda: calls.append("ours") or 1, peers, repeats=2,
                           before=lambda: calls.append("-"))
    assert calls == ["ours", "one", "two",
                     "-", "ours", "-", "one", "-", "two",
                     "-", "one", "-", "two", "-", "ours",
                     "-", "ours", "-", "one", "-", "two"], "the last turn is for memory"
    assert [row.peer_name for row in rows] == ["one", "two", "absent"]
    assert rows[2].ratio is None
    assert "not installed" in rows[2].note
    with pytest.raises(SystemExit, match="one gave another result"):
        harness.compare("work", lambda: 2, peers, repeats=1)


def test_the_peak_is_of_the_work_alone_and_counts_what_it_gave_back():
    kept = bytearray(64 * 2**20)
    assert meter.peak_mib(lambda: bytearray(96 * 2**20)) == pytest.approx(96, abs=8)
    assert meter.peak_mib(lambda: None) == pytest.approx(0, abs=8)
    assert len(kept) == 64 * 2**20


def test_memory_that_cannot_be_measured_is_left_open(monkeypatch, tmp_path):
    monkeypatch.setattr(meter, "RESET", tmp_path / "missing" / "clear_refs")
    (row,) = harness.compare("work", lambda: 1, [harness.Peer("one", lambda: 1, "numpy")], repeats=1)
    assert (row.ours_mib, row.peer_mib) == (None, None)


SERVER = """
import json, sys
settings = json.loads(sys.argv[1])
for line in sys.stdin:
    measure = json.loads(line)["measure"]
    print(json.dumps({measure: settings[measure]}), flush=True)
"""


def test_a_peer_in_another_environment_measures_itself(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    server = remote.Server(Path(sys.prefix), str(tmp_path / "server.py"), {"milliseconds": 5e6, "peak_mib": 7e6})
    peer = remote.RemotePeer("far", lambda: server.ask(measure="peak_mib"), "torch", server=server, question={})
    (row,) = harness.compare("work", lambda: None, [peer], repeats=2)
    assert (row.peer, row.peer_mib) == (5e6, 7e6)
    assert row.versions == {"torch": torch.__version__}
    server.close()
    assert server._process.returncode == 0


def test_an_environment_that_is_missing_is_told_of_with_the_command_that_makes_it(tmp_path):
    peer = remote.lightly_peer("lightly", remote.Server(tmp_path / ".venv-lightly", "lightly_peer.py", {}), "bf16")
    (row,) = harness.compare("work", lambda: None, [peer], repeats=1)
    assert row.note == "lightly is not installed: make .venv-lightly"
    assert "\n.venv-lightly\n" in (ROOT / ".gitignore").read_text()
    assert re.search(r"^LIGHTLY := \.venv-lightly$", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_plain_simsiam_computes_what_medssls_does():
    torch.manual_seed(0)
    ours = SimSiam(build_encoder(ResNetEncoder.Config()), SimSiam.Config(width=64))
    plain = plain_simsiam.PlainSimSiam(64)
    for its, mine in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.nn.init.normal_(mine, std=0.1)
        its.data.copy_(mine)
    views = tuple(torch.randn(2, 4, 1, 64, 64))
    torch.testing.assert_close(plain(*views), ours(Views(views))[0], rtol=1e-4, atol=1e-5)


def test_no_peer_is_imported_by_medssl():
    peers = re.search(r"^bench = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    names = re.findall(r'"([\w-]+)', peers)
    assert names
    imported = re.compile(rf"^\s*(?:import|from) (?:{'|'.join(names)})\b", re.MULTILINE)
    assert not [path for path in (ROOT / "medssl").rglob("*.py") if imported.search(path.read_text())]
