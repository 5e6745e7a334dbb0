// A small REST API behind an API gateway: routing, bodies in base64, headers, status codes.
const items = new Map([['1', { id: '1', name: 'Kräuter' }]]);

function reply(statusCode, body) {
  return {
    statusCode,
    headers: { 'Content-Type': 'application/json; charset=utf-8' },
    isBase64Encoded: false,
    body: JSON.stringify(body),
  };
}

function bodyOf(event) {
  const text = event.isBase64Encoded ? Buffer.from(event.body, 'base64').toString('utf8') : event.body;
  return text ? JSON.parse(text) : {};
}

const routes = {
  'GET /items': () => reply(200, [...items.values()]),
  'GET /items/:id': (event, id) => (items.has(id) ? reply(200, items.get(id)) : reply(404, { message: `no item ${id}` })),
  'POST /items': (event) => {
    const { name } = bodyOf(event);
    if (!name) return reply(422, { message: 'name is missing' });
    const item = { id: String(items.size + 1), name };
    items.set(item.id, item);
    return reply(201, item);
  },
};

exports.handler = async (event, context) => {
  const [, collection, id] = event.path.split('/');
  const route = routes[`${event.httpMethod} /${collection}${id ? '/:id' : ''}`];
  context.getLogger().info('%s %s from %s', event.httpMethod, event.path, event.headers['user-agent'] || 'unknown');
  return route ? route(event, id) : reply(405, { message: 'not allowed' });
};
