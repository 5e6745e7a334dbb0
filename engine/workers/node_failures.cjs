"use strict";
// What goes wrong in user code, as the documented codes, messages and error bodies.

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
const LONGEST_MESSAGE = 4096, LONGEST_LINE = 2000, MOST_FRAMES = 50;
/** Errors of the system and of V8 that have a code of their own. */
const BY_ERROR_CODE = new Map([
  ["ENOSPC", DISK_FULL],
  ["EDQUOT", DISK_FULL],
  ["ENOMEM", NO_MEMORY],
  ["ERR_MEMORY_ALLOCATION_FAILED", NO_MEMORY],
  ["ERR_WORKER_OUT_OF_MEMORY", NO_MEMORY],
]);
const OURS = [`${__dirname}/node_`, "(node:", "at node:"]; // in a line of a stack: the worker's files, Node's own

/** An answer with a code; `result` is the error as JSON text. */
class Failure {
  constructor(code, text, result = errorBody(text, "FunctionError", [])) {
    this.code = code;
    this.text = text.slice(0, LONGEST_MESSAGE);
    this.result = result;
  }
}

/** What user code threw, as an answer. It may be anything at all, and reading it may throw once more. */
function failure(code, error, kind = undefined) {
  if (error instanceof Failure) return error;
  try {
    const { line, name, message, frames } = describe(error);
    const own = BY_ERROR_CODE.get(error?.code) ?? (line === "RangeError: Array buffer allocation failed" ? NO_MEMORY : code);
    return new Failure(own, PREFIX[own] + line, errorBody(kind === undefined ? message : line, kind ?? name, frames));
  } catch {
    return new Failure(code, `${PREFIX[code]}an error that cannot be described was thrown`);
  }
}

/** A handler that cannot be used as it is set. */
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
  const message = String(error.message ?? "");
  return { line: message ? `${name}: ${message}` : name, name, message, frames: userFrames(error.stack) };
}

/** The lines of a stack that lie in user code; where a file could not be compiled, also the place. */
function userFrames(stack) {
  const lines = typeof stack === "string" ? stack.split("\n") : [];
  const place = /^(file:\/\/)?\/.*:\d+$/.test(lines[0]) ? [lines[0]] : [];
  const frames = lines.filter((line) => /^\s+at /.test(line)).map((line) => line.trim());
  return place
    .concat(frames)
    .filter((line) => !OURS.some((mark) => line.includes(mark)))
    .map((line) => line.slice(0, LONGEST_LINE))
    .slice(0, MOST_FRAMES);
}

function errorBody(errorMessage, errorType, stackTrace) {
  return JSON.stringify({ errorMessage: errorMessage.slice(0, LONGEST_MESSAGE), errorType, stackTrace }, null, 4);
}

module.exports = { Failure, failure, configError, loadError, OK, ENTRY, USER, TOO_LARGE, BAD_RESULT, INIT_RAISED };
