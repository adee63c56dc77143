"""A check that never fails proves nothing: each kind of sample is damaged, and the damage must be found where it is."""

import shutil
import tempfile
from pathlib import Path

from kinds import analysis, istio, kubernetes, observability, terraform

def reach(file: Path):
    mesh = [file.parent / f"{name}.yaml" for name in ("custom", "allow", "public-paths")]
    return istio.reach(mesh, Path("deploy/kubernetes/networkpolicy.yaml"))


# (kind, sample, what is damaged, before, after, what the problem must mention)
DAMAGES = [
    (kubernetes.check, "deploy/kubernetes/deployment.yaml", "a misspelt field", "replicas:", "replcias:", "replcias"),
    (kubernetes.check, "deploy/kubernetes/deployment.yaml", "a misspelt field deep inside", "readOnlyRootFilesystem:", "readonlyRootFilesystem:", "readonlyRootFilesystem"),
    (kubernetes.check, "deploy/kubernetes/deployment.yaml", "a number where a text belongs", "imagePullPolicy: Always", "imagePullPolicy: 1", "imagePullPolicy"),
    (kubernetes.check, "deploy/kubernetes/availability.yaml", "a required field removed", "  maxReplicas: 12\n", "", "maxReplicas"),
    (kubernetes.check, "deploy/kubernetes/networkpolicy.yaml", "an unknown kind", "kind: NetworkPolicy", "kind: NetworkPolice", "NetworkPolice"),
    (kubernetes.check, "deploy/kubernetes/kustomization.yaml", "a file that is not there", "- service.yaml", "- servise.yaml", "servise.yaml"),
    (kubernetes.check, "deploy/kubernetes/namespace.yaml", "a key written twice", "kind: Namespace", "kind: Namespace\nkind: Namespace", "twice"),
    (istio.check, "deploy/istio/allow.yaml", "a misspelt field", "principals:", "principal:", "principal"),
    (istio.check, "deploy/istio/peer-authentication.yaml", "a mode that does not exist", "mode: STRICT", "mode: STRICTEST", "STRICTEST"),
    (istio.check, "deploy/istio/request-authentication.yaml", "a required field removed", "    - issuer: https://issuer.example\n      jwksUri", "    - jwksUri", "issuer"),
    (istio.check, "deploy/istio/custom.yaml", "a provider nobody provides", "    name: countersign\n  rules", "    name: countersing\n  rules", "countersing"),
    (istio.check, "deploy/istio/mesh-config.yaml", "failing open", "failOpen: false", "failOpen: true", "failOpen"),
    (istio.check, "deploy/istio/mesh-config.yaml", "a misspelt field", "statusOnError:", "statusOnErr:", "statusOnErr"),
    (istio.check, "envoy/istio/mesh-config.yaml", "a required field removed", "        timeout: 0.2s\n", "", "timeout"),
    (lambda file: istio.service_port(file, Path("deploy/kubernetes/service.yaml")), "deploy/istio/mesh-config.yaml", "a provider that is headless", "service: countersign.", "service: countersign-headless.", "headless"),
    (istio.check, "deploy/istio/custom-inner.yaml", "plain TCP that is asked about", '    - to:\n        - operation:\n            # PostgreSQL, Redis, Kafka. Who may reach them says allow.yaml.\n            notPorts: ["5432", "6379", "9092"]\n', "    - {}\n", "plain TCP is refused"),
    (istio.check, "envoy/istio/authorization-policy.yaml", "a gateway that asks about ports by name", "    - {}\n", '    - to: [{ operation: { ports: ["443"] } }]\n', "does not name is open"),
    (istio.check, "deploy/istio/allow.yaml", "a gateway that is opened by port", "  rules:\n    - {}\n", '  rules:\n    - to:\n        - operation:\n            ports: ["8080", "8443"]\n', "the gateway's ALLOW names ports"),
    (reach, "deploy/istio/allow.yaml", "a service that may ask", 'principals: ["cluster.local/ns/istio-ingress/sa/istio-ingressgateway"]\n      to:\n        - operation:\n            ports: ["9191"]', 'principals: ["cluster.local/ns/shop/sa/orders"]\n      to:\n        - operation:\n            ports: ["9191"]', "shop at 9191: is let in and does not ask"),
    (reach, "deploy/istio/allow.yaml", "whom the network keeps out", "ns/observability/", "ns/monitoring/", "monitoring at 9193: only Istio"),
    (istio.check, "deploy/istio/custom-inner.yaml", "a misspelt field of the network's", "podSelector:", "podSelektor:", "podSelektor"),
    (istio.check, "deploy/istio/client-certificates.yaml", "a misspelt field", "configPatches:", "configPatch:", "configPatch"),
    (istio.check, "deploy/istio/connections.yaml", "a misspelt field", "idleTimeout:", "idleTimeOut:", "idleTimeOut"),
    (terraform.check, "deploy/terraform/edge.tf", "a misspelt argument", "drop_invalid_header_fields", "drop_invalid_headers", "drop_invalid_headers"),
    (terraform.check, "deploy/terraform/edge.tf", "a required argument removed", '    bucket  = aws_s3_bucket.logs.id\n    prefix', "    prefix", "access_logs[0].bucket"),
    (terraform.check, "deploy/terraform/firewall.tf", "a misspelt argument in a block", "cloudwatch_metrics_enabled", "cloudwatch_metric_enabled", "cloudwatch_metric_enabled"),
    (terraform.check, "deploy/terraform/keys.tf", "a resource type that does not exist", '"aws_kms_key"', '"aws_kms_keys"', "aws_kms_keys"),
    (terraform.check, "deploy/terraform/security.tf", "a name declared nowhere", "aws_vpc.this.id", "aws_vpc.that.id", "aws_vpc.that"),
    (terraform.check, "deploy/terraform/security.tf", "a second open door", '  referenced_security_group_id = aws_security_group.role[each.value.from].id', '  cidr_ipv4 = "0.0.0.0/0"', "open to the whole internet"),
    (terraform.check, "deploy/terraform/network.tf", "a brace too few", "resource \"aws_vpc\" \"this\" {", "resource \"aws_vpc\" \"this\"", "not HCL"),
    (terraform.check, "deploy/terraform/example.tfvars", "a variable without a value", "region ", "regoin ", "region: has no default"),
    (observability.dashboard, "deploy/compose/grafana/dashboards/countersign.json", "a metric nobody makes", "countersign_shed_total", "countersign_shad_total", "countersign_shad"),
    (observability.dashboard, "deploy/compose/grafana/dashboards/countersign.json", "a misspelt field", '"targets"', '"target"', "target"),
    (lambda file: observability.promtool(file, "rules"), "deploy/compose/alerts.yml", "an expression that does not parse", "sum(rate(", "sum(rate((", "parse"),
    (observability.job, "deploy/kubernetes/prometheus.yml", "another name of the job", "job_name: countersign", "job_name: kubernetes-pods", "kubernetes-pods"),
    (observability.tried, "deploy/compose/alerts-test.yml", "an alert that does not come", 'values: "900x40"', 'values: "100x40"', "CountersignConnectionsFull"),
    (lambda file: analysis.check(file, "kubernetes"), "deploy/kubernetes/deployment.yaml", "a privileged container", "privileged: false", "privileged: true", "CKV_K8S_16"),
    (lambda file: analysis.check(file.parent, "terraform"), "deploy/terraform/edge.tf", "headers no longer dropped", "drop_invalid_header_fields = true", "drop_invalid_header_fields = false", "CKV_AWS_131"),
]


def checks():
    for check, sample, what, before, after, mention in DAMAGES:
        yield f"{sample}: {what} is found", damaged(check, Path(sample), before, after, mention)


def damaged(check, sample: Path, before: str, after: str, mention: str):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(sample.parent, folder, dirs_exist_ok=True)
        copy = Path(folder) / sample.name
        text = copy.read_text(encoding="utf-8")
        if before not in text:
            yield ".", f"the sample no longer says {before!r}: mend this self-test"
            return
        copy.write_text(text.replace(before, after), encoding="utf-8")
        try:
            found = [f"{where}: {why}" for where, why in check(copy)]
        except Exception as error:  # a parser's refusal is a finding too
            found = [str(error)]
    if not any(mention in problem for problem in found):
        yield ".", f"not found, or not named; found: {found[:3]}"
