'use strict';
// Functions of Node.js for tests of instances: one for each fact.
const fs = require('fs');

let started = 0;
const kept = {};

exports.initializer = (context, callback) => { started += 1; console.log('initialized', context.getFunctionName()); callback(null, ''); };
exports.asyncInitializer = async (context) => { await null; started = context.getRemainingTimeInMilliSeconds() / 1000; };
exports.raisingInitializer = (context) => { throw new RangeError('no database'); };
exports.refusingInitializer = (context, callback) => callback(new Error('no database'));
exports.leavingInitializer = async (context) => process.exit(1);
exports.dyingInitializer = async (context) => process.kill(process.pid, 'SIGKILL');
exports.starts = async (event, context) => started;

exports.echo = async (event, context) => event;
exports.plain = (event, context) => event;
exports.back = (event, context, callback) => { setImmediate(callback, null, event); };
exports.both = async (event, context, callback) => { callback(null, event); };
exports.twice = (event, context, callback) => { callback(null, 'first'); callback(new Error('second')); callback(null, 'third'); };
exports.thenable = (event, context) => ({ then: (resolve) => resolve('thenable') });
exports.self = function (event, context) { return this === undefined || this === exports; };
exports.one = (event) => event;
exports.none = async function () { return arguments[0]; };
exports.rest = (...given) => given[0];
exports.optional = async (event, context = null) => event;
exports.four = async (event, context, callback, more) => event;
exports.notAFunction = 42;

exports.nothing = async (event, context) => {};
exports.nil = (event, context, callback) => callback();
exports.date = async (event, context) => new Date(0);
exports.circular = async (event, context) => { const ring = {}; ring.ring = ring; return ring; };
exports.bigint = async (event, context) => 1n;
exports.aFunction = async (event, context) => exports.aFunction;
exports.text = async (event, context) => 'é'.repeat(event / 2);

class Gone extends TypeError {}
function inner() { throw new Gone('not so'); }
exports.raising = async (event, context) => { await null; inner(); };
exports.throwing = (event, context) => inner();
exports.refusing = (event, context, callback) => callback(new SyntaxError('refused'));
exports.string = (event, context, callback) => callback('only text');
exports.hostile = async (event, context) => { throw { get stack() { throw new Error('no'); } }; };
exports.full = async (event, context) => { fs.writeFileSync('/dev/full', 'x'); };
exports.allocating = async (event, context) => { const all = []; for (;;) all.push(new Array(1e5).fill(all.length)); };
exports.greedy = async (event, context) => new ArrayBuffer(2 ** 45);
exports.timer = (event, context, callback) => { setTimeout(() => { throw new TypeError('in a timer'); }); };
exports.rejection = (event, context, callback) => { Promise.reject(new TypeError('nobody waits')); };
exports.restless = (event, context, callback) => {
  if (event === 'ask') callback(null, process.pid);
  else setTimeout(() => { throw new Error('restless'); });
};
exports.handled = (event, context, callback) => {
  process.once('uncaughtException', (error) => callback(null, error.message));
  setTimeout(() => { throw new Error('seen to'); });
};
exports.exiting = async (event, context) => { console.log('before exit'); process.exit(3); };
exports.aborting = async (event, context) => process.abort();
exports.garbling = async (event, context) => {
  const sockets = fs.readdirSync('/proc/self/fd').filter((fd) => {
    try { return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:'); } catch { return false; }
  });
  sockets.forEach((fd) => fs.writeSync(Number(fd), 'garbage that is no frame at all'));
  await new Promise(() => {});
};
exports.terminated = (event, context, callback) => { process.kill(process.pid, 'SIGTERM'); };
exports.terminatedGently = (event, context, callback) => {
  process.once('SIGTERM', () => callback(null, 'tidied up'));
  process.kill(process.pid, 'SIGTERM');
};

exports.named = (event, context) => ({
  ...Object.fromEntries(event.map((name) => [name, context[name]])), left: context.getRemainingTimeInMillis(),
});
exports.ask = async (event, context) => Object.fromEntries(event.map(([name, args]) => [name, context[name](...args)]));
exports.data = async (event, context) => event.map((args) => context.getUserData(...args));
exports.remaining = async (event, context) => context.getRemainingTimeInMilliSeconds();
exports.log = async (event, context) => {
  const logger = context.getLogger();
  logger.info('count %d of %s', 1, 'two', { three: 3 });
  logger.debug('quiet');
  logger.setLevel('WARN');
  logger.info('hidden');
  logger.warn('loud');
  [1].forEach(logger.error);
};
exports.print = async (event, context) => {
  console.log('%s is %d', 'x', 1);
  console.error('to stderr');
  process.stdout.write('a part, ');
  process.stderr.write(Buffer.from('é').subarray(0, 1));
  process.stderr.write(Buffer.from('é').subarray(1));
  process.stdout.write('and the rest');
};
exports.long = async (event, context) => console.log('é'.repeat(100000));
exports.flood = async (event, context) => { for (let n = 0; n < event; n += 1) console.log(n, 'x'.repeat(100)); };
exports.closing = async (event, context) => { process.stdout.end('ended\n'); console.log('still here'); };
exports.late = async (event, context) => {
  if (event === 'leave') {
    kept.late = new Promise((done) => setTimeout(() => { console.log('late'); done(); }));
  } else {
    await kept.late;
    console.log('own');
  }
};
exports.shell = async (event, context) => {
  require('child_process').execSync('echo raw; echo raw error >&2', { stdio: 'inherit' });
};
exports.thread = async (event, context) => {
  const { Worker } = require('worker_threads');
  await new Promise((done) => new Worker("console.log('from a thread')", { eval: true }).once('exit', done));
};
exports.descriptors = async (event, context) =>
  require('child_process').execSync('ls -l /proc/self/fd | grep -c socket: || true', { stdio: ['ignore', 'pipe', 'inherit'] }).toString();
exports.environment = async (event, context) => ({
  env: process.env, cwd: process.cwd(), argv: process.argv.slice(1), stdin: fs.readFileSync(0, 'utf8'),
});
const here = [];
const together = (count) => new Promise((resolve) => {
  here.push(resolve);
  if (here.length === count) here.splice(0).forEach((each) => each());
});
exports.meet = async ({ name, others, fails }, context) => {
  console.log('begins', name);
  await together(others);
  context.getLogger().info('waits', name);
  await new Promise(setImmediate);
  console.error('ends', name);
  if (fails) throw new Error(name);
  return name;
};
exports.meetToThrow = (event, context, callback) => {
  together(2).then(() => {
    if (event.throws) setTimeout(() => { throw new Error(event.name); });
    else setTimeout(callback, 20, null, event.name);
  });
};
exports.endless = async (event, context) => { console.log('so far'); for (;;); };
exports.wait = async (event, context) => {
  await fs.promises.writeFile(event.told, `${process.pid}\n`);
  await fs.promises.readFile(event.gate);
};
exports.stopped = async () => fs.writeFileSync(process.env.STOPPED, 'stopped');
