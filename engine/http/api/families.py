"""The families of small resources, each a module beside this one."""

from __future__ import annotations

from engine.http.api.dependencies import DependenciesApi
from engine.http.api.events import EventsApi
from engine.http.api.metrics import MetricsApi
from engine.http.api.packages import PackagesApi
from engine.http.api.parts import Parts
from engine.http.api.quotas import QuotasApi
from engine.http.api.redriving import RedriveApi
from engine.http.api.reserved import ReservedApi
from engine.http.api.routing import Resource
from engine.http.api.switches import SwitchesApi
from engine.http.api.tags import TagsApi
from engine.http.api.triggers import TriggersApi


def families(parts: Parts) -> list[Resource]:
    return [
        *EventsApi(parts.resources).resources(),
        *DependenciesApi(parts.resources).resources(),
        *MetricsApi(parts).resources(),
        *QuotasApi(parts).resources(),
        *SwitchesApi(parts).resources(),
        *PackagesApi(parts).resources(),
        *ReservedApi(parts).resources(),
        *TagsApi(parts).resources(),
        *TriggersApi(parts).resources(),
        *RedriveApi(parts).resources(),
    ]
