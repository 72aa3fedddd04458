"""The work of `hub run` and `clip-hub classify`: find images, classify or embed them, format the output."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ..errors import ImageError, RequestError
from ..inputs import check_texts
from ..predictor import Predictor
from ..preprocessing.files import Seen, image_files, matches_of
from ..preprocessing.image import IMAGE_SUFFIXES
from ..system.file_names import printable, shown_name, user_path, user_pattern
from ..system.log import logger
from ..system.output import require_folder, save_figure
from ..system.progress import progress_bar
from ..system.words import counted
from ..zero_shot.cached_labels import LabelTargets
from ..zero_shot.explain import heat_maps
from ..zero_shot.scoring import (
    Answer,
    Nearest,
    ScoreKind,
    l2_normalize,
    nearest_label,
    shown_score,
    top_k_labels,
)
from ..zero_shot.thresholds import GivenThresholds

Format = Literal["table", "json"]
_EXPLAINED = 3  # labels of an image, at most
_LONGEST_STEM = 60  # characters, of up to four bytes: file systems take 255 bytes


@dataclass(frozen=True)
class Classification:
    """A classification task; other options as of `Predictor.classify`.

    Attributes:
        input_paths: images, folders of images, globs.
        labels: None for the module's default labels.
        figures: folder for a plot of each answer; None for none.
        heat_maps: folder for the heat maps of each answer; None for none.
    """

    input_paths: Sequence[str]
    labels: Sequence[str] | None = None
    templates: Sequence[str] | None = None
    top_k: int = 5
    batch_size: int = 32
    use_gpu: bool = False
    figures: Path | None = None
    scores: ScoreKind | None = None
    thresholds: GivenThresholds | None = None
    heat_maps: Path | None = None

    @property
    def output_folder(self) -> Path | None:
        """The folder for plots or heat maps, if there is one."""
        return self.figures or self.heat_maps


@dataclass(frozen=True)
class Embedding:
    """An embedding task: texts, images, or both."""

    input_paths: Sequence[str] = ()
    texts: Sequence[str] = ()
    batch_size: int = 32
    use_gpu: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task: a result or an error for each input.

    Attributes:
        results: `path` and `labels` of an image, and `nearest` if no label reaches its threshold; or `path`
            or `text`, and `embedding`.
        errors: `path` and `error` of an image that failed.
        scores: the kind of score.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    scores: ScoreKind = "softmax"

    def add_error(self, path: Path, error: object) -> None:
        """Add the error of an image."""
        self.errors.append({"path": str(path), "error": str(error)})

    def rendered(self, form: Format) -> str:
        """Format the results. JSON is in ASCII, which every console can print."""
        if form == "json":
            return json.dumps({"results": self.results, "errors": self.errors})
        return "\n".join(_table(result, self.scores) for result in self.results)

    def failures(self) -> list[str]:
        """The errors as lines for standard error."""
        if not self.errors:
            return []
        named = [f"  {error['error']}" for error in self.errors]
        return [f"{counted(len(self.errors), 'image')} failed:", *named]


def perform(predictor: Predictor, task: Classification | Embedding) -> Outcome:
    """Perform a task. An image that cannot be read becomes an error of the outcome.

    Raises:
        ClipError: the task cannot start.
    """
    return _classify(predictor, task) if isinstance(task, Classification) else _embed(predictor, task)


def _classify(predictor: Predictor, task: Classification) -> Outcome:
    if task.output_folder:
        _require_folder(task.output_folder)
    prompts, scoring = predictor.labels.prompts_and_scoring(
        task.labels, task.templates, task.scores, task.thresholds
    )
    outcome = Outcome(scores=scoring.kind)
    paths = _input_paths(task, outcome)
    with progress_bar(desc="labels", unit="label", delay=2) as bar:
        # Before the first image, so that invalid labels are reported at once.
        targets = predictor.labels.targets(prompts, task.use_gpu, lambda *done: _advance(bar, *done))
    for path, feature in _features(predictor, paths, task):
        if isinstance(feature, ImageError):
            outcome.add_error(path, feature)
            continue
        scale = predictor.logit_scale
        answer = top_k_labels(feature, targets, scale, prompts.labels, task.top_k, scoring)
        result: dict[str, Any] = {"path": str(path), "labels": answer}
        if not answer:
            result["nearest"] = nearest_label(feature, targets, scale, prompts.labels, scoring)
        outcome.results.append(result)
        try:
            if task.figures:
                _draw(predictor, path, result, scoring.kind, _target(task.figures, path, outcome))
            if task.heat_maps:
                target = _target(task.heat_maps, path, outcome, "_explained")
                _explain(predictor, path, result, scoring.kind, prompts.labels, targets, task, target)
        except ImageError as error:  # the file has changed in the meantime
            outcome.add_error(path, f"{error}: its image is not saved")
    return outcome


def _embed(predictor: Predictor, task: Embedding) -> Outcome:
    texts = check_texts(task.texts) if task.texts else []
    outcome = Outcome()
    paths = _input_paths(task, outcome) if task.input_paths or not texts else []
    if texts:
        vectors = l2_normalize(predictor.text_features(texts, task.batch_size, task.use_gpu))
        outcome.results.extend(
            {"text": text, "embedding": vector.tolist()} for text, vector in zip(texts, vectors, strict=True)
        )
    for path, feature in _features(predictor, paths, task):
        if isinstance(feature, ImageError):
            outcome.add_error(path, feature)
        else:
            outcome.results.append({"path": str(path), "embedding": l2_normalize(feature).tolist()})
    return outcome


def _features(
    predictor: Predictor, paths: list[Path], task: Classification | Embedding
) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
    """The feature or error of each path; shows a progress bar if there are several."""
    named = ((str(path), path) for path in paths)
    batches = predictor.image_features(named, task.batch_size, task.use_gpu)
    waiting = iter(paths)
    with progress_bar(total=len(paths), unit="image", disable=len(paths) < 2) as bar:
        for batch in batches:
            for feature in batch:
                yield next(waiting), feature
            bar.update(len(batch))


def _advance(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _input_paths(task: Classification | Embedding, outcome: Outcome) -> list[Path]:
    """The images of all input paths; subfolders that cannot be listed are added to the errors."""
    if not any(task.input_paths):
        raise RequestError("--input_path is missing: give an image, a folder or a glob")
    figures = task.output_folder if isinstance(task, Classification) else None
    return [image for given in task.input_paths for image in images_of(given, figures, outcome)]


def images_of(given: str, figures: Path | None, outcome: Outcome, option: str = "--input_path") -> list[Path]:
    """The images that an argument means: a file, a folder with its subfolders, or a glob of these.

    Args:
        given: the argument.
        figures: folder of plots, which are not inputs.
        outcome: subfolders that cannot be listed are added to its errors.
        option: name of the option, for error messages.
    """
    path, seen = user_path(given), Seen()
    try:
        matches = [path] if path.stat() else []
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENOTDIR):
            why = getattr(error, "strerror", None) or error
            raise RequestError(f"{option} {given}: cannot be reached ({why})") from None
        matches = _matches_of(user_pattern(given), option, seen)
    images: list[Path] = []
    for match in matches:
        images += _images_in(match, figures, seen) if os.path.isdir(match) else [match]  # noqa: PTH112
    _check_folders(option, given, images, seen)
    for folder, why in seen.unlisted.items():
        outcome.add_error(Path(folder), f"{folder}: cannot be listed ({why})")
    return images


def _images_in(folder: Path, figures: Path | None, seen: Seen) -> list[Path]:
    """The images in a folder and its subfolders, without files saved by `--visualization` and `--explain`."""
    images = [Path(file) for file in image_files(str(folder), seen)]
    # realpath, as Path.resolve raises where links lead in a circle.
    if figures is None or os.path.realpath(figures) == os.path.realpath(folder):
        return images
    below = f"{os.path.realpath(figures)}{os.sep}"
    return [image for image in images if not os.path.realpath(image).startswith(below)]


def _check_folders(option: str, given: str, images: list[Path], seen: Seen) -> None:
    if not images and seen.unlisted:
        folder, why = next(iter(seen.unlisted.items()))
        named = "the folder" if folder == given else folder
        raise RequestError(f"{option} {given}: {named} cannot be listed ({why})")
    if not images:
        kinds = f"skipped: {seen.summary()}" if seen.passed_over else " ".join(sorted(IMAGE_SUFFIXES))
        raise RequestError(f"{option} {given}: the folder has no images ({kinds})")
    if seen.passed_over:
        logger.warning("%s: skipped: %s", given, seen.summary())


def _matches_of(pattern: str, option: str, seen: Seen) -> list[Path]:
    try:
        return [Path(match) for match in matches_of(pattern, seen)]
    except RequestError as error:
        raise RequestError(f"{option} {error}") from None


def _table(result: dict[str, Any], scores: ScoreKind) -> str:
    if "labels" in result:
        answer: Answer = result["labels"]
        rows = [f"  {shown_score(item['score'], scores):>7}  {printable(item['label'])}" for item in answer]
        rows = rows or [f"  {_none_of_these(result['nearest'], scores)}"]
        return "\n".join([shown_name(result["path"]), *rows])
    vector = result["embedding"]
    head = ", ".join(f"{number:.4f}" for number in vector[:6])
    name = shown_name(result["path"]) if "path" in result else printable(result["text"])
    return f"{name}\n  {len(vector)} numbers: {head}, ..."


def _none_of_these(nearest: Nearest, scores: ScoreKind) -> str:
    score, threshold = (shown_score(value, scores) for value in (nearest["score"], nearest["threshold"]))
    return f"none of these (nearest: {printable(nearest['label'])}, score {score}, threshold {threshold})"


def _require_folder(folder: Path) -> None:
    try:
        require_folder(folder)
    except RequestError as error:
        raise RequestError(f"--output_dir {error}") from None


def _draw(
    predictor: Predictor,
    path: Path,
    result: dict[str, Any],
    scores: ScoreKind,
    target: Path,
) -> None:
    """Save an image with its answer.

    Raises:
        OSError: it cannot be saved, nor then can the others: it would be for nothing to go on.
    """
    from ..visualize import draw_answer  # matplotlib takes a second to import

    image = predictor.preprocess.open(path, str(path))
    save_figure(draw_answer(image, result["labels"], path.name, scores, result.get("nearest")), target)


def _explain(
    predictor: Predictor,
    path: Path,
    result: dict[str, Any],
    scores: ScoreKind,
    labels: Sequence[str],
    targets: LabelTargets,
    task: Classification,
    target: Path,
) -> None:
    """Save an image with the heat maps of its best labels, or of the nearest; see `_draw`."""
    from ..visualize import draw_heat_maps

    shown = [dict(item) for item in result["labels"] or [result["nearest"]]][:_EXPLAINED]
    places = [labels.index(item["label"]) for item in shown]
    image = predictor.preprocess.open(path, str(path))
    pixels = predictor.preprocess.pixels(image, str(path))
    heats = heat_maps(predictor, pixels, targets, places, task.batch_size, task.use_gpu)
    captions = [f"{item['label']} {shown_score(item['score'], scores)}" for item in shown]
    squashed = predictor.preprocess.settings.resize == "squash"
    figure = draw_heat_maps(image, dict(zip(captions, heats, strict=True)), path.name, squashed)
    save_figure(figure, target)


def _target(folder: Path, path: Path, outcome: Outcome, ending: str = "") -> Path:
    """The file for a plot of the latest answer."""
    return folder / f"{len(outcome.results):04d}_{path.stem[:_LONGEST_STEM]}{ending}.png"
