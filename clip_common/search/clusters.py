"""Clusters of stored images by k-means, named by labels. Needs scikit-learn (extra [evaluate])."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans

from ..errors import RequestError
from ..predictor import Predictor
from ..system.file_names import printable, shown_name, unescape_name
from ..system.words import counted
from ..text.prompts import Prompts
from ..zero_shot.scoring import Answer, Scoring, l2_normalize, top_k_labels
from .stored_images import StoredImage, StoredImages

_SEED, _STARTS = 0, 3
_NAMES = 3  # labels per cluster
_COSINE = Scoring("cosine")


@dataclass(frozen=True)
class Member:
    """An image of a cluster, and its cosine with the mean of the cluster."""

    image: StoredImage
    cosine: float


@dataclass(frozen=True)
class Cluster:
    """Similar images.

    Attributes:
        members: the images, nearest to the mean first.
        labels: the labels nearest to the mean, best first; scores are cosines.
    """

    members: list[Member]
    labels: Answer

    @property
    def name(self) -> str:
        """The best label."""
        return self.labels[0]["label"]


def find_clusters(stored: StoredImages, count: int, prompts: Prompts, predictor: Predictor) -> list[Cluster]:
    """Cluster images by k-means on their embeddings; largest cluster first. Deterministic.

    Args:
        stored: the images.
        count: number of clusters.
        prompts: candidate labels for naming the clusters.
        predictor: the model that made the embeddings.

    Raises:
        RequestError: there are fewer distinct images than clusters, or another model made the embeddings.
    """
    require_model(stored, predictor)
    different: set[bytes] = set()
    for embedding in stored.embeddings:
        different.add((embedding + 0.0).tobytes())  # + 0.0 turns -0.0 into 0.0
        if len(different) >= count:
            break
    if count > len(different):
        there = counted(len(different), "different image")
        raise RequestError(f"--clusters is {count}, and the embeddings are of only {there}")
    targets = predictor.labels.targets(prompts)
    fitted = KMeans(count, n_init=_STARTS, random_state=_SEED).fit(stored.embeddings)
    clusters = []
    for number in range(count):
        rows = np.flatnonzero(fitted.labels_ == number)
        mean = l2_normalize(fitted.cluster_centers_[number])
        cosines = np.clip(stored.embeddings[rows] @ mean, -1, 1)
        order = np.argsort(-cosines, kind="stable")
        members = [Member(stored.images[rows[i]], float(cosines[i])) for i in order]
        labels = top_k_labels(mean, targets, 1.0, prompts.labels, _NAMES, _COSINE)
        clusters.append(Cluster(members, labels))
    return sorted(clusters, key=lambda cluster: (-len(cluster.members), cluster.members[0].image.place))


def require_model(stored: StoredImages, predictor: Predictor) -> None:
    """Check that the embeddings were made with this model.

    Raises:
        RequestError: they were made with another one.
    """
    origin = stored.origin
    if predictor.weights_sha256 != origin.weights_sha256:
        raise RequestError(
            f"the embeddings are of {origin.module} with weights {origin.weights_sha256[:12]}, its weights "
            f"here are {predictor.weights_sha256[:12]}: give the --weights that `embed` used"
        )


def as_json(stored: StoredImages, clusters: list[Cluster]) -> str:
    """Clusters as one JSON document, in ASCII, which every console can print."""
    found = [
        {
            "labels": cluster.labels,
            "members": [
                {"path": member.image.path, "root": member.image.root, "cosine": member.cosine}
                for member in cluster.members
            ],
        }
        for cluster in clusters
    ]
    return json.dumps({"clusters": found, "images": len(stored)})


def as_table(clusters: list[Cluster]) -> str:
    """Clusters as text, one line each: number of images, labels, and the image nearest to the mean."""
    return "\n".join(_line(cluster) for cluster in clusters)


def _line(cluster: Cluster) -> str:
    nearest = cluster.members[0].image
    labels = ", ".join(f"{printable(item['label'])} {item['score']:.3f}" for item in cluster.labels)
    return f"{len(cluster.members):>7}  {labels}  {shown_name(unescape_name(nearest.path))}"
