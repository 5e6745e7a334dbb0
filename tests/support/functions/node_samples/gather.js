// Asks another service several times at once, and lets one slow answer not hold the others.
const http = require('node:http');

function get(url, signal) {
  return new Promise((resolve, reject) => {
    http.get(url, { signal }, (response) => {
      response.setEncoding('utf8');
      let text = '';
      response.on('data', (chunk) => { text += chunk; });
      response.on('end', () => resolve(`${response.statusCode} ${text}`));
    }).on('error', reject);
  });
}

exports.handler = async (event, context) => {
  const server = http.createServer((request, response) => {
    if (request.url === '/slow') return; // never answered
    response.end(`seen ${request.url}`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${server.address().port}`;
  try {
    const slow = new AbortController();
    const asked = event.paths.map((path) => get(base + path, slow.signal));
    await Promise.all(asked.filter((each, at) => event.paths[at] !== '/slow'));
    slow.abort();
    return (await Promise.allSettled(asked)).map(({ value, reason }) => value ?? reason.name);
  } finally {
    server.closeAllConnections();
    server.close();
  }
};
