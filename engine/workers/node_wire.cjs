"use strict";
// The engine's socket, seen from a Node.js instance. The frames are described in engine/frames.py.

// Taken before user code can replace them: libraries patch fs, test helpers patch Date.
const { closeSync, openSync, readSync, writeSync } = require("node:fs");
const { Socket } = require("node:net");
const { now } = Date;
const { resourceUsage } = process;

const READY = 1, DONE = 2, LOG = 3;
const ANSWER_HEAD = 19, LOG_HEAD = 18;
const NAP = new Int32Array(new SharedArrayBuffer(4));

class Wire {
  constructor(fd) {
    this.fd = fd;
    this.memory = new Memory();
    this.pieces = [];
    this.have = 0;
  }

  /** Calls `receive(kind, body)` for each frame, and `gone()` when the engine has closed the socket. */
  listen(receive, gone) {
    const socket = new Socket({ fd: this.fd, readable: true, writable: false });
    socket.on("data", (data) => this.feed(data, receive));
    socket.on("end", gone);
    socket.on("error", gone);
  }

  feed(data, receive) {
    if (this.have > 0) {
      this.pieces.push(data);
      this.have += data.length;
      // One copy when the frame is whole, not one for each piece.
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

  /** All of it, before this returns: a line must be out before the code behind it crashes or runs for ever. */
  write(frame) {
    let sent = 0;
    while (sent < frame.length) {
      try {
        sent += writeSync(this.fd, frame, sent);
      } catch (error) {
        if (error.code !== "EAGAIN") process.kill(process.pid, "SIGKILL"); // the engine is gone
        Atomics.wait(NAP, 0, 0, 0.2); // it reads without end; Node.js offers nothing to wait for it by
      }
    }
  }
}

/**
 * The peak of resident memory in KiB. The system's figure alone would do, but a child made by vfork and exec inherits
 * there the peak of the engine; so /proc is asked, only when a megabyte of pages has been faulted in since.
 */
class Memory {
  constructor() {
    this.inherited = resourceUsage().maxRSS;
    this.faults = -Infinity;
    this.known = 0;
    this.buffer = Buffer.alloc(4096);
  }

  peak() {
    const { maxRSS, minorPageFault } = resourceUsage();
    if (maxRSS > this.inherited) return maxRSS;
    if (minorPageFault - this.faults >= 256) {
      this.known = this.highWater() || maxRSS;
      this.faults = minorPageFault;
    }
    return this.known;
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
