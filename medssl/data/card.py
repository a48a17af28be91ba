"""The card of a data set: one YAML file that says how its folder and tables become manifest rows.

Every card gathers *raw columns* first, one row a case, and fills in everything else from them with templates such as
`"{Path}"` or `"{patient}/{study}"`. Where the raw columns come from is the card's `layout`:

- `table`: the columns of one or more CSV files;
- `pattern`: the fields of the file templates, e.g. `case` in `"{case}/{case}_t1.nii.gz"`, matched against the folder;
- `scan`: whatever `medssl.io.find_scans` finds, as `path`, `patient`, `accession`, `study`, `series`, `description`,
  `kind`, `modality` and the header fields that it lets through.

`join` adds the columns of further tables, and `extract` cuts new columns out of others by regular expression.
Raw columns are kept in memory only: the manifest holds pseudonyms, and the labels and attributes that the card names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from medssl.config import Config, merge_overrides, parse_yaml, read_yaml, validate, why_no_yaml
from medssl.data.split import SPLITS
from medssl.data.template import fields
from medssl.errors import ConfigError
from medssl.types import Kind, Split

_SCAN_IDS = ("patient", "accession", "study", "series")
_SCAN_TEXTS = ("path", "description")
"""Raw columns of `layout: scan` that name people, or may."""


def _template(text: str) -> str:
    if not fields(text):
        raise ValueError(f"a template names at least one column in braces; write '{{{text}}}' for the column {text!r}")
    return text


def _within(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} leads outside of the data set's folder; give a path within it")
    return path


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _text_keys(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if any(isinstance(key, bool) for key in value):
        raise ValueError("YAML reads a bare yes, no, on, off as true or false; put the value in quotes")
    return {str(key): meant for key, meant in value.items()}


Template = Annotated[str, AfterValidator(_template)]
Inside = AfterValidator(_within)
"""Of a path, or a path's template: it begins in the data set's folder and stays there."""
Regex = Annotated[str, AfterValidator(_regex)]
ValueMap = Annotated[dict[str, float | str | None], BeforeValidator(_text_keys)]


def _is_age(name: str) -> bool:
    """Whether a column's name has the word age in it: Age, PatientAge, age_at_scan; not image or stage."""
    return "age" in (word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))


class Table(Config):
    """A CSV file (comma, semicolon or tab) whose rows are cases."""

    path: Annotated[str, Inside]
    """Relative to the data set's folder."""

    split: Split | None = None
    """The split of all its rows; none: as the card's `split` says."""


Mangling = Literal["zeros", "decimals", "spaces", "case"]
"""What spreadsheets and typists do to ids: leading zeros lost, a trailing .0, spaces, other capitals."""


class Join(Config):
    """One more CSV file, whose columns are added to the cases that its rows name."""

    path: Annotated[str, Inside]
    """Relative to the data set's folder."""

    match: dict[str, str] = Field(min_length=1)
    """{raw column: the column of this table that must be equal}; under `layout: scan` also `patient` (the MRN),
    `accession`, `study` and `series` (UIDs), which go no further than this."""

    ignore: list[Mangling] = []
    """What does not count when ids are compared, on either side: leading zeros, a trailing .0 (decimals), spaces,
    capitals (case)."""


class Source(Config):
    """A value read from raw columns. In a card a bare template stands for `{source: template}`."""

    source: Template
    """Blank fields are left out; the value is missing when all of them are blank."""

    values: ValueMap | None = None
    """What each raw value is to be called; null: missing. A raw value that is not listed is an error."""

    unit: Literal["text", "number", "years", "days_since_first"] = "text"
    """years: an age such as 58, 058Y or 18M; above 89 it becomes 90 (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)).
    days_since_first: a date, kept as days since the patient's first one in this manifest."""

    @model_validator(mode="before")
    @classmethod
    def _bare_template(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class Labels(Config):
    """What a task may learn. Labels are numbers, kept as they stand: an uncertain −1 stays −1."""

    columns: list[str] = []
    """Raw columns taken under their own name."""

    blank: float | None = None
    """What an empty cell of `columns` means, or one of NA, N/A, nan, null or None, as tools write it; null: the label
    is missing."""

    derived: dict[str, Source] = {}
    """Labels made of other columns, e.g. `Male: {source: "{Sex}", values: {Male: 1, Female: 0}}`."""


class SplitRule(Config):
    """How a case gets its split where its table does not say: by column, or by hash of the patient."""

    source: Template | None = None
    """A template, compared without regard to case: train, training, val, valid, validate, validation, dev, test,
    testing."""

    shares: dict[Split, float] | None = None
    """Shares of the hash of the patient, which sum to 1, e.g. `{train: 0.7, validation: 0.1, test: 0.2}`."""

    @model_validator(mode="after")
    def _one_rule(self) -> SplitRule:
        if (self.source is None) == (self.shares is None):
            raise ValueError("give either `source` or `shares`")
        if self.shares and (min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-9):
            raise ValueError(f"shares of {', '.join(SPLITS)} are positive and sum to 1")
        return self


class Filter(Config):
    """Leaves cases out, counted under `reason`. The card travels with the manifest: write no person's id here."""

    source: Template
    keep: Regex | None = None
    """Cases stay whose value matches as a whole."""

    drop: Regex | None = None
    """Cases go whose value matches as a whole."""

    reason: str

    @model_validator(mode="after")
    def _one_side(self) -> Filter:
        if (self.keep is None) == (self.drop is None):
            raise ValueError("give either `keep` or `drop`")
        return self


class Card(Config):
    """How a data set's files and tables become the rows of a manifest; examples are in data_manifests/."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
    about: str
    """What the set is, where it comes from, its licence."""

    layout: Literal["table", "pattern", "scan"]
    kind: Kind | None = None
    """Of every case; none only under `layout: scan`, where each scan says."""

    modality: str | None = None
    """DICOM's code (DX, CR, MR, US, ...); none only under `layout: scan`."""

    time: Literal["phases", "clips"] = "phases"
    """Under `layout: scan`, what a series that comes several times at every place becomes: a volume for each phase, or
    a clip for each place."""

    namespace: str | None = None
    """Cards of one namespace number their patients alike: the same raw id is the same person, with the same pseudonym
    and the same hash split. None: the card's own name."""

    tables: list[Table] = []
    join: list[Join] = []
    """In order; a single one needs no list. Of two columns with one name the first counts."""

    extract: dict[str, Regex] = {}
    """{raw column: regular expression that matches it as a whole}; its named groups become raw columns, blank where it
    does not match."""

    files: dict[str, Annotated[Template, Inside]] = {}
    """{channel: path within the folder}, in the order of the channels; a single channel is called image."""

    channels: dict[str, Annotated[dict[str, Regex], Field(min_length=1)]] = {}
    """{channel: {raw column: regular expression that matches it as a whole, whatever its capitals}}; under
    `layout: scan`. A case is then a study in which one scan fits each channel, with the raw columns of the first."""

    optional: list[str] = []
    """Channels, but for the first, that a case may lack: it is kept, and they are 0 once prepared."""

    mask: Annotated[Template, Inside] | None = None
    """Path of the segmentation; a case without one is kept as unlabelled."""

    structures: dict[Annotated[int, Field(gt=0, le=255)], Annotated[list[Regex], Field(min_length=1)]] = {}
    """{mask value: regular expressions that match the names of its structures as a whole, whatever their capitals}.
    Masks are then DICOM segmentations or RT structure sets: the files at `mask`, or under `layout: scan` whatever
    refers to a scan's series. Where structures overlap, the value named first stays."""

    regions: dict[str, list[Annotated[int, Field(gt=0)]]] = {}
    """{region: the mask's values that make it up}; regions may overlap, and their order is kept."""

    patient: list[Template] = Field(min_length=1)
    """Templates of the raw patient id; the first without a blank counts."""

    study: Template | None = None
    """Template of the raw study id; none: every case is a study of its own."""

    labels: Labels = Labels()
    attributes: dict[str, Source] = {}
    split: SplitRule
    filters: list[Filter] = []

    @property
    def patients_named_by(self) -> str:
        """The namespace: what makes raw ids of this card unique, and salts the hash split."""
        return self.namespace or self.name

    @property
    def channel_names(self) -> list[str]:
        return [*self.files, *self.channels] or ["image"]

    @property
    def required_channels(self) -> list[str]:
        return [name for name in self.channel_names if name not in self.optional]

    @property
    def has_masks(self) -> bool:
        return bool(self.mask or self.structures)

    @property
    def sources(self) -> dict[str, Source]:
        """Every labelled or attributed value by its manifest column, `label.*` before `attr.*`."""
        plain = {name: Source(source=f"{{{name}}}", unit="number") for name in self.labels.columns}
        derived = {name: source.model_copy(update={"unit": "number"} if source.unit == "text" else {})
                   for name, source in self.labels.derived.items()}
        labels = {f"label.{name}": source for name, source in {**plain, **derived}.items()}
        return labels | {f"attr.{name}": source for name, source in self.attributes.items()}

    def named_columns(self) -> list[str]:
        """Every raw column that the card fills something in from, each once."""
        templates = [*self.files.values(), *self.patient, *(s.source for s in self.sources.values()),
                     *(f.source for f in self.filters), *filter(None, (self.mask, self.study, self.split.source))]
        return list(dict.fromkeys(name for template in templates for name in fields(template)))

    @model_validator(mode="before")
    @classmethod
    def _lists_of_one(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        alone = {"patient": str, "join": dict}
        return data | {name: [data[name]] for name, kind in alone.items() if isinstance(data.get(name), kind)}

    @model_validator(mode="after")
    def _fits_together(self) -> Card:
        mistakes = [*self._layout_mistakes(), *self._mask_mistakes(), *self._privacy_mistakes()]
        doubled = [name for name in self.labels.derived if name in self.labels.columns]
        if doubled:
            mistakes.append(f"label {doubled[0]!r} is both a column and derived")
        if "mask" in self.channel_names:
            mistakes.append("a channel cannot be called mask; give its path as `mask:`")
        first, *others = self.channel_names
        mistakes += [f"`optional` names {name!r}; channels that may be so are {', '.join(others) or 'none'}"
                     for name in self.optional if name not in others]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _layout_mistakes(self) -> list[str]:
        always = ("files", "kind", "modality")
        wanted = {"table": ("tables", *always), "pattern": always, "scan": ()}
        if self.channels:
            wanted["scan"] = ("kind", "study")
        useless = {"table": ("channels",), "pattern": ("channels", "tables"), "scan": ("tables", "files", "mask")}
        layout = "layout scan with `channels`" if self.channels else f"layout {self.layout}"
        mistakes = [f"{layout} needs `{name}`" for name in wanted[self.layout] if not getattr(self, name)]
        mistakes += [f"layout {self.layout} has no use for `{n}`" for n in useless[self.layout] if getattr(self, n)]
        if self.time != "phases" and self.layout != "scan":
            mistakes.append(f"layout {self.layout} has no use for `time`")
        templates = [*self.files.values(), *filter(None, [self.mask])]
        if self.layout == "pattern" and len({frozenset(fields(template)) for template in templates}) > 1:
            mistakes.append("layout pattern needs the same fields in every path, so that a case's files find together")
        return mistakes

    def _mask_mistakes(self) -> list[str]:
        mistakes = []
        if self.regions and not self.has_masks:
            mistakes.append("`regions` without a `mask` or `structures` to find them in")
        if self.structures and not self.mask and self.layout != "scan":
            mistakes.append("`structures` without a `mask` to find them in")
        if self.structures and self.kind not in (None, "volume"):
            mistakes.append(f"`structures` lie in volumes, and `kind` is {self.kind}")
        never = {value for values in self.regions.values() for value in values} - self.structures.keys()
        if self.structures and never:
            mistakes.append(f"`regions` hold the value {min(never)}, which `structures` give to nothing")
        return mistakes

    def _privacy_mistakes(self) -> list[str]:
        identity = {name for template in self.patient for name in fields(template)}
        texts: set[str] = set()
        if self.layout == "scan":
            identity, texts = identity.union(_SCAN_IDS), set(_SCAN_TEXTS)
        shown = {f"attribute {name!r}": source.source for name, source in self.attributes.items()}
        shown |= {f"label {name!r}": source.source for name, source in self.labels.derived.items()}
        shown |= {f"label {name!r}": f"{{{name}}}" for name in self.labels.columns}
        asked = {f"filter {item.reason!r}": item.source for item in self.filters}
        mistakes = [f"{place} reads {hit!r}, which names the patient and may not enter a manifest"
                    for places, closed in ((shown, identity | texts), (asked, identity))
                    for place, template in places.items() for hit in fields(template) if hit in closed]
        ages = {**self.attributes, **self.labels.derived}
        mistakes += [f"{name!r} is an age: give it `unit: years`, so that ages above 89 become 90"
                     for name, source in ages.items() if source.unit != "years" and source.values is None
                     and any(map(_is_age, (name, *fields(source.source))))]
        return mistakes + [f"label {name!r} is an age: derive it with `unit: years`"
                           for name in self.labels.columns if _is_age(name)]

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Card:
        """Reads a card, with each `key.sub=value` put in its place; ConfigError lists every mistake in it at once."""
        return validate(cls, merge_overrides(read_yaml(path), list(overrides)), str(path))

    @classmethod
    def from_yaml(cls, text: str, source: str = "card") -> Card:
        """The card that `to_yaml` wrote."""
        try:
            data = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{source} is not YAML: {why_no_yaml(error)}") from None
        return validate(cls, data, source)

    def to_yaml(self) -> str:
        """Everything that is not left at its default, as YAML that `from_yaml` reads back to an equal card."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
