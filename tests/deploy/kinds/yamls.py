"""YAML as the tools read it: no duplicate keys, every document, and problems of a JSON Schema with their paths."""

from pathlib import Path

import jsonschema
import yaml


class Strict(yaml.SafeLoader):
    """A key written twice is a mistake, not the last one winning."""


def _mapping(loader, node):
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def documents(file: Path) -> list:
    with open(file, encoding="utf-8") as text:
        return [document for document in yaml.load_all(text, Loader=Strict) if document is not None]


def label(document: dict) -> str:
    return f"{document.get('kind', 'document')}/{document.get('metadata', {}).get('name', '?')}"


def closed(schema):
    """The same schema, with every object that lists its members taking no others (`x-open` says which may)."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def problems(document, schema):
    for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
        for leaf in leaves(error):
            where = ".".join(str(part) for part in leaf.absolute_path)
            yield where or ".", leaf.message[:300]


def leaves(error):
    """Of `anyOf [thing, null]` the thing's own errors, not "is not valid under any of the schemas"."""
    if not error.context:
        return [error]
    real = [leaf for part in error.context if part.validator_value != "null" for leaf in leaves(part)]
    return real or [error]
