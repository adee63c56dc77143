"""The dashboard against a schema, and every metric that it or an alert asks for against the names in the source."""

import functools
import json
import re
import subprocess
from pathlib import Path

from . import yamls

SCHEMAS = Path(__file__).parent.parent / "schemas"
# Words of PromQL, labels and what Prometheus makes itself.
WORDS = set("sum rate by le max min topk increase histogram_quantile up job instance verdict reason stage state outcome issuer port time".split())
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


def dashboard(file: Path):
    document = json.loads(file.read_text(encoding="utf-8"))
    yield from yamls.problems(document, json.loads((SCHEMAS / "grafana-dashboard.json").read_text(encoding="utf-8")))
    identities = [panel.get("id") for panel in document.get("panels", [])]
    if len(identities) != len(set(identities)):
        yield "panels", "two panels have one id"
    for panel in document.get("panels", []):
        for target in panel.get("targets", []):
            yield from metrics(f"panel {panel.get('title')!r}", target.get("expr", ""))


def alerts(file: Path):
    for document in yamls.documents(file):
        for group in document["groups"]:
            for rule in group["rules"]:
                missing = {"alert", "expr", "labels", "annotations"} - rule.keys()
                if missing or rule.keys() - {"alert", "expr", "for", "labels", "annotations"}:
                    yield str(rule.get("alert")), f"fields: {sorted(rule)}"
                yield from metrics(str(rule.get("alert")), rule.get("expr", ""))


def promtool(file: Path, kind: str):
    """Prometheus' own word on its configuration (`config`) or its alerts (`rules`)."""
    run = subprocess.run([Path(".tools/bin/promtool").absolute(), "check", kind, file.name], cwd=file.parent, capture_output=True, text=True, check=False)
    if run.returncode:
        yield ".", (run.stderr or run.stdout).strip()[-300:]


@functools.cache
def known() -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in Path("src").rglob("*.rs"))


def metrics(where: str, expression: str):
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    for name in set(re.findall(r"[a-z_]{4,}", bare)) - WORDS:
        if f'"{SUFFIX.sub("", name)}"' not in known():
            yield where, f"nothing in src/ makes the metric {name}"
