"use strict";
// Lookup of the function named by `folder/file.name`, in CommonJS and ECMAScript modules.

const { readFileSync, statSync } = require("node:fs");
const Module = require("node:module");
const { delimiter, dirname, join, relative } = require("node:path");
const { pathToFileURL } = require("node:url");
const { ENTRY, configError, failure, loadError } = require("./node_failures.cjs");

const EXTENSIONS = [".js", ".cjs", ".mjs"];

class Loader {
  /** `layers` are folders of dependencies, searched in this order after the folders of the code. */
  constructor(root, layers) {
    this.root = root;
    this.layers = layers;
    this.importsHooked = layers.length === 0;
    if (layers.length > 0) addToRequire(layers);
  }

  /** Return the exported function. Throws Failure. */
  async load(entry) {
    const dot = entry.lastIndexOf(".");
    const path = entry.slice(0, Math.max(dot, 0)).replace(/^\/+/, "");
    const name = entry.slice(dot + 1);
    if (!path || !name) throw configError(`'${entry}' is not a handler; write file.function`);
    const file = EXTENSIONS.map((extension) => join(this.root, path + extension)).find(isFile);
    if (file === undefined) throw loadError(`there is no file ${path}.js, .cjs or .mjs for the handler '${entry}'`);
    const exported = await this.evaluate(file);
    const found = exported?.[name] ?? exported?.default?.[name];
    if (typeof found !== "function") {
      throw configError(`there is no exported function '${name}' in ${relative(this.root, file)}`);
    }
    return found;
  }

  async evaluate(file) {
    try {
      if (!isModule(file, this.root)) return Module.createRequire(file)(file);
      if (!this.importsHooked) addToImport(this.layers);
      this.importsHooked = true;
      return await import(pathToFileURL(file));
    } catch (error) {
      throw failure(ENTRY, error, "FunctionLoadError");
    }
  }
}

function isFile(path) {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** Return whether the file is an ECMAScript module: by its extension, else by the nearest package.json. */
function isModule(file, root) {
  if (!file.endsWith(".js")) return file.endsWith(".mjs");
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    const description = join(folder, "package.json");
    if (isFile(description)) {
      try {
        return JSON.parse(readFileSync(description, "utf8")).type === "module";
      } catch {
        return false; // Node.js reports the error
      }
    }
    if (folder === root || folder === dirname(folder)) return false;
  }
}

/** Add layers to `require`. A layer contains node_modules or nodejs/node_modules, or is such a folder itself. */
function addToRequire(layers) {
  const within = (layer) => [join(layer, "node_modules"), join(layer, "nodejs", "node_modules"), layer];
  const folders = layers.flatMap(within);
  const existing = process.env.NODE_PATH;
  // Also for programs that the function starts.
  process.env.NODE_PATH = [...folders, ...(existing ? [existing] : [])].join(delimiter);
  Module._initPaths(); // Node.js reads the variable only at its start
}

/** Add layers to `import`, which ignores NODE_PATH. Starts a thread. No effect before Node.js 18.19 and 20.6. */
function addToImport(layers) {
  const parents = layers.flatMap((layer) => [join(layer, "x"), join(layer, "nodejs", "x")]);
  const data = parents.map((path) => pathToFileURL(path).href);
  Module.register?.(pathToFileURL(join(__dirname, "node_import_hooks.mjs")), { data });
}

module.exports = { Loader };
