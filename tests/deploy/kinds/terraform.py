"""Terraform: an HCL parser, the AWS provider's own schema, references that lead somewhere, and no open door."""

import functools
import json
import re
from pathlib import Path

import hcl2

PROVIDER = Path(".tools/aws-provider.json")
META = {"for_each", "count", "depends_on", "provider", "lifecycle", "__start_line__", "__end_line__"}
OPEN = {"0.0.0.0/0", "::/0"}
# The listener, which is what the whole thing is for, and its route and stateless rules.
DOORS = {"aws_vpc_security_group_ingress_rule.lb_from_anywhere", "aws_route.lb_internet", "aws_network_acl.lb"}


@functools.cache
def provider() -> dict:
    return json.loads(PROVIDER.read_text(encoding="utf-8"))


def parsed(file: Path) -> dict:
    with open(file, encoding="utf-8") as text:
        return hcl2.load(text)


def check(file: Path):
    try:
        document = parsed(file)
        siblings = {other: parsed(other) for other in file.parent.glob("*.tf")}
    except Exception as error:  # the parser raises many kinds; each means the same
        yield ".", f"not HCL: {str(error)[:300]}"
        return
    if file.suffix == ".tfvars":
        yield from values(document, siblings.values())
        return
    for section, kinds in (("resource", provider()["resources"]), ("data", provider()["data"])):
        for kind, name, body in bodies(document, section):
            if kind not in kinds:
                yield f"{kind}.{name}", f"the provider has no {section} of this type"
                continue
            yield from block(f"{kind}.{name}", body, kinds[kind])
            yield from doors(f"{kind}.{name}", body)
    yield from references(file, list(siblings.values()))


def values(document: dict, siblings):
    """An example names every variable that has no default, and none that does not exist."""
    variables = {name: body for sibling in siblings for entry in sibling.get("variable", []) for name, body in entry.items()}
    given = {name for name in document if not name.startswith("__")}
    yield from ((name, "no such variable") for name in sorted(given - variables.keys()))
    yield from ((name, "has no default, and no value here") for name, body in variables.items() if "default" not in body and name not in given)


def bodies(document: dict, section: str):
    for entry in document.get(section, []):
        for kind, named in entry.items():
            for name, body in named.items():
                yield kind, name, body


def block(path: str, body: dict, interface: str):
    fields = provider()["interfaces"].get(interface)
    if not fields:  # recursive blocks (a firewall's statements) have no schema of their own in the binding
        return
    given = {name: value for name, value in body.items() if name not in META | {"dynamic"}}
    for name, content in dynamic(body):
        given.setdefault(name, []).extend(content)
    for name, value in given.items():
        if name not in fields:
            yield f"{path}.{name}", f"no such argument (there are: {', '.join(sorted(fields))[:200]})"
        elif fields[name][1]:
            for index, inner in enumerate(part for part in value if isinstance(part, dict)):
                yield from block(f"{path}.{name}[{index}]", inner, fields[name][1])
    for name, (required, _) in fields.items():
        if required and name not in given:
            yield f"{path}.{name}", "required, and not there"


def dynamic(body: dict):
    for entry in body.get("dynamic", []):
        for name, inner in entry.items():
            yield name, inner.get("content", [])


def doors(path: str, body: dict):
    text = json.dumps(body)
    if path not in DOORS and any(f'"{network}"' in text for network in OPEN):
        yield path, "open to the whole internet, and not the documented listener"


def declared(documents: list) -> set:
    names = set()
    for document in documents:
        names |= {f"var.{name}" for entry in document.get("variable", []) for name in entry}
        names |= {f"local.{name}" for entry in document.get("locals", []) for name in entry}
        names |= {f"{kind}.{name}" for kind, name, _ in bodies(document, "resource")}
        names |= {f"data.{kind}.{name}" for kind, name, _ in bodies(document, "data")}
    return names


def references(file: Path, documents: list):
    known = declared(documents)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        code = re.sub(r"(^|\s)#.*", "", line)
        for name in re.findall(r"(?<![\w.\"-])((?:var|local)\.\w+|data\.aws_\w+\.\w+|aws_\w+\.\w+)", code):
            if name not in known:
                yield f"line {number}", f"{name} is declared nowhere"
