// Records the requests that Node's HTTP server reads. Prints its port, then one JSON line for each closed connection.
'use strict';
const http = require('node:http');

const server = http.createServer({ insecureHTTPParser: false, maxHeaderSize: 1 << 20, keepAliveTimeout: 0 });
server.httpAllowHalfOpen = true; // requests before the end of a half-closed connection are answered
server.maxHeadersCount = 0;

server.on('connection', (socket) => {
  socket.recorded = [];
  const port = socket.remotePort;
  socket.on('close', () => console.log(JSON.stringify({ port, requests: socket.recorded })));
  socket.on('error', () => {});
});

function record(request, response) {
  const seen = {
    method: request.method,
    target: request.url,
    headers: request.rawHeaders,
    trailers: [],
    body: '',
    whole: false,
  };
  request.socket.recorded.push(seen);
  // An error later in the same packet destroys the request before it emits its body: record what the parser hands on.
  const push = request.push;
  request.push = function (piece, ...rest) {
    if (piece === null) {
      seen.whole = request.complete;
      seen.trailers = request.rawTrailers;
    } else {
      seen.body += piece.toString('latin1');
    }
    return push.call(this, piece, ...rest);
  };
  request.on('error', () => {});
  request.on('end', () => response.setHeader('Content-Length', 0).end()); // without a length, HTTP/1.0 ends here
  request.resume();
}

server.on('request', record);
server.on('checkExpectation', record);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
