"""A RunPod Serverless endpoint on your desk: RunPod's queue API in front, the SDK's worker protocol behind.

`python -m local_endpoint` serves `handler.py`; in tests, `LocalEndpoint` and `LocalWorker` are the two parts.
"""

from local_endpoint.app import LocalEndpoint
from local_endpoint.config import EndpointConfig
from local_endpoint.events import Event, EventLog
from local_endpoint.faults import Fault
from local_endpoint.worker_process import LocalWorker

__all__ = ["EndpointConfig", "Event", "EventLog", "Fault", "LocalEndpoint", "LocalWorker"]
