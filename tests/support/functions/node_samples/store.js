// Keeps a connection for the life of the instance: made by the initializer, closed by the pre-stop handler.
const { EventEmitter, once } = require('node:events');

class Connection extends EventEmitter {
  #rows = new Map();

  open() {
    setTimeout(() => this.emit('open'), 1);
    return this;
  }

  async upsert(key, value) {
    await new Promise((resolve) => setImmediate(resolve));
    this.#rows.set(key, value);
    return this.#rows.size;
  }
}

let connection;

exports.initializer = async (context) => {
  connection = new Connection().open();
  await once(connection, 'open');
  context.getLogger().info('connected for', context.getFunctionName());
};

exports.handler = async (event, context) => {
  const { job } = JSON.parse(event.user_event);
  return `${job} ${await connection.upsert(event.time, job)}`;
};
