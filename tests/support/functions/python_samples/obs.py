"""Copies uploaded objects, transformed, by way of a file; the store's client is made once by the initializer."""
import os
import tempfile
from urllib.parse import unquote_plus

client = None


class Client:
    """In place of the store's SDK."""

    def __init__(self, access, secret, token, server):
        self.server = server
        self.anonymous = not (access or secret or token)

    def download(self, bucket, key, path):
        with open(path, "w") as file:
            file.write("%s/%s/%s" % (self.server, bucket, key))


def initializer(context):
    global client
    client = Client(
        context.getSecurityAccessKey(),
        context.getSecuritySecretKey(),
        context.getSecurityToken(),
        context.getUserData("obs_address", "obs.example.com"),
    )


def handler(event, context):
    log = context.getLogger()
    target = context.getUserData("target_bucket")
    if not target:
        log.error("target_bucket is not set")
        return "ERROR"
    done = []
    for record in event["Records"]:
        name, s3 = record["eventName"], record["s3"]
        key = unquote_plus(s3["object"]["key"])
        if not name.startswith("ObjectCreated"):
            log.warn("skipping %s of %s", name, key)
            continue
        path = os.path.join(tempfile.gettempdir(), context.getRequestID() + os.path.basename(key))
        client.download(s3["bucket"]["name"], key, path)
        with open(path) as file:
            done.append([target, key, file.read().upper(), client.anonymous])
        os.remove(path)
    return done
