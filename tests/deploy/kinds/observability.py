"""The dashboard against a schema, and every metric that it or an alert asks for against the names in the source."""

import functools
import json
import re
import subprocess
from pathlib import Path

from . import yamls

SCHEMAS = Path(__file__).parent.parent / "schemas"
# Words of PromQL, labels and what Prometheus makes itself.
WORDS = set(
    "sum rate by le max min topk increase histogram_quantile absent count up job instance verdict reason stage state outcome issuer port "
    "receiver transmitter time".split()
)
# Not ours: Envoy's, as both pinned versions write it.
OTHERS = {"envoy_http_ext_authz_error"}
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


def job(file: Path):
    """Debian's promtool knows no discovery by Kubernetes, so this looks at the name alone, which alerts count on."""
    names = [one.get("job_name") for document in yamls.documents(file) for one in document["scrape_configs"]]
    if names != ["countersign"]:
        yield "scrape_configs", f"the job is named {names}, and alerts ask for countersign"


def tried(file: Path):
    """The alerts against series that should and should not set them off."""
    run = subprocess.run([Path(".tools/bin/promtool").absolute(), "test", "rules", file.name], cwd=file.parent, capture_output=True, text=True, check=False)
    if run.returncode:
        yield ".", (run.stderr + run.stdout).strip()[-600:]


@functools.cache
def known() -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in Path("src").rglob("*.rs"))


def metrics(where: str, expression: str):
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    for name in set(re.findall(r"[a-z_]{4,}", bare)) - WORDS - OTHERS:
        if f'"{SUFFIX.sub("", name)}"' not in known():
            yield where, f"nothing in src/ makes the metric {name}"
