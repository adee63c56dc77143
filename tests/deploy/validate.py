"""Validates every sample, then proves that the validation bites. Called by validate.sh, from the top of the checkout."""

import sys
from pathlib import Path

import selftest
from kinds import analysis, istio, kubernetes, observability, terraform

SERVICE = Path("deploy/kubernetes/service.yaml")


def checks():
    """(what, problems) of each thing to look at."""
    for file in sorted(Path("deploy/kubernetes").glob("*.yaml")):
        yield str(file), kubernetes.check(file)
    for folder in ("deploy/istio", "envoy/istio"):
        for file in sorted(Path(folder).glob("*.yaml")):
            yield str(file), istio.check(file)
        yield f"{folder}: the provider is our service", istio.service_port(Path(folder) / "mesh-config.yaml", SERVICE)
    mesh = [Path("deploy/istio") / f"{name}.yaml" for name in ("custom", "allow", "public-paths")]
    yield "deploy/istio: who reaches Countersign", istio.reach(mesh, Path("deploy/kubernetes/networkpolicy.yaml"))
    inner = Path("deploy/istio/custom-inner.yaml")
    yield f"{inner}: who reaches Countersign", istio.reach([inner], inner)
    for file in sorted(Path("deploy/terraform").glob("*.tf*")):
        yield str(file), terraform.check(file)
    yield from (
        (str(file), observability.dashboard(file)) for file in sorted(Path("deploy/compose/grafana/dashboards").glob("*.json"))
    )
    yield "deploy/compose/alerts.yml", observability.alerts(Path("deploy/compose/alerts.yml"))
    for name, kind in (("prometheus.yml", "config"), ("alerts.yml", "rules")):
        yield f"deploy/compose/{name}: promtool", observability.promtool(Path("deploy/compose") / name, kind)
    for file in ("deploy/compose/prometheus.yml", "deploy/kubernetes/prometheus.yml"):
        yield f"{file}: the job that alerts name", observability.job(Path(file))
    yield "deploy/compose/alerts.yml: what sets them off", observability.tried(Path("deploy/compose/alerts-test.yml"))
    yield "deploy/kubernetes: checkov", analysis.check(Path("deploy/kubernetes"), "kubernetes")
    yield "deploy/terraform: checkov", analysis.check(Path("deploy/terraform"), "terraform")
    yield "Dockerfile: checkov", analysis.check(Path("Dockerfile"), "dockerfile")


def main() -> int:
    passed = failed = 0
    for what, problems in (*checks(), *selftest.checks()):
        found = list(guarded(problems))
        passed, failed = passed + (not found), failed + bool(found)
        print(f"{'FAILED' if found else 'ok    '}  {what}", flush=True)
        for where, why in found:
            print(f"          {where}: {why}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def guarded(problems):
    """A file that cannot even be read is a problem of that file, not the end of the run."""
    try:
        yield from problems
    except Exception as error:
        yield ".", f"{type(error).__name__}: {str(error)[:300]}"


if __name__ == "__main__":
    sys.exit(main())
