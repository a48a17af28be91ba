"""The key and what is made of it."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from medssl.data.pseudonym import check_key, key_id, load_key, pseudonym
from medssl.errors import ManifestError


def test_a_pseudonym_is_keyed_hmac_sha256(key: bytes) -> None:
    expected = hmac.new(key, b"p\x1fchexpert\x1fpatient00001", hashlib.sha256).hexdigest()[:16]
    assert pseudonym(key, "p", "chexpert", "patient00001") == "p" + expected
    assert pseudonym(bytes(32), "p", "chexpert", "patient00001") != "p" + expected
    assert pseudonym(key, "p", "ab", "c") != pseudonym(key, "p", "a", "bc")
    assert key_id(key) != key_id(bytes(32))


def test_the_key_is_made_once_private_and_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "pseudonym.key"
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "another.key"))
    other = load_key()
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(path))
    key = load_key()
    assert len(key) == 32
    assert load_key(path) == load_key() == key != other
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["pseudonym.key"]


def test_a_key_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no pseudonym key.*check the path"):
        load_key(tmp_path / "mistyped.key")
    assert not (tmp_path / "mistyped.key").exists()


def test_the_key_is_looked_for_in_the_environment_then_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MEDSSL_KEY_FILE", raising=False)
    at_home = load_key()
    assert (tmp_path / ".medssl" / "pseudonym.key").read_bytes() == at_home
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "own.key"))
    assert load_key() == (tmp_path / "own.key").read_bytes() != at_home


def test_a_key_that_others_can_read_or_that_is_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    path.write_bytes(bytes(32))
    path.chmod(0o644)
    with pytest.raises(ManifestError, match="mode 0644.*chmod 600"):
        load_key(path)
    path.write_bytes(bytes(31))
    path.chmod(0o600)
    with pytest.raises(ManifestError, match="holds 31 bytes"):
        load_key(path)
    with pytest.raises(ManifestError, match="holds 3 bytes"):
        check_key(b"abc")


def test_a_key_in_a_place_that_cannot_be_is_an_error_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "file" / "pseudonym.key"))
    with pytest.raises(ManifestError, match="MEDSSL_KEY_FILE"):
        load_key()
