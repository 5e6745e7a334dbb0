"use strict";
// Instance of a Node.js function: serves requests, several at a time if configured, until its socket closes.
//
// Run as `node --max-old-space-size=<MiB> node_worker.cjs <descriptor>`. Node.js 18 and newer, no packages, no import
// of the engine. CommonJS, because it starts some milliseconds faster and user code finds a `require.main`.
// engine/runtimes/protocol.py describes the frames. The worker itself writes nothing to the descriptors of stdout and
// stderr.

const { inspect } = require("node:util");
const { Context, Logger } = require("./node_context.cjs");
const {
  Failure, failure, configError, OK, ENTRY, USER, TOO_LARGE, BAD_RESULT, INIT_RAISED,
} = require("./node_failures.cjs");
const { Loader } = require("./node_loader.cjs");
const { Output, Printer, current, STDERR } = require("./node_output.cjs");
const { Wire, READY, DONE } = require("./node_wire.cjs");

const SETUP = 1, INVOKE = 2, STOP = 3, NOTICE = 4;
const REASONS = { 1: "cancelled", 2: "timeout", 3: "soft_timeout" };

let traced = false; // the last request had a trace context

class Instance {
  constructor(wire) {
    this.wire = wire;
    this.output = new Output(wire);
    this.logger = new Logger(this.output);
    this.running = new Set(); // Printers of requests
    this.stage = ENTRY; // code of an error before the instance is ready; USER afterwards
    this.broken = false; // an error was not caught: exit when no request runs
  }

  receive(kind, body) {
    if (kind === INVOKE) this.invoke(body);
    else if (kind === SETUP) void this.prepare(JSON.parse(body));
    else if (kind === STOP) void this.stop();
    else if (kind === NOTICE) this.notify(body.readUInt32BE(0), REASONS[body[4]]);
  }

  /** Load the handler, then run the initializer. */
  async prepare(setup) {
    this.setup = setup;
    this.loader = new Loader(setup.code, setup.layers);
    process.argv.splice(1, Infinity, setup.code);
    this.output.capture();
    try {
      this.handler = await this.loader.load(setup.handler);
      checkParameters(this.handler, setup.handler);
      const initializer = setup.initializer ? await this.loader.load(setup.initializer) : undefined;
      this.stage = INIT_RAISED;
      if (initializer !== undefined) await this.call(initializer, setup.initializer_timeout);
      this.ready(OK, "", "");
    } catch (error) {
      const { code, text, result } = failure(this.stage, error);
      this.ready(code, text, result);
    }
  }

  ready(code, text, result) {
    if (this.stage === USER) return;
    this.stage = USER;
    this.output.flushAll(this.output.instance);
    this.wire.answer(READY, 0, code, text, result);
  }

  /** Run an initializer or pre-stop handler until it returns, or until it calls back if it takes a callback. */
  call(hook, timeout = undefined) {
    const context = new Context(this.setup, this.logger, "", "", timeout);
    return new Promise((resolve, reject) => {
      const result = hook(context, (error) => (error == null ? resolve() : reject(error)));
      if (isThenable(result)) result.then(resolve, reject);
      else if (hook.length < 2) resolve();
    });
  }

  invoke(body) {
    const ticket = body.readUInt32BE(0);
    const split = 6 + body[4];
    const end = split + body[5];
    const request = new Printer(ticket, body.toString("latin1", 6, split));
    this.running.add(request);
    const [alias, traceparent = "", ...facts] = body.toString("utf8", split, end).split(" ");
    if (!this.setup.concurrency || this.setup.concurrency === 1) setTrace(traceparent);
    current.run(request, () => this.run(request, alias, traceparent, facts, body.toString("utf8", end)));
  }

  run(request, alias, traceparent, facts, event) {
    try {
      const { handler } = this; // a local, so that `this` is not the instance in user code
      const value = event ? JSON.parse(event) : null;
      const context = new Context(this.setup, this.logger, request.requestId, alias, undefined, traceparent, facts);
      request.context = context;
      Context.connect(context, (...report) => request.ended || this.wire.progress(request.ticket, ...report));
      const callsBack = handler.length === 3;
      const result = callsBack
        ? handler(value, context, (error, answer) => this.callback(request, error, answer))
        : handler(value, context);
      if (isThenable(result)) {
        result.then((answer) => this.succeed(request, answer), (error) => this.fail(request, error));
      } else if (!callsBack) this.succeed(request, result);
    } catch (error) {
      this.fail(request, error);
    }
  }

  /** Tell a running request that it must end, or that its soft timeout is over. */
  notify(ticket, reason) {
    const request = [...this.running].find((one) => one.ticket === ticket);
    if (request?.context === undefined || reason === undefined) return;
    let heeds = true;
    current.run(request, () => {
      try {
        heeds = Context.tell(request.context, reason);
      } catch (error) {
        this.fail(request, error);
      }
    });
    if (reason === "soft_timeout" || (this.setup.concurrency ?? 1) > 1) return;
    this.output.flushAll(request);
    terminateGroup(heeds);
  }

  callback(request, error, answer) {
    if (error == null) this.succeed(request, answer);
    else this.fail(request, error);
  }

  succeed(request, value) {
    if (request.ended) return; // the first answer counts
    try {
      this.done(request, OK, "", encode(value, this.setup.result_limit));
    } catch (error) {
      this.fail(request, failure(BAD_RESULT, error));
    }
  }

  fail(request, error) {
    if (request.ended) return;
    const { code, text, result } = failure(USER, error);
    this.done(request, code, text, result);
  }

  done(request, code, text, result) {
    if (request.context !== undefined) Context.end(request.context);
    this.output.end(request);
    this.running.delete(request);
    this.wire.answer(DONE, request.ticket, code, text, result);
    if (this.broken && this.running.size === 0) killSelf();
  }

  /** Handle an uncaught error. Node.js would exit here, but other running requests are served to their end. */
  crash(error) {
    const request = this.responsibleRequest();
    this.broken = true;
    if (this.stage !== USER) {
      const { code, text, result } = failure(this.stage, error);
      this.ready(code, text, result);
    } else if (request !== undefined) {
      this.fail(request, error);
    } else {
      this.output.print(STDERR, `Uncaught ${inspect(error)}\n`);
      if (this.running.size === 0) killSelf();
    }
  }

  /** Handle a call of process.exit by user code. */
  exit(status) {
    const problem = new Error(`process.exit(${status}) was called`); // its stack contains the caller
    const request = this.responsibleRequest();
    if (this.stage !== USER) {
      const { code, text, result } = failure(this.stage, problem);
      this.ready(code, text, result);
    } else if (request !== undefined) {
      this.fail(request, problem);
    }
  }

  /** Return the request that runs this code, if Node.js can identify it, else the only running one. */
  responsibleRequest() {
    const printer = current.getStore();
    if (printer !== undefined) return printer.ended ? undefined : printer;
    return this.running.size === 1 ? this.running.values().next().value : undefined;
  }

  /** Run the pre-stop handler and exit. */
  async stop() {
    try {
      if (this.setup.pre_stop) await this.call(await this.loader.load(this.setup.pre_stop));
    } catch (error) {
      this.output.print(STDERR, `The pre-stop handler failed: ${failure(USER, error).text}\n`);
    }
    this.output.flushAll(this.output.instance);
    process.exit(0);
  }
}

/** Check the number of declared parameters. A handler that declares three calls back (FunctionGraph's rule). */
function checkParameters(handler, entry) {
  if (handler.length <= 3) return;
  const most = "more than the three that it may have (event, context, callback)";
  throw configError(`the handler '${entry}' declares ${handler.length} parameters, ${most}`);
}

/** Return a handler's result as text. Throws Failure. */
function encode(value, limit) {
  if (value == null) return "";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a ${typeof value} cannot be turned into JSON`);
  if (text.length * 3 > limit) {
    const size = Buffer.byteLength(text);
    if (size > limit) throw new Failure(TOO_LARGE, `the response has ${size} bytes, more than the ${limit} allowed`);
  }
  return text;
}

/** Put the trace context of the only running request into the environment. */
function setTrace(traceparent) {
  if (traceparent) process.env.TRACEPARENT = traceparent;
  else if (traced) delete process.env.TRACEPARENT;
  traced = traceparent !== "";
}

function isThenable(value) {
  return value != null && typeof value.then === "function";
}

/** Send SIGTERM to this process and those that it started. It ends this one unless the handler heeds the notice. */
function terminateGroup(heeds) {
  if (heeds && process.listenerCount("SIGTERM") === 0) process.on("SIGTERM", () => {});
  process.kill(0, "SIGTERM");
}

/** Exit at once: user code must not delay the exit. */
function killSelf() {
  process.kill(process.pid, "SIGKILL");
}

function main() {
  const instance = new Instance(new Wire(Number(process.argv[2])));
  process.on("exit", (status) => instance.exit(status));
  process.on("uncaughtException", (error) => {
    if (process.listenerCount("uncaughtException") === 1) instance.crash(error); // otherwise user code handles it
  });
  instance.wire.listen((kind, body) => instance.receive(kind, body), killSelf);
}

main();
