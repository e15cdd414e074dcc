"""Trials on a Ray cluster, each of these in a process of its own:

    engine, with the study  -->  driver, connected to the cluster  -->  host, an actor on a node
                                                                            child, an engine of that node, below it

Only ``driver``, its ``connection`` and ``host`` import Ray, which belongs to the extra ``[ray]``: it may abort the
process that is connected, and kills children of its actors. Begin with ``RayEngine``; ``settings`` is what crosses.
"""

from __future__ import annotations

from nnas_core.execution.ray.engine import RayEngine, RaySettings, require_ray

__all__ = ["RayEngine", "RaySettings", "require_ray"]
