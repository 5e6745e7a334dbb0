# -*- coding:utf-8 -*-
"""Behind an API gateway: greets by name, as a page or as JSON."""
import base64
import json


def handler(event, context):
    logger = context.getLogger()
    params = event.get("queryStringParameters") or {}
    body = event.get("body", "")
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body).decode("utf-8")
    logger.info("%s %s with %d characters", event["httpMethod"], event["path"], len(body))
    if params.get("format") == "json":
        return json.dumps(
            {
                "statusCode": 201,
                "headers": {"Content-Type": "application/json"},
                "body": json.dumps({"hello": json.loads(body)["name"]}),
                "isBase64Encoded": False,
            }
        )
    page = "<h1>Hello, " + params.get("name", "world") + "</h1>"
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "text/html; charset=utf-8"},
        "body": base64.b64encode(page.encode("utf-8")).decode("utf-8"),
        "isBase64Encoded": True,
    }
