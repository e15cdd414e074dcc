"""A Ray cluster of two nodes on this machine, for tests: one CPU each.

The arguments are descriptors. Says where it is, a JSON object; then, for each line that comes, kills the second node,
adds a new one, and says so. Ends when nobody asks any more.

python ray_cluster.py ASKS ANSWERS
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ray.cluster_utils import Cluster


def add(cluster: Any) -> Any:
    """Add a node with one CPU."""
    return cluster.add_node(
        num_cpus=1,
        num_gpus=0,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
    )


def say(message: Any) -> None:
    """One line."""
    os.write(int(sys.argv[2]), json.dumps(message).encode() + b"\n")


def main() -> None:
    """Start the cluster and do what is asked."""
    cluster = Cluster()
    add(cluster)
    second = add(cluster)
    say({"address": cluster.address})
    for _ in os.fdopen(int(sys.argv[1])):
        second.kill_raylet(check_alive=False)
        second.kill_all_processes(check_alive=False, allow_graceful=False)
        second = add(cluster)
        say({"replaced": True})
    cluster.shutdown()


if __name__ == "__main__":
    main()
