"""The interface's own description: what is served to be read, and what every request is checked against."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final

import attrs
import jsonschema
import yaml
from jsonschema.validators import Draft202012Validator

PREFIX: Final = "/shop/v1"
"Where it is served."

_FILE: Final = "openapi.yaml"
_COMMON: Final = {
    "401": "Unsigned",
    "404": "Unknown",
    "408": "Slow",
    "409": "Conflict",
    "413": "Large",
    "422": "Refused",
    "429": "Often",
    "431": "LargeHead",
    "500": "Defect",
    "503": "Unavailable",
}
"Answers that every operation may give; the file names them once, the served description with each operation."
_TAKING: Final = {"400": "Malformed"}
"The same for every operation that takes a parameter or a body."
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, some ten times faster where it is built
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


class MalformedRequest(Exception):
    """A request is not what the description says. The text names the place and what is allowed there."""


@attrs.frozen
class Operation:
    """One operation of the description."""

    name: str
    """Its `operationId`."""
    method: str
    path: str
    """With its parameters in braces, without the server's prefix."""
    parameters: Mapping[str, Any] = attrs.field(repr=False)
    """A validator by the parameter's name."""
    body: Any = attrs.field(repr=False)
    """The validator of the body, or None if the operation takes none."""

    def check_parameter(self, name: str, text: str) -> int:
        """A path parameter's value. Raises Malformed."""
        if not text.isascii() or not text.isdigit() or len(text) > 19:
            raise MalformedRequest(f"{name}: {text[:40]!r} is not a whole number")
        _check(self.parameters[name], int(text), name)
        return int(text)

    def check_body(self, value: object) -> Mapping[str, Any]:
        """The body as an object of the description. Raises Malformed."""
        _check(self.body, value, "body")
        assert isinstance(value, dict)
        return value


@attrs.frozen
class Description:
    """The whole interface."""

    document: Mapping[str, Any] = attrs.field(repr=False)
    """OpenAPI 3.1, complete, as it is served."""
    operations: Mapping[str, Operation]


def load_description() -> Description:
    """Read the description that is part of this program. Its schemas are checked here, so that none can fail later."""
    document = yaml.load(resources.files("actors.shop").joinpath(_FILE).read_bytes(), _Loader)  # noqa: S506  # one of the safe ones
    operations = {}
    for path, item in document["paths"].items():
        for method, operation in _methods(item):
            takes = "requestBody" in operation or "parameters" in item
            answers = _COMMON | (_TAKING if takes else {})
            operation["responses"] |= {
                status: {"$ref": f"#/components/responses/{name}"} for status, name in answers.items()
            }
            found = _operation(document, path, method, item, operation)
            operations[found.name] = found
    if document["servers"] != [{"url": PREFIX}]:
        raise ValueError(f"{_FILE} is served at {PREFIX} and says {document['servers']}")
    return Description(document, operations)


def _methods(item: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for method, operation in item.items():
        if method != "parameters":
            yield method.upper(), operation


def _operation(
    document: Mapping[str, Any], path: str, method: str, item: Mapping[str, Any], operation: Mapping[str, Any]
) -> Operation:
    described = {
        parameter["name"]: _validator(document, parameter["schema"])
        for parameter in (_resolve(document, each) for each in item.get("parameters", ()))
    }
    if set(described) != set(_PARAMETER.findall(path)):
        raise ValueError(f"{method} {path} describes the parameters {sorted(described)}")
    body = None
    if "requestBody" in operation:
        body = _validator(document, operation["requestBody"]["content"]["application/json"]["schema"])
    return Operation(operation["operationId"], method, path, described, body)


def _resolve(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = node
    while "$ref" in found:
        target: Any = document
        for step in found["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        found = target
    assert isinstance(found, dict)
    return found


def _validator(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    # The schema's references point into the document: give it the document's components as its own.
    whole = copy.deepcopy(dict(schema)) | {"components": document["components"]}
    Draft202012Validator.check_schema(whole)
    return Draft202012Validator(whole)


def _check(validator: Any, value: object, what: str) -> None:
    error: jsonschema.ValidationError | None = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if error is None:
        return
    place = ".".join([what, *map(str, error.absolute_path)])
    raise MalformedRequest(f"{place}: {_said(error)}")


def _said(error: jsonschema.ValidationError) -> str:
    # The library repeats the whole value; a request may hold what must not be logged.
    if error.validator == "required":
        return error.message[:200]
    if error.validator == "additionalProperties":
        known = ", ".join(sorted(error.schema.get("properties", ())))  # type: ignore[union-attr]  # such a schema is an object
        return f"there is something that does not belong here; allowed are {known}"
    return f"does not satisfy {error.validator}: {error.validator_value!r}"[:300]
