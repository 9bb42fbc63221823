"""A simulation of RunPod's queue, its scaling rules and this worker: what pictures cost and how long they wait.

load -> platform (with policies) -> worker (with service): one run of the simulation, whose `Summary` is written down.
"""
