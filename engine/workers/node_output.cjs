"use strict";
// Output of user code, sent to the engine line by line, each line with the request that printed it.

const { AsyncLocalStorage } = require("node:async_hooks");
const { Writable } = require("node:stream");
const { StringDecoder } = require("node:string_decoder");

const STDOUT = 1, STDERR = 2, LOGGER = 3;
const LONGEST = 1 << 16; // bytes of a frame's text
const current = new AsyncLocalStorage();

/** Origin of output: a running request, or the instance itself. */
class Printer {
  constructor(ticket, requestId) {
    this.ticket = ticket;
    this.requestId = requestId;
    this.context = undefined; // set when the handler is called
    this.ended = false;
    this.unfinished = ["", "", ""]; // by stream: text without an end of line yet
  }
}

class Output {
  constructor(wire) {
    this.wire = wire;
    this.instance = new Printer(0, "");
  }

  /** Return the origin of the current output. Output after a request's answer belongs to the instance. */
  printer() {
    const printer = current.getStore();
    return printer === undefined || printer.ended ? this.instance : printer;
  }

  print(stream, text) {
    const printer = this.printer();
    const end = text.lastIndexOf("\n") + 1;
    if (end > 0) {
      this.send(printer, stream, printer.unfinished[stream] + text.slice(0, end));
      printer.unfinished[stream] = text.slice(end);
    } else {
      printer.unfinished[stream] += text;
    }
    if (printer.unfinished[stream].length > LONGEST) this.flush(printer, stream);
  }

  /** Send one complete line. */
  record(stream, line) {
    this.send(this.printer(), stream, `${line}\n`);
  }

  end(printer) {
    this.flushAll(printer);
    printer.ended = true;
  }

  flushAll(printer) {
    this.flush(printer, STDOUT);
    this.flush(printer, STDERR);
  }

  flush(printer, stream) {
    const text = printer.unfinished[stream];
    printer.unfinished[stream] = "";
    if (text) this.send(printer, stream, text);
  }

  send(printer, stream, text) {
    if (text.length * 3 <= LONGEST || Buffer.byteLength(text) <= LONGEST) {
      this.wire.log(printer.ticket, stream, text);
      return;
    }
    for (const piece of pieces(text)) this.wire.log(printer.ticket, stream, piece);
  }

  /** Replace the streams of this process, and with them the console's, by this output. */
  capture() {
    for (const [name, stream] of [["stdout", STDOUT], ["stderr", STDERR]]) {
      const printed = new Printed(this, stream);
      Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => printed });
    }
  }
}

/** Split text at ends of lines, or inside a line that is too long, but never inside a character. */
function* pieces(text) {
  const most = Math.floor(LONGEST / 3); // a UTF-16 unit takes at most 3 bytes
  let at = 0;
  while (at < text.length) {
    let end = at + most;
    if (end < text.length) {
      const line = text.lastIndexOf("\n", end - 1) + 1;
      if (line > at) end = line;
      else if ((text.charCodeAt(end) & 0xfc00) === 0xdc00) end -= 1; // the second half of a pair
    }
    yield text.slice(at, end);
    at = end;
  }
}

/** Replacement of `process.stdout` or `process.stderr`. Cannot be closed, because the next request needs it. */
class Printed extends Writable {
  constructor(output, stream) {
    super({ decodeStrings: false });
    this.fd = stream; // child processes that get this stream write to the descriptor
    this.output = output;
    this.stream = stream;
    this.decoder = new StringDecoder();
  }

  _write(chunk, encoding, done) {
    const text = typeof chunk === "string" ? chunk : this.decoder.write(chunk);
    this.output.print(this.stream, text);
    done();
  }

  end(chunk, encoding, done) {
    if (typeof chunk !== "function" && chunk != null) {
      this.write(chunk, typeof encoding === "string" ? encoding : undefined);
    }
    const last = [chunk, encoding, done].find((one) => typeof one === "function");
    if (last !== undefined) process.nextTick(last);
    return this;
  }

  destroy() {
    return this;
  }
}

module.exports = { Output, Printer, current, STDERR, LOGGER };
