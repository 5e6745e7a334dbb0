"use strict";
// Queueing of calls by a running Node.js function. Loaded, and connected to the engine, at the first use.

const { createHash } = require("node:crypto");
const http = require("node:http");

const MARGIN = 1000; // milliseconds of a run that are left when it gets Overloaded
const agent = new http.Agent({ keepAlive: true });

/** Queue a call by the run of a context, and return its request id. `numbers` has the run's equal calls by their hash. */
async function enqueue(context, access, numbers, call) {
  let free;
  if (call.key === undefined) {
    const name = String(call.function), parts = name.split(":");
    const equal = JSON.stringify([parts[0] === "urn" ? parts.slice(5, 7) : name, call.event]); // without a version
    const hash = createHash("sha256").update(equal).digest("latin1");
    free = numbers.get(hash) ?? [0]; // the next number first
    numbers.set(hash, free);
    call.n = free.length > 1 ? free.pop() : free[0]++;
  }
  try {
    return await send(context, access, JSON.stringify({ parent: context.getRequestID(), calls: [call] }));
  } catch (error) {
    free?.push(call.n); // so that a call that was refused can be repeated
    throw error;
  }
}

async function send(context, access, body) {
  for (;;) {
    const { status, headers, text } = await post(access, body);
    const reply = parsed(text);
    const { request_id: requestId, error_code: code = String(status), error_msg: message = text } =
      reply.results?.[0] ?? reply;
    if (requestId) return requestId;
    const full = [status, Number(/^FSS\.0(\d{3})$/.exec(code)?.[1])].some((one) => one === 429 || one === 503);
    const pause = Number(headers["retry-after"] || 1) * 1000 * (1 + Math.random() / 2);
    if (!full || pause + MARGIN > context.getRemainingTimeInMilliSeconds()) {
      throw Object.assign(new Error(`${code} ${message}`), { name: full ? "Overloaded" : "ApiError", code, status });
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Send a request, again if the engine had closed the connection. A repeated call is stored once. */
function post(access, body) {
  const { hostname, port } = new URL(access.url);
  const target = access.socket ? { socketPath: access.socket } : { hostname, port };
  const path = `/v2/${encodeURIComponent(access.project)}/fgs/calls`;
  const headers = { "Content-Type": "application/json", "X-Auth-Token": access.token };
  return new Promise((resolve, reject) => {
    const request = http.request({ ...target, agent, path, method: "POST", headers }, (reply) => {
      let text = "";
      reply.setEncoding("utf8").on("data", (part) => { text += part; }).on("error", reject);
      reply.on("end", () => resolve({ status: reply.statusCode, headers: reply.headers, text }));
    });
    request.on("error", (error) => (request.reusedSocket ? resolve(post(access, body)) : reject(error)));
    request.end(body);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

module.exports = { enqueue };
