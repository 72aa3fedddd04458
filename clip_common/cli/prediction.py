"""The work of `hub run` and `clip-hub classify`: inputs, answers or embeddings, and how they are printed."""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ..errors import ImageError, RequestError
from ..inputs import check_texts
from ..predictor import Predictor
from ..preprocessing.files import Seen, images_in, matches_of
from ..preprocessing.image import IMAGE_SUFFIXES
from ..system.log import logger
from ..system.names import user_path
from ..system.progress import progress_bar
from ..zero_shot.scoring import Answer, l2_normalize
from .reporting import counted

Format = Literal["table", "json"]
_LONGEST_STEM = 60  # characters, of up to four bytes: file systems take 255 bytes


@dataclass(frozen=True)
class Classification:
    """What to classify, and how.

    Attributes:
        input_paths: images, folders of images, globs.
        labels: None for the module's own.
        figures: a folder for an image of each answer; None draws none.
    """

    input_paths: Sequence[str]
    labels: Sequence[str] | None = None
    templates: Sequence[str] | None = None
    top_k: int = 5
    batch_size: int = 32
    use_gpu: bool = False
    figures: Path | None = None


@dataclass(frozen=True)
class Embedding:
    """What to embed, and how: texts, images, or both."""

    input_paths: Sequence[str] = ()
    texts: Sequence[str] = ()
    batch_size: int = 32
    use_gpu: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it: a result for each input that could be used, an error for each that could not."""

    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    def add_error(self, path: Path, error: object) -> None:
        """Keep an image's error."""
        self.errors.append({"path": str(path), "error": str(error)})

    def rendered(self, form: Format) -> str:
        """As `--format` says. JSON is ASCII, which every console can print."""
        if form == "json":
            return json.dumps({"results": self.results, "errors": self.errors})
        return "\n".join(map(_table, self.results))

    def failures(self) -> list[str]:
        """What to say on standard error, a line each."""
        if not self.errors:
            return []
        named = [f"  {error['error']}" for error in self.errors]
        return [f"{counted(len(self.errors), 'image')} failed:", *named]


def perform(predictor: Predictor, task: Classification | Embedding) -> Outcome:
    """Do it; an image that cannot be read costs itself.

    Raises:
        ClipError: it cannot start.
    """
    return _classify(predictor, task) if isinstance(task, Classification) else _embed(predictor, task)


def _classify(predictor: Predictor, task: Classification) -> Outcome:
    prompts = predictor.prompts(task.labels, task.templates)
    paths = _input_paths(task.input_paths)
    if task.figures:
        _make_folder(task.figures)
    with progress_bar(desc="labels", unit="label", delay=2) as bar:
        # Before the first image, so that bad labels end the run there.
        vectors = predictor.label_embeddings(prompts, task.use_gpu, lambda *done: _advance(bar, *done))
    outcome = Outcome()
    for path, feature in _features(predictor, paths, task):
        if isinstance(feature, ImageError):
            outcome.add_error(path, feature)
            continue
        answer = predictor.top_k_labels(feature, vectors, prompts.labels, task.top_k)
        outcome.results.append({"path": str(path), "labels": answer})
        if task.figures and (error := _draw(predictor, path, answer, task.figures, len(outcome.results))):
            outcome.add_error(path, error)
    return outcome


def _embed(predictor: Predictor, task: Embedding) -> Outcome:
    texts = check_texts(task.texts) if task.texts else []
    paths = _input_paths(task.input_paths) if task.input_paths or not texts else []
    outcome = Outcome()
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
    """Each path's feature or error, with a progress bar on standard error when there are several."""
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


def _input_paths(given: Sequence[str]) -> list[Path]:
    """The images that are meant."""
    if not any(given):
        raise RequestError("--input_path is missing: give an image, a folder or a glob")
    return [path for one in given for path in _images_of(one)]


def _images_of(given: str) -> list[Path]:
    """A file, a folder's images, or a glob's matches."""
    path = user_path(given)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENOTDIR):
            why = getattr(error, "strerror", None) or error
            raise RequestError(f"--input_path {given}: cannot be reached ({why})") from None
        return _matches_of(str(path))
    if not is_folder:
        return [path]
    seen = Seen()
    files = images_in(str(path), seen)
    for why in seen.unlisted.values():
        raise RequestError(f"--input_path {given}: the folder cannot be listed ({why})")
    if not files:
        kinds = f"passed over: {seen.summary()}" if seen.passed_over else " ".join(sorted(IMAGE_SUFFIXES))
        raise RequestError(f"--input_path {given}: the folder has no images ({kinds})")
    if seen.passed_over:
        logger.warning("%s: passed over: %s", given, seen.summary())
    return [Path(file) for file in files]


def _matches_of(pattern: str) -> list[Path]:
    try:
        files = [Path(match) for match in matches_of(pattern) if not Path(match).is_dir()]
    except RequestError as error:
        raise RequestError(f"--input_path {error}") from None
    if not files:
        raise RequestError(f"--input_path {pattern}: matches only folders")
    return files


def _table(result: dict[str, Any]) -> str:
    if "labels" in result:
        answer: Answer = result["labels"]
        rows = [f"  {float(item['score']):7.2%}  {item['label']}" for item in answer]
        return "\n".join([result["path"], *rows])
    vector = result["embedding"]
    head = ", ".join(f"{number:.4f}" for number in vector[:6])
    return f"{result.get('path', result.get('text'))}\n  {len(vector)} numbers: {head}, ..."


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--output_dir {folder}: cannot be made ({error.strerror})") from error


def _draw(predictor: Predictor, path: Path, answer: Answer, folder: Path, number: int) -> str | None:
    """Save an image with its answer; returns what went wrong, since the other answers still count."""
    from ..visualize import save_answer  # matplotlib takes a second to import

    target = folder / f"{number:04d}_{path.stem[:_LONGEST_STEM]}.png"
    try:
        save_answer(predictor.preprocess.open(path, str(path)), answer, path.name, target)
    except (OSError, ImageError) as error:
        return f"{path}: its image {target} cannot be saved ({error})"
    return None
