"""Workflows and forms of the repository's host: valid by its schemas, and true of what is here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from postbacks.version import VERSION

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
SCHEMAS = {
    "workflows/*.yml": "vendor.github-workflows",
    "ISSUE_TEMPLATE/*.yml": "vendor.github-issue-forms",
}
TEST, PUBLISH = (
    yaml.safe_load((GITHUB / "workflows" / f"{name}.yml").read_text()) for name in ("test", "publish")
)


@pytest.mark.parametrize(("pattern", "schema"), SCHEMAS.items())
def test_each_file_is_valid_by_its_schema(pattern, schema):
    """check-jsonschema brings the schemas of GitHub."""
    files = sorted(GITHUB.glob(pattern))
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_make_target_of_a_workflow_is_there():
    """A target that was renamed would fail for the first time at a release."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    called = set()
    for workflow in (TEST, PUBLISH):
        for job in workflow["jobs"].values():
            for step in job.get("steps", []):
                for line in re.findall(r"^make (.+)", step.get("run", ""), flags=re.MULTILINE):
                    called |= {word for word in line.split() if "=" not in word}
    assert called == {"test", "test-long", "examples", "dist"}
    assert called <= targets


def test_every_python_and_broker_of_the_pages_is_in_the_matrix():
    """The classifiers' versions and the next one; each broker that the README names."""
    pythons = TEST["jobs"]["python"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert set(re.findall(r":: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())) <= set(pythons)
    images = [row["image"] for row in TEST["jobs"]["broker"]["strategy"]["matrix"]["include"]]
    assert images == ["redis:7", "valkey/valkey:8", "valkey/valkey:9"]


@pytest.mark.parametrize(("tag", "code"), [(f"v{VERSION}", 0), (f"v{VERSION}1", 1), (VERSION, 1), ("v", 1)])
def test_only_the_tag_of_this_version_is_published(tag, code):
    """The very step of the workflow, run here."""
    (step,) = [step for step in PUBLISH["jobs"]["build"]["steps"] if "tag names" in step.get("name", "")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        env={"PATH": path, "GITHUB_REF_NAME": tag},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("is not v" in done.stdout) is bool(code)


def test_the_index_gets_no_password():
    """Trusted publishing alone: the job that publishes may ask for a token, no other may, and no secret is read."""
    asks = {name: job.get("permissions", {}) for name, job in PUBLISH["jobs"].items()}
    assert {name for name, rights in asks.items() if "id-token" in rights} == {"publish"}
    assert "secrets." not in (GITHUB / "workflows" / "publish.yml").read_text()
    assert PUBLISH["jobs"]["publish"]["needs"] == "build"
    assert PUBLISH["jobs"]["build"]["needs"] == "test"
