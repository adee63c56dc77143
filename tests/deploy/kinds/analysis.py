"""checkov over a folder or a file: a finding is a failure, and so is a skip without a reason."""

import json
import subprocess
import sys
from pathlib import Path

CHECKOV = Path(sys.executable).parent / "checkov"


def check(target: Path, framework: str):
    # --skip-download: nothing is asked of or told to anybody's server.
    kind = "-d" if target.is_dir() else "-f"
    run = subprocess.run(
        [CHECKOV, kind, target, "--framework", framework, "--skip-download", "--quiet", "--compact", "-o", "json"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )
    try:
        report = json.loads(run.stdout)
    except json.JSONDecodeError:
        yield ".", f"checkov gave no report: {run.stderr.strip()[-300:]}"
        return
    if "results" not in report:
        yield ".", f"checkov looked at nothing: {run.stdout.strip()[:200]}"
        return
    for finding in report["results"]["failed_checks"]:
        lines = "-".join(str(line) for line in finding["file_line_range"])
        yield f"{finding['file_path'].lstrip('/')}:{lines} {finding['resource']}", f"{finding['check_id']} {finding['check_name']}"
    for error in report["results"].get("parsing_errors", []):
        yield str(error), "checkov cannot read it"
    for skipped in report["results"].get("skipped_checks", []):
        if not skipped["check_result"].get("suppress_comment", "").strip() or "No comment" in skipped["check_result"]["suppress_comment"]:
            yield skipped["resource"], f"{skipped['check_id']} is skipped without a reason"
