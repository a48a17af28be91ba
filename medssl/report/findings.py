"""What `medssl check` found, as one page with thumbnails and a table of the cases beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from medssl import __version__
from medssl.data.checks import Finding, finding_table
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError
from medssl.files import write_table, write_whole
from medssl.report.cohort import shares, spreads
from medssl.report.layout import environment
from medssl.report.thumbnail import thumbnail

SHOWN = 6
"""Cases of a finding that have a thumbnail; the table has them all."""
LONG = 60
"""Letters from which on a list is no part of a heading."""
SAMPLE = 12
"""Cases shown at the end, found fault with or not."""


@dataclass(frozen=True)
class Thumbnail:
    """uri: the picture, or None where no file could be opened. told: what the manifest says of the case."""

    case_id: str
    uri: str | None
    told: str


@dataclass(frozen=True)
class FindingPart:
    """One finding's share of the page. number: of it in the table."""

    number: int
    finding: Finding
    pictures: list[Thumbnail]

    @property
    def told(self) -> tuple[str, str]:
        """What was found: its heading, and the list after it where that is too long for one."""
        head, _, listed = self.finding.what.rpartition(": ")
        return (head, listed) if len(listed) > LONG and not head.endswith("case(s)") else (self.finding.what, "")


def require_free_name(out: Path, manifest: Path) -> None:
    """ConfigError where the table beside the page would overwrite the manifest, or `out` is not named like a page."""
    _require_page_name(out)
    if out.with_suffix(".csv").resolve() == manifest.resolve():
        raise ConfigError(f"--out {out} has a table beside it of the manifest's own name", expected="another name",
                          remedy=f"--out {out.with_stem(out.stem + '-check')}")


def _require_page_name(out: Path) -> None:
    if out.suffix != ".html":
        raise ConfigError(f"--out {out} is no page", expected="a name in .html", remedy="change the ending")


def write_findings(
    out: Path, manifest: Manifest, findings: Sequence[Finding], facts: pl.DataFrame | None = None
) -> tuple[Path, Path]:
    """Writes the page, and `<stem>.csv` with a row for each case of each finding; both are for their owner only.

    The page holds pictures of patients, and case_ids in place of names.

    Args:
        out: where the page goes, in .html.
        facts: what `gather` read, where every file was opened to find these.
    """
    _require_page_name(out)
    picture = cache(lambda case_id: _picture(manifest, case_id))
    page = environment().get_template("findings.html.j2").render(
        title=f"Is {manifest.card.name} fit to learn from?", version=__version__, opened=facts is not None,
        facts=_facts(manifest), counts=_counts(findings),
        parts=[_part(number, finding, picture) for number, finding in enumerate(findings, start=1)],
        shares=shares(manifest, facts), spreads=spreads(facts) if facts is not None else [],
        table_name=out.with_suffix(".csv").name,
        sample=[picture(case_id) for case_id in _spread(manifest.cases["case_id"].to_list(), SAMPLE)],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page, mode=0o600)
    table = out.with_suffix(".csv")
    write_table(table, finding_table(findings), mode=0o600)
    return out, table


def _part(number: int, finding: Finding, picture: Callable[[str], Thumbnail]) -> FindingPart:
    return FindingPart(number, finding, [picture(case_id) for case_id in finding.cases[:SHOWN]])


def _picture(manifest: Manifest, case_id: str) -> Thumbnail:
    case = manifest.case(case_id)
    positive = [name for name, value in case.labels.items() if value == 1]
    told = [case.split, *positive[:2], *(["…"] if len(positive) > 2 else [])]
    return Thumbnail(case_id, thumbnail(manifest, case_id), ", ".join(told))


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    cases = manifest.cases
    splits = dict(cases.group_by("split").len().rows())
    return [
        ("cases", f"{cases.height:,}"), ("patients", f"{cases['patient_id'].n_unique():,}"),
        ("kind", ", ".join(cases["kind"].unique().sort())),
        ("modality", ", ".join(cases["modality"].drop_nulls().unique().sort())),
        *((name, f"{splits[name]:,}") for name in ("train", "validation", "test") if name in splits),
        *([("with a mask", f"{cases.filter(pl.col('has_mask')).height:,}")] if manifest.card.mask else []),
    ]


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {level: sum(finding.level == level for finding in findings) for level in ("error", "warning", "note")}


def _spread(case_ids: list[str], count: int) -> list[str]:
    """Evenly spread over the list, whose order tells nothing."""
    return [case_ids[place * len(case_ids) // count] for place in range(count)] if len(case_ids) > count else case_ids
