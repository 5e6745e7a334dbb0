"""Runs by a timer whose user_event is JSON; adds up what is left of its time."""
import json
import logging
import os

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
LOG = logging.getLogger(__name__)


def handler(event, context):
    job = json.loads(event["user_event"])
    left = int(context.getRemainingTimeInMilliSeconds())
    if left < 1000:
        raise RuntimeError("not enough time left: " + str(left))
    LOG.info("running %s at %s", job["job"], event["time"])
    print("memory: " + str(context.getMemorySize()) + " MB, cpu: " + str(context.getCPUNumber()))
    return {
        "job": job["job"],
        "by": event["trigger_name"],
        "dry_run": os.environ.get("DRY_RUN") == "1" and context.getUserData("DRY_RUN") == "1",
    }
