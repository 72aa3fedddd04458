"""What a server is told: modules, address, limits, replicas."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..config import PRETRAINED
from ..errors import RequestError
from ..zero_shot.thresholds import Thresholds


class Settings(BaseModel):
    """Settings of the Ray Serve app; a RayService's `args` have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    modules: dict[str, str | None] = Field({"clip_mini": None}, min_length=1)
    """Names, each with a weights file, or None for the module's own."""
    thresholds: tuple[str, ...] = ()
    """Files that `clip-hub evaluate --thresholds` wrote, at most one for each module: its labels and
    thresholds answer requests that give neither labels nor scores nor thresholds."""
    replicas: int = Field(1, ge=1)
    """Processes that hold each model; several on one machine share its weights in memory."""
    gateways: int = Field(1, ge=1)
    """Processes that read and check requests, behind Ray Serve's proxies; the command itself is one."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each replica; None means all that the machine has."""
    use_gpu: bool = False
    """Run on a GPU, one for each replica, whatever a request says of `use_gpu`."""
    engine: str = "auto"
    """What multiplies the matrices on the CPU."""
    precision: str = "float32"
    """"float32", or "bfloat16" or "int8" where the CPU has that and OpenVINO is installed."""
    batch_requests: int = Field(32, ge=1)
    """Requests that go through the model together at most."""
    batch_wait: float = Field(0.0, ge=0)
    """Seconds that a request which finds the model idle waits for others. Those that come while it works
    are its next batch, however long that takes."""
    queue: int = Field(128, ge=1)
    """Requests that may wait for a module; more are refused with 503."""
    deadline: float = Field(30.0, gt=0)
    """Seconds after which a request that is not answered is given up with 503."""
    explanations: int = Field(4, ge=0)
    """Requests for heat maps that may be under way for a module, each with the work of 256 images; more are
    refused with 503. With 0 there are none, on the page neither."""
    body_bytes: int = Field(64 << 20, ge=1)
    """Size of one request's body."""
    bytes_in_flight: int = Field(1 << 30, ge=1)
    """Size of all bodies that a gateway holds at a time; more are refused with 503."""

    def thresholds_of(self, module: str) -> Thresholds | None:
        """What a module answers with that is asked for no labels; None: its own default labels.

        Raises:
            RequestError: a file cannot be read, or there are two for the module.
        """
        found = [(file, read) for file in self.thresholds if (read := Thresholds.read(file)).module == module]
        if len(found) > 1:
            raise RequestError(f"{found[0][0]} and {found[1][0]} are both thresholds of {module}: give one")
        return found[0][1] if found else None

    @field_validator("modules")
    @classmethod
    def _known(cls, modules: dict[str, str | None]) -> dict[str, str | None]:
        for name in modules:
            if name not in PRETRAINED:
                raise ValueError(f"no module is named {name!r}: there are {', '.join(PRETRAINED)}")
        return modules
