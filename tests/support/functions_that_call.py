"""Source of a function that queues calls of itself: as many, on each level below it, as its event says."""

from __future__ import annotations

CALLING = """
import json, os, urllib.request

def handler(event, context):
    levels = event["levels"]
    if not levels:
        return None
    below = {**event, "levels": levels[1:]}
    calls = [{"function": "calling", "event": {**below, "n": n}} for n in range(levels[0])]
    if "delay" in event and len(levels) == 1:
        calls = [{**call, "delay": event["delay"]} for call in calls]
    body = json.dumps({"calls": calls, "parent": context.getRequestID()}).encode()
    url = f"{os.environ['FUNCTIOND_URL']}/v2/{os.environ['FUNCTIOND_PROJECT']}/fgs/calls"
    headers = {"Content-Type": "application/json", "X-Auth-Token": context.getToken()}
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()
"""
