"""The Ray job configuration of this package. Imported only where Ray is used."""

from __future__ import annotations

from ray.job_config import JobConfig


class RayJob(JobConfig):
    """A job whose workers do not import from the current folder.

    Ray puts the driver's current folder first on `sys.path` of its workers, unless the job has a working
    directory: a file `ftfy.py` beside the images would be executed. There is no public option to turn that
    off, hence the private method.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True
