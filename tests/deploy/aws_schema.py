"""Reads the schema of Terraform's AWS provider out of its CDK binding, and keeps what a validator needs.

aws_schema.py PACKAGE WHEEL OUT: OUT is JSON with `resources` and `data` (type -> interface) and `interfaces`
(name -> field -> [required, interface of the block or null]).
"""

import io
import json
import re
import sys
import tarfile
import zipfile

FIELD = re.compile(r"#(\w+) \w+#\w+\}")
OWN = "@cdktf/provider-aws."


def types_of(wheel: str) -> dict:
    archive = zipfile.ZipFile(wheel)
    inner = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(archive.read(inner))) as tar:
        return json.load(tar.extractfile("package/.jsii"))["types"]


def block_of(kind: object) -> str | None:
    """The interface that a field's type names, through unions and lists."""
    names = re.findall(re.escape(OWN) + r'[\w.]+', json.dumps(kind))
    return names[0] if names else None


def fields_of(interface: dict) -> dict:
    fields = {}
    for prop in interface.get("properties", []):
        docs = prop.get("docs", {})
        named = FIELD.search(docs.get("summary", "") + " " + docs.get("remarks", ""))
        if named:
            fields[named[1]] = [not prop.get("optional", False), block_of(prop["type"])]
    return fields


def main(package: str, wheel: str, out: str) -> None:
    types = types_of(wheel)
    schema = {"package": package, "resources": {}, "data": {}, "interfaces": {}}
    for kind in types.values():
        base = {"cdktf.TerraformResource": "resources", "cdktf.TerraformDataSource": "data"}.get(kind.get("base"))
        named = re.search(r" (aws_\w+)\}", kind.get("docs", {}).get("summary", ""))
        if base and named:
            schema[base][named[1]] = kind["initializer"]["parameters"][2]["type"]["fqn"]
    wanted = [name for base in ("resources", "data") for name in schema[base].values()]
    while wanted:
        name = wanted.pop()
        if name in schema["interfaces"] or name not in types:
            continue
        schema["interfaces"][name] = fields_of(types[name])
        wanted += [block for _, block in schema["interfaces"][name].values() if block]
    with open(out, "w", encoding="utf-8") as file:
        json.dump(schema, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
