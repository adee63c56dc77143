"""Kubernetes objects, against the API's own OpenAPI schemas; strict, so that a misspelt field is an error."""

import json
from pathlib import Path

import kubernetes_validate

from . import yamls

# The oldest and the newest API that the samples are meant for.
VERSIONS = ("1.30", "1.37")
SCHEMAS = Path(__file__).parent.parent / "schemas"


def check(file: Path):
    for document in yamls.documents(file):
        if document.get("kind") == "Kustomization":
            yield from kustomization(file, document)
        else:
            yield from an_object(document)


def an_object(document: dict):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            yield f"{yamls.label(document)}: {where or '.'}", f"Kubernetes {version}: {error.message[:300]}"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            yield f"{yamls.label(document)}: kind", f"Kubernetes {version} has no such object: {error}"
    yield from configured(document)


def kustomization(file: Path, document: dict):
    schema = json.loads((SCHEMAS / "kustomization.json").read_text(encoding="utf-8"))
    yield from yamls.problems(document, schema)
    for name in document.get("resources", []):
        if not (file.parent / name).exists():
            yield "resources", f"{name} is not there"


def configured(document: dict):
    """What a ConfigMap carries as YAML must at least be YAML, without a key twice."""
    if document.get("kind") != "ConfigMap":
        return
    for name, text in document.get("data", {}).items():
        if name.endswith(".yaml"):
            try:
                yamls.yaml.load(text, Loader=yamls.Strict)
            except yamls.yaml.YAMLError as error:
                yield f"{yamls.label(document)}: data.{name}", str(error)
