"""Settings of the server: modules, replicas, batching, limits."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ..config import PRETRAINED
from ..errors import RequestError
from ..zero_shot.thresholds import Thresholds


class Settings(BaseModel):
    """Settings of the Ray Serve app; the `args` of a RayService have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    modules: dict[str, str | None] = Field({"clip_mini": None}, min_length=1)
    """Modules to serve, by name, each with a weights file, or None for its default weights."""
    thresholds: tuple[str, ...] = ()
    """Files that `clip-hub evaluate --thresholds` wrote, at most one per module. Their labels and thresholds
    are the defaults for requests without labels, scores and thresholds."""
    replicas: int = Field(1, ge=1)
    """Processes per module; those on one machine share the weights in memory."""
    gateways: int = Field(1, ge=1)
    """Processes that parse and check requests, behind Ray Serve's proxies. `clip-hub serve` is one itself."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each replica; None: all CPUs of the machine."""
    use_gpu: bool = False
    """Run each replica on a GPU of its own, and ignore `use_gpu` of requests."""
    engine: str = "auto"
    """CPU backend, see `Predictor`."""
    precision: str = "float32"
    """Compute type: "float32", "bfloat16" or "int8", see `Predictor`."""
    batch_requests: int = Field(32, ge=1)
    """Maximum number of requests in a batch."""
    batch_wait: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Seconds that a request waits for others if the model is idle. Requests that arrive while the model
    runs always form the next batch."""
    queue: int = Field(128, ge=1)
    """Maximum number of requests waiting for a module; more are rejected with 503."""
    deadline: float = Field(30.0, gt=0, allow_inf_nan=False, validate_default=True)
    """Seconds after which a request is given up with 503."""
    explanations: int = Field(4, ge=0)
    """Maximum number of concurrent requests for heat maps per module, each of which costs as much as 256
    images; more are rejected with 503. 0 switches heat maps off, also on the web page."""
    body_bytes: int = Field(64 << 20, ge=1)
    """Maximum size of one request body."""
    bytes_in_flight: int = Field(1 << 30, ge=1)
    """Maximum size of all bodies that a gateway holds at a time; more are rejected with 503."""

    def thresholds_of(self, module: str) -> Thresholds | None:
        """The thresholds file of a module; None if there is none.

        Raises:
            RequestError: a file cannot be read, or there are two for the module.
        """
        found = [(file, read) for file in self.thresholds if (read := Thresholds.read(file)).module == module]
        if len(found) > 1:
            raise RequestError(f"{found[0][0]} and {found[1][0]} are both thresholds for {module}: give one")
        return found[0][1] if found else None

    @field_validator("deadline")
    @classmethod
    def _leaves_time(cls, deadline: float, others: ValidationInfo) -> float:
        wait = others.data.get("batch_wait", 0)
        if wait >= deadline:
            raise ValueError(f"expected more than batch_wait, {wait:g}: no request would be answered in time")
        return deadline

    @field_validator("modules")
    @classmethod
    def _known(cls, modules: dict[str, str | None]) -> dict[str, str | None]:
        for name in modules:
            if name not in PRETRAINED:
                raise ValueError(f"no module is named {name!r}: there are {', '.join(PRETRAINED)}")
        return modules
