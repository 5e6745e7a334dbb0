// Uploads of Node: node_clients.mjs CLIENT URL FILE...; the last file is refused. Packages lie in the current folder.
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { basename } from "node:path";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";

const [client, url, ...files] = process.argv.slice(2);
const PIECE = 50_000; // bytes
const agent = client === "agent" ? new http.Agent({ keepAlive: true, maxSockets: 1 }) : false;

function* pieces(body) {
    for (let at = 0; at < body.length; at += PIECE) yield body.subarray(at, at + PIECE);
}

function core(path, { method = "POST", body, chunked, close }) {
    const headers = body && !chunked ? { "content-length": body.length } : {};
    if (chunked) headers["transfer-encoding"] = "chunked";
    if (close) headers.connection = "close";
    return new Promise((resolve, reject) => {
        const request = http.request(url + path, { method, agent, headers }, async (response) => {
            let text = "";
            for await (const part of response.setEncoding("utf8")) text += part;
            resolve(`${text} ${response.statusCode}`);
        });
        request.on("error", reject);
        if (chunked) Readable.from(pieces(body)).pipe(request);
        else request.end(body);
    });
}

async function fetched(path, { method = "POST", body, chunked, close }) {
    const headers = close ? { connection: "close" } : {};
    const sent = chunked ? Readable.toWeb(Readable.from(pieces(body))) : body;
    const response = await fetch(url + path, { method, body: sent, headers, ...(chunked && { duplex: "half" }) });
    return `${await response.text()} ${response.status}`;
}

const load = (name) => import(pathToFileURL(createRequire(`${process.cwd()}/`).resolve(name)));
const framed = ({ body, chunked }) => (chunked ? Readable.from(pieces(body), { objectMode: false }) : body);
const closing = ({ close }) => (close ? { connection: "close" } : {});

async function undici() {
    const { request } = await load("undici");
    return async (path, options) => {
        const { method = "POST" } = options;
        const answer = await request(url + path, { method, body: framed(options), headers: closing(options) });
        return `${await answer.body.text()} ${answer.statusCode}`;
    };
}

async function axios() {
    const { default: axios } = await load("axios");
    return async (path, options) => {
        const { method = "POST" } = options;
        const how = { method, data: framed(options), headers: closing(options), maxRedirects: 0 };
        const answer = await axios(url + path, { ...how, validateStatus: null, httpAgent: new http.Agent() });
        return `${answer.data} ${answer.status}`;
    };
}

async function got() {
    const { default: got } = await load("got");
    return async (path, options) => {
        const { method = "POST" } = options;
        const how = { method, body: framed(options), headers: closing(options), retry: { limit: 0 } };
        const answer = await got(url + path, { ...how, throwHttpErrors: false });
        return `${answer.body} ${answer.statusCode}`;
    };
}

const packaged = { undici, axios, got }[client];
const send = packaged ? await packaged() : client === "fetch" ? fetched : core;
const print = async (label, path, options) => console.log(`${label} ${await send(path, options)}`);

await print("GET", "/get", { method: "GET" });
for (const file of files) {
    const body = readFileSync(file);
    await print(`plain ${basename(file)}`, "/plain", { body });
    await print(`chunked ${basename(file)}`, "/chunked", { body, chunked: true });
}
const body = readFileSync(files.at(-1));
await print("kept plain", "/refused/401", { body });
await print("kept chunked", "/refused/404", { body, chunked: true });
await print("closed plain", "/refused/413", { body, close: true });
await print("closed chunked", "/refused/429", { body, chunked: true, close: true });
await print("after", "/after", { method: "GET" });
agent && agent.destroy();
