"use strict";
// Socket to the engine. engine/runtimes/protocol.py describes the frames.

// Captured before user code can replace them: libraries patch fs, test helpers patch Date.
const { closeSync, openSync, readSync, writeSync } = require("node:fs");
const { Socket } = require("node:net");
const { now } = Date;
const { resourceUsage } = process;

const READY = 1, DONE = 2, LOG = 3, PROGRESS = 4;
const ANSWER_HEAD = 19, LOG_HEAD = 18, PROGRESS_HEAD = 13;
const SLEEPER = new Int32Array(new SharedArrayBuffer(4));

class Wire {
  constructor(fd) {
    this.fd = fd;
    this.memory = new Memory();
    this.pieces = [];
    this.have = 0;
  }

  /** Call `receive(kind, body)` for each frame, and `closed()` when the engine has closed the socket. */
  listen(receive, closed) {
    const socket = new Socket({ fd: this.fd, readable: true, writable: false });
    socket.on("data", (data) => this.feed(data, receive));
    socket.on("end", closed);
    socket.on("error", closed);
  }

  feed(data, receive) {
    if (this.have > 0) {
      this.pieces.push(data);
      this.have += data.length;
      // Copied once when the frame is complete, not once per piece.
      if (this.pieces[0].length >= 4 && this.have < this.pieces[0].readUInt32BE(0) + 4) return;
      data = Buffer.concat(this.pieces, this.have);
      this.pieces = [];
      this.have = 0;
    }
    let at = 0;
    while (data.length - at >= 4) {
      const end = at + 4 + data.readUInt32BE(at);
      if (end > data.length) break;
      receive(data[at + 4], data.subarray(at + 5, end));
      at = end;
    }
    if (at < data.length) {
      this.pieces.push(data.subarray(at));
      this.have = data.length - at;
    }
  }

  answer(kind, ticket, code, message, result) {
    const textSize = Buffer.byteLength(message);
    const frame = Buffer.allocUnsafe(ANSWER_HEAD + textSize + Buffer.byteLength(result));
    frame.writeUInt32BE(frame.length - 4, 0);
    frame[4] = kind;
    frame.writeUInt32BE(ticket, 5);
    frame.writeUInt16BE(code, 9);
    frame.writeUInt32BE(this.memory.peak(), 11);
    frame.writeUInt32BE(textSize, 15);
    frame.write(message, ANSWER_HEAD);
    frame.write(result, ANSWER_HEAD + textSize);
    this.write(frame);
  }

  log(ticket, stream, text) {
    const frame = Buffer.allocUnsafe(LOG_HEAD + Buffer.byteLength(text));
    frame.writeUInt32BE(frame.length - 4, 0);
    frame[4] = LOG;
    frame.writeUInt32BE(ticket, 5);
    frame.writeUInt16BE(0, 9);
    frame.writeUIntBE(now(), 11, 6);
    frame[17] = stream;
    frame.write(text, LOG_HEAD);
    this.write(frame);
  }

  progress(ticket, fraction, note) {
    const frame = Buffer.allocUnsafe(PROGRESS_HEAD + Buffer.byteLength(note));
    frame.writeUInt32BE(frame.length - 4, 0);
    frame[4] = PROGRESS;
    frame.writeUInt32BE(ticket, 5);
    frame.writeUInt32BE(Math.round(fraction * 1e6), 9);
    frame.write(note, PROGRESS_HEAD);
    this.write(frame);
  }

  /** Write the whole frame before returning: a line must be sent before later code crashes or runs forever. */
  write(frame) {
    let sent = 0;
    while (sent < frame.length) {
      try {
        sent += writeSync(this.fd, frame, sent);
      } catch (error) {
        if (error.code !== "EAGAIN") process.kill(process.pid, "SIGKILL"); // the engine has closed the socket
        Atomics.wait(SLEEPER, 0, 0, 0.2); // the engine reads continuously; Node.js has no synchronous wait for a socket
      }
    }
  }
}

/**
 * Peak of resident memory in KiB. The system's figure alone does not suffice: for a child made by vfork and exec it
 * starts with the engine's peak. Then /proc is read instead, but only after 256 further page faults (1 MiB).
 */
class Memory {
  constructor() {
    this.inherited = resourceUsage().maxRSS;
    this.faults = -Infinity;
    this.cached = 0;
    this.buffer = Buffer.alloc(4096);
  }

  peak() {
    const { maxRSS, minorPageFault } = resourceUsage();
    if (maxRSS > this.inherited) return maxRSS;
    if (minorPageFault - this.faults >= 256) {
      this.cached = this.highWater() || maxRSS;
      this.faults = minorPageFault;
    }
    return this.cached;
  }

  highWater() {
    try {
      const fd = openSync("/proc/self/status", "r");
      try {
        const text = this.buffer.toString("latin1", 0, readSync(fd, this.buffer));
        return Number(/^VmHWM:\s*(\d+)/m.exec(text)[1]);
      } finally {
        closeSync(fd);
      }
    } catch {
      return 0;
    }
  }
}

module.exports = { Wire, READY, DONE };
