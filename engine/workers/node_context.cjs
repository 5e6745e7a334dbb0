"use strict";
// Context object and logger of a Node.js function.

const { format } = require("node:util");
const { LOGGER } = require("./node_output.cjs");

const REPORTS = 10; // reports of progress sent in a second; also the number sent at once
const LONGEST_NOTE = 200; // characters
const LEVELS = { DEBUG: 10, INFO: 20, WARN: 30, WARNING: 30, ERROR: 40, CRITICAL: 50, FATAL: 50 };

/** Logger of the invocation log. Lines have UTC time, request id, level, text. */
class Logger {
  constructor(output) {
    this.output = output;
    this.level = 0;
    for (const name of ["debug", "info", "warn", "error", "critical"]) {
      this[name] = this.write.bind(this, name.toUpperCase()); // bound, so that logger.info can be passed as a function
    }
    this.warning = this.warn;
    this.fatal = this.critical;
  }

  setLevel(level) {
    this.level = typeof level === "number" ? level : LEVELS[String(level).toUpperCase()] ?? 0;
  }

  log(level, ...args) {
    const name = String(level).toUpperCase();
    if (name in LEVELS) this.write(name, ...args);
    else this.write("INFO", level, ...args);
  }

  write(level, ...args) {
    if (LEVELS[level] < this.level) return;
    const stamp = new Date().toISOString();
    this.output.record(LOGGER, `${stamp} ${this.output.printer().requestId} ${level} ${format(...args)}`);
  }
}

/** FunctionGraph's documented context object. Values that have no source here are empty, never an exception. */
class Context {
  #setup; #logger; #requestId; #alias; #timeout; #began = performance.now(); #state = null; #instanceId;
  #reason = ""; #soft = false; #heeds = false; #controller; #onCancel = []; #onSoftTimeout = [];
  #report; #reports = REPORTS; #reportedAt = 0; #sendProgress = () => {};
  #traceparent; #facts; #deadline; #ended = false; #numbers = new Map();

  /** `timeout` in seconds. */
  constructor(setup, logger, requestId, alias, timeout = setup.timeout, traceparent = "", facts = []) {
    this.#setup = setup;
    this.#logger = logger;
    this.#requestId = requestId;
    this.#alias = alias;
    this.#timeout = timeout;
    this.#instanceId = setup.instance;
    this.#traceparent = traceparent;
    this.#facts = facts;
  }

  /** Trace context of the request: value of its header `traceparent`; empty: none. */
  get traceparent() { return this.#traceparent; }
  /** Number of this attempt, from 1, and of the last one that the settings allow. 0 in an initializer. */
  get attempt() { return Number(this.#facts[0] ?? 0); }
  get maxAttempts() { return Number(this.#facts[1] ?? 0); }
  /** Source of the request, such as "TIMER", "API" or "CALL". */
  get trigger() { return this.#facts[2] ?? ""; }
  /** Request id of the run that queued this one, or whose outcome is its event, or which it repeats; empty: none. */
  get parent() { return this.#facts[3] ?? ""; }
  /** Time at which the engine accepted the request: a UUID of version 7 has it. Null in an initializer. */
  get acceptedAt() {
    return this.#requestId ? new Date(parseInt(this.#requestId.replace("-", "").slice(0, 12), 16)) : null;
  }
  /** Time at which the timeout is over. */
  get deadline() {
    this.#deadline ??= Date.now() + this.#timeout * 1000 - (performance.now() - this.#began);
    return new Date(this.#deadline);
  }
  getRequestID() { return this.#requestId; }
  getRemainingTimeInMilliSeconds() {
    return Math.max(0, Math.floor(this.#timeout * 1000 - (performance.now() - this.#began)));
  }
  getRunningTimeInSeconds() { return this.#setup.timeout; }
  getUserData(key, fallback = null) {
    const data = this.#setup.user_data;
    if (key === undefined) return { ...data };
    return Object.hasOwn(data, key) ? data[key] : fallback;
  }
  getLogger() { return this.#logger; }
  getFunctionName() { return this.#setup.name; }
  getVersion() { return this.#setup.version; }
  getAlias() { return this.#alias; }
  getPackage() { return this.#setup.package; }
  getProjectID() { return this.#setup.project; }
  getMemorySize() { return this.#setup.memory; }
  getCPUNumber() { return this.#setup.cpu; }
  getState() { return this.#state; }
  setState(state) { this.#state = state; }
  getInstanceID() { return this.#instanceId; }
  setInstanceID(instanceId) { this.#instanceId = instanceId; }
  getInvokeID() { return this.#requestId; }
  getTraceID() { return this.#requestId; }
  getSecurityAccessKey() { return this.#setup.keys?.access_key ?? ""; }
  getSecuritySecretKey() { return this.#setup.keys?.secret_key ?? ""; }
  getSecurityToken() { return this.#setup.keys?.security_token ?? ""; }
  getAccessKey() { return this.getSecurityAccessKey(); }
  getSecretKey() { return this.getSecuritySecretKey(); }
  getInvokeProperty() { return ""; }
  getStream() { return null; }

  // --- names of AWS Lambda ---

  get functionName() { return this.#setup.name; }
  get functionVersion() { return this.#setup.version; }
  get invokedFunctionArn() {
    const { project, name, version } = this.#setup;
    return `arn:aws:lambda:${process.env.RUNTIME_REGION}:${project}:function:${name}:${this.#alias || version}`;
  }
  get memoryLimitInMB() { return String(this.#setup.memory); }
  get awsRequestId() { return this.#requestId; }
  get logGroupName() { return `/aws/lambda/${this.#setup.name}`; }
  get logStreamName() { return `[${this.#setup.version}]${this.#instanceId}`; }
  getRemainingTimeInMillis() { return this.getRemainingTimeInMilliSeconds(); }

  // --- calls of functions, not on FunctionGraph ---

  /** Queue a call of a function of this project. Resolves to its request id when the engine has stored the call. */
  async enqueue(name, event = undefined, { key, delay, priority, orderingKey, at, expires, unique } = {}) {
    const { access } = this.#setup;
    if (!access) throw new Error('functions cannot use the engine: the setting executor.function_role is "none"');
    if (this.#ended || !this.#requestId) {
      const ended = this.#ended ? `request ${this.#requestId} has ended` : "no request runs";
      throw new Error(`${ended}: queue calls before the handler returns`);
    }
    const call = { function: name, event, key, delay, priority, ordering_key: orderingKey, at, expires, unique };
    return require("./node_queue.cjs").enqueue(this, access, this.#numbers, call);
  }

  // --- progress, not on FunctionGraph ---

  /**
   * Show how far the request has got: a fraction from 0 to 1, and a note of at most 200 characters. Reports that come
   * faster than REPORTS a second are left out, except the last of the request.
   */
  reportProgress(fraction, note = "") {
    const value = Number(fraction);
    if (!(value >= 0 && value <= 1)) throw new RangeError(`the progress is a fraction from 0 to 1, not ${fraction}`);
    this.#report = [value, String(note).slice(0, LONGEST_NOTE)];
    const now = performance.now();
    this.#reports = Math.min(REPORTS, this.#reports + (now - this.#reportedAt) * (REPORTS / 1000));
    this.#reportedAt = now;
    if (this.#reports < 1) return;
    this.#reports -= 1;
    Context.sendReport(this);
  }

  /** Have `send(fraction, note)` called with reports of progress. */
  static connect(context, send) { context.#sendProgress = send; }

  /** Send the progress that was reported last, if it was not sent. */
  static sendReport(context) {
    const report = context.#report;
    context.#report = undefined;
    if (report !== undefined) context.#sendProgress(...report);
  }

  /** Send the last report of progress, and refuse further calls. */
  static end(context) {
    Context.sendReport(context);
    context.#ended = true;
  }

  // --- the end of the request, not on FunctionGraph ---

  /** AbortSignal that is aborted when the handler must end. A handler that reads it or sets a callback is not killed. */
  get signal() {
    this.#heeds = true;
    this.#controller ??= new AbortController();
    if (this.#reason) this.#controller.abort(abortError(this.#reason));
    return this.#controller.signal;
  }

  get cancelled() {
    this.#heeds = true;
    return this.#reason !== "";
  }

  /** "cancelled" or "timeout"; empty if the handler need not end. */
  get cancelReason() { return this.#reason; }
  get softTimedOut() { return this.#soft; }

  /** Call back with the reason when the handler must end. */
  onCancel(callback) {
    this.#heeds = true;
    this.#onCancel.push(callback);
    if (this.#reason) callback(this.#reason);
  }

  /** Call back when the function's soft timeout is over. */
  onSoftTimeout(callback) {
    this.#onSoftTimeout.push(callback);
    if (this.#soft) callback();
  }

  /** Run the callbacks for a notice of the engine. Return whether the handler heeds notices that it must end. */
  static tell(context, reason) {
    if (reason === "soft_timeout") {
      context.#soft = true;
      for (const callback of context.#onSoftTimeout) callback();
      return true;
    }
    context.#reason = reason;
    context.#controller?.abort(abortError(reason));
    for (const callback of context.#onCancel) callback(reason);
    return context.#heeds;
  }
}

function abortError(reason) {
  const text = reason === "timeout" ? "the invocation ran longer than its timeout" : "the invocation was cancelled";
  return Object.assign(new Error(text), { name: "AbortError", code: reason });
}

const EMPTY = [
  "getWorkflowID", "getWorkflowRunID", "getWorkflowStateID", "getTenantID", "getSessionID",
];
for (const name of EMPTY) Context.prototype[name] = function empty() { return ""; };
for (const name of ["getToken", "getAuthToken"]) {
  Context.prototype[name] = function token() { return process.env.FUNCTIOND_TOKEN || ""; };
}

module.exports = { Context, Logger };
