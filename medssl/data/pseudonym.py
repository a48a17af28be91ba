"""Pseudonyms: a manifest names patients, studies and cases by keyed hashes, never by the hospital's own ids.

HMAC-SHA256 (RFC 2104) under a secret key of 32 bytes. Whoever holds the key can link a raw id to its pseudonym; nobody
else can, not even by trying all ids. The same key gives the same pseudonym on every machine and in every manifest, so
that a patient who is in two data sets is recognised: keep the key, keep it secret, and use one key for one hospital.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from pathlib import Path
from typing import Literal

from medssl.errors import ManifestError

log = logging.getLogger(__name__)

KEY_BYTES = 32
KEY_VARIABLE = "MEDSSL_KEY_FILE"


def pseudonym(key: bytes, kind: Literal["p", "s", "c"], *parts: str) -> str:
    """`kind` (p patient, s study, c case) and 16 hex digits: the first 64 bits of HMAC-SHA256 over kind and parts."""
    message = "\x1f".join((kind, *parts)).encode()
    return kind + hmac.digest(key, message, "sha256").hex()[:16]


def key_id(key: bytes) -> str:
    """8 hex digits that tell one key from another and give nothing of it away."""
    return hmac.digest(key, b"medssl key id", "sha256").hex()[:8]


def load_key(given: str | Path | None = None) -> bytes:
    """Reads the secret key, or makes it on first use (32 random bytes, mode 0600, its folder 0700).

    The file is `given`, which must be there, else `$MEDSSL_KEY_FILE`, else `~/.medssl/pseudonym.key`. ManifestError
    when others may read the file, when it is shorter than 32 bytes, or when it cannot be made.
    """
    path = Path(given or os.environ.get(KEY_VARIABLE) or Path.home() / ".medssl" / "pseudonym.key")
    try:
        if not path.exists():
            if given is not None:
                raise ManifestError(f"There is no pseudonym key {given}", expected="the file that holds the key",
                                    remedy="check the path; without --key a key is made on first use")
            _create(path)
            log.warning("made a new pseudonym key, %s: keep it safe, other keys give other pseudonyms", path)
        with path.open("rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode & 0o777, file.read()
    except OSError as error:
        raise ManifestError(
            f"The pseudonym key {path} cannot be used: {error.strerror}",
            expected="a file that you may read and write",
            remedy=f"set ${KEY_VARIABLE} to a file in a folder of your own",
        ) from None
    if mode & 0o077:
        raise ManifestError(
            f"The pseudonym key {path} can be read by others (mode {mode:04o})",
            expected="mode 0600, since whoever holds the key can undo the pseudonyms",
            remedy=f"chmod 600 {path}",
        )
    check_key(key, str(path))
    return key


def check_key(key: bytes, source: str = "the key") -> None:
    """ManifestError when the key is too short to keep a secret."""
    if len(key) < KEY_BYTES:
        raise ManifestError(
            f"The pseudonym key in {source} holds {len(key)} bytes",
            expected=f"at least {KEY_BYTES}",
            remedy="restore the whole key from its backup, or move the file away to have a new one made "
            "(patients then get new pseudonyms)",
        )


def _create(path: Path) -> None:
    """Writes a whole key beside its place, then links it there: no reader sees half a key, and the first one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
