"""How this package's processes join Ray. Imported only where Ray is used."""

from __future__ import annotations

from ray.job_config import JobConfig


class RayJob(JobConfig):
    """A job whose workers do not import from the folder that the user happens to stand in.

    Ray puts that folder first on its workers' search path, unless the job brings a folder of its own: a file
    `ftfy.py` beside the images would be executed.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True
