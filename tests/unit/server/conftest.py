"""A client of the HTTP door without Ray; each file says with its `admission` how much it lets in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from clip_common.server.admission import Admission, AdmissionMiddleware
from clip_common.server.http import create_api
from tests.support.direct_service import Direct


@pytest.fixture(scope="module")
def service() -> Direct:
    return Direct()


@pytest.fixture
def client(service: Direct, admission: Admission) -> Iterator[TestClient]:
    service.fault, service.seen = None, []
    api = create_api(service)
    api.add_middleware(AdmissionMiddleware, admission=admission)
    yield TestClient(api, raise_server_exceptions=False)
