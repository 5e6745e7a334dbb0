"use strict";
// Finding the function that `folder/file.name` means, in CommonJS and in ECMAScript modules.

const { readFileSync, statSync } = require("node:fs");
const Module = require("node:module");
const { delimiter, dirname, join, relative } = require("node:path");
const { pathToFileURL } = require("node:url");
const { ENTRY, configError, failure, loadError } = require("./node_failures.cjs");

const EXTENSIONS = [".js", ".cjs", ".mjs"];

class Loader {
  /** `layers` are folders of dependencies, which are searched in this order after what lies beside the code. */
  constructor(root, layers) {
    this.root = root;
    this.layers = layers;
    this.importsHooked = layers.length === 0;
    if (layers.length > 0) addToRequire(layers);
  }

  /** The exported function. Throws Failure. */
  async load(entry) {
    const dot = entry.lastIndexOf(".");
    const path = entry.slice(0, Math.max(dot, 0)).replace(/^\/+/, "");
    const name = entry.slice(dot + 1);
    if (!path || !name) throw configError(`'${entry}' is no handler, write file.function`);
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

/** As Node.js decides it: by the extension, else by the nearest package.json. */
function isModule(file, root) {
  if (!file.endsWith(".js")) return file.endsWith(".mjs");
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    const description = join(folder, "package.json");
    if (isFile(description)) {
      try {
        return JSON.parse(readFileSync(description, "utf8")).type === "module";
      } catch {
        return false; // Node.js will say what is wrong with it
      }
    }
    if (folder === root || folder === dirname(folder)) return false;
  }
}

/** A dependency's archive holds node_modules, or nodejs/node_modules, or is one itself. */
function addToRequire(layers) {
  const folders = layers.flatMap((layer) => [join(layer, "node_modules"), join(layer, "nodejs", "node_modules"), layer]);
  const known = process.env.NODE_PATH;
  process.env.NODE_PATH = [...folders, ...(known ? [known] : [])].join(delimiter); // for programs that it starts, too
  Module._initPaths(); // Node.js itself reads the variable at its start only
}

/** `import` knows no NODE_PATH. This costs a thread of Node.js's own, and is there from 18.19 and 20.6 on. */
function addToImport(layers) {
  const parents = layers.flatMap((layer) => [join(layer, "x"), join(layer, "nodejs", "x")]);
  const data = parents.map((path) => pathToFileURL(path).href);
  Module.register?.(pathToFileURL(join(__dirname, "node_import_hooks.mjs")), { data });
}

module.exports = { Loader };
