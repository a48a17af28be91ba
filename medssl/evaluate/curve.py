"""The label-fraction curve: arms × fractions × seeds × folds, each a small labelled training judged on unseen patients.

Label subsets are nested, by patient, and the same for every arm. Nothing is chosen on the judged patients. Every point
is a file of its own, so that a curve can be stopped and goes on where it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import polars as pl
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from medssl.augment.policy import PolicyConfig
from medssl.config import Config
from medssl.data.fraction import distinct_fractions, subset_digest
from medssl.data.source import Data, DataConfig, open_data
from medssl.data.split import cross_validation
from medssl.errors import ConfigError, ManifestError
from medssl.evaluate.choice import ChoiceConfig
from medssl.evaluate.studies import to_be_judged
from medssl.files import write_table, write_whole
from medssl.models import EncoderConfig
from medssl.models.start import open_start
from medssl.tasks import TASKS, TaskConfig
from medssl.train.finetune import label_fractions
from medssl.train.loop import TrainConfig
from medssl.train.pretrain import PretrainConfig
from medssl.train.run import read_provenance
from medssl.train.tuning import TuningConfig


class Holdout(Config):
    """Learn from the train split, judge on other splits of the card."""

    name: Literal["holdout"] = "holdout"
    judge: Annotated[list[Literal["validation", "test"]], Field(min_length=1)] = ["test"]


class CrossValidation(Config):
    """Every training patient is judged once, by models (pretraining included) that never saw them.

    The test split stays unopened.
    """

    name: Literal["cross_validation"] = "cross_validation"
    folds: Annotated[int, Field(ge=2)] = 3
    seed: int = 0


How = Literal["finetune", "probe", "knn", "pixels"]
HOW: tuple[How, ...] = get_args(How)
ORIGINS = ("init", "pretrain", "weights_of", "like", "encoder")


class ArmConfig(Config):
    """One line of the picture. Its weights come from exactly one of init, pretrain, weights_of, like, encoder."""

    label: str = ""
    """The name in the picture."""
    how: How = "finetune"
    """finetune: all weights; probe: a linear model on frozen features; knn: a vote of the nearest labelled cases by
    frozen features; pixels: a linear model on the shrunk image."""
    init: Path | None = None
    """A finished pretraining run, or a local file of foreign weights."""
    pretrain: PretrainConfig | None = None
    """A pretraining recipe (in YAML its path, or {extends: path} and changes), run on each fold's training patients.
    Its manifest, cache and `data.where` are the curve's."""
    once: bool = False
    """Pretrained once a fold, however often `pretrainings` has the others; its intervals cover no second time."""
    weights_of: str | None = None
    """The same pretrained weights as that arm."""
    like: str | None = None
    """The same architecture as that arm, fresh: 'from scratch'."""
    encoder: EncoderConfig | None = None
    """An architecture of its own, fresh."""
    decoder: bool = False
    """Take over the pretrained decoder too."""
    baseline: str | None = None
    """The arm that this one is compared with."""
    lr: PositiveFloat | None = None
    """Learning rate of this arm's finetuning, where it is neither the budget's nor chosen."""
    tuning: TuningConfig = TuningConfig()
    size: PositiveInt = 16
    """Side of the shrunk image of `how: pixels`."""

    @property
    def origins(self) -> list[str]:
        return [name for name in ORIGINS if getattr(self, name) is not None]


class ScalingConfig(Config):
    """Arms that differ in one size of their pretraining, for a picture of what scale brings; in any order."""

    model: list[str] = []
    """By the parameters of the encoder."""
    patients: list[str] = []
    """By the unlabelled patients that were learnt from (the pretraining's `share`)."""
    batch: list[str] = []
    """By the pretraining's batch size."""


Fraction = Annotated[float, Field(gt=0, le=1)]


class CurveConfig(Config):
    """A curve's recipe."""

    step: Literal["curve"] = "curve"
    title: str = ""
    data: DataConfig
    task: TaskConfig
    augment: PolicyConfig = PolicyConfig()
    train: TrainConfig = TrainConfig()
    """The one finetuning budget of every arm."""
    choice: ChoiceConfig | None = None
    """How each finetuned point chooses its learning rate; null takes the budget's."""
    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.05, 0.1, 0.25, 0.5, 1.0)
    seeds: PositiveInt = 3
    """Draws of the labelled patients, and of the weights that are not pretrained. A random encoder that is probed is
    the same in all of them, so that its features are computed once: no interval covers another one."""
    pretrainings: PositiveInt = 1
    """How often each arm's `pretrain` is done anew, with a seed of its own; each point of the arm is done for each."""
    protocol: Annotated[Holdout | CrossValidation, Field(discriminator="name")] = Holdout()
    subgroup: str | None = None
    """An attribute (view, sex, ...) by which the figures are also given."""
    arms: Annotated[dict[Annotated[str, Field(pattern=r"^[\w-]+$")], ArmConfig], Field(min_length=1)]
    scaling: ScalingConfig = ScalingConfig()
    """Which arms the picture of model size, data size and batch size is drawn from."""

    @field_validator("arms")
    @classmethod
    def _arms_fit_together(cls, arms: dict[str, ArmConfig]) -> dict[str, ArmConfig]:
        mistakes = [f"{name}: {mistake}" for name in arms for mistake in _arm_mistakes(name, arms)]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return arms

    @model_validator(mode="after")
    def _task_suits_arms(self) -> CurveConfig:
        linear = [name for name, arm in self.arms.items() if arm.how != "finetune"]
        if linear and self.task.name == "segment":
            raise ValueError(f"arms {', '.join(linear)}: only finetuned arms can segment; use how: finetune")
        if len({f"{fraction:g}" for fraction in self.fractions}) < len(self.fractions):  # as in the names of points
            raise ValueError(f"fractions {self.fractions} name one twice")
        return self

    @model_validator(mode="after")
    def _is_done_by_one_process(self) -> CurveConfig:
        trains = {"train": self.train} | {f"arms.{name}.pretrain.train": arm.pretrain.train
                                          for name, arm in self.arms.items() if arm.pretrain}
        several = [name for name, train in trains.items() if train.devices > 1]
        if several:
            raise ValueError(f"{', '.join(several)}: a curve trains on one device; leave `devices` out, or pretrain by "
                             "medssl pretrain and give the arm `init`")
        return self

    @model_validator(mode="after")
    def _scaling_is_of_pretrainings(self) -> CurveConfig:
        mistakes = [f"scaling.{axis}: {mistake}" for axis, names in self.scaling if names
                    for mistake in _axis_mistakes(names, self)]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def pretraining(self, arm: str) -> PretrainConfig | None:
        """What the curve itself pretrains the arm's weights by."""
        settings = self.arms[arm]
        return self.arms[settings.weights_of].pretrain if settings.weights_of else settings.pretrain

    def pretrainings_of(self, arm: str) -> int:
        """1 also where there is nothing to repeat: what starts fresh, or from weights made elsewhere, is done once."""
        source = self.arms[self.arms[arm].weights_of or arm]
        return self.pretrainings if source.pretrain and not source.once else 1


def _arm_mistakes(name: str, arms: dict[str, ArmConfig]) -> list[str]:
    arm, mistakes = arms[name], []
    if len(arm.origins) != (arm.how != "pixels"):
        given = ", ".join(arm.origins) or "none"
        mistakes.append(f"give exactly one of {', '.join(ORIGINS)} (none for how: pixels), not {given}")
    if arm.once and not arm.pretrain:
        mistakes.append("once is of an arm with `pretrain`, and counts for those that take its weights, too")
    named = {field: getattr(arm, field) for field in ("weights_of", "like", "baseline") if getattr(arm, field)}
    mistakes += [f"{field} names {other!r}; the other arms are {', '.join(each for each in arms if each != name)}"
                 for field, other in named.items() if other not in arms or other == name]
    if arm.weights_of in arms and not (arms[arm.weights_of].pretrain or arms[arm.weights_of].init):
        mistakes.append(f"weights_of names {arm.weights_of!r}, which has no pretrained weights of its own")
    if arm.like in arms and not {"init", "pretrain", "encoder"} & set(arms[arm.like].origins):
        mistakes.append(f"like names {arm.like!r}, which has no architecture of its own")
    return mistakes


def _axis_mistakes(names: list[str], config: CurveConfig) -> list[str]:
    mistakes = [f"names {name!r}; the arms are {', '.join(config.arms)}" for name in names if name not in config.arms]
    mistakes += [f"names {name!r}, which does not pretrain; name arms with `pretrain`, or with `weights_of` such an arm"
                 for name in names if name in config.arms and not config.pretraining(name)]
    if len(names) < 2 or len(set(names)) < len(names):
        mistakes.append(f"names {', '.join(names)}; name two arms or more, each once")
    return mistakes


@dataclass(frozen=True)
class CurveFold:
    """Who may be learnt from and who is judged, by pseudonym."""

    index: int
    train: list[str]
    judged: list[str]


@dataclass(frozen=True, order=True)
class Point:
    """One dot of the picture before averaging."""

    arm: str
    fold: int
    fraction: float
    seed: int
    pretraining: int = 0

    @property
    def stem(self) -> str:
        return f"{self.arm}/k{self.fold}-f{self.fraction:g}-s{self.seed}{_again(self.pretraining)}"

    @property
    def start(self) -> tuple[str, int, int]:
        """What its weights hang on: points that start alike can share them, and their features."""
        return self.arm, self.fold, self.pretraining


class Curve:
    """An opened CurveConfig: data, folds and label subsets. Cheap to make again in a worker process."""

    def __init__(self, config: CurveConfig, out: Path, data: Data | None = None) -> None:
        self.config, self.out = config, out
        self.data = data or open_data(config.data)
        if config.subgroup and config.subgroup not in self.data.manifest.attributes:
            raise ConfigError(f"subgroup names the attribute {config.subgroup!r}", remedy="mend the recipe",
                              expected=f"one of {', '.join(self.data.manifest.attributes) or 'none'}")
        self.folds = self._folds()
        self.fractions = self._fractions()
        self._encoders: dict[str, EncoderConfig] = {}
        self._drawn: dict[tuple[int, int], dict[float, list[str]]] = {}

    def points(self, *how: str) -> list[Point]:
        return sorted(Point(arm, fold.index, fraction, seed, pretraining)
                      for arm, settings in self.config.arms.items() if settings.how in how
                      for fold in self.folds for fraction in self.fractions for seed in range(self.config.seeds)
                      for pretraining in range(self.config.pretrainings_of(arm)))

    @property
    def shown_fraction(self) -> float:
        """The fraction whose models are shown in pictures: the middle one of those that the curve began with."""
        return read_provenance(self.out).get("shown_fraction", self.fractions[len(self.fractions) // 2])

    def is_done(self, point: Point) -> bool:
        return (self.out / "points" / f"{point.stem}.json").is_file()

    def labelled(self, fold: int) -> pl.DataFrame:
        """Every labelled case that may be learnt from in this fold."""
        return TASKS[self.config.task.name].labelled(self.config.task, self.data.of(self.folds[fold].train))

    def labelled_cases(self, point: Point) -> pl.DataFrame:
        """The labelled cases that this point learns from, the same for every arm."""
        labelled = self.labelled(point.fold)
        chosen = self._subsets(point.fold, point.seed)[point.fraction]
        return labelled.filter(pl.col("patient_id").is_in(chosen))

    def judged_cases(self, fold: int) -> pl.DataFrame:
        return to_be_judged(self.config.task, self.data.of(self.folds[fold].judged))

    def encoder_config(self, arm: str) -> EncoderConfig:
        settings = self.config.arms[arm]
        if settings.like or settings.weights_of:
            return self.encoder_config(settings.like or settings.weights_of)
        if arm not in self._encoders:
            given = settings.pretrain or settings
            self._encoders[arm] = given.encoder or open_start(given.init).encoder_config
        return self._encoders[arm]

    def elsewhere(self, arm: str) -> Path | None:
        """The run folder or foreign file that the arm's weights, or those before its pretraining, come from."""
        settings = self.config.arms[arm]
        if settings.weights_of:
            return self.elsewhere(settings.weights_of)
        return settings.init or (settings.pretrain and settings.pretrain.init)

    def weights(self, arm: str, fold: int, pretraining: int = 0) -> Path | None:
        """The run folder or foreign file that the arm starts from in this fold; None for fresh weights."""
        settings = self.config.arms[arm]
        if settings.weights_of:
            return self.weights(settings.weights_of, fold, pretraining)
        if settings.pretrain:
            return self.out / "pretrain" / f"{arm}-k{fold}{_again(pretraining)}"
        return settings.init

    def pretrain_seed(self, arm: str, fold: int, pretraining: int) -> int:
        """Another one for each fold and pretraining."""
        return self.config.arms[arm].pretrain.seed + fold + len(self.folds) * pretraining

    def save(self, point: Point, predictions: pl.DataFrame, seconds: float, **chosen: Any) -> None:
        """chosen: what the point chose for itself, told beside it."""
        labelled = self.labelled_cases(point)
        told = {"arm": point.arm, "fraction": point.fraction, "seed": point.seed, "fold": point.fold,
                "pretraining": point.pretraining,
                "train_patients": labelled["patient_id"].n_unique(), "train_cases": len(labelled),
                "subset": subset_digest(labelled["patient_id"]), "seconds": round(seconds, 2), **chosen}
        path = self.out / "points" / f"{point.stem}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, predictions.with_columns(
            pl.lit(point.arm).alias("arm"), pl.lit(point.fraction).alias("fraction"), pl.lit(point.seed).alias("seed"),
            pl.lit(point.fold).alias("fold"), pl.lit(point.pretraining).alias("pretraining")))
        write_whole(path.with_suffix(".json"), json.dumps(told))

    def _folds(self) -> list[CurveFold]:
        protocol, train = self.config.protocol, self.data.training
        if protocol.name == "holdout":
            judged = self.data.cases.filter(pl.col("split").is_in(protocol.judge))
            folds = [CurveFold(0, _patients(train), _patients(judged))]
        else:
            labelled = TASKS[self.config.task.name].labelled(self.config.task, train)
            strata = dict(zip(labelled["patient_id"], TASKS[self.config.task.name].strata(self.config.task, labelled),
                              strict=True))
            patients = _patients(train)
            cut = cross_validation(patients, [str(strata.get(p, "")) for p in patients], protocol.folds, protocol.seed)
            folds = [CurveFold(fold.index, fold.train, fold.held_out) for fold in cut]
        if any(not fold.train or not fold.judged for fold in folds):
            raise ManifestError("A curve needs patients to learn from and patients to judge on, and one side is empty",
                                expected="both a train split and the judged one",
                                remedy="look at medssl check's counts per split, or use protocol.name=cross_validation")
        return folds

    def _fractions(self) -> list[float]:
        """Rising; without those that come to the same patients as another, whose dots would stand at shares that nobody
        had."""
        patients = min(self.labelled(fold.index)["patient_id"].n_unique() for fold in self.folds)
        if found := distinct_fractions(self.config.fractions, patients):
            return found
        raise ConfigError(f"The fractions {', '.join(map(str, self.config.fractions))} come to less than two of "
                          f"{patients} labelled training patients", expected="at least two of them",
                          remedy="give larger fractions, up to 1.0, or label more patients")

    def _subsets(self, fold: int, seed: int) -> dict[float, list[str]]:
        """By fraction, the patients that a seed draws; a large set's draw takes a while."""
        if (fold, seed) not in self._drawn:
            self._drawn[fold, seed] = label_fractions(self.config.task, self.labelled(fold), self.fractions, seed)
        return self._drawn[fold, seed]


def _again(pretraining: int) -> str:
    """Ends the names of all but the first, which are those of a curve that pretrains once."""
    return f"-p{pretraining}" if pretraining else ""


def _patients(cases: pl.DataFrame) -> list[str]:
    return cases["patient_id"].unique().sort().to_list()
