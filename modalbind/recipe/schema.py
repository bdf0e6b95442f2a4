"""The recipe: one frozen pydantic model per section, with every default in it.

A section goes to the stage that it configures, never the whole recipe. Sections with a `kind`
(`Choice`) are opened to what plugins offer: whatever else stands in them is checked, second, by
the options model of the spec of that name (`modalbind.recipe.load.resolve`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Base of all sections."""

    # YAML reads `test_fold: 1` as a number; where the schema wants text, it is the text "1".
    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class Choice(BaseModel):
    """Something named by `kind`; the other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(description="Name of what is chosen, as `modalbind plugins` lists it.")

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `kind`, unchecked."""
        return dict(self.model_extra or {})


class ModalitySection(Section):
    """Which modality is added, and how its samples are read."""

    name: str = Field(description="Modality, as `modalbind plugins` lists it.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the plugin: features, channels, windows."
    )


class CalibrationSection(Section):
    """Means taken away, or whitening: fitted on named data, the same for every item after that."""

    kind: Literal["mean", "whiten"] = Field(
        default="mean",
        description="`mean` takes each modality's mean away and normalises again (GR-CLIP); "
        "`whiten` also makes the modality's covariance round.",
    )
    data: tuple[str, ...] = Field(
        min_length=1,
        description="Manifests (columns text, language, image and the modality's), or .txt files "
        "of English sentences, that it is fitted on; relative to the data root.",
    )
    by_language: bool = Field(
        default=False,
        description="A mean for each language of texts. It needs unlabelled text of a language, "
        "which the report then says.",
    )
    shrinkage: float = Field(
        default=0.1, ge=0, le=1, description="`whiten`: share of a round covariance mixed in."
    )


class AnchorSection(Section):
    """The frozen space that the new modality is aligned to."""

    spec: str = Field(
        default="openclip:xlm-roberta-base-ViT-B-32@laion5b_s13b_b90k",
        description="`kind:source[@tag]`; `modalbind anchors` lists the kinds.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of that kind of anchor (pooling, prefix …)."
    )
    sides: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={"text": 1.0},
        description="Which of its modalities the samples are paired with, and their weight.",
    )
    fractions: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="Share of the training samples that keep their anchors on a side "
        "(`image: 0.05`); the others are trained without it. Drawn by the recipe's seed.",
    )
    calibration: CalibrationSection | None = Field(
        default=None, description="Makes another space of it, with another fingerprint."
    )
    batch_size: int = Field(default=256, ge=1, description="Items encoded at once.")
    verify: Literal["auto", "weights"] = Field(
        default="auto",
        description="`weights` opens the anchor's weights even when the cache holds all vectors.",
    )


class DataSection(Section):
    """Which pairs, and which of them train and test."""

    sources: tuple[Choice, ...] = Field(
        default=(), description="Data sets; several are mixed by their `weight` (default 1)."
    )
    root: str | None = Field(
        default=None, description="Folder of all paths; default: the folder of each manifest."
    )
    train_languages: tuple[str, ...] = Field(
        default=("en",), description="Languages whose texts are trained on."
    )
    split_column: str = Field(default="split", description="Column that holds the split.")
    train_split: str = Field(default="train", description="Its value for training rows.")
    val_split: str = Field(default="val", description="Its value for rows to select on.")
    test_split: str = Field(default="test", description="Its value for test rows.")
    fold_column: str = Field(default="fold", description="Column for k-fold evaluation.")
    test_fold: str | None = Field(
        default=None, description="Fold that is tested; the others train. Overrides the split."
    )
    test_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="Groups held out when the data names no split."
    )
    val_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the training groups held out for selection and early stop.",
    )
    max_broken_fraction: float = Field(
        default=0.01, ge=0, le=1, description="Broken samples tolerated before the run stops."
    )
    check: Literal["decode", "none"] = Field(
        default="decode",
        description="`decode` reads every sample before training starts, and counts the broken; "
        "`none` starts at once and stops at the first that is broken.",
    )
    min_similarity: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Drop training pairs below this `similarity` column (CACARA's filters).",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Files listing sample keys or groups that must not be trained on."
    )
    shuffle_pairs: bool = Field(
        default=False, description="Control: give each training sample another one's texts."
    )
    feature_cache: bool = Field(
        default=False,
        description="Keep the features of training samples on disk, in half precision, for this "
        "run and the next; without augmentations of samples.",
    )
    memory_mib: int = Field(default=1024, ge=0, description="Decoded samples kept in memory.")
    workers: int = Field(default=0, ge=0, description="Loader processes.")


class LoraSection(Section):
    """Low-rank adapters on the encoder, through peft."""

    rank: int = Field(default=8, ge=1, description="Rank of the update.")
    alpha: float = Field(default=16.0, gt=0, description="Scale of the update, over rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the adapter.")
    targets: tuple[str, ...] = Field(
        default=(), description="Names of linear layers; empty takes the encoder's own list."
    )


class HeadSection(Section):
    """The projection from the encoder's width to the anchor's dim."""

    kind: Literal["linear", "deep_linear", "mlp", "none"] = Field(
        default="linear",
        description="Its form; `deep_linear` is `layers` linear maps in a row, published as the "
        "one map that they are; `none` for an encoder that already ends in the anchor's dim.",
    )
    layers: int = Field(default=2, ge=1, description="Linear maps inside `deep_linear`.")
    skip: bool = Field(
        default=False,
        description="Whether maps of `deep_linear` that keep the width add their input.",
    )
    hidden: int = Field(default=0, ge=0, description="Width inside `mlp`; 0 = the encoder's.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Before the last layer.")
    bias: bool = Field(default=True, description="Whether linear layers have one.")


class TowerSection(Section):
    """Which parts of the tower train, and how."""

    freeze: Literal["none", "encoder"] | int = Field(
        default="none",
        description="`encoder` trains the head alone; a number freezes that many lower layers.",
    )
    lora: LoraSection | None = Field(default=None, description="Adapters instead of full tuning.")
    checkpointing: bool = Field(default=False, description="Recompute activations to save memory.")


Beta = Annotated[float, Field(ge=0, lt=1)]


Solver = Literal["adamw", "least_squares", "ridge", "procrustes", "cca"]


class ClosedFormSection(Section):
    """Options of the solvers in closed form."""

    centre: bool = Field(
        default=True, description="Fit around the means of both sides; else through the origin."
    )
    components: int | None = Field(
        default=None, ge=1, description="Canonical pairs that `cca` keeps; default: all."
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        description="Keep so many singular values of the fitted outputs (reduced-rank regression).",
    )
    keep_mean: bool = Field(
        default=False,
        description="Whether embeddings keep the mean of the anchor embeddings. It is the same "
        "for every sample; where the fit is shrunk, all of them would point to it.",
    )


class LengthSection(Section):
    """A curriculum of lengths: short stretches of each sample first, whole samples later."""

    start: float = Field(
        default=0.5, gt=0, le=1, description="Share of a sample's features at the first step."
    )
    until: float = Field(
        default=0.7, gt=0, le=1, description="Share of the run after which samples are whole."
    )


class TrainSection(Section):
    """How the tower is found: by the loop, or in closed form."""

    solver: Solver = Field(
        default="adamw",
        description="`adamw` trains by the objective; the others fit a linear head on the encoder "
        "as it is, in closed form: no steps, no objective, no augmentation.",
    )
    closed_form: ClosedFormSection = ClosedFormSection()
    head_start: Literal["none", "least_squares", "ridge", "procrustes", "cca"] = Field(
        default="none",
        description="Closed form that a linear head starts from, fitted on the encoder as it is "
        "before the first step; then all that trains is trained (LP-FT).",
    )
    negatives: Literal["batch", "bank"] = Field(
        default="batch",
        description="What a sample is told apart from: the anchors of its batch, or those of all "
        "training samples, which the cache holds.",
    )
    lengths: LengthSection | None = Field(
        default=None, description="Short stretches first; for modalities of varying length."
    )
    epochs: int = Field(default=10, ge=1, description="Passes over the training samples.")
    max_steps: int | None = Field(default=None, ge=1, description="Stop after so many steps.")
    batch_size: int = Field(default=64, ge=2, description="Samples per optimizer step.")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Samples per forward pass; the loss is still that of the whole batch.",
    )
    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate of the head.")
    encoder_lr: float | None = Field(default=None, gt=0, description="Of the encoder; else `lr`.")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="Factor on the rate per layer towards the input."
    )
    weight_decay: float = Field(default=0.05, ge=0, description="Of matrices, not of vectors.")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.98), description="AdamW's.")
    warmup_steps: int | float = Field(
        default=0.05, ge=0, description="Steps, or a share of all steps if below 1."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="After warm-up."
    )
    clip_norm: float | None = Field(default=1.0, gt=0, description="Largest gradient norm.")
    precision: Literal["no", "bf16", "fp16", "auto"] = Field(
        default="no",
        description="Mixed precision; `auto` takes bf16 where a moment's probe finds it faster.",
    )
    channels_last: bool | Literal["auto"] = Field(
        default=False,
        description="Weights of convolutions with their channels last; `auto` times a pass of this "
        "tower both ways and takes the faster.",
    )
    checkpoint_every: int = Field(
        default=0, ge=0, description="Steps between checkpoints; 0 = ten a run."
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="How many of the last are kept.")
    select_every: int = Field(
        default=0, ge=0, description="Epochs between scores on the val split; 0 = never."
    )
    patience: int = Field(
        default=0, ge=0, description="Scores without gain before stopping; 0 = never."
    )
    trackers: tuple[str, ...] = Field(
        default=(), description="accelerate's trackers beside metrics.jsonl, e.g. tensorboard."
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 leaves torch's choice.")


class ZeroShotSection(Section):
    """One zero-shot classification."""

    name: str = Field(description="Name in the report.")
    labels: str = Field(
        description="JSON file `{language: {label: class name}}`, relative to the data root."
    )
    label_column: str = Field(default="class", description="Manifest column with the label.")
    templates: dict[str, tuple[str, ...]] | str = Field(
        default_factory=dict,
        description="Prompt templates with `{label}`, by language; or the name of a set that "
        "ships with modalbind (generic, sound, picture, depth, thermal), or a JSON file of them "
        "relative to the data root.",
    )


class EvaluationSection(Section):
    """What is measured at the end, on the test split."""

    links: tuple[str, ...] = Field(
        default=(),
        description="Manifests of anchor-side items (text, image) joined by positive_key, or "
        "JSON `{positive_key: [image]}`; relative to the data root. Never trained on.",
    )
    link_text_image: bool = Field(
        default=True, description="Score the anchor's own text-image retrieval beside the tower."
    )
    languages: tuple[str, ...] = Field(
        default=(), description="Languages of anchor texts that are tested; empty: all there are."
    )
    language_shares: str = Field(
        default="auto",
        description="Share of each language in what the text encoder learnt from: a name that "
        "modalbind knows, a YAML file relative to the data root, or `auto` by the encoder.",
    )
    calibration: CalibrationSection | None = Field(
        default=None, description="Of all embeddings, after training; the run stays as it is."
    )
    closed_forms: bool = Field(
        default=False,
        description="Score all closed forms beside a tower whose encoder is frozen.",
    )
    zero_shot: tuple[ZeroShotSection, ...] = Field(default=(), description="Classifications.")
    bootstrap: int = Field(default=1000, ge=0, description="Resamples of an interval.")
    window: bool = Field(default=True, description="Mean over windows for long samples.")
    control_columns: tuple[str, ...] = Field(
        default=(), description="Manifest columns that the trivial-feature control may see."
    )
    tile: int = Field(default=1024, ge=1, description="Rows of a similarity tile.")


class AblationSection(Section):
    """Variants of a recipe that are held against each other by `modalbind ablate`."""

    variants: dict[str, tuple[str, ...]] = Field(
        min_length=2,
        description="By name, what each changes (`key=value` as for --set); the first is what the "
        "others are held against.",
    )


class Recipe(Section):
    """A whole run, said once."""

    name: str = Field(default="", description="Names the run directory.")
    summary: str = Field(default="", description="One sentence.")
    modality: ModalitySection
    anchor: AnchorSection = AnchorSection()
    data: DataSection = DataSection()
    encoder: Choice
    head: HeadSection = HeadSection()
    tower: TowerSection = TowerSection()
    augment: tuple[Choice, ...] = ()
    objective: Choice = Choice(kind="infonce")
    train: TrainSection = TrainSection()
    evaluation: EvaluationSection = EvaluationSection()
    seed: int = Field(default=0, ge=0, description="Of everything random.")
    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    ablation: AblationSection | None = Field(
        default=None, description="Variants; `align` runs the recipe as it is."
    )

    @model_validator(mode="after")
    def _check_closed_form(self) -> Recipe:
        solver = self.train.solver
        if solver == "adamw":
            return self
        if self.head.kind != "linear" or not self.head.bias:
            raise ValueError(
                f"train.solver {solver} fits a linear head with a bias; set head to that"
            )
        unused = {
            "augment": bool(self.augment),
            "train.head_start": self.train.head_start != "none",
            "train.negatives": self.train.negatives != "batch",
            "train.lengths": self.train.lengths is not None,
            "tower.lora": self.tower.lora is not None,
            "train.select_every": self.train.select_every > 0,
        }
        if found := [name for name, is_set in unused.items() if is_set]:
            raise ValueError(f"train.solver {solver} takes no steps; leave out {', '.join(found)}")
        return self

    @model_validator(mode="after")
    def _check_head_start(self) -> Recipe:
        if self.train.head_start != "none" and (self.head.kind != "linear" or not self.head.bias):
            raise ValueError(
                "train.head_start fits a linear head with a bias; set head to that, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_fractions(self) -> Recipe:
        if unused := sorted(set(self.anchor.fractions) - set(self.anchor.sides)):
            raise ValueError(f"anchor.fractions names {unused[0]}, which is none of anchor.sides")
        return self

    @model_validator(mode="after")
    def _check_early_stop(self) -> Recipe:
        if self.train.patience and not self.train.select_every:
            raise ValueError("train.patience needs train.select_every above 0")
        return self
