"""Everything that is known to be wrong with a manifest, in one list."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from medssl.data.checks import attributes, contents, copies, files, labels, outliers, splits
from medssl.data.checks.finding import LEVELS, Finding
from medssl.data.manifest import Manifest


def check(manifest: Manifest, facts: pl.DataFrame | None = None) -> list[Finding]:
    """Everything found, errors first.

    facts: what `gather` read from the files; without it only the tables and the files' sizes are looked at.
    """
    findings = [*_of_tables(manifest), *(_of_facts(manifest, facts) if facts is not None else ())]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _of_tables(manifest: Manifest) -> Iterator[Finding]:
    yield from files.left_out(manifest)
    yield from files.missing(manifest)
    yield from splits.overlap(manifest)
    yield from splits.sizes(manifest)
    yield from splits.kinds(manifest)
    yield from splits.masks(manifest)
    yield from labels.of_tables(manifest)
    yield from attributes.confounding(manifest)
    yield from attributes.telling(manifest)


def _of_facts(manifest: Manifest, facts: pl.DataFrame) -> Iterator[Finding]:
    yield from contents.unreadable(facts)
    yield from contents.kinds(manifest, facts)
    yield from contents.grids(facts)
    yield from contents.channels(facts)
    yield from contents.pixels(facts)
    yield from contents.mask_values(manifest, facts)
    yield from contents.burned_in(facts)
    yield from contents.ultrasound(facts)
    yield from labels.of_masks(manifest, facts)
    yield from copies.cases(manifest, facts)
    yield from copies.channels(facts)
    yield from outliers.spacings(manifest, facts)
    yield from outliers.intensities(manifest, facts)
