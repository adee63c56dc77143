"""Istio's objects against models made from its CRDs, and what no schema says: that names lead somewhere."""

import functools
import json
from pathlib import Path

from cloudcoil.models.istio import networking, security
from cloudcoil.models.istio.networking import v1 as networking_v1
from cloudcoil.models.istio.networking import v1alpha3 as networking_v1alpha3
from cloudcoil.models.istio.security import v1 as security_v1

from . import kubernetes, yamls

MODULES = {"security.istio.io/v1": security_v1, "networking.istio.io/v1": networking_v1, "networking.istio.io/v1alpha3": networking_v1alpha3}
SCHEMAS = Path(__file__).parent.parent / "schemas"
assert networking and security


@functools.cache
def schema_of(version: str, kind: str):
    model = getattr(MODULES.get(version), kind, None)
    return model and yamls.closed(model.model_json_schema(by_alias=True))


def check(file: Path):
    for document in yamls.documents(file):
        if "meshConfig" in document:
            yield from mesh_config(document)
            continue
        if document.get("kind") == "NetworkPolicy":
            yield from kubernetes.an_object(document)
            continue
        schema = schema_of(document.get("apiVersion", ""), document.get("kind", ""))
        if schema is None:
            yield yamls.label(document), f"no such object: {document.get('apiVersion')} {document.get('kind')}"
            continue
        for where, what in yamls.problems(document, schema):
            yield f"{yamls.label(document)}: {where}", what
        if document["kind"] == "AuthorizationPolicy":
            yield from policy(file, document)


def mesh_config(document: dict):
    """MeshConfig is no CRD: the part that we use is described in schemas/, from Istio's documentation of its API."""
    schema = json.loads((SCHEMAS / "istio-mesh-config.json").read_text(encoding="utf-8"))
    yield from yamls.problems(document, schema)


def providers(folder: Path) -> dict:
    documents = [document for file in folder.glob("*.yaml") for document in yamls.documents(file) if "meshConfig" in document]
    return {entry.get("name"): entry for document in documents for entry in document["meshConfig"].get("extensionProviders", [])}


def policy(file: Path, document: dict):
    spec = document.get("spec", {})
    action, provider = spec.get("action", "ALLOW"), spec.get("provider", {}).get("name")
    if action == "CUSTOM" and provider not in providers(file.parent):
        # Istio's answer to an unknown provider is to refuse everything on the workload.
        yield f"{yamls.label(document)}: spec.provider.name", f"no extensionProvider {provider!r} in this folder"
    if action != "CUSTOM" and provider:
        yield f"{yamls.label(document)}: spec.provider", "only CUSTOM has a provider"
    operations = [to.get("operation", {}) for rule in spec.get("rules", []) for to in rule.get("to", [])]
    if action == "CUSTOM" and "selector" not in spec and not any("notPorts" in operation for operation in operations):
        # For a gRPC provider Istio asks about plain TCP as well, and Countersign refuses it.
        yield f"{yamls.label(document)}: spec.rules", "CUSTOM for every workload must say which ports: plain TCP is refused"
    if action == "CUSTOM" and any(operation.keys() - {"notPorts"} for operation in operations):
        # No refusal, as with an ALLOW: about what it does not name Countersign is not asked.
        yield f"{yamls.label(document)}: spec.rules", "what this CUSTOM does not name is open"
    gateway = spec.get("selector", {}).get("matchLabels", {}).get("istio") == "ingressgateway"
    if action == "ALLOW" and gateway and any({"ports", "notPorts"} & operation.keys() for operation in operations):
        # 80 and 443 or 8080 and 8443, by how it was installed; an ALLOW that fits none refuses everything.
        yield f"{yamls.label(document)}: spec.rules", "the gateway's ALLOW names ports"
    for index, rule in enumerate(spec.get("rules", [])):
        if action == "CUSTOM" and any("principals" in source.get("source", {}) for source in rule.get("from", [])):
            yield f"{yamls.label(document)}: spec.rules.{index}.from", "CUSTOM cannot match principals"


def reach(policies: list, network: Path):
    """The mesh lets the same namespaces at Countersign as the network does, and has none put questions but those it makes ask."""
    documents = [document for file in policies for document in yamls.documents(file) if document["kind"] == "AuthorizationPolicy"]
    asking = {document["metadata"]["namespace"] for document in documents if document["spec"].get("action") == "CUSTOM"}
    let_in = {
        (port, namespace)
        for document in documents
        if document["metadata"]["namespace"] == "countersign"
        for rule in document["spec"]["rules"]
        for namespace in namespaces(rule["from"])
        for to in rule["to"]
        for port in to["operation"]["ports"]
    }
    reached = {
        (str(port["port"]), peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
        for document in yamls.documents(network)
        if document["kind"] == "NetworkPolicy"
        for rule in document["spec"].get("ingress", [])
        for port in rule["ports"]
        for peer in rule["from"]
    }
    for port, namespace in sorted(let_in ^ reached):
        yield f"{namespace} at {port}", f"only {'Istio' if (port, namespace) in let_in else 'the network'} lets it in"
    for namespace in sorted({namespace for port, namespace in let_in if port == "9191"} ^ asking):
        yield f"{namespace} at 9191", "asks and is not let in" if namespace in asking else "is let in and does not ask"


def namespaces(sources: list):
    for source in sources:
        yield from source["source"].get("namespaces", [])
        # TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT
        yield from (principal.split("/")[2] for principal in source["source"].get("principals", []))


def service_port(file: Path, services: Path):
    """The provider's service and port exist in our Service, under a name that tells Istio what is spoken."""
    known = {
        f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local": service["spec"]
        for service in yamls.documents(services)
    }
    for name, provider in providers(file.parent).items():
        authz = provider.get("envoyExtAuthzGrpc")
        if not authz:
            continue
        service = known.get(authz.get("service"), {})
        names = [port["name"] for port in service.get("ports", []) if port["port"] == authz.get("port")]
        if not names or not names[0].startswith("grpc"):
            yield f"extensionProviders.{name}", f"{authz.get('service')}:{authz.get('port')} is no port named grpc-… in {services}"
        if service.get("clusterIP") == "None":
            # Sidecars make an ORIGINAL_DST cluster of it, which has nobody for a call without a connection of a client.
            yield f"extensionProviders.{name}", f"{authz.get('service')} is headless: sidecars cannot ask it"
