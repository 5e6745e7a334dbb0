"""One handler for messages of several sources: notifications, log streams, data streams, queues."""
import base64
import json


def from_smn(event):
    return [record["smn"]["message"] for record in event["record"]]


def from_lts(event):
    content = json.loads(base64.b64decode(event["lts"]["data"]))
    logs = content["logs"]
    if isinstance(logs, str):
        logs = json.loads(logs)
    return [line["message"] for line in logs]


def from_dis(event):
    return [base64.b64decode(record["data"]).decode() for record in event["Message"]["records"]]


def from_kafka(event):
    return [message for record in event["records"] for message in record["messages"]]


def main_handler(event, context):
    if "record" in event:
        texts = from_smn(event)
    elif "lts" in event:
        texts = from_lts(event)
    elif "Message" in event:
        texts = from_dis(event)
    else:
        texts = from_kafka(event)
    for text in texts:
        print(text)
    return {"count": len(texts), "longest": max(texts, key=len)}
