"""Answers a gateway with an object of its own class."""


class Response:
    def __init__(self, status_code, body):
        self.statusCode = status_code
        self.headers = {"Content-Type": "text/plain"}
        self.body = body
        self.isBase64Encoded = False


class Handlers:
    def on_request(self, event, context):
        return Response(200, "request %s of %s" % (event["requestContext"]["requestId"], context.getFunctionName()))


handler = Handlers().on_request
