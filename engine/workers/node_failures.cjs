"use strict";
// Failures of user code and the answers that report them, with FunctionGraph's codes, messages and error bodies.

const OK = 0, ENTRY = 4001, USER = 4002, TOO_LARGE = 4004, BAD_RESULT = 4007, INIT_RAISED = 4009;
const NO_MEMORY = 4205, DISK_FULL = 4207;
const PREFIX = {
  [ENTRY]: "function entry exception, error: ",
  [USER]: "function invocation exception, error: ",
  [BAD_RESULT]: "function result is invalid, error: ",
  [INIT_RAISED]: "function initialization exception, error: ",
  [NO_MEMORY]: "function memory exceeded, error: ",
  [DISK_FULL]: "function disk usage exceeded, error: ",
};
const LONGEST_DELAY = 1e9; // seconds; the engine has a limit of its own
const LONGEST_MESSAGE = 4096, LONGEST_LINE = 2000, MOST_FRAMES = 50;
const SANDBOXED = "/home/snuser/runtime"; // where a sandbox has the workers
const UNSEEN = "; functions see their own files and the system's only: ask for a folder of the host (executor.folders)";
/** Codes of errors of the system and of V8 that are reported separately. */
const BY_ERROR_CODE = new Map([
  ["ENOSPC", DISK_FULL],
  ["EDQUOT", DISK_FULL],
  ["ENOMEM", NO_MEMORY],
  ["ERR_MEMORY_ALLOCATION_FAILED", NO_MEMORY],
  ["ERR_WORKER_OUT_OF_MEMORY", NO_MEMORY],
]);
const OURS = [`${__dirname}/node_`, "(node:", "at node:"]; // marks in stack lines of the worker's files and of Node.js

/** Answer with an error code; `result` is the error as JSON text. */
class Failure {
  constructor(code, text, result = errorBody(text, "FunctionError", [])) {
    this.code = code;
    this.text = text.slice(0, LONGEST_MESSAGE);
    this.result = result;
  }
}

/** Return the answer for a thrown value, which may be of any type; reading it may throw again. */
function failure(code, error, kind = undefined) {
  if (error instanceof Failure) return error;
  try {
    const { line, name, message, frames } = describe(error);
    const noBuffer = line === "RangeError: Array buffer allocation failed";
    const own = BY_ERROR_CODE.get(error?.code) ?? (noBuffer ? NO_MEMORY : code);
    const text = kind === undefined ? message : line;
    return new Failure(own, PREFIX[own] + line, errorBody(text, kind ?? name, frames, wishes(error, name)));
  } catch {
    return new Failure(code, `${PREFIX[code]}an error that cannot be described was thrown`);
  }
}

/** Return the answer for a handler that cannot be used as configured. */
function configError(text) {
  return new Failure(ENTRY, PREFIX[ENTRY] + text, errorBody(text, "FunctionConfigError", []));
}

function loadError(text) {
  return new Failure(ENTRY, PREFIX[ENTRY] + text, errorBody(text, "FunctionLoadError", []));
}

function describe(error) {
  if (!(error instanceof Error) && typeof error?.stack !== "string") {
    const text = typeof error === "string" ? error : require("node:util").inspect(error);
    return { line: text, name: "Error", message: text, frames: [] };
  }
  const name = String(error.name || error.constructor?.name || "Error");
  const message = String(error.message ?? "") + hint(error);
  return { line: message ? `${name}: ${message}` : name, name, message, frames: userFrames(error.stack) };
}

/** Return what to add to an error about a path that the sandbox does not show; empty: nothing. */
function hint(error) {
  if (!["ENOENT", "EACCES", "EROFS"].includes(error.code) || __dirname !== SANDBOXED) return "";
  let path = error.path;
  if (typeof path !== "string" || !path.startsWith("/")) return "";
  const fs = require("node:fs");
  while (!fs.existsSync(path)) path = require("node:path").dirname(path);
  return fs.statSync(path).dev === fs.statSync("/").dev ? UNSEEN : "";
}

/** Return the stack lines in user code, preceded by the position if a file could not be compiled. */
function userFrames(stack) {
  const lines = typeof stack === "string" ? stack.split("\n") : [];
  const position = /^(file:\/\/)?\/.*:\d+$/.test(lines[0]) ? [lines[0]] : [];
  const frames = lines.filter((line) => /^\s+at /.test(line)).map((line) => line.trim());
  return position
    .concat(frames)
    .filter((line) => !OURS.some((mark) => line.includes(mark)))
    .map((line) => line.slice(0, LONGEST_LINE))
    .slice(0, MOST_FRAMES);
}

/**
 * Return what an error says about a retry: its retry_after (or retryAfter) in seconds, a false retryable, and the names
 * of its classes below Error, its own first, if they say more than its name does.
 */
function wishes(error, name) {
  const found = {};
  try {
    const after = error?.retry_after ?? error?.retryAfter;
    if (typeof after === "number" && after >= 0 && after <= LONGEST_DELAY) found.retryAfter = after;
    if (error?.retryable === false) found.retryable = false;
    const classes = typeof error?.stack === "string" ? classesOf(error) : [];
    if (classes.some((own) => own !== name)) found.errorClasses = classes;
  } catch {
    return {}; // getters of user code may throw
  }
  return found;
}

function classesOf(error) {
  const names = [];
  for (let at = Object.getPrototypeOf(error); at && names.length < 32; at = Object.getPrototypeOf(at)) {
    const own = String(at.constructor?.name ?? "");
    if (own === "Error" || own === "Object") break;
    if (own) names.push(own.slice(0, 256));
  }
  return names;
}

function errorBody(errorMessage, errorType, stackTrace, said = {}) {
  const body = { errorMessage: errorMessage.slice(0, LONGEST_MESSAGE), errorType, stackTrace, ...said };
  return JSON.stringify(body, null, 4);
}

module.exports = { Failure, failure, configError, loadError, OK, ENTRY, USER, TOO_LARGE, BAD_RESULT, INIT_RAISED };
