"""The OpenAPI document: what FastAPI says of the routes, with our errors, and fields described as in the code."""

from __future__ import annotations

import inspect
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hitl_nb.queue import Stats
from hitl_nb.server.access import CALLS, ROUTES
from hitl_nb.server.form import Problem
from hitl_nb.server.problem import STATUSES
from hitl_nb.task import Reason, Review, ReviewTask


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the review API."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = found["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.pop(unused, None)
        parts["Problem"] = Problem.model_json_schema()
        for kind in (Review, ReviewTask, Reason, Stats):
            for name, said in described(kind).items():
                parts[kind.__name__]["properties"][name]["description"] = said
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in found["paths"].items():
            for method, operation in methods.items():
                _complete(operation, ROUTES[f"{method.upper()} {path}"])
        app.openapi_schema = found
    return app.openapi_schema


def _complete(operation: dict[str, Any], call: str | None) -> None:
    """Say of a route how it fails, and who may use it."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    failing = {str(status): {"description": "see error and next", "content": content} for status in STATUSES}
    operation["responses"] = failing | {k: v for k, v in operation["responses"].items() if k[0] == "2"}
    if call is not None:
        if "requestBody" not in operation:  # what only reads needs no id
            operation["parameters"] = [one for one in operation.get("parameters", ()) if one["in"] != "header"]
        operation["security"] = [{"token": []}]
        operation["description"] = f"{operation.get('description', '')} For: {', '.join(CALLS[call])}.".strip()


def described(kind: type) -> dict[str, str]:
    """Return what the code says of each field of a record.

    >>> described(Reason)["rule"]
    'name of the rule'
    """
    found = re.findall(r"^    #: (.*)\n    (\w+):", inspect.getsource(kind), re.MULTILINE)
    return {name: said for said, name in found}
