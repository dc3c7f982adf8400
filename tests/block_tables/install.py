"""docs/install.md, docs/operating.md and docs/backup.md."""

from __future__ import annotations

import deploy_checks
from block_checks import Check, composes, elsewhere, serves, types

CHECKS: dict[str, dict[str, Check]] = {
    "docs/install.md": {
        "cp .env.example .env": composes,
        "REDIS_PASSWORD=…": deploy_checks.is_head_of_external_redis,
        "docker build -t registry.example/postbacks:0.2.0 . && docker push registry.example/postbacks:0.2.0": deploy_checks.prepares_a_cluster,
        "# deploy/mine/kustomization.yaml": deploy_checks.builds,
        "# deploy/mine/ingress.yaml": deploy_checks.is_ingress,
        "kubectl create namespace postbacks": deploy_checks.clusters,
        r"{ printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: postbacks}\nspec:\n'": deploy_checks.makes_a_rule,
        "sudo useradd --system --home-dir /srv/postbacks --shell /usr/sbin/nologin postbacks": deploy_checks.installs_units,
        "sudo systemctl enable --now postbacks.target postbacks-worker@{1..4} postbacks-beat@{1..2}": deploy_checks.enables_units,
        "sudo systemd-run --quiet --pipe --wait --uid=postbacks -E PATH=/opt/postbacks/bin:/usr/bin:/bin -p EnvironmentFile=/etc/postbacks/postbacks.env -p EnvironmentFile=-/etc/postbacks/postbacks-worker.env env postbacks health": deploy_checks.runs_beside_the_units,
        "celery -A postbacks worker --loglevel=INFO --without-mingle --without-gossip": serves,
        "appendonly yes": deploy_checks.is_configuration_of_redis,
    },
    "docs/operating.md": {
        "docker compose exec history postbacks history status": composes,
        "docker compose up -d --scale worker=4": composes,
        "postbacks drop --dead --account acme --older 7d --dry-run": types(says="No such postback is dead."),
        "docker compose stop worker": composes,
    },
    "docs/backup.md": {
        "```": elsewhere(
            "wants Docker",
            "tests/promise/test_restore.py::test_a_restored_backup_sends_again_what_the_page_says_and_nothing_else_is_lost",
            "tests/promise/test_restore.py::test_sqlite_is_copied_whole_while_its_recorder_works",
        ),
    },
}
